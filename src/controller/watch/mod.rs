//! Watches objects, and queues the tenants that each change concerns.

pub mod cache;
pub mod caches;
pub mod claims;
pub mod packed;

use std::fmt::Debug;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::Key;
use super::context::Context;
use super::queue::urgency::priority;
use crate::api::{Phase, Plan, TENANT_LABEL, Tenant, TenantStatus};
use crate::lifecycle::link_on_request;
use crate::providers::Priority;
use crate::watches::watch;
use cache::Filler;
use caches::SeenSecret;
use packed::PackedTenant;

/// A namespace that is watched, or all of them.
pub type Scope = Option<String>;

/// Who fills the caches: Tenants and Secrets of each scope.
pub struct Fillers {
    pub tenants: Vec<Filler<PackedTenant>>,
    pub plans: Vec<Filler<Plan>>,
    pub secrets: Vec<Filler<SeenSecret>>,
}

/// Whether an object is in a scope.
pub fn within(scope: &Scope, key: &Key) -> bool {
    scope.as_deref().is_none_or(|namespace| key.namespace == namespace)
}

/// The objects of a scope.
pub fn scoped<K>(client: &Client, scope: &Scope) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    scope.as_ref().map_or_else(|| Api::all(client.clone()), |ns| Api::namespaced(client.clone(), ns))
}

/// Starts the watches.
pub fn start(tasks: &mut JoinSet<()>, context: &Arc<Context>, scopes: &[Scope], fillers: Fillers) {
    let client = &context.kubernetes.client;
    let config = || watcher::Config::default().any_semantic();
    for (scope, mut filler) in scopes.iter().zip(fillers.tenants) {
        let (events, c) = (watch(scoped::<Tenant>(client, scope), config()), context.clone());
        let scope = scope.clone();
        tasks.spawn(follow(events.boxed(), slim, move |event| {
            for (key, tenant) in filler.apply(event, PackedTenant::of) {
                forget(&c, &key, tenant.unpack().and_then(|tenant| tenant.uid()).as_deref());
            }
            on_tenant(&c, &scope, event);
        }));
    }
    for mut filler in fillers.plans {
        let (events, c) = (watch(Api::<Plan>::all(client.clone()), config()), context.clone());
        tasks.spawn(follow(events.boxed(), slim, move |event| {
            drop(filler.apply(event, Plan::clone));
            on_plan(&c, event);
        }));
    }
    for (scope, mut filler) in scopes.iter().zip(fillers.secrets) {
        let secrets = scoped::<PartialObjectMeta<Secret>>(client, scope);
        let (events, c) = (watch(secrets, config().labels(TENANT_LABEL)), context.clone());
        let scope = scope.clone();
        tasks.spawn(follow(
            events.boxed(),
            |_| {},
            move |event| {
                drop(filler.apply(event, SeenSecret::of));
                on_secret(&c, &scope, event);
            },
        ));
    }
    tasks.spawn(when_back(context.clone()));
}

/// Passes every event on, without what is never read.
async fn follow<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    slim: impl Fn(&mut K),
    mut on_event: impl FnMut(&Event<K>),
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + 'static,
{
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                on_event(&event.modify(&slim));
            }
            Err(error) => tracing::warn!(%error, "watch failed; retrying"),
        }
    }
}

/// Drops the fields that the controller never reads, to save memory.
fn slim(object: &mut impl Resource) {
    object.meta_mut().managed_fields = None;
}

fn on_tenant(context: &Context, scope: &Scope, event: &Event<Tenant>) {
    match event {
        Event::Apply(tenant) => {
            take_in(context, tenant);
            context.queue.add(Key::of(tenant), priority(tenant));
        }
        Event::InitApply(tenant) => take_in(context, tenant),
        Event::Delete(tenant) => forget(context, &Key::of(tenant), tenant.metadata.uid.as_deref()),
        Event::Init => {}
        // Only now does the cache hold what was listed.
        Event::InitDone => compare(context, scope),
    }
}

/// An object is gone, as a watch event or a new listing shows.
fn forget(context: &Context, key: &Key, uid: Option<&str>) {
    look_again(context, context.claims.forget(key));
    context.queue.remove(key);
    context.brake.forget(uid.unwrap_or_default());
    context.mail_brake.waits(uid.unwrap_or_default(), false);
    context.memory.forget(uid.unwrap_or_default());
}

/// Looks at every tenant of a scope, after a listing. One whose object, Plan and Secret are as they were costs no call.
fn compare(context: &Context, scope: &Scope) {
    let mut keys = Vec::new();
    context.caches.tenants.visit(|key, _| keys.extend(within(scope, key).then(|| key.clone())));
    for key in keys {
        if let Some(tenant) = context.caches.tenant(&key) {
            context.queue.add(key, listed(&tenant));
        }
    }
}

/// Of a tenant that was there before: most need nothing, and those that do not wait for a person.
fn listed(tenant: &Tenant) -> Priority {
    let settled = |s: &TenantStatus| s.phase == Some(Phase::Active) || s.checkout.is_some() || link_on_request(s);
    let waits = tenant.status.as_ref().is_some_and(settled);
    if waits && tenant.metadata.deletion_timestamp.is_none() { Priority::Resync } else { priority(tenant) }
}

fn take_in(context: &Context, tenant: &Tenant) {
    context.brake.note(tenant);
    context.mail_brake.note(tenant);
    look_again(context, context.claims.note(tenant, &context.identity));
}

/// Others that claim the same tenant.
fn look_again(context: &Context, keys: Vec<Key>) {
    for key in keys {
        context.queue.add(key, Priority::Repair);
    }
}

fn on_plan(context: &Context, event: &Event<Plan>) {
    if matches!(event, Event::InitDone) {
        return compare(context, &None);
    }
    let (Event::Apply(plan) | Event::Delete(plan)) = event else { return };
    let name = plan.name_any();
    for tenant in context.caches.users_of(&name) {
        context.queue.add(Key::of(&tenant), priority(&tenant).max(Priority::Provisioning));
    }
}

fn on_secret(context: &Context, scope: &Scope, event: &Event<PartialObjectMeta<Secret>>) {
    if matches!(event, Event::InitDone) {
        return compare(context, scope);
    }
    let (Event::Apply(secret) | Event::Delete(secret)) = event else { return };
    let Some(name) = secret.labels().get(TENANT_LABEL).cloned() else { return };
    let key = Key { namespace: secret.metadata.namespace.clone().unwrap_or_default(), name };
    if let Some(tenant) = context.caches.tenant(&key) {
        context.queue.add(key, priority(&tenant));
    }
}

/// Queues the tenants that waited for a provider as soon as it is back.
async fn when_back(context: Arc<Context>) {
    let providers = &context.providers;
    loop {
        tokio::select! {
            () = providers.indexes.back() => {}
            () = providers.embedder.caller().back() => {}
            () = providers.stripe.caller().back() => {}
        }
        for tenant in context.caches.each_tenant().filter(|tenant| waits_for_provider(tenant)) {
            context.queue.add(Key::of(&tenant), priority(&tenant));
        }
    }
}

pub fn waits_for_provider(tenant: &Tenant) -> bool {
    let Some(status) = &tenant.status else { return true };
    match status.phase {
        None | Some(Phase::PendingPayment) => status.checkout.is_none() && !link_on_request(status),
        Some(Phase::Provisioning) => status.provisioning.as_ref().is_some_and(|p| p.held_since.is_some()),
        Some(Phase::Deleting | Phase::Failed | Phase::Upgrading | Phase::Downgrading) => true,
        Some(Phase::Active | Phase::Suspended | Phase::Deleted) => false,
    }
}
