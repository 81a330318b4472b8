//! The Stripe stand-in: customers, Checkout with a page to pay on, subscriptions, invoices, refunds, signed webhooks.

mod accounts;
mod api;
mod catalog;
mod checkout;
mod clock;
mod customers;
mod decimals;
pub mod disputes;
mod event_summaries;
mod fields;
mod form;
mod hosted;
pub mod idempotency;
mod invoice_lines;
mod invoices;
mod items;
pub mod keys;
mod meter_errors;
mod meter_events;
pub mod metering;
mod meters;
mod pages;
mod parameters;
mod periods;
mod portal;
mod previews;
mod prices;
pub mod problem;
mod proration;
mod refunds;
mod sessions;
mod subscriptions;
mod thin_events;
mod usage;
pub mod webhooks;

pub(crate) use accounts::add_key;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::faults::Broken;
use super::{Shared, lock};
use idempotency::Given;
use problem::{Problem, answer};

/// What Stripe calls test clocks.
const TEST_CLOCK: &str = "test_helpers.test_clock";

/// The account's whole state.
#[derive(Debug)]
pub struct Account {
    url: String,
    webhook_secret: String,
    data: Arc<Mutex<Data>>,
    others: accounts::Others,
    delivery: webhooks::Delivery,
    restricted: Mutex<BTreeMap<String, keys::Permissions>>,
    /// Requests that run under an idempotency key.
    pub(crate) running: idempotency::Running,
    /// Calls that send meter events.
    metered_calls: metering::Calls,
}

/// Objects by kind and id, in order of creation, and the answers kept for idempotency keys.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Data {
    objects: BTreeMap<String, Vec<Value>>,
    saved: idempotency::Answers,
    /// The test clocks of those customers that have one.
    clocked: BTreeMap<String, String>,
    /// Seconds by which the account's time is ahead of the real one.
    ahead: i64,
    /// Seconds for which the invoice of a renewal is a draft. 0: it is collected at once.
    drafts: i64,
    counter: u64,
    /// Whose objects they are.
    owner: accounts::Owner,
    usage: usage::Usage,
    metering: metering::Settings,
    #[serde(skip)]
    request: Asked,
}

/// What the headers of the request say that runs.
#[derive(Clone, Debug, Default)]
struct Asked {
    idempotency_key: Option<String>,
    /// `Stripe-Version`: a date and a name. The account's own version, the newest, when absent.
    version: Option<String>,
}

impl Asked {
    /// Whether the request's version of the API is older than a day.
    fn is_before(&self, day: &str) -> bool {
        self.version.as_deref().is_some_and(|version| version < day)
    }
}

impl Account {
    pub(crate) fn new(url: String, webhook_secret: String, webhook_url: Option<String>) -> Self {
        Self {
            url,
            webhook_secret,
            data: Arc::default(),
            others: accounts::Others::default(),
            delivery: webhooks::Delivery::new(webhook_url),
            restricted: Mutex::new(keys::known()),
            running: idempotency::Running::default(),
            metered_calls: metering::Calls::default(),
        }
    }

    pub(crate) fn set_webhook_url(&self, url: &str) {
        self.delivery.set_url(url);
    }

    pub(crate) fn add_price(&self, id: &str, amount: i64, currency: &str) {
        catalog::insert_price(&mut lock(&self.data), id, &json!("prod_sandbox"), amount, currency);
    }

    pub(crate) fn snapshot(&self) -> Data {
        lock(&self.data).clone()
    }

    pub(crate) fn restore(&self, data: Data) {
        *lock(&self.data) = data;
    }
}

impl Data {
    fn next_id(&mut self, prefix: &str) -> String {
        self.counter += 1;
        format!("{prefix}_sandbox{:06}{}", self.counter, hex::encode(rand::random::<[u8; 6]>()))
    }

    fn insert(&mut self, kind: &str, object: Value) {
        self.objects.entry(kind.to_owned()).or_default().push(object);
    }

    fn remove(&mut self, kind: &str, id: &str) {
        if let Some(list) = self.objects.get_mut(kind) {
            list.retain(|o| o["id"] != id);
        }
    }

    fn list(&self, kind: &str) -> &[Value] {
        self.objects.get(kind).map_or(&[], Vec::as_slice)
    }

    fn find(&mut self, kind: &str, id: &str) -> Result<&mut Value, Problem> {
        let found = self.objects.get_mut(kind).and_then(|list| list.iter_mut().find(|o| o["id"] == id));
        found.ok_or_else(|| Problem::missing(kind, id))
    }
}

pub(crate) fn routes(state: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/{*path}", get(call).post(call).delete(call))
        .route("/v2/{*path}", get(thin_events::call).post(thin_events::call).delete(thin_events::call))
        .route("/i/{id}", get(hosted::page).post(hosted::confirm))
        .route("/c/pay/{id}", get(checkout::page).post(checkout::pay))
        .route("/p/session/{id}", get(portal::page).post(portal::change))
        .with_state(state)
}

