//! `GET /tenant/{id}` and its event stream: what the holder of the signup's token sees.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures::{Stream, StreamExt, stream};
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};
use utoipa::{IntoParams, ToSchema};

use super::progress::Progress;
use crate::api::{LinkKind, Tenant};
use crate::links::SPACING;
use crate::web::App;
use crate::web::serving::changes::Change;
use crate::web::serving::extract::SignupToken;
use crate::web::serving::problem::{Code, Problem, ProblemBody};
use crate::web::serving::tokens::{Pass, TICKET_LIFE};

/// A stream ends after this long; the client connects again.
const STREAM_LIMIT: Duration = Duration::from_mins(15);
/// How soon a browser connects again.
const RECONNECT: Duration = Duration::from_secs(3);
/// Streams of one tenant at the same time.
const STREAMS: usize = 8;
/// Log-outs that a stream may be behind.
const LOG_OUTS: usize = 64;

/// How far an account is, now.
#[utoipa::path(
    get, path = "/tenant/{id}", operation_id = "get_account", tag = "account", params(("id" = String, Path, description = "The tenant's id", example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")),
    security(("signup_token" = [])),
    responses((status = 200, body = Progress))
)]
pub async fn show(SignupToken(tenant): SignupToken) -> Json<Progress> {
    Json(Progress::of(&tenant))
}

/// A ticket.
#[derive(Serialize, ToSchema)]
pub struct Ticket {
    /// To be sent as `?ticket=`.
    #[schema(example = "analytical-engines.0b8f6f0e.1764403200.c2VhbA")]
    ticket: String,
    /// Seconds until it can no longer open a stream.
    #[schema(example = 60)]
    expires_in: i64,
}

/// A short-lived ticket for the event stream, for a browser's `EventSource`, which sends no headers.
#[utoipa::path(
    post, path = "/tenant/{id}/events/ticket", operation_id = "make_ticket", tag = "account",
    params(("id" = String, Path, description = "The tenant's id", example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")),
    security(("signup_token" = [])),
    responses((status = 200, body = Ticket))
)]
pub async fn ticket(State(app): State<Arc<App>>, SignupToken(tenant): SignupToken) -> Json<Ticket> {
    Json(Ticket { ticket: app.ticket(&tenant), expires_in: TICKET_LIFE })
}

#[derive(Deserialize, IntoParams)]
pub struct EventsQuery {
    /// A ticket, where no Authorization header can be sent.
    ticket: Option<String>,
}

/// How far an account is, as it changes: server-sent events named `tenant`, and `deleted` at the end.
#[utoipa::path(
    get, path = "/tenant/{id}/events", operation_id = "follow_account", tag = "account",
    params(("id" = String, Path, description = "The tenant's id", example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10"), EventsQuery),
    security(("signup_token" = []), ()),
    responses((status = 200, content_type = "text/event-stream", body = String, description = "The stream",
        example = "event: tenant\ndata: {\"phase\": \"Active\", \"message\": \"Your account is ready.\"}\n\n"))
)]
pub async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let pass = query.ticket.map_or_else(|| app.bearer(&headers), |ticket| app.open_pass("ticket", &ticket));
    let pass = pass.ok_or_else(Problem::not_found)?;
    let tenant = app.opened(&pass, &id).await?;
    stream_of(&app, &tenant, pass).await
}

/// Sends the confirmation e-mail again.
#[utoipa::path(
    post, path = "/tenant/{id}/verification-email", operation_id = "send_verification_email", tag = "account",
    params(("id" = String, Path, description = "The tenant's id", example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")),
    security(("signup_token" = [])),
    responses((status = 202, body = Requested, description = "The e-mail is on its way"),
        (status = 409, body = ProblemBody, description = "The address needs no confirmation", example = json!(not_needed().body())))
)]
pub async fn verification_email(
    State(app): State<Arc<App>>,
    SignupToken(tenant): SignupToken,
) -> Result<(StatusCode, Json<Requested>), Problem> {
    if !Progress::of(&tenant).awaits_confirmation() {
        return Err(not_needed());
    }
    if !app.request_link(&tenant, LinkKind::VerifyEmail).await? {
        return Err(Problem::too_many(Duration::from_secs(SPACING.unsigned_abs())));
    }
    Ok((StatusCode::ACCEPTED, Json(Requested { message: "The e-mail is on its way." })))
}

fn not_needed() -> Problem {
    let detail = "The e-mail address of this account needs no confirmation.";
    Problem::new(StatusCode::CONFLICT, Code::NotNeeded, detail)
}

/// Something that was asked for.
#[derive(Serialize, ToSchema)]
pub struct Requested {
    /// In words.
    #[schema(example = "The e-mail is on its way.")]
    message: &'static str,
}

