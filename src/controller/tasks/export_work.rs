//! Runs each export as a task of its own beside the reconciles, so that a large export does not hold up other tenants.
//! The files that it has written outlive a restart of the controller.

use std::sync::Arc;

use kube::ResourceExt;

use super::Waits;
use crate::api::Tenant;
use crate::api::tenant::BillingMode;
use crate::controller::Key;
use crate::controller::context::Context;
use crate::controller::steps::billing::payer;
use crate::export::{Export, ExportError, ExportSize, Source, Store};
use crate::lifecycle::ObservedExport;
use crate::providers::Priority;

/// How far the export is that the tenant's spec asks for. It is begun, or taken up again after a restart.
pub fn go_on(context: &Arc<Context>, tenant: &Tenant) -> ObservedExport {
    let nothing = |problem: &str| ObservedExport::Running { files: 0, bytes: 0, problem: Some(problem.to_owned()) };
    let (Some(request), Some(uid)) = (tenant.spec.export_request.clone(), tenant.uid()) else {
        return nothing("spec.exportRequest was removed");
    };
    let Some(store) = context.exports.store(tenant).cloned() else {
        return nothing("There is no storage for exports of this tenant's region. Set EXPORTS_URL or EXPORTS_REGIONS");
    };
    context.exports.tasks.seen(&uid, &request).unwrap_or_else(|| {
        let begun = ObservedExport::Running { files: 0, bytes: 0, problem: None };
        let work = work(context.clone(), store, tenant.clone(), request.clone());
        context.exports.tasks.begin(uid, request, begun.clone(), work);
        begun
    })
}

/// Works until the export is complete. Shows an error in the status and tries again; the lifecycle ends one that takes
/// too long.
async fn work(context: Arc<Context>, store: Store, tenant: Tenant, request: String) {
    let place = store.folder(tenant.tenant_id(), &request);
    let mut waits = Waits::default();
    while context.fence.holds() {
        let outcome = {
            let uid = tenant.uid().unwrap_or_default();
            let Some(_turn) = context.exports.tasks.turn(&uid, &request).await else { return };
            Priority::Resync.scope(run(&context, &store, &tenant, &request)).await
        };
        match outcome {
            Ok((files, bytes)) => {
                tracing::info!(tenant = tenant.name_any(), files, bytes, "export complete");
                show(&context, &tenant, &request, true, |_| ObservedExport::Done { path: place.clone(), files, bytes });
                return;
            }
            Err(ExportError::Stopped) => return,
            Err(error) => {
                tracing::warn!(tenant = tenant.name_any(), %error, "export failed; retrying");
                let problem = error.to_string();
                show(&context, &tenant, &request, false, |before| match before {
                    ObservedExport::Running { files, bytes, .. } => {
                        ObservedExport::Running { files: *files, bytes: *bytes, problem: Some(problem) }
                    }
                    ObservedExport::Done { .. } => before.clone(),
                });
            }
        }
        waits.next().await;
    }
}

/// One run, and what it wrote.
async fn run(context: &Arc<Context>, store: &Store, tenant: &Tenant, request: &str) -> Result<(u64, u64), ExportError> {
    let on_file = |ExportSize { files, bytes }: ExportSize| {
        progress(context, tenant, request, ObservedExport::Running { files, bytes, problem: None });
        context.fence.holds() && context.exports.tasks.may_go_on(&tenant.uid().unwrap_or_default(), request)
    };
    let by_stripe = tenant.spec.billing.mode == BillingMode::Stripe;
    let stripe = by_stripe.then(|| (&context.providers.stripe, payer(tenant)));
    let index = context.providers.indexes.of(tenant.region())?;
    let source = Source { tenant, index, stripe, now: context.clock.read().now };
    let manifest = Export { store, source, request, on_file: &on_file }.run().await?;
    context.exports.delete_elsewhere(tenant, store).await?;
    Ok((manifest.files.len() as u64, manifest.bytes()))
}

/// Notes how far it is, and lets the status say so now and then.
fn progress(context: &Context, tenant: &Tenant, request: &str, seen: ObservedExport) {
    if context.exports.tasks.is_due(&tenant.uid().unwrap_or_default()) {
        show(context, tenant, request, false, |_| seen);
    }
}

/// Notes what there is to see, and has the tenant looked at.
fn show(
    context: &Context,
    tenant: &Tenant,
    request: &str,
    ended: bool,
    seen: impl FnOnce(&ObservedExport) -> ObservedExport,
) {
    if context.exports.tasks.note(&tenant.uid().unwrap_or_default(), request, ended, seen) {
        context.queue.add(Key::of(tenant), Priority::Repair);
    }
}
