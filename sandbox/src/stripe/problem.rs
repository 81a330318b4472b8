//! What a call leaves behind beside its answer: events, or a refusal.

use axum::Json;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// An event to send once the lock is released: its type and its object.
pub type Events = Vec<(&'static str, Value)>;

/// A refusal in Stripe's shape.
#[derive(Debug)]
pub struct Problem {
    pub status: StatusCode,
    /// Stripe's `error.type`.
    pub type_: &'static str,
    pub code: Option<&'static str>,
    pub message: String,
    /// Whether the request was executed: only then is the answer saved under its idempotency key.
    pub executed: bool,
    /// What Stripe's answer says of another try, in `Stripe-Should-Retry`.
    pub should_retry: Option<bool>,
    /// The limit that the request reached, in `Stripe-Rate-Limited-Reason`.
    pub limited: Option<&'static str>,
}

impl Problem {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            type_: "invalid_request_error",
            code: None,
            message: message.into(),
            executed: true,
            should_retry: None,
            limited: None,
        }
    }

    pub fn missing(kind: &str, id: &str) -> Self {
        let message = format!("No such {kind}: '{id}'");
        Self { code: Some("resource_missing"), ..Self::new(StatusCode::NOT_FOUND, message) }
    }

    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// Refused before the execution: the parameters are not valid.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { executed: false, ..Self::bad(message) }
    }

    /// The answer's body.
    pub fn body(&self) -> Value {
        json!({"error": {"type": self.type_, "code": self.code, "message": self.message}})
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = answer(self.status, self.body(), self.should_retry);
        if let Some(reason) = self.limited {
            response.headers_mut().insert("stripe-rate-limited-reason", HeaderValue::from_static(reason));
        }
        response
    }
}

/// An answer, with what it says of another try.
pub fn answer(status: StatusCode, body: Value, should_retry: Option<bool>) -> Response {
    let mut response = (status, Json(body)).into_response();
    if let Some(again) = should_retry {
        let value = HeaderValue::from_static(if again { "true" } else { "false" });
        response.headers_mut().insert("stripe-should-retry", value);
    }
    response
}
