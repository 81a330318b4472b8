//! What every reconcile shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use kube::{Client, ResourceExt};

use super::kubernetes::Kubernetes;
use super::queue::Queue;
use super::reconcile::brake::{Brake, BrakeConfig};
use super::reconcile::disputes::Disputes;
use super::reconcile::incidents::Incidents;
use super::reconcile::mail_brake::MailBrake;
use super::reconcile::memory::{Memory, Settled};
use super::reconcile::own_moves::OwnMoves;
use super::steps::samples::Embeddings;
use super::sweeps::lead_config::LeadConfig;
use super::tasks::Tasks;
use super::tasks::exports::Exports;
use super::watch::caches::Caches;
use super::watch::claims::{Claims, Rivals};
use super::{Key, Providers, events::Events, lease::Fence};
use crate::api::{EMAIL_LABEL, Plan, Tenant};
use crate::clock::Clock;
use crate::events::EventLog;
use crate::ledger::client::LedgerClient;
use crate::lifecycle::{Credentials, ObservedMigration, Policy, View};
use crate::operator_keys::IdentityKey;
use crate::pins::Keeper;
use crate::providers::Priority;
use crate::providers::vector_store::VectorStore;
use crate::telemetry::{Metrics, ProviderLabel, ProviderLabels};

/// A Secret that we made this recently may not be in the cache yet.
const SECRET_LAG: Duration = Duration::from_secs(10);

/// So many reconciles towards Active at the same moment are an overload.
const OVERLOADED: usize = 8;

/// Moves of data that read and write at the same time. The others wait.
const MIGRATIONS: usize = 2;

/// What every reconcile shares.
pub struct Context {
    pub kubernetes: Kubernetes,
    pub providers: Providers,
    pub policy: Policy,
    pub caches: Caches,
    pub claims: Claims,
    pub queue: Queue<Key>,
    pub memory: Memory,
    pub incidents: Incidents,
    pub disputes: Disputes,
    pub identity: IdentityKey,
    pub signer: SigningKey,
    pub fence: Fence,
    pub clock: Arc<Clock>,
    pub metrics: Arc<Metrics>,
    pub events: Events,
    /// What happens on customers' ways.
    pub activation: EventLog,
    /// Every change of phase of every tenant.
    pub transitions: EventLog,
    pub embeddings: Embeddings,
    pub exports: Exports,
    pub migrations: Tasks<ObservedMigration>,
    pub own_moves: OwnMoves,
    /// Compares the providers' accounts with what the tenants are in.
    pub keeper: Keeper,
    /// Counts suspensions, failures, closings and erasures, and holds them if there are too many.
    pub brake: Brake,
    /// Holds e-mails about usage if there are too many.
    pub mail_brake: MailBrake,
    /// How leads are kept.
    pub leads: LeadConfig,
    /// Counts what tenants use.
    pub ledger: LedgerClient,
    provisioning: Arc<AtomicUsize>,
}

/// What the controller makes once, at its start.
pub struct Parts {
    /// How many tenants are reconciled at the same time.
    pub concurrency: usize,
    pub keys: Keys,
    pub fence: Fence,
    pub clock: Arc<Clock>,
    pub activation: EventLog,
    pub transitions: EventLog,
    pub exports: Exports,
    pub keeper: Keeper,
    pub brake: BrakeConfig,
    pub leads: LeadConfig,
    pub ledger: LedgerClient,
}

/// The operator's own keys.
pub struct Keys {
    pub identity: IdentityKey,
    pub signer: SigningKey,
}

/// Counts a reconcile that works towards Active, for as long as it lives.
pub struct Provisioning(Arc<Context>);

