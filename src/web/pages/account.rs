//! `/account`: the customer's own page. Progress first, then the setup in three steps, documents, usage and the API
//! key.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use kube::ResourceExt;
use minijinja::context;
use minijinja::value::Serde;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{ActiveCustomer, Button, CsrfForm, Customer};
use super::{PageResult, go, plot};
use crate::api::{CUSTOMER_REQUEST, RETRY_ANNOTATION, Tenant, Unit, api_key_secret};
use crate::plots::Plot;
use crate::providers::Party;
use crate::providers::stripe::Payer;
use crate::rag::Document;
use crate::web::App;
use crate::web::api::query::{self, Answered};
use crate::web::api::usage::UsageAnswer;
use crate::web::api::{documents, usage};
use crate::web::customer::export::{export_of, offers_export};
use crate::web::customer::leaving::seen;
use crate::web::customer::milestones::reached;
use crate::web::customer::payment_link;
use crate::web::customer::progress::Progress;
use crate::web::customer::setup::{Setup, sample_question, set_skipped};
use crate::web::serving::directory::Served;
use crate::web::serving::extract::Then;
use crate::web::serving::problem::{Code, Problem};

/// Days of the plot of days: as many as a period has.
const DAYS: u16 = 30;
/// The least time between two retries that a customer asks for, in seconds.
const RETRY_SPACING: i64 = 300;

/// What a request adds to the page.
#[derive(Default)]
pub struct Shown {
    pub status: Option<StatusCode>,
    /// A question, and its answer or what went wrong.
    pub question: Option<String>,
    pub answer: Option<minijinja::Value>,
    pub question_error: Option<String>,
    pub document_error: Option<String>,
    pub api_key: Option<String>,
    /// Whether the confirmation e-mail was just sent again.
    pub sent: Option<String>,
}

/// The page.
pub async fn page(app: &App, headers: &HeaderMap, tenant: &Tenant, shown: Shown) -> PageResult {
    let served = app.served(tenant);
    let active = served.is_some();
    let ((documents, documents_away), used) = match &served {
        Some(served) => tokio::join!(documents_of(app, served), used_of(app, served)),
        None => ((Vec::new(), false), Used::default()),
    };
    let Used { usage, periods, days, history_away } = used;
    let plan = served.as_ref().and_then(|served| served.config.as_ref()).map(|config| config.plan.to_string());
    let sample = served.as_ref().map(sample_question).unwrap_or_default();
    let question = shown.question.unwrap_or(sample);
    let values = context! {
        export => Serde(offers_export(app, tenant).then(|| export_of(app, tenant))), progress => Serde(Progress::of(tenant)), setup => Serde(Setup::of(app, tenant)), active, plan, usage => Serde(usage), periods => Serde(periods), days => Serde(days), history_away, documents => Serde(documents), documents_away, question,
        answer => shown.answer, question_error => shown.question_error, document_error => shown.document_error,
        sent => shown.sent.unwrap_or_default(), billing => app.portal.is_some() && pays_by_stripe(tenant), api_key => shown.api_key, key_before_until => served.as_ref().and_then(|served| key_before_until(app, served)), generation => tenant.spec.api_key_generation,
        api_access => served.as_ref().is_some_and(Served::has_api_access),
        seen => seen(tenant),
    };
    app.page(shown.status.unwrap_or(StatusCode::OK), "account.html", headers, values)
}

/// What was used, as the page shows it.
#[derive(Default)]
struct Used {
    /// None while the ledger is away: the page says so.
    usage: Option<UsageAnswer>,
    periods: Option<Plot>,
    days: Option<Plot>,
    /// Whether what was used before cannot be read now.
    history_away: bool,
}

/// What was used in this period and before.
async fn used_of(app: &App, served: &Served) -> Used {
    let (usage, history) = usage::with_history(app, served, Some(DAYS)).await;
    let usage = usage.ok();
    let Ok(history) = history else { return Used { usage, history_away: true, ..Used::default() } };
    let present = usage.as_ref().map(UsageAnswer::queries_so_far);
    let limit = served.limits().of(Unit::Queries);
    let periods = plot::of_periods(&history.periods, present, limit);
    let days = history.days.and_then(|days| plot::of_days(&days));
    Used { usage, periods, days, history_away: false }
}

