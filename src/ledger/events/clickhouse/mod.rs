//! An events store in `ClickHouse`, for more lines than one machine's file is made for.
//!
//! A line is one row by its sorting key (`ReplacingMergeTree`), whatever arrives twice: reads ask with `FINAL`. A batch
//! is noted before it is sent, so that its repetition is the same one and is recognised by its token. There are no
//! materialised views, which a repeated insert can make differ from their table.

mod errors;
mod rows;
mod schema;
mod url;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use clickhouse::{Client, Compression};
use futures::Future;
use secrecy::SecretString;

use super::error::belongs;
use super::{Asked, Batch, EventsError, EventsStore, Page, Position, Span, Sum};
use crate::api::Timestamp;
use crate::ledger::store::StoredLine;
use rows::{Fed, LineRow, SumRow};

/// How long a question may take, and one statement of the server that answers it.
const QUESTION: Duration = Duration::from_secs(15);
/// How long a batch may take.
const BATCH: Duration = Duration::from_mins(1);

/// With 0, `FINAL` reads nothing that the index of hours excludes, so the latest hours are summed in a tenth of the time.
/// By default the server reads it, because copies of a row may differ in that column; copies of a line never do. Earlier
/// servers do not know the setting, and refuse a question with it.
const INEXACT_SKIP: &str = "use_skip_indexes_if_final_exact_mode";

/// A database.
pub struct ClickHouse {
    client: Client,
    /// Whether its tables were seen.
    found: AtomicBool,
    /// Whether the server knows [`INEXACT_SKIP`].
    skips: AtomicBool,
}

/// Without the client, which holds the password.
impl std::fmt::Debug for ClickHouse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClickHouse").field("found", &self.found).finish_non_exhaustive()
    }
}

/// Waits so long for an answer.
async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = clickhouse::error::Result<T>>,
) -> Result<T, EventsError> {
    Ok(tokio::time::timeout(limit, answer).await.map_err(|_| EventsError::Late(limit))??)
}

impl ClickHouse {
    /// The store of a URL. Nothing is asked of it yet.
    pub fn new(url: &SecretString) -> Result<Self, EventsError> {
        let client = url::client(url)?
            .with_compression(Compression::None)
            // A server may collect inserts by default, and answer before they are written.
            .with_setting("async_insert", "0")
            .with_setting("do_not_merge_across_partitions_select_final", "1");
        Ok(Self { client, found: AtomicBool::new(false), skips: AtomicBool::new(false) })
    }

    /// Does something once the tables are there. If they went away, the next call makes them again.
    async fn with_tables<T>(&self, answer: impl Future<Output = Result<T, EventsError>>) -> Result<T, EventsError> {
        if !self.found.load(Ordering::Relaxed) {
            schema::migrate(&self.client).await?;
            let sql = "SELECT count() FROM system.settings WHERE name = ?";
            let known = within(QUESTION, self.client.query(sql).bind(INEXACT_SKIP).fetch_one::<u64>()).await?;
            self.skips.store(known > 0, Ordering::Relaxed);
            self.found.store(true, Ordering::Relaxed);
        }
        let answered = answer.await;
        if answered.is_err() {
            self.found.store(false, Ordering::Relaxed);
        }
        answered
    }

    /// How far the latest generation is fed, and whose it is. None of a store that is new.
    async fn latest(&self) -> Result<Option<Fed>, EventsError> {
        let sql = "SELECT ?fields FROM fed FINAL ORDER BY generation DESC LIMIT 1";
        within(QUESTION, self.client.query(sql).fetch_optional()).await
    }

    async fn put(&self, fed: &Fed) -> Result<(), EventsError> {
        let written = async {
            let mut insert = self.client.insert::<Fed>("fed").await?;
            insert.write(fed).await?;
            insert.end().await
        };
        within(QUESTION, written).await
    }

    /// The generation that is read.
    async fn generation(&self, ledger: &str) -> Result<i64, EventsError> {
        let fed = self.latest().await?.ok_or_else(|| EventsError::Away("it is not fed yet".into()))?;
        belongs(&fed.ledger, ledger)?;
        Ok(fed.generation)
    }

    async fn fed(&self, ledger: &str) -> Result<Fed, EventsError> {
        if let Some(fed) = self.latest().await? {
            belongs(&fed.ledger, ledger)?;
            return Ok(fed);
        }
        let begun = Fed::first(ledger, 0);
        self.put(&begun).await?;
        // Another replica, or another ledger, may have begun it at the same moment: the greater generation is right.
        Ok(begun)
    }

