//! `POST /tenant/{id}/plan`: the customer moves to another plan. What is refused here changes nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::progress::{confirm_url, effective_at, sentence};
use crate::api::plan::{Downgrades, PlanSpec};
use crate::api::status::{PlanChange, PlanChangeState as Stage};
use crate::api::tenant::BillingMode;
use crate::api::{CUSTOMER_REQUEST, Phase, Plan, RETRY_ANNOTATION, Tenant, Timestamp, Unit};
use crate::ledger::units::Amounts;
use crate::lifecycle::{Credentials, Regions, View, excess, impossible, is_smaller};
use crate::web::App;
use crate::web::serving::extract::{SignupToken, Then};
use crate::web::serving::offers;
use crate::web::serving::problem::{Code, Problem, ProblemBody};

/// The least time between two changes of a tenant, in seconds: each may be charged.
const SPACING: i64 = 10;

/// The plan to move to.
#[derive(Deserialize, ToSchema)]
pub struct PlanRequest {
    /// The plan's name, as on `/pricing`.
    #[schema(example = "team")]
    plan: String,
    /// The plan that is in force, as the customer was shown it. Where another one is, the change is refused with 409.
    #[serde(default)]
    #[schema(example = "starter")]
    from: Option<String>,
}

/// Where a change stands, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum PlanAnswerState {
    Applied,
    Scheduled,
    Running,
    Unconfirmed,
}

/// Where a change stands.
#[derive(Serialize, ToSchema)]
pub struct PlanAnswer {
    /// The plan that is in force.
    #[schema(example = "starter")]
    plan: String,
    /// The plan that was asked for.
    #[schema(example = "team")]
    requested: String,
    /// `applied`, `scheduled`, `running`, or `unconfirmed` while the customer's bank asks them to confirm the payment.
    #[schema(value_type = String, example = "running")]
    state: PlanAnswerState,
    /// Where to confirm it. The plan changes once it is confirmed.
    #[schema(example = "https://invoice.stripe.com/i/acct_1a2B/live_c3D4")]
    confirm_url: Option<String>,
    /// When a scheduled change takes effect.
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-12-09T17:31:36Z")]
    effective_at: Option<Timestamp>,
}

/// Moves to another plan: up at once, and charged for the rest of the period; down at its end. The same request again
/// changes nothing.
#[utoipa::path(
    post, path = "/tenant/{id}/plan", operation_id = "change_plan", tag = "account", request_body = PlanRequest,
    params(("id" = String, Path, description = "The tenant's id", example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")), security(("signup_token" = [])),
    responses((status = 200, body = PlanAnswer), (status = 202, description = "It is running", body = PlanAnswer),
        (status = 400, body = ProblemBody), (status = 402, description = "The payment was declined", body = ProblemBody, example = json!(declined().body())),
        (status = 409, description = "Another change is running, or the plan does not fit", body = ProblemBody))
)]
pub async fn change(
    State(app): State<Arc<App>>,
    Then(Json(request), SignupToken(tenant)): Then<Json<PlanRequest>, SignupToken>,
) -> Result<(StatusCode, Json<PlanAnswer>), Problem> {
    let answer = change_plan(&app, &tenant, &request.plan, Shown::From(request.from.as_deref())).await?;
    let status = if answer.state == PlanAnswerState::Running { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(answer)))
}

fn declined() -> Problem {
    let detail = "The payment was declined, and nothing was changed. Enter another card, then try again.";
    Problem::new(StatusCode::PAYMENT_REQUIRED, Code::PaymentDeclined, detail)
}

fn conflict(code: Code, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::CONFLICT, code, detail)
}

