//! The names that follow from a tenant's identity, said in one place.

use super::Tenant;

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

/// The name of the first Tenant of an e-mail address, by its keyed hash: nobody can have two.
pub fn signed_up(email_hash: &str) -> String {
    format!("{SIGNED_UP}{email_hash}")
}

/// The Pinecone namespace of the tenant with this id.
pub fn pinecone_namespace(tenant_id: &str) -> String {
    format!("tenant_{tenant_id}")
}

/// The Secret with the API key of the Tenant of that name.
pub fn api_key_secret(tenant: &str) -> String {
    format!("{tenant}-api-key")
}

/// The Secret with the password hash of the Tenant of that name.
pub fn login_secret(tenant: &str) -> String {
    format!("{tenant}-login")
}
