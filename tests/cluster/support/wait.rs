//! Waiting for something to hold.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;
use tenant_operator::api::{Phase, TenantStatus};

use super::World;

/// Generous: a condition that holds is seen at once, one that never holds fails the test.
pub const LIMIT: Duration = Duration::from_secs(90);

impl World {
    /// Waits until the status is as wanted.
    pub async fn wait(&self, name: &str, what: &str, wanted: impl Fn(&TenantStatus) -> bool) -> TenantStatus {
        let start = Instant::now();
        loop {
            let status = self.status(name).await;
            if wanted(&status) {
                return status;
            }
            assert!(start.elapsed() < LIMIT, "{name} is not {what}: {status:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let start = Instant::now();
        while !holds().await {
            assert!(start.elapsed() < LIMIT, "it never came that {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until all Tenants are as wanted, for as long as there is progress. Lists them every two seconds: to look at
    /// each would be most of the machine's work.
    pub async fn all_are(&self, count: usize, what: &str, wanted: impl Fn(&TenantStatus) -> bool) {
        let started = Instant::now();
        let (mut most, mut progress) = (0, started);
        loop {
            let all = self.tenants().list(&Default::default()).await.expect("listed").items;
            let are = all.iter().filter_map(|t| t.status.as_ref()).filter(|s| wanted(s)).count();
            if are == count {
                println!("{what}: {:.1} s", started.elapsed().as_secs_f64());
                return;
            }
            if are > most {
                (most, progress) = (are, Instant::now());
            }
            assert!(progress.elapsed() < LIMIT, "{are} of {count} are {what}");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }

    pub async fn wait_phase(&self, name: &str, phase: Phase) -> TenantStatus {
        self.wait(name, &phase.to_string(), |s| s.phase == Some(phase)).await
    }

    pub async fn wait_true(&self, name: &str, condition: &str) -> TenantStatus {
        self.wait(name, condition, |s| tenant_operator::api::conditions::is_true(&s.conditions, condition)).await
    }

    pub async fn wait_gone(&self, name: &str) {
        let start = Instant::now();
        while self.tenants().get_opt(name).await.expect("the API answers").is_some() {
            assert!(start.elapsed() < LIMIT, "{name} is still there: {:#?}", self.status(name).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the controller has read a whole list at Stripe so often once more, and has acted on what it read.
    pub async fn wait_for_reads(&self, path: &str, times: usize) {
        let of_all = |r: &Value| r["path"] == path && !r["query"].as_str().is_some_and(|q| q.contains("customer"));
        let before = self.calls(of_all).await;
        // The next read begins once the last one is compared.
        self.until("all is read again", async || self.calls(of_all).await > before + times).await;
    }

    /// Waits for an Event about the tenant.
    pub async fn wait_event(&self, name: &str, reason: &str) {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let about = ListParams::default().fields(&format!("regarding.name={name},reason={reason}"));
        let start = Instant::now();
        while events.list(&about).await.expect("the API answers").items.is_empty() {
            assert!(start.elapsed() < LIMIT, "no Event {reason}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a Secret is as wanted.
    pub async fn wait_secret(&self, name: &str, wanted: impl Fn(&Secret) -> bool) {
        let start = Instant::now();
        while !self.secrets().get_opt(name).await.expect("the API answers").as_ref().is_some_and(&wanted) {
            assert!(start.elapsed() < LIMIT, "Secret {name} is not as wanted");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
