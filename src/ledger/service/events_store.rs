//! The events store: the lines of a tenant, how it is fed, and its making anew.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::Shared;
use super::answers::ServiceProblem;
use super::extract::{Body, Name, Parameters};
use crate::api::Timestamp;
use crate::ledger::events::{Asked as SumsAsked, EventsError, Feed, Page, Progress, Span};
use crate::ledger::store::StoredLine;
use crate::ledger::wire::{
    EVENTS_HOURS, EventsHour, EventsHours, EventsStatus, Rebuild, Rebuilt, TenantLine, TenantLines,
};

/// Lines of one answer.
const MOST: u32 = 1000;
/// How long the store may take for an answer: less than a request may.
const READ: Duration = Duration::from_secs(8);
const HOUR: i64 = 3600;

impl Shared {
    fn feed(&self) -> Result<&Feed, ServiceProblem> {
        self.events.as_ref().ok_or(ServiceProblem::NoEventsStore)
    }
}

/// What is asked for: `?from=2026-12-01T00:00:00Z&to=2026-12-02T00:00:00Z&after=0&most=1000`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    from: Timestamp,
    to: Timestamp,
    #[serde(default)]
    after: i64,
    most: u32,
}

impl From<StoredLine> for TenantLine {
    fn from(line: StoredLine) -> Self {
        let StoredLine { seq, operation, period_start, at, hour, kind, amounts, .. } = line;
        Self { seq, operation, at, hour, period_start, kind, counted: amounts }
    }
}

/// `GET /v1/tenants/{tenant}/lines`: what was counted for a tenant, line by line.
pub async fn lines(
    State(shared): State<Arc<Shared>>,
    Name(tenant): Name,
    Parameters(Asked { from, to, after, most }): Parameters<Asked>,
) -> Result<Json<TenantLines>, ServiceProblem> {
    if from >= to || after < 0 || !(1..=MOST).contains(&most) {
        return Err(ServiceProblem::Malformed(format!(
            "from={from}&to={to}&after={after}&most={most}: ask for 1 to {MOST} lines after a line, from a moment to a later one"
        )));
    }
    let feed = shared.feed()?;
    // Before the lines are read: what they lack is later than this.
    let before = feed.fed.read();
    let read = async {
        let lines = feed.events.lines(&feed.id, &tenant, Span { from, to }, Page { after, most }).await?;
        // After them: another replica may have emptied the store, and what this one knows of it is over.
        Ok::<_, EventsError>((lines, feed.events.position(&feed.id).await?.generation))
    };
    let (lines, generation) = tokio::time::timeout(READ, read).await.map_err(|_| EventsError::Late(READ))??;
    let complete_until = before.complete_until.filter(|_| before.generation == Some(generation));
    Ok(Json(TenantLines { complete_until, lines: lines.into_iter().map(TenantLine::from).collect() }))
}

/// `GET /v1/events/store`: how the events store is fed.
pub async fn status(State(shared): State<Arc<Shared>>) -> Result<Json<EventsStatus>, ServiceProblem> {
    let feed = shared.feed()?;
    let progress = feed.fed.read();
    let complete = progress.is_complete();
    let Progress { generation, seq, complete_until, waiting, failing, differences, compared_until, .. } = progress;
    Ok(Json(EventsStatus {
        store: feed.events.kind().to_owned(),
        generation,
        seq,
        complete,
        complete_until,
        waiting: waiting.lines,
        failing,
        differences: differences.map(|differences| differences as u64),
        compared_until,
    }))
}

/// `POST /v1/events/rebuild`: empties the events store. The feed fills it again.
pub async fn rebuild(
    State(shared): State<Arc<Shared>>,
    Body(asked): Body<Rebuild>,
) -> Result<Json<Rebuilt>, ServiceProblem> {
    shared.feed()?;
    tracing::warn!(take_over = asked.take_over, "the events store is made anew, as a person asked");
    // It goes on if the request takes too long.
    let wiped = tokio::spawn(async move {
        let feed = shared.feed()?;
        Ok::<_, ServiceProblem>(feed.begin_anew(asked.take_over).await?)
    });
    let generation = wiped.await.map_err(|_| ServiceProblem::Late)??;
    Ok(Json(Rebuilt { generation }))
}

const DAY: i64 = 24 * HOUR;
/// Seconds for which a look of the feed is a recent one: it looks every two seconds, and keeps fifteen to spare.
const FRESH: i64 = 25;

/// What is asked for: `?from=2026-12-01T00:00:00Z&to=2026-12-02T00:00:00Z`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedHours {
    from: Timestamp,
    to: Timestamp,
}

/// `GET /v1/tenants/{tenant}/events/hours`: what the store's lines add up to, to be compared with the ledger's hours.
pub async fn hours(
    State(shared): State<Arc<Shared>>,
    Name(tenant): Name,
    Parameters(AskedHours { from, to }): Parameters<AskedHours>,
) -> Result<Json<EventsHours>, ServiceProblem> {
    if from >= to || to.since(from) > EVENTS_HOURS * HOUR {
        return Err(ServiceProblem::Malformed(format!("from={from}&to={to}: ask for 1 to {EVENTS_HOURS} hours")));
    }
    let feed = shared.feed()?;
    // Before the lines are read: what they lack is later than this.
    let before = feed.fed.read();
    let read = async {
        let sums = feed.events.sums(&feed.id, SumsAsked::TenantHours(&tenant), Span { from, to }).await?;
        Ok::<_, EventsError>((sums, feed.events.position(&feed.id).await?.generation))
    };
    let (sums, generation) = tokio::time::timeout(READ, read).await.map_err(|_| EventsError::Late(READ))??;
    let now = shared.clock.read().now;
    let mut complete_until = before.complete_until.filter(|_| before.generation == Some(generation));
    // No line is added to a closed hour, so one that is fed to the end has all of theirs, whatever hour the clock says.
    if complete_until.is_some_and(|until| now.since(until) < FRESH) && before.is_complete() {
        complete_until = complete_until.max(Some(shared.store.hours(&tenant, now, 1, now).await?.closed_until));
    }
    // As the feed compares: with a day to spare.
    let kept = feed.retention.map(|kept| i64::try_from(kept.as_secs()).unwrap_or(i64::MAX).saturating_sub(DAY));
    let kept_from = kept.map(|kept| now.plus(-kept));
    let hours = sums.into_iter().map(|sum| EventsHour { hour: sum.start, counted: sum.amounts }).collect();
    Ok(Json(EventsHours { kept_from, complete_until, hours }))
}
