//! What customers reach on their way: each milestone is noted once, with its time, and told as an event.

use kube::ResourceExt;
use serde_json::json;

use crate::api::{MILESTONES, Tenant, reached_annotation, reached_at};
use crate::events::Event;
use crate::rag::Basis;
use crate::web::App;
use crate::web::api::usage;
use crate::web::serving::directory::Served;

/// Answered questions of the milestone `ten-queries`, since the account began.
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
            app.happened(&Event::milestone(tenant, milestone, app.now()));
        }
        Ok(None) => {}
        Err(problem) => tracing::warn!(problem = problem.detail(), milestone, "a milestone was not noted"),
    }
}

/// The step of the setup that a question belongs to.
fn step(served: &Served) -> &'static str {
    if served.has_reached("first-document") { "own-query" } else { "sample-query" }
}

impl App {
    /// Writes an event down, and counts it.
    pub fn happened(&self, event: &Event) {
        self.events.record(&self.metrics, event);
    }

    /// A customer tries something beside the steps of the setup.
    pub fn tries(&self, tenant: &Tenant, step: &str) {
        self.happened(&Event::attempt(tenant, step, self.now()));
    }

    /// A customer asks a question: an attempt at its step, until they have reached it. Once they are past it, a
    /// customer's daily questions are no news.
    pub fn asks(&self, served: &Served) {
        if !served.has_reached(step(served)) {
            self.happened(&Event::attempt(served, step(served), self.now()));
        }
    }

    /// A question came to nothing, for this reason.
    pub fn asked_in_vain(&self, served: &Served, reason: &str) {
        if !served.has_reached(step(served)) {
            self.happened(&Event::failure(served, step(served), reason, self.now()));
        }
    }

    /// A question was answered. The first answer that rests on a document reaches `sample-query`; the first that rests
    /// on a document of the customer's own reaches `own-query`.
    pub async fn asked(&self, served: &Served, basis: Basis) {
        let reaches: &[&'static str] = match basis {
            Basis::Nothing => return,
            Basis::Samples => &["sample-query"],
            Basis::OwnDocuments => &["sample-query", "own-query"],
        };
        let all = |milestones: &[&str]| milestones.iter().all(|milestone| served.has_reached(milestone));
        if all(reaches) && all(&["ten-queries"]) {
            return;
        }
        let Some(tenant) = self.signed_up(served).await else { return };
        for milestone in reaches {
            reached(self, &tenant, milestone).await;
        }
        // While the ledger is away, the next question notes it.
        if usage::all_queries(self, served, &tenant).await.is_ok_and(|all| all >= TEN) {
            reached(self, &tenant, "ten-queries").await;
        }
    }

    /// A customer sends a document: an attempt, until the first one is stored.
    pub fn stores(&self, served: &Served) {
        if !served.has_reached("first-document") {
            self.happened(&Event::attempt(served, "first-document", self.now()));
        }
    }

    /// A document was not stored, for this reason.
    pub fn stored_in_vain(&self, served: &Served, reason: &str) {
        if !served.has_reached("first-document") {
            self.happened(&Event::failure(served, "first-document", reason, self.now()));
        }
    }

    /// A customer stored a document. Noted before the answer: the next question may be about it.
    pub async fn has_stored(&self, served: &Served) {
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
