//! Who is served: the tenants by their ids, as the API server tells them. Only what an answer needs is kept.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use futures::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::changes::{Change, Changes};
use super::trust::Trust;
use crate::api::migration::MigrationState;
use crate::api::plan::{Limits, Models};
use crate::api::status::PlanConfig;
use crate::api::tenant::Chunking;
use crate::api::usage::{CountedUsage, Quota};
use crate::api::{MILESTONES, Phase, TakenOver, Tenant, Text, Usage, data_namespace, reached_at};
use crate::events::{Origin, Subject};
use crate::keys::KeysInForce;
use crate::operator_keys::IdentityKey;
use crate::watches;

/// A move of a tenant's data that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moving {
    /// The new namespace.
    pub to: String,
    /// The region of its index.
    pub region: Option<String>,
    /// Whether it is about to take the old one's place.
    pub switching: bool,
}

impl Moving {
    fn of(tenant: &Tenant) -> Option<Self> {
        tenant.moving().map(|migration| Self {
            to: data_namespace(tenant.tenant_id(), migration.generation),
            region: migration.region.as_deref().or(tenant.region()).map(str::to_owned),
            switching: migration.state == MigrationState::Switching,
        })
    }
}

/// A tenant, as far as its requests depend on it.
#[derive(Clone, Debug)]
pub struct Served {
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The object's uid.
    pub uid: String,
    /// The tenant's id.
    pub id: String,
    /// Where it stands.
    pub phase: Option<Phase>,
    /// What it may use, once it was Active.
    pub config: Option<PlanConfig>,
    /// The namespace that its questions are answered from.
    pub data: String,
    /// The region of the index that it is in.
    pub region: Option<String>,
    /// The model that its data was embedded with.
    pub embedding: Option<Text>,
    /// The namespace that its data moves to.
    pub moving: Option<Moving>,
    /// Its quota periods.
    pub quota: Option<Quota>,
    /// What its status shows of its usage.
    pub shown: Option<CountedUsage>,
    /// What was counted in its annotation by versions before the ledger.
    pub counted_before: Usage,
    /// The part of that which the ledger has.
    pub taken_over: TakenOver,
    /// How its documents are cut.
    pub chunking: Chunking,
    /// The milestones that its customer has reached.
    pub reached: Vec<&'static str>,
    /// How it came to be.
    pub origin: Origin,
    /// Which of its API keys are good.
    pub keys: KeysInForce,
    /// Whether its object is gone without the wish to erase it. It is served on, as it was.
    pub orphaned: bool,
}

impl Served {
    /// Of an object that is who it says it is.
    pub fn of(tenant: &Tenant, identity: &IdentityKey) -> Option<Self> {
        let uid = tenant.uid()?;
        let id = tenant.spec.tenant_id.clone()?;
        if id != uid && !identity.has_proof(tenant) {
            return None;
        }
        let status = tenant.status.as_ref();
        Some(Self {
            namespace: tenant.namespace().unwrap_or_default(),
            name: tenant.name_any(),
            uid,
            id,
            phase: status.and_then(|s| s.phase),
            config: status.and_then(|s| s.config.clone()),
            data: tenant.data_namespace(),
            region: tenant.region().map(str::to_owned),
            embedding: tenant.embedding().cloned(),
            moving: Moving::of(tenant),
            quota: status.and_then(|s| s.quota.clone()),
            shown: status.and_then(|s| s.usage),
            counted_before: Usage::of(tenant),
            taken_over: TakenOver::of(tenant),
            chunking: tenant.spec.settings.chunking.unwrap_or_default(),
            reached: MILESTONES.into_iter().filter(|name| reached_at(tenant, name).is_some()).collect(),
            origin: Origin::of(tenant),
            keys: KeysInForce {
                wanted: tenant.spec.api_key_generation,
                there: status.and_then(|s| s.api_key_generation),
                since: status.and_then(|s| s.api_key_created_at),
            },
            orphaned: false,
        })
    }
}

