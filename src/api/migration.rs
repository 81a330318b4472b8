//! Where a tenant's data is, and how it moves when it is to be embedded with another model or kept in another region.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Text, Timestamp};

/// Where a tenant's data is, and what it was embedded with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Data {
    /// The generation of its Pinecone namespace. It increases each time all documents are embedded with another model or kept
    /// in another region.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub generation: u32,
    /// The embedding model of the vectors in that namespace.
    #[schemars(length(min = 1, max = 200))]
    pub embedding: Text,
    /// The region of the index that the namespace is in, where the operator has an index for each region. Default: that of
    /// the Plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<Text>,
}

/// Which of a Plan's embedding models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum EmbeddingSize {
    /// The Plan's `models.embedding`.
    #[default]
    Small,
    /// The Plan's `models.embeddingLarge`.
    Large,
}

/// A move of a tenant's data to a new Pinecone namespace: embedded with another model, or kept in another region.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Migration {
    /// The generation of the new namespace.
    #[schemars(range(min = 1, max = 1_000_001))]
    pub generation: u32,
    /// The embedding model of the new vectors.
    pub embedding: Text,
    /// The region of the new namespace, where the operator has an index for each region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Text>,
    /// How far it is. The condition `DataMigrated` says why.
    pub state: MigrationState,
    /// When it began.
    pub started_at: Timestamp,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// How many vectors were compared and copied.
    #[serde(default)]
    pub vectors: u64,
    /// The value of the annotation `tenant-operator.dev/retry` when it failed. A new value tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_token: Option<String>,
}

/// How far a move of data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum MigrationState {
    /// Documents are embedded again, beside the old ones. Questions are answered from the old ones.
    Copying,
    /// All are copied.
    Copied,
    /// What changed meanwhile is copied. Uploads wait for it.
    Switching,
    /// Questions are answered from the new vectors. The old ones are kept for a while.
    Switched,
    /// It failed, and the new vectors are deleted. Questions are answered from the old ones.
    Failed,
}
