//! `kubectl tenant confirm`: lets happen what the operator holds for a tenant until a person has looked.

use anyhow::bail;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::{KubeArgs, ScopeArgs, in_namespace};
use crate::api::{CONFIRM_ANNOTATION, Tenant};
pub use crate::lifecycle::HeldDecision;

#[derive(clap::Args)]
pub struct Args {
    /// The Tenant's name.
    #[arg(required_unless_present = "all")]
    name: Option<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// All Tenants with a held decision. Without --yes, the command only lists them.
    #[arg(long, conflicts_with = "name")]
    all: bool,
    /// With --all: confirm each of them.
    #[arg(long)]
    yes: bool,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let client = kube.client().await?;
    if let Some(name) = &args.name {
        let api: Api<Tenant> = in_namespace(client.clone(), args.scope.namespace.as_deref());
        let tenant = api.get(name).await?;
        let Some(held) = HeldDecision::of(&tenant) else { bail!("nothing is held for tenant {name}") };
        confirm(&client, &tenant, &held).await?;
        println!("tenant/{name}: {} confirmed", held.why);
        return Ok(());
    }
    let mut all = Vec::new();
    // A customer whom Stripe does not know needs a confirmation for each tenant.
    let look = |tenant: &Tenant| {
        let held = HeldDecision::of(tenant).filter(|held| held.annotation == CONFIRM_ANNOTATION);
        all.extend(held.map(|held| (tenant.clone(), held)));
    };
    args.scope.each(client.clone(), look).await?;
    for (tenant, held) in &all {
        println!("{}/{}\t{}", tenant.namespace().unwrap_or_default(), tenant.name_any(), held.why);
    }
    if !args.yes {
        bail!("nothing was confirmed: to confirm these {}, add --yes", all.len());
    }
    for (tenant, held) in &all {
        confirm(&client, tenant, held).await?;
    }
    println!("{} confirmed", all.len());
    Ok(())
}

async fn confirm(client: &Client, tenant: &Tenant, held: &HeldDecision) -> Result<(), kube::Error> {
    let api: Api<Tenant> = Api::namespaced(client.clone(), &tenant.namespace().unwrap_or_default());
    let change = json!({"metadata": {"uid": tenant.uid(), "annotations": {held.annotation: held.value}}});
    api.patch(&tenant.name_any(), &PatchParams::default(), &Patch::Merge(change)).await.map(drop)
}
