//! Where a tenant's data is, and how it moves when it is to be embedded with another model.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Tenant, Text, Timestamp, pinecone_namespace};

/// Where a tenant's data is, and what it was embedded with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Data {
    /// The generation of its Pinecone namespace. It increases each time all documents are embedded with another model.
    #[schemars(range(min = 1))]
    pub generation: u32,
    /// The embedding model of the vectors in that namespace.
    #[schemars(length(min = 1, max = 200))]
    pub embedding: Text,
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

/// A move of a tenant's data to a new Pinecone namespace, embedded with another model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Migration {
    /// The generation of the new namespace.
    pub generation: u32,
    /// The embedding model of the new vectors.
    pub embedding: Text,
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

/// The Pinecone namespace of one generation of a tenant's data. A tenant id has no dot, so that no other tenant's
/// namespace can have that name.
pub fn data_namespace(tenant_id: &str, generation: u32) -> String {
    let first = pinecone_namespace(tenant_id);
    if generation <= 1 { first } else { format!("{first}.{generation}") }
}

/// The tenant id of a Pinecone namespace, and the generation of its data.
pub fn data_of(namespace: &str) -> Option<(&str, u32)> {
    let rest = namespace.strip_prefix("tenant_")?;
    match rest.split_once('.') {
        None => Some((rest, 1)),
        Some((id, generation)) => Some((id, generation.parse().ok().filter(|g| *g > 1)?)),
    }
}

/// Every generation of which a tenant can have a namespace: those before were deleted before this one was begun.
pub fn generations(data: Option<&Data>) -> impl Iterator<Item = u32> {
    let now = data.map_or(1, |data| data.generation);
    (now.saturating_sub(1).max(1))..=now.saturating_add(1)
}

impl Tenant {
    /// The generation of the tenant's data.
    pub fn data_generation(&self) -> u32 {
        self.spec.data.as_ref().map_or(1, |data| data.generation)
    }

    /// The Pinecone namespace that the tenant's questions are answered from.
    pub fn data_namespace(&self) -> String {
        data_namespace(self.tenant_id(), self.data_generation())
    }

    /// The names of all Pinecone namespaces that the tenant can have.
    pub fn data_namespaces(&self) -> Vec<String> {
        generations(self.spec.data.as_ref()).map(|generation| data_namespace(self.tenant_id(), generation)).collect()
    }

    /// The model that the tenant's data was embedded with, once that is known.
    pub fn embedding(&self) -> Option<&Text> {
        embedding(self.spec.data.as_ref(), self.status.as_ref().and_then(|status| status.config.as_ref()))
    }
}

/// The model that a tenant's data was embedded with: that of its plan, unless it was moved.
pub fn embedding<'a>(data: Option<&'a Data>, config: Option<&'a super::tenant::PlanConfig>) -> Option<&'a Text> {
    data.map(|data| &data.embedding).or_else(|| config.map(|config| &config.models.embedding))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_namespace_says_whose_it_is() {
        for (id, generation) in [("a", 1), ("a", 2), ("a_2", 1), ("a-b", 10)] {
            assert_eq!(data_of(&data_namespace(id, generation)), Some((id, generation)));
        }
        for name in ["other", "tenant_a.", "tenant_a.1", "tenant_a.0", "tenant_a.x", "tenant_a.2.3"] {
            assert_eq!(data_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_tenant_can_have_a_namespace_before_and_one_after() {
        let of = |generation| {
            let data = Data { generation, embedding: "e".into() };
            generations(Some(&data)).collect::<Vec<_>>()
        };
        assert_eq!(generations(None).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((of(1), of(2), of(7)), (vec![1, 2], vec![1, 2, 3], vec![6, 7, 8]));
    }
}
