//! Customers.

use serde_json::{Value, json};

use super::fields::{metadata, text};
use super::problem::{Events, Problem};
use super::{Data, TEST_CLOCK, subscriptions};

/// All that Stripe still says of a customer that was deleted.
pub fn deleted(id: &str) -> Value {
    json!({"id": id, "object": "customer", "deleted": true})
}

/// Deletes a customer, and with it cancels its subscriptions at once.
pub fn delete(data: &mut Data, id: &str, events: &mut Events) -> Result<Value, Problem> {
    data.find("customer", id)?["deleted"] = json!(true);
    let theirs = data.list("subscription").iter().filter(|s| s["customer"] == id && s["status"] != "canceled");
    let theirs: Vec<String> = theirs.filter_map(|s| s["id"].as_str().map(str::to_owned)).collect();
    for subscription in theirs {
        subscriptions::cancel(data, &subscription, &Value::Null, events)?;
    }
    Ok(deleted(id))
}

pub fn create(data: &mut Data, p: &Value) -> Result<Value, Problem> {
    if let Some(id) = p["test_clock"].as_str() {
        data.find(TEST_CLOCK, id)?;
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
