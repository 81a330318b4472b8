//! Login Secrets whose Tenant was never made, as after a crash of web between the two. Left alone, each would lock an
//! e-mail address to a password that nobody remembers.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt};

use super::Key;
use super::context::Context;
use crate::api::{COMPONENT_LABEL, LOGIN_COMPONENT, TENANT_LABEL, Timestamp, login_secret};

/// Sweeps forever, a few times within the age at which a Secret counts as an orphan.
pub async fn sweep(context: Arc<Context>) {
    if !context.caches.filled().await {
        return;
    }
    let age = context.policy.orphan_ttl;
    loop {
        tokio::time::sleep(Duration::from_secs((age / 4).clamp(1, 600).unsigned_abs())).await;
        for secret in context.caches.secrets.state_filter(|s| is_orphan(&context, s, age)) {
            let namespace = secret.metadata.namespace.clone().unwrap_or_default();
            let api: Api<Secret> = Api::namespaced(context.kubernetes.client.clone(), &namespace);
            let same = Preconditions { uid: secret.uid(), resource_version: secret.resource_version() };
            let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
            context.kubernetes.count("secret");
            match api.delete(&secret.name_any(), &params).await {
                Ok(_) => {
                    tracing::info!(secret = %secret.name_any(), namespace, "login Secret without a Tenant deleted");
                }
                Err(kube::Error::Api(e)) if matches!(e.code, 404 | 409) => {}
                Err(error) => tracing::warn!(%error, secret = %secret.name_any(), "orphaned login Secret not deleted"),
            }
        }
    }
}

/// Made by a signup, old enough, and no Tenant of that name.
fn is_orphan(context: &Context, secret: &PartialObjectMeta<Secret>, age: i64) -> bool {
    let labels = secret.labels();
    let Some(tenant) = labels.get(TENANT_LABEL) else { return false };
    let login = labels.get(COMPONENT_LABEL).is_some_and(|c| c == LOGIN_COMPONENT)
        && secret.metadata.name.as_deref() == Some(login_secret(tenant).as_str());
    let made = secret.metadata.creation_timestamp.as_ref().map(|t| Timestamp::from(t.0));
    let namespace = secret.metadata.namespace.clone().unwrap_or_default();
    login
        && made.is_some_and(|made| Timestamp::now().since(made) >= age)
        && context.caches.tenant(&Key { namespace, name: tenant.clone() }).is_none()
}
