//! Checkout sessions: opened by the API, paid on the page, expired by request or by time.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::customers::customer;
use super::fields::{metadata, text};
use super::prices::is_metered;
use super::problem::{Events, Problem};
use super::subscriptions::{Card, Terms};
use super::{Data, catalog, items, subscriptions};

/// Opens a session.
pub fn create(data: &mut Data, url: &str, p: &Value) -> Result<Value, Problem> {
    if p["mode"] != "subscription" {
        return Err(Problem::bad("the sandbox has Checkout in mode=subscription only"));
    }
    let items = line_items(data, &p["line_items"])?;
    let noted: Vec<Value> =
        items.iter().map(|(price, quantity)| json!({"price": price["id"], "quantity": quantity})).collect();
    let month =
        |(price, quantity): &(Value, Option<i64>)| items::monthly(&json!({"price": price, "quantity": quantity}));
    let (amount, currency) = (items.iter().map(month).sum::<i64>(), &items[0].0["currency"]);
    let billing_mode = subscriptions::billing_mode(data, &p["subscription_data"]["billing_mode"])?;
    if let Some(customer) = p["customer"].as_str() {
        data.find("customer", customer)?;
    }
    let trial: i64 = p["subscription_data"]["trial_period_days"].as_str().and_then(|d| d.parse().ok()).unwrap_or(0);
    let id = data.next_id("cs_test");
    let now = data.now_of(&p["customer"]);
    let session = json!({
        "id": id, "object": "checkout.session", "created": now, "livemode": false, "mode": "subscription",
        "status": "open", "payment_status": "unpaid", "url": format!("{url}/c/pay/{id}"),
        "customer": text(p, "customer"), "customer_email": text(p, "customer_email"),
        "client_reference_id": text(p, "client_reference_id"), "subscription": null,
        "expires_at": now + 24 * 3600, "metadata": metadata(p),
        "payment_method_collection": p["payment_method_collection"].as_str().unwrap_or("always"),
        "allow_promotion_codes": p["allow_promotion_codes"].as_str().map(|asked| asked == "true"),
        "success_url": text(p, "success_url"), "cancel_url": text(p, "cancel_url"),
        "amount_total": if trial > 0 { 0 } else { amount }, "currency": currency,
        "_sandbox": {
            "items": noted, "trial_days": trial, "billing_mode": billing_mode,
            "subscription_metadata": metadata(&p["subscription_data"]),
        },
    });
    data.insert("checkout.session", session.clone());
    Ok(session)
}

/// What is sold, at one price at least. A quantity belongs to each price that is not metered, and to no other one; the
/// words are those that Stripe's users see (stripe/stripe-java#1584, better-auth/better-auth#8920).
fn line_items(data: &Data, p: &Value) -> Result<Vec<(Value, Option<i64>)>, Problem> {
    for (i, given) in p.as_object().into_iter().flatten() {
        let name = given["price"].as_str().unwrap_or_default();
        let price = catalog::price(data, name)
            .ok_or_else(|| Problem { status: StatusCode::BAD_REQUEST, ..Problem::missing("price", name) })?;
        match (is_metered(&price), given["quantity"].is_null()) {
            (true, false) => {
                return Err(Problem::bad(format!(
                    "Quantity should not be specified where usage_type is `metered`. Remove quantity from `line_items[{i}]`"
                )));
            }
            (false, true) => {
                return Err(Problem::bad(format!("Quantity is required. Add `quantity` to `line_items[{i}]`")));
            }
            _ => {}
        }
    }
    if p.is_null() {
        return Err(Problem { status: StatusCode::BAD_REQUEST, ..Problem::missing("price", "") });
    }
    items::wanted(data, p)
}

/// Expires an open session.
pub fn expire(data: &mut Data, id: &str, events: &mut Events) -> Result<Value, Problem> {
    let session = data.find("checkout.session", id)?;
    if session["status"] != "open" {
        return Err(Problem::bad("Only Checkout Sessions with a status in [\"open\"] can be expired."));
    }
    session["status"] = json!("expired");
    session["url"] = Value::Null;
    events.push(("checkout.session.expired", session.clone()));
    Ok(session.clone())
}

/// Expires the sessions whose time is over.
pub fn expire_old(data: &mut Data, events: &mut Events) {
    let open = data.list("checkout.session").iter().filter(|s| s["status"] == "open");
    let old: Vec<String> = open
        .filter(|s| s["expires_at"].as_i64().is_some_and(|at| at <= data.now_of(&s["customer"])))
        .filter_map(|s| s["id"].as_str().map(str::to_owned))
        .collect();
    for id in old {
        // It is open, so it can be expired.
        drop(expire(data, &id, events));
    }
}

/// The customer paid on the page: payment method, subscription, invoice, and the session complete.
pub fn complete(data: &mut Data, id: &str, card: Card, events: &mut Events) -> Result<Value, Problem> {
    let session = data.find("checkout.session", id)?.clone();
    if session["status"] != "open" {
        return Err(Problem::bad("This Checkout Session is no longer open."));
    }
    let customer = if let Some(id) = session["customer"].as_str() {
        id.to_owned()
    } else {
        let made = customer(data, &json!({"email": session["customer_email"]}));
        made["id"].as_str().unwrap_or_default().to_owned()
    };
    let terms = Terms::noted(data, &session["_sandbox"]);
    let subscription = subscriptions::create(data, &customer, card, terms, events);
    let trialing = subscription["status"] == "trialing";
    let session = data.find("checkout.session", id)?;
    session["status"] = json!("complete");
    session["payment_status"] = json!(if trialing { "no_payment_required" } else { "paid" });
    session["customer"] = json!(customer);
    session["subscription"] = subscription["id"].clone();
    session["url"] = Value::Null;
    events.push(("customer.subscription.created", subscription));
    events.push(("checkout.session.completed", session.clone()));
    Ok(session.clone())
}
