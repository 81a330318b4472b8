//! Verifies captchas as Cloudflare does for its published test keys:
//! <https://developers.cloudflare.com/turnstile/troubleshooting/testing/>

use axum::{Form, Json};
use serde::Deserialize;
use serde_json::{Value, json};

/// Always passes.
const PASSES: &str = "1x0000000000000000000000000000000AA";
/// Always fails.
const FAILS: &str = "2x0000000000000000000000000000000AA";
/// Says that the answer was used before.
const SPENT: &str = "3x0000000000000000000000000000000AA";

#[derive(Deserialize)]
pub struct Answer {
    #[serde(default)]
    secret: String,
    #[serde(default)]
    response: String,
}

pub async fn verify(Form(answer): Form<Answer>) -> Json<Value> {
    let errors = match answer.secret.as_str() {
        "" => vec!["missing-input-secret"],
        _ if answer.response.is_empty() => vec!["missing-input-response"],
        PASSES => vec![],
        FAILS => vec!["invalid-input-response"],
        SPENT => vec!["timeout-or-duplicate"],
        _ => vec!["invalid-input-secret"],
    };
    Json(json!({"success": errors.is_empty(), "error-codes": errors}))
}
