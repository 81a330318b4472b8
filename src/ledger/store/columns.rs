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

/// The tenants with a line after a number and up to another one, in the order of their latest lines, at most so many of
/// them: id, period, number of the latest line, and the sums of the rows of their account.
pub fn changed([after, until, most]: [&str; 3]) -> String {
    let sums = ["used_", "reserved_"].map(|prefix| each(|unit| format!("CAST(sum(account.{prefix}{unit}) AS BIGINT)")));
    format!(
        "SELECT latest.id, latest.period_start, latest.period_end, latest.seq, {} FROM
             (SELECT id, period_start, period_end, seq FROM tenant WHERE seq > {after} AND seq <= {until}
              ORDER BY seq LIMIT {most}) AS latest
         JOIN account ON account.tenant = latest.id AND account.period_start IN (latest.period_start, 0)
         GROUP BY latest.id, latest.period_start, latest.period_end, latest.seq ORDER BY latest.seq",
        sums.join(", ")
    )
}

/// Counts the lines after one, at most so many of them, and tells when the first one was written.
pub fn waiting([after, most]: [&str; 2]) -> String {
    format!(
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM line WHERE seq > {after} LIMIT {most}) AS some),
             (SELECT at FROM line WHERE seq > {after} ORDER BY seq LIMIT 1)"
    )
}

fn each(text: impl Fn(Unit) -> String) -> String {
    Unit::iter().map(text).collect::<Vec<_>>().join(", ")
}
