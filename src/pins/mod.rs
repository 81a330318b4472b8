//! Which Stripe account and which indexes the tenants are in, recorded at the first start. A key of another account or
//! mode knows none of the customers, and an index that was created again holds none of the documents. Acting on their
//! answers would suspend all tenants and lose their documents.

mod compare;
mod keeper;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

pub use compare::Finding;
pub use keeper::Keeper;

use crate::providers::stripe::Identity;
use crate::providers::vector_store::IndexIdentity;

/// The `ConfigMap` in the operator's namespace.
pub const PINS: &str = "tenant-operator-pins";
const STRIPE: &str = "stripe";
const INDEX: &str = "pinecone";

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
        "ConfigMap {PINS}: the entry {entry:?} cannot be read ({error}). Write it again with `kubectl tenant pin \
         --operator-namespace {namespace} ...`; its --help names the arguments"
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
}
