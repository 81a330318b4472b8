//! A client of the ledger, for the operator's other parts.
//!
//! A call that got no answer is repeated under the same name until its time is over: the ledger applies it once,
//! whichever of the attempts it saw.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::civil::Date;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::api::Timestamp;

use super::LedgerKey;
use super::units::Unit;
use super::wire::{
    AnswerState, BeginAnswer, Checkpoint, CommandOutcome, Counted, Dated, DayUsage, EVENTS_HOURS, ErasedAnswers,
    EventStates, Events, EventsHour, EventsHours, EventsStatus, FinishAnswer, FinishedAnswer, HourLines, HourUsage,
    HoursUsage, OldDocument, PeriodUsage, Rebuild, Rebuilt, Recounted, Reserve, Status, TenantUsage, Void,
};

/// Of one attempt, until the ledger's connection is there.
const CONNECT: Duration = Duration::from_secs(1);
/// Of one attempt in all.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Of one attempt with a batch of events, or with the events store.
const BATCH: Duration = Duration::from_secs(12);
/// After which an idle connection is not used again: the ledger closes it a few seconds later.
const IDLE: Duration = Duration::from_secs(10);
/// Between two attempts: a ledger that restarts is back within a second or two.
const PAUSE: Duration = Duration::from_millis(100);

/// The code of the ledger's answer for a tenant that it has counted nothing for.
const NOTHING_COUNTED: &str = "unknown_tenant";

/// Calls of one client at the same time, each on a connection of its own: fewer than the ledger gives one address.
/// Others wait.
const CALLS: usize = 256;
/// Tenants of one answer that were counted again.
const RECOUNTED: u32 = 1000;
/// Hours of one answer.
const HOURS: u32 = 500;

/// A ledger, and how long a call waits for it.
#[derive(Clone, Debug)]
pub struct LedgerClient {
    http: reqwest::Client,
    url: Url,
    authorization: HeaderValue,
    patience: Duration,
    /// Places of calls that are under way.
    places: Arc<Semaphore>,
}

/// Why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// A limit leaves too little.
    #[error("{detail}")]
    LimitReached {
        /// The unit.
        unit: Unit,
        /// Its limit.
        limit: i64,
        /// What the limit leaves.
        left: i64,
        /// The reason in words.
        detail: String,
    },
    /// The ledger refuses the call for another reason. A repetition does not help.
    #[error("the ledger refuses: {detail} ({code})")]
    Refused {
        /// The kind of refusal.
        code: String,
        /// The reason in words.
        detail: String,
    },
    /// The ledger could not be reached in time. The call may have been applied or not: repeat it under the same name.
    #[error("the ledger cannot be reached: {0}")]
    Unavailable(String),
}

/// The body of a refusal.
#[derive(Deserialize)]
struct Refusal {
    code: String,
    detail: String,
    unit: Option<String>,
    limit: Option<i64>,
    left: Option<i64>,
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, detail, unit, limit, left } = refusal;
        match (unit.and_then(|unit| unit.parse().ok()), limit, left) {
            (Some(unit), Some(limit), Some(left)) => Self::LimitReached { unit, limit, left, detail },
            _ => Self::Refused { code, detail },
        }
    }
}

impl LedgerClient {
    /// A client whose calls wait so long for the ledger.
    ///
    /// # Panics
    /// Never: the digits of a key are a valid header.
    pub fn new(url: Url, key: &LedgerKey, patience: Duration) -> Result<Self, reqwest::Error> {
        let http =
            reqwest::Client::builder().connect_timeout(CONNECT).timeout(ATTEMPT).pool_idle_timeout(IDLE).build()?;
        let mut authorization = HeaderValue::try_from(key.authorization()).expect("hexadecimal digits");
        authorization.set_sensitive(true);
        Ok(Self { http, url, authorization, patience, places: Arc::new(Semaphore::new(CALLS)) })
    }

    /// Sets amounts aside.
    pub async fn reserve(&self, operation: &str, body: &Reserve) -> Result<CommandOutcome, CallError> {
        self.call(Method::PUT, &["operations", operation], Some(body)).await
    }

    /// Notes what was used so far.
    pub async fn checkpoint(&self, operation: &str, body: &Checkpoint) -> Result<CommandOutcome, CallError> {
        self.call(Method::POST, &["operations", operation, "checkpoint"], Some(body)).await
    }

    /// Counts what was used.
    pub async fn settle(&self, operation: &str, body: &Counted) -> Result<CommandOutcome, CallError> {
        self.call(Method::POST, &["operations", operation, "settle"], Some(body)).await
    }

