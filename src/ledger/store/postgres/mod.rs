//! The ledger in Postgres, for an installation that has one: a database that others run, and more than one replica of
//! the ledger.
//!
//! Each command is one transaction. It locks the tenant's row first, so the commands of one tenant follow one another,
//! and those of different tenants do not wait for each other.

mod answers;
mod connection;
mod events;
mod hours;
mod lines;
mod rows;
mod schema;
mod values;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Client, Pool, PoolError};
use futures::{StreamExt, TryStreamExt, stream};
use secrecy::SecretString;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use super::{Answers, Changed, ClosedHours, Day, Pending, Store, StoreError, StoredLine, Waiting};
use crate::api::Timestamp;
use crate::ledger::account::{Account, Period};
use crate::ledger::decision::{Answer, Command};
use crate::ledger::units::Amounts;

pub use connection::tls;

/// How long a call to the server may take: longer than the server works on a statement, and shorter than the ledger
/// takes for an answer.
const CALL: Duration = Duration::from_secs(7);
/// Turns that tenants share: few of them meet by chance.
const TURNS: usize = 1024;
/// Events of one transaction.
const EVENTS: usize = 500;
/// Transactions of events at the same time: a part of the connections.
const AT_ONCE: usize = 4;
/// Attempts at a transaction that another one gets in the way of.
const ATTEMPTS: u32 = 10;

/// A ledger in a database that others run.
#[derive(Debug)]
pub struct Postgres {
    pool: Pool,
    turns: Vec<Mutex<()>>,
}

impl Postgres {
    /// Connects, and makes the tables if they are missing.
    pub async fn connect(url: &SecretString) -> Result<Self, StoreError> {
        let pool = connection::pool(url)?;
        schema::migrate(&mut pool.get().await?).await?;
        Ok(Self { pool, turns: (0..TURNS).map(|_| Mutex::new(())).collect() })
    }
}

/// Why a transaction did not come to its end.
#[derive(Debug)]
enum Interrupted {
    /// Another transaction got in the way: begin again.
    Again,
    /// It failed.
    Failed(StoreError),
}

impl From<tokio_postgres::Error> for Interrupted {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(code) if [&SqlState::T_R_SERIALIZATION_FAILURE, &SqlState::T_R_DEADLOCK_DETECTED].contains(&code) => {
                Self::Again
            }
            _ => Self::Failed(error.into()),
        }
    }
}

impl Postgres {
    /// Asks the server something, within the time of a call. A connection that went silent is closed.
    async fn ask<T, E: Into<Interrupted>>(
        &self,
        question: impl AsyncFnOnce(&mut Client) -> Result<T, E>,
    ) -> Result<T, Interrupted> {
        let mut client = self.pool.get().await.map_err(StoreError::from)?;
        let answered = timeout(CALL, question(&mut client)).await;
        let Ok(answered) = answered else {
            drop(Client::take(client));
            return Err(Interrupted::Failed(StoreError::Silent));
        };
        answered.map_err(Into::into)
    }

    /// Counts events of one tenant.
    async fn count_one(&self, tenant: &str, events: &[Command], now: Timestamp) -> Result<Vec<Answer>, StoreError> {
        let _turn = self.turn(tenant).await?;
        for attempt in 0..ATTEMPTS {
            match self.ask(async |client: &mut Client| events::count(client, tenant, events, now).await).await {
                Err(Interrupted::Again) => pause(attempt).await,
                done => return Ok(done?),
            }
        }
        Err(StoreError::Busy)
    }

    /// The turn of one of a tenant's commands. Without it, those that wait for the row of one tenant would hold all
    /// connections.
    async fn turn(&self, tenant: &str) -> Result<MutexGuard<'_, ()>, StoreError> {
        let number = tenant.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let turn = self.turns[number % TURNS].lock();
        timeout(connection::WAIT, turn).await.map_err(|_| StoreError::Busy)
    }
}

/// Waits a moment before a transaction that another one got in the way of begins again.
async fn pause(attempt: u32) {
    tokio::time::sleep(Duration::from_millis(rand::random_range(1..(4 << attempt)))).await;
}

#[async_trait]
impl Store for Postgres {
    async fn apply(&self, command: Command, now: Timestamp) -> Result<Answer, StoreError> {
        let _turn = self.turn(&command.tenant).await?;
        for attempt in 0..ATTEMPTS {
            match self.ask(async |client: &mut Client| rows::apply(client, &command, now).await).await {
                Err(Interrupted::Again) => pause(attempt).await,
                done => return Ok(done?),
            }
        }
        Err(StoreError::Busy)
    }

