//! Subscriptions, their invoices and payments.

use serde_json::{Value, json};

use super::fields::{self, metadata};
use super::periods::{DAY, PERIOD};
use super::problem::{Events, Problem};
use super::{Data, catalog, invoices, proration};

/// What a test card does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Card {
    /// Pays, now and later.
    Good,
    /// Can be attached, and is declined when it is charged.
    DeclinedLater,
    /// Pays while the customer is there, and asks for authentication on each charge without them.
    Asks,
}

fn attach(data: &mut Data, customer: &str, card: Card) -> Value {
    let method = json!({
        "id": data.next_id("pm"), "object": "payment_method", "type": "card", "customer": customer,
        "card": {"brand": "visa", "last4": match card { Card::Good => "4242", Card::DeclinedLater => "0341", Card::Asks => "3184" }},
        "_sandbox": {"declined": card == Card::DeclinedLater, "asks": card == Card::Asks},
    });
    data.insert("payment_method", method.clone());
    method
}

/// The customer enters a good card in the portal, and open invoices are collected at once.
pub fn new_card(data: &mut Data, id: &str, events: &mut Events) -> Result<Value, Problem> {
    let customer = data.find("subscription", id)?["customer"].as_str().unwrap_or_default().to_owned();
    let method = attach(data, &customer, Card::Good);
    data.find("subscription", id)?["default_payment_method"] = method["id"].clone();
    let of = |invoice: &&Value| invoice["parent"]["subscription_details"]["subscription"] == id;
    let open: Vec<Value> =
        data.list("invoice").iter().filter(of).filter(|invoice| invoice["status"] == "open").cloned().collect();
    for mut invoice in open {
        invoices::settle(data, &mut invoice, events);
        if let Ok(kept) = data.find("invoice", invoice["id"].as_str().unwrap_or_default()) {
            kept.clone_from(&invoice);
        }
    }
    let subscription = data.find("subscription", id)?;
    if matches!(subscription["status"].as_str(), Some("past_due" | "unpaid")) {
        subscription["status"] = json!("active");
    }
    events.push(("customer.subscription.updated", subscription.clone()));
    Ok(subscription.clone())
}

/// What a completed Checkout session makes: payment method, subscription, first invoice.
pub fn create(data: &mut Data, customer: &str, card: Card, terms: &Value, events: &mut Events) -> Value {
    let method = attach(data, customer, card);
    let trial = terms["trial_days"].as_i64().unwrap_or(0);
    let price = catalog::price(data, terms["price"].as_str().unwrap_or_default()).unwrap_or_default();
    let start = data.now_of(&json!(customer));
    let end = start + if trial > 0 { trial * DAY } else { PERIOD };
    let subscription = json!({
        "id": data.next_id("sub"), "object": "subscription", "created": start, "livemode": false,
        "customer": customer, "status": if trial > 0 { "trialing" } else { "active" },
        "default_payment_method": method["id"], "pause_collection": null, "cancel_at_period_end": false, "cancel_at": null, "pending_update": null, "latest_invoice": null,
        "trial_start": (trial > 0).then_some(start), "trial_end": (trial > 0).then_some(end),
        "metadata": terms["subscription_metadata"], "currency": price["currency"],
        "items": {"object": "list", "data": [{
            "id": data.next_id("si"), "object": "subscription_item", "price": price,
            "quantity": 1, "current_period_start": start, "current_period_end": end,
        }]},
    });
    data.insert("subscription", subscription.clone());
    // The customer is there, and has answered their bank.
    invoices::answer(data, &method["id"], true);
    invoices::period(data, &subscription, trial > 0, start, events);
    invoices::answer(data, &method["id"], false);
    subscription
}

/// A subscription without Checkout. Without a payment method it must begin with a trial here.
pub fn subscribe(data: &mut Data, p: &Value, events: &mut Events) -> Result<Value, Problem> {
    let customer =
        p["customer"].as_str().ok_or_else(|| Problem::invalid("Missing required param: customer."))?.to_owned();
    data.find("customer", &customer)?;
    let price = p["items"]["0"]["price"].as_str().unwrap_or_default();
    if catalog::price(data, price).is_none() {
        return Err(Problem::bad(format!("No such price: '{price}'")));
    }
    let trial = p["trial_period_days"].as_str().and_then(|d| d.parse::<i64>().ok()).filter(|days| *days > 0);
    let trial =
        trial.ok_or_else(|| Problem::bad("This customer has no attached payment source or default payment method."))?;
    let terms = json!({"price": price, "trial_days": trial, "subscription_metadata": metadata(p)});
    Ok(create(data, &customer, Card::Good, &terms, events))
}

/// Begins the periods whose time has come, one after the other, as Stripe does when a test clock moves.
pub fn renew_due(data: &mut Data, events: &mut Events) {
    let ends = |s: &Value| s["items"]["data"][0]["current_period_end"].as_i64().unwrap_or(i64::MAX);
    let living = |s: &Value| matches!(s["status"].as_str(), Some("trialing" | "active"));
    loop {
        let due = data.list("subscription").iter().filter(|s| living(s));
        let next = due.filter(|s| ends(s) <= data.now_of(&s["customer"])).min_by_key(|s| ends(s)).cloned();
        let Some(subscription) = next else { return };
        renew(data, subscription, events);
    }
}

