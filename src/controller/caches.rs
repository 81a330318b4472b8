//! The watched objects, as they were last seen.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use kube::runtime::reflector::{ObjectRef, Store};

use super::Key;
use super::secret_cache::SecretCache;
use crate::api::{Plan, Tenant, api_key_secret};

/// The caches.
pub struct Caches {
    pub tenants: Store<Tenant>,
    pub plans: Store<Plan>,
    pub secrets: SecretCache,
    filled: Shared<BoxFuture<'static, bool>>,
}

impl Caches {
    pub fn new(tenants: Store<Tenant>, plans: Store<Plan>, secrets: SecretCache) -> Self {
        let (of_tenants, of_plans, of_secrets) = (tenants.clone(), plans.clone(), secrets.clone());
        // kube 5.0's wait_until_ready wakes only the last of those who wait; everybody shares this one wait.
        let filled = async move {
            of_plans.wait_until_ready().await.is_ok()
                && of_secrets.filled().await
                && of_tenants.wait_until_ready().await.is_ok()
        };
        Self { tenants, plans, secrets, filled: filled.boxed().shared() }
    }

    /// Waits until all are known; false when their watches have ended.
    pub async fn filled(&self) -> bool {
        self.filled.clone().await
    }

    /// The Tenant of that key.
    pub fn tenant(&self, key: &Key) -> Option<Arc<Tenant>> {
        self.tenants.get(&ObjectRef::new(&key.name).within(&key.namespace))
    }

    /// The Plan of that name.
    pub fn plan(&self, name: &str) -> Option<Arc<Plan>> {
        self.plans.get(&ObjectRef::new(name))
    }

    /// The version of the tenant's API-key Secret.
    pub fn api_key_secret(&self, tenant: &Tenant) -> Option<String> {
        let place = tenant.place();
        let secret = Key { namespace: place.namespace.into(), name: api_key_secret(place.name) };
        Some(self.secrets.get(&secret)?.version.to_string())
    }
}
