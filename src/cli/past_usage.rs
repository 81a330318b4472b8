//! `kubectl tenant usage --history`: what a tenant used before, as the ledger tells it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use jiff::civil::Date;
use kube::Client;
use reqwest::Url;
use serde::Serialize;
use strum::IntoEnumIterator;

use crate::api::{Timestamp, Unit};
use crate::ledger::client::{CallError, LedgerClient};
use crate::ledger::history::{closed, day_of, each_day, first_of};
use crate::ledger::units::Amounts;
use crate::operator_keys::{LEDGER_SECRET, read_ledger_key};

/// How long the ledger may take, with the attempts after a failed one.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked of the past, and whom.
#[derive(clap::Args)]
pub struct PastArgs {
    /// Also list the last 12 periods that have ended. Needs NAME.
    #[arg(long, requires = "name")]
    history: bool,
    /// The same, and so many days of UTC (1 to 93), today first. Needs NAME.
    #[arg(long, requires = "name", value_parser = clap::value_parser!(u16).range(1..=93))]
    days: Option<u16>,
    /// For --history, --days and --billed: the ledger's URL.
    #[arg(long, env = "LEDGER_ENDPOINT", default_value = "http://127.0.0.1:8084")]
    ledger_url: Url,
    /// For --history, --days and --billed: the namespace of the operator's own Secrets, one of which holds the ledger's key.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    operator_namespace: String,
}

/// What a tenant used before.
#[derive(Serialize)]
pub struct Past {
    periods: Vec<PastPeriod>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    days: Vec<PastDay>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PastPeriod {
    period_start: Timestamp,
    period_end: Timestamp,
    used: Flows,
}

#[derive(Serialize)]
struct PastDay {
    date: Date,
    used: Flows,
}

/// What was used in a period or on a day: each unit that is counted in periods, with the names of `status.usage`.
#[derive(Serialize)]
struct Flows(BTreeMap<Unit, i64>);

impl From<Amounts> for Flows {
    fn from(used: Amounts) -> Self {
        Self(used.each().filter(|(unit, _)| !unit.is_level()).collect())
    }
}

impl Flows {
    fn cells(&self) -> Vec<String> {
        self.0.values().map(ToString::to_string).collect()
    }
}

impl PastArgs {
    /// The ledger, if the history is asked for.
    pub async fn ledger(&self, client: &Client) -> anyhow::Result<Option<LedgerClient>> {
        if !self.history && self.days.is_none() {
            return Ok(None);
        }
        self.open(client).await.map(Some)
    }

    /// The ledger.
    pub async fn open(&self, client: &Client) -> anyhow::Result<LedgerClient> {
        let secret = format!("Secret {}/{LEDGER_SECRET}", self.operator_namespace);
        let key = read_ledger_key(client, &self.operator_namespace).await;
        let key = key.with_context(|| format!("cannot read {secret}, which holds the ledger's key"))?;
        let key = key.with_context(|| format!("there is no {secret}: set --operator-namespace"))?;
        Ok(LedgerClient::new(self.ledger_url.clone(), &key, PATIENCE)?)
    }

    /// What a tenant used before its present period, and on its latest days.
    pub async fn of(&self, ledger: &LedgerClient, tenant: &str, present: Timestamp) -> anyhow::Result<Past> {
        self.read(ledger, tenant, present).await.with_context(|| {
            format!("no history from {}: forward the ledger's port, and name it with --ledger-url", self.ledger_url)
        })
    }

    async fn read(&self, ledger: &LedgerClient, tenant: &str, present: Timestamp) -> Result<Past, CallError> {
        let past = closed(ledger.periods(tenant).await?, present).into_iter().map(|past| PastPeriod {
            period_start: past.period.start,
            period_end: past.period.end,
            used: past.used.into(),
        });
        let periods = past.collect();
        let Some(days) = self.days else { return Ok(Past { periods, days: Vec::new() }) };
        let today = day_of(Timestamp::now());
        let counted = ledger.days(tenant, first_of(days, today), today).await?;
        let day = each_day(&counted, days, today).into_iter();
        Ok(Past { periods, days: day.map(|day| PastDay { date: day.day, used: day.counted.into() }).collect() })
    }
}

impl std::fmt::Display for Past {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.periods.is_empty() {
            write!(f, "No period has ended yet.")?;
        } else {
            let rows = self.periods.iter();
            let row = |past: &PastPeriod| {
                (vec![past.period_start.to_string(), past.period_end.to_string()], past.used.cells())
            };
            write!(f, "{}", table(&["PERIOD", "END"], rows.map(row)))?;
        }
        if !self.days.is_empty() {
            let row = |day: &PastDay| (vec![day.date.to_string()], day.used.cells());
            write!(f, "\n\n{}", table(&["DAY"], self.days.iter().map(row)))?;
        }
        Ok(())
    }
}

fn table(heads: &[&str], rows: impl Iterator<Item = (Vec<String>, Vec<String>)>) -> Table {
    let mut table = Table::new();
    let units = Unit::iter().filter(|unit| !unit.is_level()).map(|unit| unit.in_plans().to_owned());
    let named = heads.len();
    let heads = heads.iter().map(ToString::to_string).chain(units);
    table.load_preset(presets::NOTHING).set_header(heads);
    for (names, used) in rows {
        table.add_row(names.into_iter().chain(used));
    }
    for column in table.column_iter_mut().skip(named) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_and_days_are_tables_with_every_unit_that_is_used_in_a_period() {
        let used = || Flows::from(Amounts::of(Unit::Queries, 12).with(Unit::EmbeddedBytes, 345));
        let (period_start, period_end) = (Timestamp::from_second(0), Timestamp::from_second(86_400));
        let periods = vec![PastPeriod { period_start, period_end, used: used() }];
        let days = vec![PastDay { date: "1970-01-01".parse().expect("a date"), used: used() }];
        let text = Past { periods, days }.to_string();
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let units = "queries promptTokens completionTokens embeddingTokens embeddedBytes";
        assert_eq!(
            lines,
            [
                &*format!("PERIOD END {units}"),
                "1970-01-01T00:00:00Z 1970-01-02T00:00:00Z 12 0 0 0 345",
                "",
                &*format!("DAY {units}"),
                "1970-01-01 12 0 0 0 345",
            ]
        );
        assert_eq!(Past { periods: vec![], days: vec![] }.to_string(), "No period has ended yet.");
    }
}
