//! Hours and a meter that tests of several files begin with.

use crate::api::usage_prices::MeteredUsage;
use crate::api::{Timestamp, Unit};
use crate::ledger::account::Period;
use crate::ledger::units::Amounts;
use crate::ledger::wire::HourUsage;

pub const HOUR: i64 = 3600;
pub const NOON: i64 = 1_800_014_400;

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second)
}

/// Queries of an hour after noon, all in one period.
pub fn hour(number: i64, queries: i64) -> HourUsage {
    let period = Period { start: at(NOON - 100 * HOUR), end: at(NOON + 620 * HOUR) };
    HourUsage { hour: at(NOON + number * HOUR), period, counted: Amounts::of(Unit::Queries, queries) }
}

/// A meter that has the five queries of the hour that begins at noon.
pub fn usage() -> MeteredUsage {
    let (price, meter, since) = ("price_1".into(), "mtr_1".into(), at(NOON));
    MeteredUsage { unit: Unit::Queries, price, meter, since, through: at(NOON + HOUR), sent: 5, unpriced: None }
}