impl<'a> From<&'a Served> for Subject<'a> {
    fn from(served: &'a Served) -> Self {
        Self { uid: &served.uid, tenant_id: &served.id, origin: served.origin }
    }
}

impl Served {
    /// Whether its customer has reached a milestone, as far as this replica knows.
    pub fn has_reached(&self, milestone: &str) -> bool {
        self.reached.contains(&milestone)
    }

    /// The models that serve it.
    pub fn models(&self) -> Models {
        let mut models = self.config.as_ref().map(|config| config.models.clone()).unwrap_or_default();
        if let Some(embedding) = &self.embedding {
            models.embedding = embedding.clone();
        }
        models
    }

    /// Whether its plan lets it use the API with a key.
    pub fn has_api_access(&self) -> bool {
        self.config.as_ref().is_none_or(PlanConfig::has_api_access)
    }

    /// What it may use.
    pub fn limits(&self) -> Limits {
        self.config.as_ref().map(|config| config.limits.clone()).unwrap_or_default()
    }
}

#[derive(Default)]
struct Known {
    by_id: HashMap<String, Arc<Served>>,
    /// Ids by the objects' uids: a deletion names the object.
    ids: HashMap<String, String>,
}

impl Known {
    fn put(&mut self, served: Served) {
        // Of two that prove the same id, the first one stays until it goes. One whose object is gone stays until the
        // object that takes its place, from a backup or by `recover`, is set up.
        if let Some(there) = self.by_id.get(&served.id)
            && there.uid != served.uid
        {
            if !there.orphaned || matches!(served.phase, None | Some(Phase::PendingPayment | Phase::Provisioning)) {
                return;
            }
            let uid = there.uid.clone();
            self.ids.remove(&uid);
        }
        self.ids.insert(served.uid.clone(), served.id.clone());
        self.by_id.insert(served.id.clone(), served.into());
    }

    /// The tenant's object is gone. A tenant that was served is served on, unless the deletion was meant to erase the
    /// customer.
    fn lose(&mut self, uid: &str, erased: bool) {
        let there = self.ids.get(uid).and_then(|id| self.by_id.get(id));
        match there {
            Some(there) if !erased && there.phase.is_some_and(Phase::is_served) => {
                let orphan = Served { orphaned: true, ..(**there).clone() };
                tracing::warn!(
                    tenant = orphan.name,
                    id = orphan.id,
                    "the Tenant is gone, and its customer is still served"
                );
                self.by_id.insert(orphan.id.clone(), orphan.into());
            }
            _ => self.remove(uid),
        }
    }

    fn remove(&mut self, uid: &str) {
        if let Some(id) = self.ids.remove(uid) {
            self.by_id.remove(&id);
        }
    }
}

/// The tenants that are served.
#[derive(Clone, Default)]
pub struct Directory {
    known: Arc<RwLock<Known>>,
    /// Listings that are not complete yet.
    missing: Arc<AtomicUsize>,
    /// For those who follow one tenant.
    changes: Changes,
}

impl Directory {
    /// Begins to follow the Tenants of these namespaces, or of all.
    pub fn start(
        tasks: &mut JoinSet<()>,
        client: &Client,
        namespaces: &[String],
        identity: &IdentityKey,
        trust: &mut Trust,
    ) -> Self {
        let directory = Self::default();
        let some = namespaces.iter().map(|namespace| Some(namespace.clone()));
        let scopes: Vec<_> = if namespaces.is_empty() { vec![None] } else { some.collect() };
        directory.missing.store(scopes.len(), Ordering::Relaxed);
        for scope in scopes {
            let pulse = trust.watch(scope.as_deref());
            let api = move |client: Client| match &scope {
                Some(namespace) => Api::<Tenant>::namespaced(client, namespace),
                None => Api::all(client),
            };
            let config = watcher::Config::default().any_semantic();
            let events = watches::watch_with_pulse((client, pulse), api, config, trust.silence());
            tasks.spawn(directory.clone().follow(events, identity.clone()));
        }
        directory
    }

