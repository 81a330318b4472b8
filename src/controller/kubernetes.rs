//! Writes to Kubernetes, counted.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::api::{Tenant, TenantStatus};
use crate::telemetry::Metrics;

/// Who the controller is in `managedFields`.
pub const FIELD_MANAGER: &str = "tenant-operator-controller";

/// The API server, as the steps write to it.
pub struct Kubernetes {
    pub client: Client,
    pub metrics: Arc<Metrics>,
}

impl Kubernetes {
    /// The Tenants of this one's namespace.
    pub fn tenants(&self, tenant: &Tenant) -> Api<Tenant> {
        Api::namespaced(self.client.clone(), tenant.place().namespace)
    }

    /// The Secrets of this one's namespace.
    pub fn secrets(&self, tenant: &Tenant) -> Api<Secret> {
        Api::namespaced(self.client.clone(), tenant.place().namespace)
    }

    /// Counts a write of this kind.
    pub fn count(&self, kind: &str) {
        self.metrics.api_writes.get_or_create(&kind.into()).inc();
    }

    /// A merge patch, guarded by the resource version that the decision rests on.
    pub async fn patch(&self, tenant: &Tenant, mut change: Value) -> Result<Tenant, kube::Error> {
        change["metadata"]["resourceVersion"] = json!(tenant.resource_version());
        self.patch_same(tenant, "tenant", change).await
    }

    /// Replaces the status, guarded by the resource version of what was read.
    pub async fn replace_status(
        &self,
        tenant: &Tenant,
        kind: &str,
        status: TenantStatus,
    ) -> Result<Tenant, kube::Error> {
        let mut wanted = tenant.clone();
        wanted.status = Some(status);
        self.count(kind);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let mut written = self.tenants(tenant).replace_status(&tenant.name_any(), &params, &wanted).await?;
        written.managed_fields_mut().clear();
        Ok(written)
    }

    /// Applies a merge patch to the same object, even if it has changed meanwhile.
    pub async fn patch_same(&self, tenant: &Tenant, kind: &str, mut change: Value) -> Result<Tenant, kube::Error> {
        change["metadata"]["uid"] = json!(tenant.uid());
        self.count(kind);
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let mut patched = self.tenants(tenant).patch(&tenant.name_any(), &params, &Patch::Merge(change)).await?;
        patched.managed_fields_mut().clear();
        Ok(patched)
    }
}
