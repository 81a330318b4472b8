//! Tenants: what one is made from, and what is done to it and read of it.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tenant_operator::api::tenant::{Billing, BillingMode};
use tenant_operator::api::{Tenant, TenantSpec, TenantStatus};

use super::World;

pub fn tenant(name: &str, plan: &str, mode: BillingMode) -> Tenant {
    Tenant::new(
        name,
        TenantSpec {
            export_request: None,
            wish: None,
            suspension: None,
            plan_in_force: None,
            data: None,
            deletion_policy: None,
            company_name: "Analytical Engines".into(),
            admin_email: format!("{name}@example.com"),
            plan: plan.into(),
            billing: Billing { mode, approved: mode == BillingMode::Manual, stripe: None },
            tenant_id: None,
            login: None,
            terms: None,
            desired: Default::default(),
            settings: Default::default(),
            api_key_generation: 1,
        },
    )
}

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

    pub async fn api_key(&self, name: &str) -> Vec<u8> {
        let secret = self.secrets().get(&format!("{name}-api-key")).await.expect("the Secret is there");
        secret.data.expect("data")["api-key"].0.clone()
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
