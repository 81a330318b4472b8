//! The one thread that uses the journal's files. It takes all entries that wait into one commit, and answers after it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::files::{self, JournalPlace, Kept, Taken};
use super::{JournalError, Seen, refused};

/// Jobs that may wait.
const WAITING: usize = 4096;
/// Entries of one commit.
const BATCH: usize = 256;
/// Entries that are read at once.
const PAGE: usize = 256;

type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

/// A line, and whose it is.
#[derive(Debug)]
pub struct Line {
    pub tenant: String,
    pub text: String,
}

enum Job {
    Keep(Line, Reply<()>),
    /// Entries that were answered.
    Remove(Vec<i64>, Reply<()>),
    /// An entry that is refused for good, and its line in the file of those.
    Refuse(i64, String, Reply<()>),
    /// The entries after a number.
    Read(i64, Reply<Vec<Kept>>),
}

/// The thread and its queue.
#[derive(Debug)]
pub struct Writer {
    /// None once the thread is to end.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    /// Opens the database, and starts the thread. It ends when this is dropped, once what waits is written.
    pub fn start(place: JournalPlace, seen: Arc<Seen>) -> Result<Self, JournalError> {
        let folder = place.folder.clone();
        let mut disk = Disk::new(place, seen);
        disk.connection()?;
        disk.tell();
        let (jobs, mut waiting) = mpsc::channel(WAITING);
        let work = move || {
            let mut batch = Vec::with_capacity(BATCH);
            // 0 once the queue is closed and empty.
            while waiting.blocking_recv_many(&mut batch, BATCH) > 0 {
                disk.work(std::mem::take(&mut batch));
            }
        };
        let thread =
            thread::Builder::new().name("web-journal".into()).spawn(work).map_err(JournalError::at(&folder))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, JournalError> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or(JournalError::Stopping)?;
        jobs.try_send(job(reply)).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => JournalError::Busy,
            mpsc::error::TrySendError::Closed(_) => JournalError::Stopping,
        })?;
        answer.await.map_err(|_| JournalError::Stopping)?
    }

    /// Keeps a line.
    pub async fn keep(&self, line: Line) -> Result<(), JournalError> {
        self.ask(|reply| Job::Keep(line, reply)).await
    }

    /// Removes entries. Those that cannot be removed now are not read again.
    pub async fn remove(&self, entries: Vec<i64>) -> Result<(), JournalError> {
        self.ask(|reply| Job::Remove(entries, reply)).await
    }

    /// Writes a line into the file of refused entries, and removes the entry.
    pub async fn refuse(&self, entry: i64, line: String) -> Result<(), JournalError> {
        self.ask(|reply| Job::Refuse(entry, line, reply)).await
    }

    /// The next entries after a number, in order.
    pub async fn read(&self, after: i64) -> Result<Vec<Kept>, JournalError> {
        self.ask(|reply| Job::Read(after, reply)).await
    }
}

/// Waits until the thread has ended, so that the files are free for the next journal.
impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed.
            drop(thread.join());
        }
    }
}

/// The files, as the thread uses them.
struct Disk {
    place: JournalPlace,
    /// None until it is opened again.
    connection: Option<Connection>,
    /// How many entries are in the database.
    entries: usize,
    /// The number of the last entry. A number is given once as long as the thread runs, whatever becomes of the
    /// database.
    last: i64,
    /// Entries that were answered and could not be removed yet.
    delivered: BTreeSet<i64>,
    seen: Arc<Seen>,
}

impl Disk {
    fn new(place: JournalPlace, seen: Arc<Seen>) -> Self {
        Self { place, connection: None, entries: 0, last: 0, delivered: BTreeSet::new(), seen }
    }

    /// The database. It is opened if it is not open.
    fn connection(&mut self) -> Result<&mut Connection, JournalError> {
        let connection = if let Some(connection) = self.connection.take() {
            connection
        } else {
            let connection = self.place.open()?;
            self.seen.set_aside.store(self.place.set_aside(), Ordering::Relaxed);
            let (entries, last) = files::entries(&connection)?;
            let by_tenant = files::by_tenant(&connection)?;
            *self.seen.by_tenant() = by_tenant.into_iter().collect();
            (self.entries, self.last) = (entries, last.max(self.last));
            connection
        };
        Ok(self.connection.insert(connection))
    }

    fn work(&mut self, batch: Vec<Job>) {
        let mut keep = Vec::new();
        for job in batch {
            match job {
                Job::Keep(line, reply) => keep.push((line, reply)),
                Job::Remove(entries, reply) => {
                    let removed = self.remove(entries);
                    self.answer(reply, removed);
                }
                Job::Refuse(entry, line, reply) => {
                    let refused = self.refuse(entry, &line);
                    self.answer(reply, refused);
                }
                Job::Read(after, reply) => {
                    let read = self.read(after);
                    self.answer(reply, read);
                }
            }
        }
        if !keep.is_empty() {
            self.keep(keep);
        }
    }

