//! The Secret with the tenant's API key.

use std::collections::BTreeMap;
use std::time::Instant;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Resource, ResourceExt};

use crate::api::{TENANT_LABEL, Tenant};
use crate::controller::context::Context;
use crate::keys::{Claims, mint};
use crate::lifecycle::{View, api_key_secret};

/// Makes the Secret, or puts back what somebody changed in it.
pub async fn ensure(context: &Context, tenant: &Tenant) -> Result<(), kube::Error> {
    let wanted = secret(context, tenant);
    let name = api_key_secret(&tenant.name_any());
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &tenant.namespace().unwrap_or_default());
    let writes = context.metrics.api_writes.get_or_create_owned(&"secret".into());
    writes.inc();
    match api.create(&PostParams::default(), &wanted).await {
        Ok(_) => {}
        Err(kube::Error::Api(e)) if e.code == 409 => {
            let mut there = api.get(&name).await?;
            if there.data != wanted.data {
                there.data = wanted.data;
                writes.inc();
                api.replace(&name, &PostParams::default(), &there).await?;
            }
        }
        Err(e) => return Err(e),
    }
    context.remember(&tenant.uid().unwrap_or_default(), |m| m.secret_made = Some(Instant::now()));
    Ok(())
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
