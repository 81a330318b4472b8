//! The page where a customer 'pays' with a test card.

use std::sync::Arc;

use axum::Form;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::Value;

use super::{Id, objects, webhooks};
use crate::sandbox::{Shared, lock};

#[derive(Deserialize)]
pub struct Card {
    card: String,
}

pub async fn page(State(s): State<Arc<Shared>>, axum::extract::Path(id): Id) -> Response {
    match lock(&s.stripe.data).find("checkout.session", &id) {
        Ok(session) => render(session, None).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// Stripe's own test numbers: 4242... pays, 4000...0002 is declined, 4000...9995 lacks funds.
pub async fn pay(State(s): State<Arc<Shared>>, axum::extract::Path(id): Id, Form(card): Form<Card>) -> Response {
    let number: String = card.card.chars().filter(char::is_ascii_digit).collect();
    let refusal = match number.as_str() {
        "4242424242424242" => None,
        "4000000000000002" => Some("Your card was declined."),
        "4000000000009995" => Some("Your card has insufficient funds."),
        _ => Some("Your card number is invalid."),
    };
    let mut events = Vec::new();
    let answer = {
        let mut data = lock(&s.stripe.data);
        match refusal {
            Some(message) => match data.find("checkout.session", &id) {
                Ok(session) => (StatusCode::PAYMENT_REQUIRED, render(session, Some(message))).into_response(),
                Err(problem) => problem.into_response(),
            },
            None => match objects::complete_session(&mut data, &id, &mut events) {
                Ok(session) => back(&session),
                Err(problem) => problem.into_response(),
            },
        }
    };
    webhooks::emit(&s, events);
    answer
}

fn back(session: &Value) -> Response {
    let url = session["success_url"].as_str().unwrap_or("/");
    Redirect::to(&url.replace("{CHECKOUT_SESSION_ID}", session["id"].as_str().unwrap_or_default())).into_response()
}

fn render(session: &Value, error: Option<&str>) -> Html<String> {
    let template = include_str!("checkout.html");
    let env = minijinja::Environment::new();
    let page = env.render_named_str("checkout.html", template, minijinja::context! { session, error });
    Html(page.unwrap_or_else(|e| e.to_string()))
}
