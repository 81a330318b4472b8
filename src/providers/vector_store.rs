//! What the operator needs of a vector store. A store has indexes; an index has namespaces, one for each tenant; a
//! namespace has vectors, which queries of other namespaces never find. `tests/contracts` judges an implementation.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::gate::Gate;
use super::{Caller, ProviderError};
use crate::lifecycle::Provider;

/// What a failure of a vector store names, and what messages call it.
pub const PROVIDER: Provider = Provider::VectorStore;

/// One index of a vector store. What was written may become visible a moment later. Errors say whether a retry can help
/// and who can fix the cause.
#[async_trait]
pub trait VectorStore: fmt::Debug + Send + Sync {
    /// The calls to the store, which show whether it is away.
    fn caller(&self) -> &Caller;

    /// Lets calls that read or write vectors through, or not.
    fn gate(&self) -> &Gate;

    /// Which index this is, as the store says.
    async fn identity(&self) -> Result<IndexIdentity, ProviderError>;

    /// Lets calls to this index through. True if it did not before.
    fn admit(&self, index: &IndexIdentity) -> bool;

    /// Learns what calls need, such as a host, unless it is known. A call that comes meanwhile fails, and can be
    /// retried.
    async fn prepare(&self) -> Result<(), ProviderError>;

    /// The length of the index's vectors, once it is known.
    fn dimension(&self) -> Option<u64>;

    /// Creates a namespace. Succeeds if it exists. Where the account has no room for another one, the error is
    /// [`Fault::QuotaExceeded`](crate::lifecycle::Fault::QuotaExceeded).
    async fn create_namespace(&self, name: &str) -> Result<(), ProviderError>;

    /// The namespaces whose names begin with `prefix`, and how many vectors each holds.
    async fn namespaces(&self, prefix: &str) -> Result<BTreeMap<String, u64>, ProviderError>;

    /// The number of vectors in a namespace. None if it does not exist.
    async fn count(&self, namespace: &str) -> Result<Option<u64>, ProviderError>;

    /// Deletes a namespace with its vectors. Succeeds if it does not exist.
    async fn delete_namespace(&self, name: &str) -> Result<(), ProviderError>;

    /// Stores vectors, in as many calls as the store's limits ask for; the same id again replaces.
    async fn upsert(&self, namespace: &str, vectors: &[Vector]) -> Result<(), ProviderError>;

    /// Vectors as they were stored, by their ids. Leaves out vectors that do not exist.
    async fn fetch(&self, namespace: &str, ids: &[String]) -> Result<BTreeMap<String, Vector>, ProviderError>;

    /// A page of at most `limit` (100) ids that begin with `prefix`, and where the next page begins.
    async fn list(
        &self,
        namespace: &str,
        prefix: &str,
        limit: usize,
        after: Option<&str>,
    ) -> Result<(Vec<String>, Option<String>), ProviderError>;

    /// Deletes vectors. Ignores those that do not exist.
    async fn delete(&self, namespace: &str, ids: &[String]) -> Result<(), ProviderError>;

    /// The `top_k` nearest vectors of a namespace, nearest first.
    async fn query(&self, namespace: &str, vector: &Values, top_k: usize) -> Result<Vec<Match>, ProviderError>;

    /// Those of these ids that a namespace does not hold.
    async fn missing(&self, namespace: &str, mut ids: Vec<String>) -> Result<Vec<String>, ProviderError> {
        if !ids.is_empty() {
            let there = self.fetch(namespace, &ids).await?;
            ids.retain(|id| !there.contains_key(id));
        }
        Ok(ids)
    }
}

/// What is kept beside a vector.
pub type Metadata = BTreeMap<String, Value>;

/// A vector.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Vector {
    /// Its id in the namespace.
    pub id: String,
    /// Its values.
    pub values: Values,
    /// What is kept beside it.
    #[serde(default)]
    pub metadata: Metadata,
}

impl Vector {
    /// A text of its metadata.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.metadata.get(name)?.as_str()
    }
}

/// The values of a vector as JSON: encoded once, sent for every tenant that has the document.
#[derive(Clone, Debug)]
pub struct Values(Arc<RawValue>);

impl Values {
    /// Encodes them.
    pub fn encode(values: &[f32]) -> Result<Self, ProviderError> {
        Ok(Self(to_raw_value(values).map_err(|e| ProviderError::garbage(PROVIDER, e))?.into()))
    }

    /// An array of numbers in JSON.
    pub fn json(&self) -> &str {
        self.0.get()
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|raw| Self(raw.into()))
    }
}

/// A vector that a query found.
#[derive(Clone, Debug, Deserialize)]
pub struct Match {
    /// Its id.
    pub id: String,
    /// Cosine similarity.
    #[serde(default)]
    pub score: f32,
    /// What is kept beside it.
    #[serde(default)]
    pub metadata: Metadata,
}

/// Which index it is. One that is created again under its name is another one, and has another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexIdentity {
    /// Its name.
    pub index: String,
    /// Where its vectors are.
    pub host: String,
    /// The length of its vectors.
    pub dimension: u64,
}

impl fmt::Display for IndexIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index {} at {} with {} dimensions", self.index, self.host, self.dimension)
    }
}