impl Drop for Provisioning {
    fn drop(&mut self) {
        self.0.provisioning.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Context {
    pub fn new(client: Client, providers: Providers, policy: Policy, caches: Caches, parts: Parts) -> Self {
        let Parts { concurrency, keys, fence, clock, activation, transitions, exports, keeper, brake, leads, ledger } =
            parts;
        let metrics = Arc::new(Metrics::default());
        let provisioning = Arc::new(AtomicUsize::new(0));
        let busy = provisioning.clone();
        let overloaded = move || busy.load(Ordering::Relaxed) >= OVERLOADED;
        Self {
            kubernetes: Kubernetes { client: client.clone(), metrics: metrics.clone() },
            disputes: Disputes::default(),
            incidents: Incidents::new(providers.alerts.clone()),
            providers,
            policy,
            caches,
            claims: Claims::default(),
            queue: Queue::new(concurrency),
            memory: Memory::default(),
            identity: keys.identity,
            signer: keys.signer,
            fence,
            clock,
            events: Events::start(client, &metrics, overloaded),
            activation,
            transitions,
            metrics,
            embeddings: Embeddings::default(),
            exports,
            migrations: Tasks::new(MIGRATIONS),
            own_moves: OwnMoves::default(),
            keeper,
            brake: Brake::new(brake),
            mail_brake: MailBrake::new(brake),
            leads,
            ledger,
            provisioning,
        }
    }

    /// The metrics' text, with what is read only when they are scraped.
    pub fn metrics_text(&self) -> String {
        let metrics = &self.metrics;
        metrics.leader.set(self.fence.holds().into());
        metrics.clock_skew.set(self.clock.ahead());
        for (name, waiting) in Priority::NAMES.iter().zip(self.queue.waiting()) {
            metrics.queue_depth.get_or_create(&(*name).into()).set(i64::try_from(waiting).unwrap_or(i64::MAX));
        }
        let Providers { stripe, indexes, embedder, .. } = &self.providers;
        let indexes: Vec<_> = indexes.all().map(VectorStore::caller).collect();
        for callers in [&[stripe.caller()][..], &indexes, &[embedder.caller()]] {
            let Some(provider) = callers.first().map(|caller| caller.provider()) else { continue };
            for (outcome, which) in [("ok", 0), ("failed", 1)] {
                let count: u64 = callers.iter().map(|caller| caller.calls()[which]).sum();
                let counter =
                    metrics.provider_calls.get_or_create_owned(&ProviderLabels { provider: provider.into(), outcome });
                counter.inc_by(count.saturating_sub(counter.get()));
            }
            let away = callers.iter().any(|caller| caller.is_away());
            let label = ProviderLabel { provider: provider.into() };
            metrics.breaker_open.get_or_create_owned(&label).set(away.into());
        }
        metrics.encode()
    }

    /// Counts one more reconcile that works towards Active.
    pub fn begin_provisioning(self: &Arc<Self>) -> Provisioning {
        self.provisioning.fetch_add(1, Ordering::Relaxed);
        Provisioning(self.clone())
    }

    /// Whether many tenants are being provisioned at this moment.
    pub fn overloaded(&self) -> bool {
        self.provisioning.load(Ordering::Relaxed) >= OVERLOADED
    }

    /// The Tenant as decisions see it.
    pub fn view(&self, tenant: &Tenant) -> View {
        let label = tenant.labels().get(EMAIL_LABEL);
        let Rivals { named, more, outranked } = self.claims.rivals(tenant);
        let credentials = Credentials {
            proof: self.identity.has_proof(tenant),
            labelled: label == Some(&self.identity.email_hash(&tenant.spec.admin_email)),
            rivals: named,
            more_rivals: more,
            outranked,
        };
        View::of(tenant, credentials)
    }

    /// The version of the API-key Secret that was last made or found right.
    pub fn verified_secret(&self, uid: &str) -> Option<String> {
        self.memory.recall(uid).api_key.map(|(key, _)| key.version)
    }

    /// Whether the API-key Secret is there and right; None when it is not known, as after a restart or an edit.
    pub fn api_key(&self, tenant: &Tenant) -> Option<bool> {
        let right = self.memory.recall(&tenant.uid().unwrap_or_default()).api_key;
        let right = right
            .filter(|(key, _)| key.generation == tenant.spec.api_key_generation && key.plan == tenant.plan_in_force());
        let right = right.as_ref().map(|(key, at)| (&*key.version, at.elapsed()));
        is_right(self.caches.api_key_secret(tenant).as_deref(), right)
    }

    /// The plan that is in force for a tenant, and the one that its spec names.
    pub fn plans(&self, tenant: &Tenant) -> (Option<Arc<Plan>>, Option<Arc<Plan>>) {
        (self.caches.plan(tenant.plan_in_force()), self.caches.plan(&tenant.spec.plan))
    }

    /// All that a decision about this tenant rests on.
    pub fn observe(&self, tenant: &Tenant) -> Settled {
        let (plan, wanted) = self.plans(tenant);
        let uid = tenant.metadata.uid.as_deref().unwrap_or_default();
        let generation = |plan: Option<Arc<Plan>>| plan.and_then(|p| p.metadata.generation);
        Settled {
            version: version(tenant),
            plans: [generation(plan), generation(wanted)],
            secret: self.caches.api_key_secret(tenant),
            rivals: self.claims.rivals(tenant),
            tasks: [self.exports.tasks.version(uid), self.migrations.version(uid)],
        }
    }
}

/// Whether a Secret is right, by its version in the cache and the one that was last made or found right, and how long
/// ago.
fn is_right(cached: Option<&str>, right: Option<(&str, Duration)>) -> Option<bool> {
    let lags = right.is_some_and(|(_, age)| age < SECRET_LAG);
    match (cached, right) {
        (Some(cached), Some((right, _))) if cached == right || (lags && number(cached) < number(right)) => Some(true),
        (Some(_), _) => None,
        (None, _) => Some(lags),
    }
}

/// The resource version as a number, which Kubernetes guarantees since 1.35 and etcd has always given.
pub fn version(tenant: &Tenant) -> u64 {
    number(&tenant.resource_version().unwrap_or_default())
}

fn number(version: &str) -> u64 {
    version.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_when_its_version_is_another_one_and_not_because_the_cache_lags() {
        let now = Duration::ZERO;
        assert_eq!(is_right(Some("10"), None), None, "never seen");
        assert_eq!(is_right(Some("10"), Some(("10", SECRET_LAG))), Some(true), "however long ago");
        assert_eq!(is_right(Some("11"), Some(("10", now))), None, "it was edited");
        assert_eq!(is_right(Some("9"), Some(("10", now))), Some(true), "our own write is on its way into the cache");
        assert_eq!(is_right(Some("9"), Some(("10", SECRET_LAG))), None, "no cache lags that long");
        assert_eq!(is_right(None, Some(("10", now))), Some(true));
        assert_eq!(is_right(None, Some(("10", SECRET_LAG))), Some(false), "deleted");
        assert_eq!(is_right(None, None), Some(false));
    }
}
