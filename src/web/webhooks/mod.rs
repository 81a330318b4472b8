//! `POST /webhooks/stripe`: a hint that something happened. The controller then reads the truth from Stripe.

pub mod hints;
pub mod signature;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum_client_ip::ClientIp;
use serde_json::Value;

use super::App;
use super::serving::problem::{Code, Problem, ProblemBody};
use crate::api::Timestamp;
use crate::providers::stripe::is_meter_error;
use crate::telemetry::Span;
use hints::{Hint, Target, Told};
use signature::{Signature, SignatureError};

/// The longest webhook. An event holds one object. The longest is an invoice with its first ten lines, and each of
/// them, like the invoice and its subscription, has metadata of at most 50 keys of 40 and values of 500 characters:
/// about 330 kB. <https://docs.stripe.com/api/metadata>, <https://docs.stripe.com/api/invoices/object>
const LARGEST: usize = 512 << 10;

/// Takes a signed event from Stripe.
#[utoipa::path(
    post, path = "/webhooks/stripe", operation_id = "stripe_webhook", tag = "webhooks",
    request_body(content = Object, content_type = "application/json", description = "The event",
        example = json!({"id": "evt_1a2B3c", "type": "checkout.session.completed", "data": {"object": {"id": "cs_live_a1B2c3"}}})),
    params(("Stripe-Signature" = String, Header, description = "Stripe's signature of the body",
        example = "t=1764403200,v1=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd")),
    responses((status = 200, description = "Taken, or of no use here"), (status = 400, body = ProblemBody, description = "The signature is missing, wrong or too old"),
        (status = 408, body = ProblemBody, description = "The event took too long to arrive"),
        (status = 413, body = ProblemBody, description = "The event is larger than 512 kB"),
        (status = 503, body = ProblemBody, description = "Send it again"))
)]
pub async fn stripe(
    State(app): State<Arc<App>>,
    ClientIp(client): ClientIp,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let started = SystemTime::now();
    let refuse = |why: &str| Problem::new(StatusCode::BAD_REQUEST, Code::Webhook, why);
    let count = |what: &str| {
        app.metrics.webhooks.get_or_create(&what.into()).inc();
    };
    let not_signed = |why: SignatureError| {
        count("refused");
        refuse(&why.to_string())
    };
    let header = headers.get("stripe-signature").and_then(|v| v.to_str().ok()).unwrap_or_default();
    // Before the body: to refuse it costs nothing then.
    let signature = match Signature::read(header, app.now().as_second()) {
        Ok(signature) => signature,
        Err(why) => {
            app.lingers.short(&headers, body);
            return Err(not_signed(why));
        }
    };
    // The body is not Stripe's until its signature fits: until then a long one has one of a few places, and Stripe
    // sends again what finds none.
    let arrived = app.bodies.webhook(client, body, LARGEST).await;
    let (body, held) = arrived.inspect_err(|problem| {
        count(if problem.status() == StatusCode::SERVICE_UNAVAILABLE { "unavailable" } else { "refused" });
    })?;
    signature.verify(&body, &app.config.webhook_secrets).map_err(not_signed)?;
    drop(held);
    let event: Value = serde_json::from_slice(&body).map_err(|_| refuse("The body is not JSON"))?;
    let (Some(id), Some(type_)) = (event["id"].as_str(), event["type"].as_str()) else {
        return Err(refuse("The body is not a Stripe event"));
    };
    if is_meter_error(type_) {
        // Without data, which the controller reads at Stripe.
        let meter = event["related_object"]["id"].as_str().unwrap_or_default();
        tracing::warn!(
            event = id,
            type_,
            meter,
            "Stripe found usage wrong that it had taken: see the controller's log"
        );
        count("usage_error");
        return Ok(StatusCode::OK);
    }
    let Some((target, hint)) = says(id, type_, &event["data"]["object"]) else {
        count("unused");
        return Ok(StatusCode::OK);
    };
    if !app.serves(&target.namespace) {
        // Of another operator that shares the account. Anything but 2xx would make Stripe repeat it for three days, and
        // switch the endpoint off in the end.
        count("unserved");
        return Ok(StatusCode::OK);
    }
    let created = event["created"].as_i64();
    let _span = hint.ids.is_some().then(|| {
        let span = Span::of_tenant(&target.tenant_id, "payment webhook", started);
        span.set("stripe.event", id);
        span
    });
    match app.hints.tell(target, hint).await {
        Told::Taken => {
            if let Some(created) = created {
                let seconds = app.now().since(Timestamp::from_second(created)).max(0).unsigned_abs();
                app.metrics.webhook_latency.observe(Duration::from_secs(seconds).as_secs_f64());
            }
            count("taken");
            Ok(StatusCode::OK)
        }
        Told::Unmatched => {
            tracing::warn!(event = id, "a Stripe event fits no tenant");
            count("unmatched");
            Ok(StatusCode::OK)
        }
        Told::Unavailable => {
            count("unavailable");
            Err(Problem::unavailable())
        }
    }
}

/// What an event says of which tenant.
fn says(id: &str, type_: &str, object: &Value) -> Option<(Target, Hint)> {
    let used = type_.starts_with("checkout.session.")
        || type_.starts_with("customer.subscription.")
        || type_.starts_with("invoice.");
    let metadata = [&object["metadata"], &object["parent"]["subscription_details"]["metadata"]];
    let metadata = metadata.into_iter().find(|m| m["tenant_name"].is_string()).filter(|_| used)?;
    let text = |key: &str| metadata[key].as_str().map(str::to_owned);
    let target =
        Target { namespace: text("tenant_namespace")?, name: text("tenant_name")?, tenant_id: text("tenant_id")? };
    let ids = match (type_, object["customer"].as_str(), object["subscription"].as_str()) {
        ("checkout.session.completed", Some(customer), Some(subscription)) => {
            Some((customer.to_owned(), subscription.to_owned()))
        }
        _ => None,
    };
    Some((target, Hint { event: id.to_owned(), ids }))
}