    /// Answers once the others can see what was done. One that hung up needs no answer.
    fn answer<T>(&self, reply: Reply<T>, done: Result<T, JournalError>) {
        self.tell();
        drop(reply.send(done));
    }

    /// Keeps lines in one commit. If it fails, each is tried alone: one that does not fit fails none of the others.
    fn keep(&mut self, mut batch: Vec<(Line, Reply<()>)>) {
        match self.insert(&batch) {
            Ok(()) => {
                self.seen.commits.fetch_add(1, Ordering::Relaxed);
                self.tell();
                self.seen.kept.notify_one();
                for (_, reply) in batch {
                    drop(reply.send(Ok(())));
                }
            }
            Err(_) if batch.len() > 1 => batch.into_iter().for_each(|one| self.keep(vec![one])),
            Err(error) => {
                tracing::error!(%error, "an entry was not kept in web's journal");
                if let Some((_, reply)) = batch.pop() {
                    self.answer(reply, Err(error));
                }
            }
        }
    }

    fn insert(&mut self, batch: &[(Line, Reply<()>)]) -> Result<(), JournalError> {
        // The numbers are known once the database is open.
        self.connection()?;
        let numbered = (self.last + 1..).zip(batch.iter().map(|(line, _)| &line.text));
        let inserted = files::insert(self.connection()?, numbered);
        self.close_if_unreadable(inserted)?;
        self.entries += batch.len();
        let mut by_tenant = self.seen.by_tenant();
        for (Line { tenant, text }, _) in batch {
            *by_tenant.entry(tenant.clone()).or_default() += text.len() as u64;
        }
        drop(by_tenant);
        self.last += i64::try_from(batch.len()).unwrap_or(i64::MAX);
        Ok(())
    }

    fn remove(&mut self, entries: Vec<i64>) -> Result<(), JournalError> {
        self.delivered.extend(entries);
        if self.delivered.is_empty() {
            return Ok(());
        }
        let delivered = std::mem::take(&mut self.delivered);
        let removed = self.connection().and_then(|connection| Ok(files::remove(connection, &delivered)?));
        match removed {
            Ok(removed) => {
                self.entries = self.entries.saturating_sub(removed.len());
                self.forget(removed);
                Ok(())
            }
            // A full volume lets SQLite write nothing, not even that entries are gone. When all are, the files go.
            Err(JournalError::Full) if self.is_empty_but_for(&delivered) => {
                self.connection = None;
                self.delivered = delivered;
                self.place.delete()?;
                self.delivered.clear();
                self.connection().map(drop)
            }
            Err(error) => {
                self.delivered = delivered;
                self.close_if_unreadable(Err(error))
            }
        }
    }

    /// Notes what tenants do not take any more.
    fn forget(&self, removed: Vec<Taken>) {
        let mut by_tenant = self.seen.by_tenant();
        for (tenant, bytes) in removed {
            let left = by_tenant.get(&tenant).map_or(0, |taken| taken.saturating_sub(bytes));
            if left == 0 {
                by_tenant.remove(&tenant);
            } else {
                by_tenant.insert(tenant, left);
            }
        }
    }

    fn is_empty_but_for(&mut self, delivered: &BTreeSet<i64>) -> bool {
        let left = self.connection.as_ref().map(|connection| files::read(connection, 0, delivered, 1));
        matches!(left, Some(Ok(left)) if left.is_empty())
    }

    /// The line is written first: a crash in between writes it twice, and loses nothing.
    fn refuse(&mut self, entry: i64, line: &str) -> Result<(), JournalError> {
        refused::append(&self.place.folder, line)?;
        self.seen.refused.fetch_add(1, Ordering::Relaxed);
        self.remove(vec![entry])
    }

    fn read(&mut self, after: i64) -> Result<Vec<Kept>, JournalError> {
        let delivered = std::mem::take(&mut self.delivered);
        let read = self.connection().and_then(|connection| Ok(files::read(connection, after, &delivered, PAGE)?));
        self.delivered = delivered;
        self.close_if_unreadable(read)
    }

    /// Closes the database if it could not be read. The next job opens it again, and sets it aside if need be.
    fn close_if_unreadable<T, E: Into<JournalError>>(&mut self, done: Result<T, E>) -> Result<T, JournalError> {
        done.map_err(Into::into).inspect_err(|error| {
            if matches!(error, JournalError::Unreadable(_)) {
                self.connection = None;
            }
        })
    }

    /// Tells the others how much is in the journal.
    fn tell(&self) {
        let entries = self.entries.saturating_sub(self.delivered.len());
        self.seen.entries.store(u64::try_from(entries).unwrap_or(u64::MAX), Ordering::Relaxed);
        if let Some(Ok(used)) = self.connection.as_ref().map(files::used_pages) {
            self.seen.pages.store(self.place.most_pages.saturating_sub(used), Ordering::Relaxed);
        }
    }
}
