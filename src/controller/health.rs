//! Health, readiness and metrics of the controller.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

use crate::telemetry::{METRICS_TYPE, Metrics};

/// Whether the controller leads.
#[derive(Clone, Default)]
pub struct Health(Arc<AtomicBool>);

impl Health {
    pub fn set_ready(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Serves `/healthz`, `/readyz` and `/metrics`. A controller in waiting is healthy and ready to take over.
pub async fn serve(addr: SocketAddr, health: Health, metrics: Arc<Metrics>) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(addr).await?;
    tracing::info!("health and metrics on http://{}", listener.local_addr()?);
    let role = move || async move { if health.0.load(Ordering::Relaxed) { "leading" } else { "in waiting" } };
    let routes = Router::new()
        .route("/healthz", get(async || StatusCode::OK))
        .route("/readyz", get(role))
        .route("/metrics", get(move || async move { ([("content-type", METRICS_TYPE)], metrics.encode()) }));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(())
}
