//! `/account/close`: what happens when an account is closed, why, and the way back.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use kube::ResourceExt;
use minijinja::{Value, context};
use serde::Deserialize;

use super::extract::{CsrfForm, Customer};
use super::{PageResult, go};
use crate::api::Tenant;
use crate::web::App;
use crate::web::customer::leaving::{Leave, REASONS, close_account, come_back, seen};
use crate::web::serving::extract::Then;
use crate::web::serving::offers::for_sale;
use crate::web::serving::problem::Problem;

#[derive(Deserialize, Default)]
pub struct CloseForm {
    /// What the page showed: see [`seen`].
    #[serde(default)]
    seen: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    comment: String,
}

/// Asks whether it is meant.
pub async fn show(State(app): State<Arc<App>>, headers: HeaderMap, Customer(tenant): Customer) -> PageResult {
    page(&app, &headers, &tenant, &CloseForm::default(), None).await
}

async fn page(
    app: &App,
    headers: &HeaderMap,
    tenant: &Tenant,
    form: &CloseForm,
    problem: Option<Problem>,
) -> PageResult {
    let plans = for_sale(app).await?;
    let plan = plans.iter().find(|plan| plan.name_any() == tenant.plan_in_force());
    let days = plan.map(|plan| plan.spec.retention_days);
    let reasons: Vec<Value> = REASONS.iter().map(|&(name, text)| context! { name, text }).collect();
    let status = problem.as_ref().map_or(StatusCode::OK, Problem::status);
    let error = problem.as_ref().map(Problem::detail).unwrap_or_default();
    let values =
        context! { days, reasons, error, seen => seen(tenant), reason => &*form.reason, comment => &*form.comment };
    app.page(status, "close.html", headers, values)
}

/// Closes it.
pub async fn close(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Then(CsrfForm(form), Customer(tenant)): Then<CsrfForm<CloseForm>, Customer>,
) -> PageResult {
    // Again in the write: another click may close or reopen the account meanwhile.
    if form.seen != seen(&tenant) {
        return Ok(go("/account"));
    }
    let leave = Leave { reason: form.reason.clone(), comment: form.comment.trim().to_owned() };
    match close_account(&app, &tenant, &leave, Some(&form.seen)).await {
        // Sessions from before the end of the account are over; the browser that closed it may take it back.
        Ok((left, generation)) => {
            let mut response = go("/account");
            if let Some(generation) = generation {
                app.log_in_of(&left, generation, response.headers_mut());
            }
            Ok(response)
        }
        Err(problem) => page(&app, &headers, &tenant, &form, Some(problem)).await,
    }
}

#[derive(Deserialize)]
pub struct TakeBack {
    /// What the page showed: see [`seen`].
    #[serde(default)]
    seen: String,
}

/// Takes it back.
pub async fn reactivate(
    State(app): State<Arc<App>>,
    Then(CsrfForm(form), Customer(tenant)): Then<CsrfForm<TakeBack>, Customer>,
) -> PageResult {
    if form.seen == seen(&tenant) {
        come_back(&app, &tenant, Some(&form.seen)).await?;
    }
    Ok(go("/account"))
}
