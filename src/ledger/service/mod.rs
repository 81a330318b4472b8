//! The ledger's own HTTP API, for the operator's other parts: `docs/ledger.md` describes it.

mod answers;
mod events;
mod events_store;
mod extract;
mod health;
mod hour_lines;
mod kept;
mod key;
mod operations;
mod recount;
mod reports;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Router, middleware};
use futures::{Future, FutureExt};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::beginning::Beginning;
use super::events::{EventsError, EventsPlace, Feed};
use super::forgetting;
use super::orphans::Orphans;
use super::snapshots::{SnapshotError, Snapshots};
use super::store::postgres::Postgres;
use super::store::sqlite::Sqlite;
use super::store::{Store, StoreError};
use crate::clock::Clock;
use crate::serve::{self, ConnectionLimits};
use crate::telemetry::{Metrics, log_level};

pub use key::{KeyError, LedgerKey};

/// The longest body: a command has some hundred bytes.
const BODY: usize = 16 << 10;
/// The longest batch of events: the most of them, with long names.
const EVENTS_BODY: usize = 8 << 20;
/// The longest answer that the ledger reads: longer than one that it keeps, so that it can say that it does not keep
/// it.
const ANSWER_BODY: usize = 1 << 20;
/// Batches of events that are read and counted at the same time. Others wait.
const BATCHES: usize = 4;
/// How long a request may take: a commit waits for the disk.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// What clients get. A file is open for each connection, and a process may have 1,024 by default.
const CONNECTIONS: ConnectionLimits = ConnectionLimits {
    connections: 800,
    // Half of them, so that a pod without the key keeps no other out: a connection is open before a key is shown. Not
    // less, because a development cluster and the tests reach the ledger from one address.
    per_client: Some(400),
    write_timeout: Duration::from_secs(10),
    // Clients of ours use no connection again that was idle for 10 seconds.
    header_timeout: Duration::from_secs(15),
    // Well within the 30 seconds that the kubelet gives.
    drain: Duration::from_secs(3),
};
/// What Prometheus and the kubelet get: their connections stay open even if those of clients are too many.
const PROBES: ConnectionLimits = ConnectionLimits { connections: 50, ..CONNECTIONS };

/// Where the ledger is kept.
#[derive(Debug)]
pub enum LedgerPlace {
    /// In `SQLite`, in this folder, with snapshots elsewhere or without.
    Folder(PathBuf, Option<Snapshots>),
    /// In the Postgres database with this URL.
    Postgres(SecretString),
}

impl LedgerPlace {
    /// The folder, if it is one.
    fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder, _) => Some(folder),
            Self::Postgres(_) => None,
        }
    }

    /// The store, and the snapshots that are taken of it.
    async fn open(self) -> Result<(Arc<dyn Store>, Option<Regular>), LedgerError> {
        Ok(match self {
            Self::Folder(folder, None) => (Arc::new(Sqlite::open(&folder)?), None),
            Self::Folder(folder, Some(snapshots)) => {
                let ledger = Arc::new(Sqlite::open_or_restore(&folder, &snapshots).await?);
                (ledger.clone(), Some(Regular { ledger, snapshots }))
            }
            Self::Postgres(url) => (Arc::new(Postgres::connect(&url).await?), None),
        })
    }
}

/// Snapshots that are taken again and again.
struct Regular {
    ledger: Arc<Sqlite>,
    snapshots: Snapshots,
}

impl Regular {
    async fn run(self, shared: Arc<Shared>) {
        loop {
            let now = shared.clock.read().now;
            match self.snapshots.take(&self.ledger, now).await {
                Ok(()) => drop(shared.metrics.ledger_snapshot.set(now.as_second())),
                Err(error) => tracing::warn!(%error, "no snapshot was taken"),
            }
            tokio::time::sleep(self.snapshots.every()).await;
        }
    }
}

