//! Leads: messages to the sales team and entries of the waitlist, from people who are not customers yet. Web creates
//! them, but may neither list nor delete Secrets, so the controller deletes those that expire and publishes their
//! number.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::api::{
    ADMISSION_MAIL_ANNOTATION, ADMITTED_ANNOTATION, COMPONENT_LABEL, LEAD_COMPONENT, LEAD_COUNT, LEAD_COUNT_MAP,
    LEAD_KINDS, Tenant, Timestamp, lead_secret,
};
use crate::controller::context::Context;
use crate::controller::steps::StepError;
use crate::controller::watch::{Scope, scoped};
use crate::providers::mail::{Letter, Template, Values};

/// Secrets a page of a listing.
const PAGE: u32 = 500;
/// Deletions of one pass. The next pass goes on.
const DELETIONS: usize = 500;
/// E-mails of one pass. The next pass goes on.
const MAILS: usize = 50;
/// Where a person who was admitted signs up.
const SIGNUP: &str = "/signup?admitted=true";

/// Deletes leads that expire, and counts the others, until the lease is lost.
pub async fn sweep(context: Arc<Context>, scopes: Vec<Scope>) {
    // A Scope of None is every namespace. Only the namespace of signups holds leads, where it is known.
    let scopes = context.providers.mail.pages_namespace().map_or(scopes, |ns| vec![Some(ns.to_owned())]);
    let pause = Duration::from_secs((context.leads.ttl / 4).clamp(1, 60).unsigned_abs());
    let mut told = Told::default();
    loop {
        if let Err(error) = pass(&context, &scopes, &mut told).await {
            tracing::warn!(%error, "leads not swept; the next pass tries again");
        }
        tokio::time::sleep(pause).await;
    }
}

async fn pass(context: &Context, scopes: &[Scope], told: &mut Told) -> Result<(), kube::Error> {
    let (mut kept, mut deleted) = (0_usize, 0_usize);
    let mut waiting = Vec::new();
    for scope in scopes {
        let api: Api<Secret> = scoped(&context.kubernetes.client, scope);
        let mut params = ListParams::default().labels(&format!("{COMPONENT_LABEL}={LEAD_COMPONENT}")).limit(PAGE);
        loop {
            let page = api.list_metadata(&params).await?;
            for lead in page.items.iter().filter(|lead| lead.name_any().starts_with("lead-")) {
                let expires = deleted < DELETIONS && is_old(context, lead);
                // A Secret that cannot be deleted delays neither the others nor the e-mails.
                let gone = expires
                    && delete_expired(context, lead).await.unwrap_or_else(|error| {
                        tracing::warn!(%error, lead = lead.name_any(), "an expired lead is not deleted");
                        false
                    });
                if gone {
                    deleted += 1;
                } else {
                    kept += 1;
                    if waiting.len() < MAILS && is_requested(lead.annotations()) {
                        waiting.push((lead.namespace().unwrap_or_default(), lead.name_any()));
                    }
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
    publish(context, kept).await?;
    for (namespace, name) in waiting {
        let api: Api<Secret> = Api::namespaced(context.kubernetes.client.clone(), &namespace);
        if let Err(error) = tell(context, &api, &name, told).await {
            tracing::warn!(%error, lead = name, "the e-mail to an admitted person was not sent; the next pass tries again");
        }
    }
    Ok(())
}

/// What became of e-mails whose note is not written yet, by their Message-ID: a failed note sends nothing again.
type Told = std::collections::HashMap<String, &'static str>;

fn is_requested(annotations: &BTreeMap<String, String>) -> bool {
    annotations.get(ADMISSION_MAIL_ANNOTATION).is_some_and(|state| state == "requested")
}

/// Tells a person who was admitted, and notes it on the Secret. After a crash between the two, the e-mail is sent again
/// under the same Message-ID.
async fn tell(context: &Context, api: &Api<Secret>, name: &str, told: &mut Told) -> Result<(), StepError> {
    let Some(mut there) = api.get_opt(name).await?.filter(|s| is_requested(s.annotations())) else { return Ok(()) };
    let Some(admitted) = there.annotations().get(ADMITTED_ANNOTATION).and_then(|at| at.parse::<Timestamp>().ok())
    else {
        return Ok(());
    };
    let text = |field: &str| {
        let bytes = there.data.as_ref().and_then(|data| data.get(field)).map(|bytes| bytes.0.clone());
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    };
    let (email, uid) = (text("email"), there.uid().unwrap_or_default());
    let key = format!("admitted-{}", admitted.as_second());
    let id = format!("{uid}.{key}");
    if !told.contains_key(&id) {
        let values = Values { tenant_id: uid, path: SIGNUP.into(), ..Values::default() };
        let letter = Letter { template: Template::Admitted, to: &email, key: &key, values };
        let state = match context.providers.mail.send(&letter).await {
            Ok(()) => "sent",
            Err(error) if !error.retryable => {
                tracing::warn!(
                    error = error.message,
                    lead = name,
                    "the e-mail to a person who was admitted is refused"
                );
                "refused"
            }
            Err(error) => return Err(error.into()),
        };
        told.insert(id.clone(), state);
    }
    let state = told.get(&id).copied().unwrap_or("sent");
    there.annotations_mut().insert(ADMISSION_MAIL_ANNOTATION.into(), state.into());
    context.kubernetes.count("secret");
    // With its resource version: a lead that was written meanwhile is noted by the next pass.
    api.replace(name, &PostParams::default(), &there).await?;
    told.remove(&id);
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
    let api: Api<Secret> = Api::namespaced(context.kubernetes.client.clone(), &lead.namespace().unwrap_or_default());
    let Some(there) = api.get_opt(&lead.name_any()).await? else { return Ok(true) };
    let written = there.data.as_ref().and_then(|data| data.get("at"));
    let written = written.and_then(|at| std::str::from_utf8(&at.0).ok().map(str::to_owned));
    let admitted = there.annotations().get(ADMITTED_ANNOTATION).cloned();
    let recent = [written, admitted].into_iter().flatten().filter_map(|at| at.parse::<Timestamp>().ok());
    if recent.into_iter().any(|at| !expired(context, at)) {
        return Ok(false);
    }
    delete(context, &api, &there, there.resource_version()).await
}

/// Deletes this very Secret, and only in this version where one is given; true when it is gone.
async fn delete(
    context: &Context,
    api: &Api<Secret>,
    there: &Secret,
    resource_version: Option<String>,
) -> Result<bool, kube::Error> {
    let same = Preconditions { uid: there.uid(), resource_version };
    context.kubernetes.count("secret");
    match api.delete(&there.name_any(), &DeleteParams { preconditions: Some(same), ..DeleteParams::default() }).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(e)) if e.code == 404 => Ok(true),
        Err(kube::Error::Api(e)) if e.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

/// Publishes the number of leads for web. If it has not changed, the API server writes nothing.
async fn publish(context: &Context, count: usize) -> Result<(), kube::Error> {
    let api: Api<ConfigMap> = Api::namespaced(context.kubernetes.client.clone(), &context.leads.operator_namespace);
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
        delete(context, &api, &lead, None).await?;
    }
    Ok(())
}
