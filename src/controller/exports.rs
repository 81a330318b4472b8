//! The exports that run, and how far each is. `export_work.rs` does them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::Future;
use futures::future::{AbortHandle, abortable};
use kube::ResourceExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::Tenant;
use crate::export::{ExportError, Store};
use crate::lifecycle::ObservedExport;

/// Exports that read and write at the same time. The others wait.
const AT_ONCE: usize = 2;
/// How often the status may say how far an export is.
const TOLD_EACH: Duration = Duration::from_secs(3);

/// The exports of this controller.
pub struct Exports {
    store: Option<Store>,
    running: Mutex<HashMap<String, Running>>,
    turns: Arc<Semaphore>,
}

/// One of them.
struct Running {
    request: String,
    seen: ObservedExport,
    /// Counts what there is to see.
    version: u64,
    told: Instant,
    task: AbortHandle,
}

impl Exports {
    /// None run yet.
    pub fn new(store: Option<Store>) -> Self {
        Self { store, running: Mutex::default(), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The storage, where there is one.
    pub fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whenever there is something new to see of the tenant's export.
    pub fn version(&self, uid: &str) -> u64 {
        self.running().get(uid).map_or(0, |running| running.version)
    }

    /// How many files there are of a tenant's exports.
    pub async fn count(&self, tenant: &Tenant) -> Result<u64, ExportError> {
        match &self.store {
            Some(store) => store.count(tenant.tenant_id()).await,
            None => Ok(0),
        }
    }

    /// Ends the tenant's export and deletes the files of all of them.
    pub async fn delete(&self, tenant: &Tenant) -> Result<(), ExportError> {
        if let Some(running) = self.running().remove(&tenant.uid().unwrap_or_default()) {
            running.task.abort();
        }
        match &self.store {
            Some(store) => store.erase(tenant.tenant_id()).await,
            None => Ok(()),
        }
    }

    /// How far an export is, if it runs. The end is said once: the status keeps it.
    pub fn seen(&self, uid: &str, request: &str) -> Option<ObservedExport> {
        let mut running = self.running();
        let seen = running.get(uid).filter(|there| there.request == request)?.seen.clone();
        if matches!(seen, ObservedExport::Done { .. }) {
            running.remove(uid);
        }
        Some(seen)
    }

    /// Begins an export, in place of another one of the tenant.
    pub fn begin(
        &self,
        uid: String,
        request: String,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> ObservedExport {
        let begun = ObservedExport::Running { files: 0, bytes: 0, problem: None };
        let (work, task) = abortable(work);
        let entry = Running { request, seen: begun.clone(), version: 1, told: Instant::now(), task };
        if let Some(other) = self.running().insert(uid, entry) {
            other.task.abort();
        }
        tokio::spawn(work);
        begun
    }

    /// Waits until there is room for one more.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // Closed by nobody.
        self.turns.clone().acquire_owned().await.ok()
    }

    /// Whether the status may say again how far it is.
    pub fn is_due(&self, uid: &str) -> bool {
        self.running().get(uid).is_some_and(|there| there.told.elapsed() >= TOLD_EACH)
    }

    /// Notes how far it is. False where another one has taken its place.
    pub fn note(&self, uid: &str, request: &str, seen: impl FnOnce(&ObservedExport) -> ObservedExport) -> bool {
        let mut running = self.running();
        let Some(there) = running.get_mut(uid).filter(|there| there.request == request) else { return false };
        there.seen = seen(&there.seen);
        there.version += 1;
        there.told = Instant::now();
        true
    }
}
