//! Tenants: what is done to them, and what is read of them.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tenant_operator::api::status::PlanChangeState;
use tenant_operator::api::tenant::{BillingMode, Desired};
use tenant_operator::api::{Phase, Tenant, TenantStatus, conditions};

use super::{World, tenant};

impl World {
    pub fn tenants(&self) -> Api<Tenant> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn create(&self, name: &str, plan: &str, mode: BillingMode) -> Tenant {
        let tenant = tenant(name, plan, mode);
        self.tenants().create(&PostParams::default(), &tenant).await.expect("the tenant is taken")
    }

    /// Creates a tenant that pays by Stripe, pays, and waits until it is Active and welcomed.
    pub async fn create_paying(&self, name: &str, plan: &str) {
        self.create(name, plan, BillingMode::Stripe).await;
        self.pay(name).await;
        self.wait_true(name, "WelcomeEmailSent").await;
    }

    pub async fn status(&self, name: &str) -> TenantStatus {
        self.tenants().get(name).await.expect("the tenant is there").status.unwrap_or_default()
    }

    pub async fn annotate(&self, name: &str, key: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        self.tenants().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("annotated");
    }

    /// Deletes a Tenant, and means it.
    pub async fn erase(&self, name: &str) {
        let id = self.tenants().get(name).await.expect("it is there").spec.tenant_id.unwrap_or_default();
        self.annotate(name, "tenant-operator.dev/erase", &id).await;
        self.tenants().delete(name, &Default::default()).await.expect("deletion is asked for");
    }

    /// Wipes the status, as a restore without it does.
    pub async fn lose_status(&self, name: &str) {
        let wipe = Patch::Merge(json!({"status": null}));
        let seen = self.tenants().patch_status(name, &PatchParams::default(), &wipe).await.expect("wiped");
        assert_eq!(seen.status, None);
    }

    pub async fn pay(&self, name: &str) {
        let status = self.wait(name, "waiting for payment", |s| s.checkout.is_some()).await;
        let url = status.checkout.expect("a link").url;
        let answer = self.http.post(url).form(&[("card", "4242424242424242")]).send().await.expect("the page answers");
        assert_eq!(answer.status(), 303);
    }

    pub async fn api_key(&self, name: &str) -> String {
        let secret = self.secrets().get(&format!("{name}-api-key")).await.expect("the Secret is there");
        String::from_utf8(secret.data.expect("data")["api-key"].0.clone()).expect("text")
    }

    /// There is exactly one namespace, Secret, customer, subscription and welcome mail, whatever went wrong on the way.
    pub async fn assert_one_of_each(&self, name: &str) {
        self.wait_true(name, "WelcomeEmailSent").await;
        let pinecone = self.sandbox_get("/_sandbox/pinecone").await;
        assert_eq!(pinecone["created"], 1, "namespaces: {pinecone}");
        let stripe = self.sandbox_get("/_sandbox/state").await;
        for kind in ["customer", "subscription", "invoice"] {
            assert_eq!(stripe[kind].as_array().map(Vec::len), Some(1), "{kind}: {stripe}");
        }
        assert_eq!(self.mails("welcome").await, 1);
        self.assert_transitions(name).await;
    }

    /// Each change of phase once, in order.
    pub async fn assert_transitions(&self, name: &str) {
        let transitions = self.status(name).await.transitions;
        let mut before = None;
        let mut seq = 0;
        for t in &transitions {
            assert_eq!(t.from_state, before, "{transitions:#?}");
            assert!(t.seq > seq, "{transitions:#?}");
            (before, seq) = (Some(t.to_state), t.seq);
        }
    }
}

/// Asks for another plan.
pub async fn wish(world: &World, name: &str, size: &str) -> Result<(), kube::Error> {
    let patch = Patch::Merge(json!({"spec": {"plan": size}}));
    world.tenants().patch(name, &Default::default(), &patch).await.map(drop)
}

pub async fn desire(world: &World, name: &str, desired: Desired) -> Result<(), kube::Error> {
    let patch = Patch::Merge(json!({"spec": {"desired": desired}}));
    world.tenants().patch(name, &Default::default(), &patch).await.map(drop)
}

pub fn closed(status: &TenantStatus) -> bool {
    status.phase == Some(Phase::Deleting) && conditions::is_true(&status.conditions, "RenewalStopped")
}

/// How far a change of plan is.
pub fn plan_change(status: &TenantStatus) -> Option<PlanChangeState> {
    status.plan_change.as_ref().map(|change| change.state)
}

/// The documents that the plan in force allows.
pub fn document_limit(status: &TenantStatus) -> i64 {
    status.config.as_ref().map_or(0, |config| config.limits.documents)
}

/// As a backup has it: without what the API server fills in.
pub fn backup(tenant: &Tenant) -> Tenant {
    let mut kept = tenant.clone();
    (kept.metadata.uid, kept.metadata.resource_version, kept.metadata.creation_timestamp) = (None, None, None);
    (kept.metadata.deletion_timestamp, kept.metadata.generation, kept.status) = (None, None, None);
    kept
}
