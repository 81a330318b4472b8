//! Which Stripe account and which indexes the tenants are in, recorded at the first start. A key of another
//! account or mode knows none of the customers, and an index that was created again holds none of the documents. Acting on their
//! answers would suspend all tenants and lose their documents.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::lifecycle::{Blame, Fault, Provider};
use crate::providers::ProviderError;
use crate::providers::indexes::Indexes;
use crate::providers::stripe::{Identity, Stripe};
use crate::providers::vector_store::IndexIdentity;

/// The `ConfigMap` in the operator's namespace.
pub const PINS: &str = "tenant-operator-pins";
const STRIPE: &str = "stripe";
const INDEX: &str = "pinecone";

/// How often the pins are read while all is as they say, and while it is not.
const CALM: Duration = Duration::from_secs(30);
const EAGER: Duration = Duration::from_secs(2);

/// How often a check looks again at once because the pins were written in between. At the first start the check of Stripe and
/// that of the indexes pin at the same time.
const AGAIN: usize = 5;

/// A region with an index of its own. None if one index holds the data of all regions.
pub type Region = Option<String>;

/// What is pinned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// The account and the mode of Stripe.
    pub stripe: Option<Identity>,
    /// The index of each region.
    pub indexes: BTreeMap<Region, IndexIdentity>,
    namespace: String,
    version: Option<String>,
}

/// Why the pins cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Kubernetes.
    #[error("ConfigMap {PINS}: {0}")]
    Kube(#[from] kube::Error),
    /// An entry that the operator did not write.
    #[error(
        "ConfigMap {PINS}: the entry {entry:?} cannot be read ({error}). Write it again with `kubectl tenant pin --operator-namespace \
         {namespace} ...`; its --help names the arguments"
    )]
    Unreadable {
        /// Its name.
        entry: String,
        /// Where the `ConfigMap` is.
        namespace: String,
        /// What is wrong with it.
        error: serde_json::Error,
    },
}

impl PinError {
    /// Whether another writer changed the pins since they were read.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Kube(kube::Error::Api(e)) if e.code == 409)
    }
}

/// What a look at the pins says of something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is as pinned.
    Same,
    /// Nothing is pinned yet.
    New,
    /// It is something else. What, and the fix.
    Another {
        /// A sentence.
        what: String,
        /// A sentence.
        fix: String,
    },
}

fn key(region: Option<&str>) -> String {
    region.map_or_else(|| INDEX.to_owned(), |region| format!("{INDEX}.{region}"))
}

fn api(client: &Client, namespace: &str) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), namespace)
}

impl Pins {
    /// Reads what is pinned. Fails if an entry cannot be read.
    pub async fn read(client: &Client, namespace: &str) -> Result<Self, PinError> {
        let (pins, unreadable) = Self::read_each(client, namespace).await?;
        unreadable.into_iter().next().map_or(Ok(pins), Err)
    }

    /// Reads what is pinned, and which entries cannot be read. Only a person may go on without them.
    pub async fn read_each(client: &Client, namespace: &str) -> Result<(Self, Vec<PinError>), PinError> {
        let mut pins = Self { namespace: namespace.into(), ..Self::default() };
        let mut unreadable = Vec::new();
        let Some(map) = api(client, namespace).get_opt(PINS).await? else { return Ok((pins, unreadable)) };
        pins.version = map.resource_version();
        for (entry, value) in map.data.unwrap_or_default() {
            let read = if entry == STRIPE {
                serde_json::from_str(&value).map(|account| pins.stripe = Some(account))
            } else if let Some(rest) = entry.strip_prefix(INDEX) {
                let region = rest.strip_prefix('.').map(str::to_owned);
                serde_json::from_str(&value).map(|index| drop(pins.indexes.insert(region, index)))
            } else {
                Ok(())
            };
            let namespace = namespace.to_owned();
            unreadable.extend(read.err().map(|error| PinError::Unreadable { entry, namespace, error }));
        }
        Ok((pins, unreadable))
    }

