//! The tenant's Secrets: the API key, which is made here, and the password hash, which web makes. A Secret that is not
//! the tenant's is neither written nor deleted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use ed25519_dalek::SigningKey;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};

use super::StepError;
use crate::api::{
    COMPONENT_LABEL, KEPT_ANNOTATION, LOGIN_COMPONENT, TENANT_LABEL, Tenant, Timestamp, api_key_secret, data_namespace,
    login_secret,
};
use crate::controller::Key;
use crate::controller::kubernetes::Kubernetes;
use crate::controller::reconcile::memory::{ApiKey, Memory};
use crate::keys::{Claims, mint, verify};

const KEY_FIELD: &str = "api-key";

/// Creates the Secret, or repairs it if it was changed. Reads it first if it is `known` to the cache; a new tenant's is
/// created without asking.
pub async fn ensure_api_key(
    kubernetes: &Kubernetes,
    signer: &SigningKey,
    memory: &Memory,
    tenant: &Tenant,
    known: bool,
) -> Result<(), StepError> {
    let wanted = secret(signer, tenant);
    let api = kubernetes.secrets(tenant);
    let there = if known {
        kubernetes.metrics.secret_reads.inc();
        api.get_opt(&wanted.name_any()).await?
    } else {
        None
    };
    let kept = match there {
        Some(there) => repair(kubernetes, signer, tenant, there, wanted).await?,
        None => create(kubernetes, signer, tenant, wanted).await?,
    };
    remember(memory, tenant, &kept);
    Ok(())
}

/// Objects a page of a listing.
const PAGE: u32 = 500;

