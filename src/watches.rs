//! Watches that survive a restore of etcd from a backup. A restore sets etcd's revisions back, and with them every
//! resource version. A watch that resumes from the last version it has seen then asks for a version in the future: the
//! API server accepts it, and stays silent until that version comes
//! (<https://etcd.io/docs/v3.6/op-guide/recovery/#restoring-with-revision-bump>). A restore stops every API server, so
//! a watch that breaks off or cannot resume lists everything again.

use std::fmt::Debug;

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
    let begin = move || kube_watch(api.clone(), config.clone()).default_backoff().boxed();
    stream::unfold((begin(), begin), |(mut events, begin)| async move {
        let event = events.next().await?;
        if event.as_ref().is_err_and(may_be_restored) {
            events = begin();
        }
        Some((event, (events, begin)))
    })
}

/// Whether the API server may have been away. kube itself starts again after a failed listing and for a version that is
/// too old. A watch that ends in order, as each does after some minutes, resumes.
fn may_be_restored(error: &Error) -> bool {
    matches!(error, Error::WatchStartFailed(_) | Error::WatchFailed(_))
}
