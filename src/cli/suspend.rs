//! `kubectl tenant suspend` and `resume`, `delete` and `reactivate`: what somebody wants of a tenant.

use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{KubeArgs, TenantArgs};
use crate::api::tenant::Desired;
use crate::api::{Phase, conditions};

/// Stops serving a tenant.
pub async fn suspend(kube: &KubeArgs, args: TenantArgs) -> anyhow::Result<()> {
    let tenant = set(kube, &args, Desired::Suspended).await?;
    println!(
        "{} will be suspended: not served, not charged, its data kept. `kubectl tenant resume {}` ends it.",
        tenant.name_any(),
        args.name
    );
    Ok(())
}

/// Serves it again.
pub async fn resume(kube: &KubeArgs, args: TenantArgs) -> anyhow::Result<()> {
    let tenant = set(kube, &args, Desired::Active).await?;
    let status = tenant.status.clone().unwrap_or_default();
    let reason = conditions::get(&status.conditions, conditions::READY).map(|c| c.reason.to_string());
    match (status.phase, reason.as_deref()) {
        (Some(Phase::Suspended), Some("SuspendedByAdmin")) => println!("{} will be served again.", args.name),
        (Some(Phase::Suspended), _) => anyhow::bail!(
            "{} is suspended for a missing payment, not by an admin: {}. It is served again when the customer pays",
            args.name,
            status.message.unwrap_or_default()
        ),
        _ => println!("{} is not suspended.", args.name),
    }
    Ok(())
}

/// Closes a tenant, and has it erased after its retention.
pub async fn delete(kube: &KubeArgs, args: TenantArgs) -> anyhow::Result<()> {
    set(kube, &args, Desired::Deleted).await?;
    println!(
        "{0} is closed: not served, its subscription not renewed. Its data is erased after the retention of its plan; \
         status.erasesAt says when. `kubectl tenant reactivate {0}` takes it back until then.",
        args.name
    );
    Ok(())
}

/// Takes it back.
pub async fn reactivate(kube: &KubeArgs, args: TenantArgs) -> anyhow::Result<()> {
    let api = args.api(kube.client().await?);
    let tenant = api.get(&args.name).await?;
    if tenant.spec.desired != Desired::Deleted {
        println!("{} is not closed.", args.name);
        return Ok(());
    }
    set(kube, &args, Desired::Active).await?;
    println!("{} is taken back. Where its subscription has ended, status.checkout.url sells it again.", args.name);
    Ok(())
}

async fn set(kube: &KubeArgs, args: &TenantArgs, desired: Desired) -> anyhow::Result<crate::api::Tenant> {
    let api = args.api(kube.client().await?);
    let change = json!({"spec": {"desired": desired}});
    Ok(api.patch(&args.name, &PatchParams::default(), &Patch::Merge(change)).await?)
}
