//! Which objects claim which tenant id. Normally one each; here the others are seen.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;

use super::Key;
use crate::api::{Tenant, Timestamp};
use crate::operator_keys::IdentityKey;

/// The claims of all Tenants that are watched.
#[derive(Default)]
pub struct Claims(Mutex<Index>);

#[derive(Default)]
struct Index {
    /// Nearly always one each, for which a list takes a tenth of a map's memory.
    by_id: HashMap<String, Vec<(Key, Claimant)>>,
    ids: HashMap<Key, String>,
}

/// An object that claims a tenant id. The smaller one has the better claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claimant {
    unproven: bool,
    created_at: Timestamp,
    uid: String,
}

impl Claims {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in an object, and answers who else claims its id and so should look again.
    pub fn note(&self, tenant: &Tenant, identity: &IdentityKey) -> Vec<Key> {
        let key = Key::of(tenant);
        let uid = tenant.uid().unwrap_or_default();
        let id = tenant.tenant_id().to_owned();
        let claimant = Claimant {
            unproven: id != uid && !identity.has_proof(tenant),
            created_at: tenant.creation_timestamp().map_or(Timestamp::from_second(0), |t| t.0.into()),
            uid,
        };
        let mut index = self.index();
        let mut touched =
            if index.ids.get(&key).is_some_and(|old| *old != id) { index.remove(&key) } else { Vec::new() };
        index.ids.insert(key.clone(), id.clone());
        let all = index.by_id.entry(id).or_insert_with(|| Vec::with_capacity(1));
        let new = (key, claimant);
        if !all.contains(&new) {
            all.retain(|(other, _)| *other != new.0);
            touched.extend(all.iter().map(|(other, _)| other.clone()));
            all.push(new);
        }
        touched
    }

    /// Forgets an object that is gone, and answers who else claims its id.
    pub fn forget(&self, key: &Key) -> Vec<Key> {
        self.index().remove(key)
    }

    /// The other objects that claim this one's id, and whether one of them has the better claim.
    pub fn rivals(&self, tenant: &Tenant) -> (Vec<String>, bool) {
        let key = Key::of(tenant);
        let index = self.index();
        let Some(all) = index.by_id.get(tenant.tenant_id()).filter(|all| all.len() > 1) else {
            return (Vec::new(), false);
        };
        let own = all.iter().find(|(there, _)| *there == key).map(|(_, own)| own);
        let others = || all.iter().filter(|(other, _)| *other != key);
        let mut rivals: Vec<_> = others().map(|(other, _)| other.to_string()).collect();
        rivals.sort();
        (rivals, others().any(|(_, rival)| own.is_some_and(|own| rival < own)))
    }

    /// The object that holds this tenant id.
    pub fn holder(&self, tenant_id: &str) -> Option<Key> {
        let index = self.index();
        let all = index.by_id.get(tenant_id)?;
        all.iter().filter(|(_, c)| !c.unproven).min_by_key(|(_, c)| c).map(|(key, _)| key.clone())
    }
}

impl Index {
    fn remove(&mut self, key: &Key) -> Vec<Key> {
        let Some(id) = self.ids.remove(key) else { return Vec::new() };
        let Some(all) = self.by_id.get_mut(&id) else { return Vec::new() };
        all.retain(|(there, _)| there != key);
        let others = all.iter().map(|(other, _)| other.clone()).collect();
        if all.is_empty() {
            self.by_id.remove(&id);
        }
        others
    }
}