    async fn count(&self, events: Vec<Command>, now: Timestamp) -> Result<Vec<Answer>, StoreError> {
        let mut by_tenant: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, event) in events.iter().enumerate() {
            by_tenant.entry(&event.tenant).or_default().push(at);
        }
        let chunks = by_tenant
            .into_iter()
            .flat_map(|(tenant, at)| at.chunks(EVENTS).map(|at| (tenant.to_owned(), at.to_vec())).collect::<Vec<_>>());
        let chunks = chunks.map(|(tenant, at)| {
            let chunk: Vec<_> = at.iter().map(|at| events[*at].clone()).collect();
            (tenant, at, chunk)
        });
        let counted = stream::iter(chunks.collect::<Vec<_>>()).map(|(tenant, at, chunk)| async move {
            let answers = self.count_one(&tenant, &chunk, now).await?;
            Ok::<_, StoreError>(at.into_iter().zip(answers).collect::<Vec<_>>())
        });
        let mut answers: Vec<_> = counted.buffer_unordered(AT_ONCE).try_concat().await?;
        answers.sort_unstable_by_key(|(at, _)| *at);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }

    async fn usage(&self, tenant: &str) -> Result<Option<(Period, Account)>, StoreError> {
        Ok(self.ask(async |client: &mut Client| rows::usage(client, tenant).await).await?)
    }

    async fn periods(&self, tenant: &str, most: u32) -> Result<Vec<(Period, Account)>, StoreError> {
        Ok(self.ask(async |client: &mut Client| rows::periods(client, tenant, most).await).await?)
    }

    async fn days(&self, tenant: Option<&str>, first: Day, last: Day) -> Result<Vec<(Day, Amounts)>, StoreError> {
        Ok(self.ask(async |client: &mut Client| rows::days(client, tenant, first, last).await).await?)
    }

    async fn hours(&self, tenant: &str, from: Timestamp, most: u32, now: Timestamp) -> Result<ClosedHours, StoreError> {
        Ok(self.ask(async |client: &mut Client| hours::list(client, tenant, (from, most), now).await).await?)
    }

    async fn lines(&self, after: i64, most: u32) -> Result<Vec<StoredLine>, StoreError> {
        Ok(self.ask(async |client: &mut Client| lines::lines(client, after, most).await).await?)
    }

    async fn waiting(&self, after: i64, most: u32) -> Result<Waiting, StoreError> {
        Ok(self.ask(async |client: &mut Client| lines::waiting(client, after, most).await).await?)
    }

    async fn id(&self) -> Result<String, StoreError> {
        let id = async |client: &mut Client| client.query_one("SELECT id FROM ledger", &[]).await.map(|row| row.get(0));
        Ok(self.ask(id).await?)
    }

    async fn changed(&self, after: i64, most: u32) -> Result<Vec<Changed>, StoreError> {
        Ok(self.ask(async |client: &mut Client| rows::changed(client, after, most).await).await?)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        Ok(self.ask(async |client: &mut Client| rows::probe(client).await).await?)
    }

    async fn forget(&self, before: Timestamp, most: u32) -> Result<u32, StoreError> {
        let forgotten = self.ask(async |client: &mut Client| rows::forget(client, before, most).await).await?;
        Ok(u32::try_from(forgotten).unwrap_or(most))
    }

    async fn pending(&self) -> Result<Vec<Pending>, StoreError> {
        Ok(self.ask(async |client: &mut Client| rows::pending(client).await).await?)
    }

    fn answers(&self) -> &dyn Answers {
        self
    }
}

impl From<StoreError> for Interrupted {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl From<Interrupted> for StoreError {
    fn from(interrupted: Interrupted) -> Self {
        match interrupted {
            Interrupted::Again => Self::Busy,
            Interrupted::Failed(error) => error,
        }
    }
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Timeout(_) => Self::Busy,
            PoolError::Backend(error) => error.into(),
            error => Self::Database(error.to_string()),
        }
    }
}

/// The error of the server in words, with the reason of a connection that was not made. None of them holds the
/// password.
impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(code) if *code == SqlState::DISK_FULL => return Self::Full,
            Some(code) if *code == SqlState::DATA_CORRUPTED || *code == SqlState::INDEX_CORRUPTED => {
                return Self::Corrupt;
            }
            _ => {}
        }
        let mut words = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            words = format!("{words}: {error}");
            cause = error.source();
        }
        Self::Database(words)
    }
}
