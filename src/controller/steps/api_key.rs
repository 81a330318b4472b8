//! The Secret with the tenant's API key.

use std::collections::BTreeMap;
use std::time::Instant;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Resource, ResourceExt};

use crate::api::{TENANT_LABEL, Tenant};
use crate::controller::context::{ApiKey, Context};
use crate::keys::{Claims, mint};
use crate::lifecycle::View;

/// Makes the Secret, or puts back what somebody changed in it. One that the cache knows is read first; a new tenant's
/// is made without asking.
pub async fn ensure(context: &Context, tenant: &Tenant) -> Result<(), kube::Error> {
    let wanted = secret(context, tenant);
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &tenant.namespace().unwrap_or_default());
    let known = if context.cached_secret(tenant).is_some() { api.get_opt(&wanted.name_any()).await? } else { None };
    let kept = match known {
        Some(there) => put_right(context, &api, there, wanted).await?,
        None => make(context, &api, wanted).await?,
    };
    let key =
        ApiKey { version: kept.resource_version().unwrap_or_default(), generation: tenant.spec.api_key_generation };
    context.remember(&tenant.uid().unwrap_or_default(), |m| m.api_key = Some((key, Instant::now())));
    Ok(())
}

async fn make(context: &Context, api: &Api<Secret>, wanted: Secret) -> Result<Secret, kube::Error> {
    context.metrics.api_writes.get_or_create(&"secret".into()).inc();
    match api.create(&PostParams::default(), &wanted).await {
        Err(kube::Error::Api(e)) if e.code == 409 => {
            let there = api.get(&wanted.name_any()).await?;
            put_right(context, api, there, wanted).await
        }
        other => other,
    }
}

/// The key, and the label by which we watch; what else somebody noted on it is theirs.
async fn put_right(
    context: &Context,
    api: &Api<Secret>,
    mut there: Secret,
    wanted: Secret,
) -> Result<Secret, kube::Error> {
    let label = wanted.labels().get(TENANT_LABEL).cloned().unwrap_or_default();
    if there.data == wanted.data && there.labels().get(TENANT_LABEL) == Some(&label) {
        return Ok(there);
    }
    there.data = wanted.data;
    there.labels_mut().insert(TENANT_LABEL.into(), label);
    context.metrics.api_writes.get_or_create(&"secret".into()).inc();
    api.replace(&there.name_any(), &PostParams::default(), &there).await
}

fn secret(context: &Context, tenant: &Tenant) -> Secret {
    let view = View::of(tenant);
    let claims = Claims {
        sub: view.tenant_id().into(),
        ns: view.pinecone_namespace(),
        plan: tenant.spec.plan.clone(),
        kid: tenant.spec.api_key_generation.to_string(),
    };
    let text = |s: &str| ByteString(s.as_bytes().to_vec());
    Secret {
        metadata: ObjectMeta {
            name: Some(view.api_key_secret()),
            labels: Some(BTreeMap::from([
                (TENANT_LABEL.into(), tenant.name_any()),
                ("app.kubernetes.io/managed-by".into(), "tenant-operator".into()),
            ])),
            owner_references: tenant.controller_owner_ref(&()).map(|o| vec![o]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([
            ("api-key".into(), text(&mint(&context.signer, &claims))),
            ("key-id".into(), text(&claims.kid)),
            ("namespace".into(), text(&claims.ns)),
        ])),
        ..Secret::default()
    }
}