fn renew(data: &mut Data, mut subscription: Value, events: &mut Events) {
    let start = subscription["items"]["data"][0]["current_period_end"].as_i64().unwrap_or(0);
    let ended = subscription["cancel_at"].as_i64().is_some_and(|at| at <= start);
    if ended {
        subscription["status"] = json!("canceled");
        subscription["canceled_at"] = json!(start);
    } else {
        let settled = invoices::renewal(data, &subscription, start, events);
        subscription["status"] = json!(if settled { "active" } else { "past_due" });
        let item = &mut subscription["items"]["data"][0];
        item["current_period_start"] = json!(start);
        item["current_period_end"] = json!(start + PERIOD);
    }
    let id = subscription["id"].as_str().unwrap_or_default().to_owned();
    if let Ok(kept) = data.find("subscription", &id) {
        kept.clone_from(&subscription);
    }
    let event = if ended { "customer.subscription.deleted" } else { "customer.subscription.updated" };
    events.push((event, subscription));
}

pub fn update(data: &mut Data, id: &str, p: &Value, events: &mut Events) -> Result<Value, Problem> {
    if data.find("subscription", id)?["status"] == "canceled" {
        return Err(Problem::bad("A canceled subscription can only update its cancellation_details and metadata."));
    }
    if p["items"].is_object() {
        proration::change_price(data, id, p, events)?;
    }
    fields::update(data, "subscription", id, p, &["default_payment_method"])?;
    if p["billing_cycle_anchor"] == "now" {
        begin_period(data, id, p, events)?;
    }
    let subscription = data.find("subscription", id)?;
    match p.get("pause_collection") {
        Some(Value::Object(pause)) => subscription["pause_collection"] = json!(pause),
        Some(_) => subscription["pause_collection"] = Value::Null,
        None => {}
    }
    cancellation(subscription, p)?;
    events.push(("customer.subscription.updated", subscription.clone()));
    Ok(subscription.clone())
}

/// When it ends. A subscription that ends with its period says when that is in `cancel_at` as well; one that is cancelled by
/// `cancel_at` does not say the other: <https://docs.stripe.com/api/subscriptions/object#subscription_object-cancel_at>
fn cancellation(subscription: &mut Value, p: &Value) -> Result<(), Problem> {
    let end = subscription["items"]["data"][0]["current_period_end"].clone();
    match (p["cancel_at_period_end"].as_str(), p["cancel_at"].as_str()) {
        (Some(_), Some(_)) => {
            return Err(Problem::bad("You may only specify one of these parameters: cancel_at, cancel_at_period_end."));
        }
        (Some(with_period), None) => {
            let ends = with_period == "true";
            subscription["cancel_at_period_end"] = json!(ends);
            subscription["cancel_at"] = if ends { end } else { Value::Null };
        }
        (None, Some(at)) => {
            let at = match at {
                "" => Value::Null,
                "min_period_end" => end,
                at => json!(at.parse::<i64>().map_err(|_| Problem::bad("Invalid integer: cancel_at"))?),
            };
            subscription["cancel_at_period_end"] = json!(false);
            subscription["cancel_at"] = at;
        }
        (None, None) => {}
    }
    Ok(())
}

/// Begins a period now and charges it at once, even if the one before has not ended.
fn begin_period(data: &mut Data, id: &str, p: &Value, events: &mut Events) -> Result<(), Problem> {
    let kept = data.find("subscription", id)?;
    let mut subscription = kept.clone();
    subscription["pause_collection"] = Value::Null;
    let price = subscription["items"]["data"][0]["price"]["unit_amount"].clone();
    let lines = [json!({"object": "line_item", "amount": price, "proration": false})];
    if p["payment_behavior"] == "error_if_incomplete" && !invoices::can_pay(data, &subscription, &lines) {
        return Err(proration::declined());
    }
    let start = data.now_of(&subscription["customer"]);
    let settled = invoices::period(data, &subscription, false, start, events);
    let kept = data.find("subscription", id)?;
    kept["status"] = json!(if settled { "active" } else { "past_due" });
    kept["trial_end"] = Value::Null;
    let item = &mut kept["items"]["data"][0];
    item["current_period_start"] = json!(start);
    item["current_period_end"] = json!(start + PERIOD);
    Ok(())
}

pub fn cancel(data: &mut Data, id: &str, events: &mut Events) -> Result<Value, Problem> {
    let customer = data.find("subscription", id)?["customer"].clone();
    let now = data.now_of(&customer);
    let subscription = data.find("subscription", id)?;
    if subscription["status"] == "canceled" {
        return Err(Problem::missing("subscription", id));
    }
    subscription["status"] = json!("canceled");
    subscription["canceled_at"] = json!(now);
    events.push(("customer.subscription.deleted", subscription.clone()));
    Ok(subscription.clone())
}
