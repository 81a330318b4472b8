//! Health, readiness and metrics of the controller.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

use crate::telemetry::{METRICS_TYPE, log_level};

/// What a controller does once it leads; before that it stands by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads, and does not know everything yet.
    Syncing = 1,
    /// It leads and works.
    Leading = 2,
}

/// The role, shared with the server.
#[derive(Clone, Default)]
pub struct Health(Arc<AtomicU8>);

impl Health {
    pub fn set(&self, role: Role) {
        self.0.store(role as u8, Ordering::Relaxed);
    }

    /// A controller whose key is of another account is not ready, so that a rollout stops. It goes on with what needs
    /// no such account: readiness ends no pod.
    fn answer(&self, refusals: &[String]) -> (StatusCode, String) {
        let (ready, role) = match self.0.load(Ordering::Relaxed) {
            0 => (true, "standing by"),
            1 => (false, "syncing"),
            _ => (true, "leading"),
        };
        let status = if ready && refusals.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let lines: Vec<_> = [role].into_iter().chain(refusals.iter().map(String::as_str)).collect();
        (status, lines.join("\n"))
    }
}

/// Serves `/healthz`, `/readyz`, `/metrics` and `/log-level`. One that stands by is ready to take over; a leader is
/// ready once its caches are filled.
pub async fn serve(
    addr: SocketAddr,
    health: Health,
    metrics: impl Fn() -> String + Clone + Send + Sync + 'static,
    refusals: impl Fn() -> Vec<String> + Clone + Send + Sync + 'static,
    more: Router,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(addr).await?;
    tracing::info!("health and metrics on http://{}", listener.local_addr()?);
    let role = move || async move { health.answer(&refusals()) };
    let routes = Router::new()
        .route("/healthz", get(async || StatusCode::OK))
        .route("/readyz", get(role))
        .route("/metrics", get(move || async move { ([("content-type", METRICS_TYPE)], metrics()) }));
    let routes = routes.merge(log_level::routes()).merge(more);
    let service = routes.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_account_is_never_ready() {
        let health = Health::default();
        let refused = ["Stripe: the key is of acct_2".to_owned()];
        for role in [None, Some(Role::Leading)] {
            if let Some(role) = role {
                health.set(role);
            }
            assert_eq!(health.answer(&[]).0, StatusCode::OK);
            let (status, text) = health.answer(&refused);
            assert!(status == StatusCode::SERVICE_UNAVAILABLE && text.contains("acct_2"), "{text}");
        }
        health.set(Role::Syncing);
        assert_eq!(health.answer(&[]).0, StatusCode::SERVICE_UNAVAILABLE);
    }
}
