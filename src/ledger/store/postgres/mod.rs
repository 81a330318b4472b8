//! The ledger in Postgres, for an installation that has one: a database that others run, and more than one replica of the ledger.
//!
//! Each command is one transaction. It locks the tenant's row first, so the commands of one tenant follow one another, and those of
//! different tenants do not wait for each other.

mod connection;
mod rows;
mod schema;

use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Pool, PoolError};
use secrecy::SecretString;
use tokio_postgres::error::SqlState;

use super::{Day, Pending, Store, StoreError, StoredLine};
use crate::api::Timestamp;
use crate::ledger::account::{Account, Period};
use crate::ledger::decision::{Answer, Command};
use crate::ledger::units::Amounts;

/// Attempts at a transaction that another one gets in the way of.
const ATTEMPTS: u32 = 10;

/// A ledger in a database that others run.
#[derive(Debug)]
pub struct Postgres {
    pool: Pool,
}

impl Postgres {
    /// Connects, and makes the tables if they are missing.
    pub async fn connect(url: &SecretString) -> Result<Self, StoreError> {
        let pool = connection::pool(url)?;
        schema::migrate(&mut pool.get().await?).await?;
        Ok(Self { pool })
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

#[async_trait]
impl Store for Postgres {
    async fn apply(&self, command: Command, now: Timestamp) -> Result<Answer, StoreError> {
        for attempt in 0..ATTEMPTS {
            let mut client = self.pool.get().await?;
            match rows::apply(&mut client, &command, now).await {
                Ok(answer) => return Ok(answer),
                Err(Interrupted::Failed(error)) => return Err(error),
                Err(Interrupted::Again) => {}
            }
            drop(client);
            tokio::time::sleep(Duration::from_millis(rand::random_range(1..(4 << attempt)))).await;
        }
        Err(StoreError::Busy)
    }

    async fn usage(&self, tenant: &str) -> Result<Option<(Period, Account)>, StoreError> {
        Ok(rows::usage(&self.pool.get().await?, tenant).await?)
    }

    async fn periods(&self, tenant: &str, most: u32) -> Result<Vec<(Period, Account)>, StoreError> {
        Ok(rows::periods(&self.pool.get().await?, tenant, most).await?)
    }

    async fn days(&self, tenant: Option<&str>, first: Day, last: Day) -> Result<Vec<(Day, Amounts)>, StoreError> {
        Ok(rows::days(&self.pool.get().await?, tenant, first, last).await?)
    }

    async fn lines(&self, after: i64, most: u32) -> Result<Vec<StoredLine>, StoreError> {
        rows::lines(&mut self.pool.get().await?, after, most).await
    }

    async fn pending(&self) -> Result<Vec<Pending>, StoreError> {
        rows::pending(&self.pool.get().await?).await
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

/// The error of the server in words, with the reason of a connection that was not made. None of them holds the password.
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
