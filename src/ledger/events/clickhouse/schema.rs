//! The tables. Every statement may be repeated: two replicas can begin at the same moment.

use clickhouse::Client;
use strum::IntoEnumIterator;

use super::{QUESTION, within};
use crate::ledger::events::EventsError;
use crate::ledger::units::Unit;

/// The schema that this version writes.
const VERSION: i64 = 1;
/// Seconds after which the server merges all that has arrived into one part. Reads with `FINAL` then have nothing left to
/// merge, and take a third of the time.
const MERGED_AFTER: &str = "min_age_to_force_merge_seconds = 86400";
/// Says that a database is ours, and which schema it has. Made first.
const OURS: &str =
    "CREATE TABLE IF NOT EXISTS tenant_operator_events (version Int64) ENGINE = MergeTree ORDER BY version";

fn first() -> [String; 2] {
    let units: Vec<_> = Unit::iter().map(|unit| format!("{unit} Int64")).collect();
    [
        // A batch is in one partition, so all of it arrives or nothing does.
        format!(
            "CREATE TABLE IF NOT EXISTS line (generation Int64, tenant LowCardinality(String), at Int64, seq Int64,
                 hour Int64, operation String, period_start Int64, kind LowCardinality(String), {},
                 INDEX hours hour TYPE minmax GRANULARITY 1)
             ENGINE = ReplacingMergeTree PARTITION BY generation ORDER BY (generation, tenant, at, seq)
             SETTINGS non_replicated_deduplication_window = 1000, {MERGED_AFTER}",
            units.join(", ")
        ),
        "CREATE TABLE IF NOT EXISTS fed (generation Int64, ledger String, version UInt64, after Int64,
             after_digest String, last Int64, last_digest String, done Bool)
         ENGINE = ReplacingMergeTree(version) ORDER BY generation"
            .to_owned(),
    ]
}

/// Makes the tables of an empty database. Refuses what a later version wrote, and a database of something else.
pub async fn migrate(client: &Client) -> Result<(), EventsError> {
    let execute = async |sql: &str| within(QUESTION, client.query(sql).execute()).await;
    let tables = "SELECT name FROM system.tables WHERE database = currentDatabase()";
    let tables: Vec<String> = within(QUESTION, client.query(tables).fetch_all()).await?;
    let ours = tables.iter().any(|name| name == "tenant_operator_events");
    if !ours && !tables.is_empty() {
        let database = client.database().unwrap_or("default");
        return Err(EventsError::NotOurs(format!("the database {database} of EVENTS_URL")));
    }
    execute(OURS).await?;
    let found: i64 =
        within(QUESTION, client.query("SELECT max(version) FROM tenant_operator_events").fetch_one()).await?;
    if found > VERSION {
        return Err(EventsError::Newer { found, known: VERSION });
    }
    if found < VERSION {
        for table in first() {
            execute(&table).await?;
        }
        return execute(&format!("INSERT INTO tenant_operator_events VALUES ({VERSION})")).await;
    }
    // Tables of an earlier version of this schema lack it. It changes no answer, so they are used without it if need be.
    let sql = "SELECT position(engine_full, ?) FROM system.tables WHERE database = currentDatabase() AND name = 'line'";
    let there: u64 = within(QUESTION, client.query(sql).bind(MERGED_AFTER).fetch_one()).await?;
    if there == 0
        && let Err(error) = execute(&format!("ALTER TABLE line MODIFY SETTING {MERGED_AFTER}")).await
    {
        tracing::warn!(%error, "the events store is not told to merge its lines: sums of them take longer");
    }
    Ok(())
}
