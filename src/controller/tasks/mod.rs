//! Long work beside the reconciles, one task for each tenant, so that a large tenant does not hold up the others.
//! Reconciles begin a task and check its progress.

pub mod export_work;
pub mod exports;
pub mod migrations;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::Future;
use futures::future::{AbortHandle, abortable};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// The first wait after something went wrong; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_mins(5);
/// How long a task may take to end its current write after it was told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How often the status may say how far one is.
const TOLD_EACH: Duration = Duration::from_secs(3);

/// The tasks of one kind that run. Each shows a `Seen`.
pub struct Tasks<Seen> {
    running: Mutex<HashMap<String, Running<Seen>>>,
    turns: Arc<Semaphore>,
    /// Turns of tasks that customers wait for.
    urgent: Arc<Semaphore>,
}

/// One of them.
struct Running<Seen> {
    /// What it does: another request takes its place.
    request: String,
    seen: Seen,
    ended: bool,
    /// Counts what there is to see.
    version: u64,
    told: Instant,
    /// Whether the task was told to stop: it must not begin another write.
    stopping: bool,
    /// Held while it reads and writes.
    working: Arc<tokio::sync::Mutex<()>>,
    task: AbortHandle,
}

/// A task's turn to read and write.
pub struct Turn {
    _permit: OwnedSemaphorePermit,
    _working: OwnedMutexGuard<()>,
}

/// The waits of a task that something went wrong for.
pub struct Waits(Duration);

impl Default for Waits {
    fn default() -> Self {
        Self(FIRST_WAIT)
    }
}

impl Waits {
    /// Waits, and longer the next time. Not in step with others for whom it went wrong at the same moment.
    pub async fn next(&mut self) {
        tokio::time::sleep(self.0.mul_f64(rand::random_range(0.8..1.2))).await;
        self.0 = (self.0 * 2).min(LONGEST_WAIT);
    }
}