/// How the ledger runs.
pub struct LedgerConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where to listen for metrics and probes, apart from what clients reach.
    pub metrics_listen: SocketAddr,
    /// Where it is kept.
    pub place: LedgerPlace,
    /// What clients must show.
    pub key: LedgerKey,
    /// Bytes that the answers of all tenants for idempotency keys may take.
    pub answer_bytes: i64,
    /// Follows the API server's time, if a cluster is known.
    pub client: Option<kube::Client>,
    /// Where the events store is. Default: in a file of the ledger's folder, and none without a folder.
    pub events: Option<SecretString>,
    /// How long the events store keeps lines. None keeps all of them.
    pub retention: Option<Duration>,
}

/// Why the ledger does not run.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The files cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The snapshots cannot be used.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    /// The URL of the events store cannot be used.
    #[error(transparent)]
    Events(#[from] EventsError),
    /// The address cannot be used.
    #[error("cannot listen on {addr}: {error}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The reason.
        error: std::io::Error,
    },
}

/// What the handlers share.
struct Shared {
    store: Arc<dyn Store>,
    orphans: Arc<Orphans>,
    clock: Arc<Clock>,
    key: LedgerKey,
    metrics: Metrics,
    /// Bytes that the answers of all tenants may take.
    answer_bytes: i64,
    /// The folder of its files, if it has any.
    folder: Option<PathBuf>,
    /// How often a snapshot is taken, if any is.
    snapshots_every: Option<Duration>,
    batches: Arc<Semaphore>,
    /// How it began.
    beginning: Mutex<Option<Beginning>>,
    /// The events store, if there is one.
    events: Option<Feed>,
}

