//! The tenant's Secrets: the API key, which is made here, and the password hash, which web makes. A Secret that is not
//! the tenant's is neither written nor deleted.

use std::collections::BTreeMap;
use std::time::Instant;

use ed25519_dalek::SigningKey;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};

use super::StepError;
use crate::api::{TENANT_LABEL, Tenant, api_key_secret, login_secret, pinecone_namespace};
use crate::controller::kubernetes::Kubernetes;
use crate::controller::memory::{ApiKey, Memory};
use crate::keys::{Claims, mint, verify};

const KEY_FIELD: &str = "api-key";

/// Makes the Secret, or repairs what somebody changed in it. One that is `known` to the cache is read first; a new
/// tenant's is made without asking.
pub async fn ensure_api_key(
    kubernetes: &Kubernetes,
    signer: &SigningKey,
    memory: &Memory,
    tenant: &Tenant,
    known: bool,
) -> Result<(), StepError> {
    let wanted = secret(signer, tenant);
    let api = kubernetes.secrets(tenant);
    let there = if known { api.get_opt(&wanted.name_any()).await? } else { None };
    let kept = match there {
        Some(there) => repair(kubernetes, signer, tenant, there, wanted).await?,
        None => create(kubernetes, signer, tenant, wanted).await?,
    };
    let key =
        ApiKey { version: kept.resource_version().unwrap_or_default(), generation: tenant.spec.api_key_generation };
    memory.remember(&tenant.uid().unwrap_or_default(), |m| m.api_key = Some((key, Instant::now())));
    Ok(())
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

/// The key, and the label by which we watch; what else somebody noted on it is theirs.
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
    let label = tenant.name_any();
    if there.data == wanted.data && there.labels().get(TENANT_LABEL) == Some(&label) {
        return Ok(there);
    }
    there.data = wanted.data;
    there.labels_mut().insert(TENANT_LABEL.into(), label);
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

/// Deletes the API-key Secret and the login Secret, where they are this tenant's.
pub async fn delete(kubernetes: &Kubernetes, signer: &SigningKey, tenant: &Tenant) -> Result<(), StepError> {
    let api = kubernetes.secrets(tenant);
    let name = tenant.name_any();
    delete_owned(kubernetes, &api, &api_key_secret(&name), |s| owned(s, tenant, Some(signer))).await?;
    delete_owned(kubernetes, &api, &login_secret(&name), |s| owned(s, tenant, None)).await
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
        ns: pinecone_namespace(tenant.tenant_id()),
        plan: tenant.spec.plan.clone(),
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