    /// The command that pins something, up to its arguments.
    fn command(&self) -> String {
        format!("kubectl tenant pin --operator-namespace {}", self.namespace)
    }

    /// Pins an account, unless the pins were changed since they were read.
    pub async fn pin_stripe(&self, client: &Client, namespace: &str, account: &Identity) -> Result<(), PinError> {
        self.write(client, namespace, STRIPE, json!(account).to_string()).await
    }

    /// Pins the index of a region, unless the pins were changed since they were read.
    pub async fn pin_index(
        &self,
        client: &Client,
        namespace: &str,
        region: Option<&str>,
        index: &IndexIdentity,
    ) -> Result<(), PinError> {
        self.write(client, namespace, &key(region), json!(index).to_string()).await
    }

    async fn write(&self, client: &Client, namespace: &str, key: &str, value: String) -> Result<(), PinError> {
        let api = api(client, namespace);
        if let Some(version) = &self.version {
            let change = json!({"metadata": {"resourceVersion": version}, "data": {key: value}});
            api.patch(PINS, &PatchParams::default(), &Patch::Merge(change)).await?;
        } else {
            let metadata = ObjectMeta { name: Some(PINS.into()), ..ObjectMeta::default() };
            let data = Some(BTreeMap::from([(key.to_owned(), value)]));
            api.create(&PostParams::default(), &ConfigMap { metadata, data, ..ConfigMap::default() }).await?;
        }
        Ok(())
    }

    /// Whether this is the account that the tenants pay.
    pub fn compare_stripe(&self, found: &Identity) -> Finding {
        match &self.stripe {
            None => Finding::New,
            Some(pinned) if pinned == found => Finding::Same,
            Some(pinned) => Finding::Another {
                what: format!("the key is of {found}, and the tenants pay to {pinned}: nothing is done at Stripe"),
                fix: format!(
                    "Correct STRIPE_SECRET_KEY. To change the account on purpose, run `{} --stripe-account {} --livemode {}`",
                    self.command(),
                    found.account,
                    found.livemode
                ),
            },
        }
    }

    /// Whether these are the indexes that the tenants' documents are in. If regions are added or removed, the index that holds the
    /// documents stays in use.
    pub fn compare_index(&self, region: Option<&str>, found: &BTreeMap<Region, IndexIdentity>) -> Finding {
        let region = region.map(str::to_owned);
        let Some(here) = found.get(&region) else { return Finding::New };
        let pinned = match (self.indexes.get(&region), self.indexes.get(&None)) {
            // One index for all, of which there may have been several before.
            _ if region.is_none() => self.indexes.values().find(|pinned| *pinned != here),
            (Some(pinned), _) => Some(pinned).filter(|pinned| *pinned != here),
            // One index becomes one of several.
            (None, Some(all)) => Some(all).filter(|all| !found.values().any(|index| index == *all)),
            (None, None) => None,
        };
        match pinned {
            None if self.indexes.contains_key(&region) => Finding::Same,
            None => Finding::New,
            Some(pinned) => Finding::Another {
                what: format!(
                    "the key reaches {here}, and the tenants' documents are in {pinned}: nothing is done there"
                ),
                fix: format!(
                    "Correct PINECONE_API_KEY, PINECONE_INDEX and PINECONE_REGIONS, or restore the index from a backup. To use \
                     this index on purpose, run `{} --pinecone-index {} --pinecone-host {} --dimension {}{}`",
                    self.command(),
                    here.index,
                    here.host,
                    here.dimension,
                    region.map_or_else(String::new, |region| format!(" --region {region}"))
                ),
            },
        }
    }
}

fn refused(provider: Provider, reason: Fault, what: &str, fix: &str) -> ProviderError {
    ProviderError {
        provider,
        status: None,
        reason,
        message: format!("{what}. {fix}"),
        blame: Blame::Mismatch,
        retryable: true,
        retry_after: None,
    }
}

