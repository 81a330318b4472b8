//! Where a tenant's data is, and how it moves when it is to be embedded with another model or kept in another region.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Text, Timestamp};

/// Where a tenant's data is stored, and the model that it was embedded with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Data {
    /// The generation of the Pinecone namespace. It increases each time all documents are embedded with another model
    /// or move to another region.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub generation: u32,
    /// The embedding model of the vectors in that namespace.
    #[schemars(length(min = 1, max = 200))]
    pub embedding: Text,
    /// The region of the namespace's index, if the operator has an index for each region. Default: the region of the
    /// Plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<Text>,
}

/// One of a Plan's embedding models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum EmbeddingSize {
    /// The Plan's `models.embedding`.
    #[default]
    Small,
    /// The Plan's `models.embeddingLarge`.
    Large,
}

/// A move of a tenant's data to a new Pinecone namespace, for another embedding model or another region.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Migration {
    /// The generation of the new namespace.
    #[schemars(range(min = 1, max = 1_000_001))]
    pub generation: u32,
    /// The embedding model of the new vectors.
    pub embedding: Text,
    /// The region of the new namespace's index, if the operator has an index for each region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Text>,
    /// The state of the move. The condition `DataMigrated` says why.
    pub state: MigrationState,
    /// When the move began.
    pub started_at: Timestamp,
    /// When the move entered this state.
    pub since: Timestamp,
    /// The number of vectors that were compared and copied.
    #[serde(default)]
    pub vectors: u64,
    /// The value of the annotation `tenant-operator.dev/retry` when the move failed. A new value tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_token: Option<String>,
}

/// The state of a move of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum MigrationState {
    /// Documents are being copied to the new namespace. Questions are answered from the old vectors.
    Copying,
    /// All documents are copied.
    Copied,
    /// Documents that changed during the copy are being copied. Uploads wait until this is done.
    Switching,
    /// Questions are answered from the new vectors. The old vectors are kept for a while.
    Switched,
    /// The move failed, and the new vectors are deleted. Questions are answered from the old vectors.
    Failed,
}
