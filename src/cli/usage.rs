//! `kubectl tenant usage`: what tenants have used of their plans.

use std::process::ExitCode;

use comfy_table::{CellAlignment, Table, presets};
use kube::{Client, ResourceExt};
use serde::Serialize;
use strum::IntoEnumIterator;

use super::past_usage::{Past, PastArgs};
use super::usage_lines::BilledArgs;
use super::{KubeArgs, ScopeArgs, usage_billed};
use crate::api::usage::{CountedUsage, Used};
use crate::api::{Tenant, TenantStatus, Timestamp, Unit, size};

/// Show what tenants have used of their plans in this period.
///
/// The controller reads the ledger once a minute, so the numbers can be that old. Without a name, the command lists the
/// tenants, the one that has used the largest part of any limit first. With a name, it lists every unit of that tenant,
/// and with --history also what that tenant used before.
///
/// The history comes from the ledger itself, which takes connections from the operator's pods only. Run the command in
/// the controller's pod (`kubectl exec`), or forward the ledger's port to this machine first (`kubectl port-forward`).
///
/// With `--billed`, it shows how far the usage of a tenant with usage prices was sent to Stripe: for each unit the sum,
/// from which hour and up to which, the price and the meter. Below that are three numbers for the closed hours that were
/// sent: the ledger's, which bills rest on, the events store's and Stripe's. What cannot be read is `not known`.
///
/// All of `--billed` reads the ledger, as --history does. `--hours` adds a row for each closed hour, and `--lines` the
/// ledger's lines of one hour, with the operations behind them. `kubectl tenant settle-usage` decides about numbers that
/// differ.
///
/// Exit codes: 0 on success, 1 if the three numbers differ, if there is no such tenant, or if nothing has been counted
/// for it yet.
#[derive(clap::Args)]
pub struct Args {
    /// A Tenant's name or id. Default: all tenants of the namespace.
    name: Option<String>,
    #[command(flatten)]
    billed: BilledArgs,
    #[command(flatten)]
    scope: ScopeArgs,
    /// `table`, or `json` with a line for each tenant.
    #[arg(long, short, default_value = "table", value_parser = ["table", "json"])]
    output: String,
    #[command(flatten)]
    past: PastArgs,
}

