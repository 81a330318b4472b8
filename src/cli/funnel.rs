//! `kubectl tenant funnel`: how many customers reach each milestone.

use comfy_table::{CellAlignment, Table, presets};

use super::{KubeArgs, ScopeArgs};
use crate::analytics::{Durations, Funnel, FunnelStep, Group, Journey, Span, Verdict, minutes, percent};
use crate::api::{Tenant, Timestamp};

/// Show how many customers reach each milestone, and where they stop.
///
/// The figures, with how long each step takes, come from the Tenants themselves: those who signed up or were invited in
/// the last `--days` days of 24 hours. Customers who were erased meanwhile are not in them, and tenants that were applied
/// as manifests are only counted. A step that loses more than 40 % is marked with `!`. docs/funnel.md defines each figure.
///
/// Exit codes: 0 on success, also without any customer.
#[derive(clap::Args)]
pub struct Args {
    /// Customers who signed up in the last so many days.
    #[arg(long, default_value = "30", value_parser = clap::value_parser!(i64).range(1..=3650))]
    days: i64,
    #[command(flatten)]
    scope: ScopeArgs,
    /// `table`, `json` with everything, or `csv` with a line for each milestone.
    #[arg(long, short, default_value = "table", value_parser = ["table", "json", "csv"])]
    output: String,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let mut journeys = Vec::new();
    args.scope.each(kube.client().await?, |tenant: &Tenant| journeys.extend(Journey::of(tenant))).await?;
    let funnel = Funnel::of(&journeys, Span::days_before(Timestamp::now(), args.days));
    match args.output.as_str() {
        "json" => println!("{}", serde_json::to_string_pretty(&funnel)?),
        "csv" => print!("{}", funnel.csv()?),
        _ => println!("{}", text(&funnel, args.days)),
    }
    Ok(())
}

fn text(funnel: &Funnel, days: i64) -> String {
    let mut parts = vec![format!(
        "{} customers signed up or were invited in the last {days} days; {} tenants came by manifest.",
        funnel.total_signups, funnel.by_manifest
    )];
    if funnel.total_signups > 0 {
        parts.push(steps(&funnel.steps));
        parts.push(times(funnel));
        parts.push(groups("VARIANT", &funnel.variants));
        parts.push(verdict(&funnel.better_variant));
        parts.push(groups("PLAN", &funnel.plans));
        parts.push(groups("WEEK", &funnel.weeks));
    }
    parts.join("\n\n")
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn steps(steps: &[FunnelStep]) -> String {
    let mut table = table(&["MILESTONE", "CUSTOMERS", "OF THE STEP BEFORE", "LOST", "MEDIAN", "P90"]);
    for step in steps {
        let time =
            |of: fn(&Durations) -> f64| step.time_from_previous.as_ref().map_or_else(String::new, |t| minutes(of(t)));
        let lost = percent(step.drop_off) + if step.high_drop_off { " !" } else { "" };
        table.add_row([
            step.milestone.name().to_owned(),
            step.customers.to_string(),
            percent(step.conversion),
            lost,
            time(|t| t.median_minutes),
            time(|t| t.p90_minutes),
        ]);
    }
    table.to_string()
}

fn times(funnel: &Funnel) -> String {
    let mut table = table(&["FROM THE SIGNUP TO", "CUSTOMERS", "MEDIAN", "P75", "P90", "IN 24 H", "IN 48 H"]);
    for (name, times) in [("first answer", funnel.time_to_first_query), ("completed setup", funnel.time_to_activate)] {
        let Some(times) = times else {
            table.add_row([name, "0"]);
            continue;
        };
        table.add_row([
            name.to_owned(),
            times.measured.to_string(),
            minutes(times.median_minutes),
            minutes(times.p75_minutes),
            minutes(times.p90_minutes),
            percent(Some(times.within_24h_percentage)),
            percent(Some(times.within_48h_percentage)),
        ]);
    }
    table.to_string()
}

fn groups(title: &str, groups: &[Group]) -> String {
    let mut table = table(&[title, "SIGNUPS", "PAID", "LOGGED IN", "ASKED", "COMPLETED", "RATE", "TRUE RATE"]);
    for group in groups {
        let within = group.activation_interval.map_or_else(String::new, |i| format!("{:.0} to {:.0} %", i.low, i.high));
        table.add_row([
            group.group.clone(),
            group.signups.to_string(),
            group.paid.to_string(),
            group.logged_in.to_string(),
            group.queried.to_string(),
            group.completed.to_string(),
            percent(group.activation_rate),
            within,
        ]);
    }
    table.to_string()
}

fn verdict(better: &Verdict) -> String {
    match better {
        Verdict::Better(variant) => format!("More customers complete the setup with the variant {variant}."),
        Verdict::MayBeLuck => "The difference between the variants may be luck.".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_without_customers_gets_a_sentence() {
        let funnel = Funnel::of(&[], Span::days_before(Timestamp::from_second(0), 30));
        assert_eq!(
            text(&funnel, 30),
            "0 customers signed up or were invited in the last 30 days; 0 tenants came by manifest."
        );
    }
}
