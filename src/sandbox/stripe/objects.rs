//! The API's objects: what each call makes, answers and refuses.

use axum::Json;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::Data;

/// An event to send once the lock is released: its type and its object.
pub type Events = Vec<(&'static str, Value)>;

/// A refusal in Stripe's shape.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: Option<&'static str>,
    message: String,
}

impl Problem {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, code: None, message: message.into() }
    }

    pub fn missing(kind: &str, id: &str) -> Self {
        let message = format!("No such {kind}: '{id}'");
        Self { status: StatusCode::NOT_FOUND, code: Some("resource_missing"), message }
    }

    fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let error = json!({"type": "invalid_request_error", "code": self.code, "message": self.message});
        (self.status, Json(json!({"error": error}))).into_response()
    }
}

pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
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
        ("POST", ["customers"]) => Ok(create_customer(data, p)),
        ("POST", ["customers", id]) => update(data, "customer", id, p, &["email", "name"]),
        ("POST", ["checkout", "sessions"]) => create_session(data, url, p),
        ("POST", ["checkout", "sessions", id, "expire"]) => expire_session(data, id, events),
        ("POST", ["subscriptions", id]) => update_subscription(data, id, p, events),
        ("DELETE", ["subscriptions", id]) => cancel_subscription(data, id, events),
        ("DELETE", ["customers", id]) => {
            data.find("customer", id)?["deleted"] = json!(true);
            Ok(json!({"id": id, "object": "customer", "deleted": true}))
        }
        ("POST", ["refunds"]) => create_refund(data, p, events),
        ("GET", ["account"]) => Ok(
            json!({"id": "acct_sandbox", "object": "account", "charges_enabled": true, "country": "US", "default_currency": "usd"}),
        ),
        ("GET", ["prices", id]) => match data.prices.get(*id) {
            Some((amount, currency)) => Ok(price(id, *amount, currency)),
            None => Err(Problem::missing("price", id)),
        },
        ("GET", ["checkout", "sessions"]) => Ok(list(data, "checkout.session", path, p)),
        ("GET", ["checkout", "sessions", id]) => data.find("checkout.session", id).cloned(),
        ("GET", [plural]) => kind(plural).map(|kind| list(data, kind, path, p)).ok_or_else(|| unknown(method, path)),
        ("GET", [plural, id]) => {
            let kind = kind(plural).ok_or_else(|| unknown(method, path))?;
            data.find(kind, id).cloned()
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

fn text(p: &Value, key: &str) -> Value {
    p.get(key).cloned().unwrap_or(Value::Null)
}

fn metadata(p: &Value) -> Value {
    p.get("metadata").filter(|m| m.is_object()).cloned().unwrap_or_else(|| json!({}))
}

fn create_customer(data: &mut Data, p: &Value) -> Value {
    let customer = json!({
        "id": data.next_id("cus"), "object": "customer", "created": now(), "livemode": false,
        "email": text(p, "email"), "name": text(p, "name"), "metadata": metadata(p),
        "invoice_settings": {"default_payment_method": null}, "balance": 0, "currency": null,
    });
    data.insert("customer", customer.clone());
    customer
}

fn update(data: &mut Data, kind: &str, id: &str, p: &Value, fields: &[&str]) -> Result<Value, Problem> {
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

fn create_session(data: &mut Data, url: &str, p: &Value) -> Result<Value, Problem> {
    if p["mode"] != "subscription" {
        return Err(Problem::bad("the sandbox has Checkout in mode=subscription only"));
    }
    let price_id = p["line_items"]["0"]["price"].as_str().unwrap_or_default().to_owned();
    let Some((amount, currency)) = data.prices.get(&price_id).cloned() else {
        return Err(Problem { status: StatusCode::BAD_REQUEST, ..Problem::missing("price", &price_id) });
    };
    if let Some(customer) = p["customer"].as_str() {
        data.find("customer", customer)?;
    }
    let trial: i64 = p["subscription_data"]["trial_period_days"].as_str().and_then(|d| d.parse().ok()).unwrap_or(0);
    let id = data.next_id("cs_test");
    let session = json!({
        "id": id, "object": "checkout.session", "created": now(), "livemode": false, "mode": "subscription",
        "status": "open", "payment_status": "unpaid", "url": format!("{url}/c/pay/{id}"),
        "customer": text(p, "customer"), "customer_email": text(p, "customer_email"),
        "client_reference_id": text(p, "client_reference_id"), "subscription": null,
        "expires_at": now() + 24 * 3600, "metadata": metadata(p),
        "payment_method_collection": p["payment_method_collection"].as_str().unwrap_or("always"),
        "success_url": text(p, "success_url"), "cancel_url": text(p, "cancel_url"),
        "amount_total": if trial > 0 { 0 } else { amount }, "currency": currency,
        "_sandbox": {"price": price_id, "trial_days": trial, "subscription_metadata": metadata(&p["subscription_data"])},
    });
    data.insert("checkout.session", session.clone());
    Ok(session)
}

fn expire_session(data: &mut Data, id: &str, events: &mut Events) -> Result<Value, Problem> {
    let session = data.find("checkout.session", id)?;
    if session["status"] != "open" {
        return Err(Problem::bad("Only Checkout Sessions with a status in [\"open\"] can be expired."));
    }
    session["status"] = json!("expired");
    session["url"] = Value::Null;
    events.push(("checkout.session.expired", session.clone()));
    Ok(session.clone())
}

fn price(id: &str, amount: i64, currency: &str) -> Value {
    json!({
        "id": id, "object": "price", "active": true, "currency": currency, "unit_amount": amount, "type": "recurring",
        "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"}, "product": "prod_sandbox",
        "livemode": false, "metadata": {},
    })
}

/// The customer paid on the page: payment method, subscription, invoice, and the session complete.
pub fn complete_session(data: &mut Data, id: &str, events: &mut Events) -> Result<Value, Problem> {
    let session = data.find("checkout.session", id)?.clone();
    if session["status"] != "open" {
        return Err(Problem::bad("This Checkout Session is no longer open."));
    }
    let customer = if let Some(id) = session["customer"].as_str() {
        id.to_owned()
    } else {
        let made = create_customer(data, &json!({"email": session["customer_email"]}));
        made["id"].as_str().unwrap_or_default().to_owned()
    };
    let method = json!({"id": data.next_id("pm"), "object": "payment_method", "type": "card", "customer": customer, "card": {"brand": "visa", "last4": "4242"}});
    data.insert("payment_method", method.clone());
    let trial = session["_sandbox"]["trial_days"].as_i64().unwrap_or(0);
    let price_id = session["_sandbox"]["price"].as_str().unwrap_or_default().to_owned();
    let (amount, currency) = data.prices.get(&price_id).cloned().unwrap_or_default();
    let (start, end) = (now(), now() + if trial > 0 { trial } else { 30 } * 24 * 3600);
    let subscription = json!({
        "id": data.next_id("sub"), "object": "subscription", "created": start, "livemode": false,
        "customer": customer, "status": if trial > 0 { "trialing" } else { "active" },
        "default_payment_method": method["id"], "pause_collection": null, "cancel_at_period_end": false,
        "trial_start": (trial > 0).then_some(start), "trial_end": (trial > 0).then_some(end),
        "metadata": session["_sandbox"]["subscription_metadata"], "currency": currency,
        "items": {"object": "list", "data": [{
            "id": data.next_id("si"), "object": "subscription_item", "price": price(&price_id, amount, &currency),
            "quantity": 1, "current_period_start": start, "current_period_end": end,
        }]},
    });
    data.insert("subscription", subscription.clone());
    invoice(data, &subscription, if trial > 0 { 0 } else { amount }, &currency, events);
    let session = data.find("checkout.session", id)?;
    session["status"] = json!("complete");
    session["payment_status"] = json!(if trial > 0 { "no_payment_required" } else { "paid" });
    session["customer"] = json!(customer);
    session["subscription"] = subscription["id"].clone();
    session["url"] = Value::Null;
    events.push(("customer.subscription.created", subscription));
    events.push(("checkout.session.completed", session.clone()));
    Ok(session.clone())
}

fn invoice(data: &mut Data, subscription: &Value, amount: i64, currency: &str, events: &mut Events) {
    let invoice = json!({
        "id": data.next_id("in"), "object": "invoice", "created": now(), "livemode": false, "status": "paid",
        "customer": subscription["customer"], "amount_due": amount, "amount_paid": amount, "currency": currency,
        "parent": {"type": "subscription_details", "subscription_details": {"subscription": subscription["id"], "metadata": subscription["metadata"]}},
    });
    if amount > 0 {
        let intent = json!({
            "id": data.next_id("pi"), "object": "payment_intent", "created": now(), "status": "succeeded",
            "amount": amount, "currency": currency, "customer": subscription["customer"],
        });
        let payment = json!({
            "id": data.next_id("inpay"), "object": "invoice_payment", "created": now(), "invoice": invoice["id"],
            "status": "paid", "amount_paid": amount, "currency": currency,
            "payment": {"type": "payment_intent", "payment_intent": intent["id"]},
        });
        data.insert("payment_intent", intent);
        data.insert("invoice_payment", payment);
    }
    data.insert("invoice", invoice.clone());
    events.push(("invoice.paid", invoice));
}

fn update_subscription(data: &mut Data, id: &str, p: &Value, events: &mut Events) -> Result<Value, Problem> {
    if data.find("subscription", id)?["status"] == "canceled" {
        return Err(Problem::bad("A canceled subscription can only update its cancellation_details and metadata."));
    }
    update(data, "subscription", id, p, &["default_payment_method"])?;
    let subscription = data.find("subscription", id)?;
    match p.get("pause_collection") {
        Some(Value::Object(pause)) => subscription["pause_collection"] = json!(pause),
        Some(_) => subscription["pause_collection"] = Value::Null,
        None => {}
    }
    events.push(("customer.subscription.updated", subscription.clone()));
    Ok(subscription.clone())
}

fn cancel_subscription(data: &mut Data, id: &str, events: &mut Events) -> Result<Value, Problem> {
    let subscription = data.find("subscription", id)?;
    if subscription["status"] == "canceled" {
        return Err(Problem::missing("subscription", id));
    }
    subscription["status"] = json!("canceled");
    subscription["canceled_at"] = json!(now());
    events.push(("customer.subscription.deleted", subscription.clone()));
    Ok(subscription.clone())
}

fn create_refund(data: &mut Data, p: &Value, events: &mut Events) -> Result<Value, Problem> {
    let intent_id = p["payment_intent"].as_str().unwrap_or_default().to_owned();
    let intent = data.find("payment_intent", &intent_id)?.clone();
    if data.list("refund").iter().any(|r| r["payment_intent"] == intent_id.as_str()) {
        return Err(Problem {
            code: Some("charge_already_refunded"),
            ..Problem::bad("Charge has already been refunded.")
        });
    }
    let refund = json!({
        "id": data.next_id("re"), "object": "refund", "created": now(), "amount": intent["amount"],
        "currency": intent["currency"], "payment_intent": intent_id, "status": "succeeded", "metadata": metadata(p),
    });
    data.insert("refund", refund.clone());
    events.push(("refund.created", refund.clone()));
    Ok(refund)
}
