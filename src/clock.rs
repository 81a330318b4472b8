//! The time that decisions are made by. A node's clock can jump, because a time server is wrong or the machine was
//! asleep. A controller that believed it would erase every tenant in retention, and a web pod would refuse every
//! session. So the time is the API server's, which each of its answers carries (`Date`, RFC 9110, 6.6.1), advanced by
//! the monotonic clock, which never jumps. If this machine's clock disagrees, what cannot be undone waits until its
//! moment has come by both.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{Request, header};
use kube::Client;
use kube::client::Body;

use crate::api::Timestamp;

/// Seconds of difference that are noise: `Date` has whole seconds, and an answer takes its time.
const NOISE: i64 = 2;
/// How long the monotonic clock is trusted before the API server's time is taken again.
const CARRIED: Duration = Duration::from_mins(1);
/// Seconds between the two clocks that are worth a warning.
const WRONG: i64 = 60;

/// How often a part that asks the API server for nothing else asks it for the time.
const ASKED: Duration = Duration::from_secs(20);

/// How long the API server may take for it.
const ANSWERED: Duration = Duration::from_secs(5);

/// Asks the API server for its version again and again, so that the client's answers keep setting the clock. Any
/// service account may ask for it (the cluster role `system:public-info-viewer`).
pub async fn follow(client: Client) {
    loop {
        ask(&client).await;
        tokio::time::sleep(ASKED).await;
    }
}

/// Asks the API server once, so that the clock is right from the first moment on. Without an answer, it goes by this
/// machine's clock.
pub async fn ask(client: &Client) {
    match tokio::time::timeout(ANSWERED, client.apiserver_version()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the API server did not tell its time"),
        Err(_) => tracing::warn!("the API server did not tell its time: it does not answer"),
    }
}

/// A moment of the API server's clock, and when it was heard.
#[derive(Clone, Copy, Debug)]
struct Heard {
    time: Timestamp,
    at: Instant,
}

impl Heard {
    fn carried_on(self) -> Timestamp {
        self.time.plus(i64::try_from(self.at.elapsed().as_secs()).unwrap_or(i64::MAX))
    }
}

/// The present, as both clocks have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    /// The API server's; to the second of this machine's where the two agree.
    pub now: Timestamp,
    /// The earlier of the API server's and this machine's.
    pub earliest: Timestamp,
}

/// The two clocks.
#[derive(Debug, Default)]
pub struct Clock {
    heard: Mutex<Option<Heard>>,
    warned: AtomicBool,
}

impl Clock {
    /// The client, and every answer to it sets the clock.
    pub fn listen(self: &Arc<Self>, client: Client) -> Client {
        let clock = self.clone();
        let namespace = client.default_namespace().to_owned();
        let listening = tower::service_fn(move |request: Request<Body>| {
            let (client, clock) = (client.clone(), clock.clone());
            async move {
                let response = client.send(request).await?;
                let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
                if let Some(time) = date.and_then(Timestamp::from_http_date) {
                    clock.hear(time, Timestamp::now());
                }
                Ok::<_, kube::Error>(response)
            }
        });
        Client::new(listening, namespace)
    }

    fn hear(&self, time: Timestamp, own: Timestamp) {
        {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            let as_expected = heard
                .is_some_and(|heard| heard.at.elapsed() < CARRIED && time.since(heard.carried_on()).abs() <= NOISE);
            if !as_expected {
                *heard = Some(Heard { time, at: Instant::now() });
            }
        }
        self.warn(self.difference(own));
    }

    fn warn(&self, ahead: i64) {
        let wrong = ahead.abs() > WRONG;
        if self.warned.swap(wrong, Ordering::Relaxed) == wrong {
            return;
        }
        if wrong {
            tracing::warn!(
                ahead_s = ahead,
                "this machine's clock and the API server's differ; nothing that cannot be undone happens before its \
                 moment has come by both. Start a time service such as chrony on the nodes"
            );
        } else {
            tracing::info!("this machine's clock and the API server's agree again");
        }
    }

    /// The present.
    pub fn read(&self) -> Present {
        self.present(Timestamp::now())
    }

    /// By how many seconds this machine's clock is ahead of the API server's.
    pub fn ahead(&self) -> i64 {
        self.difference(Timestamp::now())
    }

    fn difference(&self, own: Timestamp) -> i64 {
        own.since(self.present(own).now)
    }

    fn present(&self, own: Timestamp) -> Present {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let server = heard.map_or(own, Heard::carried_on);
        let now = if own.since(server).abs() <= NOISE { own } else { server };
        Present { now, earliest: now.min(own) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second)
    }

    #[test]
    fn the_time_is_the_api_servers_and_what_ends_waits_for_both() {
        let clock = Clock::default();
        let own = |second| clock.present(at(second));
        assert_eq!(own(NOON), Present { now: at(NOON), earliest: at(NOON) }, "nothing else is known");
        clock.hear(at(NOON), at(NOON));
        let day = 24 * 3600;
        assert_eq!(own(NOON + day), Present { now: at(NOON), earliest: at(NOON) }, "this machine's has jumped ahead");
        assert_eq!(own(NOON - day), Present { now: at(NOON), earliest: at(NOON - day) }, "and back");
        clock.hear(at(NOON + day), at(NOON));
        assert_eq!(own(NOON), Present { now: at(NOON + day), earliest: at(NOON) }, "the API server's has jumped");
        assert_eq!(clock.difference(at(NOON)), -day);
    }

    #[test]
    fn seconds_are_noise() {
        let clock = Clock::default();
        clock.hear(at(NOON), at(NOON));
        for (second, now) in [(1, 1), (NOISE, NOISE), (-NOISE, -NOISE), (NOISE + 1, 0), (-NOISE - 1, 0)] {
            assert_eq!(clock.present(at(NOON + second)).now, at(NOON + now), "an own clock at {second}");
        }
        clock.hear(at(NOON + NOISE), at(NOON));
        assert_eq!(clock.present(at(NOON - 1)).now, at(NOON - 1), "not worth a change");
        clock.hear(at(NOON + NOISE + 1), at(NOON));
        assert_eq!(clock.present(at(NOON - 1)).now, at(NOON + NOISE + 1));
    }

    #[test]
    fn a_difference_is_warned_of_once_and_its_end_is_noticed() {
        let clock = Clock::default();
        let warned = || clock.warned.load(Ordering::Relaxed);
        clock.hear(at(NOON), at(NOON + WRONG));
        assert!(!warned());
        clock.hear(at(NOON), at(NOON - WRONG - 1));
        assert!(warned());
        clock.hear(at(NOON), at(NOON));
        assert!(!warned());
    }

    #[test]
    fn dates_of_http_are_read() {
        assert_eq!(Timestamp::from_http_date("Fri, 15 Jan 2027 08:00:00 GMT"), Some(at(NOON)));
        assert_eq!(Timestamp::from_http_date("tomorrow"), None);
    }
}
