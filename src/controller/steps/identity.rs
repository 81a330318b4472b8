//! The tenant's id with its proof, the finalizer and the label: one patch, before anything else is made.

use kube::ResourceExt;
use kube::api::{DeleteParams, Preconditions};
use serde_json::json;

use crate::api::{EMAIL_LABEL, FINALIZER, PROOF_ANNOTATION, Tenant};
use crate::controller::kubernetes::Kubernetes;
use crate::operator_keys::IdentityKey;

/// The id is the uid at first sight; a restored object keeps the one it had. The decision has seen that it is its own.
pub async fn assign(
    kubernetes: &Kubernetes,
    identity: &IdentityKey,
    tenant: &Tenant,
    plan: Option<&str>,
) -> Result<Tenant, kube::Error> {
    let id = tenant.tenant_id();
    let mut finalizers = tenant.finalizers().to_vec();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.into());
    }
    let mut spec = json!({"tenantId": id});
    if let Some(plan) = plan {
        spec["planInForce"] = plan.into();
    }
    let change = json!({
        "metadata": {
            "finalizers": finalizers,
            "labels": {EMAIL_LABEL: identity.email_hash(&tenant.spec.admin_email)},
            "annotations": {PROOF_ANNOTATION: identity.identity_proof(id, tenant.place())},
        },
        "spec": spec,
    });
    kubernetes.patch(tenant, change).await
}

pub async fn remove_finalizer(kubernetes: &Kubernetes, tenant: &Tenant) -> Result<(), kube::Error> {
    let rest: Vec<_> = tenant.finalizers().iter().filter(|f| *f != FINALIZER).collect();
    match kubernetes.patch(tenant, json!({"metadata": {"finalizers": rest}})).await {
        Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

/// Deletes the object of a signup that was never paid for; the finalizer then cleans up.
pub async fn delete(kubernetes: &Kubernetes, tenant: &Tenant) -> Result<(), kube::Error> {
    let same = Preconditions { uid: tenant.uid(), resource_version: tenant.resource_version() };
    let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
    kubernetes.count("tenant");
    kubernetes.tenants(tenant).delete(&tenant.name_any(), &params).await.map(drop)
}
