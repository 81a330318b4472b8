//! `/account/plan`: the plans, and what a change to each means for this account.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use kube::ResourceExt;
use minijinja::{Value, context};
use serde::Deserialize;

use super::extract::{ActiveCustomer, CsrfForm, Customer};
use super::pricing::offer;
use super::{PageResult, go};
use crate::api::plan::{Downgrades, Upgrades};
use crate::api::{Plan, Tenant};
use crate::lifecycle::is_smaller;
use crate::web::App;
use crate::web::customer::plan::{Shown, by_card, change_plan, seen};
use crate::web::customer::progress::effective_at;
use crate::web::serving::extract::Then;
use crate::web::serving::offers::for_sale;
use crate::web::serving::problem::Problem;

#[derive(Deserialize)]
pub struct PlanForm {
    #[serde(default)]
    plan: String,
    /// The plan in force and the one that was asked for, as the page showed them.
    #[serde(default)]
    seen: String,
}

/// Shows them.
pub async fn show(State(app): State<Arc<App>>, headers: HeaderMap, Customer(tenant): Customer) -> PageResult {
    page(&app, &headers, &tenant, None).await
}

/// Asks for one.
pub async fn change(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Then(CsrfForm(form), ActiveCustomer { tenant, .. }): Then<CsrfForm<PlanForm>, ActiveCustomer>,
) -> PageResult {
    match change_plan(&app, &tenant, &form.plan, Shown::Page(&form.seen)).await {
        Ok(_) => Ok(go("/account#plan")),
        Err(problem) => {
            // The page shows what made the change impossible.
            let now = app.tenants().get_opt(&tenant.name_any()).await.ok().flatten().unwrap_or(tenant);
            page(&app, &headers, &now, Some(problem)).await
        }
    }
}

async fn page(app: &App, headers: &HeaderMap, tenant: &Tenant, problem: Option<Problem>) -> PageResult {
    let plans = for_sale(app).await?;
    let current = plans.iter().find(|plan| plan.name_any() == tenant.plan_in_force());
    let offers: Vec<Value> = plans.iter().map(|plan| choice(plan, current, tenant)).collect();
    let status = problem.as_ref().map_or(StatusCode::OK, Problem::status);
    let error = problem.as_ref().map(Problem::detail).unwrap_or_default();
    let values = context! { plans => offers, error, seen => seen(tenant), by_card => by_card(tenant) };
    app.page(status, "plan.html", headers, values)
}

/// A plan, and what a change to it means.
fn choice(plan: &Plan, current: Option<&Plan>, tenant: &Tenant) -> Value {
    let status = tenant.status.clone().unwrap_or_default();
    let limits = status.config.as_ref().map(|config| &config.limits);
    let spec = &plan.spec;
    let smaller = is_smaller(spec, current.map(|plan| &plan.spec), limits);
    let means = match (smaller, spec.upgrades, spec.downgrades) {
        (true, _, Downgrades::AtPeriodEnd) => {
            "You keep your current plan until the end of the period that you paid for."
        }
        (true, _, Downgrades::Immediately) => {
            "It takes effect at once. What you overpaid is credited to the next invoice."
        }
        (false, Upgrades::AfterPayment, _) => {
            "It takes effect at once. The difference for the rest of the period is charged now."
        }
        (false, Upgrades::Immediately, _) => "It takes effect at once. The difference is on the next invoice.",
    };
    let name = plan.name_any();
    let scheduled = effective_at(&status).filter(|_| tenant.spec.plan == name).map(|at| at.to_string());
    context! { means, scheduled, current => tenant.plan_in_force() == name, undo => effective_at(&status).is_some(), ..offer(plan) }
}
