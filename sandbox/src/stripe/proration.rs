//! Another price in the middle of a period, by Stripe's rules: <https://docs.stripe.com/billing/subscriptions/prorations>

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::problem::{Events, Problem};
use super::{Data, catalog, invoices};

/// Changes the price of a subscription's item, and settles the rest of its period as the request wants.
pub fn change_price(data: &mut Data, id: &str, p: &Value, events: &mut Events) -> Result<(), Problem> {
    let subscription = data.find("subscription", id)?.clone();
    let (item, wanted) = (&subscription["items"]["data"][0], &p["items"]["0"]);
    if wanted["id"] != item["id"] {
        return Err(Problem::bad("A subscription of the sandbox has one item: name it by items[0][id]."));
    }
    let Some(name) = wanted["price"].as_str() else { return Ok(()) };
    let price = catalog::price(data, name).ok_or_else(|| Problem::bad(format!("No such price: '{name}'")))?;
    if price["currency"] != subscription["currency"] {
        return Err(Problem::bad(format!(
            "The price specified only supports `{}`. This doesn't match the expected currency: `{}`.",
            price["currency"].as_str().unwrap_or_default(),
            subscription["currency"].as_str().unwrap_or_default()
        )));
    }
    if price["id"] == item["price"]["id"] {
        return Ok(());
    }
    let now = data.now_of(&subscription["customer"]);
    let lines = lines(&subscription, &price, now);
    let behavior = p["proration_behavior"].as_str().unwrap_or("create_prorations");
    let at_once = behavior == "always_invoice";
    let payable = !at_once || invoices::can_pay(data, &subscription, &lines);
    match p["payment_behavior"].as_str() {
        Some("error_if_incomplete") if !payable && invoices::asks(data, &subscription) => return Err(requires_action()),
        Some("error_if_incomplete") if !payable => return Err(declined()),
        Some("pending_if_incomplete") if p["metadata"].is_object() => {
            return Err(Problem::bad("You cannot update metadata with payment_behavior=pending_if_incomplete."));
        }
        Some("pending_if_incomplete") if !payable => return wait(data, &subscription, &price, &lines, events),
        _ => {}
    }
    let kept = data.find("subscription", id)?;
    kept["items"]["data"][0]["price"] = price;
    let subscription = kept.clone();
    match behavior {
        "always_invoice" if !lines.is_empty() => {
            if !invoices::bill(data, &subscription, &lines, now, events) {
                data.find("subscription", id)?["status"] = json!("past_due");
            }
        }
        "create_prorations" => {
            for line in lines {
                let item = json!({
                    "id": data.next_id("ii"), "object": "invoiceitem", "customer": subscription["customer"],
                    "subscription": id, "amount": line["amount"], "proration": true, "currency": subscription["currency"],
                    "period": line["period"],
                });
                data.insert("invoiceitem", item);
            }
        }
        "always_invoice" | "none" => {}
        other => return Err(Problem::bad(format!("Invalid proration_behavior: {other}"))),
    }
    Ok(())
}

/// The change waits until its invoice is paid, 23 hours at most: <https://docs.stripe.com/billing/subscriptions/pending-updates>
fn wait(
    data: &mut Data,
    subscription: &Value,
    price: &Value,
    lines: &[Value],
    events: &mut Events,
) -> Result<(), Problem> {
    let now = data.now_of(&subscription["customer"]);
    invoices::bill(data, subscription, lines, now, events);
    let item = json!({"id": subscription["items"]["data"][0]["id"], "price": price, "quantity": 1});
    let kept = data.find("subscription", subscription["id"].as_str().unwrap_or_default())?;
    kept["pending_update"] = json!({"expires_at": now + 23 * 3600, "subscription_items": [item]});
    Ok(())
}

/// The invoice of a change that waits was paid, or its time is over.
pub fn end_waiting(data: &mut Data, subscription: &str, paid: bool, events: &mut Events) {
    let Ok(kept) = data.find("subscription", subscription) else { return };
    let pending = kept["pending_update"].take();
    if paid && pending.is_object() {
        kept["items"]["data"][0]["price"] = pending["subscription_items"][0]["price"].clone();
    }
    if pending.is_object() {
        events.push(("customer.subscription.updated", kept.clone()));
    }
}

/// Drops the changes whose time to be confirmed is over, and voids their invoices.
pub fn expire_waiting(data: &mut Data, events: &mut Events) {
    let late =
        |s: &&Value| s["pending_update"]["expires_at"].as_i64().is_some_and(|at| at <= data.now_of(&s["customer"]));
    let late: Vec<Value> = data.list("subscription").iter().filter(late).cloned().collect();
    for subscription in late {
        if let Ok(invoice) = data.find("invoice", subscription["latest_invoice"].as_str().unwrap_or_default()) {
            (invoice["status"], invoice["auto_advance"]) = (json!("void"), json!(false));
        }
        end_waiting(data, subscription["id"].as_str().unwrap_or_default(), false, events);
    }
}

/// What Stripe answers where a payment is asked for and the customer's bank asks for the customer.
fn requires_action() -> Problem {
    Problem {
        type_: "card_error",
        code: Some("subscription_payment_intent_requires_action"),
        ..Problem::new(
            StatusCode::PAYMENT_REQUIRED,
            "Payment for this subscription requires additional user action before it can be completed successfully.",
        )
    }
}

/// What Stripe answers where a payment is asked for and the card is declined.
pub fn declined() -> Problem {
    Problem {
        type_: "card_error",
        code: Some("card_declined"),
        ..Problem::new(StatusCode::PAYMENT_REQUIRED, "Your card was declined.")
    }
}

/// Credits the rest of the period at the old price, and charges it at the new one. A trial is free at any price, so it has no
/// such lines.
fn lines(subscription: &Value, price: &Value, now: i64) -> Vec<Value> {
    let item = &subscription["items"]["data"][0];
    let at = |key: &str| item[key].as_i64().unwrap_or(now);
    let (start, end) = (at("current_period_start"), at("current_period_end"));
    if subscription["status"] == "trialing" || end <= now || end <= start {
        return Vec::new();
    }
    let rest = |price: &Value| {
        let amount = i128::from(price["unit_amount"].as_i64().unwrap_or(0));
        let (left, whole) = (i128::from(end - now), i128::from(end - start));
        // To the nearest cent.
        i64::try_from((2 * amount * left + whole) / (2 * whole)).unwrap_or(0)
    };
    let line = |amount: i64| json!({"object": "line_item", "amount": amount, "proration": true, "period": {"start": now, "end": end}});
    vec![line(-rest(&item["price"])), line(rest(price))]
}
