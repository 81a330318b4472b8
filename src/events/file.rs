//! Where events go: one line of JSON each, written and synced by a task of its own, so that no customer waits for a
//! disk.

use std::path::Path;

use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};

use super::Event;

/// Events that may wait for the disk: at most 3 kB each, so 30 MB. Web limits the metadata of customers to 2 kB.
const WAITING: usize = 10_000;
/// Events that are written at a time.
const BATCH: usize = 500;

/// The stream of events.
#[derive(Debug, Default)]
pub struct EventLog(Option<mpsc::Sender<Entry>>);

/// What the writing task takes.
#[derive(Debug)]
enum Entry {
    Line(String),
    /// Says when everything before it is on the disk.
    Flush(oneshot::Sender<()>),
    /// Lines, and the channel that reports whether they are on the disk.
    Kept(String, oneshot::Sender<bool>),
}

impl EventLog {
    /// Appends to this file, or writes to the log if no file is set.
    pub async fn open(file: Option<&Path>) -> std::io::Result<Self> {
        let Some(path) = file else { return Ok(Self(None)) };
        let file = OpenOptions::new().append(true).create(true).open(path).await?;
        let (events, waiting) = mpsc::channel(WAITING);
        tokio::spawn(write(file, waiting));
        Ok(Self(Some(events)))
    }

    /// Appends an event.
    pub(super) fn append(&self, event: &Event) {
        let line = match serde_json::to_string(event) {
            Ok(line) => line,
            Err(error) => return tracing::error!(%error, "an event cannot be written"),
        };
        let waits = self.0.as_ref().is_some_and(|events| events.try_send(Entry::Line(line.clone() + "\n")).is_ok());
        if !waits {
            // Without a file, or if the disk is too slow or full, the event goes to the log.
            tracing::info!(target: "activation", event = line);
        }
    }

    /// Whether they go to a file, and not to the log.
    pub(super) const fn has_file(&self) -> bool {
        self.0.is_some()
    }

    /// Appends records that must not be lost, and returns whether they are on the disk. Without a file, they go to the
    /// log.
    pub async fn keep<T: serde::Serialize>(&self, records: &[T]) -> bool {
        let lines: Result<Vec<_>, _> = records.iter().map(serde_json::to_string).collect();
        let lines = match lines {
            Ok(lines) => lines,
            Err(error) => {
                tracing::error!(%error, "a record cannot be written");
                return false;
            }
        };
        let Some(events) = &self.0 else {
            for line in lines {
                tracing::info!(target: "transition", record = line);
            }
            return true;
        };
        let (done, kept) = oneshot::channel();
        let text = lines.into_iter().map(|line| line + "\n").collect();
        events.send(Entry::Kept(text, done)).await.is_ok() && kept.await.unwrap_or(false)
    }

    /// Waits until everything is on the disk: the last thing before the end.
    pub async fn flush(&self) {
        let Some(events) = &self.0 else { return };
        let (done, flushed) = oneshot::channel();
        if events.send(Entry::Flush(done)).await.is_ok() {
            drop(flushed.await);
        }
    }
}

async fn write(mut file: File, mut waiting: mpsc::Receiver<Entry>) {
    let mut batch = Vec::with_capacity(BATCH);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let text = |entry: &Entry| match entry {
            Entry::Line(line) | Entry::Kept(line, _) => line.clone(),
            Entry::Flush(_) => String::new(),
        };
        let lines: String = batch.iter().map(text).collect();
        let written = async {
            file.write_all(lines.as_bytes()).await?;
            file.sync_data().await
        };
        let written = written.await;
        if let Err(error) = &written {
            tracing::error!(%error, "events cannot be written to their file");
        }
        for entry in batch.drain(..) {
            // The caller may have given up, so a send may fail.
            match entry {
                Entry::Flush(done) => drop(done.send(())),
                Entry::Kept(_, done) => drop(done.send(written.is_ok())),
                Entry::Line(line) if written.is_err() => tracing::info!(target: "activation", event = line.trim_end()),
                Entry::Line(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Tenant, Timestamp};

    fn event(name: &str) -> Event {
        let spec = serde_json::json!({"companyName": "A", "adminEmail": "a@b.example"});
        let mut tenant = Tenant::new("a", serde_json::from_value(spec).expect("a spec"));
        tenant.metadata.uid = Some("u1".into());
        Event::milestone(&tenant, name, Timestamp::from_second(0))
    }

    #[tokio::test]
    async fn events_are_appended_and_all_are_there_at_the_end() {
        let path = std::env::temp_dir().join(format!("events-{}.jsonl", std::process::id()));
        drop(std::fs::remove_file(&path));
        for _ in 0..2 {
            let log = EventLog::open(Some(&path)).await.expect("a file");
            (0..1000).for_each(|n| log.append(&event(&format!("sample-query-{n}"))));
            log.flush().await;
        }
        let text = std::fs::read_to_string(&path).expect("written");
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        assert_eq!(lines.len(), 2000, "a second start appends");
        assert_eq!(
            (&lines[0]["id"], &lines[999]["event_type"]),
            (&"u1/sample_query_0".into(), &"sample_query_999".into())
        );
        assert_eq!(lines[0], {
            let mut same = lines[1000].clone();
            same["timestamp"] = lines[0]["timestamp"].clone();
            same
        });
        std::fs::remove_file(&path).expect("there");
        assert!(EventLog::open(Some(Path::new("/nowhere/events"))).await.is_err());
    }
}
