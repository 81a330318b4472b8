//! Errors as customers and programs see them: RFC 9457 problem details, `application/problem+json`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use strum::IntoStaticStr;
use utoipa::ToSchema;

use super::standing::Standing;
use crate::providers::ProviderError;
use crate::rag::ExtractError;

/// The one answer to a wrong password, an unknown address, and an account that takes no more passwords for now.
pub const WRONG_PASSWORD: &str = "The e-mail address or the password is wrong. After 10 wrong passwords, an account \
    accepts none for 15 minutes; a link by e-mail still logs you in.";

/// The content type of every error.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The kind of a problem. Programs rest on its name, so a name never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[allow(missing_docs)] // The detail of each says what it means.
pub enum Code {
    AccountsUnavailable,
    Captcha,
    ChangeRunning,
    Closed,
    EmailTaken,
    Erased,
    ExportNotFound,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    Incomplete,
    Internal,
    Invalid,
    LeadsFull,
    LedgerUnavailable,
    LinkExpired,
    Malformed,
    MediaType,
    MethodNotAllowed,
    NoApiAccess,
    NoBilling,
    NoDocument,
    NoExports,
    NoFile,
    NoSuchPath,
    NoUsageEvents,
    NotFound,
    NotNeeded,
    NotReady,
    NothingToExport,
    NothingToPay,
    PaymentDeclined,
    PlanChanged,
    PlanNotAvailable,
    Provider,
    QuotaExceeded,
    Refused,
    Slow,
    Stale,
    Suspended,
    TakesTooLong,
    TooLarge,
    TooManyRequests,
    TooManyStreams,
    Unauthorized,
    Unavailable,
    /// A file gives no text.
    Unreadable(ExtractError),
    UsageExceedsPlan,
    Waitlist,
    Webhook,
}

impl Code {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreadable(error) => error.code(),
            other => other.into(),
        }
    }
}

/// A refusal: what is wrong and how to fix it.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: Code,
    detail: String,
    fields: BTreeMap<&'static str, String>,
    retry_after: Option<Duration>,
    standing: Option<Box<Standing>>,
}

/// An error.
#[derive(Serialize, ToSchema)]
pub struct ProblemBody {
    /// Names the kind of error; it never changes.
    #[serde(rename = "type")]
    type_: String,
    /// The kind of error in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// The last part of `type`.
    code: String,
    /// What is wrong, and what to do.
    detail: String,
    /// What is wrong with each field of the form.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<&'static str, String>,
}

impl Problem {
    pub fn new(status: StatusCode, code: Code, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), fields: BTreeMap::new(), retry_after: None, standing: None }
    }

    pub fn invalid(fields: BTreeMap<&'static str, String>) -> Self {
        let detail = fields.iter().map(|(name, why)| format!("{name} {why}")).collect::<Vec<_>>().join("; ");
        Self { fields, ..Self::new(StatusCode::BAD_REQUEST, Code::Invalid, detail) }
    }

    /// Not there, or not yours: the same answer.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, Code::NotFound, "There is no such account, or the token is not its own.")
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The same problem with another status.
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The name of the kind of error.
    pub fn code(&self) -> &'static str {
        self.code.name()
    }

    /// Whether it is of this kind.
    pub fn is(&self, code: Code) -> bool {
        self.code == code
    }

    /// What is wrong, and what to do.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What is wrong with each field.
    pub fn fields(&self) -> &BTreeMap<&'static str, String> {
        &self.fields
    }

    /// When to try again.
    pub fn after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// With how much of the plan is left.
    pub fn standing(self, standing: Standing) -> Self {
        Self { standing: Some(Box::new(standing)), ..self }
    }

    /// Something that we need does not answer.
    pub fn unavailable() -> Self {
        let detail = "The service cannot do this at the moment. Please try again in a minute.";
        Self {
            retry_after: Some(Duration::from_secs(10)),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, detail)
        }
    }

    /// A provider failed, in words that fit whatever was asked for.
    pub fn provider() -> Self {
        let detail = "The service could not do this at the moment. Please try again.";
        Self::new(StatusCode::BAD_GATEWAY, Code::Provider, detail)
    }

    /// The same problem in other words.
    pub fn told(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }

    /// Asked too often.
    pub fn too_many(wait: Duration) -> Self {
        Self::too_many_of("Too many requests.", wait)
    }

    /// Asked too often, in a sentence that says for what.
    pub fn too_many_of(what: &str, wait: Duration) -> Self {
        let wait = wait.max(Duration::from_secs(1));
        let detail = format!("{what} Please try again in {} seconds.", wait.as_secs_f64().ceil());
        Self { retry_after: Some(wait), ..Self::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, detail) }
    }

    pub fn internal(what: &str, error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "{what}");
        let detail = "Something went wrong on our side. Please try again.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, detail)
    }

    /// What a client reads.
    pub fn body(self) -> ProblemBody {
        ProblemBody {
            type_: format!("https://tenant-operator.dev/problems/{}", self.code()),
            title: self.status.canonical_reason().unwrap_or("Error").into(),
            status: self.status.as_u16(),
            code: self.code().into(),
            detail: self.detail,
            fields: self.fields,
        }
    }
}