impl<Seen: Clone> Tasks<Seen> {
    /// None run yet. So many may work at the same time, and as many that customers wait for; the others wait.
    pub fn new(at_once: usize) -> Self {
        let turns = || Arc::new(Semaphore::new(at_once));
        Self { running: Mutex::default(), turns: turns(), urgent: turns() }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Running<Seen>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whenever there is something new to see of the tenant's task.
    pub fn version(&self, uid: &str) -> u64 {
        self.running().get(uid).map_or(0, |running| running.version)
    }

    /// Ends the tenant's task after its current write. A write that is cut off could still arrive later, after the data
    /// was deleted. False if that takes too long: the task stops by itself, and the caller asks again.
    pub async fn stop(&self, uid: &str) -> bool {
        let Some((working, task)) = self.running().get_mut(uid).map(|there| {
            there.stopping = true;
            (there.working.clone(), there.task.clone())
        }) else {
            return true;
        };
        let Ok(_idle) = tokio::time::timeout(STOP_LIMIT, working.lock_owned()).await else { return false };
        task.abort();
        self.running().remove(uid);
        true
    }

    /// Whether a task may go on writing: it was not told to stop, and no other task has taken its place.
    pub fn may_go_on(&self, uid: &str, request: &str) -> bool {
        self.running().get(uid).is_some_and(|there| there.request == request && !there.stopping)
    }

    /// How far a task is, if it runs. The end is said once: the status keeps it.
    pub fn seen(&self, uid: &str, request: &str) -> Option<Seen> {
        let mut running = self.running();
        let there = running.get(uid).filter(|there| there.request == request)?;
        let (seen, ended) = (there.seen.clone(), there.ended);
        if ended {
            running.remove(uid);
        }
        Some(seen)
    }

    /// Begins a task, in place of another one of the tenant.
    pub fn begin(&self, uid: String, request: String, seen: Seen, work: impl Future<Output = ()> + Send + 'static) {
        let (work, task) = abortable(work);
        let (working, told) = (Arc::default(), Instant::now());
        let entry = Running { request, seen, ended: false, version: 1, told, stopping: false, working, task };
        if let Some(other) = self.running().insert(uid, entry) {
            other.task.abort();
        }
        tokio::spawn(work);
    }

    /// Forgets a task that ended without a word, unless another one has taken its place.
    pub fn forget(&self, uid: &str, request: &str) {
        let mut running = self.running();
        if running.get(uid).is_some_and(|there| there.request == request) {
            running.remove(uid);
        }
    }

    /// Waits until there is room for one more to read and write. None for one whose place another has taken.
    pub async fn turn(&self, uid: &str, request: &str) -> Option<Turn> {
        self.turn_of(&self.turns, uid, request).await
    }

    /// As `turn`, for short work that customers wait for: it does not queue behind long work of others.
    pub async fn urgent_turn(&self, uid: &str, request: &str) -> Option<Turn> {
        self.turn_of(&self.urgent, uid, request).await
    }

    async fn turn_of(&self, turns: &Arc<Semaphore>, uid: &str, request: &str) -> Option<Turn> {
        // The semaphore is never closed.
        let permit = turns.clone().acquire_owned().await.ok()?;
        let working = self.running().get(uid).filter(|there| there.request == request)?.working.clone();
        Some(Turn { _permit: permit, _working: working.lock_owned().await })
    }

    /// Whether the status may say again how far it is.
    pub fn is_due(&self, uid: &str) -> bool {
        self.running().get(uid).is_some_and(|there| there.told.elapsed() >= TOLD_EACH)
    }

    /// Notes how far it is, and whether that is the end. False where another one has taken its place.
    pub fn note(&self, uid: &str, request: &str, ended: bool, seen: impl FnOnce(&Seen) -> Seen) -> bool {
        let mut running = self.running();
        let Some(there) = running.get_mut(uid).filter(|there| there.request == request) else { return false };
        there.seen = seen(&there.seen);
        there.ended = ended;
        there.version += 1;
        there.told = Instant::now();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_is_said_once_and_another_request_takes_the_place() {
        let tasks = Tasks::new(1);
        tasks.begin("u".into(), "a".into(), 0, std::future::pending());
        assert_eq!((tasks.seen("u", "a"), tasks.seen("u", "b"), tasks.version("u")), (Some(0), None, 1));
        assert!(tasks.note("u", "a", false, |n| n + 1) && !tasks.note("u", "b", false, |n| n + 1));
        assert_eq!((tasks.seen("u", "a"), tasks.seen("u", "a"), tasks.version("u")), (Some(1), Some(1), 2));
        assert!(tasks.note("u", "a", true, |n| n + 1));
        assert_eq!((tasks.seen("u", "a"), tasks.seen("u", "a")), (Some(2), None));
        tasks.begin("u".into(), "a".into(), 0, std::future::pending());
        tasks.begin("u".into(), "b".into(), 7, std::future::pending());
        assert!(!tasks.note("u", "a", true, |n| *n), "a late word of the one before");
        assert_eq!(tasks.seen("u", "b"), Some(7));
        tasks.forget("u", "a");
        assert_eq!(tasks.seen("u", "b"), Some(7));
        tasks.forget("u", "b");
        assert_eq!(tasks.seen("u", "b"), None);
    }

    #[tokio::test]
    async fn who_stops_a_task_waits_for_what_it_is_writing() {
        let tasks = Arc::new(Tasks::new(1));
        assert!(tasks.stop("u").await, "none runs");
        let (written, starts) = (Arc::new(Mutex::new(0)), Arc::new(tokio::sync::Notify::new()));
        let work = {
            let (tasks, written, starts) = (tasks.clone(), written.clone(), starts.clone());
            async move {
                let _turn = tasks.turn("u", "a").await.expect("a turn");
                while tasks.may_go_on("u", "a") {
                    starts.notify_one();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    *written.lock().expect("a lock") += 1;
                }
            }
        };
        tasks.begin("u".into(), "a".into(), 0, work);
        starts.notified().await;
        assert!(tasks.stop("u").await);
        let then = *written.lock().expect("a lock");
        assert!(then >= 1, "the write was not cut off");
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(*written.lock().expect("a lock"), then, "and none came after it");
        assert_eq!((tasks.seen("u", "a"), tasks.may_go_on("u", "a")), (None, false));
        // One that waits, for its turn or for another attempt, is not waited for.
        tasks.begin("u".into(), "a".into(), 0, std::future::pending());
        assert!(tasks.turn("u", "b").await.is_none() && tasks.may_go_on("u", "a"));
        let before = Instant::now();
        assert!(tasks.stop("u").await && before.elapsed() < STOP_LIMIT);
        assert_eq!(tasks.seen("u", "a"), None);
    }

    #[tokio::test]
    async fn work_that_customers_wait_for_does_not_queue_behind_long_work() {
        let tasks = Tasks::new(1);
        for uid in ["copies", "waits", "switches"] {
            tasks.begin(uid.into(), "a".into(), 0, std::future::pending());
        }
        let _copies = tasks.turn("copies", "a").await.expect("a turn");
        let soon = Duration::from_millis(100);
        assert!(tokio::time::timeout(soon, tasks.turn("waits", "a")).await.is_err(), "one copy at a time");
        assert!(tokio::time::timeout(soon, tasks.urgent_turn("switches", "a")).await.is_ok_and(|turn| turn.is_some()));
    }

    #[tokio::test]
    async fn a_write_that_hangs_is_not_waited_for_in_the_same_attempt() {
        let tasks = Arc::new(Tasks::new(1));
        let turns = tasks.clone();
        let (sender, begun) = tokio::sync::oneshot::channel();
        tasks.begin("u".into(), "a".into(), 0, async move {
            let _turn = turns.turn("u", "a").await;
            assert_eq!(sender.send(()), Ok(()));
            std::future::pending::<()>().await;
        });
        begun.await.expect("it begins");
        assert!(!tasks.stop("u").await && !tasks.may_go_on("u", "a"));
        assert_eq!(tasks.seen("u", "a"), Some(0), "it still runs");
    }
}
