//! Where an events store is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::SecretString;

use super::clickhouse::ClickHouse;
use super::sqlite::SqliteEvents;
use super::{EventsError, EventsStore};

/// The file beside the ledger's.
const FILE: &str = "events.db";

/// Where an events store is.
#[derive(Debug)]
pub enum EventsPlace {
    /// In this file.
    File(PathBuf),
    /// In the `ClickHouse` database with this URL.
    ClickHouse(SecretString),
}

impl EventsPlace {
    /// Of a URL, or in a file of the ledger's folder. None for a ledger that has neither.
    pub fn of(url: Option<SecretString>, folder: Option<&Path>) -> Option<Self> {
        url.map(Self::ClickHouse).or_else(|| Some(Self::File(folder?.join(FILE))))
    }

    /// The store. Nothing is asked of it yet: it may be away.
    pub fn open(self) -> Result<Arc<dyn EventsStore>, EventsError> {
        Ok(match self {
            Self::File(path) => Arc::new(SqliteEvents::new(&path)),
            Self::ClickHouse(url) => Arc::new(ClickHouse::new(&url)?),
        })
    }
}
