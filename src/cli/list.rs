//! `kubectl tenant list`: tenants and what each waits for.

use comfy_table::{Table, presets};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::{KubeArgs, tenants};
use crate::api::{Phase, Tenant, conditions};

/// Objects a page.
const PAGE: u32 = 500;

#[derive(clap::Args)]
pub struct Args {
    /// Namespace of the Tenants; otherwise the kubeconfig's.
    #[arg(long, short)]
    namespace: Option<String>,
    /// Tenants of all namespaces.
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only tenants of this phase, such as Failed.
    #[arg(long)]
    phase: Option<String>,
    /// Only tenants that are not Ready.
    #[arg(long)]
    not_ready: bool,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    if let Some(phase) = &args.phase
        && serde_json::from_value::<Phase>(serde_json::json!(phase)).is_err()
    {
        anyhow::bail!("{phase} is not a phase: use one such as PendingPayment, Provisioning, Active or Failed");
    }
    let client = kube.client().await?;
    let namespace = args.namespace.as_deref();
    let api = if args.all_namespaces { Api::all(client) } else { tenants(client, namespace) };
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["NAMESPACE", "NAME", "PLAN", "PHASE", "REASON", "MESSAGE"]);
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        for tenant in page.items.iter().filter(|tenant| wanted(tenant, &args)) {
            table.add_row(row(tenant));
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    println!("{table}");
    Ok(())
}

fn wanted(tenant: &Tenant, args: &Args) -> bool {
    let status = tenant.status.as_ref();
    let phase = status.and_then(|s| s.phase).map(|p| p.to_string());
    let ready = status.is_some_and(|s| conditions::is_true(&s.conditions, conditions::READY));
    (args.phase.is_none() || args.phase == phase) && !(args.not_ready && ready)
}

fn row(tenant: &Tenant) -> [String; 6] {
    let status = tenant.status.clone().unwrap_or_default();
    let reason = conditions::get(&status.conditions, conditions::READY).map(|c| c.reason.to_string());
    [
        tenant.namespace().unwrap_or_default(),
        tenant.name_any(),
        tenant.spec.plan.clone(),
        status.phase.map_or_else(String::new, |p| p.to_string()),
        reason.unwrap_or_default(),
        status.message.unwrap_or_default().to_string(),
    ]
}
