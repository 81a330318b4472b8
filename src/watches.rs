//! Watches that survive a restore of etcd from a backup. Its revisions go back then, and with them every resource version. A watch
//! goes on after the last version that it has seen, which is still to come then: the API server takes it, and stays silent until that
//! version is there again (<https://etcd.io/docs/v3.6/op-guide/recovery/#restoring-with-revision-bump>). A restore stops every
//! API server, so a watch that breaks off or cannot go on lists everything anew.

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

/// Whether the API server may have been away. A listing that failed begins anew by itself, and so does a watch of a version that is
/// too old. A watch that ends in order, as each does after some minutes, goes on where it was.
fn may_be_restored(error: &Error) -> bool {
    matches!(error, Error::WatchStartFailed(_) | Error::WatchFailed(_))
}
