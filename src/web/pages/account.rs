//! `/account`: the customer's own page. Progress first, then the setup in three steps, documents, usage and the API key.

use std::sync::Arc;

use axum::Form;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kube::ResourceExt;
use minijinja::context;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{CUSTOMER_REQUEST, RETRY_ANNOTATION, Tenant, Timestamp, api_key_secret};
use crate::providers::Party;
use crate::providers::stripe::Payer;
use crate::rag::Document;
use crate::web::App;
use crate::web::api::{documents, query, usage};
use crate::web::customer::Progress;
use crate::web::directory::Served;
use crate::web::milestones::reached;
use crate::web::problem::Problem;
use crate::web::setup::{Setup, sample_question};

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

/// Somebody who is logged in.
pub struct Customer {
    pub tenant: Tenant,
    pub served: Arc<Served>,
}

impl App {
    /// Whose session it is, or the answer to a request without one.
    pub async fn customer(&self, headers: &HeaderMap) -> Result<Tenant, Response> {
        match self.by_session(headers).await {
            Ok(Some(tenant)) => Ok(tenant),
            Ok(None) => Err(super::go("/login")),
            Err(problem) => Err(self.sorry(headers, problem)),
        }
    }

    /// A customer whose form this is.
    pub async fn own_customer(&self, headers: &HeaderMap, csrf: &str) -> Result<Tenant, Response> {
        if !self.is_own_form(headers, csrf) {
            return Err(self.stale(headers));
        }
        self.customer(headers).await
    }

    /// The same, whose account is ready.
    pub async fn active_customer(&self, headers: &HeaderMap, csrf: &str) -> Result<Customer, Response> {
        let tenant = self.own_customer(headers, csrf).await?;
        match self.served(&tenant) {
            Some(served) => Ok(Customer { tenant, served: Arc::new(served) }),
            None => Err(super::go("/account")),
        }
    }

    /// The page.
    pub async fn account(&self, headers: &HeaderMap, tenant: &Tenant, shown: Shown) -> Response {
        let page = self.account_page(headers, tenant, shown).await;
        page.unwrap_or_else(|problem| self.sorry(headers, problem))
    }

    async fn account_page(&self, headers: &HeaderMap, tenant: &Tenant, shown: Shown) -> Result<Response, Problem> {
        let served = self.served(tenant);
        let active = served.is_some();
        let (documents, documents_away) = match &served {
            Some(served) => self.documents_of(served).await,
            None => (Vec::new(), false),
        };
        let usage = served.as_ref().map(|served| usage::of(self, served, tenant));
        let sample = served.as_ref().map(sample_question).unwrap_or_default();
        let question = shown.question.unwrap_or(sample);
        let values = context! {
            export => self.offers_export(tenant).then(|| self.export_of(tenant)), progress => Progress::of(tenant), setup => Setup::of(self, tenant), active, usage, documents, documents_away, question,
            answer => shown.answer, question_error => shown.question_error, document_error => shown.document_error,
            sent => shown.sent.unwrap_or_default(), billing => self.portal.is_some() && customer(tenant), api_key => shown.api_key, key_before_until => served.as_ref().and_then(key_before_until), generation => tenant.spec.api_key_generation,
            seen => seen(tenant),
        };
        self.page(shown.status.unwrap_or(StatusCode::OK), "account.html", headers, values)
    }

    /// The first page of documents; none, and true, when they cannot be read now.
    async fn documents_of(&self, served: &Served) -> (Vec<Document>, bool) {
        match documents::first_page(self, served).await {
            Ok(mut documents) => {
                documents.sort_by_key(|d| std::cmp::Reverse(d.uploaded_at));
                (documents, false)
            }
            Err(_) => (Vec::new(), true),
        }
    }
}

/// What the way to the page says.
#[derive(Deserialize)]
pub struct Arrival {
    sent: Option<String>,
}

/// Shows the page.
pub async fn show(State(app): State<Arc<App>>, Query(arrival): Query<Arrival>, headers: HeaderMap) -> Response {
    match app.customer(&headers).await {
        Ok(tenant) => {
            // A customer who has only signed up has no account to use yet.
            if app.served(&tenant).is_some() {
                reached(&app, &tenant, "first-login").await;
            }
            app.account(&headers, &tenant, Shown { sent: arrival.sent, ..Shown::default() }).await
        }
        Err(other) => other,
    }
}