    /// The tenant of that id.
    pub fn get(&self, id: &str) -> Option<Arc<Served>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).by_id.get(id).cloned()
    }

    /// What becomes of the object with this uid, from now on.
    pub fn changes(&self, uid: &str) -> watch::Receiver<Change> {
        self.changes.follow(uid)
    }

    /// Whether all tenants are known.
    pub fn is_complete(&self) -> bool {
        self.missing.load(Ordering::Relaxed) == 0
    }

    async fn follow(self, events: impl Stream<Item = watcher::Result<Event<Tenant>>>, identity: IdentityKey) {
        let mut events = std::pin::pin!(events);
        // Whom the present listing has named, and whom those before it: who is missing from it is gone.
        let (mut listed, mut before): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        let mut first = true;
        while let Some(event) = events.next().await {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(tenant)) => {
                    listed.extend(tenant.uid());
                    apply(&mut known, &tenant, &identity);
                    self.changes.show(tenant);
                }
                Ok(Event::InitDone) => {
                    let there: std::collections::HashSet<_> = listed.iter().collect();
                    for gone in before.iter().filter(|uid| !there.contains(uid)) {
                        known.lose(gone, false);
                        self.changes.lose(gone);
                    }
                    before = std::mem::take(&mut listed);
                    if std::mem::take(&mut first) {
                        self.missing.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                Ok(Event::Apply(tenant)) => {
                    before.extend(tenant.uid().filter(|uid| !known.ids.contains_key(uid)));
                    apply(&mut known, &tenant, &identity);
                    self.changes.show(tenant);
                }
                Ok(Event::Delete(tenant)) => {
                    known.lose(&tenant.uid().unwrap_or_default(), tenant.is_to_be_erased());
                    self.changes.lose(&tenant.uid().unwrap_or_default());
                }
                Err(error) => tracing::warn!(%error, "the watch of Tenants broke off; it resumes"),
            }
        }
    }
}

fn apply(known: &mut Known, tenant: &Tenant, identity: &IdentityKey) {
    match Served::of(tenant, identity) {
        Some(served) => known.put(served),
        None => known.remove(&tenant.uid().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(uid: &str, id: &str) -> Served {
        Served {
            namespace: "rag".into(),
            name: uid.into(),
            uid: uid.into(),
            id: id.into(),
            phase: Some(Phase::Active),
            config: None,
            data: "tenant_a".into(),
            region: None,
            embedding: None,
            moving: None,
            quota: None,
            shown: None,
            counted_before: Usage::default(),
            taken_over: TakenOver::default(),
            chunking: Chunking::default(),
            reached: Vec::new(),
            origin: Origin::Signup,
            keys: KeysInForce { wanted: 1, there: None, since: None },
            orphaned: false,
        }
    }

    #[test]
    fn a_second_object_takes_no_id_and_its_end_takes_none_away() {
        let mut known = Known::default();
        known.put(served("a", "id"));
        known.put(served("b", "id"));
        assert_eq!(known.by_id["id"].uid, "a");
        known.remove("b");
        assert_eq!(known.by_id["id"].uid, "a");
        known.remove("a");
        known.put(served("b", "id"));
        assert_eq!(known.by_id["id"].uid, "b");
    }

    #[test]
    fn a_tenant_whose_object_is_lost_is_served_until_another_object_takes_its_place() {
        let mut known = Known::default();
        known.put(served("a", "id"));
        known.lose("a", false);
        assert!(known.by_id["id"].orphaned);
        known.put(Served { phase: Some(Phase::Provisioning), ..served("b", "id") });
        assert_eq!(known.by_id["id"].uid, "a", "the new one is not set up yet");
        known.put(served("b", "id"));
        assert_eq!((known.by_id["id"].uid.as_str(), known.by_id["id"].orphaned), ("b", false));
        known.lose("a", false);
        assert_eq!(known.by_id["id"].uid, "b", "a late word of the old one");
        known.lose("b", true);
        assert!(known.by_id.is_empty(), "erased");
        known.put(Served { phase: Some(Phase::Suspended), ..served("c", "id") });
        known.lose("c", false);
        assert!(known.by_id.is_empty(), "it was not served before");
    }
}
