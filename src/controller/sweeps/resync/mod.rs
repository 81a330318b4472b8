//! The bulk resync: reads the state of all tenants at Stripe and the vector store page by page, and reconciles only
//! tenants that differ. Ten thousand tenants cost some hundred calls.

mod billing;
mod disputes;
mod events;
mod hints;
mod namespaces;
mod subscriptions;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::controller::context::Context;
use crate::controller::watch::Scope;
use crate::providers::stripe::EventCursor;
use crate::providers::{Priority, ProviderError};

/// Compares forever. Stripe and the vector store are independent: during an outage of one, the other is still compared.
pub async fn run(context: Arc<Context>, scopes: Vec<Scope>) {
    if context.caches.filled().await {
        let both = futures::future::join(stripe(&context, &scopes), vector_store(&context));
        Priority::Resync.scope(both).await;
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.max(1).unsigned_abs())
}

/// Reads what is new at Stripe each `resync`, and everything each `full_resync`. If the full pass fails, the events are
/// read all the same.
async fn stripe(context: &Context, scopes: &[Scope]) {
    let mut cursor: Option<EventCursor> = None;
    let mut full_at: Option<Instant> = None;
    loop {
        // The events come before the pages, so that the next read of the events finds what happens while the pages are
        // read.
        note(context, "events", &events::read(context, &mut cursor).await);
        if full_at.is_none_or(|at| at.elapsed() >= seconds(context.policy.full_resync)) {
            let started = Instant::now();
            if note(context, "subscriptions", &subscriptions::compare(context, scopes).await) {
                full_at = Some(started);
            }
        }
        note(context, "disputes", &disputes::compare(context).await);
        pause(context.policy.resync).await;
    }
}

/// All namespaces each `full_resync`, or each `resync` until it works.
async fn vector_store(context: &Context) {
    loop {
        let done = note(context, "namespaces", &namespaces::compare(context).await);
        pause(if done { context.policy.full_resync } else { context.policy.resync }).await;
    }
}

/// Counts an outcome. True when it worked.
fn note(context: &Context, kind: &str, outcome: &Result<(), ProviderError>) -> bool {
    let result = if outcome.is_ok() { "ok" } else { "failed" };
    context.metrics.resyncs.get_or_create(&format!("{kind}_{result}").as_str().into()).inc();
    if let Err(error) = outcome {
        tracing::warn!(%error, kind, "resync failed; retrying");
    }
    outcome.is_ok()
}

/// Not in step with others that were started at the same moment.
async fn pause(wanted: i64) {
    tokio::time::sleep(seconds(wanted).mul_f64(rand::random_range(0.9..1.1))).await;
}

/// What the tests of these files compare.
#[cfg(test)]
mod tests {
    use crate::api::{Phase, Tenant, TenantStatus, Timestamp};
    use crate::lifecycle::ObservedSubscription;

    pub const NOW: Timestamp = Timestamp::from_second(1000);

    pub fn tenant(phase: Option<Phase>) -> Tenant {
        let spec = serde_json::json!({"companyName": "A", "adminEmail": "a@b.cd", "tenantId": "t"});
        let mut tenant = Tenant::new("t", serde_json::from_value(spec).expect("a spec"));
        tenant.status = Some(TenantStatus {
            phase,
            subscription: Some("active".into()),
            provisioned_at: Some(Timestamp::from_second(100)),
            ..TenantStatus::default()
        });
        tenant
    }

    pub fn subscription(status: &str) -> ObservedSubscription {
        ObservedSubscription {
            id: "sub_1".into(),
            status: status.into(),
            renews: true,
            ..ObservedSubscription::default()
        }
    }
}