/// Remembers which API-key Secrets are right, from a listing of all: after a start this saves a call for each tenant.
/// The others are left to their tenants' reconciles.
pub async fn recall(
    api: &Api<Secret>,
    signer: &SigningKey,
    memory: &Memory,
    tenant: impl Fn(&Key) -> Option<Arc<Tenant>>,
) -> Result<(), kube::Error> {
    let selector = format!("{TENANT_LABEL},{COMPONENT_LABEL}!={LOGIN_COMPONENT}");
    let mut params = ListParams::default().labels(&selector).limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        for there in page.items {
            let Some(name) = there.labels().get(TENANT_LABEL).cloned() else { continue };
            let Some(tenant) = tenant(&Key { namespace: there.namespace().unwrap_or_default(), name }) else {
                continue;
            };
            if there.name_any() == api_key_secret(&tenant.name_any()) && right(&there, &secret(signer, &tenant)) {
                remember(memory, &tenant, &there);
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}

fn remember(memory: &Memory, tenant: &Tenant, secret: &Secret) {
    let version = secret.resource_version().unwrap_or_default();
    let plan = tenant.plan_in_force().to_owned();
    let key = ApiKey { version, generation: tenant.spec.api_key_generation, plan };
    memory.remember(&tenant.uid().unwrap_or_default(), |m| m.api_key = Some((key, Instant::now())));
}

/// Whether nothing in the Secret needs a repair.
fn right(there: &Secret, wanted: &Secret) -> bool {
    there.data == wanted.data && there.labels().get(TENANT_LABEL) == wanted.labels().get(TENANT_LABEL)
}

async fn create(
    kubernetes: &Kubernetes,
    signer: &SigningKey,
    tenant: &Tenant,
    wanted: Secret,
) -> Result<Secret, StepError> {
    let api = kubernetes.secrets(tenant);
    kubernetes.count("secret");
    match api.create(&PostParams::default(), &wanted).await {
        Err(kube::Error::Api(e)) if e.code == 409 => {
            let there = api.get(&wanted.name_any()).await?;
            repair(kubernetes, signer, tenant, there, wanted).await
        }
        other => Ok(other?),
    }
}

/// Restores the key and the label by which we watch. Other labels and annotations stay as they are.
async fn repair(
    kubernetes: &Kubernetes,
    signer: &SigningKey,
    tenant: &Tenant,
    mut there: Secret,
    wanted: Secret,
) -> Result<Secret, StepError> {
    if !owned(&there, tenant, Some(signer)) {
        return Err(StepError::SecretConflict(there.name_any(), tenant.name_any()));
    }
    if right(&there, &wanted) {
        return Ok(there);
    }
    there.data = wanted.data;
    there.labels_mut().insert(TENANT_LABEL.into(), tenant.name_any());
    kubernetes.count("secret");
    Ok(kubernetes.secrets(tenant).replace(&there.name_any(), &PostParams::default(), &there).await?)
}

/// Whether a Secret is this tenant's: it says so by its label or its owner, or it holds a key that we signed for this
/// tenant, as one from a backup does.
fn owned(secret: &Secret, tenant: &Tenant, signer: Option<&SigningKey>) -> bool {
    let labelled = secret.labels().get(TENANT_LABEL).is_some_and(|name| *name == tenant.name_any());
    let owner = secret.owner_references().iter().any(|o| Some(&o.uid) == tenant.uid().as_ref());
    let holds_our_key = || {
        let key = secret.data.as_ref()?.get(KEY_FIELD)?;
        let claims = verify(&signer?.verifying_key(), std::str::from_utf8(&key.0).ok()?)?;
        Some(claims.sub == tenant.tenant_id())
    };
    labelled || owner || holds_our_key().unwrap_or(false)
}

/// Deletes the API-key Secret and the login Secret, if they are this tenant's.
pub async fn delete(kubernetes: &Kubernetes, signer: &SigningKey, tenant: &Tenant) -> Result<(), StepError> {
    let api = kubernetes.secrets(tenant);
    let name = tenant.name_any();
    delete_owned(kubernetes, &api, &api_key_secret(&name), |s| owned(s, tenant, Some(signer))).await?;
    delete_owned(kubernetes, &api, &login_secret(&name), |s| owned(s, tenant, None)).await
}

/// Marks the login Secret of a Tenant that goes while its customer is kept. Without the mark, the sweep would delete it
/// as the leftover of a failed signup, and the customer could not log in after the Tenant was restored.
pub async fn keep_login(kubernetes: &Kubernetes, tenant: &Tenant) -> Result<(), StepError> {
    if !tenant.status.as_ref().is_some_and(|status| status.customer_kept) {
        return Ok(());
    }
    let api = kubernetes.secrets(tenant);
    // The sweep finds login Secrets by these labels, and the chart's admission policy lets the controller write to no
    // other.
    let labelled = |secret: &Secret| {
        let label = |key| secret.labels().get(key).map(String::as_str);
        label(TENANT_LABEL) == Some(&*tenant.name_any()) && label(COMPONENT_LABEL) == Some(LOGIN_COMPONENT)
    };
    let Some(mut there) = api.get_opt(&login_secret(&tenant.name_any())).await?.filter(labelled) else {
        return Ok(());
    };
    there.annotations_mut().insert(KEPT_ANNOTATION.into(), Timestamp::now().to_string());
    kubernetes.count("secret");
    api.replace(&there.name_any(), &PostParams::default(), &there).await?;
    Ok(())
}

/// How many of them there are.
pub async fn count(kubernetes: &Kubernetes, signer: &SigningKey, tenant: &Tenant) -> Result<u64, kube::Error> {
    let api = kubernetes.secrets(tenant);
    let (key, login) = (api_key_secret(&tenant.name_any()), login_secret(&tenant.name_any()));
    let (key, login) = tokio::try_join!(api.get_opt(&key), api.get_opt(&login))?;
    let key = key.is_some_and(|secret| owned(&secret, tenant, Some(signer)));
    let login = login.is_some_and(|secret| owned(&secret, tenant, None));
    Ok(u64::from(key) + u64::from(login))
}

async fn delete_owned(
    kubernetes: &Kubernetes,
    api: &Api<Secret>,
    name: &str,
    owned: impl Fn(&Secret) -> bool,
) -> Result<(), StepError> {
    let Some(there) = api.get_opt(name).await?.filter(owned) else { return Ok(()) };
    // The very Secret that was looked at, as it was.
    let same = Preconditions { uid: there.uid(), resource_version: there.resource_version() };
    kubernetes.count("secret");
    match api.delete(name, &DeleteParams { preconditions: Some(same), ..DeleteParams::default() }).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn secret(signer: &SigningKey, tenant: &Tenant) -> Secret {
    let claims = Claims {
        sub: tenant.tenant_id().into(),
        ns: data_namespace(tenant.tenant_id(), 1),
        plan: tenant.plan_in_force().to_owned(),
        kid: tenant.spec.api_key_generation.to_string(),
    };
    let text = |s: &str| ByteString(s.as_bytes().to_vec());
    Secret {
        metadata: ObjectMeta {
            name: Some(api_key_secret(&tenant.name_any())),
            labels: Some(BTreeMap::from([
                (TENANT_LABEL.into(), tenant.name_any()),
                ("app.kubernetes.io/managed-by".into(), "tenant-operator".into()),
            ])),
            owner_references: tenant.controller_owner_ref(&()).map(|o| vec![o]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([
            (KEY_FIELD.into(), text(&mint(signer, &claims))),
            ("key-id".into(), text(&claims.kid)),
            ("namespace".into(), text(&claims.ns)),
        ])),
        ..Secret::default()
    }
}
