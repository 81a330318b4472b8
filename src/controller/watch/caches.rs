//! The watched objects, as they were last seen.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::core::PartialObjectMeta;

use super::cache::Cache;
use super::packed::PackedTenant;
use crate::api::{
    COMPONENT_LABEL, KEPT_ANNOTATION, LOGIN_COMPONENT, Plan, TENANT_LABEL, Tenant, Timestamp, api_key_secret,
    login_secret,
};
use crate::controller::Key;

/// The caches.
pub struct Caches {
    pub tenants: Cache<PackedTenant>,
    pub plans: Cache<Plan>,
    pub secrets: Cache<SeenSecret>,
    filled: Shared<BoxFuture<'static, bool>>,
}

/// The parts of a Secret that the cache keeps: a tenth of its metadata, and nothing of its contents.
#[derive(Debug)]
pub struct SeenSecret {
    /// Its resource version.
    pub version: Box<str>,
    /// Set for a login Secret, whose Tenant may never have been made.
    pub login: Option<Box<LoginSecret>>,
}

/// A Secret that a signup made.
#[derive(Debug)]
pub struct LoginSecret {
    /// Where it is.
    pub key: Key,
    /// The name of the Tenant that it is for.
    pub tenant: String,
    /// Its uid.
    pub uid: String,
    /// When it was made.
    pub created_at: Timestamp,
}

impl SeenSecret {
    /// What is kept of this one.
    pub fn of(secret: &PartialObjectMeta<Secret>) -> Self {
        Self {
            version: secret.resource_version().unwrap_or_default().into(),
            login: LoginSecret::of(secret).map(Box::new),
        }
    }
}

impl LoginSecret {
    fn of(secret: &PartialObjectMeta<Secret>) -> Option<Self> {
        let labels = secret.labels();
        let tenant = labels.get(TENANT_LABEL)?;
        let made = labels.get(COMPONENT_LABEL)? == LOGIN_COMPONENT && secret.name_any() == login_secret(tenant);
        let kept = secret.annotations().contains_key(KEPT_ANNOTATION);
        (made && !kept).then_some(Self {
            key: Key { namespace: secret.namespace()?, name: secret.name_any() },
            tenant: tenant.clone(),
            uid: secret.uid()?,
            created_at: secret.creation_timestamp()?.0.into(),
        })
    }
}

impl Caches {
    pub fn new(tenants: Cache<PackedTenant>, plans: Cache<Plan>, secrets: Cache<SeenSecret>) -> Self {
        let (of_tenants, of_plans, of_secrets) = (tenants.clone(), plans.clone(), secrets.clone());
        let filled = async move { of_plans.filled().await && of_secrets.filled().await && of_tenants.filled().await };
        Self { tenants, plans, secrets, filled: filled.boxed().shared() }
    }

    /// Waits until all caches are filled. False if their watches have ended.
    pub async fn filled(&self) -> bool {
        self.filled.clone().await
    }

    /// The Tenant of that key.
    pub fn tenant(&self, key: &Key) -> Option<Arc<Tenant>> {
        self.tenants.get(key)?.unpack()
    }

    /// All Tenants, unpacked one after the other.
    pub fn each_tenant(&self) -> impl Iterator<Item = Arc<Tenant>> {
        self.tenants.all().into_iter().filter_map(|packed| packed.unpack())
    }

    /// The keys of the Tenants of this kind. Unpacked, ten thousand would take much memory.
    pub fn keys_where(&self, wanted: impl Fn(&Tenant) -> bool) -> Vec<Key> {
        self.each_tenant().filter(|tenant| wanted(tenant)).map(|tenant| Key::of(&tenant)).collect()
    }

    /// The Tenants of these keys, unpacked one after the other.
    pub fn each_of(&self, keys: Vec<Key>) -> impl Iterator<Item = Arc<Tenant>> {
        keys.into_iter().filter_map(|key| self.tenant(&key))
    }

    /// The Tenants whose spec names this plan, or for whom it is in force.
    pub fn users_of(&self, plan: &str) -> impl Iterator<Item = Arc<Tenant>> {
        self.tenants.all_where(|packed| packed.uses(plan)).into_iter().filter_map(|packed| packed.unpack())
    }

    /// The Plan of that name.
    pub fn plan(&self, name: &str) -> Option<Arc<Plan>> {
        self.plans.get(&Key { namespace: String::new(), name: name.into() })
    }

    /// Every Plan.
    pub fn all_plans(&self) -> Vec<Arc<Plan>> {
        self.plans.all()
    }

    /// The version of the tenant's API-key Secret.
    pub fn api_key_secret(&self, tenant: &Tenant) -> Option<String> {
        let place = tenant.place();
        let key = Key { namespace: place.namespace.into(), name: api_key_secret(place.name) };
        Some(self.secrets.get(&key)?.version.to_string())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp as Time;
    use kube::core::ObjectMeta;

    use super::*;

    fn secret(name: &str, component: &str) -> PartialObjectMeta<Secret> {
        let labels = [(TENANT_LABEL, "acme"), (COMPONENT_LABEL, component)];
        PartialObjectMeta {
            metadata: ObjectMeta {
                namespace: Some("tenants".into()),
                name: Some(name.into()),
                uid: Some("uid".into()),
                resource_version: Some("1".into()),
                creation_timestamp: Some(Time::UNIX_EPOCH.into()),
                labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
                ..ObjectMeta::default()
            },
            ..PartialObjectMeta::default()
        }
    }

    #[test]
    fn a_login_secret_is_known_by_its_label_and_its_name() {
        let login = |name, component| SeenSecret::of(&secret(name, component)).login.is_some();
        assert!(login("acme-login", LOGIN_COMPONENT));
        assert!(!login("acme-api-key", ""));
        assert!(!login("other-login", LOGIN_COMPONENT), "the name must follow from the tenant's");
    }
}
