//! The API's objects: what each call makes, answers and refuses.

use axum::Json;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::{Data, catalog, clock, sessions, subscriptions};

/// An event to send once the lock is released: its type and its object.
pub type Events = Vec<(&'static str, Value)>;

/// A refusal in Stripe's shape.
#[derive(Debug)]
pub struct Problem {
    pub status: StatusCode,
    /// Stripe's `error.type`.
    pub type_: &'static str,
    pub code: Option<&'static str>,
    pub message: String,
}

impl Problem {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, type_: "invalid_request_error", code: None, message: message.into() }
    }

    pub fn missing(kind: &str, id: &str) -> Self {
        let message = format!("No such {kind}: '{id}'");
        Self { code: Some("resource_missing"), ..Self::new(StatusCode::NOT_FOUND, message) }
    }

    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let error = json!({"type": self.type_, "code": self.code, "message": self.message});
        (self.status, Json(json!({"error": error}))).into_response()
    }
}

/// Does one call.
pub fn handle(
    data: &mut Data,
    url: &str,
    method: &Method,
    path: &[&str],
    p: &Value,
    events: &mut Events,
) -> Result<Value, Problem> {
    match (method.as_str(), path) {
        ("POST", ["customers"]) => create_customer(data, p),
        ("POST", ["customers", id]) => update(data, "customer", id, p, &["email", "name"]),
        ("POST", ["checkout", "sessions"]) => sessions::create(data, url, p),
        ("POST", ["checkout", "sessions", id, "expire"]) => sessions::expire(data, id, events),
        ("POST", ["subscriptions", id]) => subscriptions::update(data, id, p, events),
        ("DELETE", ["subscriptions", id]) => subscriptions::cancel(data, id, events),
        ("DELETE", ["customers", id]) => delete_customer(data, id, events),
        ("POST", ["refunds"]) => subscriptions::refund(data, p, events),
        ("GET", ["account"]) => Ok(
            json!({"id": "acct_sandbox", "object": "account", "charges_enabled": true, "country": "US", "default_currency": "usd"}),
        ),
        ("POST", ["products"]) => catalog::create_product(data, p),
        ("POST", ["prices"]) => catalog::create_price(data, p),
        ("POST", ["webhook_endpoints"]) => catalog::create_endpoint(data, p),
        ("DELETE", ["webhook_endpoints", id]) => catalog::delete_endpoint(data, id),
        ("POST", ["test_helpers", "test_clocks"]) => clock::create(data, p),
        ("POST", ["test_helpers", "test_clocks", id, "advance"]) => clock::advance(data, id, p, events),
        ("GET", ["test_helpers", "test_clocks"]) => Ok(list(data, clock::KIND, path, p)),
        ("GET", ["test_helpers", "test_clocks", id]) => data.find(clock::KIND, id).cloned(),
        ("GET", ["checkout", "sessions"]) => Ok(list(data, "checkout.session", path, p)),
        ("GET", ["checkout", "sessions", id]) => data.find("checkout.session", id).cloned(),
        ("GET", [plural]) => kind(plural).map(|kind| list(data, kind, path, p)).ok_or_else(|| unknown(method, path)),
        ("GET", [plural, id]) => {
            let kind = kind(plural).ok_or_else(|| unknown(method, path))?;
            let object = data.find(kind, id)?;
            Ok(if object["deleted"] == true { deleted(id) } else { object.clone() })
        }
        _ => Err(unknown(method, path)),
    }
}

fn unknown(method: &Method, path: &[&str]) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("Unrecognized request URL ({method}: /v1/{}).", path.join("/")))
}

fn kind(plural: &str) -> Option<&'static str> {
    Some(match plural {
        "customers" => "customer",
        "subscriptions" => "subscription",
        "invoices" => "invoice",
        "invoice_payments" => "invoice_payment",
        "payment_intents" => "payment_intent",
        "payment_methods" => "payment_method",
        "refunds" => "refund",
        "events" => "event",
        "products" => "product",
        "prices" => "price",
        "webhook_endpoints" => "webhook_endpoint",
        _ => return None,
    })
}

