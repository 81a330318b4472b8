//! What customers reach on their way: each milestone is noted once, with its time, and told as an event.

use std::sync::Arc;

use kube::ResourceExt;
use serde_json::json;

use super::App;
use super::directory::Served;
use crate::api::{MILESTONES, Tenant, reached_annotation, reached_at};
use crate::events::Event;

/// Queries of the milestone `ten-queries`.
const TEN: i64 = 10;

/// Notes a milestone, the first time that it is reached. It is of use, and not worth an error to a customer.
pub async fn reached(app: &App, tenant: &Tenant, milestone: &'static str) {
    debug_assert!(MILESTONES.contains(&milestone));
    let noted = |tenant: &Tenant| {
        let new = reached_at(tenant, milestone).is_none();
        let at = app.now();
        Ok(new.then(|| json!({"metadata": {"annotations": {reached_annotation(milestone): at}}})))
    };
    match app.change_tenant(tenant, noted).await {
        Ok(Some(_)) => {
            tracing::info!(target: "audit", event = milestone, tenant = tenant.name_any());
            app.happened(&Event::milestone(tenant, milestone));
        }
        Ok(None) => {}
        Err(problem) => tracing::warn!(problem = problem.detail(), milestone, "a milestone was not noted"),
    }
}

/// A question was answered: which step of the setup it was, and whether it was the tenth of so many.
pub async fn asked(app: &App, tenant: &Tenant, queries: i64) {
    let own = reached_at(tenant, "first-document").is_some();
    reached(app, tenant, if own { "own-query" } else { "sample-query" }).await;
    if queries >= TEN {
        reached(app, tenant, "ten-queries").await;
    }
}

impl App {
    /// Writes an event down, and counts it.
    pub fn happened(&self, event: &Event) {
        self.events.record(&self.metrics, event);
    }

    /// Somebody tries a step.
    pub fn tries(&self, tenant: &Tenant, step: &str) {
        self.happened(&Event::attempt(tenant, step));
    }

    /// The same of a customer who calls the tenant API, after the answer and without keeping anybody waiting. `queries`
    /// counts those of the present period.
    pub fn asked_by_api(self: &Arc<Self>, served: &Arc<Served>, queries: fn(&Self, &Served, &Tenant) -> i64) {
        let step = if served.has_reached("first-document") { "own-query" } else { "sample-query" };
        if served.has_reached(step) && served.has_reached("ten-queries") {
            return;
        }
        let (app, served) = (self.clone(), served.clone());
        tokio::spawn(async move {
            if let Some(tenant) = app.signed_up(&served).await {
                asked(&app, &tenant, queries(&app, &served, &tenant)).await;
            }
        });
    }

    /// A customer stored a document by the tenant API. Noted before the answer: the next question may be about it.
    pub async fn stored_by_api(&self, served: &Served) {
        if served.has_reached("first-document") {
            return;
        }
        if let Some(tenant) = self.signed_up(served).await {
            reached(self, &tenant, "first-document").await;
        }
    }

    /// The object of a tenant that signed up. Those that came by manifest to another namespace have no pages.
    async fn signed_up(&self, served: &Served) -> Option<Tenant> {
        let ours = served.namespace == self.config.namespace;
        let there = if ours { self.tenants().get_opt(&served.name).await.ok().flatten() } else { None };
        there.filter(|tenant| tenant.uid().as_ref() == Some(&served.uid))
    }
}