/// The first page of documents; none, and true, when they cannot be read now.
async fn documents_of(app: &App, served: &Served) -> (Vec<Document>, bool) {
    match documents::first_page(app, served).await {
        Ok(mut documents) => {
            documents.sort_by_key(|d| std::cmp::Reverse(d.uploaded_at));
            (documents, false)
        }
        Err(_) => (Vec::new(), true),
    }
}

/// What the way to the page says.
#[derive(Deserialize)]
pub struct Arrival {
    sent: Option<String>,
}

/// Shows the page.
pub async fn show(
    State(app): State<Arc<App>>,
    Query(arrival): Query<Arrival>,
    headers: HeaderMap,
    Customer(tenant): Customer,
) -> PageResult {
    // A customer who has only signed up has no account to use yet.
    if app.served(&tenant).is_some() {
        reached(&app, &tenant, "first-login").await;
    }
    page(&app, &headers, &tenant, Shown { sent: arrival.sent, ..Shown::default() }).await
}

/// Makes a payment link, which the page then shows: a form may not lead to another site.
pub async fn pay(
    State(app): State<Arc<App>>,
    Then(_, Customer(tenant)): Then<CsrfForm<Button>, Customer>,
) -> PageResult {
    payment_link::ask(&app, &tenant).await?;
    Ok(go("/account"))
}

/// Starts over where it failed, or hurries what takes too long: at most every few minutes.
pub async fn retry(
    State(app): State<Arc<App>>,
    Then(_, Customer(tenant)): Then<CsrfForm<Button>, Customer>,
) -> PageResult {
    let asked = app.change_tenant(&tenant, |tenant| Ok(retried(tenant, app.now().as_second()))).await?;
    if asked.is_some() {
        tracing::info!(target: "audit", event = "retry_by_customer", tenant = tenant.name_any());
    }
    Ok(go("/account"))
}

/// The change that asks for a retry; None where there is nothing to retry, or it was just asked for.
fn retried(tenant: &Tenant, now: i64) -> Option<Value> {
    let last =
        tenant.annotations().get(RETRY_ANNOTATION).and_then(|token| token.strip_prefix(CUSTOMER_REQUEST)?.parse().ok());
    let soon = last.is_some_and(|last: i64| now - last < RETRY_SPACING);
    let wanted = Progress::of(tenant).can_retry && !soon;
    wanted.then(|| json!({"metadata": {"annotations": {RETRY_ANNOTATION: format!("{CUSTOMER_REQUEST}{now}")}}}))
}

