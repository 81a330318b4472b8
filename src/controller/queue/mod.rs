//! Which tenant is reconciled next: by priority, first come, first served within one, and one reconcile of a tenant at
//! a time. Lower priorities never take all places, so that a more urgent tenant finds a free one even while every other
//! call hangs.

pub mod urgency;

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::providers::Priority;

/// A work queue of keys.
pub struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K> {
    entries: HashMap<K, Entry>,
    ready: [VecDeque<(K, u64)>; Priority::COUNT],
    delayed: BTreeMap<(Instant, u64), K>,
    running: [usize; Priority::COUNT],
    /// How many of this priority and the less urgent ones may run together.
    limits: [usize; Priority::COUNT],
    count: u64,
}

/// What is known of a key.
#[derive(Default)]
struct Entry {
    running: Option<Priority>,
    /// Its place among the ready ones; a place with another number is out of date.
    ready: Option<(Priority, u64)>,
    delayed: Option<((Instant, u64), Priority)>,
}

/// One reconcile to do.
pub struct Job<K> {
    /// Of whom.
    pub key: K,
    /// How urgent it is.
    pub priority: Priority,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// A queue for so many reconciles at a time.
    pub fn new(concurrency: usize) -> Self {
        let share = |parts: usize| (concurrency * parts / 8).max(1);
        let state = State {
            entries: HashMap::new(),
            ready: Default::default(),
            delayed: BTreeMap::new(),
            running: [0; Priority::COUNT],
            limits: [concurrency.max(1), share(6), share(2), share(1)],
            count: 0,
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a reconcile as soon as there is room. A key that waits already keeps its place, or moves up to the more
    /// urgent priority.
    pub fn add(&self, key: K, priority: Priority) {
        self.state().add(key, priority);
        self.changed.notify_one();
    }

    /// Asks for a reconcile after a while; the earliest one that was asked for counts.
    pub fn add_after(&self, key: K, priority: Priority, delay: Duration) {
        self.state().add_at(key, priority, Instant::now() + delay);
        self.changed.notify_one();
    }

    /// Forgets a key that is gone; a reconcile that runs is not stopped.
    pub fn remove(&self, key: &K) {
        self.state().remove(key);
    }

    /// The next job, when there is one and room for it.
    pub async fn next(&self) -> Job<K> {
        loop {
            let changed = self.changed.notified();
            let wait = {
                let mut state = self.state();
                state.wake(Instant::now());
                if let Some(job) = state.take() {
                    return job;
                }
                state.delayed.keys().next().map(|(at, _)| at.saturating_duration_since(Instant::now()))
            };
            match wait {
                Some(wait) => drop(tokio::time::timeout(wait, changed).await),
                None => changed.await,
            }
        }
    }

    /// Moves a job that runs to a less urgent priority, so that it no longer takes the place of a more urgent one.
    /// False when that priority has no room: the job then ends and waits for its turn.
    pub fn step_down(&self, key: &K, to: Priority) -> bool {
        let moved = self.state().step_down(key, to);
        self.changed.notify_one();
        moved
    }

    /// The job is done. Its key runs again where that was asked for meanwhile.
    pub fn done(&self, job: &Job<K>) {
        self.state().done(job);
        self.changed.notify_one();
    }

    /// How many wait for room, most urgent first.
    pub fn waiting(&self) -> [usize; Priority::COUNT] {
        let state = self.state();
        let mut waiting = [0; Priority::COUNT];
        for (priority, _) in state.entries.values().filter(|e| e.running.is_none()).filter_map(|e| e.ready) {
            waiting[priority.index()] += 1;
        }
        waiting
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn add(&mut self, key: K, priority: Priority) {
        self.count += 1;
        let place = (priority, self.count);
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.ready.is_some_and(|(there, _)| there <= priority) {
            return;
        }
        entry.ready = Some(place);
        // While it runs, it waits outside: `done` puts it in.
        if entry.running.is_none() {
            self.ready[priority.index()].push_back((key, place.1));
        }
    }

    fn add_at(&mut self, key: K, priority: Priority, at: Instant) {
        self.count += 1;
        let place = (at, self.count);
        let entry = self.entries.entry(key.clone()).or_default();
        match entry.delayed {
            Some((there, _)) if there.0 <= at => return,
            Some((there, _)) => drop(self.delayed.remove(&there)),
            None => {}
        }
        entry.delayed = Some((place, priority));
        self.delayed.insert(place, key);
    }

    fn remove(&mut self, key: &K) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if let Some((place, _)) = entry.delayed.take() {
            self.delayed.remove(&place);
        }
        entry.ready = None;
        if entry.running.is_none() {
            self.entries.remove(key);
        }
    }

    /// Makes ready what was asked for by now.
    fn wake(&mut self, now: Instant) {
        while let Some(((at, _), _)) = self.delayed.first_key_value()
            && *at <= now
            && let Some((_, key)) = self.delayed.pop_first()
        {
            let priority = self.entries.get_mut(&key).and_then(|e| e.delayed.take()).map(|(_, priority)| priority);
            if let Some(priority) = priority {
                self.add(key, priority);
            }
        }
    }

    fn room(&self, priority: Priority) -> bool {
        Priority::ALL.iter().filter(|p| **p <= priority).all(|p| {
            let running: usize = self.running[p.index()..].iter().sum();
            running < self.limits[p.index()]
        })
    }

    fn take(&mut self) -> Option<Job<K>> {
        for priority in Priority::ALL {
            if !self.room(priority) {
                continue;
            }
            while let Some((key, number)) = self.ready[priority.index()].pop_front() {
                let MapEntry::Occupied(mut entry) = self.entries.entry(key.clone()) else { continue };
                // Out of date: it moved up, ran meanwhile, or is gone.
                if entry.get().ready != Some((priority, number)) {
                    continue;
                }
                let entry = entry.get_mut();
                (entry.ready, entry.running) = (None, Some(priority));
                // The reconcile decides anew when the next one is due.
                if let Some((place, _)) = entry.delayed.take() {
                    self.delayed.remove(&place);
                }
                self.running[priority.index()] += 1;
                return Some(Job { key, priority });
            }
        }
        None
    }

    fn step_down(&mut self, key: &K, to: Priority) -> bool {
        let Some(from) = self.entries.get(key).and_then(|entry| entry.running).filter(|from| *from < to) else {
            return true;
        };
        let full = Priority::ALL.iter().filter(|p| **p > from && **p <= to).any(|p| {
            let running: usize = self.running[p.index()..].iter().sum();
            running >= self.limits[p.index()]
        });
        if full {
            return false;
        }
        self.running[from.index()] -= 1;
        self.running[to.index()] += 1;
        if let Some(entry) = self.entries.get_mut(key) {
            entry.running = Some(to);
        }
        true
    }

    fn done(&mut self, job: &Job<K>) {
        let entry = self.entries.get_mut(&job.key);
        let priority = entry.as_ref().and_then(|entry| entry.running).unwrap_or(job.priority);
        self.running[priority.index()] -= 1;
        let Some(entry) = entry else { return };
        entry.running = None;
        match (entry.ready, entry.delayed) {
            (Some((priority, number)), _) => self.ready[priority.index()].push_back((job.key.clone(), number)),
            (None, None) => drop(self.entries.remove(&job.key)),
            (None, Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: [Priority; 4] = Priority::ALL;

    fn take(queue: &Queue<&'static str>) -> Option<Job<&'static str>> {
        let mut state = queue.state();
        state.wake(Instant::now());
        state.take()
    }

    fn keys(queue: &Queue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| {
            let job = take(queue)?;
            queue.done(&job);
            Some(job.key)
        })
        .collect()
    }

    #[test]
    fn a_job_that_steps_down_leaves_its_place_to_a_more_urgent_one() {
        let queue = Queue::new(8);
        for key in ["a", "b", "c", "d", "e", "f", "g", "h", "i"] {
            queue.add(key, P[0]);
        }
        let jobs: Vec<_> = std::iter::from_fn(|| take(&queue)).collect();
        assert_eq!(jobs.len(), 8, "all places are taken");
        let moved: Vec<_> = jobs.iter().map(|job| queue.step_down(&job.key, P[1])).collect();
        assert_eq!(moved.iter().filter(|moved| **moved).count(), 6, "provisioning has six of eight places");
        assert!(take(&queue).is_none(), "those without room run until they end");
        assert!(queue.step_down(&"a", P[1]) && queue.step_down(&"unknown", P[1]), "nothing to do");
        for (job, moved) in jobs.iter().zip(moved).rev() {
            queue.done(job);
            if !moved {
                queue.add_after(job.key, P[1], Duration::ZERO);
            }
        }
        let order = keys(&queue);
        assert_eq!(order.first(), Some(&"i"), "the signup that waited goes before them: {order:?}");
        assert_eq!(queue.state().running, [0; 4]);
    }

    #[test]
    fn the_most_urgent_goes_first_and_within_one_priority_the_first() {
        let queue = Queue::new(8);
        for (key, priority) in [("r1", P[3]), ("p1", P[1]), ("s1", P[0]), ("r2", P[3]), ("s2", P[0]), ("p2", P[1])] {
            queue.add(key, priority);
        }
        assert_eq!(queue.waiting(), [2, 2, 0, 2]);
        assert_eq!(keys(&queue), ["s1", "s2", "p1", "p2", "r1", "r2"]);
        assert!(queue.state().entries.is_empty(), "nothing is kept of what is done");
    }

    #[test]
    fn a_key_waits_once_keeps_its_place_and_moves_up() {
        let queue = Queue::new(8);
        for (key, priority) in [("a", P[2]), ("b", P[2]), ("a", P[2]), ("c", P[0]), ("b", P[0]), ("a", P[3])] {
            queue.add(key, priority);
        }
        assert_eq!(keys(&queue), ["c", "b", "a"]);
    }

    #[test]
    fn a_key_never_runs_twice_at_once_and_runs_again_if_it_changed_meanwhile() {
        let queue = Queue::new(8);
        queue.add("a", P[1]);
        let job = take(&queue).expect("ready");
        queue.add("a", P[2]);
        queue.add("a", P[0]);
        assert!(take(&queue).is_none());
        queue.done(&job);
        let again = take(&queue).expect("it changed meanwhile");
        assert_eq!(again.priority, P[0]);
        queue.done(&again);
        assert!(take(&queue).is_none());
    }

    #[test]
    fn less_urgent_work_leaves_room_for_more_urgent_work() {
        let queue = Queue::new(16);
        for i in 0..40 {
            let name: &'static str = Box::leak(format!("r{i}").into_boxed_str());
            queue.add(name, P[1 + i % 3]);
        }
        let running: Vec<_> = std::iter::from_fn(|| take(&queue)).collect();
        assert_eq!(running.len(), 12, "three quarters");
        assert!(running.iter().filter(|j| j.priority >= P[2]).count() <= 4);
        queue.add("signup", P[0]);
        let signup = take(&queue).expect("there is room for a person");
        assert_eq!(signup.key, "signup");
        for job in running.iter().chain([&signup]) {
            queue.done(job);
        }
        assert_eq!(keys(&queue).len(), 28, "and the rest follows");
        assert_eq!(queue.state().running, [0; 4]);
    }

    #[test]
    fn even_one_place_serves_everybody() {
        let queue = Queue::new(1);
        for (key, priority) in [("r", P[3]), ("p", P[1]), ("s", P[0])] {
            queue.add(key, priority);
        }
        assert_eq!(keys(&queue), ["s", "p", "r"]);
    }

    #[tokio::test]
    async fn a_delayed_key_comes_in_time_and_the_earliest_time_counts() {
        let queue = Queue::new(8);
        queue.add_after("a", P[3], Duration::from_millis(30));
        queue.add_after("a", P[3], Duration::from_hours(1));
        queue.add_after("b", P[3], Duration::from_hours(1));
        queue.add_after("b", P[2], Duration::from_millis(10));
        queue.add_after("gone", P[0], Duration::ZERO);
        queue.remove(&"gone");
        assert!(take(&queue).is_none());
        let limit = Duration::from_mins(1);
        for wanted in ["b", "a"] {
            let job = tokio::time::timeout(limit, queue.next()).await.expect("in time");
            assert_eq!(job.key, wanted);
            queue.done(&job);
        }
        assert!(queue.state().entries.is_empty() && queue.state().delayed.is_empty());
    }

    #[tokio::test]
    async fn a_reconcile_that_runs_replaces_what_was_planned() {
        let queue = Queue::new(8);
        queue.add_after("a", P[3], Duration::from_hours(1));
        queue.add("a", P[0]);
        let job = queue.next().await;
        queue.done(&job);
        assert!(queue.state().delayed.is_empty());
    }
}
