//! What web keeps of people who are not customers yet: messages to the sales team and entries of the waitlist. Web may
//! neither list nor delete Secrets, so the controller deletes those that expire and publishes how many there are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::context::Context;
use super::watch::{Scope, scoped};
use crate::api::{
    ADMITTED_ANNOTATION, COMPONENT_LABEL, LEAD_COMPONENT, LEAD_COUNT, LEAD_COUNT_MAP, LEAD_KINDS, Tenant, Timestamp,
    lead_secret,
};

/// How leads are kept.
#[derive(Clone, Debug)]
pub struct LeadConfig {
    /// Seconds after which a lead is deleted.
    pub ttl: i64,
    /// Where the count is published.
    pub operator_namespace: String,
}

/// Secrets a page of a listing.
const PAGE: u32 = 500;
/// Deletions of one pass. The next pass goes on.
const DELETIONS: usize = 500;

/// Deletes leads that expire, and counts the others, until the lease is lost.
pub async fn sweep(context: Arc<Context>, scopes: Vec<Scope>) {
    // A Scope of None is every namespace. Only the namespace of signups holds leads, where it is known.
    let scopes = context.providers.mail.pages_namespace().map_or(scopes, |ns| vec![Some(ns.to_owned())]);
    let pause = Duration::from_secs((context.leads.ttl / 4).clamp(1, 60).unsigned_abs());
    let mut published = None;
    loop {
        if let Err(error) = pass(&context, &scopes, &mut published).await {
            tracing::warn!(%error, "leads not swept; the next pass tries again");
        }
        tokio::time::sleep(pause).await;
    }
}

async fn pass(context: &Context, scopes: &[Scope], published: &mut Option<usize>) -> Result<(), kube::Error> {
    let (mut kept, mut deleted) = (0_usize, 0_usize);
    for scope in scopes {
        let api: Api<Secret> = scoped(&context.kubernetes.client, scope);
        let mut params = ListParams::default().labels(&format!("{COMPONENT_LABEL}={LEAD_COMPONENT}")).limit(PAGE);
        loop {
            let page = api.list_metadata(&params).await?;
            for lead in page.items.iter().filter(|lead| lead.name_any().starts_with("lead-")) {
                let expires = deleted < DELETIONS && is_old(context, lead);
                if expires && delete_expired(context, lead).await? {
                    deleted += 1;
                } else {
                    kept += 1;
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
    }
    if deleted > 0 {
        tracing::info!(deleted, "expired leads deleted");
    }
    if *published != Some(kept) {
        publish(context, kept).await?;
        *published = Some(kept);
    }
    Ok(())
}

/// Whether the Secret was made before the limit, as its metadata tells.
fn is_old(context: &Context, lead: &PartialObjectMeta<Secret>) -> bool {
    let made = lead.metadata.creation_timestamp.as_ref().map(|at| Timestamp::from(at.0));
    made.is_some_and(|made| expired(context, made))
}

fn expired(context: &Context, since: Timestamp) -> bool {
    context.clock.read().earliest.since(since) >= context.leads.ttl
}

/// Deletes a lead that was neither written again nor admitted since the limit; true when it is gone.
async fn delete_expired(context: &Context, lead: &PartialObjectMeta<Secret>) -> Result<bool, kube::Error> {
    let api: Api<Secret> =
        Api::namespaced(context.kubernetes.client.clone(), &lead.namespace().unwrap_or_default());
    let Some(there) = api.get_opt(&lead.name_any()).await? else { return Ok(true) };
    let written = there.data.as_ref().and_then(|data| data.get("at"));
    let written = written.and_then(|at| std::str::from_utf8(&at.0).ok().map(str::to_owned));
    let admitted = there.annotations().get(ADMITTED_ANNOTATION).cloned();
    let recent = [written, admitted].into_iter().flatten().filter_map(|at| at.parse::<Timestamp>().ok());
    if recent.into_iter().any(|at| !expired(context, at)) {
        return Ok(false);
    }
    delete_same(context, &api, &there).await
}

/// Deletes this very Secret, unless it has changed; true when it is gone.
async fn delete_same(context: &Context, api: &Api<Secret>, there: &Secret) -> Result<bool, kube::Error> {
    let same = Preconditions { uid: there.uid(), resource_version: there.resource_version() };
    context.kubernetes.count("secret");
    match api.delete(&there.name_any(), &DeleteParams { preconditions: Some(same), ..DeleteParams::default() }).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(e)) if e.code == 404 => Ok(true),
        Err(kube::Error::Api(e)) if e.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

/// Tells web how many leads there are.
async fn publish(context: &Context, count: usize) -> Result<(), kube::Error> {
    let api: Api<ConfigMap> =
        Api::namespaced(context.kubernetes.client.clone(), &context.leads.operator_namespace);
    let data = BTreeMap::from([(LEAD_COUNT.to_owned(), count.to_string())]);
    let change = Patch::Merge(json!({"data": data}));
    match api.patch(LEAD_COUNT_MAP, &PatchParams::default(), &change).await {
        Err(kube::Error::Api(e)) if e.code == 404 => {
            let metadata = ObjectMeta { name: Some(LEAD_COUNT_MAP.into()), ..ObjectMeta::default() };
            let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
            api.create(&PostParams::default(), &map).await.map(drop)
        }
        patched => patched.map(drop),
    }
}

/// The leads with a tenant's e-mail address. An address that was never confirmed or paid with may be another person's:
/// their lead stays until it expires.
async fn of(context: &Context, tenant: &Tenant) -> Result<(Api<Secret>, Vec<Secret>), kube::Error> {
    let mail = &context.providers.mail;
    let namespace = mail.pages_namespace().unwrap_or(tenant.place().namespace);
    let api: Api<Secret> = Api::namespaced(context.kubernetes.client.clone(), namespace);
    let mut found = Vec::new();
    if tenant.spec.login.is_some() && tenant.spec.plan_in_force.is_none() {
        return Ok((api, found));
    }
    let hash = context.identity.email_hash(&tenant.spec.admin_email);
    for kind in LEAD_KINDS {
        let there = api.get_opt(&lead_secret(kind, &hash)).await?;
        found.extend(there.filter(|s| s.labels().get(COMPONENT_LABEL).is_some_and(|c| c == LEAD_COMPONENT)));
    }
    Ok((api, found))
}

/// How many leads have the tenant's e-mail address.
pub async fn count(context: &Context, tenant: &Tenant) -> Result<u64, kube::Error> {
    Ok(of(context, tenant).await?.1.len() as u64)
}

/// Deletes the leads with the tenant's e-mail address.
pub async fn erase(context: &Context, tenant: &Tenant) -> Result<(), kube::Error> {
    let (api, found) = of(context, tenant).await?;
    for lead in found {
        delete_same(context, &api, &lead).await?;
    }
    Ok(())
}
