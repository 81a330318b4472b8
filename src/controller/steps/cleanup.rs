//! Taking away what a tenant owned.

use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};

use crate::api::Tenant;
use crate::controller::context::Context;
use crate::lifecycle::{Outcome, View, api_key_secret};
use crate::providers::ProviderError;

/// Deletes the Pinecone namespace with its vectors, and sees that it is gone.
pub async fn namespace(context: &Context, tenant: &Tenant) -> Result<Outcome, ProviderError> {
    let name = View::of(tenant).pinecone_namespace();
    let pinecone = &context.providers.pinecone;
    pinecone.delete_namespace(&name).await?;
    if pinecone.namespace_exists(&name).await? {
        return Err(ProviderError {
            provider: "Pinecone",
            status: None,
            reason: "StillThere",
            message: format!("namespace {name} is still there after its deletion"),
            retryable: true,
            retry_after: None,
        });
    }
    Ok(Outcome::Done)
}

/// Deletes the API-key Secret and the login Secret.
pub async fn secrets(context: &Context, tenant: &Tenant) -> Result<(), kube::Error> {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &tenant.namespace().unwrap_or_default());
    let login = tenant.spec.login.as_ref().map(|l| l.secret_name.clone());
    for name in [Some(api_key_secret(&tenant.name_any())), login].into_iter().flatten() {
        context.metrics.api_writes.get_or_create(&"secret".into()).inc();
        match api.delete(&name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(e)) if e.code == 404 => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
