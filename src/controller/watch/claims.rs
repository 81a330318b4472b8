//! Which objects claim which tenant id. Normally each id has one; this index finds rivals.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;

use crate::api::{Tenant, Timestamp};
use crate::controller::Key;
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

/// Rivals that are named. Any user may claim an id, any number of times, and a status has a limited size.
const NAMED: usize = 3;

/// The other objects that claim a tenant's id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rivals {
    /// The first ones, as `namespace/name`.
    pub named: Vec<String>,
    /// How many there are beside those.
    pub more: usize,
    /// Whether one of them has the better claim.
    pub outranked: bool,
}

/// The objects to reconcile when the claims of an id change: all of them while they are few, otherwise those with a
/// proof. A claim without a proof is refused anyway.
fn concerned(all: &[(Key, Claimant)]) -> impl Iterator<Item = Key> {
    let few = all.len() <= NAMED;
    all.iter().filter(move |(_, claimant)| few || !claimant.unproven).map(|(key, _)| key.clone())
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
            touched.extend(concerned(all));
            all.push(new);
        }
        touched
    }

    /// Forgets an object that is gone, and answers who else claims its id.
    pub fn forget(&self, key: &Key) -> Vec<Key> {
        self.index().remove(key)
    }

    /// The other objects that claim this one's id.
    pub fn rivals(&self, tenant: &Tenant) -> Rivals {
        let key = Key::of(tenant);
        let index = self.index();
        let Some(all) = index.by_id.get(tenant.tenant_id()).filter(|all| all.len() > 1) else {
            return Rivals::default();
        };
        let own = all.iter().find(|(there, _)| *there == key).map(|(_, own)| own);
        let others = || all.iter().filter(|(other, _)| *other != key);
        let mut first: Vec<&Key> = Vec::with_capacity(NAMED + 1);
        for (other, _) in others() {
            let place = first.partition_point(|there| *there < other);
            first.insert(place, other);
            first.truncate(NAMED);
        }
        Rivals {
            named: first.into_iter().map(ToString::to_string).collect(),
            more: others().count().saturating_sub(NAMED),
            outranked: others().any(|(_, rival)| own.is_some_and(|own| rival < own)),
        }
    }

    /// The object that holds this tenant id.
    pub fn holder(&self, tenant_id: &str) -> Option<Key> {
        let index = self.index();
        let all = index.by_id.get(tenant_id)?;
        all.iter().filter(|(_, c)| !c.unproven).min_by_key(|(_, c)| c).map(|(key, _)| key.clone())
    }

    /// Whether this object holds its tenant id: no other one claims it with more right.
    pub fn is_holder(&self, tenant: &Tenant) -> bool {
        self.holder(tenant.tenant_id()) == Some(Key::of(tenant))
    }
}

impl Index {
    fn remove(&mut self, key: &Key) -> Vec<Key> {
        let Some(id) = self.ids.remove(key) else { return Vec::new() };
        let Some(all) = self.by_id.get_mut(&id) else { return Vec::new() };
        all.retain(|(there, _)| there != key);
        let others = concerned(all).collect();
        if all.is_empty() {
            self.by_id.remove(&id);
        }
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str, id: &str) -> Tenant {
        let spec = serde_json::json!({"companyName": "A", "adminEmail": "a@b.example", "tenantId": id});
        let mut tenant = Tenant::new(name, serde_json::from_value(spec).expect("a spec"));
        (tenant.metadata.namespace, tenant.metadata.uid) = (Some("shop".into()), Some(name.into()));
        tenant
    }

    #[test]
    fn thousands_of_false_claims_are_three_names_and_a_count_and_wake_the_rightful_alone() {
        let (claims, identity) = (Claims::default(), IdentityKey::from([7; 32]));
        let rightful = tenant("u1", "u1");
        assert!(claims.note(&rightful, &identity).is_empty());
        let mut woken = 0;
        for i in 0..3_000 {
            woken += claims.note(&tenant(&format!("false-{i:05}"), "u1"), &identity).len();
        }
        let Rivals { named, more, outranked } = claims.rivals(&rightful);
        assert_eq!(named, ["shop/false-00000", "shop/false-00001", "shop/false-00002"]);
        assert_eq!((more, outranked), (2_997, false));
        assert!(woken < 3_010, "{woken} reconciles for 3,000 claims");
        assert!(claims.rivals(&tenant("false-00042", "u1")).outranked);
    }
}
