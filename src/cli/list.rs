//! `kubectl tenant list`: tenants and what each waits for.

use comfy_table::{Table, presets};
use kube::ResourceExt;

use super::{KubeArgs, ScopeArgs};
use crate::api::{Phase, Tenant, conditions};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    scope: ScopeArgs,
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
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["NAMESPACE", "NAME", "PLAN", "PHASE", "REASON", "MESSAGE"]);
    let add = |tenant: &Tenant| {
        if wanted(tenant, &args) {
            table.add_row(row(tenant));
        }
    };
    args.scope.each(kube.client().await?, add).await?;
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
        tenant.plan_in_force().to_owned(),
        status.phase.map_or_else(String::new, |p| p.to_string()),
        reason.unwrap_or_default(),
        status.message.unwrap_or_default().to_string(),
    ]
}