/// Compares what the keys reach with the pins, for as long as it runs.
#[derive(Clone)]
pub struct Keeper {
    /// A client of the cluster.
    pub client: Client,
    /// The operator's namespace.
    pub namespace: String,
    /// Whether to pin an account or index that is not pinned yet. Only the controller does.
    pub pins: bool,
}

impl Keeper {
    /// Checks the account behind Stripe's key. True when the answer to calls has changed.
    pub async fn check_stripe(&self, stripe: &Stripe) -> bool {
        match self.compare_stripe(stripe).await {
            Ok(Finding::Another { what, fix }) => {
                stripe.gate().close(refused(Provider::Stripe, Fault::AccountMismatch, &what, &fix))
            }
            Ok(Finding::Same | Finding::New) => stripe.gate().open(),
            Err(error) => self.failed(stripe.gate().is_open(), error, |error| stripe.gate().unchecked(error)),
        }
    }

    async fn compare_stripe(&self, stripe: &Stripe) -> Result<Finding, CheckError> {
        let found = stripe.identity().await?;
        let mut again = 0;
        loop {
            let pins = Pins::read(&self.client, &self.namespace).await?;
            let finding = pins.compare_stripe(&found);
            if finding != Finding::New || !self.pins {
                return Ok(finding);
            }
            match pins.pin_stripe(&self.client, &self.namespace, &found).await {
                Err(error) if error.is_conflict() && again < AGAIN => again += 1,
                Err(error) => return Err(error.into()),
                Ok(()) => {
                    tracing::info!(%found, "Stripe's account is pinned");
                    return Ok(finding);
                }
            }
        }
    }

    /// Checks the indexes. True when the answer to calls has changed.
    pub async fn check_indexes(&self, indexes: &Indexes) -> bool {
        let mut found = BTreeMap::new();
        let mut changed = false;
        for (region, index) in indexes.each() {
            match index.identity().await {
                Ok(there) => drop(found.insert(region.map(str::to_owned), there)),
                Err(error) => {
                    changed |= self.failed(index.gate().is_open(), error.into(), |error| index.gate().unchecked(error));
                }
            }
        }
        for (region, index) in indexes.each() {
            changed |= match self.compare_index(region, &found).await {
                Ok(None) => false,
                Ok(Some(Finding::Another { what, fix })) => {
                    index.gate().close(refused(Provider::VectorStore, Fault::IndexMismatch, &what, &fix))
                }
                Ok(Some(Finding::Same | Finding::New)) => {
                    found.get(&region.map(str::to_owned)).is_some_and(|there| index.admit(there))
                }
                Err(error) => self.failed(index.gate().is_open(), error, |error| index.gate().unchecked(error)),
            };
        }
        changed
    }

    /// None if the store did not say which index it is.
    async fn compare_index(
        &self,
        region: Option<&str>,
        found: &BTreeMap<Region, IndexIdentity>,
    ) -> Result<Option<Finding>, CheckError> {
        let Some(here) = found.get(&region.map(str::to_owned)) else { return Ok(None) };
        let mut again = 0;
        loop {
            let pins = Pins::read(&self.client, &self.namespace).await?;
            let finding = pins.compare_index(region, found);
            if finding != Finding::New || !self.pins {
                return Ok(Some(finding));
            }
            match pins.pin_index(&self.client, &self.namespace, region, here).await {
                Err(error) if error.is_conflict() && again < AGAIN => again += 1,
                Err(error) => return Err(error.into()),
                Ok(()) => {
                    tracing::info!(region, index = %here, "{}'s index is pinned", Provider::VectorStore);
                    return Ok(Some(finding));
                }
            }
        }
    }

    /// A check that failed says nothing new of what was checked before.
    fn failed(&self, was_open: bool, error: CheckError, close: impl FnOnce(ProviderError) -> bool) -> bool {
        tracing::debug!(%error, pins = self.pins, "the pins were not compared; retrying");
        match error {
            _ if was_open => false,
            CheckError::Provider(error) => close(error),
            CheckError::Pins(error) => close(ProviderError {
                provider: Provider::Kubernetes,
                status: None,
                reason: Fault::PinsUnread,
                message: error.to_string(),
                blame: Blame::Outage,
                retryable: true,
                retry_after: None,
            }),
        }
    }

