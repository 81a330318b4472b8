//! The sandbox's state on disk: one file, replaced as a whole, at most a second behind.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Shared, lock, pinecone, smtp, stripe};

const INTERVAL: Duration = Duration::from_secs(1);
const FILE: &str = "sandbox.json";

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Snapshot {
    stripe: stripe::Data,
    pinecone: pinecone::Snapshot,
    pinecone_eu: pinecone::Snapshot,
    mails: Vec<smtp::Received>,
    alerts: Vec<Value>,
}

/// Reads what an earlier run left in the folder, if there is anything.
pub fn load(folder: &Path, shared: &Shared) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(FILE);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let snapshot: Snapshot = serde_json::from_slice(&text).map_err(|e| {
        std::io::Error::other(format!("{} cannot be read ({e}): remove it to begin anew", path.display()))
    })?;
    shared.stripe.restore(snapshot.stripe);
    let [first, second] = &shared.pinecone;
    first.restore(snapshot.pinecone);
    second.restore(snapshot.pinecone_eu);
    shared.mailbox.restore(snapshot.mails);
    *lock(&shared.alerts) = snapshot.alerts;
    Ok(())
}

/// Writes the state: to a new file first, so that a crash leaves the old one whole.
pub fn save(folder: &Path, shared: &Shared) -> std::io::Result<()> {
    let snapshot = Snapshot {
        stripe: shared.stripe.snapshot(),
        pinecone: shared.pinecone[0].snapshot(),
        pinecone_eu: shared.pinecone[1].snapshot(),
        mails: shared.mailbox.list(),
        alerts: lock(&shared.alerts).clone(),
    };
    let new = folder.join(format!("{FILE}.new"));
    std::fs::write(&new, serde_json::to_vec(&snapshot)?)?;
    std::fs::rename(new, folder.join(FILE))
}

/// Saves again and again what has changed.
pub fn keep(folder: PathBuf, shared: Arc<Shared>) {
    tokio::spawn(async move {
        let mut saved = 0;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let changes = shared.changes.load(Ordering::Relaxed);
            if changes == saved {
                continue;
            }
            let (folder, shared) = (folder.clone(), shared.clone());
            match tokio::task::spawn_blocking(move || save(&folder, &shared))
                .await
                .map_err(std::io::Error::other)
                .flatten()
            {
                Ok(()) => saved = changes,
                Err(error) => tracing::error!(%error, "the sandbox's state was not saved"),
            }
        }
    });
}
