//! Idempotency keys, by Stripe's rules (<https://docs.stripe.com/api/idempotent_requests>): the answer of a POST that
//! was executed is saved under its key for 24 hours, failures included; the key with other parameters is refused; and
//! so is a request while another one under the same key runs. What was refused before the execution is not saved.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::problem::{Problem, answer};
use crate::lock;

/// How long an answer is saved, in seconds.
const KEPT: i64 = 24 * 3600;

/// Identifies a request: method and path, and the parameters without regard to their order.
pub type Fingerprint = (String, Value);

/// An answer that was given after the execution began.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Saved {
    request: Fingerprint,
    status: u16,
    body: Value,
    at: i64,
    #[serde(default)]
    should_retry: Option<bool>,
}

/// An answer, as it is given and saved.
#[derive(Clone, Debug)]
pub struct Given {
    pub status: StatusCode,
    pub body: Value,
    pub should_retry: Option<bool>,
}

/// The saved answers, by their keys.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Answers(HashMap<String, Saved>);

impl Answers {
    /// The answer to a request whose key was used before.
    pub fn find(&mut self, key: &str, request: &Fingerprint, now: i64) -> Option<Response> {
        self.0.retain(|_, saved| now - saved.at < KEPT);
        let saved = self.0.get(key)?;
        if saved.request != *request {
            let message = format!(
                "Keys for idempotent requests can only be used with the same parameters they were first used with. Try using a \
                 key other than '{key}' if you meant to execute a different request."
            );
            return Some(Problem { type_: "idempotency_error", ..Problem::bad(message) }.into_response());
        }
        let status = StatusCode::from_u16(saved.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = answer(status, saved.body.clone(), saved.should_retry);
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
        Some(response)
    }

    /// Saves the answer of a request that was executed.
    pub fn save(&mut self, key: String, request: Fingerprint, given: Given, now: i64) {
        let Given { status, body, should_retry } = given;
        self.0.insert(key, Saved { request, status: status.as_u16(), body, at: now, should_retry });
    }
}

/// The key of a request. Stripe looks at it for POST alone.
pub fn key(method: &Method, headers: &HeaderMap) -> Option<String> {
    let key = headers.get("idempotency-key").filter(|_| method == Method::POST)?;
    key.to_str().ok().map(str::to_owned)
}

/// The keys of the requests that run at this moment.
#[derive(Clone, Debug, Default)]
pub struct Running(Arc<Mutex<HashSet<String>>>);

/// A request that runs under a key.
#[derive(Debug)]
pub struct Run(Running, String);

impl Running {
    /// A request under this key begins, unless another one runs.
    pub fn begin(&self, key: &str) -> Result<Run, Problem> {
        if let Some(run) = self.enter(key.to_owned()) {
            return Ok(run);
        }
        let message = format!("There is currently another in-progress request using this idempotency key: '{key}'.");
        Err(Problem {
            type_: "idempotency_error",
            code: Some("idempotency_key_in_use"),
            ..Problem::new(StatusCode::CONFLICT, message)
        })
    }
}

impl Running {
    /// A request of this name begins. None while another one runs.
    pub fn enter(&self, name: String) -> Option<Run> {
        lock(&self.0).insert(name.clone()).then(|| Run(self.clone(), name))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        lock(&(self.0).0).remove(&self.1);
    }
}
