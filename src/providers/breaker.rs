//! A circuit breaker for each provider. Once a provider does not answer, calls fail at once instead of waiting for it
//! one by one; a single probe finds out when it is back.
//!
//! Our own, because it must also count calls that hang at the same moment, and say since when the provider is away.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::api::Timestamp;

/// Calls that fail in a row until the provider counts as away.
const FAILURES: u32 = 6;
/// So many calls that hang at the same moment mean the same.
const HANGING: usize = 8;
/// The first wait before a probe; it doubles with each probe that fails.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait before a probe.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The breaker.
#[derive(Debug)]
pub struct Breaker {
    state: Mutex<State>,
    /// A call that runs for this long hangs.
    slow: Duration,
    opened: Notify,
    closed: Notify,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    running: BTreeSet<(Instant, u64)>,
    count: u64,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    since: Timestamp,
    wait: Duration,
    /// When the last probe began; before the first, when it was opened.
    probed: Instant,
    probe_at: Instant,
}

/// The provider is away; nothing was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away {
    /// Since when.
    pub since: Timestamp,
    /// When to ask again.
    pub again: Duration,
}

/// Leave to make one call. Dropped without an outcome, it counts for nothing.
#[derive(Debug)]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    key: (Instant, u64),
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.breaker.state().running.remove(&self.key);
    }
}

impl Permit<'_> {
    /// The provider answered, with any status.
    pub fn answered(self) {
        let mut state = self.breaker.state();
        state.failures = 0;
        if state.open.take().is_some() {
            self.breaker.closed.notify_waiters();
        }
    }

    /// It did not answer, or only that it cannot.
    pub fn failed(self) {
        let mut state = self.breaker.state();
        state.failures += 1;
        let probed = state.open.is_some();
        if probed || state.failures >= FAILURES {
            self.breaker.open(&mut state);
        }
    }

    /// Ends when the provider is found to be away while this call is under way.
    pub async fn overtaken(&self) -> Away {
        loop {
            let opened = self.breaker.opened.notified();
            let probe = {
                let state = self.breaker.state();
                match state.open {
                    // The probe itself runs on.
                    Some(open) if self.key.0 < open.probed => return open.away(),
                    _ => self.breaker.next_check(&state),
                }
            };
            tokio::select! {
                () = opened => {}
                () = tokio::time::sleep(probe) => self.breaker.check_hanging(),
            }
        }
    }
}

impl Open {
    fn away(self) -> Away {
        let again = self.probe_at.saturating_duration_since(Instant::now()).max(Duration::from_millis(200));
        Away { since: self.since, again }
    }
}

impl Breaker {
    /// Whether the provider is known to be away.
    pub fn is_open(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).open.is_some()
    }

    /// A breaker for calls that normally take less than `slow`.
    pub fn new(slow: Duration) -> Self {
        Self { state: Mutex::default(), slow, opened: Notify::new(), closed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, state: &mut State) {
        let wait = state.open.map_or(FIRST_WAIT, |open| (open.wait * 2).min(LONGEST_WAIT));
        let since = state.open.map_or_else(Timestamp::now, |open| open.since);
        let now = Instant::now();
        state.open = Some(Open { since, wait, probed: now, probe_at: now + wait });
        self.opened.notify_waiters();
    }

    fn next_check(&self, state: &State) -> Duration {
        let oldest = state.running.iter().nth(HANGING - 1).map_or_else(Instant::now, |(at, _)| *at);
        (oldest + self.slow).saturating_duration_since(Instant::now()).max(Duration::from_millis(20))
    }

    fn check_hanging(&self) {
        let mut state = self.state();
        let hangs = state.running.iter().nth(HANGING - 1).is_some_and(|(at, _)| at.elapsed() >= self.slow);
        if hangs && state.open.is_none() {
            self.open(&mut state);
        }
    }

    /// Whether the provider may be called now; takes nothing.
    pub fn check(&self) -> Result<(), Away> {
        match self.state().open {
            Some(open) if Instant::now() < open.probe_at => Err(open.away()),
            _ => Ok(()),
        }
    }

    /// Leave to call the provider, unless it is away. While it is, one call at a time finds out whether it is back.
    pub fn enter(&self) -> Result<Permit<'_>, Away> {
        let mut state = self.state();
        if let Some(open) = &mut state.open {
            if Instant::now() < open.probe_at {
                return Err(open.away());
            }
            // This call is the probe; the next one waits as long again.
            open.probed = Instant::now();
            open.probe_at = open.probed + open.wait;
        }
        state.count += 1;
        let key = (Instant::now(), state.count);
        state.running.insert(key);
        drop(state);
        Ok(Permit { breaker: self, key })
    }

    /// Since when the provider is away.
    pub fn away_since(&self) -> Option<Timestamp> {
        self.state().open.map(|open| open.since)
    }

    /// Waits until a provider that was away is back.
    pub async fn back(&self) {
        self.closed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(Duration::from_millis(100))
    }

    #[test]
    fn failures_in_a_row_open_it_and_an_answer_in_between_does_not() {
        let breaker = breaker();
        for round in 0..3 {
            for _ in 1..FAILURES {
                breaker.enter().expect("closed").failed();
            }
            assert!(breaker.away_since().is_none(), "round {round}");
            breaker.enter().expect("closed").answered();
        }
        for _ in 0..FAILURES {
            breaker.enter().expect("closed").failed();
        }
        assert!(breaker.enter().is_err() && breaker.away_since().is_some());
    }

    #[tokio::test]
    async fn one_probe_at_a_time_and_an_answer_closes_it() {
        let breaker = breaker();
        for _ in 0..FAILURES {
            breaker.enter().expect("closed").failed();
        }
        let away = breaker.enter().expect_err("open");
        tokio::time::sleep(away.again).await;
        let probe = breaker.enter().expect("the probe");
        assert!(breaker.enter().is_err(), "a second call while the probe is under way");
        probe.failed();
        let longer = breaker.enter().expect_err("still away");
        assert!(longer.again > away.again && longer.since == away.since, "{longer:?} after {away:?}");
        tokio::time::sleep(longer.again).await;
        breaker.enter().expect("the probe").answered();
        assert!(breaker.enter().is_ok() && breaker.away_since().is_none());
    }

    #[tokio::test]
    async fn calls_that_hang_together_open_it_and_end_at_once() {
        let breaker = breaker();
        let few: Vec<_> = (1..HANGING).map(|_| breaker.enter().expect("closed")).collect();
        let waited = tokio::time::timeout(Duration::from_millis(300), few[0].overtaken()).await;
        assert!(waited.is_err(), "fewer than {HANGING} are slow calls, not an outage");
        let last = breaker.enter().expect("closed");
        let away = tokio::time::timeout(Duration::from_secs(5), few[0].overtaken()).await.expect("it ends");
        assert!(breaker.enter().is_err());
        assert_eq!(breaker.away_since(), Some(away.since));
        drop(last);
    }
}
