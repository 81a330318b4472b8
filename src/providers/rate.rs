//! A provider's rate limit, served by priority and, within one, first come, first served.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::Mutex;

use super::Priority;

/// How often a call that is not the most urgent checks whether it is its turn.
const CHECK: Duration = Duration::from_millis(5);

/// The limit.
#[derive(Debug)]
pub struct Rate {
    limiter: DefaultDirectRateLimiter,
    clock: DefaultClock,
    /// One line for each priority; tokio's mutex is fair, so its holder is the head.
    lines: [Mutex<()>; Priority::COUNT],
    waiting: [AtomicUsize; Priority::COUNT],
}

/// Counts a call that waits, for as long as it does.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Rate {
    /// So many calls per second.
    pub fn new(per_second: NonZeroU32) -> Self {
        Self {
            limiter: RateLimiter::direct(Quota::per_second(per_second)),
            clock: DefaultClock::default(),
            lines: Default::default(),
            waiting: Default::default(),
        }
    }

    /// Waits until a call of the present task's priority may be made.
    pub async fn turn(&self) {
        let own = Priority::current().index();
        self.waiting[own].fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting[own]);
        let _head = self.lines[own].lock().await;
        loop {
            if self.waiting[..own].iter().any(|w| w.load(Ordering::Relaxed) > 0) {
                tokio::time::sleep(CHECK).await;
                continue;
            }
            match self.limiter.check() {
                Ok(()) => return,
                Err(not_until) => tokio::time::sleep(not_until.wait_time_from(self.clock.now())).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn the_more_urgent_call_goes_first_however_many_others_wait() {
        let rate = Arc::new(Rate::new(NonZeroU32::new(50).expect("not zero")));
        // Uses the burst up.
        for _ in 0..50 {
            rate.turn().await;
        }
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let call = |priority: Priority| {
            let (rate, order) = (rate.clone(), order.clone());
            tokio::spawn(priority.scope(async move {
                rate.turn().await;
                order.lock().expect("unpoisoned").push(Priority::current());
            }))
        };
        let lower: Vec<_> = (0..20).map(|_| call(Priority::Resync)).collect();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let before = order.lock().expect("unpoisoned").len();
        let persons: Vec<_> = (0..3).map(|_| call(Priority::Person)).collect();
        for task in persons.into_iter().chain(lower) {
            task.await.expect("it ends");
        }
        let order = order.lock().expect("unpoisoned");
        // One that had its turn in hand may still slip through.
        let last_person = order.iter().rposition(|p| *p == Priority::Person).expect("three");
        assert!(last_person <= before + 4, "{before} before, then {order:?}");
        assert_eq!(order.len(), 23, "and nobody is forgotten");
    }
}
