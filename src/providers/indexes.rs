//! The indexes of the vector store: one that holds the data of all tenants, or one for each region. Which one a
//! tenant's data is in follows from its region; a namespace's name is the same nowhere else, so that it can be deleted
//! everywhere.

use std::collections::BTreeMap;

use super::ProviderError;
use super::vector_store::VectorStore;
use crate::lifecycle::{Blame, Fault, Provider, Regions};

/// A client for each index.
#[derive(Debug)]
pub enum Indexes {
    /// One index for everything.
    One(Box<dyn VectorStore>),
    /// The indexes by region.
    Each(BTreeMap<String, Box<dyn VectorStore>>),
}

impl Indexes {
    /// The index of a region.
    ///
    /// # Errors
    ///
    /// No index is set for the region. An admin has to configure one.
    pub fn of(&self, region: Option<&str>) -> Result<&dyn VectorStore, ProviderError> {
        let indexes = match self {
            Self::One(index) => return Ok(&**index),
            Self::Each(indexes) => indexes,
        };
        let region = region.unwrap_or_default();
        indexes.get(region).map(|index| &**index).ok_or_else(|| ProviderError {
            provider: Provider::VectorStore,
            status: None,
            reason: Fault::RegionUnsupported,
            message: format!("has no index for region {region:?}: name one in PINECONE_REGIONS"),
            blame: Blame::Admin,
            retryable: true,
            retry_after: None,
            tokens: None,
        })
    }

    /// All of them, with their regions.
    pub fn each(&self) -> Vec<(Option<&str>, &dyn VectorStore)> {
        match self {
            Self::One(index) => vec![(None, &**index)],
            Self::Each(indexes) => indexes.iter().map(|(region, index)| (Some(&**region), &**index)).collect(),
        }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &dyn VectorStore> + Send + '_ {
        self.each().into_iter().map(|(_, index)| index)
    }

    /// Asks for the addresses of all of them.
    pub async fn prepare(&self) {
        let asked = self.all().map(VectorStore::prepare);
        // An error is dropped: the next caller that needs the index asks again and reports it.
        drop(futures::future::join_all(asked).await);
    }

    /// Returns when one that was away is back.
    pub async fn back(&self) {
        let callers = self.all().map(|index| Box::pin(index.caller().back()));
        futures::future::select_all(callers).await;
    }

    /// The regions that have an index of their own.
    pub fn regions(&self) -> Regions {
        match self {
            Self::One(_) => Regions::default(),
            Self::Each(indexes) => indexes.keys().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::providers::CallLimits;
    use crate::providers::pinecone::{Pinecone, PineconeConfig};

    fn index() -> Box<dyn VectorStore> {
        // The first one wins, whichever test it is.
        drop(rustls::crypto::ring::default_provider().install_default());
        let calls = CallLimits { per_second: std::num::NonZeroU32::MIN, timeout: Duration::from_secs(1), retries: 0 };
        let config =
            PineconeConfig { url: "http://127.0.0.1:1".into(), api_key: "x".into(), index: "all".into(), calls };
        Box::new(Pinecone::new(config))
    }

    #[test]
    fn one_index_holds_all_regions_unless_each_has_its_own() {
        let one = Indexes::One(index());
        assert!(one.of(None).is_ok() && one.of(Some("mars-1")).is_ok() && one.regions().is_empty());
        let each = Indexes::Each(["us", "eu"].map(|region| (region.into(), index())).into());
        assert_eq!(each.all().count(), 2);
        assert!(
            each.of(Some("eu")).is_ok()
                && !std::ptr::eq(each.of(Some("eu")).expect("one"), each.of(Some("us")).expect("one"))
        );
        for region in [None, Some("mars-1")] {
            let error = each.of(region).expect_err("no index");
            assert!(error.retryable && error.message.contains("PINECONE_REGIONS"), "{error:?}");
        }
        assert_eq!(each.regions().unsupported("basic", "eu"), None);
        assert!(each.regions().unsupported("basic", "mars-1").is_some_and(|why| why.contains("(eu, us)")));
    }
}
