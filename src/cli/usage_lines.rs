//! `kubectl tenant usage NAME --billed`, with `--hours` and `--lines`: what the ledger, the events store and Stripe have,
//! and the lines that make the ledger's number.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use comfy_table::{CellAlignment, Table, presets};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::billed_numbers::{Book, HourRow, Hours, Numbers, UnitRow};
use crate::api::conditions::{self, USAGE_BILLED};
use crate::api::usage_prices::MeteredUsage;
use crate::api::{ConditionStatus, Tenant, Timestamp, UsageBilling};
use crate::ledger::client::LedgerClient;
use crate::ledger::wire::{EVENTS_HOURS, TenantLine};
use crate::providers::CallLimits;
use crate::providers::biller::Biller;
use crate::providers::stripe::{Stripe, StripeConfig};

const HOUR: i64 = 3600;
/// Hours that are shown without `--from`: a week.
const SHOWN: i64 = 7 * 24;
/// Lines of one call.
const PAGE: u32 = 1000;
/// How long Stripe may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is shown of usage that is billed.
#[derive(clap::Args)]
pub struct BilledArgs {
    /// Show the usage of this tenant that is sent to Stripe, as the ledger, the events store and Stripe have it.
    #[arg(long, requires = "name")]
    pub billed: bool,
    /// With --billed: list the closed hours, those of the last week without --from.
    #[arg(long, requires = "billed")]
    hours: bool,
    /// With --hours: the first hour, such as 2026-12-01T00:00:00Z. At most 93 days are listed at a time.
    #[arg(long, requires = "hours")]
    from: Option<Timestamp>,
    /// With --hours: the hour after the last one.
    #[arg(long, requires = "hours")]
    to: Option<Timestamp>,
    /// With --billed: list the ledger's lines of an hour, with their operations. Default: the first hour that differs.
    #[arg(long, requires = "billed")]
    lines: bool,
    /// With --lines: the hour to list, such as 2026-12-01T13:00:00Z.
    #[arg(long, requires = "lines")]
    hour: Option<Timestamp>,
    /// With --lines: begin after the line with this number, which the page before names.
    #[arg(long, requires = "hour", default_value = "0")]
    after: i64,
    /// With --lines: the most lines to list.
    #[arg(long, requires = "lines", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    most: u32,
    /// With --billed: Stripe's secret key, to ask Stripe itself. Without it, Stripe's sums are those of the controller's
    /// last comparison, and its hours are not known.
    #[arg(long, env = "STRIPE_SECRET_KEY", hide_env_values = true, default_value = "")]
    stripe_secret_key: SecretString,
    /// Base URL of Stripe.
    #[arg(long, env = "STRIPE_URL", default_value = "https://api.stripe.com")]
    stripe_url: String,
}

/// What is found of a tenant.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    namespace: String,
    name: String,
    subscription: String,
    units: Vec<UnitRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hours: Option<Vec<HourRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<Listed>,
    /// Why something is not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_known: Vec<String>,
}

/// The ledger's lines of an hour.
#[derive(Serialize)]
struct Listed {
    hour: Timestamp,
    lines: Vec<TenantLine>,
    /// The number after which more come.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

impl Found {
    /// Whether anything differs.
    pub fn differs(&self) -> bool {
        let units = self.units.iter().any(|row| !row.differing.is_empty());
        units || self.hours.iter().flatten().any(|row| !row.differing.is_empty())
    }
}

impl BilledArgs {
    fn stripe(&self) -> Option<Arc<Stripe>> {
        let key = &self.stripe_secret_key;
        (!key.expose_secret().is_empty()).then(|| {
            Arc::new(Stripe::new(StripeConfig {
                url: self.stripe_url.trim_end_matches('/').into(),
                api_key: key.clone(),
                calls: CallLimits { per_second: NonZeroU32::MIN.saturating_add(9), timeout: PATIENCE, retries: 1 },
                frontend_url: String::new(),
                promotion_codes: false,
            }))
        })
    }