/// Progress as it changes, for the script of the page.
pub async fn events(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<impl IntoResponse, Problem> {
    let session = app.session(&headers).ok_or_else(Problem::not_found)?;
    let tenant = app.visited(&session).await?.ok_or_else(Problem::not_found)?;
    crate::web::customer::tenant::stream_of(&app, &tenant, session).await
}

#[derive(Deserialize)]
pub struct Ask {
    #[serde(default)]
    question: String,
}

/// Answers a question: on the page, or piece by piece for its script.
pub async fn ask(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Then(CsrfForm(form), customer): Then<CsrfForm<Ask>, ActiveCustomer>,
) -> PageResult {
    let ActiveCustomer { tenant, served } = customer;
    if headers.get(header::ACCEPT).is_some_and(|accept| accept == "text/event-stream") {
        return Ok(query::ask_stream(&app, &served, &form.question).await.unwrap_or_else(Problem::into_response));
    }
    let mut shown = Shown { question: Some(form.question.clone()), ..Shown::default() };
    match query::ask(&app, &served, &form.question).await {
        Ok(Answered { answer, basis, .. }) => {
            shown.answer = Some(minijinja::Value::from(Serde(&answer)));
            app.asked(&served, basis).await;
        }
        // The page keeps the question and says so.
        Err(problem) => {
            shown.status = Some(problem.status());
            shown.question_error = Some(problem.detail().to_owned());
        }
    }
    let tenant = app.tenants().get_opt(&served.name).await.ok().flatten().unwrap_or(tenant);
    page(&app, &headers, &tenant, shown).await
}

/// Until when the key before is good, if there is one and it is.
fn key_before_until(app: &App, served: &Served) -> Option<String> {
    served.keys.before_until().filter(|until| *until > app.now()).map(|until| until.to_string())
}

#[derive(Deserialize)]
pub struct ReplaceKey {
    /// The generation of the key that the page showed.
    #[serde(default)]
    generation: u32,
}

/// Replaces the API key that the page showed. The one before stays good for a while. A second click on the same page,
/// or in another window, changes nothing: a key that is replaced twice is refused at once.
pub async fn replace_key(
    State(app): State<Arc<App>>,
    Then(CsrfForm(form), ActiveCustomer { tenant, .. }): Then<CsrfForm<ReplaceKey>, ActiveCustomer>,
) -> PageResult {
    let next = form.generation.saturating_add(1);
    let replaced = |tenant: &Tenant| {
        let same = tenant.spec.api_key_generation == form.generation;
        Ok(same.then(|| json!({"spec": {"apiKeyGeneration": next}})))
    };
    if app.change_tenant(&tenant, replaced).await?.is_some() {
        tracing::info!(target: "audit", event = "api_key_replaced", tenant = tenant.name_any(), generation = next);
        let made = |t: &Tenant| t.status.as_ref()?.api_key_generation.filter(|there| *there >= next);
        app.wait_until(&tenant, made).await;
    }
    Ok(go("/account#key"))
}

/// On to Stripe's customer portal, where invoices and cards are. A form's target may not be another site, so the page
/// has a link to it.
pub async fn billing(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Then(_, Customer(tenant)): Then<CsrfForm<Button>, Customer>,
) -> PageResult {
    let url = portal(&app, &tenant).await?;
    tracing::info!(target: "audit", event = "portal_opened", tenant = tenant.place().name);
    app.page(StatusCode::OK, "billing.html", &headers, context! { url })
}

#[derive(Deserialize)]
pub struct SetupForm {
    /// `skip` or `resume`, or `complete`.
    #[serde(default)]
    action: String,
}

/// Puts the setup aside, comes back to it, or completes it.
pub async fn setup(
    State(app): State<Arc<App>>,
    Then(CsrfForm(form), ActiveCustomer { tenant, .. }): Then<CsrfForm<SetupForm>, ActiveCustomer>,
) -> PageResult {
    if form.action != "complete" {
        set_skipped(&app, &tenant, form.action == "skip").await?;
    } else if Setup::of(&app, &tenant).next_step.is_none() {
        reached(&app, &tenant, "completed").await;
    }
    Ok(go("/account#setup"))
}

/// Whether the tenant is one of Stripe's customers.
fn pays_by_stripe(tenant: &Tenant) -> bool {
    tenant.spec.billing.stripe.as_ref().is_some_and(|refs| refs.customer_id.is_some())
}

async fn portal(app: &App, tenant: &Tenant) -> Result<String, Problem> {
    let none = || Problem::new(StatusCode::CONFLICT, Code::NoBilling, "There is nothing to pay for this account.");
    let stripe = app.portal.as_ref().ok_or_else(none)?;
    let customer = tenant.spec.billing.stripe.as_ref().and_then(|s| s.customer_id.as_deref()).ok_or_else(none)?;
    let payer = Payer {
        tenant_id: tenant.tenant_id(),
        place: tenant.place(),
        email: &tenant.spec.admin_email,
        company: &tenant.spec.company_name,
        customer_id: Some(customer),
        known: true,
        gone: false,
        leaving: false,
    };
    let url = Party::scope(tenant.tenant_id(), stripe.portal(&payer)).await.map_err(|error| {
        tracing::warn!(%error, "the customer portal cannot be opened");
        Problem::unavailable()
    })?;
    url.ok_or_else(none)
}

/// Shows the API key.
pub async fn key(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Then(_, ActiveCustomer { tenant, .. }): Then<CsrfForm<Button>, ActiveCustomer>,
) -> PageResult {
    let secret = app.secrets().get_opt(&api_key_secret(tenant.place().name)).await;
    let key = secret.ok().flatten().and_then(|secret| secret.data?.remove("api-key"));
    let key = key.and_then(|key| String::from_utf8(key.0).ok()).ok_or_else(Problem::unavailable)?;
    tracing::info!(target: "audit", event = "api_key_shown", tenant = tenant.place().name);
    page(&app, &headers, &tenant, Shown { api_key: Some(key), ..Shown::default() }).await
}
