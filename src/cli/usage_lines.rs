//! `kubectl tenant usage NAME --billed --lines`: the hours that make the numbers of usage that is billed.

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};

use crate::api::usage_prices::MeteredUsage;
use crate::api::{Timestamp, UsageBilling};
use crate::ledger::client::LedgerClient;
use crate::ledger::wire::HourUsage;

/// Reads the hours of a tenant from the ledger.
pub async fn read(ledger: &LedgerClient, tenant: &str, billing: &UsageBilling) -> anyhow::Result<String> {
    let Some(from) = entries(billing).map(|(usage, _)| usage.since.min(usage.through)).min() else {
        return Ok("No unit has a metered price yet.".into());
    };
    let hours = ledger.all_hours(tenant, from).await;
    let (_, hours) = hours.context("no hours from the ledger: forward its port, and name it with --ledger-url")?;
    Ok(text(billing, &hours))
}

/// The units that are billed, and those that wait for a price.
fn entries(billing: &UsageBilling) -> impl Iterator<Item = (&MeteredUsage, bool)> {
    let waiting = billing.waiting.iter().map(|waiting| (&waiting.usage, true));
    billing.meters.iter().map(|usage| (usage, false)).chain(waiting)
}

/// What became of an hour.
fn state(usage: &MeteredUsage, waits: bool, hour: Timestamp) -> &'static str {
    if hour < usage.through {
        "sent"
    } else if usage.unpriced.is_some_and(|gap| gap.holds(hour)) {
        "no price"
    } else if waits {
        "waits for a price"
    } else {
        "not sent"
    }
}

fn text(billing: &UsageBilling, hours: &[HourUsage]) -> String {
    let mut lines = Table::new();
    lines.load_preset(presets::NOTHING).set_header(["HOUR", "PERIOD", "UNIT", "COUNTED", "STATE"]);
    let mut sums = Table::new();
    sums.load_preset(presets::NOTHING).set_header(["UNIT", "COUNTED AND SENT", "SENT", "AT STRIPE", "NOT SENT"]);
    for (usage, waits) in entries(billing) {
        let (mut sent, mut unsent) = (0_i64, 0_i64);
        let from = usage.since.min(usage.through);
        for row in hours.iter().filter(|row| row.hour >= from && row.counted[usage.unit] > 0) {
            let (amount, state) = (row.counted[usage.unit], state(usage, waits, row.hour));
            *(if state == "sent" { &mut sent } else { &mut unsent }) += amount;
            let period = row.period.start.to_string();
            lines.add_row([
                row.hour.to_string(),
                period,
                usage.unit.in_plans().to_owned(),
                amount.to_string(),
                state.to_owned(),
            ]);
        }
        let differs = billing.differences.iter().find(|differs| differs.unit == usage.unit && !waits);
        let at_stripe = differs.map_or_else(|| "as sent".to_owned(), |differs| differs.at_stripe.to_string());
        let at_stripe = if waits { "-".to_owned() } else { at_stripe };
        sums.add_row([
            usage.unit.in_plans().to_owned(),
            sent.to_string(),
            usage.sent.to_string(),
            at_stripe,
            unsent.to_string(),
        ]);
    }
    let numbers = lines.column_iter_mut().skip(3).take(1).chain(sums.column_iter_mut().skip(1));
    numbers.for_each(|column| {
        column.set_cell_alignment(CellAlignment::Right);
    });
    format!("{lines}\n\n{sums}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Unit;
    use crate::api::usage_prices::UsageDifference;
    use crate::ledger::account::Period;
    use crate::ledger::units::Amounts;

    #[test]
    fn each_hour_has_a_line_and_each_unit_its_sums() {
        let at = |hour: i64| Timestamp::from_second(1_800_014_400 + hour * 3600);
        let hour = |number, queries| HourUsage {
            hour: at(number),
            period: Period { start: at(-100), end: at(620) },
            counted: Amounts::of(Unit::Queries, queries),
        };
        let usage = MeteredUsage {
            unit: Unit::Queries,
            price: "price_1".into(),
            meter: "mtr_1".into(),
            since: at(0),
            through: at(2),
            sent: 12,
            unpriced: None,
        };
        let differs = UsageDifference { unit: Unit::Queries, sent: 12, unsent: 4, at_stripe: 5 };
        let billing = UsageBilling { meters: vec![usage], differences: vec![differs], ..UsageBilling::default() };
        let said = text(&billing, &[hour(-1, 9), hour(0, 5), hour(1, 7), hour(3, 4)]);
        let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
        let states: Vec<_> = lines[1..4].iter().map(|line| line[2..].join(" ")).collect();
        assert_eq!(states, ["queries 5 sent", "queries 7 sent", "queries 4 not sent"], "{said}");
        assert_eq!(lines.last().expect("the sums"), &["queries", "12", "12", "5", "4"], "{said}");
    }
}
