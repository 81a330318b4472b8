//! Invoices: what they come to, and who pays them.

use serde_json::{Value, json};

use super::Data;
use super::problem::Events;

/// Makes the invoice of a period and collects it. Answers whether it is settled.
pub fn period(data: &mut Data, subscription: &Value, free: bool, now: i64, events: &mut Events) -> bool {
    let price = &subscription["items"]["data"][0]["price"];
    let amount = if free { 0 } else { price["unit_amount"].as_i64().unwrap_or(0) };
    let mut lines = vec![json!({"object": "line_item", "amount": amount, "proration": false})];
    let pending = |item: &&Value| item["subscription"] == subscription["id"];
    let pending: Vec<Value> = data.list("invoiceitem").iter().filter(pending).cloned().collect();
    for item in pending {
        lines.push(json!({"object": "line_item", "amount": item["amount"], "proration": item["proration"]}));
        data.remove("invoiceitem", item["id"].as_str().unwrap_or_default());
    }
    bill(data, subscription, &lines, now, events)
}

/// What an invoice with these lines comes to: due now, and the customer's balance after it. A balance below zero is credit.
fn due(data: &mut Data, subscription: &Value, lines: &[Value]) -> (i64, i64) {
    let customer = subscription["customer"].as_str().unwrap_or_default();
    let balance = data.find("customer", customer).ok().and_then(|c| c["balance"].as_i64()).unwrap_or(0);
    let total: i64 = lines.iter().filter_map(|line| line["amount"].as_i64()).sum();
    ((total + balance).max(0), (total + balance).min(0))
}

fn declined(data: &mut Data, subscription: &Value) -> bool {
    let method = subscription["default_payment_method"].as_str().unwrap_or_default();
    data.find("payment_method", method).is_ok_and(|m| m["_sandbox"]["declined"] == true)
}

/// Whether an invoice with these lines would be paid.
pub fn can_pay(data: &mut Data, subscription: &Value, lines: &[Value]) -> bool {
    due(data, subscription, lines).0 == 0 || !declined(data, subscription)
}

/// Makes an invoice with these lines and collects it. Answers whether it is settled.
pub fn bill(data: &mut Data, subscription: &Value, lines: &[Value], now: i64, events: &mut Events) -> bool {
    let currency = &subscription["currency"];
    let (amount, balance) = due(data, subscription, lines);
    let declined = declined(data, subscription);
    let status = match (amount, subscription["pause_collection"]["behavior"].as_str()) {
        (0, _) => "paid",
        (_, Some("void")) => "void",
        (_, Some(_)) => "draft",
        _ if declined => "open",
        _ => "paid",
    };
    let paid = if status == "paid" { amount } else { 0 };
    let invoice = json!({
        "id": data.next_id("in"), "object": "invoice", "created": now, "livemode": false, "status": status,
        "customer": subscription["customer"], "amount_due": amount, "amount_paid": paid, "currency": currency,
        "total": lines.iter().filter_map(|line| line["amount"].as_i64()).sum::<i64>(), "ending_balance": balance,
        "lines": {"object": "list", "data": lines},
        "parent": {"type": "subscription_details", "subscription_details": {"subscription": subscription["id"], "metadata": subscription["metadata"]}},
    });
    if paid > 0 {
        pay(data, &invoice, now);
    }
    if let Ok(customer) = data.find("customer", subscription["customer"].as_str().unwrap_or_default()) {
        customer["balance"] = json!(balance);
    }
    data.insert("invoice", invoice.clone());
    let event = match status {
        "paid" => "invoice.paid",
        "open" => "invoice.payment_failed",
        "void" => "invoice.voided",
        _ => "invoice.created",
    };
    events.push((event, invoice));
    status != "open"
}

/// The payment of an invoice.
pub fn pay(data: &mut Data, invoice: &Value, now: i64) {
    let (amount, currency) = (&invoice["amount_due"], &invoice["currency"]);
    let intent = json!({
        "id": data.next_id("pi"), "object": "payment_intent", "created": now, "status": "succeeded",
        "amount": amount, "currency": currency, "customer": invoice["customer"],
    });
    let payment = json!({
        "id": data.next_id("inpay"), "object": "invoice_payment", "created": now, "invoice": invoice["id"],
        "status": "paid", "amount_paid": amount, "currency": currency,
        "payment": {"type": "payment_intent", "payment_intent": intent["id"]},
    });
    data.insert("payment_intent", intent);
    data.insert("invoice_payment", payment);
}
