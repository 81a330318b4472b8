//! Lines as they are read.

use deadpool_postgres::{Client, GenericClient};
use tokio_postgres::Row;

use super::connection::begin;
use super::schema::LINE_LOCK;
use super::values::amounts;
use crate::api::Timestamp;
use crate::ledger::store::columns::{columns, waiting as waiting_after};
use crate::ledger::store::hours::of_line;
use crate::ledger::store::{StoreError, StoredLine, Waiting};

/// The number of the last line, before which none is missing. A number is taken before its commit, so the reader waits
/// for the commits that are under way: otherwise it could pass over one that has a smaller number and comes later.
pub async fn last(client: &mut Client) -> Result<i64, tokio_postgres::Error> {
    // Whatever a database's default is, the question is asked of what is there once the lock is held.
    let transaction = begin(client).await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LINE_LOCK]).await?;
    let last: Option<i64> = transaction.query_one("SELECT max(seq) FROM line", &[]).await?.get(0);
    transaction.commit().await?;
    Ok(last.unwrap_or(0))
}

/// The lines after a sequence number.
pub async fn lines(client: &mut Client, after: i64, most: u32) -> Result<Vec<StoredLine>, StoreError> {
    let last = last(client).await?;
    let sql = format!(
        "SELECT seq, operation, tenant, period_start, at, kind, {}, {} FROM line WHERE seq > $1 AND seq <= $2
         ORDER BY seq LIMIT $3",
        of_line(),
        columns("")
    );
    let rows = client.query(&sql, &[&after, &last, &i64::from(most)]).await?;
    let line = |row: &Row| {
        Ok(StoredLine {
            seq: row.get(0),
            operation: row.get(1),
            tenant: row.get(2),
            period_start: Timestamp::from_second(row.get(3)),
            at: Timestamp::from_second(row.get(4)),
            kind: row.get::<_, &str>(5).parse().map_err(|_| StoreError::Corrupt)?,
            hour: Timestamp::from_second(row.get(6)),
            amounts: amounts(row, 7),
        })
    };
    rows.iter().map(line).collect()
}

/// What lies after a sequence number.
pub async fn waiting(client: &impl GenericClient, after: i64, most: u32) -> Result<Waiting, tokio_postgres::Error> {
    let statement = client.prepare_cached(&waiting_after(["$1", "$2"])).await?;
    let row = client.query_one(&statement, &[&after, &i64::from(most)]).await?;
    let lines = u32::try_from(row.get::<_, i64>(0)).unwrap_or(most);
    Ok(Waiting { lines, since: row.get::<_, Option<i64>>(1).map(Timestamp::from_second) })
}