/// Every API call: authorization, idempotency, and the object's own handler.
async fn call(
    State(s): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    broken: Option<Extension<Broken>>,
    body: String,
) -> Response {
    let Some(api_key) = accounts::bearer(&headers) else {
        return Problem::new(StatusCode::UNAUTHORIZED, "You did not provide an API key.").into_response();
    };
    let account = s.stripe.of_key(&api_key);
    let in_query = method == Method::GET || (method == Method::DELETE && body.is_empty());
    let params = form::parse(if in_query { query.as_deref().unwrap_or_default() } else { &body });
    let path: Vec<&str> = uri.path().trim_start_matches("/v1/").split('/').collect();
    if !s.stripe.is_registered(&api_key)
        && let Err(problem) = keys::authorize(&lock(&s.stripe.restricted), (&method, &path), &api_key, &params)
    {
        return problem.into_response();
    }
    let key = idempotency::key(&method, &headers);
    let fingerprint = (format!("{method} {}", uri.path()), params.clone());
    let (answer, events) = {
        let mut data = lock(&account);
        let now = data.now();
        if let Some(answer) = key.as_ref().and_then(|key| data.saved.find(key, &fingerprint, now)) {
            return answer;
        }
        let mut events = Vec::new();
        let version = headers.get("stripe-version").and_then(|v| v.to_str().ok()).map(str::to_owned);
        data.request = Asked { idempotency_key: key.clone(), version };
        clock::tick(&mut data, &mut events);
        let broken = broken.map(|Extension(broken)| broken);
        let (mut executed, mut given) = (true, Given { status: StatusCode::OK, body: Value::Null, should_retry: None });
        if broken.as_ref().is_none_or(|broken| broken.done) {
            match api::handle(&mut data, &s.stripe.url, &method, &path, &params, &mut events) {
                Ok(value) => given.body = value,
                Err(problem) => {
                    executed = problem.executed;
                    given = Given { status: problem.status, body: problem.body(), should_retry: problem.should_retry };
                }
            }
        }
        if let Some(broken) = broken {
            given = Given { status: broken.status, body: broken.body, should_retry: None };
        }
        invoice_lines::embed(&mut given.body);
        if data.owner.livemode {
            accounts::mark(&mut given.body);
        }
        if let (Some(key), true) = (key, executed) {
            data.saved.save(key, fingerprint, given.clone(), now);
        }
        (answer(given.status, given.body, given.should_retry), events)
    };
    webhooks::emit_in(&s, &account, events);
    answer
}

/// Everything, for tests and the curious.
pub(crate) async fn state(State(s): State<Arc<Shared>>) -> Json<Value> {
    let data = lock(&s.stripe.data);
    let mut all = json!(data.objects);
    all["billing.meter_event"] = data.usage.shown();
    Json(all)
}

#[derive(Deserialize)]
pub(crate) struct Forward {
    advance_seconds: u32,
}

/// Moves the account's time forward, for customers without a test clock of their own.
pub(crate) async fn forward(State(s): State<Arc<Shared>>, Json(by): Json<Forward>) -> Json<Value> {
    let mut events = Vec::new();
    let now = {
        let mut data = lock(&s.stripe.data);
        data.ahead += i64::from(by.advance_seconds);
        clock::tick(&mut data, &mut events);
        data.now()
    };
    webhooks::emit(&s, events);
    Json(json!({"now": now}))
}

#[derive(Deserialize)]
pub(crate) struct Decline {
    payment_method: String,
    #[serde(default = "yes")]
    declined: bool,
}

fn yes() -> bool {
    true
}

/// A card that works goes bad, or the other way round.
pub(crate) async fn decline(State(s): State<Arc<Shared>>, Json(card): Json<Decline>) -> StatusCode {
    match lock(&s.stripe.data).find("payment_method", &card.payment_method) {
        Ok(method) => {
            method["_sandbox"]["declined"] = json!(card.declined);
            StatusCode::OK
        }
        Err(problem) => problem.status,
    }
}

#[derive(Deserialize)]
pub(crate) struct Drafts {
    seconds: u32,
}

/// For how long the invoices of renewals are drafts from now on; at Stripe, an hour by default, and 72 hours at most
/// (<https://docs.stripe.com/billing/subscriptions/usage-based/configure-grace-period>).
pub(crate) async fn drafts(State(s): State<Arc<Shared>>, Json(drafts): Json<Drafts>) -> StatusCode {
    if drafts.seconds > 72 * 3600 {
        return StatusCode::BAD_REQUEST;
    }
    lock(&s.stripe.data).drafts = i64::from(drafts.seconds);
    StatusCode::OK
}

#[derive(Deserialize)]
pub(crate) struct Price {
    id: String,
    amount: i64,
    currency: String,
}

/// Makes prices known under ids of the caller's choice, which real Stripe does not allow.
pub(crate) async fn add_prices(State(s): State<Arc<Shared>>, Json(prices): Json<Vec<Price>>) -> StatusCode {
    for p in prices {
        s.stripe.add_price(&p.id, p.amount, &p.currency);
    }
    StatusCode::CREATED
}

/// The id in a path.
type Id = Path<String>;
