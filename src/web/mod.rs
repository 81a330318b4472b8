//! The web pod: signups, Stripe's webhooks, and what a customer sees. Replicas share nothing but Kubernetes.

mod api;
mod config;
mod customer;
mod gateway;
pub mod metering;
mod pages;
mod public;
mod routes;
pub(crate) mod serving;
mod standings;
mod usage_events;
mod webhooks;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures::{Future, FutureExt};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::api::{Tenant, Timestamp};
use crate::clock::Clock;
use crate::events::EventLog;
use crate::export::Stores;
use crate::operator_keys::{IDENTITY_SECRET, IdentityKey, LEDGER_SECRET, wait_for_ledger_key};
use crate::pins::Keeper;
use crate::providers::alerts::Alerts;
use crate::providers::indexes::Indexes;
use crate::providers::models::{ChatModel, Embedder};
use crate::providers::stripe::Stripe;
use crate::serve;
use crate::telemetry::Metrics;

use api::openapi;
use customer::{export, tenant, track};
use metering::{Metering, MeteringError};
use public::password;
use serving::problem::Problem;
use serving::{bodies, directory, limits, linger, offers, optimistic, places, readiness, trust, turns};
use webhooks::hints;

pub use config::{WebConfig, WebProviders};
pub use metering::MeteringConfig;
pub use pages::Brand;
pub use public::accounts;
pub use public::admission::{Admission, Domains};
pub use serving::guards::table as guard_table;
pub use serving::limits::parse_source;

/// What the API says of itself, for its reference.
pub fn api_document() -> utoipa::openapi::OpenApi {
    openapi::complete(routes::all().into_openapi())
}

/// Changes of a Tenant that its customer may ask for in a minute: each is a write to etcd.
const CHANGES_PER_MINUTE: NonZeroU32 = NonZeroU32::new(30).expect("not zero");

/// Names web as the writer of the fields that it sets.
const FIELD_MANAGER: &str = "tenant-operator-web";

/// What web may still write after its last request.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// What all handlers share.
pub struct App {
    client: Client,
    config: WebConfig,
    identity: IdentityKey,
    embedder: Arc<dyn Embedder>,
    chat: Arc<dyn ChatModel>,
    indexes: Indexes,
    portal: Option<Stripe>,
    admission: Admission,
    alerts: Alerts,
    passwords: password::Passwords,
    signups: limits::Limit<IpAddr>,
    /// Requests to what needs no API key, by client.
    clients: limits::Limit<IpAddr>,
    /// Whether web sees its clients' addresses.
    sight: limits::Sight,
    /// New leads, from all clients together.
    leads: limits::Limit<()>,
    /// Requests to the tenant API, by the tenants' uids.
    requests: limits::Limit<String>,
    /// Requests with one token or session, whether it is still good or not.
    passes: limits::Limit<String>,
    /// Requests of a tenant's people, to its pages and with the token of its signup.
    visits: limits::Limit<String>,
    /// Changes of a Tenant that its customer asks for.
    changes: limits::Limit<String>,
    /// Events that a tenant's pages and apps send, by the tenants' uids.
    claims: limits::Limit<String>,
    uploads: places::Places,
    /// Files that were read in vain.
    refusals: limits::Allowance,
    /// Documents that were deleted soon after their upload.
    early_deletions: limits::Allowance,
    /// Bodies that are read before their handlers run.
    bodies: bodies::Bodies,
    /// Connections that are read on after the answer.
    lingers: linger::Lingers,
    /// Places of changes that are finished where their clients hang up.
    finishing: Arc<Semaphore>,
    /// Places of requests with an idempotency key that are served to their end where their clients hang up.
    keyed: api::idempotency::KeyedPlaces,
    /// Whose turn it is to store a document.
    storing: turns::Turns,
    /// Whose file is being read.
    reading: turns::Turns,
    /// Counts what tenants use.
    metering: Arc<Metering>,
    api_keys: api::keys::KeyRing,
    /// What is left of the tenants' plans.
    standings: standings::Standings,
    /// Room for events of other services.
    event_places: usage_events::EventPlaces,
    directory: directory::Directory,
    streams: tenant::Streams,
    hints: Arc<hints::Hints>,
    readiness: readiness::Readiness,
    /// How old what web serves by may be.
    trust: trust::Trust,
    pages: pages::Pages,
    offers: offers::Offers,
    metrics: Metrics,
    clock: Arc<Clock>,
    events: EventLog,
    /// Turns true when the end was asked for.
    stopping: watch::Receiver<bool>,
    openapi: utoipa::openapi::OpenApi,
    exports: Stores,
    /// Room for downloads of exports.
    downloads: Arc<Semaphore>,
    /// Whose export is being downloaded.
    downloading: turns::Turns,
}

impl App {
    /// Whether the tenants of a namespace are this web's.
    fn serves(&self, namespace: &str) -> bool {
        let served = &self.config.served_namespaces;
        served.is_empty() || namespace == self.config.namespace || served.iter().any(|there| there == namespace)
    }

