//! The web pod: signups, Stripe's webhooks, and what a customer sees. Replicas share nothing but Kubernetes.

mod hints;
mod problem;
mod setup;
mod signature;
mod signup;
mod tenant;
mod webhooks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::Future;
use kube::{Api, Client};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower_http::timeout::TimeoutLayer;

use crate::api::Tenant;
use crate::operator_keys::IdentityKey;
use crate::providers::openai::OpenAi;
use crate::providers::pinecone::Pinecone;
use crate::telemetry::{METRICS_TYPE, Metrics};

/// The longest body of a signup or question.
const BODY_LIMIT: usize = 64 << 10;
/// The longest webhook: Stripe's are far below.
const WEBHOOK_LIMIT: usize = 1 << 20;
/// Passwords hashed at the same time: each takes 19 MiB and a core.
const HASHERS: usize = 2;

/// How web runs.
#[derive(Clone, Debug)]
pub struct WebConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where signups make their Tenants.
    pub namespace: String,
    /// Where the operator's own Secrets are.
    pub operator_namespace: String,
    /// Stripe's webhook secrets; several while one rotates.
    pub webhook_secrets: Vec<String>,
    /// How long a signup waits for the controller's payment link.
    pub checkout_wait: Duration,
    /// The version of the terms that signups accept.
    pub terms_version: String,
}

/// What all handlers share.
pub struct App {
    client: Client,
    config: WebConfig,
    identity: IdentityKey,
    openai: OpenAi,
    pinecone: Pinecone,
    hashers: Semaphore,
    hints: Arc<hints::Hints>,
    metrics: Metrics,
}

impl App {
    fn tenants(&self) -> Api<Tenant> {
        Api::namespaced(self.client.clone(), &self.config.namespace)
    }
}

/// A web that listens and does not serve yet.
pub struct Web {
    listener: TcpListener,
    app: Arc<App>,
}

/// Why web ended.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// Kubernetes refused something at the start.
    #[error("Kubernetes: {0}")]
    Kube(#[from] kube::Error),
    /// The address is taken, or the listener broke.
    #[error("cannot listen: {0}")]
    Listen(#[from] std::io::Error),
}

impl Web {
    /// Binds the address and reads the identity key.
    pub async fn bind(client: Client, config: WebConfig, openai: OpenAi, pinecone: Pinecone) -> Result<Self, WebError> {
        let listener = TcpListener::bind(config.listen).await?;
        let identity = IdentityKey::load(&client, &config.operator_namespace).await?;
        let (hashers, metrics) = (Semaphore::new(HASHERS), Metrics::default());
        let hints = Arc::new(hints::Hints::new(client.clone()));
        let app = App { client, config, identity, openai, pinecone, hashers, hints, metrics };
        Ok(Self { listener, app: Arc::new(app) })
    }

    /// The address that was bound.
    pub fn addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), WebError> {
        axum::serve(self.listener, routes(self.app)).with_graceful_shutdown(stop).await?;
        Ok(())
    }
}

fn routes(app: Arc<App>) -> Router {
    let timed = Router::new()
        .route("/signup", post(signup::signup))
        .route("/tenant/{id}", get(tenant::show))
        .route("/tenant/{id}/setup/sample-query", post(setup::sample_query))
        .route("/webhooks/stripe", post(webhooks::stripe).layer(DefaultBodyLimit::max(WEBHOOK_LIMIT)))
        .route("/health", get(health))
        .route("/healthz", get(async || StatusCode::OK))
        .route("/readyz", get(ready))
        .route(
            "/metrics",
            get(async |State(app): State<Arc<App>>| ([("content-type", METRICS_TYPE)], app.metrics.encode())),
        )
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, Duration::from_mins(1)));
    timed.route("/tenant/{id}/events", get(tenant::events)).layer(DefaultBodyLimit::max(BODY_LIMIT)).with_state(app)
}

async fn health() -> Json<serde_json::Value> {
    Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
}

/// Ready when Kubernetes answers.
async fn ready(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    match tokio::time::timeout(Duration::from_secs(2), app.client.apiserver_version()).await {
        Ok(Ok(_)) => (StatusCode::OK, "ready"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "Kubernetes cannot be reached"),
    }
}
