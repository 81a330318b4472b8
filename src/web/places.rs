//! Room for uploads. A file of 10 MB is held in memory while it is read and stored, so there are few places, and no tenant takes
//! them all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::deadline::Deadline;
use super::problem::Problem;

/// Files that are read and stored at the same time.
const ALL: usize = 4;
/// Those of one tenant.
const OWN: usize = 2;
/// Uploads of one tenant that wait for a place. Nothing of their bodies is read yet.
const WAITING: usize = 64;
/// How long an upload waits.
const WAIT: Duration = Duration::from_secs(10);
/// Tenants without an upload are forgotten when there are so many.
const KEPT: usize = 1000;

/// The places of one tenant.
#[derive(Clone, Debug)]
struct Own {
    places: Arc<Semaphore>,
    /// Places and waiting uploads.
    line: Arc<Semaphore>,
}

impl Default for Own {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(OWN)), line: Arc::new(Semaphore::new(OWN + WAITING)) }
    }
}

/// All places.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    own: Mutex<HashMap<String, Own>>,
    wait: Duration,
    limit: Duration,
}

/// The right to hold a file in memory, until the upload has ended.
#[derive(Debug)]
pub struct Place {
    /// When it ends.
    pub deadline: Deadline,
    _line: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

fn refused() -> Problem {
    Problem::too_many(Duration::from_secs(5))
}

impl Places {
    /// For uploads that take no longer than this.
    pub fn new(limit: Duration) -> Self {
        Self { all: Arc::new(Semaphore::new(ALL)), own: Mutex::default(), wait: WAIT, limit }
    }

    /// Waits for a place for an upload of the tenant. Call it right after the look at whether the tenant is served: the time of the
    /// upload counts from here.
    pub async fn take(&self, uid: &str) -> Result<Place, Problem> {
        let deadline = Deadline::of(self.limit);
        let Own { places, line } = self.own(uid);
        let line = line.try_acquire_owned().map_err(|_| refused())?;
        let place = async {
            let own = places.acquire_owned().await.ok()?;
            let all = self.all.clone().acquire_owned().await.ok()?;
            Some(Place { deadline, _line: line, _own: own, _all: all })
        };
        tokio::time::timeout(self.wait, place).await.ok().flatten().ok_or_else(refused)
    }

    fn own(&self, uid: &str) -> Own {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.len() > KEPT {
            // A permit that is out holds its semaphore.
            own.retain(|_, own| Arc::strong_count(&own.line) > 1);
        }
        own.entry(uid.to_owned()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tenant_that_floods_leaves_places_for_others() {
        let wait = Duration::from_millis(300);
        let places = Arc::new(Places { wait, ..Places::new(Duration::from_mins(1)) });
        let flood: Vec<_> = (0..100)
            .map(|_| {
                let places = places.clone();
                tokio::spawn(async move { places.take("flood").await })
            })
            .collect();
        tokio::task::yield_now().await;
        let (first, second) = (places.take("other").await, places.take("other").await);
        assert!(first.is_ok() && second.is_ok(), "two places are left");
        let (mut held, mut refused) = (Vec::new(), 0);
        for upload in flood {
            match upload.await.expect("it ends") {
                Ok(place) => held.push(place),
                Err(_) => refused += 1,
            }
        }
        assert_eq!((held.len(), refused), (OWN, 98), "what waits for too long is refused as well");
        drop((held, first, second));
        assert!(places.take("flood").await.is_ok());
    }
}