impl From<kube::Error> for Problem {
    fn from(error: kube::Error) -> Self {
        // What the API server says is for the log; customers never see it.
        tracing::error!(%error, "Kubernetes");
        match error {
            kube::Error::Api(e) if e.code == 422 || e.code == 400 => Self::new(
                StatusCode::BAD_REQUEST,
                Code::Refused,
                "This was not accepted. Please check what you entered.",
            ),
            _ => Self::unavailable(),
        }
    }
}

impl From<ProviderError> for Problem {
    fn from(error: ProviderError) -> Self {
        tracing::warn!(%error, "provider");
        Self::provider()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after, standing) = (self.status, self.retry_after, self.standing.clone());
        let mut response = (status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(wait) = retry_after {
            headers.insert(header::RETRY_AFTER, wait.as_secs().max(1).into());
        }
        if let Some(standing) = standing {
            response.extensions_mut().insert(*standing);
        }
        response
    }
}

/// What the framework refused by itself (wrong method, body too large, not JSON, no such path), with words for it.
pub fn framework(response: &Response<Body>) -> Option<Problem> {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok()).unwrap_or_default();
    let shaped = kind == PROBLEM_JSON || kind.starts_with("text/html");
    if shaped || !(status.is_client_error() || status.is_server_error()) {
        return None;
    }
    let (code, detail) = match status {
        StatusCode::NOT_FOUND => (Code::NoSuchPath, "There is nothing at this path. /openapi.json lists all paths."),
        StatusCode::METHOD_NOT_ALLOWED => (Code::MethodNotAllowed, "This path does not accept this method."),
        StatusCode::PAYLOAD_TOO_LARGE => (Code::TooLarge, "The request is too large."),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => (Code::MediaType, "Send application/json."),
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => (
            Code::Malformed,
            "The body or the parameters are not what this path accepts. /openapi.json describes them.",
        ),
        StatusCode::REQUEST_TIMEOUT | StatusCode::SERVICE_UNAVAILABLE => return Some(Problem::unavailable()),
        _ if status.is_client_error() => (Code::Refused, "The request was refused."),
        _ => (Code::Internal, "Something went wrong on our side. Please try again."),
    };
    Some(Problem::new(status, code, detail))
}

/// What the framework said beside the body, such as the methods that are allowed.
pub fn keep_headers(before: &Response<Body>, mut after: Response<Body>) -> Response<Body> {
    for (name, value) in before.headers() {
        if *name != header::CONTENT_TYPE && *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING {
            after.headers_mut().insert(name, value.clone());
        }
    }
    after
}
