//! `POST /v1/usage/events`: what the owner's other services tell of their tenants' use, as `CloudEvents`. Web finds the
//! tenant and its period, and the ledger counts each event once. Web keeps nothing: while the ledger is away, the
//! service sends the events again. `docs/usage-events.md` describes it for people.

mod answer;
mod cloud_event;
mod encoding;
mod units;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};

use super::App;
use super::metering::UsedElsewhere;
use super::serving::bodies::{Sender, Unread};
use super::serving::guards;
use super::serving::problem::{Code, Problem, ProblemBody};
use super::serving::shares::Shares;
use crate::access_tokens;
use crate::api::Phase;
use crate::ledger::wire::EVENTS;
use crate::serve::client::network;
use crate::web::serving::directory::Served;
use answer::{CountedEvents, EventFate};
use cloud_event::{CloudEventBody, Refused, Told};
use encoding::Encoding;

/// The longest body, which is also the longest that the ledger takes.
const LARGEST: usize = 8 << 20;
/// Bodies that are held in memory at the same time.
const PLACES: usize = 2;
/// Calls that wait for a place. Nothing of their bodies is read yet.
const WAITING: usize = 32;
/// How long a call waits for a place.
const WAIT: Duration = Duration::from_secs(10);
/// When to send again what found no place.
const AGAIN: Duration = Duration::from_secs(5);

/// Room for calls with events.
#[derive(Debug)]
pub struct EventPlaces(Shares<()>);

impl Default for EventPlaces {
    fn default() -> Self {
        Self(Shares::new(PLACES, PLACES, WAITING, WAIT))
    }
}

/// Counts what your services report: `CloudEvents` 1.0 of the type `dev.tenant-operator.usage.v1`, at most 10,000 and 8
/// MiB in a call. The token is that of your services (`USAGE_EVENTS_TOKEN`), not an API key. Each event counts once by
/// its `source` and `id`, for 93 days. The answer is 200 also if events are refused: `events` says of each, in order,
/// what became of it. After 429, 503 or no answer, send all of them again. No ingress of the chart leads here.
#[utoipa::path(
    post, path = "/v1/usage/events", operation_id = "count_usage_events", tag = "usage events",
    security(("usage_events_token" = [])),
    request_body(description = "One event or many. In binary mode, the attributes are headers (`ce-id`, ...) and the \
            body is `data`",
        content(
            (CloudEventBody = "application/cloudevents+json"),
            (Vec<CloudEventBody> = "application/cloudevents-batch+json"),
            (String = "application/x-ndjson"),
            (units::UnitsBody = "application/json"),
        )),
    responses(
        (status = 200, body = CountedEvents, description = "What became of each event"),
        (status = 400, body = ProblemBody, description = "The body is not JSON, or it broke off. Nothing is counted",
            example = json!(malformed("the body is not JSON").body())),
        (status = 401, body = ProblemBody, description = "The token is missing or wrong",
            example = json!(unauthorized().body())),
        (status = 404, body = ProblemBody, description = "No token is set, so no events are taken",
            example = json!(not_set().body())),
        (status = 408, body = ProblemBody, description = "The events took longer than 10 s to arrive",
            example = json!(Problem::from(Unread::Slow).body())),
        (status = 413, body = ProblemBody, description = "More than 10,000 events, or more than 8 MiB. Nothing is \
            counted", example = json!(too_many_events(EVENTS + 1).body())),
        (status = 415, body = ProblemBody, description = "Another content type",
            example = json!(encoding::other_type().body())),
        (status = 429, body = ProblemBody, description = "Too many calls at the same time. Send the events again"),
        (status = 503, body = ProblemBody, description = "Events cannot be counted at the moment. Send all of them \
            again: what was counted counts once", example = json!(super::metering::events_unavailable().body())),
    )
)]
pub async fn count(State(app): State<Arc<App>>, request: Request) -> Result<Json<CountedEvents>, Problem> {
    let (mut parts, body) = request.into_parts();
    check_token(&app, &mut parts).await?;
    let encoding = Encoding::of(&parts.headers)?;
    let body = Arrived::whole(&app, &parts.headers, body).await?;
    // Right after a start, web does not know all tenants yet.
    if !app.directory.is_complete() {
        return Err(Problem::unavailable());
    }
    let counted = app.clone();
    // Events of a service that hangs up are counted to the end, and keep their place until then.
    let done = app.metering.to_its_end(async move {
        let Arrived { bytes, place } = body;
        // Millions of short lines take a moment to read.
        let read = tokio::task::spawn_blocking(move || encoding.read(&parts.headers, &bytes)).await;
        let read = read.map_err(|error| Problem::internal("reading events", &error))??;
        let answer = count_events(&counted, read).await;
        drop(place);
        answer
    });
    done.await.map_err(|error| Problem::internal("counting events", &error))?.map(Json)
}

/// A whole body, with its place in memory.
struct Arrived {
    bytes: axum::body::Bytes,
    place: super::serving::shares::Share,
}

