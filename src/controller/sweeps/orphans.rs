//! Deletes login Secrets whose Tenant was never created, as after a crash of web between the two writes. Such a Secret
//! would keep its e-mail address tied to the password of a signup that failed.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use crate::controller::Key;
use crate::controller::context::Context;
use crate::controller::watch::caches::LoginSecret;

/// Sweeps forever, a few times within the age at which a Secret counts as an orphan.
pub async fn sweep(context: Arc<Context>) {
    if !context.caches.filled().await {
        return;
    }
    let age = context.policy.orphan_ttl;
    loop {
        tokio::time::sleep(Duration::from_secs((age / 4).clamp(1, 600).unsigned_abs())).await;
        for secret in context.caches.secrets.all_where(|secret| secret.login.is_some()) {
            let Some(login) = secret.login.as_ref().filter(|login| is_orphan(&context, login, age)) else { continue };
            let key = &login.key;
            let api: Api<Secret> = Api::namespaced(context.kubernetes.client.clone(), &key.namespace);
            let same =
                Preconditions { uid: Some(login.uid.clone()), resource_version: Some(secret.version.to_string()) };
            let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
            context.kubernetes.count("secret");
            match api.delete(&key.name, &params).await {
                Ok(_) => tracing::info!(secret = %key, "login Secret without a Tenant deleted"),
                Err(kube::Error::Api(e)) if matches!(e.code, 404 | 409) => {}
                Err(error) => tracing::warn!(%error, secret = %key, "orphaned login Secret not deleted"),
            }
        }
    }
}

/// Made by a signup, old enough, and no Tenant of that name.
fn is_orphan(context: &Context, login: &LoginSecret, age: i64) -> bool {
    let tenant = Key { namespace: login.key.namespace.clone(), name: login.tenant.clone() };
    context.clock.read().earliest.since(login.created_at) >= age && !context.caches.tenants.has(&tenant)
}
