//! Connections to Postgres, with TLS where the URL asks for it (`sslmode=require`), and how a transaction begins.

use std::str::FromStr;
use std::time::Duration;

use deadpool_postgres::{Client, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Transaction};
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::{Config, IsolationLevel};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::ledger::store::StoreError;

/// Connections of one ledger. More would wait for the same disk.
const CONNECTIONS: usize = 16;
/// How long a command waits for one of them, and a packet for its acknowledgement.
pub const WAIT: Duration = Duration::from_secs(5);
/// What a URL looks like. The cause of the error, which can hold the password, is not shown.
const EXAMPLE: &str = "postgres://user:password@host:5432/database?sslmode=require (or disable, or prefer)";
/// How long the server works on one statement: a lock that is held for longer is held by something that hangs.
const STATEMENT: &str = "-c statement_timeout=5000 -c idle_in_transaction_session_timeout=10000";

/// Connections that are made when they are needed.
pub fn pool(url: &SecretString) -> Result<Pool, StoreError> {
    // The error of a URL repeats nothing of it.
    let mut config =
        Config::from_str(url.expose_secret()).map_err(|error| StoreError::Url(format!("{error}: use {EXAMPLE}")))?;
    config
        .connect_timeout(WAIT)
        .application_name("tenant-operator-ledger")
        .keepalives_idle(Duration::from_secs(30))
        .tcp_user_timeout(WAIT);
    let options = config.get_options().map_or_else(|| STATEMENT.to_owned(), |options| format!("{STATEMENT} {options}"));
    config.options(options);
    let settings = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(config, MakeRustlsConnect::new(tls()), settings);
    Pool::builder(manager)
        .max_size(CONNECTIONS)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(WAIT))
        .create_timeout(Some(WAIT))
        .recycle_timeout(Some(WAIT))
        .build()
        .map_err(|error| StoreError::Url(error.to_string()))
}

/// TLS with the roots of the system, which `SSL_CERT_FILE` replaces.
pub fn tls() -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a root certificate cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}

/// Begins a transaction. The locks are what makes it exact, so each statement must see what was committed before it,
/// whatever the default of the database is.
pub async fn begin(client: &mut Client) -> Result<Transaction<'_>, tokio_postgres::Error> {
    client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await
}
