//! `kubectl tenant stuck`: customers who began and do not go on.

use comfy_table::{Table, presets};

use super::{KubeArgs, ScopeArgs};
use crate::analytics::{Customer, Journey, Stuck, StuckCustomer, stuck};
use crate::api::{Tenant, Timestamp};
use crate::plain::plain;

/// List customers who began and do not go on, with what may help.
///
/// Three lists: in service for 48 hours and never logged in; logged in 24 hours ago without an answered question; first
/// answer 24 hours ago without a document of their own. Customers who came by manifest and those who are not in service
/// are left out: `kubectl tenant audit` finds tenants that are stuck in a phase.
///
/// Exit codes: 0 if no customer is stuck, 1 if one is.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Output format.
    #[arg(long, short, default_value = "table", value_parser = ["table", "json", "csv"])]
    output: String,
}

/// Whether a customer is stuck.
pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<bool> {
    let mut journeys = Vec::new();
    args.scope.each(kube.client().await?, |tenant: &Tenant| journeys.extend(Journey::of(tenant))).await?;
    let found = stuck(&journeys, Timestamp::now());
    let any = found.lists().into_iter().any(|(_, list)| !list.is_empty());
    match args.output.as_str() {
        "json" => println!("{}", serde_json::to_string_pretty(&found)?),
        "csv" => print!("{}", found.csv()?),
        _ if any => println!("{}", text(&found)),
        _ => println!("No customer is stuck."),
    }
    Ok(any)
}

/// What the customers of each list have in common, in the order of the lists.
const SENTENCES: [&str; 3] = [
    "In service for 48 hours, and never logged in",
    "Logged in 24 hours ago, and no question was answered",
    "First answer 24 hours ago, and no document of their own",
];

fn text(found: &Stuck) -> String {
    let mut parts = Vec::new();
    for ((_, customers), sentence) in found.lists().into_iter().zip(SENTENCES) {
        let Some(first) = customers.first() else { continue };
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(["NAMESPACE", "NAME", "COMPANY", "E-MAIL", "PLAN", "SIGNED UP", "WAITS"]);
        table.add_rows(customers.iter().map(row));
        parts.push(format!("{sentence}: {}\n{}\n{}.", customers.len(), table, first.recommended_action));
    }
    parts.join("\n\n")
}

fn row(stuck: &StuckCustomer) -> [String; 7] {
    let Customer { namespace, name, company, email, plan, .. } = stuck.customer.clone();
    let (signed_up, waits) = (format!("{} h ago", stuck.hours_since_signup), format!("{} h", stuck.hours_waiting));
    [namespace, name, plain(&company), plain(&email), plan, signed_up, waits]
}