    /// Reads what the three have of a tenant. `ledger` is none if it cannot be asked at all, with the reason.
    pub async fn read(&self, tenant: &Tenant, ledger: anyhow::Result<LedgerClient>) -> anyhow::Result<Found> {
        let billing = tenant.status.as_ref().and_then(|status| status.usage_billing.as_deref());
        let billing = billing.cloned().unwrap_or_default();
        let mut reading =
            Reading { tenant, billing: &billing, ledger: None, stripe: self.stripe(), closed: None, not_known: vec![] };
        reading.ledger = reading.known(ledger);
        let hours = reading.hours().await;
        let span = self.span(&billing, reading.closed)?;
        let mut units = Vec::new();
        for usage in &billing.meters {
            let sums = hours.sums(usage.unit, (usage.since, usage.through));
            let stripe = reading.at_stripe(usage).await;
            units.push(UnitRow::of(usage, Numbers { stripe, ..sums }));
        }
        let wants_hours = self.hours || (self.lines && self.hour.is_none());
        let rows = if wants_hours { Some(reading.rows(&hours, &units, span).await) } else { None };
        let differing = || rows.iter().flatten().find(|row| !row.differing.is_empty()).map(|row| row.hour);
        let lines = match self.hour.or_else(differing).filter(|_| self.lines) {
            Some(hour) => Some(self.lines_of(&reading, full_hour(hour)?).await?),
            None => None,
        };
        if self.lines && lines.is_none() {
            eprintln!("No hour differs, so no lines are listed: name an hour with --hour.");
        }
        Ok(Found {
            namespace: tenant.metadata.namespace.clone().unwrap_or_default(),
            name: tenant.metadata.name.clone().unwrap_or_default(),
            subscription: billing.subscription.to_string(),
            units,
            hours: rows.filter(|_| self.hours),
            lines,
            not_known: reading.not_known,
        })
    }

    /// The hours that are listed.
    fn span(&self, billing: &UsageBilling, closed: Option<Timestamp>) -> anyhow::Result<(Timestamp, Timestamp)> {
        // With the present hour: Stripe may have something there that was not sent.
        let now = Timestamp::now().hour();
        let through = billing.meters.iter().map(|usage| usage.through);
        let latest = through.chain(closed).fold(now, Timestamp::max);
        let to = full_hour(self.to.unwrap_or_else(|| latest.plus(HOUR)))?;
        let from = full_hour(self.from.unwrap_or_else(|| to.plus(-SHOWN * HOUR)))?;
        ensure!(from < to && to.since(from) <= EVENTS_HOURS * HOUR, "--from and --to: ask for 1 hour to 93 days");
        Ok((from, to))
    }

    async fn lines_of(&self, reading: &Reading<'_>, hour: Timestamp) -> anyhow::Result<Listed> {
        let tenant = reading.tenant.tenant_id();
        let ledger = reading.ledger.as_ref().context("the ledger cannot be asked for its lines")?;
        let (mut lines, mut next) = (Vec::new(), Some(self.after));
        while let Some(after) = next.filter(|_| lines.len() < self.most as usize) {
            let most = (self.most - u32::try_from(lines.len()).unwrap_or(self.most)).min(PAGE);
            let page =
                ledger.hour_lines(tenant, hour, after, most).await.context("the ledger does not tell its lines")?;
            lines.extend(page.lines);
            next = page.next;
        }
        Ok(Listed { hour, lines, next })
    }
}

/// A moment that begins an hour of UTC.
fn full_hour(moment: Timestamp) -> anyhow::Result<Timestamp> {
    ensure!(moment == moment.hour(), "{moment} is not the beginning of an hour of UTC");
    Ok(moment)
}

/// What is read of the three.
struct Reading<'a> {
    tenant: &'a Tenant,
    billing: &'a UsageBilling,
    ledger: Option<LedgerClient>,
    stripe: Option<Arc<Stripe>>,
    /// Up to when the ledger's hours are closed.
    closed: Option<Timestamp>,
    /// Why something is not known.
    not_known: Vec<String>,
}

