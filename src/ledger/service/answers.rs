//! What the ledger answers: an outcome as JSON, or RFC 9457 problem details.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::ledger::decision::{Answer, Refusal};
use crate::ledger::events::EventsError;
use crate::ledger::store::StoreError;
use crate::ledger::wire::CommandOutcome;

/// When a client asks again that was told to.
const AGAIN: Duration = Duration::from_secs(1);

/// Fails unless a page of 1 to `limit` is asked for.
pub fn check_page(most: u32, limit: u32, of: &str) -> Result<(), ServiceProblem> {
    if (1..=limit).contains(&most) {
        return Ok(());
    }
    Err(ServiceProblem::Malformed(format!("most={most}: ask for 1 to {limit} {of}")))
}

/// The answer to a command, as a response.
pub fn respond(answer: Answer) -> Result<Json<CommandOutcome>, ServiceProblem> {
    Ok(Json(match answer {
        Answer::Reserved { period, left, .. } => CommandOutcome::Reserved { period, left },
        Answer::Checkpointed => CommandOutcome::Checkpointed,
        Answer::Settled { posted, excess } => CommandOutcome::Settled { posted, excess },
        Answer::Voided => CommandOutcome::Voided,
        Answer::Released => CommandOutcome::Released,
        Answer::Refused(refusal) => return Err(ServiceProblem::Refused(refusal)),
        // Only the ledger itself asks for these.
        Answer::Expired | Answer::Accepted | Answer::Duplicate => {
            return Err(ServiceProblem::Malformed("no command of a client is answered so".into()));
        }
    }))
}

/// Why a request was not done.
#[derive(Debug)]
pub enum ServiceProblem {
    /// The request makes no sense.
    Malformed(String),
    /// The key is missing or wrong.
    Unauthorized,
    /// There is no such tenant.
    UnknownTenant,
    /// There is no such path, or not with this method.
    Path(StatusCode),
    /// The ledger's rules refuse it.
    Refused(Refusal),
    /// It took too long: the disk is slow, or the body never came.
    Late,
    /// The store failed.
    Store(StoreError),
    /// There is no events store.
    NoEventsStore,
    /// The events store failed.
    Events(EventsError),
}

impl ServiceProblem {
    pub const fn unauthorized() -> Self {
        Self::Unauthorized
    }

    /// By hand: the code of two variants depends on what they hold.
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Unauthorized => "unauthorized",
            Self::UnknownTenant => "unknown_tenant",
            Self::Path(status) if *status == StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
            Self::Path(_) => "no_such_path",
            Self::Refused(refusal) => refusal.code(),
            Self::Late | Self::Store(_) => "ledger_unavailable",
            Self::NoEventsStore => "no_events_store",
            Self::Events(EventsError::Foreign { .. }) => "foreign_events_store",
            Self::Events(_) => "events_unavailable",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::UnknownTenant | Self::NoEventsStore | Self::Refused(Refusal::Unknown) => StatusCode::NOT_FOUND,
            Self::Path(status) => *status,
            Self::Refused(Refusal::TooMuch(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Refused(_) | Self::Events(EventsError::Foreign { .. }) => StatusCode::CONFLICT,
            Self::Late | Self::Store(_) | Self::Events(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::Malformed(why) => why.clone(),
            Self::Unauthorized => "the request does not show the ledger's key".into(),
            Self::UnknownTenant => "the ledger has counted nothing for this tenant".into(),
            Self::Path(status) if *status == StatusCode::METHOD_NOT_ALLOWED => {
                "this path does not take this method".into()
            }
            Self::Path(_) => "no such path".into(),
            Self::Refused(refusal) => refusal.to_string(),
            Self::Late => "the request took too long: repeat it under the same name".into(),
            Self::Store(error) => error.to_string(),
            Self::NoEventsStore => "this ledger has no events store: set EVENTS_URL".into(),
            Self::Events(error) => error.to_string(),
        }
    }
}

impl From<StoreError> for ServiceProblem {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<EventsError> for ServiceProblem {
    fn from(error: EventsError) -> Self {
        Self::Events(error)
    }
}

impl IntoResponse for ServiceProblem {
    fn into_response(self) -> Response {
        let (status, code) = (self.status(), self.code());
        let mut body = json!({
            "type": format!("https://tenant-operator.dev/ledger/{code}"),
            "title": status.canonical_reason(), "status": status.as_u16(), "code": code, "detail": self.detail(),
        });
        if let Self::Refused(Refusal::LimitReached { unit, limit, left, asked }) = self {
            body["unit"] = unit.name().into();
            for (name, number) in [("limit", limit), ("left", left), ("asked", asked)] {
                body[name] = number.into();
            }
        }
        let mut response = (status, Json(body)).into_response();
        let problem = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, problem);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, AGAIN.as_secs().into());
        }
        response
    }
}

pub async fn no_such_path() -> ServiceProblem {
    ServiceProblem::Path(StatusCode::NOT_FOUND)
}

pub async fn method_not_allowed() -> ServiceProblem {
    ServiceProblem::Path(StatusCode::METHOD_NOT_ALLOWED)
}
