//! Errors as customers and programs see them.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::providers::ProviderError;

/// A refusal: what is wrong and how to mend it.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    error: &'static str,
    message: String,
    fields: BTreeMap<&'static str, String>,
}

impl Problem {
    pub fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        Self { status, error, message: message.into(), fields: BTreeMap::new() }
    }

    pub fn invalid(fields: BTreeMap<&'static str, String>) -> Self {
        let message = fields.iter().map(|(name, why)| format!("{name}: {why}")).collect::<Vec<_>>().join("; ");
        Self { status: StatusCode::BAD_REQUEST, error: "invalid", message, fields }
    }

    /// Not there, or not yours: the same answer.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is no such tenant, or the token is not its own")
    }

    /// Something that we need does not answer.
    pub fn unavailable() -> Self {
        let message = "The service cannot do this at the moment. Please try again in a minute.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    pub fn internal(what: &str, error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "{what}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "something went wrong on our side; please try again")
    }
}

impl From<kube::Error> for Problem {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(e) if e.code == 422 || e.code == 400 => {
                Self::new(StatusCode::BAD_REQUEST, "invalid", e.message)
            }
            error => {
                tracing::error!(%error, "Kubernetes");
                Self::unavailable()
            }
        }
    }
}

impl From<ProviderError> for Problem {
    fn from(error: ProviderError) -> Self {
        tracing::warn!(%error, "provider");
        let message = format!("{} did not answer; the question is kept, please try again", error.provider);
        Self::new(StatusCode::BAD_GATEWAY, "provider", message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({"error": self.error, "message": self.message});
        if !self.fields.is_empty() {
            body["fields"] = json!(self.fields);
        }
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert("retry-after", 10.into());
        }
        response
    }
}
