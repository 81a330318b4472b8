//! `kubectl tenant adopt`

use anyhow::{Context as _, bail};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{KubeArgs, TenantArgs};
use crate::api::{KEEP_DATA_ANNOTATION, PROOF_ANNOTATION, Tenant};
use crate::operator_keys::IdentityKey;

/// Prove that a moved, renamed or restored Tenant owns its tenant id.
///
/// With the id, the Tenant keeps its data, its API key and its subscription. Needs read access to the operator's
/// identity key. Delete the old object first, with the annotation `tenant-operator.dev/keep-data=true`: an id that
/// another object holds is refused.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    tenant: TenantArgs,
    /// The namespace of the operator's own Secrets.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    operator_namespace: String,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let client = kube.client().await?;
    let TenantArgs { name, .. } = &args.tenant;
    let api = args.tenant.api(client.clone());
    let tenant = api.get(name).await?;
    let Some(id) = &tenant.spec.tenant_id else {
        bail!("tenant {} has no spec.tenantId; the controller gives it one of its own", tenant.place());
    };
    let identity = IdentityKey::read(&client, &args.operator_namespace).await?.with_context(|| {
        format!("no identity key in namespace {}: set --operator-namespace", args.operator_namespace)
    })?;
    if tenant.uid().as_ref() == Some(id) || identity.has_proof(&tenant) {
        println!("tenant/{name} already holds tenant id {id}");
        return Ok(());
    }
    let all: Api<Tenant> = Api::all(client);
    for other in all.list(&kube::api::ListParams::default()).await? {
        let rightful = other.uid().as_ref() == Some(id) || identity.has_proof(&other);
        if other.spec.tenant_id.as_ref() == Some(id) && other.uid() != tenant.uid() && rightful {
            bail!(
                "tenant id {id} is held by {}. Delete that object first, with the annotation {KEEP_DATA_ANNOTATION}=true to keep the data",
                other.place()
            );
        }
    }
    let proof = identity.identity_proof(id, tenant.place());
    let change = json!({
        "metadata": {"resourceVersion": tenant.resource_version(), "annotations": {PROOF_ANNOTATION: proof}},
    });
    api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
    println!("tenant/{name} now holds tenant id {id}");
    Ok(())
}
