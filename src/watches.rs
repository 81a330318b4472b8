//! Watches that survive a restore of etcd from a backup. A restore sets etcd's revisions back, and with them every
//! resource version. A watch that resumes from the last version it has seen then asks for a version in the future: the
//! API server accepts it, and stays silent until that version comes
//! (<https://etcd.io/docs/v3.6/op-guide/recovery/#restoring-with-revision-bump>). A restore stops every API server, so
//! a watch that breaks off or cannot resume lists everything again.
//!
//! A [`Pulse`] keeps when a watch last received something. Web does not serve with what is too old.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body as Frames;
use axum::http::Request;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use kube::client::Body;
use kube::runtime::watcher::{self, Error, Event};
use kube::runtime::{WatchStreamExt, watcher as kube_watch};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

/// When Kubernetes last sent something.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Mutex<Instant>>);

impl Default for Pulse {
    /// One that begins now.
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Pulse {
    /// Kubernetes sends something now.
    pub fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long ago that was.
    pub fn age(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// The client, with a beat for each event and bookmark of its watches. An accepted watch is no beat: the API server may
    /// be waiting for a version that never comes.
    fn listen(&self, client: Client) -> Client {
        let pulse = self.clone();
        let namespace = client.default_namespace().to_owned();
        let listening = tower::service_fn(move |request: Request<Body>| {
            let (client, pulse) = (client.clone(), pulse.clone());
            async move {
                let watches = is_watch(request.uri().query().unwrap_or_default());
                let response = client.send(request).await?;
                let alive = watches && response.status().is_success();
                let heard = move |body: Body| {
                    Frames::from_stream(Frames::new(body).into_data_stream().inspect_ok(move |frame| {
                        if alive && is_event(frame) {
                            pulse.beat();
                        }
                    }))
                };
                Ok::<_, kube::Error>(response.map(heard))
            }
        });
        Client::new(listening, namespace)
    }
}

/// Whether a request with this query is a watch, as `kube` writes it.
fn is_watch(query: &str) -> bool {
    query.split('&').any(|part| part == "watch=true")
}

/// Whether a piece of a watch is an event or a bookmark. The API server sends each event by itself, its type first
/// (<https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes>); one of the type
/// ERROR says that the watch does not work.
fn is_event(frame: &[u8]) -> bool {
    !frame.is_empty() && !frame.starts_with(br#"{"type":"ERROR""#)
}

/// Lists and watches, with a growing wait between attempts that fail.
pub fn watch<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    followed(api, config, None)
}

/// The same with a pulse. A watch that is silent for so long lists again, so that the pulse of a watch that works is
/// never much older: the API server sends a bookmark about once a minute, but does not promise it.
pub fn watch_with_pulse<K>(
    (client, pulse): (&Client, Pulse),
    api: impl FnOnce(Client) -> Api<K>,
    config: watcher::Config,
    silence: Duration,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    followed(api(pulse.listen(client.clone())), config, Some((pulse, silence)))
}

/// The events of a watch.
type Events<K> = BoxStream<'static, watcher::Result<Event<K>>>;

/// A watch that begins again.
struct Watching<K, B> {
    begin: B,
    events: Events<K>,
    begun: Instant,
    /// When the listing that it goes on from was complete.
    listed: Option<Instant>,
    /// How many watches broke off soon, one after the other.
    short: u32,
    /// The wait before the next event.
    wait: Duration,
    pulse: Option<(Pulse, Duration)>,
}

fn followed<K>(
    api: Api<K>,
    config: watcher::Config,
    pulse: Option<(Pulse, Duration)>,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let begin = move || -> Events<K> { kube_watch(api.clone(), config.clone()).default_backoff().boxed() };
    let (events, now) = (begin(), Instant::now());
    let watching = Watching { begin, events, begun: now, listed: None, short: 0, wait: Duration::ZERO, pulse };
    stream::unfold(watching, |mut watching| async move { Some((watching.next().await?, watching)) })
}

impl<K, B: Fn() -> Events<K>> Watching<K, B> {
    async fn next(&mut self) -> Option<watcher::Result<Event<K>>> {
        tokio::time::sleep(std::mem::take(&mut self.wait)).await;
        let event = loop {
            let Some((pulse, silence)) = self.pulse.clone() else { break self.events.next().await };
            tokio::select! {
                event = self.events.next() => break event,
                () = silent(&pulse, self.begun, silence) => {
                    tracing::debug!("a watch is silent, and lists again");
                    self.begin_again();
                }
            }
        }?;
        match &event {
            Ok(Event::InitDone) => {
                self.listed = Some(Instant::now());
                self.pulse.iter().for_each(|(pulse, _)| pulse.beat());
            }
            Err(error) if may_be_restored(error) => {
                // The wait of kube's own stream ends with the stream. An account that may list and not watch would list
                // everything again and again.
                let lasted = self.listed.is_some_and(|at| at.elapsed() >= LASTS);
                self.short = if lasted { 0 } else { self.short.saturating_add(1) };
                self.begin_again();
                self.wait = jittered(pause(self.short), rand::random());
            }
            _ => {}
        }
        Some(event)
    }

    fn begin_again(&mut self) {
        (self.events, self.begun, self.listed) = ((self.begin)(), Instant::now(), None);
    }
}

/// Waits until the watch is silent for so long: neither a beat nor its beginning is later than that.
async fn silent(pulse: &Pulse, begun: Instant, silence: Duration) {
    loop {
        let wait = silence.saturating_sub(pulse.age().min(begun.elapsed()));
        if wait.is_zero() {
            return;
        }
        tokio::time::sleep(wait).await;
    }
}

/// A watch that broke off sooner after its listing does not work.
const LASTS: Duration = Duration::from_mins(1);
/// The longest wait before everything is listed again.
const LONGEST: Duration = Duration::from_secs(30);

/// The wait before the next listing, after so many watches that broke off soon. None after the first that lasted.
fn pause(short: u32) -> Duration {
    let Some(doublings) = short.checked_sub(1) else { return Duration::ZERO };
    Duration::from_millis(500).saturating_mul(1 << doublings.min(6)).min(LONGEST)
}

/// Between a half of it and all of it, by a number from 0 to 1: replicas that were refused together come back one after
/// the other.
fn jittered(pause: Duration, random: f64) -> Duration {
    pause.mul_f64(0.5 + random / 2.0)
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
        let second = Duration::from_secs(1);
        assert_eq!([0.0, 0.5, 1.0].map(|random| jittered(second, random).as_millis()), [500, 750, 1000]);
    }

    #[test]
    fn an_event_and_a_bookmark_are_beats_and_an_error_is_none() {
        assert!(is_event(br#"{"type":"BOOKMARK","object":{}}"#) && is_event(br#"{"type":"MODIFIED","object":{}}"#));
        assert!(is_event(b"the second half of a long event"));
        assert!(!is_event(br#"{"type":"ERROR","object":{"code":410}}"#) && !is_event(b""));
        assert!(is_watch("&watch=true&timeoutSeconds=290") && !is_watch("limit=500") && !is_watch("watch=false"));
    }

    #[tokio::test]
    async fn a_watch_is_silent_only_if_neither_a_beat_nor_its_beginning_is_near() {
        let (pulse, long) = (Pulse::default(), Duration::from_mins(1));
        *pulse.0.lock().expect("a lock") = Instant::now().checked_sub(long * 2).expect("a moment");
        let long_ago = Instant::now().checked_sub(long * 2).expect("a moment");
        let ends =
            async |begun| tokio::time::timeout(Duration::from_millis(50), silent(&pulse, begun, long)).await.is_ok();
        assert!(
            ends(long_ago).await && !ends(Instant::now()).await,
            "a watch that began a moment ago may yet receive something"
        );
        pulse.beat();
        assert!(!ends(long_ago).await);
    }
}