/// Makes a payment link, which the page then shows: a form may not lead to another site.
pub async fn pay(State(app): State<Arc<App>>, headers: HeaderMap, Form(form): Form<Confirm>) -> Response {
    let tenant = match app.own_customer(&headers, &form.csrf).await {
        Ok(tenant) => tenant,
        Err(other) => return other,
    };
    match app.payment_link(&tenant).await {
        Ok(_) => super::go("/account"),
        Err(problem) => app.sorry(&headers, problem),
    }
}

/// Starts over where it failed, or hurries what takes too long: at most every few minutes.
pub async fn retry(State(app): State<Arc<App>>, headers: HeaderMap, Form(form): Form<Confirm>) -> Response {
    let tenant = match app.own_customer(&headers, &form.csrf).await {
        Ok(tenant) => tenant,
        Err(other) => return other,
    };
    match app.change_tenant(&tenant, |tenant| Ok(retried(tenant, app.now().as_second()))).await {
        Ok(Some(_)) => {
            tracing::info!(target: "audit", event = "retry_by_customer", tenant = tenant.name_any());
            super::go("/account")
        }
        Ok(None) => super::go("/account"),
        Err(problem) => app.sorry(&headers, problem),
    }
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
pub async fn events(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let Some(session) = app.session(&headers) else { return Problem::not_found().into_response() };
    match app.visited(&session).await {
        Ok(Some(tenant)) => crate::web::tenant::stream_of(&app, &tenant, session)
            .await
            .map_or_else(IntoResponse::into_response, IntoResponse::into_response),
        Ok(None) => Problem::not_found().into_response(),
        Err(problem) => problem.into_response(),
    }
}

#[derive(Deserialize)]
pub struct Ask {
    #[serde(default)]
    csrf: String,
    #[serde(default)]
    question: String,
}

/// Answers a question: on the page, or piece by piece for its script.
pub async fn ask(State(app): State<Arc<App>>, headers: HeaderMap, Form(form): Form<Ask>) -> Response {
    let customer = match app.active_customer(&headers, &form.csrf).await {
        Ok(customer) => customer,
        Err(other) => return other,
    };
    let Customer { tenant, served } = customer;
    if headers.get(header::ACCEPT).is_some_and(|accept| accept == "text/event-stream") {
        return query::ask_stream(&app, &served, &form.question).await.unwrap_or_else(IntoResponse::into_response);
    }
    let mut shown = Shown { question: Some(form.question.clone()), ..Shown::default() };
    match query::ask(&app, &served, &form.question).await {
        Ok((answer, basis)) => {
            shown.answer = Some(minijinja::Value::from_serialize(&answer));
            app.asked(&served, basis).await;
        }
        // The page keeps the question and says so.
        Err(problem) => {
            shown.status = Some(problem.status());
            shown.question_error = Some(problem.detail().to_owned());
        }
    }
    let tenant = app.tenants().get_opt(&served.name).await.ok().flatten().unwrap_or(tenant);
    app.account(&headers, &tenant, shown).await
}

#[derive(Deserialize)]
pub struct Confirm {
    #[serde(default)]
    csrf: String,
}

impl Confirm {
    /// The form's token.
    pub fn csrf(&self) -> &str {
        &self.csrf
    }
}

/// Which end of the account a page shows: when it was asked for. A form to take the account back carries it, so that one
/// from an earlier page does not undo a later end, and the form that closes an account likewise.
pub fn seen(tenant: &Tenant) -> String {
    tenant.spec.wish.as_ref().map(|wish| wish.at.to_string()).unwrap_or_default()
}

/// Until when the key before is good, if there is one and it is.
fn key_before_until(served: &Served) -> Option<String> {
    served.keys.before_until().filter(|until| *until > Timestamp::now()).map(|until| until.to_string())
}

#[derive(Deserialize)]
pub struct ReplaceKey {
    #[serde(default)]
    csrf: String,
    /// The generation of the key that the page showed.
    #[serde(default)]
    generation: u32,
}

/// Replaces the API key that the page showed. The one before stays good for a while. A second click on the same page, or in
/// another window, changes nothing: a key that is replaced twice is refused at once.
pub async fn replace_key(State(app): State<Arc<App>>, headers: HeaderMap, Form(form): Form<ReplaceKey>) -> Response {
    let tenant = match app.active_customer(&headers, &form.csrf).await {
        Ok(customer) => customer.tenant,
        Err(other) => return other,
    };
    let next = form.generation.saturating_add(1);
    let replaced = |tenant: &Tenant| {
        let same = tenant.spec.api_key_generation == form.generation;
        Ok(same.then(|| json!({"spec": {"apiKeyGeneration": next}})))
    };
    match app.change_tenant(&tenant, replaced).await {
        Ok(Some(_)) => {
            tracing::info!(target: "audit", event = "api_key_replaced", tenant = tenant.name_any(), generation = next);
            let made = |t: &Tenant| t.status.as_ref()?.api_key_generation.filter(|there| *there >= next);
            app.wait_until(&tenant, made).await;
            super::go("/account#key")
        }
        Ok(None) => super::go("/account#key"),
        Err(problem) => app.sorry(&headers, problem),
    }
}

/// On to Stripe's customer portal, where invoices and cards are. A form's target may not be another site, so the page
/// has a link to it.
pub async fn billing(State(app): State<Arc<App>>, headers: HeaderMap, Form(form): Form<Confirm>) -> Response {
    let tenant = match app.own_customer(&headers, &form.csrf).await {
        Ok(tenant) => tenant,
        Err(other) => return other,
    };
    match portal(&app, &tenant).await {
        Ok(url) => {
            tracing::info!(target: "audit", event = "portal_opened", tenant = tenant.place().name);
            let values = context! { url };
            app.show(StatusCode::OK, "billing.html", &headers, values)
        }
        Err(problem) => app.sorry(&headers, problem),
    }
}

#[derive(Deserialize)]
pub struct SetupForm {
    #[serde(default)]
    csrf: String,
    /// `skip` or `resume`, or `complete`.
    #[serde(default)]
    action: String,
}

/// Puts the setup aside, comes back to it, or completes it.
pub async fn setup(State(app): State<Arc<App>>, headers: HeaderMap, Form(form): Form<SetupForm>) -> Response {
    let tenant = match app.active_customer(&headers, &form.csrf).await {
        Ok(customer) => customer.tenant,
        Err(other) => return other,
    };
    if form.action == "complete" {
        if Setup::of(&app, &tenant).next_step.is_none() {
            reached(&app, &tenant, "completed").await;
        }
        return super::go("/account#setup");
    }
    match app.set_skipped(&tenant, form.action == "skip").await {
        Ok(_) => super::go("/account#setup"),
        Err(problem) => app.sorry(&headers, problem),
    }
}

/// Whether the tenant is one of Stripe's customers.
fn customer(tenant: &Tenant) -> bool {
    tenant.spec.billing.stripe.as_ref().is_some_and(|refs| refs.customer_id.is_some())
}

async fn portal(app: &App, tenant: &Tenant) -> Result<String, Problem> {
    let none = || Problem::new(StatusCode::CONFLICT, "no_billing", "There is nothing to pay for this account.");
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
    };
    let url = Party::scope(tenant.tenant_id(), stripe.portal(&payer)).await.map_err(|error| {
        tracing::warn!(%error, "the customer portal cannot be opened");
        Problem::unavailable()
    })?;
    url.ok_or_else(none)
}

/// Shows the API key.
pub async fn key(State(app): State<Arc<App>>, headers: HeaderMap, Form(form): Form<Confirm>) -> Response {
    let tenant = match app.active_customer(&headers, &form.csrf).await {
        Ok(customer) => customer.tenant,
        Err(other) => return other,
    };
    let secret = app.secrets().get_opt(&api_key_secret(tenant.place().name)).await;
    let key = secret.ok().flatten().and_then(|secret| secret.data?.remove("api-key"));
    let shown = match key.and_then(|key| String::from_utf8(key.0).ok()) {
        Some(key) => {
            tracing::info!(target: "audit", event = "api_key_shown", tenant = tenant.place().name);
            Shown { api_key: Some(key), ..Shown::default() }
        }
        None => return app.sorry(&headers, Problem::unavailable()),
    };
    app.account(&headers, &tenant, shown).await
}
