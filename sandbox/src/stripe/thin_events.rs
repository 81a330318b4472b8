//! Thin events and where they go: the part of Stripe's API v2 that reports meter events that were wrong
//! (<https://docs.stripe.com/event-destinations>). What is delivered has no data; a reader fetches the event.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::problem::Problem;
use super::{Data, accounts, form, keys};
use crate::{Shared, lock};

pub const EVENT: &str = "v2.core.event";
pub const DESTINATION: &str = "v2.core.event_destination";

/// Whether events of this type are thin.
pub fn is_thin(type_: &str) -> bool {
    type_.starts_with("v1.")
}

/// Keeps an event, and answers what is delivered of it.
pub fn keep(data: &mut Data, type_: &str, object: &Value) -> Value {
    let created = jiff::Timestamp::from_second(data.now()).map(|now| now.to_string()).unwrap_or_default();
    let mut event = json!({
        "id": data.next_id("evt_test"), "object": EVENT, "type": type_, "created": created, "livemode": false,
        "context": null, "reason": null, "related_object": object["related_object"], "data": object["data"],
    });
    data.insert(EVENT, event.clone());
    if let Some(fields) = event.as_object_mut() {
        fields.remove("data");
    }
    event
}

/// Every call of API v2.
pub async fn call(
    State(s): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: String,
) -> Response {
    let Some(api_key) = accounts::bearer(&headers) else {
        return Problem::new(StatusCode::UNAUTHORIZED, "You did not provide an API key.").into_response();
    };
    let path: Vec<&str> = uri.path().trim_start_matches("/v2/").split('/').collect();
    let resource: &[&str] = if path.get(1) == Some(&"events") { &["events"] } else { &["webhook_endpoints"] };
    if let Err(problem) = keys::authorize(&lock(&s.stripe.restricted), (&method, resource), &api_key, &Value::Null) {
        return problem.into_response();
    }
    let account = s.stripe.of_key(&api_key);
    let mut data = lock(&account);
    let query = form::parse(query.as_deref().unwrap_or_default());
    let answer = match (method.as_str(), &path[..]) {
        ("GET", ["core", "events"]) => Ok(list(&data, EVENT, &query)),
        ("GET", ["core", "events", id]) => data.find(EVENT, id).cloned(),
        ("GET", ["core", "event_destinations"]) => Ok(list(&data, DESTINATION, &query)),
        ("POST", ["core", "event_destinations"]) => create(&mut data, &body),
        ("DELETE", ["core", "event_destinations", id]) => data.find(DESTINATION, id).cloned().map(|_| {
            data.remove(DESTINATION, id);
            json!({"id": id, "object": DESTINATION})
        }),
        _ => Err(Problem::new(StatusCode::NOT_FOUND, format!("Unrecognized request URL ({method}: {}).", uri.path()))),
    };
    answer.map_or_else(IntoResponse::into_response, |value| Json(value).into_response())
}

/// Newest first, of the types and about the object that the query asks for. The stand-in has one page.
fn list(data: &Data, kind: &str, query: &Value) -> Value {
    let types: Vec<&Value> = query["types"].as_object().into_iter().flat_map(serde_json::Map::values).collect();
    let wanted = |event: &&Value| {
        (types.is_empty() || types.contains(&&event["type"]))
            && query["object_id"].as_str().is_none_or(|id| event["related_object"]["id"] == id)
    };
    let all: Vec<_> = data.list(kind).iter().rev().filter(wanted).cloned().collect();
    json!({"data": all, "next_page_url": null, "previous_page_url": null})
}

/// A webhook endpoint for thin events (<https://docs.stripe.com/api/v2/core/event-destinations/create>).
fn create(data: &mut Data, body: &str) -> Result<Value, Problem> {
    let p: Value = serde_json::from_str(body).map_err(|e| Problem::invalid(format!("The body is not JSON: {e}")))?;
    let url = p["webhook_endpoint"]["url"].as_str().filter(|url| url.starts_with("http"));
    let url = url.ok_or_else(|| Problem::invalid("Invalid URL: webhook_endpoint.url"))?;
    if p["type"] != "webhook_endpoint" || p["event_payload"] != "thin" {
        return Err(Problem::invalid(
            "the sandbox has event destinations of type webhook_endpoint with thin payloads only",
        ));
    }
    let enabled = p["enabled_events"].as_array().filter(|types| !types.is_empty());
    let enabled = enabled.ok_or_else(|| Problem::invalid("Missing required param: enabled_events."))?;
    let secret = format!("whsec_{}", hex::encode(rand::random::<[u8; 16]>()));
    let destination = json!({
        "id": data.next_id("ed_test"), "object": DESTINATION, "created": jiff::Timestamp::now().to_string(),
        "description": p["description"], "enabled_events": enabled, "event_payload": "thin", "livemode": false,
        "name": p["name"], "status": "enabled", "type": "webhook_endpoint", "webhook_endpoint": {"url": url},
        "_sandbox": {"secret": secret},
    });
    data.insert(DESTINATION, destination.clone());
    // Stripe shows the secret in this answer, and later on request alone.
    let mut shown = destination;
    shown["webhook_endpoint"]["signing_secret"] = shown["_sandbox"]["secret"].take();
    Ok(shown)
}
