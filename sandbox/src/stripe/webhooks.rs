//! Events, signed and delivered with retries; repeated, delayed or re-ordered on demand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use super::problem::Events;
use super::{Data, invoice_lines, thin_events};
use crate::{Shared, lock};

/// Deliveries of one event, at most.
const TRIES: u32 = 12;

/// How events are delivered.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Behaviour {
    /// Where to; unchanged when absent.
    url: Option<String>,
    /// Deliver each event this many times more.
    repeat: u32,
    /// Deliver the newest event of a call first.
    reverse: bool,
    /// Wait before the first delivery, in milliseconds.
    delay_ms: u64,
    /// Deliver nothing at all.
    lose: bool,
    /// Where thin events go, signed with the sandbox's secret; unchanged when absent.
    thin_url: Option<String>,
    /// List the events only after so many milliseconds, as Stripe lists them some seconds late and out of order.
    list_after_ms: i64,
}

#[derive(Debug)]
pub struct Delivery {
    behaviour: Mutex<Behaviour>,
    client: reqwest::Client,
}

impl Delivery {
    pub fn new(url: Option<String>) -> Self {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap_or_default();
        Self { behaviour: Mutex::new(Behaviour { url, ..Behaviour::default() }), client }
    }

    pub fn set_url(&self, url: &str) {
        lock(&self.behaviour).url = Some(url.to_owned());
    }
}

/// Sets how events are delivered from now on.
pub async fn configure(State(s): State<Arc<Shared>>, Json(mut new): Json<Behaviour>) -> StatusCode {
    let mut behaviour = lock(&s.stripe.delivery.behaviour);
    new.url = new.url.or(behaviour.url.take());
    new.thin_url = new.thin_url.or(behaviour.thin_url.take());
    *behaviour = new;
    StatusCode::NO_CONTENT
}

/// Keeps the events and sends them off.
pub fn emit(shared: &Arc<Shared>, events: Events) {
    emit_in(shared, &shared.stripe.data, events);
}

/// Keeps the events of an account. Only the sandbox's own account has endpoints.
pub fn emit_in(shared: &Arc<Shared>, account: &Arc<Mutex<Data>>, events: Events) {
    let behaviour = lock(&shared.stripe.delivery.behaviour).clone();
    let mut bodies = Vec::new();
    for (type_, mut object) in events {
        invoice_lines::embed(&mut object);
        let mut data = lock(account);
        if thin_events::is_thin(type_) {
            bodies.push(thin_events::keep(&mut data, type_, &object));
            continue;
        }
        let event = json!({
            "id": data.next_id("evt"), "object": "event", "api_version": "2026-09-30.endive", "created": data.now(),
            "type": type_, "livemode": false, "pending_webhooks": 1, "request": null, "data": {"object": object},
            "_sandbox": {"listed_at_ms": jiff::Timestamp::now().as_millisecond() + behaviour.list_after_ms},
        });
        data.insert("event", event.clone());
        bodies.push(event);
    }
    if behaviour.reverse {
        bodies.reverse();
    }
    if behaviour.lose || bodies.is_empty() || !Arc::ptr_eq(account, &shared.stripe.data) {
        return;
    }
    for endpoint in endpoints(shared, &behaviour) {
        let (shared, bodies) = (shared.clone(), bodies.clone());
        let (delay, deliveries) = (Duration::from_millis(behaviour.delay_ms), 0..=behaviour.repeat);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            for body in bodies.iter().filter(|event| endpoint.wants(event)) {
                for _ in deliveries.clone() {
                    deliver(&shared, &endpoint, body).await;
                }
            }
        });
    }
}

/// Where events go.
struct Endpoint {
    url: String,
    secret: String,
    /// The types of events, or `*`.
    enabled: Vec<String>,
    /// Whether it gets thin events, or the other ones.
    thin: bool,
}

impl Endpoint {
    fn wants(&self, event: &Value) -> bool {
        (event["object"] == thin_events::EVENT) == self.thin
            && self.enabled.iter().any(|type_| type_ == "*" || event["type"] == type_.as_str())
    }
}

/// The endpoints of the sandbox's settings, and those that were registered by the API.
fn endpoints(shared: &Shared, behaviour: &Behaviour) -> Vec<Endpoint> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let set = [(&behaviour.url, false), (&behaviour.thin_url, true)].into_iter().filter_map(|(url, thin)| {
        let (url, secret) = (url.clone()?, shared.stripe.webhook_secret.clone());
        Some(Endpoint { url, secret, enabled: vec!["*".into()], thin })
    });
    let data = lock(&shared.stripe.data);
    let registered = |kind, thin| {
        data.list(kind).iter().map(move |e| Endpoint {
            url: text(if thin { &e["webhook_endpoint"]["url"] } else { &e["url"] }),
            secret: text(&e["_sandbox"]["secret"]),
            enabled: e["enabled_events"].as_array().into_iter().flatten().map(text).collect(),
            thin,
        })
    };
    set.chain(registered("webhook_endpoint", false)).chain(registered(thin_events::DESTINATION, true)).collect()
}

async fn deliver(shared: &Shared, endpoint: &Endpoint, event: &Value) {
    let body = event.to_string();
    for attempt in 0..TRIES {
        // Signed with the real time: the receiver compares it with its own.
        let signature = sign(&endpoint.secret, jiff::Timestamp::now().as_second(), &body);
        let request = shared.stripe.delivery.client.post(&endpoint.url).header("content-type", "application/json");
        let sent = request.header("stripe-signature", signature).body(body.clone()).send().await;
        if sent.is_ok_and(|r| r.status().is_success()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100 << attempt.min(6))).await;
    }
    tracing::warn!(event = %event["id"], "webhook not taken");
}

/// Stripe's scheme v1: HMAC-SHA256 of `timestamp.body`.
pub fn sign(secret: &str, timestamp: i64, body: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(format!("{timestamp}.{body}").as_bytes());
    format!("t={timestamp},v1={}", hex::encode(mac.finalize().into_bytes()))
}
