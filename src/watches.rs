//! Watches that survive a restore of etcd from a backup. A restore sets etcd's revisions back, and with them every
//! resource version. A watch that resumes from the last version it has seen then asks for a version in the future: the
//! API server accepts it, and stays silent until that version comes
//! (<https://etcd.io/docs/v3.6/op-guide/recovery/#restoring-with-revision-bump>). A restore stops every API server, so
//! a watch that breaks off or cannot resume lists everything again.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt, stream};
use kube::runtime::watcher::{self, Error, Event};
use kube::runtime::{WatchStreamExt, watcher as kube_watch};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// Lists and watches, with a growing wait between attempts that fail.
pub fn watch<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let begin = move || (kube_watch(api.clone(), config.clone()).default_backoff().boxed(), Instant::now());
    stream::unfold((begin(), begin, 0, Duration::ZERO), |((mut events, begun), begin, short, wait)| async move {
        tokio::time::sleep(wait).await;
        let event = events.next().await?;
        if !event.as_ref().is_err_and(may_be_restored) {
            return Some((event, ((events, begun), begin, short, Duration::ZERO)));
        }
        // The wait of kube's own stream ends with the stream. An account that may list and not watch would list everything
        // again and again.
        let short = if begun.elapsed() < LASTS { short + 1 } else { 0 };
        Some((event, (begin(), begin, short, pause(short))))
    })
}

/// A watch that broke off sooner does not work.
const LASTS: Duration = Duration::from_mins(1);
/// The longest wait before everything is listed again.
const LONGEST: Duration = Duration::from_secs(30);

/// The wait before the next listing, after so many watches that broke off soon. None after the first that lasted.
fn pause(short: u32) -> Duration {
    let Some(doublings) = short.checked_sub(1) else { return Duration::ZERO };
    Duration::from_millis(500).saturating_mul(1 << doublings.min(6)).min(LONGEST)
}

/// Whether the API server may have been away. kube itself starts again after a failed listing and for a version that is
/// too old. A watch that ends in order, as each does after some minutes, resumes.
fn may_be_restored(error: &Error) -> bool {
    matches!(error, Error::WatchStartFailed(_) | Error::WatchFailed(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_breaks_off_again_and_again_waits_longer_each_time() {
        let milliseconds = |short| pause(short).as_millis();
        assert_eq!([0, 1, 2, 3, 4].map(milliseconds), [0, 500, 1000, 2000, 4000]);
        assert_eq!([7, 100, u32::MAX].map(milliseconds), [30_000; 3]);
    }
}
