//! The controller: watch, observe, decide, act, record.

mod context;
mod events;
mod health;
mod kubernetes;
mod lease;
pub mod queue;
mod reconcile;
mod steps;
mod sweeps;
mod tasks;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use futures::{Future, FutureExt};
use kube::Client;
use tokio::task::JoinSet;

use crate::api::Tenant;
use crate::clock::Clock;
use crate::events::EventLog;
use crate::ledger::client::LedgerClient;
use crate::lifecycle::Policy;
use crate::operator_keys::{IdentityKey, ledger_key, publish_verifying_key, signing_key};
use crate::pins::Keeper;
use crate::providers::Priority;
use crate::providers::alerts::Alerts;
use crate::providers::indexes::Indexes;
use crate::providers::mail::Mail;
use crate::providers::models::Embedder;
use crate::providers::stripe::Stripe;

use context::Context;
pub use lease::{LEASE, LeaseConfig};
pub use reconcile::brake::BrakeConfig;
pub use steps::billing::payer;
pub use sweeps::lead_config::LeadConfig;

/// The metrics' text.
fn measured(context: &Context) -> String {
    sweeps::pins::measure(context);
    context.brake.measure(&context.metrics);
    context.mail_brake.measure(&context.metrics);
    context.metrics_text()
}

/// The clients of all providers.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Providers {
    pub stripe: Stripe,
    pub indexes: Indexes,
    pub embedder: Arc<dyn Embedder>,
    pub mail: Mail,
    pub alerts: Arc<Alerts>,
}

