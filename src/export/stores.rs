//! Where the exports of tenants are kept: one storage for all, or others for some regions.

use std::collections::BTreeMap;

use super::{ExportError, Store};

/// The storage of each region.
#[derive(Clone, Debug, Default)]
pub struct Stores {
    /// Of all regions that have none of their own.
    others: Option<Store>,
    regions: BTreeMap<String, Store>,
}

impl Stores {
    /// Opens them all: the URL of the storage for all regions but those that are named with their own.
    ///
    /// # Errors
    ///
    /// A URL says nothing that can be opened. Trying again does not help.
    pub fn open(others: Option<&str>, regions: &[(String, String)]) -> Result<Self, ExportError> {
        let own = |(region, url): &(String, String)| Ok((region.clone(), Store::open(url, Some(region))?));
        Ok(Self {
            others: others.map(|url| Store::open(url, None)).transpose()?,
            regions: regions.iter().map(own).collect::<Result<_, ExportError>>()?,
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.others.is_none() && self.regions.is_empty()
    }

    /// Where exports of tenants of a region go.
    pub fn of(&self, region: Option<&str>) -> Option<&Store> {
        region.and_then(|region| self.regions.get(region)).or(self.others.as_ref())
    }

    /// Where an export is, by its folder: its tenant may have moved to another region since.
    pub fn holding(&self, folder: &str) -> Option<&Store> {
        self.each().filter(|store| store.holds(folder)).max_by_key(|store| store.url().len())
    }

    /// All of them.
    pub fn each(&self) -> impl Iterator<Item = &Store> + Send {
        self.others.iter().chain(self.regions.values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_go_to_their_region_and_are_found_where_they_went() {
        let folder = std::env::temp_dir().join(format!("stores-{}", std::process::id()));
        let url = |name: &str| format!("file://{}", folder.join(name).display());
        let eu = ("eu-central-1".to_owned(), url("all/eu"));
        let stores = Stores::open(Some(&url("all")), &[eu]).expect("they open");
        let of = |region| stores.of(region).expect("one").url().to_owned();
        assert_eq!(
            (of(Some("eu-central-1")), of(Some("us-east-1")), of(None)),
            (url("all/eu"), url("all"), url("all"))
        );
        let held = |path: &str| stores.holding(path).map(|store| store.url().to_owned());
        assert_eq!(held(&format!("{}/t1/a", url("all/eu"))), Some(url("all/eu")), "not what it is a folder of");
        assert_eq!(held(&format!("{}/t1/a", url("all"))), Some(url("all")));
        assert_eq!(held(&format!("{}/t1/a", url("alls"))), None);
        assert!(Stores::default().is_empty() && Stores::default().of(Some("eu-central-1")).is_none());
        let alone = Stores::open(None, &[("eu-central-1".to_owned(), url("all/eu"))]).expect("it opens");
        assert!(!alone.is_empty() && alone.of(Some("us-east-1")).is_none());
        std::fs::remove_dir_all(folder).expect("removed");
    }
}