impl Shared {
    /// How it began.
    fn beginning(&self) -> Option<Beginning> {
        self.beginning.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A ledger that listens.
pub struct Ledger {
    listener: TcpListener,
    metrics: TcpListener,
    shared: Arc<Shared>,
    client: Option<kube::Client>,
    snapshots: Option<Regular>,
}

impl Ledger {
    /// Opens the files and listens. Pending operations get their interval again.
    pub async fn bind(config: LedgerConfig) -> Result<Self, LedgerError> {
        let folder = config.place.folder().map(Path::to_owned);
        let (store, snapshots) = config.place.open().await?;
        let orphans = Arc::new(Orphans::default());
        for pending in store.pending().await? {
            orphans.expect(pending);
        }
        let clock = Arc::new(Clock::default());
        let client = config.client.map(|client| clock.listen(client));
        if let Some(client) = &client {
            crate::clock::ask(client).await;
        }
        let beginning = store.begin(clock.read().now).await?;
        let bind = async |addr| TcpListener::bind(addr).await.map_err(|error| LedgerError::Listen { addr, error });
        let (listener, metrics) = (bind(config.listen).await?, bind(config.metrics_listen).await?);
        let events = feed(&store, &clock, folder.as_deref(), (config.events, config.retention)).await?;
        let snapshots_every = snapshots.as_ref().map(|regular| regular.snapshots.every());
        let shared = Shared {
            store,
            orphans,
            clock,
            key: config.key,
            metrics: Metrics::default(),
            answer_bytes: config.answer_bytes,
            folder,
            snapshots_every,
            batches: Arc::new(Semaphore::new(BATCHES)),
            beginning: Mutex::new(beginning),
            events,
        };
        Ok(Self { listener, metrics, shared: Arc::new(shared), client, snapshots })
    }

    /// Where it listens.
    pub fn addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The address of the metrics.
    pub fn metrics_addr(&self) -> std::io::Result<SocketAddr> {
        self.metrics.local_addr()
    }

    /// Serves until `stop`. What waits is written before it ends. A client that sends a request slowly does not hold it
    /// up.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
        let Self { listener, metrics, shared, client, snapshots } = self;
        if let Some(client) = client {
            tokio::spawn(crate::clock::follow(client));
        }
        if let Some(snapshots) = snapshots {
            tokio::spawn(snapshots.run(shared.clone()));
        }
        let feeding = shared.clone();
        tokio::spawn(async move {
            if let Some(feed) = &feeding.events {
                feed.run(&feeding.metrics).await;
            }
        });
        tokio::spawn(shared.orphans.clone().run(shared.store.clone(), shared.clock.clone()));
        tokio::spawn(forgetting::run(shared.store.clone(), shared.clock.clone()));
        let stop = stop.boxed().shared();
        let probes = serve::serve(metrics, metrics_routes(shared.clone()), PROBES, stop.clone());
        let clients = serve::serve(listener, routes(shared), CONNECTIONS, stop);
        tokio::try_join!(clients, probes).map(drop)
    }
}

/// What feeds the events store. Nothing is asked of the store yet: it may be away.
async fn feed(
    store: &Arc<dyn Store>,
    clock: &Arc<Clock>,
    folder: Option<&Path>,
    (url, retention): (Option<SecretString>, Option<Duration>),
) -> Result<Option<Feed>, LedgerError> {
    let Some(place) = EventsPlace::of(url, folder) else {
        tracing::info!("there is no events store: a ledger in Postgres has one once EVENTS_URL is set");
        return Ok(None);
    };
    let (ledger, clock, fed) = (store.clone(), clock.clone(), Arc::default());
    Ok(Some(Feed { id: store.id().await?, ledger, events: place.open()?, clock, retention, fed }))
}

/// Ends a request that takes too long.
async fn in_time(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(ANSWER_LIMIT, next.run(request)).await;
    answered.unwrap_or_else(|_| answers::ServiceProblem::Late.into_response())
}

fn behind_the_key(shared: Arc<Shared>) -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/operations/{operation}", put(operations::reserve))
        .route("/v1/operations/{operation}/checkpoint", post(operations::checkpoint))
        .route("/v1/operations/{operation}/settle", post(operations::settle))
        .route("/v1/operations/{operation}/void", post(operations::void))
        .route("/v1/operations/{operation}/release", post(operations::release))
        .route("/v1/operations/{operation}/recount", post(operations::recount))
        .route("/v1/recounted", get(recount::tenants).post(recount::done))
        .route("/v1/tenants/{tenant}/documents", get(recount::documents))
        .route("/v1/tenants/{tenant}/usage", get(reports::usage))
        .route("/v1/tenants/{tenant}/periods", get(reports::periods))
        .route("/v1/tenants/{tenant}/days", get(reports::tenant_days))
        .route("/v1/tenants/{tenant}/hours", get(reports::hours))
        .route("/v1/tenants/{tenant}/hours/lines", get(hour_lines::lines))
        .route("/v1/tenants/{tenant}/lines", get(events_store::lines))
        .route("/v1/tenants/{tenant}/events/hours", get(events_store::hours))
        .route("/v1/events/store", get(events_store::status))
        .route("/v1/events/rebuild", post(events_store::rebuild))
        .route("/v1/events", post(events::count).layer(DefaultBodyLimit::max(EVENTS_BODY)))
        .route("/v1/answers/{tenant}", delete(kept::erase))
        .route("/v1/answers/{tenant}/{key}", put(kept::begin))
        .route("/v1/answers/{tenant}/{key}/finish", post(kept::finish).layer(DefaultBodyLimit::max(ANSWER_BODY)))
        .route("/v1/usage", get(reports::changed))
        .route("/v1/days", get(reports::site_days))
        .route("/v1/status", get(health::status))
        .route_layer(middleware::from_fn_with_state(shared, key::check))
}

fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .merge(behind_the_key(shared.clone()))
        .route("/healthz", get(async || StatusCode::OK))
        .route("/readyz", get(health::ready))
        .fallback(answers::no_such_path)
        .method_not_allowed_fallback(answers::method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn(in_time))
        .with_state(shared)
}

/// What Prometheus and the kubelet ask.
fn metrics_routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(async || StatusCode::OK))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(answers::no_such_path)
        .layer(middleware::from_fn(in_time))
        .with_state(shared)
        .merge(log_level::routes())
}
