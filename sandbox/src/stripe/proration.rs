//! Another price in the middle of a period, by Stripe's rules:
//! <https://docs.stripe.com/billing/subscriptions/prorations>

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::invoice_lines::{self, Charge, line};
use super::prices::is_metered;
use super::problem::{Events, Problem};
use super::usage::Seen;
use super::{Data, invoices, items};

/// Changes the items of a subscription, and settles the rest of its period as the request wants. Usage is never
/// prorated: what was used at a price that ends is billed in the flexible billing mode, unless `proration_behavior` is
/// `none`, and is lost in the classic one
/// (<https://docs.stripe.com/billing/subscriptions/usage-based/manage-billing-setup#update-prices-mid-cycle>).
pub fn change_items(data: &mut Data, id: &str, p: &Value, events: &mut Events) -> Result<(), Problem> {
    let subscription = data.find("subscription", id)?.clone();
    let now = data.now_of(&subscription["customer"]);
    let planned = items::planned(data, &subscription, p, now)?;
    let sold =
        |all: &[Value]| all.iter().map(|i| json!([i["id"], i["price"]["id"], i["quantity"]])).collect::<Vec<_>>();
    if sold(&planned) == sold(items::of(&subscription)) {
        return Ok(());
    }
    let behavior = p["proration_behavior"].as_str().unwrap_or("create_prorations");
    let mut lines = lines(&subscription, &planned, now);
    // An anchor that is set to now ends the period, and the whole usage is billed with it.
    if behavior != "none" && subscription["billing_mode"]["type"] == "flexible" && p["billing_cycle_anchor"] != "now" {
        lines.extend(ended_usage(data, &subscription, &planned, now));
    }
    let at_once = behavior == "always_invoice";
    let payable = !at_once || invoices::can_pay(data, &subscription, &lines);
    match p["payment_behavior"].as_str() {
        Some("error_if_incomplete") if !payable && invoices::asks(data, &subscription) => return Err(requires_action()),
        Some("error_if_incomplete") if !payable => return Err(declined()),
        Some("pending_if_incomplete") if p["metadata"].is_object() => {
            return Err(Problem::bad("You cannot update metadata with payment_behavior=pending_if_incomplete."));
        }
        Some("pending_if_incomplete") if !payable => return wait(data, &subscription, &planned, &lines, events),
        _ => {}
    }
    let kept = data.find("subscription", id)?;
    kept["items"]["data"] = json!(planned);
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
                    "subscription": id, "amount": line["amount"], "proration": line["proration"],
                    "currency": subscription["currency"], "period": line["period"], "_sandbox": {"line": line},
                });
                data.insert("invoiceitem", item);
            }
        }
        "always_invoice" | "none" => {}
        other => return Err(Problem::bad(format!("Invalid proration_behavior: {other}"))),
    }
    Ok(())
}

/// What was used until now at prices that are not there any more. Its quantity is that of this moment: the invoice item
/// is made now, and events that come later find no price.
fn ended_usage(data: &Data, subscription: &Value, planned: &[Value], now: i64) -> Vec<Value> {
    let kept = |item: &Value| planned.iter().any(|p| p["id"] == item["id"] && p["price"]["id"] == item["price"]["id"]);
    let ended = items::of(subscription).iter().filter(|item| is_metered(&item["price"]) && !kept(item));
    let span = |item: &Value| (items::usage_from(item), now);
    let lines = ended.flat_map(|item| invoice_lines::usage(data, subscription, item, span(item), Seen::All));
    lines
        .map(|mut line| {
            line["_sandbox"] = Value::Null;
            line
        })
        .collect()
}

/// The change waits until its invoice is paid, 23 hours at most:
/// <https://docs.stripe.com/billing/subscriptions/pending-updates>
fn wait(
    data: &mut Data,
    subscription: &Value,
    planned: &[Value],
    lines: &[Value],
    events: &mut Events,
) -> Result<(), Problem> {
    let now = data.now_of(&subscription["customer"]);
    invoices::bill(data, subscription, lines, now, events);
    let kept = data.find("subscription", subscription["id"].as_str().unwrap_or_default())?;
    kept["pending_update"] = json!({"expires_at": now + 23 * 3600, "subscription_items": planned});
    Ok(())
}

/// The invoice of a change that waits was paid, or its time is over.
pub fn end_waiting(data: &mut Data, subscription: &str, paid: bool, events: &mut Events) {
    let Ok(kept) = data.find("subscription", subscription) else { return };
    let pending = kept["pending_update"].take();
    if paid && pending.is_object() {
        // The period may have changed meanwhile.
        let (start, end) = {
            let first = &kept["items"]["data"][0];
            (first["current_period_start"].clone(), first["current_period_end"].clone())
        };
        kept["items"]["data"] = pending["subscription_items"].clone();
        for item in kept["items"]["data"].as_array_mut().into_iter().flatten() {
            (item["current_period_start"], item["current_period_end"]) = (start.clone(), end.clone());
        }
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

/// Credits the rest of the period at the old prices, and charges it at the new ones. A trial is free at any price, so
/// it has no such lines, and neither has usage.
fn lines(subscription: &Value, planned: &[Value], now: i64) -> Vec<Value> {
    let items = items::of(subscription);
    let at = |key: &str| items.first().and_then(|item| item[key].as_i64()).unwrap_or(now);
    let (start, end) = (at("current_period_start"), at("current_period_end"));
    if subscription["status"] == "trialing" || end <= now || end <= start {
        return Vec::new();
    }
    let rest = |item: &Value, sign: i64| {
        let amount = i128::from(items::monthly(item));
        let (left, whole) = (i128::from(end - now), i128::from(end - start));
        // To the nearest cent.
        let amount = sign * i64::try_from((2 * amount * left + whole) / (2 * whole)).unwrap_or(0);
        let quantity = items::quantity(item);
        line(&Charge { subscription, item, amount, quantity, period: (now, end), proration: true })
    };
    let same = |a: &Value, b: &Value| {
        a["id"] == b["id"] && a["price"]["id"] == b["price"]["id"] && a["quantity"] == b["quantity"]
    };
    let of_months = |item: &&Value| !is_metered(&item["price"]);
    let ended = items.iter().filter(|item| !planned.iter().any(|p| same(p, item)));
    let begun = planned.iter().filter(|p| !items.iter().any(|item| same(p, item)));
    let credits = ended.filter(of_months).map(|item| rest(item, -1));
    credits.chain(begun.filter(of_months).map(|item| rest(item, 1))).collect()
}
