//! Room that callers share: so many places in all, some of them for each caller, and so many who wait.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Callers without a place are forgotten when there are so many.
const KEPT: usize = 1000;

/// The places.
#[derive(Debug)]
pub struct Shares<K> {
    /// Those of one caller.
    each: usize,
    /// Requests of one caller that may wait for a place.
    waiting: usize,
    /// How long a request waits.
    pub wait: Duration,
    all: Arc<Semaphore>,
    own: Mutex<HashMap<K, Own>>,
}

/// The places of one caller.
#[derive(Clone, Debug)]
struct Own {
    places: Arc<Semaphore>,
    /// Places and waiting requests.
    line: Arc<Semaphore>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Share {
    _line: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl<K: Eq + Hash> Shares<K> {
    /// So many places in all and for each caller.
    pub fn new(all: usize, each: usize, waiting: usize, wait: Duration) -> Self {
        Self { each, waiting, wait, all: Arc::new(Semaphore::new(all)), own: Mutex::default() }
    }

    /// Waits for a place. A caller's own places come first, so that one caller who fills them leaves places for all
    /// others. None where too many wait already, or no place becomes free in time.
    pub async fn take(&self, caller: K) -> Option<Share> {
        let Own { places, line } = self.own(caller);
        let line = line.try_acquire_owned().ok()?;
        let share = async {
            let own = places.acquire_owned().await.ok()?;
            let all = self.all.clone().acquire_owned().await.ok()?;
            Some(Share { _line: line, _own: own, _all: all })
        };
        tokio::time::timeout(self.wait, share).await.ok().flatten()
    }

    /// Takes a place if one is free for this caller.
    pub fn try_take(&self, caller: K) -> Option<Share> {
        let Own { places, line } = self.own(caller);
        let (line, own) = (line.try_acquire_owned().ok()?, places.try_acquire_owned().ok()?);
        let all = self.all.clone().try_acquire_owned().ok()?;
        Some(Share { _line: line, _own: own, _all: all })
    }

    fn own(&self, caller: K) -> Own {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.len() > KEPT {
            // A permit that is out holds its semaphore.
            own.retain(|_, own| Arc::strong_count(&own.line) > 1);
        }
        let new = || Own {
            places: Arc::new(Semaphore::new(self.each)),
            line: Arc::new(Semaphore::new(self.each + self.waiting)),
        };
        own.entry(caller).or_insert_with(new).clone()
    }
}
