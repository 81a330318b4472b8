//! Where a tenant's data is.

use kube::ResourceExt;
use serde_json::json;

use super::{StepError, namespace};
use crate::api::{Tenant, data_namespace};
use crate::controller::kubernetes::Kubernetes;
use crate::lifecycle::Outcome;
use crate::providers::indexes::Indexes;

/// Deletes the namespace of another generation of the tenant's data. What the object says now counts, whatever was decided.
pub async fn drop(
    kubernetes: &Kubernetes,
    indexes: &Indexes,
    tenant: &Tenant,
    generation: u32,
) -> Result<Outcome, StepError> {
    let now = kubernetes.tenants(tenant).get(&tenant.name_any()).await?;
    if now.uid() != tenant.uid() || now.data_generation() == generation {
        tracing::error!(
            tenant = tenant.name_any(),
            generation,
            "the data in use is not deleted; this is a bug in the operator"
        );
        return Ok(Outcome::Done);
    }
    Ok(namespace::delete(indexes, &data_namespace(tenant.tenant_id(), generation)).await?)
}

/// Writes where the tenant's data is. It is refused where somebody else has written the object meanwhile: the decision rests on
/// what it said.
pub async fn record(
    kubernetes: &Kubernetes,
    tenant: &Tenant,
    generation: u32,
    embedding: &str,
    region: Option<&str>,
) -> Result<Tenant, kube::Error> {
    let data = json!({"generation": generation, "embedding": embedding, "region": region});
    let version = tenant.resource_version();
    kubernetes.patch(tenant, json!({"metadata": {"resourceVersion": version}, "spec": {"data": data}})).await
}
