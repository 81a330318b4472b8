//! Room for uploads. A file of 10 MB is held in memory while it is read and stored, so there are few places, and no
//! tenant takes them all.

use std::time::Duration;

use super::deadline::Deadline;
use super::problem::Problem;
use super::shares::{Share, Shares};

/// Files that are read and stored at the same time.
const ALL: usize = 4;
/// Those of one tenant.
const OWN: usize = 2;
/// Uploads of one tenant that wait for a place. Nothing of their bodies is read yet.
const WAITING: usize = 64;
/// How long an upload waits.
const WAIT: Duration = Duration::from_secs(10);

/// All places, by the tenants' uids.
#[derive(Debug)]
pub struct Places {
    shares: Shares<String>,
    limit: Duration,
}

/// The right to hold a file in memory, until the upload has ended.
#[derive(Debug)]
pub struct UploadPlace {
    /// When it ends.
    pub deadline: Deadline,
    _share: Share,
}

impl Places {
    /// For uploads that take no longer than this.
    pub fn new(limit: Duration) -> Self {
        Self { shares: Shares::new(ALL, OWN, WAITING, WAIT), limit }
    }

    /// Waits for a place for an upload of the tenant. Call it right after the look at whether the tenant is served: the
    /// time of the upload counts from here.
    pub async fn take(&self, uid: &str) -> Result<UploadPlace, Problem> {
        let deadline = Deadline::of(self.limit);
        let share = self.shares.take(uid.to_owned()).await;
        share
            .map(|share| UploadPlace { deadline, _share: share })
            .ok_or_else(|| Problem::too_many(Duration::from_secs(5)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_tenant_that_floods_leaves_places_for_others() {
        let wait = Duration::from_millis(300);
        let mut places = Places::new(Duration::from_mins(1));
        places.shares.wait = wait;
        let places = Arc::new(places);
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