/// What the customer was shown when they chose the plan. It is compared with the very object that is written: of two
/// clicks at the same moment, one changes the plan.
#[derive(Clone, Copy, Debug)]
pub enum Shown<'a> {
    /// The plan in force, if the client names it.
    From(Option<&'a str>),
    /// What the page showed: see [`seen`].
    Page(&'a str),
}

/// The plan in force and the one that was asked for, as a page shows them.
pub fn seen(tenant: &Tenant) -> String {
    format!("{} {}", tenant.plan_in_force(), tenant.spec.plan)
}

impl Shown<'_> {
    fn check(self, tenant: &Tenant, name: &str) -> Result<(), Problem> {
        if tenant.spec.plan == name {
            return Ok(());
        }
        let detail = match self {
            Self::From(Some(from)) if from != tenant.plan_in_force() => {
                format!("The plan in force is {}, not the one in `from`.", tenant.plan_in_force())
            }
            Self::Page(page) if page != seen(tenant) => {
                "Your plan has changed since this page was shown. Please look at it again.".into()
            }
            Self::From(_) | Self::Page(_) => return Ok(()),
        };
        Err(conflict(Code::PlanChanged, detail))
    }
}

/// Asks for another plan, and waits a little for what becomes of it.
pub async fn change_plan(app: &App, tenant: &Tenant, name: &str, shown: Shown<'_>) -> Result<PlanAnswer, Problem> {
    let plans = offers::for_sale(app).await?;
    let find = |name: &str| plans.iter().find(|plan| plan.name_any() == name);
    let wanted = find(name).ok_or_else(|| {
        Problem::invalid([("plan", "is not the name of a plan. /pricing shows the plans".to_owned())].into())
    })?;
    let (regions, stored) = (app.indexes.regions(), stored(app, tenant).await);
    let asked = |tenant: &Tenant| {
        shown.check(tenant, name)?;
        let current = find(tenant.plan_in_force()).map(|plan| &plan.spec);
        let asked = Asked { current, wanted, regions: &regions, stored };
        ask(tenant, &asked, app.now())
    };
    let Some(changed) = app.change_tenant(tenant, asked).await.map_err(running_meanwhile)? else {
        return answer(tenant, name);
    };
    let from = tenant.spec.plan.as_str();
    tracing::info!(target: "audit", event = "plan_change_asked", tenant = tenant.name_any(), from, to = name);
    let generation = changed.metadata.generation;
    let settled = |t: &Tenant| {
        let status = t.status.as_ref()?;
        let known = status.observed_generation >= generation && status.phase == Some(Phase::Active);
        let change = status.plan_change.as_ref().filter(|c| &*c.plan == name);
        let still = change.is_some_and(|c| matches!(c.state, Stage::Running | Stage::Preparing));
        let retried = change.is_none_or(|c| c.state != Stage::Declined || c.retry_token.as_ref() == token(t));
        (known && !still && retried && (change.is_some() || t.plan_in_force() == name)).then(|| t.clone())
    };
    let seen = app.wait_until(tenant, settled).await;
    answer(seen.as_ref().unwrap_or(&changed), name)
}

/// What the tenant stores. None while the ledger is away: the controller asks it again before it changes the plan.
async fn stored(app: &App, tenant: &Tenant) -> Option<Amounts> {
    let served = app.served(tenant)?;
    app.metering.usage(&served, app.now()).await.ok().flatten().map(|usage| usage.used)
}

fn token(tenant: &Tenant) -> Option<&String> {
    tenant.annotations().get(RETRY_ANNOTATION)
}

/// The API server refuses a change while another one runs.
fn running_meanwhile(problem: Problem) -> Problem {
    if problem.is(Code::Refused) {
        return conflict(
            Code::ChangeRunning,
            "Another change of this account is running. Please try again in a minute.",
        );
    }
    problem
}

/// A plan that is asked for, and what it is compared with.
struct Asked<'a> {
    /// The plan in force, if it is for sale.
    current: Option<&'a PlanSpec>,
    wanted: &'a Plan,
    regions: &'a Regions,
    /// What the tenant stores, if that is known.
    stored: Option<Amounts>,
}