    /// The present, by the API server's clock: a replica whose own has jumped refuses no customer and no webhook.
    fn now(&self) -> Timestamp {
        self.clock.read().now
    }

    fn tenants(&self) -> Api<Tenant> {
        Api::namespaced(self.client.clone(), &self.config.namespace)
    }

    /// The object of a tenant that is served, as it is now; none where it is gone.
    async fn object_of(&self, tenant: &directory::Served) -> Result<Option<Tenant>, kube::Error> {
        let api: Api<Tenant> = Api::namespaced(self.client.clone(), &tenant.namespace);
        match api.get_opt(&tenant.name).await {
            // The definition itself is gone.
            Err(kube::Error::Api(e)) if e.code == 404 => Ok(None),
            other => Ok(other?.filter(|there| there.uid().as_ref() == Some(&tenant.uid))),
        }
    }

    /// Changes a Tenant of the signup namespace.
    async fn patch_tenant(&self, name: &str, change: Value) -> Result<Tenant, kube::Error> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        self.tenants().patch(name, &params, &Patch::Merge(change)).await
    }

    /// Changes a Tenant that its customer asks to be changed: see [`optimistic::change`]. Each change counts against
    /// the tenant's limit.
    async fn change_tenant(
        &self,
        tenant: &Tenant,
        change: impl Fn(&Tenant) -> Result<Option<Value>, Problem>,
    ) -> Result<Option<Tenant>, Problem> {
        self.change_tenant_unless(tenant, change).await
    }

    /// As `change_tenant`, where `change` may refuse for a reason of its own.
    async fn change_tenant_unless<E: From<Problem>>(
        &self,
        tenant: &Tenant,
        change: impl Fn(&Tenant) -> Result<Option<Value>, E>,
    ) -> Result<Option<Tenant>, E> {
        let counted = |seen: &Tenant| {
            let patch = change(seen)?;
            if patch.is_some() {
                self.changes.take(&seen.uid().unwrap_or_default()).map_err(Problem::too_many)?;
            }
            Ok(patch)
        };
        optimistic::change(&self.tenants(), tenant, FIELD_MANAGER, counted).await
    }

    /// As `change_tenant`, beside the limit of the tenant's changes: a link of an e-mail works once, and a stranger
    /// with a token must not keep its owner from using it.
    async fn change_by_link(
        &self,
        tenant: &Tenant,
        change: impl Fn(&Tenant) -> Result<Option<Value>, Problem>,
    ) -> Result<Option<Tenant>, Problem> {
        optimistic::change(&self.tenants(), tenant, FIELD_MANAGER, change).await
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.config.namespace)
    }
}

/// A web that listens and does not serve yet.
pub struct Web {
    listener: TcpListener,
    metrics: TcpListener,
    app: Arc<App>,
    stopping: watch::Sender<bool>,
    /// Follow the Tenants, for as long as web lives.
    _tasks: JoinSet<()>,
}

