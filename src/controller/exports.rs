//! The exports that run, and their storage. `export_work.rs` does them.

use kube::ResourceExt;

use super::tasks::Tasks;
use crate::api::Tenant;
use crate::export::{ExportError, Store};
use crate::lifecycle::ObservedExport;

/// Exports that read and write at the same time. The others wait.
const AT_ONCE: usize = 2;

/// The exports of this controller.
pub struct Exports {
    store: Option<Store>,
    /// The tasks that write them, by the tenants' uids.
    pub tasks: Tasks<ObservedExport>,
}

impl Exports {
    /// None run yet.
    pub fn new(store: Option<Store>) -> Self {
        Self { store, tasks: Tasks::new(AT_ONCE) }
    }

    /// The storage, where there is one.
    pub fn store(&self) -> Option<&Store> {
        self.store.as_ref()
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
        self.tasks.abort(&tenant.uid().unwrap_or_default());
        match &self.store {
            Some(store) => store.erase(tenant.tenant_id()).await,
            None => Ok(()),
        }
    }
}