    /// Gives back everything.
    pub async fn void(&self, operation: &str, body: &Void) -> Result<CommandOutcome, CallError> {
        self.call(Method::POST, &["operations", operation, "void"], Some(body)).await
    }

    /// Takes away from levels.
    pub async fn release(&self, operation: &str, body: &Counted) -> Result<CommandOutcome, CallError> {
        self.call(Method::POST, &["operations", operation, "release"], Some(body)).await
    }

    /// Counts what was counted before the ledger began, unless the ledger has it.
    pub async fn recount(&self, operation: &str, body: &Dated) -> Result<CommandOutcome, CallError> {
        self.call(Method::POST, &["operations", operation, "recount"], Some(body)).await
    }

    /// Notes that a tenant is counted again since a beginning, or that all tenants of the moment are.
    pub async fn recounted(&self, body: &Recounted) -> Result<(), CallError> {
        self.call(Method::POST, &["recounted"], Some(body)).await
    }

    /// The tenants that were counted again since a beginning.
    pub async fn recounted_tenants(&self, beginning: &str) -> Result<HashSet<String>, CallError> {
        let (mut all, mut after) = (HashSet::new(), String::new());
        loop {
            let query =
                [("beginning", beginning.to_owned()), ("after", after.clone()), ("most", RECOUNTED.to_string())];
            let page: Vec<String> = self.ask(Method::GET, &["recounted"], &query, None::<&()>).await?;
            let Some(last) = page.last() else { return Ok(all) };
            after.clone_from(last);
            all.extend(page);
        }
    }

    /// Documents of a tenant that were counted before the ledger began and not released, in the order of their names
    /// after one of them, at most so many.
    pub async fn old_documents(&self, tenant: &str, after: &str, most: u32) -> Result<Vec<OldDocument>, CallError> {
        let query = [("after", after.to_owned()), ("most", most.to_string())];
        self.ask(Method::GET, &["tenants", tenant, "documents"], &query, None::<&()>).await
    }

    /// What a tenant has used in each period, the latest first.
    pub async fn periods(&self, tenant: &str) -> Result<Vec<PeriodUsage>, CallError> {
        self.call(Method::GET, &["tenants", tenant, "periods"], None::<&()>).await
    }

    /// What was counted for a tenant on the days of UTC from one to another, both included, in their order. Days on
    /// which nothing was counted are left out.
    pub async fn days(&self, tenant: &str, from: Date, to: Date) -> Result<Vec<DayUsage>, CallError> {
        let query = [("from", from.to_string()), ("to", to.to_string())];
        self.ask(Method::GET, &["tenants", tenant, "days"], &query, None::<&()>).await
    }

    /// Counts what other systems tell of. A batch that got no answer is repeated: each event counts once.
    pub async fn events(&self, body: &Events) -> Result<EventStates, CallError> {
        self.call(Method::POST, &["events"], Some(body)).await
    }

    /// Begins a request with a key of its customer.
    pub async fn begin_answer(&self, tenant: &str, key: &str, body: &BeginAnswer) -> Result<AnswerState, CallError> {
        self.call(Method::PUT, &["answers", tenant, key], Some(body)).await
    }

    /// Keeps the answer of a request that this client began.
    pub async fn finish_answer(
        &self,
        tenant: &str,
        key: &str,
        body: &FinishAnswer,
    ) -> Result<FinishedAnswer, CallError> {
        self.call(Method::POST, &["answers", tenant, key, "finish"], Some(body)).await
    }

    /// Erases the keys and answers of a tenant.
    pub async fn erase_answers(&self, tenant: &str) -> Result<ErasedAnswers, CallError> {
        self.call(Method::DELETE, &["answers", tenant], None::<&()>).await
    }

    /// What a tenant has used. None if the ledger has counted nothing for it.
    pub async fn usage(&self, tenant: &str) -> Result<Option<PeriodUsage>, CallError> {
        match self.call(Method::GET, &["tenants", tenant, "usage"], None::<&()>).await {
            Err(CallError::Refused { code, .. }) if code == NOTHING_COUNTED => Ok(None),
            answered => answered.map(Some),
        }
    }

    /// What a tenant used in each closed hour from a moment on, of at most so many hours.
    pub async fn hours(&self, tenant: &str, from: Timestamp, most: u32) -> Result<HoursUsage, CallError> {
        let query = [("from", from.to_string()), ("most", most.to_string())];
        self.ask(Method::GET, &["tenants", tenant, "hours"], &query, None::<&()>).await
    }

