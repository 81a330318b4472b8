//! `GET /v1/usage`: what a tenant has used of its plan, and what it used before, as the ledger counts it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::keys::Admitted;
use crate::api::{Tenant, Timestamp, Unit, Usage};
use crate::ledger::history::{closed, day_of};
use crate::ledger::units::Amounts;
use crate::web::App;
use crate::web::metering::{self, Days};
use crate::web::serving::directory::Served;
use crate::web::serving::problem::{Problem, ProblemBody};

/// The most days that a request may ask for.
const MOST_DAYS: u16 = 93;

/// Something that the plan limits.
#[derive(Serialize, ToSchema)]
struct Limited {
    /// What is used.
    #[schema(example = 120)]
    used: i64,
    /// What the plan allows.
    #[schema(example = 10000)]
    limit: i64,
}

/// Something that the plan may limit.
#[derive(Serialize, ToSchema)]
struct Counted {
    /// What is used.
    #[schema(example = 48210)]
    used: i64,
    /// What the plan allows. Absent where it is counted and not limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 1_000_000)]
    limit: Option<i64>,
}

/// What a tenant has used.
#[derive(Serialize, ToSchema)]
pub struct UsageAnswer {
    /// The plan.
    #[schema(example = "starter")]
    plan: String,
    /// When the period began.
    #[schema(value_type = String, format = DateTime, example = "2026-12-01T00:00:00Z")]
    period_start: Timestamp,
    /// When it ends, and queries are counted anew.
    #[schema(value_type = String, format = DateTime, example = "2027-01-01T00:00:00Z")]
    period_end: Timestamp,
    /// Queries of the period: questions that were answered.
    queries: Limited,
    /// Documents that are stored.
    documents: Limited,
    /// Their bytes.
    bytes: Limited,
    /// Bytes of text that were embedded in the period, also of documents that are gone.
    embedded_bytes: Limited,
    /// Tokens that the chat model read in the period: questions and their passages.
    prompt_tokens: Counted,
    /// Tokens that the chat model wrote in the period.
    completion_tokens: Counted,
    /// Tokens that the embedding model read in the period: documents and questions.
    embedding_tokens: Counted,
    /// What was used before. Absent while it cannot be read; `history_unavailable` then says why.
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<History>,
    /// Why there is no `history`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "Earlier usage is not known at the moment. Please try again in a few seconds.")]
    history_unavailable: Option<String>,
}

impl UsageAnswer {
    /// When the period began and when it ends, and the queries so far.
    pub fn queries_so_far(&self) -> (Timestamp, Timestamp, i64) {
        (self.period_start, self.period_end, self.queries.used)
    }
}

/// What a tenant used before.
#[derive(Serialize, ToSchema)]
pub struct History {
    /// The latest periods that have ended, at most 12, the latest first.
    pub periods: Vec<PastPeriod>,
    /// The days that were asked for with `days`, today first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<Vec<PastDay>>,
}

/// A period that has ended.
#[derive(Serialize, ToSchema)]
pub struct PastPeriod {
    /// When the period began.
    #[schema(value_type = String, format = DateTime, example = "2026-11-01T00:00:00Z")]
    pub period_start: Timestamp,
    /// When it ended.
    #[schema(value_type = String, format = DateTime, example = "2026-12-01T00:00:00Z")]
    pub period_end: Timestamp,
    /// What was used in it.
    pub used: UsedBefore,
}

/// A day on which usage was counted. What another system reports late counts on the day of its report.
#[derive(Serialize, ToSchema)]
pub struct PastDay {
    /// The day of UTC.
    #[schema(value_type = String, format = Date, example = "2026-12-09")]
    pub date: jiff::civil::Date,
    /// What was counted on it.
    pub used: UsedBefore,
}

/// What was used in a period or on a day.
#[derive(Serialize, ToSchema)]
pub struct UsedBefore {
    /// Questions that were answered.
    #[schema(example = 9120)]
    pub queries: i64,
    /// Tokens that the chat model read.
    #[schema(example = 812_000)]
    pub prompt_tokens: i64,
    /// Tokens that the chat model wrote.
    #[schema(example = 96000)]
    pub completion_tokens: i64,
    /// Tokens that the embedding model read.
    #[schema(example = 48210)]
    pub embedding_tokens: i64,
    /// Bytes of text that were embedded.
    #[schema(example = 180_000)]
    pub embedded_bytes: i64,
}

impl From<Amounts> for UsedBefore {
    fn from(used: Amounts) -> Self {
        Self {
            queries: used[Unit::Queries],
            prompt_tokens: used[Unit::PromptTokens],
            completion_tokens: used[Unit::CompletionTokens],
            embedding_tokens: used[Unit::EmbeddingTokens],
            embedded_bytes: used[Unit::EmbeddedBytes],
        }
    }
}

/// What else the answer tells.
#[derive(Deserialize, IntoParams)]
pub struct UsageQuery {
    /// How many days the history lists, up to today in UTC. Without it, the history has no days.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 93, example = 30)]
    days: Option<String>,
}