    /// Checks again and again. `changed` is called after each check that changed the answer to calls.
    pub async fn keep(&self, stripe: Option<&Stripe>, indexes: &Indexes, changed: impl Fn()) {
        loop {
            let (of_stripe, of_indexes) = tokio::join!(
                async {
                    match stripe {
                        Some(stripe) => self.check_stripe(stripe).await,
                        None => false,
                    }
                },
                self.check_indexes(indexes)
            );
            if of_stripe || of_indexes {
                changed();
            }
            let calm = stripe.is_none_or(|stripe| stripe.gate().is_open())
                && indexes.all().all(|index| index.gate().is_open());
            tokio::time::sleep(if calm { CALM } else { EAGER }).await;
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error(transparent)]
    Pins(#[from] PinError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(account: &str, livemode: bool) -> Identity {
        Identity { account: account.into(), livemode }
    }

    fn index(name: &str, host: &str) -> IndexIdentity {
        IndexIdentity { index: name.into(), host: host.into(), dimension: 1536 }
    }

    fn of(all: &[(Option<&str>, IndexIdentity)]) -> BTreeMap<Region, IndexIdentity> {
        all.iter().map(|(region, index)| (region.map(str::to_owned), index.clone())).collect()
    }

    #[test]
    fn another_account_or_mode_is_refused_with_the_command_that_changes_it() {
        let pins = Pins { stripe: Some(account("acct_1", true)), namespace: "rag".into(), ..Pins::default() };
        assert_eq!(pins.compare_stripe(&account("acct_1", true)), Finding::Same);
        assert_eq!(Pins::default().compare_stripe(&account("acct_1", true)), Finding::New);
        for other in [account("acct_2", true), account("acct_1", false)] {
            let Finding::Another { what, fix } = pins.compare_stripe(&other) else { panic!("refused: {other}") };
            assert!(
                what.contains("acct_1 (live mode)")
                    && fix.contains("kubectl tenant pin --operator-namespace rag --stripe-account"),
                "{what} {fix}"
            );
        }
    }

    #[test]
    fn an_index_of_another_name_host_or_dimension_is_refused() {
        let pins = Pins { indexes: of(&[(None, index("rag", "a"))]), ..Pins::default() };
        let found = |there: IndexIdentity| pins.compare_index(None, &of(&[(None, there)]));
        assert_eq!(found(index("rag", "a")), Finding::Same);
        let anew = [index("rag", "b"), index("other", "a"), IndexIdentity { dimension: 3072, ..index("rag", "a") }];
        for there in anew {
            assert!(matches!(found(there.clone()), Finding::Another { .. }), "{there}");
        }
    }

    #[test]
    fn the_index_of_all_regions_stays_in_use_when_regions_are_added_or_merged() {
        let one = Pins { indexes: of(&[(None, index("rag", "a"))]), ..Pins::default() };
        let (us, eu) = ((Some("us"), index("rag", "a")), (Some("eu"), index("rag-eu", "b")));
        let both = of(&[us.clone(), eu.clone()]);
        assert_eq!(one.compare_index(Some("us"), &both), Finding::New);
        assert_eq!(one.compare_index(Some("eu"), &both), Finding::New);
        let without = of(&[(Some("us"), index("fresh", "c")), eu.clone()]);
        assert!(matches!(one.compare_index(Some("us"), &without), Finding::Another { .. }));
        let several = Pins { indexes: of(&[us.clone(), eu]), ..Pins::default() };
        assert!(
            matches!(several.compare_index(None, &of(&[(None, us.1)])), Finding::Another { .. }),
            "one is left out"
        );
        assert_eq!(several.compare_index(Some("ap"), &of(&[(Some("ap"), index("rag-ap", "d"))])), Finding::New);
    }
}
