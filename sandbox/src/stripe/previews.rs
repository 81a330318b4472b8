//! What the next invoice would be (<https://docs.stripe.com/api/invoices/create_preview>): the usage so far, as far as
//! it is shown yet, and the month to come.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::problem::Problem;
use super::usage::Seen;
use super::{Data, invoice_lines, invoices, items};

pub fn create(data: &mut Data, p: &Value) -> Result<Value, Problem> {
    let subscription = subscription(data, p)?;
    let now = data.now_of(&subscription["customer"]);
    let first = items::of(&subscription).first();
    let end = first.and_then(|item| item["current_period_end"].as_i64()).unwrap_or(now);
    let mut lines = invoice_lines::elapsed(data, &subscription, end, Seen::now());
    let ends = subscription["cancel_at"].as_i64().is_some_and(|at| at <= end);
    if subscription["status"] == "canceled" || (ends && lines.is_empty()) {
        return Err(none(&subscription["customer"]));
    }
    if !ends {
        let mut next = subscription.clone();
        next["status"] = json!("active");
        lines.extend(invoice_lines::upcoming(&next, false, end));
    }
    lines.extend(invoice_lines::pending(data, &subscription));
    let due = invoices::due(data, &subscription, &lines);
    let mut preview = invoices::invoice(data, &subscription, &lines, "draft", due, end);
    preview["id"] = json!(format!("upcoming_in_sandbox{}", hex::encode(rand::random::<[u8; 6]>())));
    preview["billing_reason"] = json!("upcoming");
    Ok(preview)
}

/// The subscription that a request names, or the customer's only one.
fn subscription(data: &mut Data, p: &Value) -> Result<Value, Problem> {
    if let Some(id) = p["subscription"].as_str() {
        return data.find("subscription", id).cloned();
    }
    let customer = p["customer"]
        .as_str()
        .ok_or_else(|| Problem::invalid("You must supply at least one of these parameters: customer, subscription."))?;
    data.find("customer", customer)?;
    let living = |s: &&Value| s["customer"] == customer && s["status"] != "canceled";
    data.list("subscription").iter().find(living).cloned().ok_or_else(|| none(&json!(customer)))
}

fn none(customer: &Value) -> Problem {
    let message = format!("No upcoming invoices for customer: '{}'", customer.as_str().unwrap_or_default());
    Problem { code: Some("invoice_upcoming_none"), ..Problem::new(StatusCode::NOT_FOUND, message) }
}