impl Arrived {
    async fn whole(app: &App, headers: &HeaderMap, body: Body) -> Result<Self, Problem> {
        let large = |problem: Problem| match problem.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                problem.told("The body is larger than 8 MiB. Send fewer events in a call.")
            }
            _ => problem,
        };
        if announced(headers).is_some_and(|length| length > LARGEST as u64) {
            return Err(large(Unread::Large.into()));
        }
        let place = app.event_places.0.take(()).await.ok_or_else(|| Problem::too_many(AGAIN))?;
        let bytes = app.bodies.request(Sender::Service, body, LARGEST).await.map_err(large)?;
        Ok(Self { bytes, place })
    }
}

/// The length of the body as its sender announces it. The body itself does not tell it any more: it passed a layer.
fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether the request comes from a service of the owner. A wrong token takes from the limit of its client.
async fn check_token(app: &App, parts: &mut Parts) -> Result<(), Problem> {
    let tokens = &app.config.usage_events_tokens;
    if tokens.is_empty() {
        return Err(not_set());
    }
    let shown = access_tokens::shown(&parts.headers);
    if shown.is_some_and(|shown| tokens.knows(shown)) {
        return Ok(());
    }
    let client = guards::client(parts).await.map(|client| app.clients.take(&network(client)));
    if let Some(Err(wait)) = client {
        return Err(Problem::too_many(wait));
    }
    Err(match access_tokens::shown(&parts.headers) {
        Some(key) if key.starts_with("sk_live_") => unauthorized().told(
            "This is an API key of a tenant. Usage events take the token of your own services: send one of \
             USAGE_EVENTS_TOKEN as Authorization: Bearer.",
        ),
        _ => unauthorized(),
    })
}

/// Counts the events that can be, and says of each what became of it.
async fn count_events(app: &App, read: Vec<Result<Told, Refused>>) -> Result<CountedEvents, Problem> {
    let (mut used, mut outcomes) = (Vec::new(), Vec::with_capacity(read.len()));
    for read in read {
        let judged = match read.map(|told| (tenant_of(app, &told), told)) {
            Ok((Ok(tenant), told)) => Ok((told, tenant)),
            Ok((Err((code, detail)), told)) => {
                // The tenant may have come since Kubernetes last sent anything: the event is not refused for good.
                app.trust.check(None)?;
                Err(Refused { id: Some(told.id), code, detail: detail.into() })
            }
            Err(refused) => Err(refused),
        };
        outcomes.push(match judged {
            Ok((told, tenant)) => {
                let Told { source, id, time, amounts, .. } = told;
                used.push(UsedElsewhere { tenant, source, id: id.clone(), time, amounts });
                EventFate::Counted(id)
            }
            Err(refused) => EventFate::Refused(refused),
        });
    }
    let states = app.metering.count_elsewhere(used, app.now()).await?;
    let answer = CountedEvents::of(outcomes, states);
    if let Some(why) = answer.first_refusal() {
        tracing::warn!(refused = answer.refused, why, "usage events are refused");
    }
    Ok(answer)
}

/// The tenant that an event is about, or why it cannot be counted for it.
fn tenant_of(app: &App, told: &Told) -> Result<Arc<Served>, (&'static str, &'static str)> {
    let tenant = app.directory.get(&told.tenant).filter(|tenant| tenant.phase != Some(Phase::Deleted));
    let tenant = tenant.ok_or((
        "unknown_tenant",
        "subject: no tenant has this id. Send the id, as X-Tenant-Id or spec.tenantId tells it, not the name",
    ))?;
    if tenant.config.is_none() || tenant.quota.is_none() {
        return Err(("not_ready", "the tenant is not set up yet, so it has no period to count in"));
    }
    Ok(tenant)
}

fn unauthorized() -> Problem {
    let detail = "Send the token of your services as Authorization: Bearer. It is missing, wrong, or was replaced.";
    Problem::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, detail)
}

/// No service may send events here.
fn not_set() -> Problem {
    let detail = "This service takes no usage events: USAGE_EVENTS_TOKEN of web is not set (in the chart: \
        credentials.usageEventsToken.existingSecret).";
    Problem::new(StatusCode::NOT_FOUND, Code::NoUsageEvents, detail)
}

fn malformed(why: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, Code::Malformed, format!("Nothing is counted: {why}."))
}

fn too_many_events(count: usize) -> Problem {
    let detail = format!("{count} events: send at most {EVENTS} in a call. Nothing is counted.");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge, detail)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_body_that_is_too_long_is_known_before_it_arrives() {
        let length = |length: &'static str| {
            announced(&HeaderMap::from_iter([(header::CONTENT_LENGTH, HeaderValue::from_static(length))]))
        };
        assert_eq!((length("1073741824"), length("7"), length("x")), (Some(1 << 30), Some(7), None));
        assert_eq!(announced(&HeaderMap::new()), None, "in chunks");
    }
}
