//! `/.well-known/jwks.json`: the public half of the signing key, for gateways that verify API keys by themselves.
//! Anyone may ask, so the API server is asked once in a while only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, header};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::operator_keys::verifying_key_set;
use crate::web::App;
use crate::web::serving::problem::Problem;

/// How long an answer of the API server stands; also one that there is no key yet, or that it does not answer.
const STANDS: Duration = Duration::from_secs(10);
/// How long the API server may take.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// Clients may keep the answer as long as the key before is good, a day; this is far shorter.
const CACHE: (HeaderName, &str) = (header::CACHE_CONTROL, "public, max-age=300");

/// The published key set, as the API server told it last.
#[derive(Debug, Default)]
pub struct KeySet(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    asked: Option<Instant>,
    set: Option<Value>,
}

impl KeySet {
    /// The key set; one request at a time reads it.
    async fn get(&self, app: &App) -> Option<Value> {
        let mut known = self.0.lock().await;
        if known.asked.is_none_or(|at| at.elapsed() >= STANDS) {
            let read = verifying_key_set(&app.client, &app.config.operator_namespace);
            match tokio::time::timeout(READ_LIMIT, read).await {
                Ok(Ok(set)) => known.set = set,
                // What was known before stands.
                Ok(Err(error)) => tracing::warn!(%error, "the public key of API keys cannot be read"),
                Err(_) => tracing::warn!("the public key of API keys cannot be read in time"),
            }
            known.asked = Some(Instant::now());
        }
        known.set.clone()
    }
}

/// Answers the key set.
pub async fn jwks(State(app): State<Arc<App>>) -> Result<([(HeaderName, &'static str); 1], Json<Value>), Problem> {
    let set = app.key_set.get(&app).await.ok_or_else(Problem::unavailable)?;
    Ok(([CACHE], Json(set)))
}
