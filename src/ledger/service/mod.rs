//! The ledger's own HTTP API, for the operator's other parts: `docs/ledger.md` describes it.

mod answers;
mod extract;
mod health;
mod key;
mod operations;
mod reports;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Router, middleware};
use futures::{Future, FutureExt};
use secrecy::SecretString;
use tokio::net::TcpListener;

use super::orphans::Orphans;
use super::snapshots::{SnapshotError, Snapshots};
use super::store::postgres::Postgres;
use super::store::sqlite::Sqlite;
use super::store::{Store, StoreError};
use crate::clock::Clock;
use crate::telemetry::{Metrics, log_level};

pub use key::{KeyError, LedgerKey};

/// The longest body: a command has some hundred bytes.
const BODY: usize = 16 << 10;
/// How long a request may take: a commit waits for the disk.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long requests may go on after the end was asked for: well within the 30 seconds that the kubelet gives.
const DRAIN: Duration = Duration::from_secs(3);

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
    /// Where metrics are served. With the rest if it is not set.
    pub metrics_listen: Option<SocketAddr>,
    /// Where it is kept.
    pub place: LedgerPlace,
    /// What clients must show.
    pub key: LedgerKey,
    /// Follows the API server's time, if a cluster is known.
    pub client: Option<kube::Client>,
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
    /// The folder of its files, if it has any.
    folder: Option<PathBuf>,
    /// How often a snapshot is taken, if any is.
    snapshots_every: Option<Duration>,
}

/// A ledger that listens.
pub struct Ledger {
    listener: TcpListener,
    metrics: Option<TcpListener>,
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
        let listener = listen(config.listen).await?;
        let metrics = match config.metrics_listen {
            Some(addr) => Some(listen(addr).await?),
            None => None,
        };
        let snapshots_every = snapshots.as_ref().map(|regular| regular.snapshots.every());
        let (key, counts) = (config.key, Metrics::default());
        let shared = Shared { store, orphans, clock, key, metrics: counts, folder, snapshots_every };
        Ok(Self { listener, metrics, shared: Arc::new(shared), client, snapshots })
    }

    /// Where it listens.
    pub fn addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where metrics are served, if on an address of their own.
    pub fn metrics_addr(&self) -> Option<std::io::Result<SocketAddr>> {
        self.metrics.as_ref().map(TcpListener::local_addr)
    }

    /// Serves until `stop`. What waits is written before it ends. A client that sends a request slowly does not hold it up.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
        let Self { listener, metrics, shared, client, snapshots } = self;
        if let Some(client) = client {
            tokio::spawn(crate::clock::follow(client));
        }
        if let Some(snapshots) = snapshots {
            tokio::spawn(snapshots.run(shared.clone()));
        }
        tokio::spawn(shared.orphans.clone().run(shared.store.clone(), shared.clock.clone()));
        let door = if metrics.is_some() { Door::Api } else { Door::Both };
        if let Some(listener) = metrics {
            // Served until the process ends: an end that takes long is seen.
            let service = routes(shared.clone(), Door::Metrics).into_make_service_with_connect_info::<SocketAddr>();
            tokio::spawn(axum::serve(listener, service).into_future());
        }
        let service = routes(shared, door).into_make_service_with_connect_info::<SocketAddr>();
        let stop = stop.boxed().shared();
        let serving = axum::serve(listener, service).with_graceful_shutdown(stop.clone());
        tokio::select! {
            served = serving.into_future() => served,
            () = stop.then(|()| tokio::time::sleep(DRAIN)) => {
                tracing::warn!("some requests did not end in time");
                Ok(())
            }
        }
    }
}

async fn listen(addr: SocketAddr) -> Result<TcpListener, LedgerError> {
    TcpListener::bind(addr).await.map_err(|error| LedgerError::Listen { addr, error })
}

/// Ends a request that takes too long.
async fn in_time(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(ANSWER_LIMIT, next.run(request)).await;
    answered.unwrap_or_else(|_| answers::Problem::Late.into_response())
}

/// What an address serves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    /// The API, for clients with the key.
    Api,
    /// Metrics and the log level, for monitors.
    Metrics,
    /// Everything.
    Both,
}

fn behind_the_key(shared: Arc<Shared>) -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/operations/{operation}", put(operations::reserve))
        .route("/v1/operations/{operation}/checkpoint", post(operations::checkpoint))
        .route("/v1/operations/{operation}/settle", post(operations::settle))
        .route("/v1/operations/{operation}/void", post(operations::void))
        .route("/v1/operations/{operation}/release", post(operations::release))
        .route("/v1/tenants/{tenant}/usage", get(reports::usage))
        .route("/v1/tenants/{tenant}/periods", get(reports::periods))
        .route("/v1/tenants/{tenant}/days", get(reports::tenant_days))
        .route("/v1/days", get(reports::site_days))
        .route("/v1/status", get(health::status))
        .route_layer(middleware::from_fn_with_state(shared, key::check))
}

fn routes(shared: Arc<Shared>, door: Door) -> Router {
    let mut router = Router::new().route("/healthz", get(async || StatusCode::OK)).route("/readyz", get(health::ready));
    if door != Door::Metrics {
        router = router.merge(behind_the_key(shared.clone()));
    }
    if door != Door::Api {
        router = router.route("/metrics", get(health::metrics));
    }
    let router = router
        .fallback(answers::no_such_path)
        .method_not_allowed_fallback(answers::method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn(in_time))
        .with_state(shared);
    if door == Door::Api { router } else { router.merge(log_level::routes()) }
}