    async fn append_lines(&self, ledger: &str, batch: &Batch) -> Result<(), EventsError> {
        let fed = self.fed(ledger).await?;
        let (last, position) = (batch.last(), fed.position());
        if fed.generation == batch.generation && position.mark.seq >= last.seq {
            return Ok(());
        }
        if fed.generation != batch.generation || position.mark != batch.after {
            return Err(EventsError::Superseded);
        }
        let begun = Fed::begun(ledger, batch);
        if position.begun.as_ref() != Some(&last) {
            self.put(&begun).await?;
        }
        let token = format!("{ledger}-{}-{}-{}-{}", batch.generation, batch.after.seq, last.seq, last.digest);
        let written = async {
            let insert = self.client.insert::<LineRow>("line").await?;
            let mut insert = insert.with_setting("insert_deduplication_token", token);
            for line in &batch.lines {
                insert.write(&LineRow::of(batch.generation, line)).await?;
            }
            insert.end().await
        };
        within(BATCH, written).await?;
        self.put(&begun.done()).await
    }

    async fn begin_anew(&self, ledger: &str, take_over: bool) -> Result<i64, EventsError> {
        let known = self.latest().await?;
        if let Some(fed) = &known
            && !take_over
        {
            belongs(&fed.ledger, ledger)?;
        }
        let next = Fed::first(ledger, known.map_or(0, |fed| fed.generation));
        self.put(&next).await?;
        // What was fed before is not read from now on. Its space is given back here, or by the next time.
        let sql = "SELECT DISTINCT generation FROM line WHERE generation < ?";
        for old in within(QUESTION, self.client.query(sql).bind(next.generation).fetch_all::<i64>()).await? {
            within(QUESTION, self.client.query("ALTER TABLE line DROP PARTITION ?").bind(old).execute()).await?;
        }
        Ok(next.generation)
    }

    async fn read_sums(&self, ledger: &str, asked: Asked<'_>, span: Span) -> Result<Vec<Sum>, EventsError> {
        let generation = self.generation(ledger).await?;
        let mut query = self.client.query(&rows::sums(&asked)).bind(generation);
        if self.skips.load(Ordering::Relaxed) {
            query = query.with_setting(INEXACT_SKIP, "0");
        }
        if let Some(tenant) = asked.tenant() {
            query = query.bind(tenant);
        }
        let query = query.bind(span.from.as_second()).bind(span.to.as_second());
        let sums = within(QUESTION, query.fetch_all::<SumRow>()).await?;
        Ok(sums.into_iter().map(Sum::from).collect())
    }

    async fn read_lines(
        &self,
        ledger: &str,
        tenant: &str,
        span: Span,
        page: Page,
    ) -> Result<Vec<StoredLine>, EventsError> {
        let sql =
            "SELECT ?fields FROM line FINAL WHERE generation = ? AND tenant = ? AND at >= ? AND at < ? AND seq > ?
            ORDER BY seq LIMIT ?";
        let query = self.client.query(sql).bind(self.generation(ledger).await?).bind(tenant);
        let query = query.bind(span.from.as_second()).bind(span.to.as_second()).bind(page.after).bind(page.most);
        within(QUESTION, query.fetch_all::<LineRow>()).await?.into_iter().map(LineRow::line).collect()
    }

    /// Sets after how long the server deletes lines, unless it is set already.
    async fn set_retention(&self, retention: Duration) -> Result<(), EventsError> {
        let ttl = format!("toDateTime(hour) + toIntervalSecond({})", retention.as_secs());
        let sql =
            "SELECT position(engine_full, ?) FROM system.tables WHERE database = currentDatabase() AND name = 'line'";
        let there = within(QUESTION, self.client.query(sql).bind(&ttl).fetch_one::<u64>()).await?;
        if there == 0 {
            let sql = format!("ALTER TABLE line MODIFY TTL {ttl}");
            within(BATCH, self.client.query(&sql).execute()).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl EventsStore for ClickHouse {
    fn kind(&self) -> &'static str {
        "ClickHouse"
    }

    async fn position(&self, ledger: &str) -> Result<Position, EventsError> {
        Ok(self.with_tables(self.fed(ledger)).await?.position())
    }

    async fn append(&self, ledger: &str, batch: &Batch) -> Result<(), EventsError> {
        self.with_tables(self.append_lines(ledger, batch)).await
    }

    async fn wipe(&self, ledger: &str, take_over: bool) -> Result<i64, EventsError> {
        self.with_tables(self.begin_anew(ledger, take_over)).await
    }

    async fn sums(&self, ledger: &str, asked: Asked<'_>, span: Span) -> Result<Vec<Sum>, EventsError> {
        self.with_tables(self.read_sums(ledger, asked, span)).await
    }

    async fn lines(&self, ledger: &str, tenant: &str, span: Span, page: Page) -> Result<Vec<StoredLine>, EventsError> {
        self.with_tables(self.read_lines(ledger, tenant, span, page)).await
    }

    async fn keep(&self, retention: Duration, _now: Timestamp) -> Result<(), EventsError> {
        self.with_tables(self.set_retention(retention)).await
    }
}