impl App {
    /// Waits a little until a tenant shows something.
    pub async fn wait_until<T>(&self, tenant: &Tenant, shows: impl Fn(&Tenant) -> Option<T>) -> Option<T> {
        let uid = tenant.uid().unwrap_or_default();
        let mut changes = self.directory.changes(&uid);
        let seen = async {
            if let Some(shown) = self.now_of(tenant).await.ok().flatten().and_then(|now| shows(&now)) {
                return Some(shown);
            }
            loop {
                changes.changed().await.ok()?;
                let change = changes.borrow_and_update().clone();
                match change {
                    Change::Now(now) => {
                        if let Some(shown) = shows(&now) {
                            return Some(shown);
                        }
                    }
                    Change::Gone => return None,
                    Change::Nothing => {}
                }
            }
        };
        tokio::time::timeout(self.config.checkout_wait, seen).await.unwrap_or(None)
    }

    /// A tenant as it is now. A namesake that was made meanwhile is another one.
    async fn now_of(&self, tenant: &Tenant) -> Result<Option<Tenant>, kube::Error> {
        Ok(self.tenants().get_opt(&tenant.name_any()).await?.filter(|now| now.uid() == tenant.uid()))
    }
}

/// The stream of a tenant's progress. It ends with the pass that opened it: with a log-out, a new password, another
/// address or the account.
pub async fn stream_of(
    app: &Arc<App>,
    tenant: &Tenant,
    pass: Pass,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>, Problem> {
    let uid = tenant.uid().unwrap_or_default();
    let place = app.streams.enter(&uid)?;
    let changes = app.directory.changes(&uid);
    // What happened before it was followed.
    let first = app.now_of(tenant).await?.map_or(Change::Gone, |now| Change::Now(now.into()));
    let next = |mut changes: watch::Receiver<Change>| async {
        changes.changed().await.ok()?;
        let change = changes.borrow_and_update().clone();
        Some((change, changes))
    };
    let changes = stream::iter([first]).chain(stream::unfold(changes, next));
    let mut ended = app.streams.ended.subscribe();
    let seal = pass.seal().to_owned();
    let opens = app.clone();
    let is_over = move |tenant: &Tenant| !opens.opens(&pass, tenant);
    let changes = changes.map(move |change| match change {
        // The deletion is still said. Nothing is shown until then.
        Change::Now(tenant) if is_over(&tenant) => {
            tenant.metadata.deletion_timestamp.is_some().then_some(Change::Nothing)
        }
        other => Some(other),
    });
    let changes = changes.take_while(|change| std::future::ready(change.is_some())).filter_map(std::future::ready);
    let events = changes.filter_map(move |change| {
        let _held = &place;
        let event = match change {
            Change::Now(tenant) => {
                let version = tenant.resource_version().unwrap_or_default();
                let event = Event::default().event("tenant").id(version).retry(RECONNECT);
                event.json_data(Progress::of(&tenant)).ok().map(|event| (event, false))
            }
            Change::Gone => Some((Event::default().event("deleted").data("{}"), true)),
            Change::Nothing => None,
        };
        std::future::ready(event)
    });
    // The event that says so is the last one: the end comes with it, not with the next.
    let events =
        events.flat_map(|(event, last)| stream::iter(std::iter::once(Some(event)).chain(last.then_some(None))));
    let events = events.take_while(|event| std::future::ready(event.is_some()));
    let events = events.filter_map(|event| std::future::ready(event.map(Ok)));
    let mut stopping = app.stopping.clone();
    let stop = async move { drop(stopping.wait_for(|stop| *stop).await) };
    let log_out = async move {
        loop {
            match ended.recv().await {
                Ok(other) if other != seal => {}
                // Its own, or one that was missed: the client connects again with what it still has.
                Ok(_) | Err(_) => return,
            }
        }
    };
    let stop = futures::future::select(Box::pin(stop), Box::pin(log_out));
    let end = futures::future::select(stop, Box::pin(tokio::time::sleep(STREAM_LIMIT)));
    Ok(Sse::new(events.take_until(end)).keep_alive(KeepAlive::default()))
}

/// The streams that are open, by the tenants' uids.
#[derive(Clone, Debug)]
pub struct Streams {
    open: Arc<Mutex<HashMap<String, usize>>>,
    /// The seals of sessions that were logged out.
    ended: broadcast::Sender<String>,
}

impl Default for Streams {
    fn default() -> Self {
        Self { open: Arc::default(), ended: broadcast::Sender::new(LOG_OUTS) }
    }
}

/// One of them, for as long as it lives.
struct OpenStream {
    streams: Streams,
    uid: String,
}

impl Streams {
    /// Ends the streams of a session that is logged out.
    pub fn end(&self, session: &Pass) {
        // No stream may be open.
        let _ = self.ended.send(session.seal().to_owned());
    }

    fn enter(&self, uid: &str) -> Result<OpenStream, Problem> {
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(uid.to_owned()).or_default();
        if *count >= STREAMS {
            let detail = "Too many windows show this account's progress. Please close some.";
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyStreams, detail));
        }
        *count += 1;
        Ok(OpenStream { streams: self.clone(), uid: uid.to_owned() })
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut all = self.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.uid);
            }
        }
    }
}
