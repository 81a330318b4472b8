//! Refunds. Stripe's test card 4000000000007726 has refunds that are pending first, and 4000000000005126 has refunds
//! that succeed first and fail later (<https://docs.stripe.com/testing#refunds>).

use serde_json::{Value, json};

use super::Data;
use super::disputes;
use super::fields::metadata;
use super::problem::{Events, Problem};

/// A card whose refunds are pending, and succeed later.
pub const PENDING: &str = "4000000000007726";
/// A card whose refunds succeed, and fail later.
pub const FAILING: &str = "4000000000005126";

/// When that happens, in seconds after the refund.
const LATER: i64 = 12 * 3600;

/// Notes which card a customer paid with, as far as refunds depend on it.
pub fn remember(data: &mut Data, customer: &Value, card: &str) {
    if let Ok(customer) = data.find("customer", customer.as_str().unwrap_or_default())
        && matches!(card, PENDING | FAILING)
    {
        customer["_sandbox"]["refunds"] = json!(card);
    }
}

/// Gives back an amount of a payment, or what is left of it.
pub fn create(data: &mut Data, p: &Value, events: &mut Events) -> Result<Value, Problem> {
    let intent_id = p["payment_intent"].as_str().unwrap_or_default().to_owned();
    let intent = data.find("payment_intent", &intent_id)?.clone();
    let counts = |r: &&Value| r["payment_intent"] == intent_id.as_str() && r["status"] != "failed";
    let before: i64 = data.list("refund").iter().filter(counts).filter_map(|r| r["amount"].as_i64()).sum();
    let paid = intent["amount"].as_i64().unwrap_or(0);
    let returned = disputes::returned(data, &intent_id);
    if disputes::prevents_refund(data, &intent_id) || (returned > 0 && returned >= paid) {
        return Err(Problem {
            code: Some("charge_disputed"),
            ..Problem::bad("Charge has been charged back; cannot issue a refund.")
        });
    }
    let left = paid - before - returned;
    if left <= 0 {
        return Err(Problem {
            code: Some("charge_already_refunded"),
            ..Problem::bad("Charge has already been refunded.")
        });
    }
    let amount = p["amount"].as_str().map_or(Some(left), |a| a.parse().ok());
    let amount = amount.ok_or_else(|| Problem::invalid("Invalid integer: amount"))?;
    if amount <= 0 || amount > left {
        return Err(Problem::bad(format!(
            "Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
        )));
    }
    let customer = intent["customer"].as_str().unwrap_or_default();
    let card = data.find("customer", customer).map_or(Value::Null, |c| c["_sandbox"]["refunds"].clone());
    let refund = json!({
        "id": data.next_id("re"), "object": "refund", "created": data.now_of(&intent["customer"]),
        "amount": amount, "currency": intent["currency"], "payment_intent": intent_id,
        "status": if card == PENDING { "pending" } else { "succeeded" }, "metadata": metadata(p),
        "_sandbox": {"card": card},
    });
    data.insert("refund", refund.clone());
    events.push(("refund.created", refund.clone()));
    Ok(refund)
}

/// What becomes of the refunds whose time has come.
pub fn go_on(data: &mut Data, events: &mut Events) {
    let now = data.now();
    let due: Vec<(String, &str)> = data
        .list("refund")
        .iter()
        .filter(|r| r["created"].as_i64().is_some_and(|at| at + LATER <= now))
        .filter_map(|r| match (r["_sandbox"]["card"].as_str(), r["status"].as_str()) {
            (Some(PENDING), Some("pending")) => Some((r["id"].as_str()?.to_owned(), "succeeded")),
            (Some(FAILING), Some("succeeded")) => Some((r["id"].as_str()?.to_owned(), "failed")),
            _ => None,
        })
        .collect();
    for (id, status) in due {
        let Ok(refund) = data.find("refund", &id) else { continue };
        refund["status"] = json!(status);
        if status == "failed" {
            refund["failure_reason"] = json!("expired_or_canceled_card");
        }
        let refund = refund.clone();
        let event = if status == "failed" { "refund.failed" } else { "refund.updated" };
        events.push((event, refund));
    }
}
