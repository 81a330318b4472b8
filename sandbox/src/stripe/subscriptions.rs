//! Subscriptions, their invoices and payments.

use serde_json::{Map, Value, json};

use super::fields::{self, metadata};
use super::periods::{DAY, end, end_of};
use super::prices::is_metered;
use super::problem::{Events, Problem};
use super::usage::Seen;
use super::{Data, catalog, invoice_lines, invoices, items, proration};

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

/// What a subscription is sold for: its prices with their quantities, and how it is billed.
#[derive(Clone, Debug)]
pub struct Terms {
    pub items: Vec<(Value, Option<i64>)>,
    pub trial_days: i64,
    /// `classic` or `flexible`.
    pub billing_mode: String,
    pub metadata: Value,
}

impl Terms {
    /// Reads what a Checkout session noted.
    pub fn noted(data: &Data, noted: &Value) -> Self {
        let first = json!([{"price": noted["price"]}]);
        let all = noted["items"].as_array().or(first.as_array()).into_iter().flatten();
        let price = |item: &Value| catalog::price(data, item["price"].as_str().unwrap_or_default());
        Self {
            items: all.map(|item| (price(item).unwrap_or_default(), item["quantity"].as_i64())).collect(),
            trial_days: noted["trial_days"].as_i64().unwrap_or(0),
            billing_mode: noted["billing_mode"].as_str().unwrap_or("flexible").to_owned(),
            metadata: noted["subscription_metadata"].clone(),
        }
    }
}

/// The billing mode that a request asks for, or else the one of its API version
/// (<https://docs.stripe.com/changelog/clover/2025-09-30/billing-mode-default-flexible>).
pub fn billing_mode(data: &Data, asked: &Value) -> Result<String, Problem> {
    match asked["type"].as_str() {
        None => Ok(if data.request.is_before("2025-09-30") { "classic" } else { "flexible" }.to_owned()),
        Some(mode @ ("classic" | "flexible")) => Ok(mode.to_owned()),
        Some(other) => Err(Problem::invalid(format!("Invalid billing_mode[type]: {other}"))),
    }
}

/// What a completed Checkout session makes: payment method, subscription, first invoice.
pub fn create(data: &mut Data, customer: &str, card: Card, terms: Terms, events: &mut Events) -> Value {
    let method = attach(data, customer, card);
    let trial = terms.trial_days;
    let start = data.now_of(&json!(customer));
    // The first whole month begins with the end of the trial.
    let anchor = start + trial * DAY;
    let end = if trial > 0 { anchor } else { end(anchor, start) };
    let id = data.next_id("sub");
    let currency = terms.items.first().map_or(Value::Null, |(price, _)| price["currency"].clone());
    let item = |(price, quantity)| items::item(data, &id, price, quantity, (start, end));
    let items: Vec<Value> = terms.items.into_iter().map(item).collect();
    let subscription = json!({
        "id": id, "object": "subscription", "created": start, "livemode": false,
        "customer": customer, "status": if trial > 0 { "trialing" } else { "active" },
        "default_payment_method": method["id"], "pause_collection": null, "cancel_at_period_end": false, "cancel_at": null, "pending_update": null, "latest_invoice": null,
        "trial_start": (trial > 0).then_some(start), "trial_end": (trial > 0).then_some(end),
        "billing_cycle_anchor": anchor, "metadata": terms.metadata, "currency": currency, "billing_mode": {"type": terms.billing_mode},
        "items": {"object": "list", "data": items},
    });
    data.insert("subscription", subscription.clone());
    // The customer is there, and has answered their bank.
    invoices::answer(data, &method["id"], true);
    invoices::period(data, (&subscription, &subscription), trial > 0, start, events);
    invoices::answer(data, &method["id"], false);
    data.find("subscription", &id).map_or(subscription, |kept| kept.clone())
}

/// A subscription without Checkout. Without a payment method it must begin with a trial here, or bill usage alone.
pub fn subscribe(data: &mut Data, p: &Value, events: &mut Events) -> Result<Value, Problem> {
    let customer =
        p["customer"].as_str().ok_or_else(|| Problem::invalid("Missing required param: customer."))?.to_owned();
    data.find("customer", &customer)?;
    let items = items::wanted(data, &p["items"])?;
    let trial = p["trial_period_days"].as_str().and_then(|d| d.parse::<i64>().ok()).filter(|days| *days > 0);
    let usage_alone = items.iter().all(|(price, _)| is_metered(price));
    if trial.is_none() && !usage_alone {
        return Err(Problem::bad("This customer has no attached payment source or default payment method."));
    }
    let billing_mode = billing_mode(data, &p["billing_mode"])?;
    let terms = Terms { items, trial_days: trial.unwrap_or(0), billing_mode, metadata: metadata(p) };
    Ok(create(data, &customer, Card::Good, terms, events))
}