impl Reading<'_> {
    /// What was read. If it was not, the reason is kept.
    fn known<T>(&mut self, read: anyhow::Result<T>) -> Option<T> {
        read.inspect_err(|error| {
            let why = format!("{error:#}");
            if !self.not_known.contains(&why) {
                self.not_known.push(why);
            }
        })
        .ok()
    }

    /// The closed hours since the first price.
    async fn hours(&mut self) -> Hours {
        let Some(ledger) = self.ledger.clone() else { return Hours::default() };
        let from = self.billing.meters.iter().map(|usage| usage.since.min(usage.through)).min();
        let Some(from) = from else { return Hours::default() };
        let through = self.billing.meters.iter().map(|usage| usage.through).fold(from, Timestamp::max);
        let id = self.tenant.tenant_id().to_owned();
        let counted = self.known(ledger.all_hours(&id, from).await.context("the ledger does not tell its hours"));
        self.closed = counted.as_ref().map(|(until, _)| *until);
        let copied = ledger.all_events_hours(&id, from, self.closed.unwrap_or(through)).await;
        let copied = copied.context("the events store does not tell its sums");
        let whole = |hours: Option<_>| hours.context("the events store does not have all of these hours");
        let events_store = self.known(copied.and_then(whole));
        Hours { ledger: counted.map(|(_, hours)| hours), events_store }
    }

    fn customer(&self) -> anyhow::Result<&str> {
        let refs = self.tenant.spec.billing.stripe.as_ref();
        refs.and_then(|refs| refs.customer_id.as_deref()).context("Stripe: spec.billing.stripe has no customerId")
    }

    /// What Stripe has of all hours that were sent.
    async fn at_stripe(&mut self, usage: &MeteredUsage) -> Option<i64> {
        let Some(stripe) = self.stripe.clone() else { return self.compared(usage) };
        let read = async {
            // A full minute after everything that was sent.
            let latest = self.closed.into_iter().fold(Timestamp::now(), Timestamp::max);
            let latest = latest.max(usage.through).max(usage.since);
            let until = Timestamp::from_second((latest.as_second() / 60 + 1) * 60);
            anyhow::Ok(stripe.reported(&usage.meter, self.customer()?, usage.since, until).await?)
        };
        let read = read.await.context("Stripe does not tell its sums");
        self.known(read)
    }

    /// The same as the controller found it in its last comparison.
    fn compared(&mut self, usage: &MeteredUsage) -> Option<i64> {
        let differs = self.billing.differences.iter().find(|differs| differs.unit == usage.unit);
        let status = self.tenant.status.as_ref();
        let condition = status.and_then(|status| conditions::get(&status.conditions, USAGE_BILLED));
        let agrees = condition.is_some_and(|condition| condition.status == ConditionStatus::True);
        let known = differs.map(|differs| differs.at_stripe).or_else(|| agrees.then_some(usage.sent));
        self.known(known.context("Stripe was not compared: set STRIPE_SECRET_KEY, or run this in the controller's pod"))
    }

    async fn rows(&mut self, hours: &Hours, units: &[UnitRow], span: (Timestamp, Timestamp)) -> Vec<HourRow> {
        let mut rows = Vec::new();
        for (usage, unit) in self.billing.meters.iter().zip(units) {
            let span = (span.0.max(usage.since.min(usage.through)), span.1);
            let by_hour = match self.stripe.clone() {
                Some(stripe) if span.0 < span.1 => {
                    let read = async {
                        anyhow::Ok(stripe.reported_by_hour(&usage.meter, self.customer()?, span.0, span.1).await?)
                    };
                    let read = read.await.context("Stripe does not tell its hours");
                    self.known(read)
                }
                Some(_) => None,
                None => {
                    let why = "Stripe's hours: set STRIPE_SECRET_KEY, or run this in the controller's pod";
                    self.known(Err(anyhow::anyhow!(why)))
                }
            };
            rows.extend(hours.rows((usage, unit), span, by_hour.as_deref()));
        }
        rows.sort_by_key(|row| (row.hour, row.unit));
        rows
    }
}

/// A number, or that it is not known.
fn cell(number: Option<i64>) -> String {
    number.map_or_else(|| "not known".to_owned(), |number| number.to_string())
}

