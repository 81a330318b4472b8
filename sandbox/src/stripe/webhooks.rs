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

use super::Data;
use super::problem::Events;
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
    for (type_, object) in events {
        let mut data = lock(account);
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
    for endpoint in endpoints(shared, behaviour.url.as_deref()) {
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
}

impl Endpoint {
    fn wants(&self, event: &Value) -> bool {
        self.enabled.iter().any(|type_| type_ == "*" || event["type"] == type_.as_str())
    }
}

/// The endpoint of the sandbox's settings, and those that were registered by the API.
fn endpoints(shared: &Shared, url: Option<&str>) -> Vec<Endpoint> {
    let set = url.map(|url| Endpoint {
        url: url.into(),
        secret: shared.stripe.webhook_secret.clone(),
        enabled: vec!["*".into()],
    });
    let data = lock(&shared.stripe.data);
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let registered = data.list("webhook_endpoint").iter().map(|e| Endpoint {
        url: text(&e["url"]),
        secret: text(&e["_sandbox"]["secret"]),
        enabled: e["enabled_events"].as_array().into_iter().flatten().map(text).collect(),
    });
    set.into_iter().chain(registered).collect()
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