/// Moves a subscription to the flexible billing mode, from which there is no way back
/// (<https://docs.stripe.com/api/subscriptions/migrate>).
pub fn migrate(data: &mut Data, id: &str, p: &Value, events: &mut Events) -> Result<Value, Problem> {
    let subscription = data.find("subscription", id)?;
    if p["billing_mode"]["type"] != "flexible" {
        return Err(Problem::invalid("Invalid billing_mode[type]: must be flexible"));
    }
    if subscription["billing_mode"]["type"] == "flexible" {
        return Err(Problem::bad("This subscription is already in the flexible billing mode."));
    }
    subscription["billing_mode"]["type"] = json!("flexible");
    events.push(("customer.subscription.updated", subscription.clone()));
    Ok(subscription.clone())
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
        invoices::last(data, &subscription, start, events);
        subscription["latest_invoice"] = data
            .find("subscription", subscription["id"].as_str().unwrap_or_default())
            .map_or(Value::Null, |kept| kept["latest_invoice"].clone());
        subscription["status"] = json!("canceled");
        subscription["canceled_at"] = json!(start);
    } else {
        let settled = invoices::renewal(data, &subscription, start, events);
        subscription["status"] = json!(if settled { "active" } else { "past_due" });
        let end = end_of(&subscription, false, start);
        items::begin_period(&mut subscription, (start, end));
    }
    let id = subscription["id"].as_str().unwrap_or_default().to_owned();
    if let Ok(kept) = data.find("subscription", &id) {
        kept.clone_from(&subscription);
    }
    let event = if ended { "customer.subscription.deleted" } else { "customer.subscription.updated" };
    events.push((event, subscription));
}

pub fn update(data: &mut Data, id: &str, p: &Value, events: &mut Events) -> Result<Value, Problem> {
    let before = data.find("subscription", id)?.clone();
    if before["status"] == "canceled" {
        let noted =
            |p: &Map<String, Value>| p.keys().all(|field| matches!(&**field, "metadata" | "cancellation_details"));
        if p.as_object().is_some_and(noted) {
            let subscription = fields::update(data, "subscription", id, p, &["cancellation_details"])?;
            events.push(("customer.subscription.updated", subscription.clone()));
            return Ok(subscription);
        }
        return Err(Problem::bad("A canceled subscription can only update its cancellation_details and metadata."));
    }
    if p["items"].is_object() {
        proration::change_items(data, id, p, events)?;
    }
    fields::update(data, "subscription", id, p, &["default_payment_method"])?;
    if p["billing_cycle_anchor"] == "now" {
        begin_period(data, &before, p, events)?;
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

/// When it ends. A subscription that ends with its period says when that is in `cancel_at` as well; one that is
/// cancelled by `cancel_at` does not say the other:
/// <https://docs.stripe.com/api/subscriptions/object#subscription_object-cancel_at>
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

/// Begins a period now and charges it at once, even if the one before has not ended. What was used until now is billed
/// at the prices that the subscription had
/// (<https://docs.stripe.com/billing/subscriptions/usage-based/manage-billing-setup>).
fn begin_period(data: &mut Data, before: &Value, p: &Value, events: &mut Events) -> Result<(), Problem> {
    let id = before["id"].as_str().unwrap_or_default();
    let kept = data.find("subscription", id)?;
    let mut subscription = kept.clone();
    subscription["pause_collection"] = Value::Null;
    let start = data.now_of(&subscription["customer"]);
    subscription["billing_cycle_anchor"] = json!(start);
    let mut lines = invoice_lines::elapsed(data, before, start, Seen::All);
    lines.extend(invoice_lines::upcoming(&subscription, false, start));
    if p["payment_behavior"] == "error_if_incomplete" && !invoices::can_pay(data, &subscription, &lines) {
        return Err(proration::declined());
    }
    let settled = invoices::period(data, (before, &subscription), false, start, events);
    let kept = data.find("subscription", id)?;
    kept["status"] = json!(if settled { "active" } else { "past_due" });
    kept["trial_end"] = Value::Null;
    kept["billing_cycle_anchor"] = json!(start);
    items::begin_period(kept, (start, end(start, start)));
    Ok(())
}

/// Ends a subscription at once. `invoice_now` bills the usage that was not billed and what waits for an invoice;
/// without it, all of that is dropped (Stripe's description of its API).
pub fn cancel(data: &mut Data, id: &str, p: &Value, events: &mut Events) -> Result<Value, Problem> {
    let subscription = data.find("subscription", id)?.clone();
    if subscription["status"] == "canceled" {
        return Err(Problem::missing("subscription", id));
    }
    let now = data.now_of(&subscription["customer"]);
    if p["invoice_now"] == "true" {
        invoices::now(data, &subscription, now, events);
    }
    let subscription = data.find("subscription", id)?;
    subscription["status"] = json!("canceled");
    subscription["canceled_at"] = json!(now);
    events.push(("customer.subscription.deleted", subscription.clone()));
    Ok(subscription.clone())
}