/// Which differ, in words.
fn differing(books: &[Book]) -> String {
    match books {
        [] => String::new(),
        [one] => format!("{} differs", one.name()),
        all => format!("{} differ", all.iter().map(|book| book.name()).collect::<Vec<_>>().join(" and ")),
    }
}

fn table<const N: usize>(heads: [&str; N], numbers: std::ops::Range<usize>, rows: Vec<[String; N]>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(heads);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(numbers.start).take(numbers.len()) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unit = |row: &UnitRow| {
            let Numbers { ledger, events_store, stripe } = row.numbers;
            let name = row.unit.in_plans().to_owned();
            [name, cell(ledger), cell(events_store), cell(stripe), differing(&row.differing)]
        };
        let units = self.units.iter().map(unit).collect();
        write!(f, "{}", table(["CLOSED HOURS", "LEDGER", "EVENTS STORE", "STRIPE", ""], 1..4, units))?;
        if let Some(hours) = &self.hours {
            let hour = |row: &HourRow| {
                let Numbers { ledger, events_store, stripe } = row.numbers;
                let state = match differing(&row.differing) {
                    differs if !differs.is_empty() => differs,
                    _ if row.elsewhere => "Stripe has it in another hour".to_owned(),
                    _ if !row.sent => "not sent".to_owned(),
                    agrees => agrees,
                };
                let stripe = if row.sent || stripe.is_some() { cell(stripe) } else { "-".to_owned() };
                let unit = row.unit.in_plans().to_owned();
                [row.hour.to_string(), unit, cell(ledger), cell(events_store), stripe, state]
            };
            let hours = hours.iter().map(hour).collect();
            write!(f, "\n\n{}", table(["HOUR", "UNIT", "LEDGER", "EVENTS STORE", "STRIPE", ""], 2..5, hours))?;
        }
        if let Some(Listed { hour, lines, next }) = &self.lines {
            let line = |line: &TenantLine| {
                let kind: &str = line.kind.into();
                let counted = line.counted.each().filter(|(_, amount)| *amount != 0);
                let counted: Vec<_> = counted.map(|(unit, amount)| format!("{amount} {}", unit.in_plans())).collect();
                let (seq, at) = (line.seq.to_string(), line.at.to_string());
                [seq, at, kind.to_owned(), line.operation.clone(), counted.join(", ")]
            };
            let rows = lines.iter().map(line).collect();
            let shown = table(["LINE", "WRITTEN", "KIND", "OPERATION", "COUNTED"], 0..1, rows);
            write!(f, "\n\nThe ledger's lines of {hour}:\n{shown}")?;
            if let Some(next) = next {
                write!(f, "\nMore: --hour {hour} --after {next}")?;
            }
        }
        for why in &self.not_known {
            write!(f, "\nNot known: {why}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Unit;

    #[test]
    fn what_is_not_known_is_no_zero_and_what_differs_is_named() {
        let at = |hour: i64| Timestamp::from_second(1_800_014_400 + hour * HOUR);
        let usage = MeteredUsage {
            unit: Unit::PromptTokens,
            price: "price_1".into(),
            meter: "mtr_1".into(),
            since: at(0),
            through: at(2),
            sent: 5,
            unpriced: None,
        };
        let found = |numbers| Found {
            namespace: "rag".into(),
            name: "acme".into(),
            subscription: "sub_1".into(),
            units: vec![UnitRow::of(&usage, numbers)],
            hours: None,
            lines: None,
            not_known: vec!["the events store is away".into()],
        };
        let away = found(Numbers { ledger: Some(5), events_store: None, stripe: Some(5) });
        assert!(!away.differs());
        let text = away.to_string();
        let rows: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(rows[1], "promptTokens 5 not known 5");
        assert_eq!(rows[2], "Not known: the events store is away");
        let less = found(Numbers { ledger: Some(5), events_store: Some(5), stripe: Some(4) });
        assert!(less.differs() && less.to_string().contains("Stripe differs"), "{less}");
        let json = serde_json::to_value(&less).expect("JSON");
        assert_eq!(
            (&json["units"][0]["eventsStore"], &json["units"][0]["differing"][0]),
            (&5.into(), &"stripe".into())
        );
    }
}
