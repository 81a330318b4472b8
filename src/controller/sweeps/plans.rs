//! Protects Plans that tenants use from deletion. A deleted Plan goes when its last tenant is gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::api::{GROUP, Plan};
use crate::controller::context::Context;
use crate::controller::kubernetes::FIELD_MANAGER;
use crate::controller::watch::{Scope, within};

/// How often plans and their tenants are compared.
const EVERY: Duration = Duration::from_secs(2);

/// Our finalizer. Each watched namespace has its own, since another controller may watch another one.
fn finalizer(scope: &Scope) -> String {
    scope.as_ref().map_or_else(|| format!("{GROUP}/in-use"), |namespace| format!("{namespace}.{GROUP}/in-use"))
}

/// Keeps the finalizer on every plan that is in use, and reports the deletions that it blocks.
pub async fn protect(context: Arc<Context>, scopes: Vec<Scope>) {
    if !context.caches.filled().await {
        return;
    }
    let mut told: Vec<_> = scopes.iter().map(|_| HashMap::new()).collect();
    loop {
        for (scope, told) in scopes.iter().zip(&mut told) {
            let users = users(&context, scope);
            for plan in context.caches.plans.all() {
                let users = users.get(&plan.name_any()).map(Vec::as_slice).unwrap_or_default();
                if let Err(error) = settle(&context, &plan, users, &finalizer(scope), told).await {
                    tracing::warn!(plan = %plan.name_any(), %error, "the Plan's finalizer was not written; retrying");
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// The tenants of a scope, by their plan.
fn users(context: &Context, scope: &Scope) -> HashMap<String, Vec<String>> {
    let mut users: HashMap<String, Vec<String>> = HashMap::new();
    context.caches.tenants.visit(|key, tenant| {
        if within(scope, key) {
            for plan in tenant.plans() {
                users.entry(plan.to_owned()).or_default().push(key.to_string());
            }
        }
    });
    users
}

async fn settle(
    context: &Context,
    plan: &Plan,
    users: &[String],
    finalizer: &str,
    told: &mut HashMap<String, usize>,
) -> Result<(), kube::Error> {
    let held = plan.finalizers().iter().any(|f| f == finalizer);
    let deleting = plan.metadata.deletion_timestamp.is_some();
    if !users.is_empty() && deleting && told.insert(plan.name_any(), users.len()) != Some(users.len()) {
        let some = users.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        let note = format!(
            "{} tenants use this Plan ({some}{}). It is deleted when the last of them is gone",
            users.len(),
            if users.len() > 3 { ", ..." } else { "" }
        );
        context.events.warn(plan, "PlanInUse", note);
    }
    // Kubernetes takes no new finalizer for an object that is being deleted.
    let wanted = !users.is_empty();
    if held == wanted || (wanted && deleting) {
        return Ok(());
    }
    let mut finalizers = plan.finalizers().to_vec();
    finalizers.retain(|f| f != finalizer);
    if wanted {
        finalizers.push(finalizer.into());
    }
    let change = json!({"metadata": {"resourceVersion": plan.resource_version(), "finalizers": finalizers}});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    context.kubernetes.count("plan");
    let plans: Api<Plan> = Api::all(context.kubernetes.client.clone());
    match plans.patch(&plan.name_any(), &params, &Patch::Merge(change)).await {
        // The Plan has changed or gone meanwhile. The next pass sees that.
        Err(kube::Error::Api(e)) if matches!(e.code, 404 | 409) => Ok(()),
        other => other.map(drop),
    }
}
