//! A provider's rate limit, served by priority. Within a priority the parties, such as tenants, take turns: one that
//! sends a thousand calls waits for its own calls, and others wait for one call of each.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::Notify;

use super::Priority;
use super::priority::Party;

/// How often a call that is not the most urgent checks whether it is its turn.
const CHECK: Duration = Duration::from_millis(5);

/// The limit.
#[derive(Debug)]
pub struct Rate {
    limiter: DefaultDirectRateLimiter,
    clock: DefaultClock,
    /// One line for each priority.
    lines: [Line; Priority::COUNT],
    waiting: [AtomicUsize; Priority::COUNT],
}

/// A turn in a line: the round in which it is served, and its number within all.
type Turn = (u64, u64);

/// A line in which parties take turns: start-time fair queueing, with calls of equal cost
/// (<https://doi.org/10.1109/90.649569>). The next call of a party is served one round after its last one, and not
/// before the present round.
#[derive(Debug, Default)]
struct Line(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<Turn, Arc<Notify>>,
    /// The round of each party's last call, while it is not over.
    last: HashMap<Option<Arc<str>>, u64>,
    /// The present round.
    round: u64,
    count: u64,
}

impl Line {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stands at the end of the party's calls.
    fn stand(&self) -> Standing<'_> {
        let mut queue = self.queue();
        let party = Party::current();
        let round = queue.last.get(&party).map_or(queue.round, |last| (last + 1).max(queue.round));
        queue.last.insert(party, round);
        queue.count += 1;
        let turn = (round, queue.count);
        let called = Arc::new(Notify::new());
        queue.waiting.insert(turn, called.clone());
        Standing { line: self, turn, called }
    }
}

/// A call that stands in a line. Dropped, it leaves and the next one is called.
struct Standing<'a> {
    line: &'a Line,
    turn: Turn,
    called: Arc<Notify>,
}

impl Standing<'_> {
    fn is_first(&self) -> bool {
        self.line.queue().waiting.first_key_value().is_some_and(|(first, _)| *first == self.turn)
    }

    /// Waits until no other call is before this one.
    async fn first(&self) {
        while !self.is_first() {
            self.called.notified().await;
        }
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        let mut queue = self.line.queue();
        queue.round = queue.round.max(self.turn.0);
        queue.waiting.remove(&self.turn);
        match queue.waiting.first_key_value() {
            Some((_, next)) => next.notify_one(),
            // All rounds are over.
            None => queue.last.clear(),
        }
    }
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

    /// Waits until a call of the present task's priority and party may be made.
    pub async fn turn(&self) {
        let own = Priority::current().index();
        self.waiting[own].fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting[own]);
        let standing = self.lines[own].stand();
        loop {
            // Another one may have come before it while it slept.
            standing.first().await;
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
        assert_eq!(order.len(), 23, "every call gets its turn");
    }

    #[tokio::test]
    async fn a_party_with_a_thousand_calls_waits_for_itself_alone() {
        let rate = Arc::new(Rate::new(NonZeroU32::new(50).expect("not zero")));
        for _ in 0..50 {
            rate.turn().await;
        }
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let call = |party: &'static str| {
            let (rate, order) = (rate.clone(), order.clone());
            tokio::spawn(Party::scope(party, async move {
                rate.turn().await;
                order.lock().expect("unpoisoned").push(party);
            }))
        };
        let flood: Vec<_> = (0..1000).map(|_| call("flood")).collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let before = order.lock().expect("unpoisoned").len();
        let others: Vec<_> = (0..3).map(|_| call("a")).chain((0..3).map(|_| call("b"))).collect();
        for other in others {
            other.await.expect("it ends");
        }
        let seen = order.lock().expect("unpoisoned").len() - before;
        // Three rounds of three parties; some may have had their turn in hand.
        assert!(seen <= 14, "{seen} calls until two others had three each");
        flood.iter().for_each(tokio::task::JoinHandle::abort);
        for task in flood {
            drop(task.await);
        }
        // Those who gave up hold no turn.
        tokio::time::timeout(Duration::from_secs(5), rate.turn()).await.expect("a turn");
        let queue = rate.lines[0].queue();
        assert!(queue.waiting.is_empty() && queue.last.is_empty());
    }
}
