//! `kubectl tenant retry`

use anyhow::bail;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{KubeArgs, TenantArgs};
use crate::api::migration::MigrationState;
use crate::api::status::PlanChangeState;
use crate::api::{Phase, RETRY_ANNOTATION, Tenant, Timestamp};
use crate::lifecycle::Provider;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    tenant: TenantArgs,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let TenantArgs { name, .. } = &args.tenant;
    let api: Api<Tenant> = args.tenant.api(kube.client().await?);
    let status = api.get(name).await?.status.unwrap_or_default();
    let missing = status.namespace_missing_since.is_some();
    let declined = status
        .plan_change
        .as_ref()
        .is_some_and(|change| matches!(change.state, PlanChangeState::Declined | PlanChangeState::Unconfirmed));
    let unmoved = status.migration.as_ref().is_some_and(|migration| migration.state == MigrationState::Failed);
    if status.phase != Some(Phase::Failed) && !missing && !declined && !unmoved {
        let phase = status.phase.map_or_else(|| "without a phase".into(), |p| p.to_string());
        bail!(
            "tenant {name} is {phase}: nothing to retry. `retry` works for a Failed tenant, a missing {} namespace, a change of plan \
             that was declined or is not confirmed, and a move of documents that failed",
            Provider::VectorStore
        );
    }
    let change = json!({"metadata": {"annotations": {RETRY_ANNOTATION: Timestamp::now().as_second().to_string()}}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
    println!("tenant/{name} retried");
    Ok(())
}