/// A tenant whose usage was counted.
struct Row {
    /// Its id.
    id: String,
    /// When its present period began.
    period_start: Timestamp,
    namespace: String,
    name: String,
    plan: String,
    usage: CountedUsage,
    /// What is known to be missing.
    lacks: Vec<String>,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<ExitCode> {
    let (mut rows, mut billed, mut found) = (Vec::new(), Vec::new(), 0_usize);
    let take = |tenant: &Tenant| {
        let is = |name: &String| *name == tenant.name_any() || *name == tenant.tenant_id();
        if args.name.as_ref().is_none_or(is) {
            found += 1;
            billed
                .extend(usage_billed::shown(tenant).filter(|_| args.billed.billed).map(|text| (text, tenant.clone())));
            rows.extend(row(tenant));
        }
    };
    let client = kube.client().await?;
    args.scope.each(client.clone(), take).await?;
    if let Some(name) = &args.name {
        anyhow::ensure!(found > 0, "there is no Tenant {name} here: `kubectl tenant list -A` lists all");
        if args.billed.billed {
            anyhow::ensure!(
                !billed.is_empty(),
                "no usage of {name} is billed: the Plan in force has no usagePrices, or the tenant is not served yet"
            );
            return show_billed(&client, &args, &billed).await;
        }
        anyhow::ensure!(
            !rows.is_empty(),
            "nothing has been counted for {name} yet: the controller reads the ledger once a minute"
        );
    }
    rows.sort_by_key(|row| std::cmp::Reverse(fullest(&row.usage)));
    if args.output == "table" && args.name.is_none() {
        if rows.is_empty() {
            println!("Nothing has been counted yet: the controller reads the ledger once a minute.");
            return Ok(ExitCode::SUCCESS);
        }
        println!("{}", list(&rows));
        return Ok(ExitCode::SUCCESS);
    }
    let ledger = args.past.ledger(&client).await?;
    for row in &rows {
        let history = match &ledger {
            Some(ledger) => Some(args.past.of(ledger, &row.id, row.period_start).await?),
            None => None,
        };
        if args.output == "json" {
            println!("{}", line(row, history)?);
        } else {
            println!("{}", units(row));
            if let Some(history) = &history {
                println!("\n{history}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows the three numbers of tenants, and what was sent. Fails if they differ.
async fn show_billed(client: &Client, args: &Args, billed: &[(String, Tenant)]) -> anyhow::Result<ExitCode> {
    let mut differs = false;
    for (text, tenant) in billed {
        let found = args.billed.read(tenant, args.past.open(client).await).await?;
        if args.output == "json" {
            println!("{}", serde_json::to_string(&found)?);
        } else {
            println!("{text}\n\n{found}");
        }
        differs |= found.differs();
    }
    Ok(ExitCode::from(u8::from(differs)))
}

fn row(tenant: &Tenant) -> Option<Row> {
    let status = tenant.status.as_ref()?;
    let usage = status.usage?;
    let planned = status.quota.as_ref().map(|quota| quota.period_at(Timestamp::now()).0);
    let period_start = planned.unwrap_or(usage.period_start).max(usage.period_start);
    let (namespace, name) = (tenant.namespace().unwrap_or_default(), tenant.name_any());
    let (id, plan) = (tenant.tenant_id().to_owned(), tenant.plan_in_force().to_owned());
    Some(Row { id, period_start, namespace, name, plan, usage, lacks: lacks(status) })
}

/// What the numbers are known to lack.
fn lacks(status: &TenantStatus) -> Vec<String> {
    let source = status.usage_source.as_deref();
    let missing = source.and_then(|source| source.missing_since.zip(source.missing_until));
    let lost = missing.map(|(since, until)| {
        format!("The ledger lost its data: what was used from {since} to {until} is counted only as far as it was shown before")
    });
    let away = status.ledger_away_since.map(|since| format!("The ledger has not answered since {since}"));
    lost.into_iter().chain(away).collect()
}

/// A tenant in JSON.
#[derive(Serialize)]
struct Line<'a> {
    namespace: &'a str,
    name: &'a str,
    plan: &'a str,
    usage: CountedUsage,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    lacks: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Past>,
}

fn line(row: &Row, history: Option<Past>) -> serde_json::Result<String> {
    let Row { namespace, name, plan, usage, lacks, .. } = row;
    serde_json::to_string(&Line { namespace, name, plan, usage: *usage, lacks, history })
}

/// The largest part of any limit that is used, in percent. A unit without a limit counts for nothing.
fn fullest(usage: &CountedUsage) -> i64 {
    Unit::iter().filter_map(|unit| percent(usage.of(unit))).max().unwrap_or_default()
}

fn percent(used: Used) -> Option<i64> {
    let limit = used.limit?;
    let percent = i128::from(used.used) * 100 / i128::from(limit.max(1));
    Some(i64::try_from(percent).unwrap_or(i64::MAX))
}

/// Such as `120 / 10000 (1%)`.
fn part(used: Used) -> String {
    let limit = |limit| format!("{} / {limit} ({}%)", used.used, percent(used).unwrap_or_default());
    used.limit.map_or_else(|| used.used.to_string(), limit)
}

fn list(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["NAMESPACE", "NAME", "PLAN", "QUERIES", "DOCUMENTS", "TOKENS", "RESETS"]);
    for Row { namespace, name, plan, usage, .. } in rows {
        let tokens = usage.prompt_tokens.used.saturating_add(usage.completion_tokens.used);
        let (queries, documents) = (part(usage.queries), part(usage.documents));
        table.add_row([
            namespace,
            name,
            plan,
            &queries,
            &documents,
            &tokens.to_string(),
            &usage.period_end.to_string(),
        ]);
    }
    table
}

fn units(row: &Row) -> String {
    let usage = &row.usage;
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["UNIT", "USED", "LIMIT", "LEFT", "PERCENT"]);
    for unit in Unit::iter() {
        let used = usage.of(unit);
        let written = |amount: i64| if unit.is_size() { size(amount) } else { amount.to_string() };
        let or_none = |value: Option<i64>| value.map_or_else(|| "-".into(), written);
        let share = percent(used).map_or_else(|| "-".into(), |percent| percent.to_string());
        let left = used.limit.map(|limit| (limit - used.used).max(0));
        let name = unit.in_plans().to_owned();
        table.add_row([name, written(used.used), or_none(used.limit), or_none(left), share]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let age = |at: Timestamp| Timestamp::now().since(at).max(0);
    let shown = format!(
        "{}, plan {}, period {} to {}, counted {} s ago\n{table}",
        row.name,
        row.plan,
        usage.period_start,
        usage.period_end,
        age(usage.observed_at)
    );
    std::iter::once(shown).chain(row.lacks.clone()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_names_its_limit_and_the_percentage() {
        let used = |used, limit| Used { used, limit };
        assert_eq!(part(used(120, Some(10_000))), "120 / 10000 (1%)");
        assert_eq!(part(used(7, None)), "7");
        assert_eq!(part(used(1, Some(0))), "1 / 0 (100%)");
        assert_eq!(percent(used(i64::MAX, Some(1))), Some(i64::MAX));
    }
}
