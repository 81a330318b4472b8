//! Payments that customers dispute. Stripe's test card 4000000000000259 pays, and the payment is disputed at once; evidence with
//! the text `winning_evidence` or `losing_evidence` decides it (<https://docs.stripe.com/testing#disputes>).

use serde_json::{Value, json};

use super::Data;
use super::problem::{Events, Problem};

/// How long an answer may take, in seconds.
const ANSWER: i64 = 9 * 24 * 3600;

/// The customer's last payment is disputed.
pub fn open(data: &mut Data, customer: &Value, events: &mut Events) {
    let now = data.now_of(customer);
    let paid = data.list("payment_intent").iter().rev().find(|intent| intent["customer"] == *customer);
    let Some(intent) = paid.cloned() else { return };
    let dispute = json!({
        "id": data.next_id("du"), "object": "dispute", "created": now, "status": "needs_response", "reason": "fraudulent",
        "amount": intent["amount"], "currency": intent["currency"], "payment_intent": intent["id"], "metadata": {},
        "is_charge_refundable": false, "livemode": false, "balance_transactions": [], "evidence": {},
        "evidence_details": {"due_by": now + ANSWER, "has_evidence": false, "past_due": false, "submission_count": 0},
    });
    data.insert("dispute", dispute.clone());
    events.push(("charge.dispute.created", dispute));
}

/// Whether a payment cannot be refunded because its customer disputes it, or has got it back.
pub fn prevents_refund(data: &Data, intent: &str) -> bool {
    data.list("dispute").iter().any(|d| d["payment_intent"] == intent && d["status"] != "won")
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

/// Puts the payment itself in the place of its id, where that was asked for.
pub fn expand(data: &Data, p: &Value, disputes: &mut Value) {
    let asked = p["expand"].as_object().is_some_and(|all| all.values().any(|path| path == "data.payment_intent"));
    for dispute in disputes["data"].as_array_mut().into_iter().flatten().filter(|_| asked) {
        let intent = data.list("payment_intent").iter().find(|intent| intent["id"] == dispute["payment_intent"]);
        dispute["payment_intent"] = intent.cloned().unwrap_or_default();
    }
}
