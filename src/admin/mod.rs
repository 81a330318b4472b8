//! The admin pages: pages and figures about all customers, for the people who run the service. It listens on a port of
//! its own in the ledger's process. It only reads: everything follows from the Tenants and Plans, by the pure code in
//! `analytics`.

mod attempts;
mod attention;
mod computing;
mod figures;
mod pages;
mod routes;
mod session;
mod tenants;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::Future;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::access_tokens::AccessTokens;
use crate::clock::Clock;
use crate::serve::{self, ConnectionLimits};

use attempts::Attempts;
use session::Sessions;

pub use session::Owner;
pub use tenants::Tenants;

/// What admins and their programs get: they are few.
const CONNECTIONS: ConnectionLimits = ConnectionLimits {
    connections: 100,
    // Half of them, so that one client keeps no other out. Behind `kubectl port-forward`, all have one address.
    per_client: Some(50),
    write_timeout: Duration::from_secs(10),
    header_timeout: Duration::from_secs(15),
    // Well within the 30 seconds that the kubelet gives.
    drain: Duration::from_secs(3),
};

/// Figures that are computed at the same time. Others wait.
const COMPUTED_AT_ONCE: usize = 2;

/// How it is served.
pub struct AdminConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Whether browsers come by TLS, which a proxy ends.
    pub tls: bool,
    /// What admins show. One at least.
    pub tokens: AccessTokens,
    /// The namespaces of the Tenants; all when empty.
    pub namespaces: Vec<String>,
    /// The cluster.
    pub client: kube::Client,
}

/// Why it is not served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// There is no token.
    #[error(
        "--admin-listen needs a token that admins log in with: set ADMIN_TOKEN, or --admin-token-file to a file, with the \
         output of `openssl rand -hex 32`, for example"
    )]
    NoToken,
    /// The address cannot be used.
    #[error("cannot listen on {addr} for /admin: {error}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The reason.
        error: std::io::Error,
    },
}

/// What the handlers share.
pub struct Admin {
    /// The Tenants and Plans.
    pub tenants: Tenants,
    /// The API server's time.
    pub clock: Arc<Clock>,
    tokens: AccessTokens,
    sessions: Sessions,
    attempts: Attempts,
    computing: Arc<Semaphore>,
    tls: bool,
}

/// The door, which listens.
pub struct AdminServer {
    listener: TcpListener,
    admin: Arc<Admin>,
    /// What keeps the Tenants and the time.
    tasks: JoinSet<()>,
}

impl AdminServer {
    /// Listens, and begins to follow the Tenants.
    pub async fn bind(config: AdminConfig) -> Result<Self, AdminError> {
        if config.tokens.is_empty() {
            return Err(AdminError::NoToken);
        }
        let addr = config.listen;
        let listener = TcpListener::bind(addr).await.map_err(|error| AdminError::Listen { addr, error })?;
        let clock = Arc::new(Clock::default());
        let client = clock.listen(config.client);
        let mut tasks = JoinSet::new();
        let tenants = Tenants::start(&mut tasks, &client, &config.namespaces);
        tasks.spawn(crate::clock::follow(client));
        let admin = Admin {
            tenants,
            clock,
            tokens: config.tokens,
            sessions: Sessions::default(),
            attempts: Attempts::default(),
            computing: Arc::new(Semaphore::new(COMPUTED_AT_ONCE)),
            tls: config.tls,
        };
        Ok(Self { listener, admin: Arc::new(admin), tasks })
    }

    /// Where it listens.
    pub fn addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> std::io::Result<()> {
        let Self { listener, admin, tasks } = self;
        let served = serve::serve(listener, routes::routes(admin), CONNECTIONS, stop).await;
        drop(tasks);
        served
    }
}
