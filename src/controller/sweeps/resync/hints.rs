//! Queues the tenants that differ.

use kube::ResourceExt;

use crate::api::{Phase, Tenant};
use crate::controller::Key;
use crate::controller::context::Context;
use crate::providers::Priority;

/// Tenants that are compared in a row.
const IN_A_ROW: usize = 64;

/// Queues the tenants that differ.
pub async fn hint_all(context: &Context, kind: &str, read: usize, differs: impl Fn(&Tenant) -> Option<Priority>) {
    let mut hints = 0;
    for (i, tenant) in context.caches.each_tenant().enumerate() {
        if let Some(priority) = differs(&tenant) {
            hint(context, &tenant, priority);
            hints += 1;
        }
        // A customer who waits must not wait until ten thousand tenants are compared.
        if i % IN_A_ROW == 0 {
            tokio::task::yield_now().await;
        }
    }
    tracing::info!(kind, read, hints, "everything compared");
}

/// Queues one tenant, which is then compared in full.
pub fn hint(context: &Context, tenant: &Tenant, priority: Priority) {
    context.memory.hint(&tenant.uid().unwrap_or_default());
    context.queue.add(Key::of(tenant), priority);
}

/// The phase that the status shows.
pub fn phase(tenant: &Tenant) -> Option<Phase> {
    tenant.status.as_ref().and_then(|s| s.phase)
}
