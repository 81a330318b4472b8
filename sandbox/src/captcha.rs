//! Verifies captchas as Cloudflare does for its published test keys:
//! <https://developers.cloudflare.com/turnstile/troubleshooting/testing/>. An answer is valid once and for 300 s, and a
//! request with the `idempotency_key` of the first one is given the same verdict again:
//! <https://developers.cloudflare.com/turnstile/get-started/server-side-validation/>

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::{Form, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Shared, lock};

/// Always passes.
const PASSES: &str = "1x0000000000000000000000000000000AA";
/// Always fails.
const FAILS: &str = "2x0000000000000000000000000000000AA";
/// Says that the answer was used before.
const SPENT: &str = "3x0000000000000000000000000000000AA";
/// How long an answer is valid, in seconds.
const LIFE: u64 = 300;

/// Answers that were verified, each with the key of the request.
#[derive(Debug, Default)]
pub struct Verified(Mutex<HashMap<String, String>>);

#[derive(Deserialize)]
pub struct Answer {
    #[serde(default)]
    secret: String,
    #[serde(default)]
    response: String,
    #[serde(default)]
    idempotency_key: String,
}

pub async fn verify(State(shared): State<Arc<Shared>>, Form(answer): Form<Answer>) -> Json<Value> {
    let errors = match answer.secret.as_str() {
        "" => vec!["missing-input-secret"],
        _ if answer.response.is_empty() => vec!["missing-input-response"],
        PASSES if is_old(&answer.response) || shared.captchas.is_spent(&answer) => vec!["timeout-or-duplicate"],
        PASSES => vec![],
        FAILS => vec!["invalid-input-response"],
        SPENT => vec!["timeout-or-duplicate"],
        _ => vec!["invalid-input-secret"],
    };
    Json(json!({"success": errors.is_empty(), "error-codes": errors}))
}

/// Whether an answer of the form `NAME@SECONDS`, which says when the widget gave it, is over.
fn is_old(response: &str) -> bool {
    let given = response.rsplit_once('@').and_then(|(_, at)| at.parse::<u64>().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    given.is_some_and(|at| now.saturating_sub(at) >= LIFE)
}

impl Verified {
    /// Whether the answer was verified before by another request; notes it otherwise.
    fn is_spent(&self, answer: &Answer) -> bool {
        let mut verified = lock(&self.0);
        match verified.get(&answer.response) {
            Some(key) => key.is_empty() || *key != answer.idempotency_key,
            None => verified.insert(answer.response.clone(), answer.idempotency_key.clone()).is_some(),
        }
    }
}
