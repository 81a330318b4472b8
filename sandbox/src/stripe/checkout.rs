//! The page where a customer 'pays' with a test card.

use std::sync::Arc;

use axum::Form;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use minijinja::value::Serde;
use serde::Deserialize;
use serde_json::Value;

use super::subscriptions::Card;
use super::{Id, clock, disputes, refunds, sessions, webhooks};
use crate::{Shared, lock};

/// A card whose payments are disputed.
const DISPUTED: &str = "4000000000000259";

#[derive(Deserialize)]
pub struct CardForm {
    card: String,
    /// What the customer answered to their bank: `complete` or `fail`.
    #[serde(default)]
    challenge: String,
}

pub async fn page(State(s): State<Arc<Shared>>, axum::extract::Path(id): Id) -> Response {
    match lock(&s.stripe.data).find("checkout.session", &id) {
        Ok(session) => render(session, None, false).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// Stripe's own test numbers: 4242... pays, 4000...3184 asks for 3-D Secure on each charge, 4000...0002 is declined,
/// 4000...9995 lacks funds, 4000...0259 pays and disputes that, 4000...0341 can be attached and is declined when it is
/// charged.
pub async fn pay(State(s): State<Arc<Shared>>, axum::extract::Path(id): Id, Form(form): Form<CardForm>) -> Response {
    let number: String = form.card.chars().filter(char::is_ascii_digit).collect();
    let card = match (number.as_str(), form.challenge.as_str()) {
        ("4000002760003184", "") => return challenge(&s, &id),
        ("4000002760003184", "complete") => Ok(Card::Asks),
        ("4000002760003184", _) => Err(
            "We are unable to authenticate your payment method. Please choose a different payment method and try again.",
        ),
        (number, _) => plain_card(number),
    };
    let mut events = Vec::new();
    let answer = {
        let mut data = lock(&s.stripe.data);
        clock::tick(&mut data, &mut events);
        match data.find("checkout.session", &id).map(|session| (session.clone(), charged_now(session))) {
            Err(problem) => problem.into_response(),
            Ok((session, charged)) => match card {
                Ok(Card::DeclinedLater) if charged => declined(&session, "Your card was declined."),
                Err(message) => declined(&session, message),
                Ok(card) => match sessions::complete(&mut data, &id, card, &mut events) {
                    Ok(session) => {
                        if number == DISPUTED {
                            disputes::open(&mut data, &session["customer"], None, &mut events);
                        }
                        refunds::remember(&mut data, &session["customer"], &number);
                        back(&session)
                    }
                    Err(problem) => problem.into_response(),
                },
            },
        }
    };
    webhooks::emit(&s, events);
    answer
}

fn plain_card(number: &str) -> Result<Card, &'static str> {
    match number {
        "4242424242424242" | DISPUTED | refunds::PENDING | refunds::FAILING => Ok(Card::Good),
        "4000000000000341" => Ok(Card::DeclinedLater),
        "4000000000000002" => Err("Your card was declined."),
        "4000000000009995" => Err("Your card has insufficient funds."),
        _ => Err("Your card number is invalid."),
    }
}

/// The bank's question. Nothing is paid yet.
fn challenge(s: &Shared, id: &str) -> Response {
    match lock(&s.stripe.data).find("checkout.session", id) {
        Ok(session) => render(session, None, true).into_response(),
        Err(problem) => problem.into_response(),
    }
}

fn charged_now(session: &Value) -> bool {
    session["amount_total"].as_i64().unwrap_or(0) > 0
}

fn declined(session: &Value, message: &str) -> Response {
    (StatusCode::PAYMENT_REQUIRED, render(session, Some(message), false)).into_response()
}

fn back(session: &Value) -> Response {
    let url = session["success_url"].as_str().unwrap_or("/");
    Redirect::to(&url.replace("{CHECKOUT_SESSION_ID}", session["id"].as_str().unwrap_or_default())).into_response()
}

fn render(session: &Value, error: Option<&str>, challenge: bool) -> Html<String> {
    let template = include_str!("checkout.html");
    let env = minijinja::Environment::new();
    let page = env.render_named_str(
        "checkout.html",
        template,
        minijinja::context! { session => Serde(session), error, challenge },
    );
    Html(page.unwrap_or_else(|e| e.to_string()))
}
