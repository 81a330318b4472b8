//! What customers and the product do with single invoices: the hosted page on which a payment is confirmed, and
//! voiding.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Value, json};

use super::invoices::{settle, stands, subscription_of};
use super::problem::{Events, Problem};
use super::{Data, Id, clock, proration, webhooks};
use crate::{Shared, lock};

/// Voids an open invoice. A change that waits for its payment is dropped with it.
pub fn void(data: &mut Data, id: &str, events: &mut Events) -> Result<Value, Problem> {
    let invoice = data.find("invoice", id)?;
    if invoice["status"] != "open" {
        return Err(Problem::bad("You can only pass in open invoices. This invoice isn't open."));
    }
    (invoice["status"], invoice["auto_advance"]) = (json!("void"), json!(false));
    let invoice = invoice.clone();
    proration::end_waiting(data, subscription_of(&invoice), false, events);
    events.push(("invoice.voided", invoice.clone()));
    Ok(invoice)
}

/// The hosted page of an invoice.
pub async fn page(State(s): State<Arc<Shared>>, axum::extract::Path(id): Id) -> Response {
    match lock(&s.stripe.data).find("invoice", &id) {
        Ok(invoice) => {
            let what = format!("{} {}", invoice["amount_due"], invoice["currency"].as_str().unwrap_or_default());
            let form = "<form method=\"post\"><button>Confirm with my bank</button></form>";
            Html(format!("<!doctype html><title>Invoice</title><p>Due: {what}</p>{form}")).into_response()
        }
        Err(problem) => problem.into_response(),
    }
}

/// The customer confirms the payment there.
pub async fn confirm(State(s): State<Arc<Shared>>, axum::extract::Path(id): Id) -> Response {
    let mut events = Vec::new();
    let answer = {
        let mut data = lock(&s.stripe.data);
        clock::tick(&mut data, &mut events);
        paid_by_customer(&mut data, &id, &mut events)
    };
    webhooks::emit(&s, events);
    answer.map_or_else(IntoResponse::into_response, |()| Html("Paid").into_response())
}

fn paid_by_customer(data: &mut Data, id: &str, events: &mut Events) -> Result<(), Problem> {
    let mut invoice = data.find("invoice", id)?.clone();
    if invoice["status"] != "open" {
        return Err(Problem::bad("This invoice is not open."));
    }
    settle(data, &mut invoice, events);
    data.find("invoice", id)?.clone_from(&invoice);
    proration::end_waiting(data, subscription_of(&invoice), true, events);
    stands(data, subscription_of(&invoice), "active", events);
    Ok(())
}
