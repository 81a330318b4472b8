//! `/.well-known/jwks.json`: the public half of the signing key, for gateways that verify API keys by themselves.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, header};
use serde_json::Value;

use crate::web::App;
use crate::web::serving::problem::Problem;

/// Clients may keep the answer as long as the key before is good, a day; this is far shorter.
const CACHE: (HeaderName, &str) = (header::CACHE_CONTROL, "public, max-age=300");

/// Answers the key set.
pub async fn jwks(State(app): State<Arc<App>>) -> Result<([(HeaderName, &'static str); 1], Json<Value>), Problem> {
    let set = app.api_keys.key_set(&app.client, &app.config.operator_namespace).await;
    Ok(([CACHE], Json(set.ok_or_else(Problem::unavailable)?)))
}
