//! Values of rows, and the statements that write them.

use std::sync::LazyLock;

use rusqlite::types::ToSql;
use rusqlite::{Connection, Row};
use strum::{EnumCount, IntoEnumIterator};

use crate::api::Timestamp;
use crate::ledger::account::Period;
use crate::ledger::store::columns::columns;
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

/// A statement that is put together once: to name the columns of all units for each command takes as long as to run it.
pub type Sql = LazyLock<String>;

/// The statement that inserts a row: some fixed columns, and a set of amounts for each prefix.
pub fn insertion(table: &str, fixed: &[&str], prefixes: &[&str], conflict: &str) -> String {
    let sets: Vec<_> = prefixes.iter().map(|prefix| columns(prefix)).collect();
    let marks = vec!["?"; fixed.len() + prefixes.len() * Unit::COUNT].join(", ");
    format!("INSERT INTO {table} ({}, {}) VALUES ({marks}) {conflict}", fixed.join(", "), sets.join(", "))
}

/// Runs a statement with such values.
pub fn insert(connection: &Connection, sql: &str, fixed: &[&dyn ToSql], amounts: &[Amounts]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut at = 0;
    for value in fixed {
        at += 1;
        statement.raw_bind_parameter(at, value)?;
    }
    for (_, amount) in amounts.iter().flat_map(|amounts| amounts.each()) {
        at += 1;
        statement.raw_bind_parameter(at, amount)?;
    }
    statement.raw_execute().map(drop)
}
