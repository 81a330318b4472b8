//! Web's webhook endpoint at the Stripe stand-in.

use anyhow::Context as _;
use serde::Deserialize;
use tenant_operator::providers::stripe::EVENTS;

/// The answer to a new endpoint: the only one in which Stripe shows the secret
/// (<https://docs.stripe.com/api/webhook_endpoints/object#webhook_endpoint_object-secret>).
#[derive(Deserialize)]
struct Registered {
    secret: String,
}

/// Registers the endpoint for the events that preflight asks for, as a user of Stripe does. Returns its signing secret.
pub async fn register(stripe_url: &str, url: &str) -> anyhow::Result<String> {
    let mut form = vec![("url".to_owned(), url)];
    form.extend(EVENTS.iter().enumerate().map(|(i, event)| (format!("enabled_events[{i}]"), *event)));
    let request = reqwest::Client::new().post(format!("{stripe_url}/v1/webhook_endpoints"));
    let answer =
        request.bearer_auth("sk_test_sandbox").form(&form).send().await.and_then(reqwest::Response::error_for_status);
    let registered: Registered = answer.context("registering the webhook endpoint")?.json().await?;
    Ok(registered.secret)
}
