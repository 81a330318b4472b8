//! What was counted in each hour, by when the ledger wrote the line. An hour that was listed once is closed: a line
//! that is written later is part of a later hour, whatever the clock says and however long its commit took. So what was
//! listed never changes, and can be billed.

use strum::{EnumCount, IntoEnumIterator};

use super::columns::{columns, summed};
use crate::api::Timestamp;
use crate::ledger::account::Period;
use crate::ledger::units::{Amounts, Unit};

/// Seconds of an hour.
const HOUR: i64 = 3600;

/// What a tenant used in an hour, of one of its periods. What arrives late for an earlier period has a row of its own
/// in the hour in which it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedHour {
    /// When the hour begins.
    pub hour: Timestamp,
    /// The period that the usage counts in.
    pub period: Period,
    /// What was counted.
    pub amounts: Amounts,
}

/// Closed hours of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedHours {
    /// Every hour before this moment is closed.
    pub closed_until: Timestamp,
    /// Every hour before this moment that has usage, and that was asked for, is listed.
    pub listed_until: Timestamp,
    /// Those with usage, the earliest first.
    pub hours: Vec<ClosedHour>,
}

impl ClosedHours {
    /// A page of at most so many hours with usage.
    pub(super) fn page(closed_until: i64, most: u32, hours: Vec<ClosedHour>) -> Self {
        let mut distinct: Vec<_> = hours.iter().map(|row| row.hour).collect();
        distinct.dedup();
        let closed_until = Timestamp::from_second(closed_until);
        let full = distinct.len() >= most as usize;
        let listed_until = distinct.last().filter(|_| full).map_or(closed_until, |last| last.plus(HOUR));
        Self { closed_until, listed_until, hours }
    }
}

/// The tables, with what the lines of earlier schemas say.
pub fn tables(integer: &str, declared: &str, options: &str) -> String {
    let sums: Vec<_> = Unit::iter().map(|unit| format!("CAST(sum({unit}) AS {integer})")).collect();
    format!(
        "CREATE TABLE tenant_hour (tenant TEXT NOT NULL, hour {integer} NOT NULL, period_start {integer} NOT NULL,
             {declared}, PRIMARY KEY (tenant, hour, period_start)) {options};
         INSERT INTO tenant_hour (tenant, hour, period_start, {})
             SELECT tenant, at - at % {HOUR}, period_start, {} FROM line GROUP BY 1, 2, 3;
         CREATE TABLE closed (until {integer} NOT NULL);
         INSERT INTO closed VALUES (0);",
        columns(""),
        sums.join(", ")
    )
}

/// What later schemas know of a line: its hour, where that is not the one of its `at`. No line of an earlier schema was
/// told from the others, so each of them is in the hour of its `at`, as [`tables`] counts it.
pub fn of_lines(integer: &str) -> String {
    format!("ALTER TABLE line ADD COLUMN hour {integer};")
}

/// The hour of a line, of a row of `line`.
pub fn of_line() -> String {
    format!("COALESCE(hour, at - at % {HOUR})")
}

/// Adds to an hour: that of the moment, or the first one that is not closed. It takes the tenant, the period's start,
/// the hour, and the amounts.
pub fn add(mark: impl Fn(usize) -> String, latest: &str) -> String {
    let amounts: Vec<_> = (4..4 + Unit::COUNT).map(|n| format!("CAST({} AS BIGINT)", mark(n))).collect();
    format!(
        "INSERT INTO tenant_hour (tenant, period_start, hour, {})
             SELECT CAST({} AS TEXT), CAST({} AS BIGINT), {latest}(CAST({} AS BIGINT), until), {} FROM closed WHERE true
             ON CONFLICT (tenant, hour, period_start) DO UPDATE SET {}",
        columns(""),
        mark(1),
        mark(2),
        mark(3),
        amounts.join(", "),
        summed("tenant_hour")
    )
}

/// Lists hours of a tenant: from one, before another one, and at most so many with usage.
pub fn listed([tenant, from, until, most]: [&str; 4]) -> String {
    let amounts: Vec<_> = Unit::iter().map(|unit| format!("tenant_hour.{unit}")).collect();
    format!(
        "SELECT tenant_hour.hour, tenant_hour.period_start, COALESCE(account.period_end, tenant_hour.period_start), {}
         FROM tenant_hour LEFT JOIN account
             ON account.tenant = tenant_hour.tenant AND account.period_start = tenant_hour.period_start
         WHERE tenant_hour.tenant = {tenant} AND tenant_hour.hour >= {from} AND tenant_hour.hour < {until}
             AND tenant_hour.hour <= (SELECT max(hour) FROM (SELECT DISTINCT hour FROM tenant_hour
                 WHERE tenant = {tenant} AND hour >= {from} AND hour < {until} ORDER BY hour LIMIT {most}) AS page)
         ORDER BY tenant_hour.hour, tenant_hour.period_start",
        amounts.join(", ")
    )
}
