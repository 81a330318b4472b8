//! Payments that customers dispute. Stripe's test card 4000000000000259 pays, and the payment is disputed at once;
//! evidence with the text `winning_evidence` or `losing_evidence` decides it
//! (<https://docs.stripe.com/testing#disputes>).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::{Events, Problem};
use super::{Data, webhooks};
use crate::{Shared, lock};

/// How long an answer may take, in seconds.
const ANSWER: i64 = 9 * 24 * 3600;

/// The customer's last payment is disputed, or a part of it.
pub fn open(data: &mut Data, customer: &Value, part: Option<i64>, events: &mut Events) {
    let now = data.now_of(customer);
    let paid = data.list("payment_intent").iter().rev().find(|intent| intent["customer"] == *customer);
    let Some(intent) = paid.cloned() else { return };
    let amount = part.map_or(intent["amount"].clone(), |part| json!(part));
    let dispute = json!({
        "id": data.next_id("du"), "object": "dispute", "created": now, "status": "needs_response", "reason": "fraudulent",
        "amount": amount, "currency": intent["currency"], "payment_intent": intent["id"], "metadata": {},
        "is_charge_refundable": false, "livemode": false, "balance_transactions": [], "evidence": {},
        "evidence_details": {"due_by": now + ANSWER, "has_evidence": false, "past_due": false, "submission_count": 0},
    });
    data.insert("dispute", dispute.clone());
    events.push(("charge.dispute.created", dispute));
}

#[derive(Deserialize)]
pub struct Opened {
    customer: String,
    /// The part of the payment; the whole without it.
    amount: Option<i64>,
}

/// A customer disputes a payment at the bank.
pub async fn add(State(s): State<Arc<Shared>>, Json(opened): Json<Opened>) -> StatusCode {
    let mut events = Vec::new();
    open(&mut lock(&s.stripe.data), &json!(opened.customer), opened.amount, &mut events);
    let status = if events.is_empty() { StatusCode::NOT_FOUND } else { StatusCode::CREATED };
    webhooks::emit(&s, events);
    status
}

fn of<'a>(data: &'a Data, intent: &'a str) -> impl Iterator<Item = &'a Value> {
    data.list("dispute").iter().filter(move |d| d["payment_intent"] == intent)
}

/// Whether a payment cannot be refunded because its customer disputes it at this moment.
pub fn prevents_refund(data: &Data, intent: &str) -> bool {
    of(data, intent).any(|d| !matches!(d["status"].as_str(), Some("won" | "lost")))
}

/// What the bank has given back of a payment.
pub fn returned(data: &Data, intent: &str) -> i64 {
    of(data, intent).filter(|d| d["status"] == "lost").filter_map(|d| d["amount"].as_i64()).sum()
}

/// Takes evidence. Submitted, it decides.
pub fn update(data: &mut Data, id: &str, p: &Value, events: &mut Events) -> Result<Value, Problem> {
    let dispute = data.find("dispute", id)?;
    if let Some(evidence) = p.get("evidence").filter(|e| e.is_object()) {
        dispute["evidence"] = evidence.clone();
    }
    // Stripe takes evidence as submitted unless told otherwise.
    if p["submit"] != "false" {
        let status = match dispute["evidence"]["uncategorized_text"].as_str() {
            Some("winning_evidence") => "won",
            Some("losing_evidence") => "lost",
            _ => "under_review",
        };
        return Ok(decide(dispute, status, events));
    }
    Ok(dispute.clone())
}

/// Gives in.
pub fn close(data: &mut Data, id: &str, events: &mut Events) -> Result<Value, Problem> {
    Ok(decide(data.find("dispute", id)?, "lost", events))
}

fn decide(dispute: &mut Value, status: &str, events: &mut Events) -> Value {
    dispute["status"] = json!(status);
    let event = if status == "under_review" { "charge.dispute.updated" } else { "charge.dispute.closed" };
    events.push((event, dispute.clone()));
    dispute.clone()
}

/// Replaces the id of the payment by the payment itself, if the request expands it.
pub fn expand(data: &Data, p: &Value, disputes: &mut Value) {
    let asked = p["expand"].as_object().is_some_and(|all| all.values().any(|path| path == "data.payment_intent"));
    for dispute in disputes["data"].as_array_mut().into_iter().flatten().filter(|_| asked) {
        let intent = data.list("payment_intent").iter().find(|intent| intent["id"] == dispute["payment_intent"]);
        dispute["payment_intent"] = intent.cloned().unwrap_or_default();
    }
}
