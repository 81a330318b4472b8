//! The names that follow from a tenant's identity, said in one place.

use super::migration::{Data, Migration, MigrationState};
use super::status::PlanConfig;
use super::{Tenant, TenantSpec, Text};

impl Tenant {
    /// The tenant's id at every provider: the one in the spec, or the uid that it becomes when the controller first
    /// sees the object.
    pub fn tenant_id(&self) -> &str {
        self.spec.tenant_id.as_deref().or(self.metadata.uid.as_deref()).unwrap_or_default()
    }

    /// The object's namespace and name.
    pub fn place(&self) -> Place<'_> {
        Place {
            namespace: self.metadata.namespace.as_deref().unwrap_or_default(),
            name: self.metadata.name.as_deref().unwrap_or_default(),
        }
    }
}

/// Where an object is in Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The name.
    pub name: &'a str,
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How the names of Tenants begin that signed up or were invited.
pub const SIGNED_UP: &str = "t-";

/// The name of the first Tenant of an e-mail address, from the address's keyed hash. The API server refuses a second
/// object with this name, so two signups cannot both create one.
pub fn signed_up(email_hash: &str) -> String {
    format!("{SIGNED_UP}{email_hash}")
}

/// The Secret with the API key of the Tenant of that name.
pub fn api_key_secret(tenant: &str) -> String {
    format!("{tenant}-api-key")
}

/// The Secret of a lead of this kind, by the hash of its e-mail address.
pub fn lead_secret(kind: &str, email_hash: &str) -> String {
    format!("lead-{kind}-{email_hash}")
}

/// The Secret with the password hash of the Tenant of that name.
pub fn login_secret(tenant: &str) -> String {
    format!("{tenant}-login")
}

/// Where the password hash is in that Secret.
pub const PASSWORD_HASH: &str = "password-hash";

/// The namespace of one generation of a tenant's data. A tenant id has no dot, so that no other tenant's
/// namespace can have that name.
pub fn data_namespace(tenant_id: &str, generation: u32) -> String {
    let first = format!("tenant_{tenant_id}");
    if generation <= 1 { first } else { format!("{first}.{generation}") }
}

/// The tenant id of a namespace, and the generation of its data.
pub fn data_of(namespace: &str) -> Option<(&str, u32)> {
    let rest = namespace.strip_prefix("tenant_")?;
    match rest.split_once('.') {
        None => Some((rest, 1)),
        Some((id, generation)) => Some((id, generation.parse().ok().filter(|g| *g > 1)?)),
    }
}

/// Every generation that a tenant can have a namespace of. Earlier ones are deleted before a new move begins.
pub fn generations(now: u32) -> impl Iterator<Item = u32> {
    (now.saturating_sub(1).max(1))..=now.saturating_add(1)
}

impl TenantSpec {
    /// The generation of the tenant's data.
    pub fn data_generation(&self) -> u32 {
        self.data.as_ref().map_or(1, |data| data.generation)
    }
}

impl Tenant {
    /// The generation of the tenant's data.
    pub fn data_generation(&self) -> u32 {
        self.spec.data_generation()
    }

    /// The namespace that the tenant's questions are answered from.
    pub fn data_namespace(&self) -> String {
        data_namespace(self.tenant_id(), self.data_generation())
    }

    /// The names of all namespaces that the tenant can have.
    pub fn data_namespaces(&self) -> Vec<String> {
        generations(self.data_generation()).map(|generation| data_namespace(self.tenant_id(), generation)).collect()
    }

    /// The move of the tenant's data that is under way.
    pub fn moving(&self) -> Option<&Migration> {
        let migration = self.status.as_ref()?.migration.as_deref()?;
        let over = migration.generation == self.data_generation() || migration.state == MigrationState::Failed;
        (!over).then_some(migration)
    }

    /// The region where the tenant's data is, once that is known.
    pub fn region(&self) -> Option<&str> {
        region(self.spec.data.as_ref(), self.status.as_ref().and_then(|status| status.region.as_ref()))
    }

    /// The model that the tenant's data was embedded with, once that is known.
    pub fn embedding(&self) -> Option<&Text> {
        embedding(self.spec.data.as_ref(), self.status.as_ref().and_then(|status| status.config.as_ref()))
    }
}

/// The region where a tenant's data is: that of its plan, as the status has it, unless it was moved.
pub fn region<'a>(data: Option<&'a Data>, shown: Option<&'a Text>) -> Option<&'a str> {
    data.and_then(|data| data.region.as_ref()).or(shown).map(|region| &**region)
}

/// The model that a tenant's data was embedded with: that of its plan, unless it was moved.
pub fn embedding<'a>(data: Option<&'a Data>, config: Option<&'a PlanConfig>) -> Option<&'a Text> {
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
        let of = |generation| generations(generation).collect::<Vec<_>>();
        let spec = serde_json::json!({"companyName": "A", "adminEmail": "a@b.example"});
        let tenant = Tenant::new("a", serde_json::from_value(spec).expect("a spec"));
        assert_eq!(of(tenant.data_generation()), [1, 2]);
        assert_eq!((of(1), of(2), of(7)), (vec![1, 2], vec![1, 2, 3], vec![6, 7, 8]));
    }
}
