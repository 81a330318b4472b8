//! The one writer. It takes all commands that wait into one transaction, and answers them after the commit.

use std::thread;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::rows;
use crate::api::Timestamp;
use crate::ledger::decision::{Answer, Command};
use crate::ledger::store::StoreError;

/// Commands that may wait: at the measured pace, a tenth of a second's work.
const WAITING: usize = 4096;
/// Commands of one transaction.
const BATCH: usize = 256;

type Reply = oneshot::Sender<Result<Answer, StoreError>>;

/// A command that waits.
struct Job {
    command: Command,
    now: Timestamp,
    reply: Reply,
}

/// The writer's queue, and its thread.
#[derive(Debug)]
pub struct Writer {
    /// None once the writer is to end.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    /// Starts the writer's thread. It ends when this is dropped, once what waits is written.
    pub fn start(mut connection: Connection) -> Result<Self, StoreError> {
        let (jobs, mut waiting) = mpsc::channel(WAITING);
        let work = move || {
            let mut batch = Vec::with_capacity(BATCH);
            // 0 once the queue is closed and empty.
            while waiting.blocking_recv_many(&mut batch, BATCH) > 0 {
                write(&mut connection, std::mem::take(&mut batch));
            }
        };
        let failed = |error| StoreError::Io { path: "ledger-writer".into(), error };
        let thread = thread::Builder::new().name("ledger-writer".into()).spawn(work).map_err(failed)?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Fails if the thread has ended.
    pub fn ready(&self) -> Result<(), StoreError> {
        let is_closed = self.jobs.as_ref().is_none_or(mpsc::Sender::is_closed);
        if is_closed { Err(StoreError::Stopping) } else { Ok(()) }
    }

    /// Applies a command, and returns after the commit.
    pub async fn apply(&self, command: Command, now: Timestamp) -> Result<Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or(StoreError::Stopping)?;
        jobs.try_send(Job { command, now, reply }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => StoreError::Stopping,
        })?;
        answer.await.map_err(|_| StoreError::Stopping)?
    }
}

/// Waits until the thread has ended, so that the files are free for the next ledger and nothing is written behind its back.
impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed.
            drop(thread.join());
        }
    }
}

/// Writes a batch. If it fails, each command is tried alone: one that cannot be written fails none of the others.
fn write(connection: &mut Connection, batch: Vec<Job>) {
    match commit(connection, &batch) {
        Ok(answers) => {
            for (job, answer) in batch.into_iter().zip(answers) {
                // A client that hung up asks again under the same name.
                drop(job.reply.send(Ok(answer)));
            }
        }
        Err(error) if batch.len() > 1 => {
            tracing::warn!(%error, commands = batch.len(), "a commit failed; each command is tried alone");
            for job in batch {
                write(connection, vec![job]);
            }
        }
        Err(error) => {
            let error = StoreError::from(error);
            tracing::error!(%error, "a command was not written");
            if let Some(job) = batch.into_iter().next() {
                drop(job.reply.send(Err(error)));
            }
        }
    }
}

fn commit(connection: &mut Connection, batch: &[Job]) -> rusqlite::Result<Vec<Answer>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let answers = batch.iter().map(|job| rows::apply(&transaction, &job.command, job.now)).collect::<Result<_, _>>()?;
    transaction.commit()?;
    Ok(answers)
}
