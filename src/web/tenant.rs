//! `GET /tenant/{id}` and its event stream: what the holder of the signup's token sees.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures::{Stream, StreamExt};
use kube::ResourceExt;
use kube::runtime::watcher::watch_object;
use serde_json::{Value, json};

use super::App;
use super::problem::Problem;
use crate::api::Tenant;

/// A stream ends after this long; the client connects again.
const STREAM_LIMIT: Duration = Duration::from_mins(15);

/// The tenant that the bearer's token opens, if it is the one that was asked for.
pub async fn authorized(app: &App, headers: &HeaderMap, id: &str) -> Result<Tenant, Problem> {
    let token =
        headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    let name = token.and_then(|t| app.identity.tenant_of(t)).ok_or_else(Problem::not_found)?;
    let tenant = app.tenants().get_opt(name).await?.ok_or_else(Problem::not_found)?;
    if tenant.tenant_id() == id { Ok(tenant) } else { Err(Problem::not_found()) }
}

fn describe(tenant: &Tenant) -> Value {
    let status = tenant.status.clone().unwrap_or_default();
    let steps: Vec<_> = status
        .conditions
        .iter()
        .filter(|c| !matches!(c.type_.as_str(), "Ready" | "Reconciling" | "Stalled"))
        .map(|c| json!({"name": c.type_, "status": c.status, "reason": c.reason, "message": c.message}))
        .collect();
    json!({
        "tenant_id": tenant.tenant_id(),
        "company_name": tenant.spec.company_name,
        "plan": tenant.spec.plan,
        "phase": status.phase,
        "message": status.message,
        "checkout_url": status.checkout.map(|c| c.url),
        "trial_ends_at": status.trial_ends_at,
        "attempts": status.provisioning.as_ref().map_or(0, |p| p.attempts),
        "next_retry_at": status.provisioning.and_then(|p| p.next_retry_at),
        "steps": steps,
    })
}

/// Phase and steps, now.
pub async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    Ok(Json(describe(&authorized(&app, &headers, &id).await?)))
}

/// Phase and steps, as they change.
pub async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let tenant = authorized(&app, &headers, &id).await?;
    let changes = watch_object(app.tenants(), &tenant.name_any()).filter_map(async |change| {
        let event = match change {
            Ok(Some(tenant)) => Event::default().event("tenant").json_data(describe(&tenant)).ok()?,
            Ok(None) => Event::default().event("deleted").data("{}"),
            Err(_) => return None,
        };
        Some(Ok(event))
    });
    let limited = changes.take_until(tokio::time::sleep(STREAM_LIMIT));
    Ok(Sse::new(limited).keep_alive(KeepAlive::default()))
}
