//! `GET /v1/usage`: what a tenant has used of its plan, as the ledger counts it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::keys::Admitted;
use crate::api::{Tenant, Timestamp, Unit, Usage};
use crate::ledger::units::Amounts;
use crate::web::App;
use crate::web::metering;
use crate::web::serving::directory::Served;
use crate::web::serving::problem::{Problem, ProblemBody};

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
}

/// What the tenant has used of its plan.
#[utoipa::path(
    get, path = "/v1/usage", tag = "tenant API", security(("api_key" = [])),
    responses((status = 200, body = UsageAnswer),
        (status = 503, body = ProblemBody, description = "The usage is not known at the moment"))
)]
pub async fn show_usage(State(app): State<Arc<App>>, Admitted(tenant): Admitted) -> Result<Json<UsageAnswer>, Problem> {
    of(&app, &tenant).await.map(Json)
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
    let queries = used[Unit::Queries] - metering::given_back(tenant, period_start);
    used = used.with(Unit::Queries, queries.max(0));
    let limits = tenant.limits();
    let limited = |unit| Limited { used: used[unit], limit: limits.of(unit).unwrap_or_default() };
    let counted = |unit| Counted { used: used[unit], limit: limits.of(unit) };
    Ok(UsageAnswer {
        plan: tenant.config.as_ref().map_or_else(String::new, |c| c.plan.to_string()),
        period_start,
        period_end,
        queries: limited(Unit::Queries),
        documents: limited(Unit::Documents),
        bytes: limited(Unit::Bytes),
        embedded_bytes: limited(Unit::EmbeddedBytes),
        prompt_tokens: counted(Unit::PromptTokens),
        completion_tokens: counted(Unit::CompletionTokens),
        embedding_tokens: counted(Unit::EmbeddingTokens),
    })
}

/// Queries since the account began, those of versions before the ledger included.
pub async fn all_queries(app: &App, tenant: &Served, object: &Tenant) -> Result<i64, Problem> {
    Ok(Usage::of(object).earlier_queries + app.metering.queries_of_all_periods(tenant).await?)
}