/// Why web ended.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// Kubernetes refused something at the start.
    #[error("Kubernetes: {0}")]
    Kube(#[from] kube::Error),
    /// The controller has not made a key.
    #[error("no Secret {0}/{1}: the controller makes it when it starts. Check that it runs")]
    NoKey(String, &'static str),
    /// Nothing can be counted.
    #[error(transparent)]
    Metering(#[from] MeteringError),
    /// The address is taken, or the listener broke.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// The file of events cannot be opened.
    #[error("EVENTS_FILE cannot be opened: {0}")]
    Events(std::io::Error),
    /// A page cannot be read: a bug.
    #[error("a page: {0}")]
    Page(#[from] minijinja::Error),
    /// Serving broke off.
    #[error("serving failed: {0}")]
    Serve(#[from] std::io::Error),
}

impl Web {
    /// Binds the addresses and reads the identity key.
    pub async fn bind(client: Client, config: WebConfig, providers: WebProviders) -> Result<Self, WebError> {
        let clock = Arc::new(Clock::default());
        let client = clock.listen(client);
        let bind = async |addr| TcpListener::bind(addr).await.map_err(|e| WebError::Listen(addr, e));
        let (listener, metrics) = (bind(config.listen).await?, bind(config.metrics_listen).await?);
        let operator = &config.operator_namespace;
        let no_key = |secret| WebError::NoKey(operator.clone(), secret);
        let identity = IdentityKey::wait(&client, operator).await?.ok_or_else(|| no_key(IDENTITY_SECRET))?;
        let key = wait_for_ledger_key(&client, operator).await?.ok_or_else(|| no_key(LEDGER_SECRET))?;
        let counts = Metrics::default();
        let metering = Arc::new(Metering::new(&config.metering, client.clone(), &key, &counts)?);
        let events = EventLog::open(config.events_file.as_deref()).await.map_err(WebError::Events)?;
        let WebProviders { embedder, chat, indexes, portal, admission, alerts, exports } = providers;
        let (stopping, stop) = watch::channel(false);
        let mut followed = config.served_namespaces.clone();
        if !followed.is_empty() && !followed.contains(&config.namespace) {
            // Signups wait for what becomes of their Tenants.
            followed.push(config.namespace.clone());
        }
        let (mut tasks, mut trust) = (JoinSet::new(), trust::Trust::new(config.serves_on));
        let directory = directory::Directory::start(&mut tasks, &client, &followed, &identity, &mut trust);
        let app = App {
            hints: Arc::new(hints::Hints::new(client.clone())),
            signups: limits::Limit::per_minute(config.signups_per_minute),
            clients: limits::Limit::per_second(config.client_requests_per_second),
            sight: limits::Sight::default(),
            leads: limits::Limit::per_day(config.leads_per_day),
            requests: limits::Limit::per_second(config.requests_per_second),
            passes: limits::Limit::per_second(config.requests_per_second),
            visits: limits::Limit::per_second(config.requests_per_second),
            changes: limits::Limit::per_minute(CHANGES_PER_MINUTE),
            claims: limits::Limit::per_minute(track::CLAIMS_PER_MINUTE),
            uploads: places::Places::new(config.upload_limit),
            refusals: limits::Allowance::of_refused_files(),
            early_deletions: limits::Allowance::of_early_deletions(),
            bodies: bodies::Bodies::new(config.connections.connections),
            lingers: linger::Lingers::new(config.connections.connections),
            finishing: Arc::new(Semaphore::new(routes::FINISHING as usize)),
            keyed: api::idempotency::KeyedPlaces::default(),
            storing: turns::Turns::default(),
            reading: turns::Turns::default(),
            metering,
            api_keys: api::keys::KeyRing::new(trust.key().clone()),
            trust,
            standings: standings::Standings::default(),
            event_places: usage_events::EventPlaces::default(),
            directory,
            passwords: password::Passwords::default(),
            streams: tenant::Streams::default(),
            readiness: readiness::Readiness::default(),
            pages: pages::Pages::new(&config.brand)?,
            offers: offers::Offers::default(),
            metrics: counts,
            clock,
            events,
            stopping: stop,
            openapi: api_document(),
            client,
            config,
            identity,
            embedder,
            chat,
            indexes,
            portal,
            admission,
            alerts,
            exports,
            downloads: Arc::new(Semaphore::new(export::DOWNLOADS)),
            downloading: turns::Turns::default(),
        };
        let app = Arc::new(app);
        // The controller pins; web looks only.
        app.indexes.all().for_each(|index| index.gate().guard());
        let keeper =
            Keeper { client: app.client.clone(), namespace: app.config.operator_namespace.clone(), pins: false };
        let checked = app.clone();
        tasks.spawn(async move { keeper.keep(None, &checked.indexes, || ()).await });
        let verifies = app.clone();
        tasks.spawn(async move {
            let (client, namespace) = (&verifies.client, &verifies.config.operator_namespace);
            verifies.api_keys.follow(client, namespace, verifies.trust.silence()).await;
        });
        let delivering = app.metering.clone();
        tasks.spawn(async move { delivering.deliver().await });
        Ok(Self { listener, metrics, app, stopping, _tasks: tasks })
    }

    /// The address that was bound.
    pub fn addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The address of the metrics.
    pub fn metrics_addr(&self) -> std::io::Result<SocketAddr> {
        self.metrics.local_addr()
    }

    /// Serves until `stop`: then not ready, a while later no new connections, event streams end, requests may finish.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), WebError> {
        let Self { listener, metrics, app, stopping, _tasks } = self;
        let (limits, delay) = (app.config.connections, app.config.shutdown_delay);
        let stop = async move {
            stop.await;
            stopping.send_replace(true);
            tokio::time::sleep(delay).await;
        };
        let stop = stop.boxed().shared();
        let metrics = serve::serve(metrics, routes::metrics(app.clone()), limits, stop.clone());
        let public = serve::serve(listener, routes::public(app.clone()), limits, stop);
        let served = tokio::try_join!(public, metrics);
        if tokio::time::timeout(LAST_WRITES, routes::finished(&app.finishing)).await.is_err() {
            tracing::warn!("not all changes whose clients hung up ended in time");
        }
        // A question with an idempotency key is served to its end, whatever became of its connection. A settlement that
        // the ledger does not answer goes to the journal after that.
        let last_counts = routes::ANSWER_LIMIT + app.config.metering.patience + LAST_WRITES;
        if tokio::time::timeout(last_counts, app.metering.finished()).await.is_err() {
            tracing::warn!("not all that was used was counted in time");
        }
        app.metering.drained(app.config.metering.drain).await;
        served?;
        if tokio::time::timeout(LAST_WRITES, app.events.flush()).await.is_err() {
            tracing::warn!("not all events were written in time");
        }
        Ok(())
    }
}
