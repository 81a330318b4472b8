//! Counts the tenants that are suspended, failed, closed or erased, and holds further ones if there are too many. After
//! a restart, it reads the counts from the statuses again.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;

use crate::api::{Tenant, TenantStatus, Timestamp};
use crate::controller::Key;
use crate::lifecycle::held;
use crate::lifecycle::{Blame, Failure, Harm, Reason, Step, met};
use crate::telemetry::Metrics;

/// How many tenants may be suspended, failed, closed or erased within a while, each counted for itself.
#[derive(Clone, Copy, Debug)]
pub struct BrakeConfig {
    /// The share of all tenants, in percent; 100 lets everything happen.
    pub percent: usize,
    /// Never fewer than this many.
    pub at_least: usize,
    /// The while, in seconds.
    pub window: i64,
}

impl BrakeConfig {
    /// Whether no more may happen within the window, if it happened to so many.
    pub fn is_full(&self, happened: usize, tenants: impl Fn() -> usize) -> bool {
        happened >= self.at_least && happened >= (tenants() * self.percent / 100).max(self.at_least)
    }
}

/// The brake.
pub struct Brake {
    config: BrakeConfig,
    counts: Mutex<HashMap<Harm, Count>>,
}

#[derive(Default)]
struct Count {
    /// When it happened last, by the objects' uids.
    met: HashMap<String, Timestamp>,
    /// For whom it is held.
    held: HashMap<String, Key>,
}

impl Brake {
    pub fn new(config: BrakeConfig) -> Self {
        Self { config, counts: Mutex::default() }
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Harm, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the status of an object says.
    pub fn note(&self, tenant: &Tenant) {
        let Some(status) = &tenant.status else { return };
        self.note_status(&tenant.uid().unwrap_or_default(), &Key::of(tenant), status);
    }

    fn note_status(&self, uid: &str, key: &Key, status: &TenantStatus) {
        let (met, held) = (met(status), held(status).map(|(harm, _)| harm));
        if met.is_empty() && held.is_none() && self.counts().values().all(|count| !count.held.contains_key(uid)) {
            return;
        }
        let mut counts = self.counts();
        for harm in Harm::ALL {
            let count = counts.entry(harm).or_default();
            if held == Some(harm) {
                count.held.insert(uid.to_owned(), key.clone());
            } else {
                count.held.remove(uid);
            }
        }
        for (harm, at) in met {
            let last = counts.entry(harm).or_default().met.entry(uid.to_owned()).or_insert(at);
            *last = (*last).max(at);
        }
    }

    /// Counts one that is about to happen: the write of its status may take a while.
    pub fn count(&self, harm: Harm, uid: &str, now: Timestamp) {
        self.counts().entry(harm).or_default().met.insert(uid.to_owned(), now);
    }

    /// Forgets an object that is gone. What happened to it still counts.
    pub fn forget(&self, uid: &str) {
        for count in self.counts().values_mut() {
            count.held.remove(uid);
        }
    }

    /// What must not happen to this tenant now without a confirmation.
    pub fn held(&self, uid: &str, now: Timestamp, tenants: impl Fn() -> usize) -> BTreeSet<Harm> {
        if self.config.percent >= 100 {
            return BTreeSet::new();
        }
        let mut held = BTreeSet::new();
        for (harm, count) in self.counts().iter_mut() {
            count.met.retain(|_, at| now.since(*at) < self.config.window);
            if count.met.contains_key(uid) {
                continue;
            }
            let many = self.config.is_full(count.met.len(), &tenants);
            // Once the brake holds a kind of harm, it holds until each held tenant is confirmed or no longer affected.
            if many || !count.held.is_empty() {
                held.insert(*harm);
            }
        }
        held
    }

    /// The number of held tenants, by harm.
    pub fn waiting(&self) -> [(Harm, usize); 4] {
        let counts = self.counts();
        Harm::ALL.map(|harm| (harm, counts.get(&harm).map_or(0, |count| count.held.len())))
    }
    /// Sets the metric.
    pub fn measure(&self, metrics: &Metrics) {
        for (harm, waiting) in self.waiting() {
            let gauge = metrics.held_tenants.get_or_create_owned(&harm.name().into());
            gauge.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        }
    }

    /// The incident of a status that is held.
    pub fn incident(&self, status: &TenantStatus) -> Option<Failure> {
        let (harm, _) = held(status)?;
        let BrakeConfig { percent, at_least, window } = self.config;
        let message = format!(
            "{}: more than {at_least} tenants, or {percent} percent of all, within {window} s. `kubectl tenant confirm --all` lists \
             them",
            harm.reason(),
        );
        Some(Failure::new(Step::Brake, Reason::Held(harm), message, Blame::Mismatch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::facts::Held;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second)
    }

    fn brake(percent: usize) -> Brake {
        Brake::new(BrakeConfig { percent, at_least: 10, window: 3600 })
    }

    fn shown(harm: Harm) -> TenantStatus {
        TenantStatus { held: Some(Held { harm, since: at(1) }), ..TenantStatus::default() }
    }

    #[test]
    fn the_first_ten_pass_and_the_next_is_held_until_each_held_one_is_settled() {
        let (brake, tenants) = (brake(5), || 30);
        for n in 0..10 {
            assert!(brake.held(&n.to_string(), at(0), tenants).is_empty(), "{n}");
            brake.count(Harm::Suspend, &n.to_string(), at(0));
        }
        assert_eq!(brake.held("new", at(0), tenants), [Harm::Suspend].into());
        assert!(brake.held("3", at(0), tenants).is_empty(), "one that passed is written again");
        let key = Key { namespace: "n".into(), name: "new".into() };
        brake.note_status("new", &key, &shown(Harm::Suspend));
        assert_eq!(brake.held("later", at(10_000), tenants), [Harm::Suspend].into(), "time alone releases nothing");
        assert_eq!(brake.waiting()[0], (Harm::Suspend, 1));
        brake.note_status("new", &key, &TenantStatus::default());
        assert!(brake.held("later", at(10_000), tenants).is_empty());
    }

    #[test]
    fn the_share_counts_where_it_is_larger_and_a_hundred_percent_holds_nothing() {
        let large = brake(5);
        for n in 0..49 {
            large.count(Harm::Fail, &n.to_string(), at(0));
        }
        assert!(large.held("new", at(0), || 1000).is_empty());
        large.count(Harm::Fail, "49", at(0));
        assert_eq!(large.held("new", at(0), || 1000), [Harm::Fail].into());
        assert!(large.held("new", at(3600), || 1000).is_empty(), "an hour later");
        let off = brake(100);
        for n in 0..2000 {
            off.count(Harm::Erase, &n.to_string(), at(0));
        }
        assert!(off.held("new", at(0), || 1000).is_empty());
    }
}
