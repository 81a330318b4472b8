//! The tenant's id, finalizer and label: one patch, before anything else is made.

use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::api::{EMAIL_LABEL, FINALIZER, Tenant};
use crate::controller::context::Context;

pub fn api(context: &Context, tenant: &Tenant) -> Api<Tenant> {
    Api::namespaced(context.client.clone(), &tenant.namespace().unwrap_or_default())
}

/// A merge patch by the controller, guarded by the resource version that the decision rests on.
pub async fn patch(context: &Context, tenant: &Tenant, mut change: Value) -> Result<Tenant, kube::Error> {
    change["metadata"]["resourceVersion"] = json!(tenant.resource_version());
    patch_as_is(context, tenant, "tenant", change).await
}

/// A merge patch that holds whatever else has changed meanwhile, counted as a write of this kind.
pub async fn patch_as_is(context: &Context, tenant: &Tenant, kind: &str, change: Value) -> Result<Tenant, kube::Error> {
    context.metrics.api_writes.get_or_create(&kind.into()).inc();
    let params = PatchParams { field_manager: Some("tenant-operator-controller".into()), ..PatchParams::default() };
    let mut patched = api(context, tenant).patch(&tenant.name_any(), &params, &Patch::Merge(change)).await?;
    patched.managed_fields_mut().clear();
    Ok(patched)
}

/// The id is the uid at first sight; a restored object keeps the one it had.
pub async fn assign(context: &Context, tenant: &Tenant) -> Result<Tenant, kube::Error> {
    let id = tenant.spec.tenant_id.clone().or_else(|| tenant.uid()).unwrap_or_default();
    let mut finalizers = tenant.finalizers().to_vec();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.into());
    }
    let hash = context.identity.email_hash(&tenant.spec.admin_email);
    let change = json!({
        "metadata": {"finalizers": finalizers, "labels": {EMAIL_LABEL: hash}},
        "spec": {"tenantId": id},
    });
    patch(context, tenant, change).await
}

pub async fn remove_finalizer(context: &Context, tenant: &Tenant) -> Result<(), kube::Error> {
    let rest: Vec<_> = tenant.finalizers().iter().filter(|f| *f != FINALIZER).collect();
    match patch(context, tenant, json!({"metadata": {"finalizers": rest}})).await {
        Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

/// Deletes the object of a signup that was never paid for; the finalizer then cleans up.
pub async fn delete(context: &Context, tenant: &Tenant) -> Result<(), kube::Error> {
    let same = Preconditions { uid: tenant.uid(), resource_version: tenant.resource_version() };
    let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
    context.metrics.api_writes.get_or_create(&"tenant".into()).inc();
    api(context, tenant).delete(&tenant.name_any(), &params).await.map(drop)
}