/// A page of objects, newest first, that have every value that the query asks for.
fn list(data: &Data, kind: &str, path: &[&str], p: &Value) -> Value {
    let limit = p["limit"].as_str().and_then(|l| l.parse().ok()).unwrap_or(10usize);
    let wanted = |o: &&Value| {
        p.as_object().is_none_or(|p| {
            p.iter().all(|(key, value)| match (key.as_str(), value.as_str()) {
                ("limit" | "starting_after" | "expand", _) | ("status", Some("all")) => true,
                ("created", None) => value["gte"]
                    .as_str()
                    .and_then(|from| from.parse::<i64>().ok())
                    .is_none_or(|from| o["created"].as_i64().is_some_and(|at| at >= from)),
                ("types", None) => value.as_object().is_none_or(|types| types.values().any(|t| *t == o["type"])),
                ("subscription", Some(v)) => o["parent"]["subscription_details"]["subscription"] == v || o[key] == v,
                (_, Some(v)) => o[key] == v,
                _ => true,
            })
        })
    };
    let visible = |o: &&Value| {
        o["deleted"] != true && (kind != "subscription" || p.get("status").is_some() || o["status"] != "canceled")
    };
    let start = p["starting_after"].as_str();
    let mut all: Vec<_> = data.list(kind).iter().rev().filter(visible).filter(wanted).cloned().collect();
    if let Some(at) = start.and_then(|id| all.iter().position(|o| o["id"] == id)) {
        all.drain(..=at);
    }
    let more = all.len() > limit;
    all.truncate(limit);
    json!({"object": "list", "url": format!("/v1/{}", path.join("/")), "has_more": more, "data": all})
}

pub fn text(p: &Value, key: &str) -> Value {
    p.get(key).cloned().unwrap_or(Value::Null)
}

pub fn metadata(p: &Value) -> Value {
    p.get("metadata").filter(|m| m.is_object()).cloned().unwrap_or_else(|| json!({}))
}

/// All that Stripe still says of a customer that was deleted.
fn deleted(id: &str) -> Value {
    json!({"id": id, "object": "customer", "deleted": true})
}

/// Deletes a customer, and with it cancels its subscriptions at once.
fn delete_customer(data: &mut Data, id: &str, events: &mut Events) -> Result<Value, Problem> {
    data.find("customer", id)?["deleted"] = json!(true);
    let theirs = data.list("subscription").iter().filter(|s| s["customer"] == id && s["status"] != "canceled");
    let theirs: Vec<String> = theirs.filter_map(|s| s["id"].as_str().map(str::to_owned)).collect();
    for subscription in theirs {
        subscriptions::cancel(data, &subscription, events)?;
    }
    Ok(deleted(id))
}

fn create_customer(data: &mut Data, p: &Value) -> Result<Value, Problem> {
    if let Some(id) = p["test_clock"].as_str() {
        data.find(clock::KIND, id)?;
    }
    Ok(customer(data, p))
}

pub fn customer(data: &mut Data, p: &Value) -> Value {
    let id = data.next_id("cus");
    if let Some(clock) = p["test_clock"].as_str() {
        data.clocked.insert(id.clone(), clock.to_owned());
    }
    let customer = json!({
        "id": id, "object": "customer", "created": data.now_of(&json!(id)), "livemode": false,
        "email": text(p, "email"), "name": text(p, "name"), "metadata": metadata(p),
        "invoice_settings": {"default_payment_method": null}, "balance": 0, "currency": null,
        "test_clock": text(p, "test_clock"),
    });
    data.insert("customer", customer.clone());
    customer
}

pub fn update(data: &mut Data, kind: &str, id: &str, p: &Value, fields: &[&str]) -> Result<Value, Problem> {
    let object = data.find(kind, id)?;
    for field in fields {
        if let Some(value) = p.get(field) {
            object[*field] = value.clone();
        }
    }
    for (key, value) in p["metadata"].as_object().unwrap_or(&Map::new()) {
        object["metadata"][key] = value.clone();
    }
    Ok(object.clone())
}