    /// What a tenant used in all closed hours from a moment on, and up to when hours are closed.
    pub async fn all_hours(&self, tenant: &str, mut from: Timestamp) -> Result<(Timestamp, Vec<HourUsage>), CallError> {
        let mut all = Vec::new();
        loop {
            let page = self.hours(tenant, from, HOURS).await?;
            all.extend(page.hours);
            if page.listed_until >= page.closed_until || page.listed_until <= from {
                return Ok((page.closed_until, all));
            }
            from = page.listed_until;
        }
    }

    /// The ledger's own lines of an hour of a tenant, after a number, at most so many. A page may be empty and not the
    /// last one.
    pub async fn hour_lines(
        &self,
        tenant: &str,
        hour: Timestamp,
        after: i64,
        most: u32,
    ) -> Result<HourLines, CallError> {
        let query = [("hour", hour.to_string()), ("after", after.to_string()), ("most", most.to_string())];
        self.ask(Method::GET, &["tenants", tenant, "hours", "lines"], &query, None::<&()>).await
    }

    /// What the lines of the events store add up to in each hour from one moment to another, at most 93 days.
    pub async fn events_hours(&self, tenant: &str, from: Timestamp, to: Timestamp) -> Result<EventsHours, CallError> {
        let query = [("from", from.to_string()), ("to", to.to_string())];
        self.ask(Method::GET, &["tenants", tenant, "events", "hours"], &query, None::<&()>).await
    }

    /// The same from one moment to another, however far apart. None where the store does not have all of it.
    pub async fn all_events_hours(
        &self,
        tenant: &str,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Option<Vec<EventsHour>>, CallError> {
        let (mut all, mut next) = (Vec::new(), from);
        while next < to {
            let until = to.min(next.plus(EVENTS_HOURS * 3600));
            let page = self.events_hours(tenant, next, until).await?;
            let complete = page.complete_until.is_some_and(|complete| complete >= until);
            if !complete || page.kept_from.is_some_and(|kept| kept > next) {
                return Ok(None);
            }
            all.extend(page.hours);
            next = until;
        }
        Ok(Some(all))
    }

    /// How the ledger is.
    pub async fn status(&self) -> Result<Status, CallError> {
        self.call(Method::GET, &["status"], None::<&()>).await
    }

    /// How the events store is fed.
    pub async fn events_store(&self) -> Result<EventsStatus, CallError> {
        self.call(Method::GET, &["events", "store"], None::<&()>).await
    }

    /// Makes the events store anew.
    pub async fn rebuild(&self, body: &Rebuild) -> Result<Rebuilt, CallError> {
        self.call(Method::POST, &["events", "rebuild"], Some(body)).await
    }

    /// The tenants for which something was counted after a sequence number, at most so many of them, in the order of
    /// their latest lines.
    pub async fn usage_after(&self, after: i64, most: u32) -> Result<Vec<TenantUsage>, CallError> {
        let query = [("after", after.to_string()), ("most", most.to_string())];
        self.ask(Method::GET, &["usage"], &query, None::<&()>).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&impl Serialize>,
    ) -> Result<T, CallError> {
        self.ask(method, path, &[], body).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&impl Serialize>,
    ) -> Result<T, CallError> {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let start = Instant::now();
        loop {
            // Closed by no one, so there is always a place in the end.
            let place = self.places.acquire().await;
            let mut request = self.http.request(method.clone(), url.clone());
            request = request.header(AUTHORIZATION, self.authorization.clone());
            if path == ["events"] || path.ends_with(&["rebuild"]) || path.ends_with(&["events", "hours"]) {
                request = request.timeout(BATCH);
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            let error = match request.send().await {
                Ok(response) if response.status().is_server_error() => {
                    let status = response.status();
                    let detail =
                        response.json::<Refusal>().await.map_or(String::new(), |said| format!(": {}", said.detail));
                    CallError::Unavailable(format!("it answered {status}{detail}"))
                }
                Ok(response) => match answer(response).await {
                    Err(error @ CallError::Unavailable(_)) => error,
                    answered => return answered,
                },
                Err(error) => CallError::Unavailable(cause(error)),
            };
            drop(place);
            if start.elapsed() + PAUSE > self.patience {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn answer<T: DeserializeOwned>(response: Response) -> Result<T, CallError> {
    let status = response.status();
    let broken = |error: reqwest::Error| CallError::Unavailable(cause(error));
    if status == StatusCode::OK {
        return response.json().await.map_err(broken);
    }
    Err(response.json::<Refusal>().await.map_err(broken)?.into())
}

/// Why a call got no answer, down to its cause: reqwest's own words say only that it failed.
fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut said = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        said = format!("{said}: {cause}");
        source = cause.source();
    }
    said
}
