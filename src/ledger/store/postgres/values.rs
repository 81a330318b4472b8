//! Values of rows.

use strum::IntoEnumIterator;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::api::Timestamp;
use crate::ledger::account::Period;
use crate::ledger::units::{Amounts, Unit};

/// A value of a statement.
pub type Bound<'a> = &'a (dyn ToSql + Sync);

/// The amounts in the columns from `first` on.
pub fn amounts(row: &Row, first: usize) -> Amounts {
    Unit::iter().enumerate().fold(Amounts::ZERO, |all, (at, unit)| all.with(unit, row.get(first + at)))
}

/// The period in two columns.
pub fn period(row: &Row, first: usize) -> Period {
    let moment = |at: usize| Timestamp::from_second(row.get(at));
    Period { start: moment(first), end: moment(first + 1) }
}
