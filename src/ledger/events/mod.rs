//! The events store: a copy of the ledger's lines, to be summed and listed at a size that one database of counts is not
//! made for. The ledger feeds it and never waits for it; it can always be made anew from the ledger.

mod agreement;
pub mod clickhouse;
mod digest;
mod error;
mod feed;
mod place;
mod reading;
pub mod sqlite;

use std::time::Duration;

use async_trait::async_trait;

use super::store::StoredLine;
use crate::api::Timestamp;

pub use agreement::Difference;
pub use digest::digest;
pub use error::{EventsError, FeedError};
pub use feed::{Fed, Feed, Progress};
pub use place::EventsPlace;
pub use reading::{Asked, Page, Span, Sum};

/// Lines of hours before this moment are forgotten.
fn forgotten_before(retention: Duration, now: Timestamp) -> Timestamp {
    now.plus(-i64::try_from(retention.as_secs()).unwrap_or(i64::MAX))
}

/// A line up to which a store is fed, with a digest of it: a ledger that was restored gives the number to another line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The line's number. 0 before the first line.
    pub seq: i64,
    /// Its digest. Empty before the first line.
    pub digest: String,
}

impl Mark {
    /// That of a line.
    pub fn of(line: &StoredLine) -> Self {
        Self { seq: line.seq, digest: digest(line) }
    }
}

/// How far a store is fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// How often it was begun anew. What was sent for an earlier generation and arrives late is not read.
    pub generation: i64,
    /// It holds every line up to and with this one.
    pub mark: Mark,
    /// The last line of a batch that was begun after the mark, and may have arrived: the next batch must be the same.
    pub begun: Option<Mark>,
}

/// Lines that follow a mark. Repeated, it is the same lines under the same name.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The generation that it belongs to.
    pub generation: i64,
    /// What the store holds before it.
    pub after: Mark,
    /// Its lines, in order. At least one.
    pub lines: Vec<StoredLine>,
}

impl Batch {
    /// Its last line.
    pub fn last(&self) -> Mark {
        self.lines.last().map_or_else(|| self.after.clone(), Mark::of)
    }
}

/// Keeps the ledger's lines. `tests/ledger/events_store` judges each implementation by the same tests.
///
/// A store belongs to one ledger. It is found, and its tables are made, by the first call that reaches it.
#[async_trait]
pub trait EventsStore: std::fmt::Debug + Send + Sync {
    /// What kind of store it is, for people: `SQLite` or `ClickHouse`.
    fn kind(&self) -> &'static str;

    /// How far it is fed. A store without an owner belongs to this ledger from now on; one of another ledger is refused.
    async fn position(&self, ledger: &str) -> Result<Position, EventsError>;

    /// Appends a batch. If it fails, it may have arrived: repeat it.
    async fn append(&self, ledger: &str, batch: &Batch) -> Result<(), EventsError>;

    /// Empties it and begins the next generation, which is returned. A store of another ledger is refused, unless it is
    /// to be taken over.
    async fn wipe(&self, ledger: &str, take_over: bool) -> Result<i64, EventsError>;

    /// Sums of lines, of a store that is this ledger's.
    async fn sums(&self, ledger: &str, asked: Asked<'_>, span: Span) -> Result<Vec<Sum>, EventsError>;

    /// The lines of a tenant that were written within a span, in order.
    async fn lines(&self, ledger: &str, tenant: &str, span: Span, page: Page) -> Result<Vec<StoredLine>, EventsError>;

    /// Forgets lines that are older than this, now or over time. Called again and again.
    async fn keep(&self, retention: Duration, now: Timestamp) -> Result<(), EventsError>;
}
