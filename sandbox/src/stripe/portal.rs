//! The customer portal: subscription, invoices, a new card, cancellation at the period's end.

use std::sync::Arc;

use axum::Form;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Redirect, Response};
use minijinja::value::Serde;
use serde::Deserialize;
use serde_json::{Value, json};

use super::fields::text;
use super::problem::Problem;
use super::{Data, Id, clock, subscriptions, webhooks};
use crate::{Shared, lock};

/// Portal links are good for a few minutes only.
const LIFE: i64 = 300;

/// Opens a session.
pub fn create(data: &mut Data, url: &str, p: &Value) -> Result<Value, Problem> {
    let customer =
        p["customer"].as_str().ok_or_else(|| Problem::invalid("Missing required param: customer."))?.to_owned();
    if data.find("customer", &customer)?["deleted"] == true {
        return Err(Problem::missing("customer", &customer));
    }
    let id = data.next_id("bps");
    let session = json!({
        "id": id, "object": "billing_portal.session", "created": data.now_of(&json!(customer)), "livemode": false,
        "configuration": "bpc_sandbox", "customer": customer, "flow": null, "locale": null, "on_behalf_of": null,
        "return_url": text(p, "return_url"), "url": format!("{url}/p/session/{id}"),
    });
    data.insert("billing_portal.session", session.clone());
    Ok(session)
}

/// The settings of the portal, as they are saved in the dashboard.
pub fn configurations() -> Value {
    let saved =
        json!({"id": "bpc_sandbox", "object": "billing_portal.configuration", "active": true, "is_default": true});
    json!({"object": "list", "url": "/v1/billing_portal/configurations", "has_more": false, "data": [saved]})
}

fn open(data: &mut Data, id: &str) -> Result<Value, Problem> {
    let session = data.find("billing_portal.session", id)?.clone();
    let age = data.now_of(&session["customer"]) - session["created"].as_i64().unwrap_or(0);
    if age < LIFE { Ok(session) } else { Err(Problem::bad("This link has expired. Ask for a new one.")) }
}

/// The page.
pub async fn page(State(s): State<Arc<Shared>>, axum::extract::Path(id): Id) -> Response {
    let mut data = lock(&s.stripe.data);
    let session = match open(&mut data, &id) {
        Ok(session) => session,
        Err(problem) => return problem.into_response(),
    };
    let theirs = |kind: &str| -> Vec<Value> {
        data.list(kind).iter().rev().filter(|o| o["customer"] == session["customer"]).cloned().collect()
    };
    let (all, invoices) = (theirs("subscription"), theirs("invoice"));
    let env = minijinja::Environment::new();
    let values =
        minijinja::context! { session => Serde(session), subscriptions => Serde(all), invoices => Serde(invoices) };
    let page = env.render_named_str("portal.html", include_str!("portal.html"), values);
    Html(page.unwrap_or_else(|e| e.to_string())).into_response()
}

#[derive(Deserialize)]
pub struct Change {
    subscription: String,
    /// `cancel`, `cancel-at`, `keep` or `card`.
    action: String,
}

/// What a customer changes there.
pub async fn change(State(s): State<Arc<Shared>>, axum::extract::Path(id): Id, Form(form): Form<Change>) -> Response {
    let mut events = Vec::new();
    let answer = {
        let mut data = lock(&s.stripe.data);
        clock::tick(&mut data, &mut events);
        apply(&mut data, &id, &form, &mut events)
    };
    webhooks::emit(&s, events);
    answer.map_or_else(IntoResponse::into_response, |()| Redirect::to(&format!("/p/session/{id}")).into_response())
}

fn apply(data: &mut Data, id: &str, form: &Change, events: &mut super::problem::Events) -> Result<(), Problem> {
    let session = open(data, id)?;
    if data.find("subscription", &form.subscription)?["customer"] != session["customer"] {
        return Err(Problem::missing("subscription", &form.subscription));
    }
    match form.action.as_str() {
        "cancel" => subscriptions::update(data, &form.subscription, &json!({"cancel_at_period_end": "true"}), events)?,
        // As the portal does with the flexible billing mode.
        "cancel-at" => {
            subscriptions::update(data, &form.subscription, &json!({"cancel_at": "min_period_end"}), events)?
        }
        "keep" => subscriptions::update(data, &form.subscription, &json!({"cancel_at_period_end": "false"}), events)?,
        "card" => subscriptions::new_card(data, &form.subscription, events)?,
        _ => return Err(Problem::bad("the sandbox's portal knows cancel, cancel-at, keep and card")),
    };
    Ok(())
}
