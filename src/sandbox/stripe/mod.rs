//! The Stripe stand-in: customers, Checkout with a page to pay on, subscriptions, invoices, refunds, signed webhooks.

mod checkout;
mod form;
mod objects;
pub mod webhooks;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Shared, lock};
use objects::Problem;

/// The account's whole state.
#[derive(Debug)]
pub struct Account {
    url: String,
    webhook_secret: String,
    data: Mutex<Data>,
    delivery: webhooks::Delivery,
}

/// Objects by kind and id, in order of creation, and the answers kept for idempotency keys.
#[derive(Debug, Default)]
pub struct Data {
    objects: BTreeMap<&'static str, Vec<Value>>,
    answers: HashMap<String, (String, u16, Value)>,
    prices: HashMap<String, (i64, String)>,
    counter: u64,
}

impl Account {
    pub(crate) fn new(url: String, webhook_secret: String, webhook_url: Option<String>) -> Self {
        Self { url, webhook_secret, data: Mutex::default(), delivery: webhooks::Delivery::new(webhook_url) }
    }

    pub(crate) fn set_webhook_url(&self, url: &str) {
        self.delivery.set_url(url);
    }

    pub(crate) fn add_price(&self, id: &str, amount: i64, currency: &str) {
        lock(&self.data).prices.insert(id.into(), (amount, currency.into()));
    }
}

impl Data {
    fn next_id(&mut self, prefix: &str) -> String {
        self.counter += 1;
        format!("{prefix}_sandbox{:06}{}", self.counter, hex::encode(rand::random::<[u8; 6]>()))
    }

    fn insert(&mut self, kind: &'static str, object: Value) {
        self.objects.entry(kind).or_default().push(object);
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
        .route("/v1/{*path}", get(api).post(api).delete(api))
        .route("/c/pay/{id}", get(checkout::page).post(checkout::pay))
        .with_state(state)
}

/// Every API call: authorization, idempotency, and the object's own handler.
async fn api(
    State(s): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: String,
) -> Response {
    if headers.get("authorization").is_none() {
        return Problem::new(StatusCode::UNAUTHORIZED, "You did not provide an API key.").into_response();
    }
    let params = form::parse(if method == Method::GET { query.as_deref().unwrap_or_default() } else { &body });
    let path: Vec<&str> = uri.path().trim_start_matches("/v1/").split('/').collect();
    let key = headers.get("idempotency-key").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let fingerprint = format!("{method} {} {body}", uri.path());
    let (answer, events) = {
        let mut data = lock(&s.stripe.data);
        if let Some((before, status, answer)) = key.as_ref().and_then(|k| data.answers.get(k)) {
            if *before != fingerprint {
                let message =
                    "Keys for idempotent requests can only be used with the same parameters they were first used with.";
                return Problem::new(StatusCode::BAD_REQUEST, message).into_response();
            }
            let status = StatusCode::from_u16(*status).unwrap_or_default();
            return (status, [("idempotent-replayed", "true")], Json(answer.clone())).into_response();
        }
        let mut events = Vec::new();
        let answer = objects::handle(&mut data, &s.stripe.url, &method, &path, &params, &mut events);
        if let (Some(key), Ok(value)) = (key, &answer) {
            data.answers.insert(key, (fingerprint, 200, value.clone()));
        }
        (answer, events)
    };
    webhooks::emit(&s, events);
    match answer {
        Ok(value) => Json(value).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// Everything, for tests and the curious.
pub(crate) async fn state(State(s): State<Arc<Shared>>) -> Json<Value> {
    Json(json!(lock(&s.stripe.data).objects))
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
