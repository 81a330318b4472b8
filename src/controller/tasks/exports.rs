//! The exports that run, and their storages. `export_work.rs` does them.

use super::Tasks;
use crate::api::Tenant;
use crate::export::{ExportError, Store, Stores};
use crate::lifecycle::ObservedExport;

/// Exports that read and write at the same time. The others wait.
const AT_ONCE: usize = 2;

/// The exports of this controller.
pub struct Exports {
    stores: Stores,
    /// The tasks that write them, by the tenants' uids.
    pub tasks: Tasks<ObservedExport>,
}

impl Exports {
    /// None run yet.
    pub fn new(stores: Stores) -> Self {
        Self { stores, tasks: Tasks::new(AT_ONCE) }
    }

    /// The storage of a tenant's exports, if one is set.
    pub fn store(&self, tenant: &Tenant) -> Option<&Store> {
        self.stores.of(tenant.region())
    }

    /// How many files there are of a tenant's exports.
    pub async fn count(&self, tenant: &Tenant) -> Result<u64, ExportError> {
        let mut files = 0;
        for store in self.stores.each() {
            files += store.count(tenant.tenant_id()).await?;
        }
        Ok(files)
    }

    /// Deletes the exports of a tenant that are not in this storage: those from before it moved to another region.
    pub async fn delete_elsewhere(&self, tenant: &Tenant, here: &Store) -> Result<(), ExportError> {
        for store in self.stores.each().filter(|store| store.url() != here.url()) {
            store.erase(tenant.tenant_id()).await?;
        }
        Ok(())
    }

    /// Deletes the files of all the tenant's exports, of which none runs any more.
    pub async fn delete(&self, tenant: &Tenant) -> Result<(), ExportError> {
        for store in self.stores.each() {
            store.erase(tenant.tenant_id()).await?;
        }
        Ok(())
    }
}
