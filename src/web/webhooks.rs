//! `POST /webhooks/stripe`: a hint that something happened. The controller then reads the truth from Stripe.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use hmac::{Hmac, Mac};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use sha2::Sha256;

use super::App;
use super::problem::Problem;
use crate::api::{STRIPE_EVENT_ANNOTATION, Tenant, Timestamp};

/// How old a signature may be, in seconds; Stripe's own libraries use the same.
const TOLERANCE: i64 = 300;
/// Stripe waits for an answer; Kubernetes gets this long.
const PATCH_LIMIT: Duration = Duration::from_secs(5);

/// Takes an event.
pub async fn stripe(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Result<StatusCode, Problem> {
    let refuse = |why: &str| Problem::new(StatusCode::BAD_REQUEST, "webhook", why);
    let count = |what: &str| {
        app.metrics.webhooks.get_or_create(&what.into()).inc();
    };
    let signature = headers.get("stripe-signature").and_then(|v| v.to_str().ok()).unwrap_or_default();
    if let Err(why) = verify(signature, &body, &app.config.webhook_secrets, Timestamp::now().as_second()) {
        count("refused");
        return Err(refuse(why));
    }
    let event: Value = serde_json::from_slice(&body).map_err(|_| refuse("the body is not JSON"))?;
    let (Some(id), Some(type_)) = (event["id"].as_str(), event["type"].as_str()) else {
        return Err(refuse("the body is not an event"));
    };
    let Some(change) = change(id, type_, &event["data"]["object"]) else {
        count("unused");
        return Ok(StatusCode::OK);
    };
    let params = PatchParams { field_manager: Some("tenant-operator-webhook".into()), ..PatchParams::default() };
    let api: Api<Tenant> = Api::namespaced(app.client.clone(), &change.namespace);
    let merge = Patch::Merge(change.patch);
    let patch = api.patch(&change.name, &params, &merge);
    match tokio::time::timeout(PATCH_LIMIT, patch).await {
        Ok(Ok(_)) => {
            count("taken");
            Ok(StatusCode::OK)
        }
        // Deleted meanwhile, or not of this cluster; or the event names the id of an earlier tenant. Repeating cannot help.
        Ok(Err(kube::Error::Api(e))) if matches!(e.code, 400 | 404 | 422) => {
            tracing::warn!(event = id, reason = %e.reason, "a Stripe event fits no tenant");
            count("unmatched");
            Ok(StatusCode::OK)
        }
        Ok(Err(error)) => {
            count("unavailable");
            Err(error.into())
        }
        Err(_) => {
            count("unavailable");
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Kubernetes did not answer in time"))
        }
    }
}

struct Change {
    namespace: String,
    name: String,
    patch: Value,
}

/// What an event says of which tenant. The id in the patch makes the API server refuse an event of another tenant.
fn change(id: &str, type_: &str, object: &Value) -> Option<Change> {
    let used = type_.starts_with("checkout.session.")
        || type_.starts_with("customer.subscription.")
        || type_.starts_with("invoice.");
    let metadata = [&object["metadata"], &object["parent"]["subscription_details"]["metadata"]];
    let metadata = metadata.into_iter().find(|m| m["tenant_name"].is_string()).filter(|_| used)?;
    let mut spec = json!({"tenantId": metadata["tenant_id"]});
    if let ("checkout.session.completed", Some(customer), Some(subscription)) =
        (type_, object["customer"].as_str(), object["subscription"].as_str())
    {
        spec["billing"] = json!({"stripe": {"customerId": customer, "subscriptionId": subscription}});
    }
    Some(Change {
        namespace: metadata["tenant_namespace"].as_str()?.to_owned(),
        name: metadata["tenant_name"].as_str()?.to_owned(),
        patch: json!({"metadata": {"annotations": {STRIPE_EVENT_ANNOTATION: id}}, "spec": spec}),
    })
}

/// Stripe's signature scheme v1: HMAC-SHA256 of `timestamp.body`, with several signatures while a secret rotates.
fn verify(header: &str, body: &[u8], secrets: &[String], now: i64) -> Result<(), &'static str> {
    let (mut time, mut signatures) = ("", Vec::new());
    for (key, value) in header.split(',').filter_map(|part| part.trim().split_once('=')) {
        match key {
            "t" => time = value,
            "v1" => signatures.extend(hex::decode(value)),
            _ => {}
        }
    }
    let seconds: i64 = time.parse().map_err(|_| "the Stripe-Signature header is missing or malformed")?;
    if now.abs_diff(seconds) > TOLERANCE.unsigned_abs() {
        return Err("the signature is too old or too far in the future");
    }
    let good = secrets.iter().any(|secret| {
        signatures.iter().any(|signature| {
            Hmac::<Sha256>::new_from_slice(secret.as_bytes()).is_ok_and(|mut mac| {
                mac.update(time.as_bytes());
                mac.update(b".");
                mac.update(body);
                mac.verify_slice(signature).is_ok()
            })
        })
    });
    if good { Ok(()) } else { Err("no signature matches a webhook secret") }
}
