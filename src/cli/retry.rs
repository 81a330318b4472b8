//! `kubectl tenant retry`

use anyhow::bail;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::KubeArgs;
use crate::api::{Phase, RETRY_ANNOTATION, Tenant, Timestamp, conditions};

#[derive(clap::Args)]
pub struct Args {
    /// The Tenant's name.
    name: String,
    /// Its namespace; otherwise the kubeconfig's.
    #[arg(long, short)]
    namespace: Option<String>,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let client = kube.client().await?;
    let api: Api<Tenant> = match &args.namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::default_namespaced(client),
    };
    let status = api.get(&args.name).await?.status.unwrap_or_default();
    let namespace = conditions::get(&status.conditions, conditions::NAMESPACE_READY);
    let missing = namespace.is_some_and(|c| c.reason == "NamespaceMissing");
    if status.phase != Some(Phase::Failed) && !missing {
        let phase = status.phase.map_or_else(|| "without a phase".into(), |p| p.to_string());
        bail!("tenant {} is {phase}; only a Failed tenant, or one with a missing namespace, can be retried", args.name);
    }
    let change = json!({"metadata": {"annotations": {RETRY_ANNOTATION: Timestamp::now().as_second().to_string()}}});
    api.patch(&args.name, &PatchParams::default(), &Patch::Merge(change)).await?;
    println!("tenant/{} retried", args.name);
    Ok(())
}
