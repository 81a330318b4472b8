//! Faults that are injected from outside, and a log of every request.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::stripe::{idempotency, metering};
use super::{Shared, lock};

/// Requests that are remembered.
const LOG_LIMIT: usize = 20_000;

/// A fault for the next requests that match.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// stripe, pinecone, openai, captcha or smtp.
    provider: String,
    /// The HTTP method, or the stage of an e-mail: CONNECT, EHLO, MAIL, RCPT, DATA or BODY. Any method when absent, and
    /// DATA for an e-mail.
    #[serde(default)]
    method: Option<String>,
    /// What the path begins with; the recipient of an e-mail.
    #[serde(default)]
    path: String,
    /// Answer with this status instead of doing the work.
    #[serde(default)]
    pub(super) status: Option<u16>,
    /// With `status`, at the Stripe stand-in: the request was executed until there, so the answer is saved under its
    /// idempotency key. `begun`: nothing was done. `done`: everything was.
    #[serde(default)]
    execution: Option<Execution>,
    /// The body of that answer.
    #[serde(default)]
    body: Option<String>,
    /// Its `Retry-After`, in seconds.
    #[serde(default)]
    retry_after: Option<u64>,
    /// Its `Date`.
    #[serde(default)]
    date: Option<String>,
    /// Wait before doing the work, in milliseconds.
    #[serde(default)]
    pub(super) delay_ms: u64,
    /// Do the work, then wait before answering, in milliseconds.
    #[serde(default)]
    pub(super) answer_delay_ms: u64,
    /// Do the work, then drop the connection instead of answering.
    #[serde(default)]
    pub(super) drop_after_effect: bool,
    /// Let so many matching requests pass first.
    #[serde(default)]
    after: u32,
    /// How many requests it strikes.
    #[serde(default = "once")]
    times: u32,
}

/// How far a request was executed before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Execution {
    Begun,
    Done,
}

/// The failure of a request after its execution began.
#[derive(Clone, Debug)]
pub struct Broken {
    pub status: StatusCode,
    pub body: serde_json::Value,
    /// Whether everything was done.
    pub done: bool,
}

impl Fault {
    fn broken(&self) -> Option<Broken> {
        let (execution, status) = (self.execution?, self.status?);
        let body = self.body.as_ref().and_then(|body| serde_json::from_str(body).ok());
        Some(Broken {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            body: body.unwrap_or_else(injected),
            done: execution == Execution::Done,
        })
    }
}

fn injected() -> serde_json::Value {
    serde_json::json!({"error": {"type": "api_error", "message": "injected fault"}, "message": "injected fault"})
}

fn once() -> u32 {
    1
}

/// A request that came in.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LoggedRequest {
    pub(super) provider: &'static str,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) body: String,
    pub(super) idempotency_key: Option<String>,
}

/// The faults to come and the requests that came.
#[derive(Debug)]
pub struct Faults {
    armed: Mutex<Vec<Fault>>,
    log: Mutex<VecDeque<LoggedRequest>>,
    calls: Mutex<BTreeMap<&'static str, u64>>,
    latency_ms: AtomicU64,
}

impl Faults {
    pub(crate) fn new(latency_ms: u64) -> Self {
        Self { armed: Mutex::default(), log: Mutex::default(), calls: Mutex::default(), latency_ms: latency_ms.into() }
    }

    pub(super) fn take(&self, provider: &str, method: &str, path: &str) -> Option<Fault> {
        self.take_where(|f| {
            f.provider == provider && f.method.as_deref().is_none_or(|m| m == method) && path.starts_with(&f.path)
        })
    }

    /// A fault that names this very stage of a conversation.
    pub(super) fn take_stage(&self, provider: &str, stage: &str, path: &str) -> Option<Fault> {
        self.take_where(|f| f.provider == provider && f.method.as_deref() == Some(stage) && path.starts_with(&f.path))
    }

    fn take_where(&self, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut armed = lock(&self.armed);
        let found = armed.iter().position(wanted)?;
        if armed[found].after > 0 {
            armed[found].after -= 1;
            return None;
        }
        armed[found].times -= 1;
        let fault = armed[found].clone();
        if fault.times == 0 {
            armed.remove(found);
        }
        Some(fault)
    }