/// A Tenant, by where it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// That of an object.
    pub fn of(tenant: &Tenant) -> Self {
        let place = tenant.place();
        Self { namespace: place.namespace.into(), name: place.name.into() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How the controller runs.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// The namespaces to watch; all of them when empty.
    pub namespaces: Vec<String>,
    /// Where the operator's own Secrets and Lease are.
    pub operator_namespace: String,
    /// Waits and limits.
    pub policy: Policy,
    /// Tenants worked on at the same time.
    pub concurrency: u16,
    /// Where health and metrics are served.
    pub listen: std::net::SocketAddr,
    /// What else is served there.
    pub more_routes: axum::Router,
    /// How many tenants may be suspended, failed, closed or erased within a while.
    pub brake: BrakeConfig,
    /// How leads are kept.
    pub leads: LeadConfig,
    /// The URL of the ledger.
    pub ledger: reqwest::Url,
    /// How often the statuses follow what the ledger counted.
    pub usage_interval: Duration,
    /// After what time the usage of a tenant is compared with Stripe again within an hour.
    pub billing_interval: Duration,
    /// Tenants whose usage is compared with Stripe at the same time.
    pub billing_concurrency: usize,
    /// Seconds for which Stripe's sums of usage may lack what was sent.
    pub billing_lag: i64,
    /// Leader election.
    pub lease: LeaseConfig,
    /// Where exports are written.
    pub exports: crate::export::Stores,
    /// The file that events of customers are appended to; the log when absent.
    pub events_file: Option<std::path::PathBuf>,
    /// The file that changes of phase are appended to; the log when absent.
    pub transitions_file: Option<std::path::PathBuf>,
}

impl ControllerConfig {
    fn scopes(&self) -> Vec<watch::Scope> {
        if self.namespaces.is_empty() { vec![None] } else { self.namespaces.iter().cloned().map(Some).collect() }
    }
}

/// Why the controller ended.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// Kubernetes refused something at the start.
    #[error("Kubernetes: {0}")]
    Kube(#[from] kube::Error),
    /// The health server could not start.
    #[error("cannot listen: {0}")]
    Listen(#[from] std::io::Error),
    /// A client of the ledger cannot be made.
    #[error("the ledger: {0}")]
    Ledger(#[from] reqwest::Error),
    /// Another controller took over.
    #[error("the lease was lost; another controller may be at work")]
    LeaseLost,
}

/// How long a reconcile waits for the ledger.
const LEDGER_PATIENCE: Duration = Duration::from_secs(2);

/// Runs until `stop`, or until the lease is lost.
pub async fn run(
    client: Client,
    config: ControllerConfig,
    providers: Providers,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) -> Result<(), ControllerError> {
    let health = health::Health::default();
    let clock = Arc::new(Clock::default());
    let client = clock.listen(client);
    let ns = &config.operator_namespace;
    let keys =
        context::Keys { identity: IdentityKey::load(&client, ns).await?, signer: signing_key(&client, ns).await? };
    // The ledger's pod and web wait for this key.
    let ledger_key = ledger_key(&client, ns).await?;
    publish_verifying_key(&client, ns, &keys.signer.verifying_key()).await?;
    let scopes = config.scopes();
    let (tenants, of_tenants) = watch::cache::cache(&scopes);
    let (plans, of_plans) = watch::cache::cache(&[None]);
    let (secrets, of_secrets) = watch::cache::cache(&scopes);
    let lease = lease::Lease::new(client.clone(), ns, config.lease.clone());
    sweeps::pins::guard(&providers);
    let policy = Policy { regions: providers.indexes.regions(), ..config.policy.clone() };
    let parts = context::Parts {
        concurrency: config.concurrency.into(),
        keys,
        fence: lease.fence(),
        clock,
        activation: EventLog::open(config.events_file.as_deref()).await?,
        transitions: EventLog::open(config.transitions_file.as_deref()).await?,
        exports: tasks::exports::Exports::new(config.exports),
        keeper: Keeper { client: client.clone(), namespace: ns.clone(), pins: true },
        brake: config.brake,
        leads: config.leads,
        ledger: LedgerClient::new(config.ledger.clone(), &ledger_key, LEDGER_PATIENCE)?,
    };
    let caches = watch::caches::Caches::new(tenants, plans, secrets);
    let context = Arc::new(Context::new(client.clone(), providers, policy, caches, parts));
    let shown = context.clone();
    let (metrics, refusals) = (shown.clone(), move || sweeps::pins::refusals(&shown));
    health::serve(config.listen, health.clone(), move || measured(&metrics), refusals, config.more_routes.clone())
        .await?;
    // Runs before the lease is taken, so that a replica with a key of another account is not ready and a rollout stops
    // there.
    let mut checks = JoinSet::new();
    checks.spawn(sweeps::pins::keep(context.clone()));
    tracing::info!("waiting for the lease");
    let stop = stop.shared();
    tokio::select! {
        () = lease.acquire() => {}
        () = stop.clone() => return Ok(()),
    }
    tracing::info!("leading");
    health.set(health::Role::Syncing);

    let fillers = watch::Fillers { tenants: of_tenants, plans: of_plans, secrets: of_secrets };
    let mut background = JoinSet::new();
    watch::start(&mut background, &context, &scopes, fillers);
    background.spawn(sweeps::plans::protect(context.clone(), scopes.clone()));
    background.spawn(sweeps::resync::run(context.clone(), scopes.clone()));
    background.spawn(sweeps::orphans::sweep(context.clone()));
    background.spawn(sweeps::leads::sweep(context.clone(), scopes.clone()));
    background.spawn(sweeps::usage::show(context.clone(), config.usage_interval));
    background.spawn(sweeps::recount::run(context.clone()));
    let pace = sweeps::usage_billing::Pace {
        every: config.usage_interval,
        again: config.billing_interval,
        at_once: config.billing_concurrency,
        lag: config.billing_lag,
    };
    background.spawn(sweeps::usage_billing::send(context.clone(), pace));
    let outcome = tokio::select! {
        () = work(&context, &scopes, &health, stop.clone()) => Ok(()),
        () = lease.keep() => Err(ControllerError::LeaseLost),
    };
    // Dropped even while they work: after the lease is lost, nothing may go on.
    drop(background);
    drop(checks);
    if outcome.is_ok() {
        // A successor can take over at once.
        drop(tokio::time::timeout(Duration::from_secs(2), lease.release()).await);
        drop(tokio::time::timeout(Duration::from_secs(2), context.activation.flush()).await);
    }
    outcome
}

/// How long a stop waits for the reconciles that run.
const DRAIN: Duration = Duration::from_secs(8);

/// A reconcile that runs. However it ends, its tenant can be reconciled again.
struct InFlight {
    context: Arc<Context>,
    job: queue::Job<Key>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.context.queue.add_after(self.job.key.clone(), Priority::Repair, Duration::from_mins(1));
        }
        self.context.queue.done(&self.job);
    }
}

/// How long a start may take to list the Secrets.
const RECALL: Duration = Duration::from_secs(10);

/// Lists all API-key Secrets at once. A Secret that the list misses is read on its own later.
async fn recall_secrets(context: &Context, scopes: &[watch::Scope]) {
    let recall = async {
        for scope in scopes {
            let secrets = watch::scoped(&context.kubernetes.client, scope);
            let tenant = |key: &Key| context.caches.tenant(key);
            steps::secrets::recall(&secrets, &context.signer, &context.memory, tenant).await?;
        }
        Ok::<_, kube::Error>(())
    };
    match tokio::time::timeout(RECALL, recall).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "Secrets not listed; reading them one by one"),
        Err(_) => tracing::warn!("listing the Secrets takes too long; reading the rest one by one"),
    }
}

/// Works through the queue until `stop`, then gives running reconciles a while to end. When dropped, it aborts every
/// reconcile.
async fn work(
    context: &Arc<Context>,
    scopes: &[watch::Scope],
    health: &health::Health,
    stop: impl Future<Output = ()> + Clone,
) {
    let mut running = JoinSet::new();
    // The first reconciles would all ask for it. An outage must not hold them up.
    drop(tokio::time::timeout(Duration::from_secs(3), sweeps::pins::checked(context)).await);
    if !context.caches.filled().await {
        return;
    }
    recall_secrets(context, scopes).await;
    health.set(health::Role::Leading);
    loop {
        tokio::select! {
            job = context.queue.next() => {
                let started = InFlight { context: context.clone(), job };
                running.spawn(async move {
                    let InFlight { context, job } = &started;
                    let next = job.priority.scope(reconcile::reconcile(context, &job.key)).await;
                    if let Some((after, priority)) = next {
                        context.queue.add_after(job.key.clone(), priority, after);
                    }
                });
            }
            Some(ended) = running.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a reconcile panicked; this is a bug in the operator");
                }
            }
            () = stop.clone() => break,
        }
    }
    let drained = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("some reconciles did not end in time; the next leader repeats them");
    }
}