impl UsageQuery {
    fn days(&self) -> Result<Option<u16>, Problem> {
        let Some(days) = &self.days else { return Ok(None) };
        let known = days.parse().ok().filter(|days| (1..=MOST_DAYS).contains(days));
        let why = || format!("must be a whole number from 1 to {MOST_DAYS}");
        known.map(Some).ok_or_else(|| Problem::invalid([("days", why())].into()))
    }
}

/// What the tenant has used of its plan in this period, and what it used before.
#[utoipa::path(
    get, path = "/v1/usage", tag = "tenant API", params(UsageQuery), security(("api_key" = [])),
    responses((status = 200, body = UsageAnswer),
        (status = 400, body = ProblemBody, description = "`days` is not a whole number from 1 to 93"),
        (status = 503, body = ProblemBody, description = "The usage is not known at the moment"))
)]
pub async fn show_usage(
    State(app): State<Arc<App>>,
    Admitted(tenant): Admitted,
    Query(query): Query<UsageQuery>,
) -> Result<Json<UsageAnswer>, Problem> {
    let (usage, history) = with_history(&app, &tenant, query.days()?).await;
    let mut answer = usage?;
    match history {
        Ok(history) => answer.history = Some(history),
        Err(problem) => answer.history_unavailable = Some(problem.detail().to_owned()),
    }
    Ok(Json(answer))
}

/// What a tenant has used, and what it used before, read at the same time.
pub async fn with_history(
    app: &App,
    tenant: &Served,
    days: Option<u16>,
) -> (Result<UsageAnswer, Problem>, Result<History, Problem>) {
    let now = app.now();
    let asked = days.map(|days| Days { days, last: day_of(now) });
    let (usage, recorded) = tokio::join!(of(app, tenant), app.metering.recorded(tenant, asked));
    let planned = tenant.quota.as_ref().map_or(now, |quota| quota.period_at(now).0);
    let present = usage.as_ref().map_or(planned, |usage| usage.period_start);
    let history = recorded.map(|recorded| History {
        periods: closed(recorded.periods, present)
            .into_iter()
            .map(|past| {
                let (start, end) = (past.period.start, past.period.end);
                PastPeriod { period_start: start, period_end: end, used: counted(tenant, start, past.used).into() }
            })
            .collect(),
        days: days.map(|_| {
            recorded.days.into_iter().map(|day| PastDay { date: day.day, used: day.counted.into() }).collect()
        }),
    });
    (usage, history)
}

/// What counts of a period, where a version before the ledger has given some of it back.
fn counted(tenant: &Served, start: Timestamp, used: Amounts) -> Amounts {
    let queries = used[Unit::Queries] - metering::given_back(tenant, start);
    used.with(Unit::Queries, queries.max(0))
}

/// What a tenant has used.
pub async fn of(app: &App, tenant: &Served) -> Result<UsageAnswer, Problem> {
    let now = app.now();
    let (mut period_start, mut period_end) = tenant.quota.as_ref().map_or((now, now), |quota| quota.period_at(now));
    let mut used = Amounts::ZERO;
    if let Some(known) = app.metering.usage(tenant, now).await? {
        // Nothing is counted in the present period yet, unless the ledger says so. Documents are of no period.
        let present = known.period.start >= period_start;
        used = if present { known.used } else { known.used.only(true) };
        if present {
            (period_start, period_end) = (known.period.start, known.period.end);
        }
    }
    used = counted(tenant, period_start, used);
    let limits = tenant.limits();
    let limited = |unit| Limited { used: used[unit], limit: limits.of(unit).unwrap_or_default() };
    let unlimited = |unit| Counted { used: used[unit], limit: limits.of(unit) };
    Ok(UsageAnswer {
        plan: tenant.config.as_ref().map_or_else(String::new, |c| c.plan.to_string()),
        period_start,
        period_end,
        queries: limited(Unit::Queries),
        documents: limited(Unit::Documents),
        bytes: limited(Unit::Bytes),
        embedded_bytes: limited(Unit::EmbeddedBytes),
        prompt_tokens: unlimited(Unit::PromptTokens),
        completion_tokens: unlimited(Unit::CompletionTokens),
        embedding_tokens: unlimited(Unit::EmbeddingTokens),
        history: None,
        history_unavailable: None,
    })
}

/// Queries since the account began, those of versions before the ledger included.
pub async fn all_queries(app: &App, tenant: &Served, object: &Tenant) -> Result<i64, Problem> {
    Ok(Usage::of(object).earlier_queries + app.metering.queries_of_all_periods(tenant).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(text: Option<&str>) -> Result<Option<u16>, Problem> {
        UsageQuery { days: text.map(str::to_owned) }.days()
    }

    #[test]
    fn days_are_one_to_93_and_the_refusal_names_them() {
        for (text, wanted) in [(None, None), (Some("1"), Some(1)), (Some("30"), Some(30)), (Some("93"), Some(93))] {
            assert_eq!(days(text).expect("days"), wanted);
        }
        for text in ["", "0", "94", "-1", "1e9", "1.5", " 7", "7 ", "thirty", "99999999999999999999", "\u{0663}"] {
            let problem = days(Some(text)).expect_err(text);
            assert_eq!((problem.status().as_u16(), problem.code()), (400, "invalid"), "{text}");
            assert_eq!(problem.detail(), "days must be a whole number from 1 to 93", "{text}");
        }
    }
}
