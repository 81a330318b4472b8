//! `kubectl tenant history`: every change of phase of a tenant.

use comfy_table::{Table, presets};
use kube::Api;

use super::{KubeArgs, TenantArgs};
use crate::api::Tenant;
use crate::api::phase::Transition;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    tenant: TenantArgs,
    /// `table`, or `json` with a line for each change.
    #[arg(long, short, default_value = "table", value_parser = ["table", "json"])]
    output: String,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let api: Api<Tenant> = args.tenant.api(kube.client().await?);
    let transitions = api.get(&args.tenant.name).await?.status.unwrap_or_default().transitions;
    if args.output == "json" {
        for transition in &transitions {
            println!("{}", serde_json::to_string(transition)?);
        }
        return Ok(());
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["SEQ", "TIME", "CHANGE", "FROM", "TO", "BY", "REASON"]);
    table.add_rows(transitions.iter().map(row));
    println!("{table}");
    Ok(())
}

fn row(t: &Transition) -> [String; 7] {
    [
        t.seq.to_string(),
        t.timestamp.to_string(),
        t.event_type.to_string(),
        t.from_state.map_or_else(String::new, |phase| phase.to_string()),
        t.to_state.to_string(),
        t.triggered_by.to_string(),
        t.reason.to_string(),
    ]
}
