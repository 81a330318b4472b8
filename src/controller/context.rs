//! What every pass of the reconciler shares.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt};

use super::{Providers, events::Events, lease::Fence, steps};
use crate::api::{EMAIL_LABEL, Plan, Tenant};
use crate::lifecycle::{Policy, api_key_secret};
use crate::operator_keys::IdentityKey;
use crate::telemetry::Metrics;

/// A Secret that we made this recently may not be in the cache yet.
const SECRET_LAG: Duration = Duration::from_secs(10);

/// So many passes towards Active at the same moment are a rush.
const BUSY: usize = 8;

/// The watched objects.
pub struct Caches {
    pub tenants: Store<Tenant>,
    pub plans: Store<Plan>,
    pub secrets: Store<PartialObjectMeta<Secret>>,
    filled: Shared<BoxFuture<'static, bool>>,
}

impl Caches {
    pub fn new(tenants: Store<Tenant>, plans: Store<Plan>, secrets: Store<PartialObjectMeta<Secret>>) -> Self {
        let (of_plans, of_secrets) = (plans.clone(), secrets.clone());
        // kube 5.0's wait_until_ready wakes only the last of those who wait; all passes share this one wait.
        let filled =
            async move { of_plans.wait_until_ready().await.is_ok() && of_secrets.wait_until_ready().await.is_ok() };
        Self { tenants, plans, secrets, filled: filled.boxed().shared() }
    }

    /// Waits until plans and Secrets are known; false when their watches have ended.
    pub async fn filled(&self) -> bool {
        self.filled.clone().await
    }
}

/// What every pass shares.
pub struct Context {
    pub client: Client,
    pub providers: Providers,
    pub policy: Policy,
    pub caches: Caches,
    pub identity: IdentityKey,
    pub signer: SigningKey,
    pub fence: Fence,
    pub metrics: Arc<Metrics>,
    pub events: Events,
    pub embeddings: steps::samples::Embeddings,
    memory: Mutex<HashMap<String, Memory>>,
    provisioning: AtomicUsize,
}

/// Counts a pass that works towards Active, for as long as it lives.
pub struct Provisioning(Arc<Context>);

impl Drop for Provisioning {
    fn drop(&mut self) {
        self.0.provisioning.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is remembered of a tenant between passes. All of it can be lost.
#[derive(Clone, Default)]
pub struct Memory {
    /// The newest resource version that was seen or written.
    pub version: u64,
    /// When the truth was last read back.
    pub synced: Option<Instant>,
    /// The last Stripe event that was answered.
    pub stripe_event: Option<String>,
    /// The API-key Secret as it was last made or found right, and when.
    pub api_key: Option<(ApiKey, Instant)>,
    /// The state that was found to need nothing, and until when.
    pub settled: Option<(Settled, Option<Instant>)>,
}

/// A version of the API-key Secret, and the generation of the key that it was right for.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub version: String,
    pub generation: u32,
}

/// All that a decision rests on, short of the providers: resource versions.
#[derive(Clone, PartialEq, Eq)]
pub struct Settled {
    pub version: u64,
    pub plan: Option<String>,
    pub secret: Option<String>,
}

impl Context {
    pub fn new(
        client: Client,
        providers: Providers,
        policy: Policy,
        caches: Caches,
        identity: IdentityKey,
        signer: SigningKey,
        fence: Fence,
    ) -> Self {
        let metrics = Arc::new(Metrics::default());
        let events = Events::start(client.clone(), metrics.clone());
        Self {
            client,
            providers,
            policy,
            caches,
            identity,
            signer,
            fence,
            metrics,
            events,
            embeddings: steps::samples::Embeddings::default(),
            memory: Mutex::default(),
            provisioning: AtomicUsize::new(0),
        }
    }

    /// Counts one more pass that works towards Active.
    pub fn begin_provisioning(self: &Arc<Self>) -> Provisioning {
        self.provisioning.fetch_add(1, Ordering::Relaxed);
        Provisioning(self.clone())
    }

    /// Whether many tenants are being provisioned at this moment.
    pub fn busy(&self) -> bool {
        self.provisioning.load(Ordering::Relaxed) >= BUSY
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<String, Memory>> {
        self.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What is remembered of a tenant.
    pub fn recall(&self, uid: &str) -> Memory {
        self.memory().get(uid).cloned().unwrap_or_default()
    }

    /// Remembers something of a tenant.
    pub fn remember(&self, uid: &str, change: impl FnOnce(&mut Memory)) {
        change(self.memory().entry(uid.to_owned()).or_default());
    }

    /// Forgets a tenant that is gone.
    pub fn forget(&self, uid: &str) {
        self.memory().remove(uid);
    }

    /// Whether the label that finds a tenant by its e-mail address is that of the present address.
    pub fn labelled_right(&self, tenant: &Tenant) -> bool {
        tenant.labels().get(EMAIL_LABEL) == Some(&self.identity.email_hash(&tenant.spec.admin_email))
    }

    /// The plan of that name.
    pub fn plan(&self, name: &str) -> Option<Arc<Plan>> {
        self.caches.plans.get(&ObjectRef::new(name))
    }

    /// The version of the API-key Secret that the cache holds.
    pub fn cached_secret(&self, tenant: &Tenant) -> Option<String> {
        let namespace = tenant.namespace().unwrap_or_default();
        let name = api_key_secret(&tenant.name_any());
        let secret = ObjectRef::<PartialObjectMeta<Secret>>::new(&name).within(&namespace);
        self.caches.secrets.get(&secret)?.resource_version()
    }

    /// The version of the API-key Secret that was last made or found right.
    pub fn verified_secret(&self, tenant: &Tenant) -> Option<String> {
        self.recall(&tenant.uid().unwrap_or_default()).api_key.map(|(key, _)| key.version)
    }

    /// Whether the API-key Secret is there and right; None when it is not known, as after a restart or an edit.
    pub fn api_key(&self, tenant: &Tenant) -> Option<bool> {
        let right = self.recall(&tenant.uid().unwrap_or_default()).api_key;
        let right = right.filter(|(key, _)| key.generation == tenant.spec.api_key_generation);
        match (self.cached_secret(tenant), right) {
            (Some(cached), Some((key, _))) if cached == key.version => Some(true),
            (Some(_), _) => None,
            (None, Some((_, at))) if at.elapsed() < SECRET_LAG => Some(true),
            (None, _) => Some(false),
        }
    }

    /// All that a decision about this tenant with this plan rests on.
    pub fn observe(&self, tenant: &Tenant, plan: Option<&Plan>) -> Settled {
        Settled {
            version: version(tenant),
            plan: plan.and_then(ResourceExt::resource_version),
            secret: self.cached_secret(tenant),
        }
    }
}

/// The resource version as a number, which Kubernetes guarantees since 1.35 and etcd has always given.
pub fn version(tenant: &Tenant) -> u64 {
    tenant.resource_version().and_then(|v| v.parse().ok()).unwrap_or(0)
}
