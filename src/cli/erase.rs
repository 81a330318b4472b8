//! `kubectl tenant erase`: deletes a tenant with everything that belongs to it.

use anyhow::{Context as _, bail};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{KubeArgs, TenantArgs};
use crate::api::{ERASE_ANNOTATION, Tenant};
use crate::lifecycle::Provider;
use crate::plain::plain;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    tenant: TenantArgs,
    /// The tenant's name again, to confirm. Without it, the command prints what would be erased.
    #[arg(long)]
    confirm: Option<String>,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let api: Api<Tenant> = args.tenant.api(kube.client().await?);
    let tenant = api.get(&args.tenant.name).await?;
    let name = tenant.name_any();
    if args.confirm.as_deref() != Some(name.as_str()) {
        println!("{}", what(&tenant));
        bail!("nothing was erased: to erase {name}, add --confirm {name}");
    }
    let id =
        tenant.spec.tenant_id.clone().context("the controller has not seen this Tenant yet: use kubectl delete")?;
    let change = json!({"metadata": {"uid": tenant.uid(), "annotations": {ERASE_ANNOTATION: id}}});
    api.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await?;
    api.delete(&name, &DeleteParams::default()).await?;
    println!("{name} is being erased; `kubectl get tenant {name}` shows how far it is.");
    Ok(())
}

/// What is erased with a tenant.
fn what(tenant: &Tenant) -> String {
    let (stripe, store) = (tenant.spec.billing.stripe.clone().unwrap_or_default(), Provider::VectorStore);
    let status = tenant.status.clone().unwrap_or_default();
    let lines = [
        Some(format!(
            "{} ({}), {}",
            tenant.name_any(),
            plain(&tenant.spec.company_name),
            plain(&tenant.spec.admin_email)
        )),
        status.namespace.map(|_| format!("  {store} namespace {}, with all documents", tenant.data_namespace())),
        status.api_key_secret.map(|name| format!("  Secret {name}")),
        stripe.subscription_id.map(|id| format!("  Stripe subscription {id}, cancelled at once")),
    ];
    lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::hostile;

    #[test]
    fn a_name_of_a_manifest_controls_no_terminal() {
        assert_eq!(what(&hostile()), "acme (Acme [2J), ada @example.com");
    }
}
