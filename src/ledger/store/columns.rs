//! The columns of amounts, which both databases share: one for each unit, so that sums are the database's.

use strum::IntoEnumIterator;

use crate::ledger::units::Unit;

/// The columns of all units: `used_queries, used_prompt_tokens, ...`.
pub fn columns(prefix: &str) -> String {
    each(|unit| format!("{prefix}{unit}"))
}

/// Their declarations, with a type.
pub fn declared(prefix: &str, kind: &str) -> String {
    each(|unit| format!("{prefix}{unit} {kind} NOT NULL"))
}

/// Adds the amounts of a row that is there already, in an upsert of `table`.
pub fn summed(table: &str) -> String {
    each(|unit| format!("{unit} = {table}.{unit} + excluded.{unit}"))
}

/// Takes the amounts of the row that was to be inserted, in an upsert.
pub fn replaced(prefixes: &[&str]) -> String {
    let sets = prefixes.iter().map(|prefix| each(|unit| format!("{prefix}{unit} = excluded.{prefix}{unit}")));
    sets.collect::<Vec<_>>().join(", ")
}

fn each(text: impl Fn(Unit) -> String) -> String {
    Unit::iter().map(text).collect::<Vec<_>>().join(", ")
}
