//! The one writer. It takes all work that waits into one transaction, and answers after the commit.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::rows;
use crate::ledger::store::StoreError;

/// Commands that may wait: at the measured pace, a tenth of a second's work.
const WAITING: usize = 4096;
/// Commands of one transaction.
const BATCH: usize = 256;
/// Transactions after which work that can wait is done although commands wait.
const PATIENCE: u32 = 64;
/// After a write that succeeded, the writer is taken to be well for so long.
const WELL: Duration = Duration::from_secs(10);
/// What the writer must be able to write to be well again: more than any command. A volume that is full has room for a
/// few bytes.
const ROOM: u32 = 64 << 10;

/// When work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// In the next transaction.
    Now,
    /// In a transaction of its own, once no commands wait.
    Idle,
}

/// Work that waits.
trait Work: Send {
    /// Does it, in the transaction that the connection is in. It is done again if the transaction fails.
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()>;

    /// Answers, after the commit or the failure.
    fn answer(self: Box<Self>, failed: Option<StoreError>);
}

struct Job<F, T> {
    work: F,
    done: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, F: FnMut(&Connection) -> rusqlite::Result<T> + Send> Work for Job<F, T> {
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.done = Some((self.work)(connection)?);
        Ok(())
    }

    fn answer(self: Box<Self>, failed: Option<StoreError>) {
        let Self { done, reply, .. } = *self;
        // A client that hung up asks again under the same name.
        drop(reply.send(failed.map_or_else(|| done.ok_or(StoreError::Stopping), Err)));
    }
}

type Queued = (When, Box<dyn Work>);

/// How the last writes went.
#[derive(Debug, Default)]
struct Health(Mutex<Option<Instant>>);

impl Health {
    fn note(&self, written: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = written.then(Instant::now);
    }

    /// When the last write succeeded. None if it failed.
    fn written(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer's queue, and its thread.
#[derive(Debug)]
pub struct Writer {
    /// None once the writer is to end.
    jobs: Option<mpsc::Sender<Queued>>,
    health: Arc<Health>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    /// Starts the writer's thread. It ends when this is dropped, once what waits is written.
    pub fn start(connection: Connection) -> Result<Self, StoreError> {
        let (jobs, waiting) = mpsc::channel(WAITING);
        let health = Arc::new(Health::default());
        let thread = Thread { connection, health: health.clone() };
        let failed = |error| StoreError::Io { path: "ledger-writer".into(), error };
        let spawned = thread::Builder::new().name("ledger-writer".into()).spawn(|| thread.run(waiting));
        Ok(Self { jobs: Some(jobs), health, thread: Some(spawned.map_err(failed)?) })
    }

    /// Fails if nothing can be written. Where the last write does not tell, it writes something.
    pub async fn ready(&self) -> Result<(), StoreError> {
        let written = self.health.written();
        if self.jobs.as_ref().is_none_or(mpsc::Sender::is_closed) {
            return Err(StoreError::Stopping);
        }
        if written.is_some_and(|at| at.elapsed() < WELL) {
            return Ok(());
        }
        let bytes = if written.is_some() { 1 } else { ROOM };
        self.write(When::Now, move |connection| rows::probe(connection, bytes)).await
    }

    /// Does some work in a transaction, and returns after the commit. The work may be done again after a failure.
    pub async fn write<T: Send + 'static>(
        &self,
        when: When,
        work: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or(StoreError::Stopping)?;
        let job = Box::new(Job { work, done: None, reply });
        jobs.try_send((when, job)).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => StoreError::Stopping,
        })?;
        answer.await.map_err(|_| StoreError::Stopping)?
    }
}

/// Waits until the thread has ended, so that the files are free for the next ledger and nothing is written behind its
/// back.
impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed.
            drop(thread.join());
        }
    }
}

struct Thread {
    connection: Connection,
    health: Arc<Health>,
}

impl Thread {
    fn run(mut self, mut waiting: mpsc::Receiver<Queued>) {
        let (mut batch, mut later, mut passed) = (Vec::with_capacity(BATCH), VecDeque::new(), 0);
        // 0 once the queue is closed and empty.
        while waiting.blocking_recv_many(&mut batch, BATCH) > 0 {
            let (now, idle): (Vec<_>, Vec<_>) = batch.drain(..).partition(|(when, _): &Queued| *when == When::Now);
            later.extend(idle);
            if !now.is_empty() {
                self.write(now.into_iter().map(|(_, work)| work).collect());
            }
            passed += 1;
            while (waiting.is_empty() || passed >= PATIENCE)
                && let Some((_, work)) = later.pop_front()
            {
                passed = 0;
                self.write(vec![work]);
            }
        }
    }

    /// Writes a batch. If it fails, each part of it is tried alone: one that cannot be written fails none of the
    /// others.
    fn write(&mut self, mut batch: Vec<Box<dyn Work>>) {
        let before = self.connection.total_changes();
        match self.commit(&mut batch) {
            Ok(()) => {
                if self.connection.total_changes() > before {
                    self.health.note(true);
                }
                for work in batch {
                    work.answer(None);
                }
            }
            Err(error) if batch.len() > 1 => {
                tracing::warn!(%error, commands = batch.len(), "a commit failed; each command is tried alone");
                for work in batch {
                    self.write(vec![work]);
                }
            }
            Err(error) => {
                self.health.note(false);
                let error = StoreError::from(error);
                tracing::error!(%error, "a command was not written");
                if let Some(work) = batch.pop() {
                    work.answer(Some(error));
                }
            }
        }
    }

    fn commit(&mut self, batch: &mut [Box<dyn Work>]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        batch.iter_mut().try_for_each(|work| work.run(&transaction))?;
        transaction.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_can_wait_comes_after_the_commands_that_wait() {
        let connection = Connection::open_in_memory().expect("a database");
        connection.execute_batch("CREATE TABLE done (name TEXT)").expect("a table");
        let writer = Writer::start(connection).expect("a writer");
        let (go_on, held) = std::sync::mpsc::channel();
        let note = |name: &'static str| {
            move |connection: &Connection| connection.execute("INSERT INTO done VALUES (?)", [name]).map(drop)
        };
        let pause = move |_: &Connection| {
            held.recv().expect("it goes on");
            Ok(())
        };
        let (first, idle, one, two, ()) = tokio::join!(
            writer.write(When::Now, pause),
            writer.write(When::Idle, note("idle")),
            writer.write(When::Now, note("one")),
            writer.write(When::Now, note("two")),
            async { go_on.send(()).expect("it waits") },
        );
        [first, idle, one, two].into_iter().collect::<Result<Vec<_>, _>>().expect("written");
        let names = |connection: &Connection| {
            let mut names = connection.prepare("SELECT name FROM done ORDER BY rowid")?;
            names.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()
        };
        assert_eq!(writer.write(When::Now, names).await.expect("read"), ["one", "two", "idle"]);
    }
}