    pub(super) fn remember(&self, request: LoggedRequest) {
        *lock(&self.calls).entry(request.provider).or_default() += 1;
        let mut log = lock(&self.log);
        if log.len() == LOG_LIMIT {
            log.pop_front();
        }
        log.push_back(request);
    }
}

/// Arms a fault.
pub async fn add(State(s): State<Arc<Shared>>, Json(fault): Json<Fault>) -> StatusCode {
    if fault.times > 0 {
        lock(&s.faults.armed).push(fault);
    }
    StatusCode::CREATED
}

/// Disarms all faults.
pub async fn clear(State(s): State<Arc<Shared>>) -> StatusCode {
    lock(&s.faults.armed).clear();
    StatusCode::NO_CONTENT
}

/// Every request that the providers' stand-ins got, oldest first.
pub async fn log(State(s): State<Arc<Shared>>) -> Json<Vec<LoggedRequest>> {
    Json(lock(&s.faults.log).iter().cloned().collect())
}

/// How many requests each provider's stand-in ever got.
pub async fn calls(State(s): State<Arc<Shared>>) -> Json<BTreeMap<&'static str, u64>> {
    Json(lock(&s.faults.calls).clone())
}

/// Notes that a call other than a read may have changed the state.
pub async fn note_change(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let reads = request.method().is_safe();
    let response = next.run(request).await;
    if !reads {
        shared.changed();
    }
    response
}

/// Logs the request and strikes it with the fault that is armed for it.
pub async fn inject(
    State((provider, shared)): State<(&'static str, Arc<Shared>)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, 64 << 20).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    let (method, path) = (parts.method.to_string(), parts.uri.path().to_owned());
    let text = if body.len() > 16_384 { String::new() } else { String::from_utf8_lossy(&body).into_owned() };
    shared.faults.remember(LoggedRequest {
        provider,
        method: method.clone(),
        path: path.clone(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        body: text,
        idempotency_key: parts.headers.get("idempotency-key").and_then(|v| v.to_str().ok()).map(str::to_owned),
    });
    let key = idempotency::key(&parts.method, &parts.headers).filter(|_| provider == "stripe");
    // The key is in use until the answer is given, delays included.
    let _run = match key.map(|key| shared.stripe.running.begin(&key)).transpose() {
        Ok(run) => run,
        Err(problem) => return problem.into_response(),
    };
    let turn = match metering::begin((provider, &shared.stripe), &parts.method, &path, &body) {
        Ok(turn) => turn,
        Err(problem) => return problem.into_response(),
    };
    let fault = shared.faults.take(provider, &method, &path);
    let delay = shared.faults.latency_ms.load(Ordering::Relaxed) + fault.as_ref().map_or(0, |f| f.delay_ms);
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    if let Some(turn) = &turn {
        turn.take().await;
    }
    if let Some(broken) = fault.as_ref().and_then(Fault::broken) {
        parts.extensions.insert(broken);
    } else if let Some(status) = fault.as_ref().and_then(|f| f.status) {
        return refusal(status, fault.unwrap_or_else(|| unreachable!()));
    }
    let response = note_change(State(shared), Request::from_parts(parts, Body::from(body)), next).await;
    tokio::time::sleep(Duration::from_millis(fault.as_ref().map_or(0, |f| f.answer_delay_ms))).await;
    if fault.is_some_and(|f| f.drop_after_effect) {
        let broken = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("dropped")) });
        return Body::from_stream(broken).into_response();
    }
    response
}

fn refusal(status: u16, fault: Fault) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = fault.body.unwrap_or_else(|| injected().to_string());
    let mut response = (status, body).into_response();
    if let Some(after) = fault.retry_after {
        response.headers_mut().insert("retry-after", after.into());
    }
    if let Some(date) = fault.date.and_then(|d| axum::http::HeaderValue::from_str(&d).ok()) {
        response.headers_mut().insert("date", date);
    }
    response
}
