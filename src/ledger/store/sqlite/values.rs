//! Values of rows.

use rusqlite::Row;
use strum::IntoEnumIterator;

use crate::api::Timestamp;
use crate::ledger::account::Period;
use crate::ledger::units::{Amounts, Unit};

/// The amounts in the columns from `first` on.
pub fn amounts(row: &Row, first: usize) -> rusqlite::Result<Amounts> {
    let mut result = Amounts::ZERO;
    for (at, unit) in Unit::iter().enumerate() {
        result[unit] = row.get(first + at)?;
    }
    Ok(result)
}

/// The period in two columns.
pub fn period(row: &Row, first: usize) -> rusqlite::Result<Period> {
    let moment = |at: usize| row.get(at).map(Timestamp::from_second);
    Ok(Period { start: moment(first)?, end: moment(first + 1)? })
}