/// The patch that asks for a plan, None where it is asked for already, or why it cannot be had.
fn ask(tenant: &Tenant, asked: &Asked, now: Timestamp) -> Result<Option<Value>, Problem> {
    let wanted = asked.wanted;
    let (name, status) = (wanted.name_any(), tenant.status.clone().unwrap_or_default());
    let change = status.plan_change.as_ref();
    let same = tenant.spec.plan == name;
    match status.phase {
        Some(Phase::Active) => {}
        Some(Phase::Upgrading | Phase::Downgrading) if same => return Ok(None),
        Some(Phase::Upgrading | Phase::Downgrading) => {
            let since = change.map(|c| c.since.to_string()).unwrap_or_default();
            let detail =
                format!("A change to the plan {} is running since {since}. Wait until it is done.", tenant.spec.plan);
            return Err(conflict(Code::ChangeRunning, detail));
        }
        _ => return Err(conflict(Code::NotReady, sentence(&status))),
    }
    if same {
        return declined_before(tenant, change, now);
    }
    // Undoing what is only scheduled costs nothing.
    let undone = tenant.plan_in_force() == name;
    if change.is_some_and(|c| c.state == Stage::Applied && now.since(c.since) < SPACING) && !undone {
        return Err(Problem::too_many(Duration::from_secs(SPACING.unsigned_abs())));
    }
    if !undone {
        fits(tenant, asked)?;
    }
    Ok(Some(json!({"spec": {"plan": name}})))
}

/// The same plan again: after a card that was declined, this tries again.
fn declined_before(tenant: &Tenant, change: Option<&PlanChange>, now: Timestamp) -> Result<Option<Value>, Problem> {
    let Some(declined) = change.filter(|c| c.state == Stage::Declined && *c.plan == *tenant.spec.plan) else {
        return Ok(None);
    };
    if now.since(declined.since) < SPACING {
        return Err(Problem::too_many(Duration::from_secs(SPACING.unsigned_abs())));
    }
    Ok(Some(json!({"metadata": {"annotations": {RETRY_ANNOTATION: format!("{CUSTOMER_REQUEST}{}", now.as_second())}}})))
}

/// What the controller would find in the way, in a customer's words.
fn fits(tenant: &Tenant, asked: &Asked) -> Result<(), Problem> {
    let Asked { current, wanted, regions, stored } = *asked;
    let mut view = View::of(tenant, Credentials::default());
    view.spec.plan = wanted.name_any();
    let title = wanted.title();
    if impossible(&view, current, Some(&wanted.spec), regions).is_some() {
        let detail = format!("You cannot change to {title} yourself. Please write to us, and we will do it for you.");
        return Err(conflict(Code::PlanNotAvailable, detail));
    }
    let limits = view.status.config.as_ref().map(|config| &config.limits);
    let later = is_smaller(&wanted.spec, current, limits) && wanted.spec.downgrades == Downgrades::AtPeriodEnd;
    let over = stored.and_then(|stored| excess(stored[Unit::Documents], stored[Unit::Bytes], &wanted.spec.limits));
    let Some((what, used, limit)) = over.filter(|_| !later) else { return Ok(()) };
    let detail =
        format!("Your account has {used} {what}, and {title} holds {limit}. Delete {} of them first.", used - limit);
    Err(conflict(Code::UsageExceedsPlan, detail))
}

/// Where the change to that plan stands.
fn answer(tenant: &Tenant, name: &str) -> Result<PlanAnswer, Problem> {
    let status = tenant.status.clone().unwrap_or_default();
    let change = status.plan_change.as_ref().filter(|c| &*c.plan == name);
    let state = match change.map(|c| c.state) {
        Some(Stage::Declined) => {
            return Err(declined());
        }
        Some(Stage::Blocked) => {
            let detail = "This change is not possible now. Your account stays as it is. Please write to us.";
            return Err(conflict(Code::PlanNotAvailable, detail));
        }
        Some(Stage::Scheduled) => PlanAnswerState::Scheduled,
        Some(Stage::Unconfirmed) => PlanAnswerState::Unconfirmed,
        Some(Stage::Applied) | None if tenant.plan_in_force() == name => PlanAnswerState::Applied,
        Some(Stage::Preparing | Stage::Running | Stage::Applied) | None => PlanAnswerState::Running,
    };
    Ok(PlanAnswer {
        plan: tenant.plan_in_force().into(),
        requested: name.into(),
        state,
        effective_at: effective_at(&status).filter(|_| state == PlanAnswerState::Scheduled),
        confirm_url: confirm_url(&status).filter(|_| state == PlanAnswerState::Unconfirmed),
    })
}

/// Whether the customer pays by card, and so may change plans alone.
pub fn by_card(tenant: &Tenant) -> bool {
    tenant.spec.billing.mode == BillingMode::Stripe
}
