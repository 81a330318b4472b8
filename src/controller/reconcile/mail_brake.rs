//! Holds e-mails about usage while too many customers would get one: a mistake in the ledger or in a Plan affects many
//! at once. They need no confirmation: as time passes, the next ones go out, as many as the brake lets through. After a
//! restart, the counts are read from the statuses again.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;

use super::brake::BrakeConfig;
use crate::api::{Tenant, Timestamp};
use crate::lifecycle::{Blame, Failure, Reason, Step};
use crate::telemetry::Metrics;

/// The brake of e-mails about usage.
pub struct MailBrake {
    config: BrakeConfig,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When customers reached a share of a limit last, by the objects' uids.
    begun: HashMap<String, Timestamp>,
    /// Whose e-mail is held.
    held: HashSet<String>,
}

impl MailBrake {
    pub fn new(config: BrakeConfig) -> Self {
        Self { config, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the status of an object says.
    pub fn note(&self, tenant: &Tenant) {
        let reached = tenant.status.iter().flat_map(|status| &status.usage_reached);
        if let Some(since) = reached.map(|reached| reached.since).max() {
            self.count(&tenant.uid().unwrap_or_default(), since);
        }
    }

    /// Counts one that is about to begin: the write of its status may take a while.
    pub fn count(&self, uid: &str, at: Timestamp) {
        let mut state = self.state();
        let last = state.begun.entry(uid.to_owned()).or_insert(at);
        *last = (*last).max(at);
    }

    /// Whether no e-mail to this customer may begin now.
    pub fn holds(&self, uid: &str, now: Timestamp, tenants: impl Fn() -> usize) -> bool {
        if self.config.percent >= 100 {
            return false;
        }
        let mut state = self.state();
        state.begun.retain(|_, at| now.since(*at) < self.config.window);
        !state.begun.contains_key(uid) && self.config.is_full(state.begun.len(), tenants)
    }

    /// Notes whether an e-mail to this customer is held.
    pub fn waits(&self, uid: &str, held: bool) {
        let mut state = self.state();
        if held {
            state.held.insert(uid.to_owned());
        } else {
            state.held.remove(uid);
        }
    }

    /// The incident, if an e-mail to this customer is held.
    pub fn incident(&self, uid: &str) -> Option<Failure> {
        let BrakeConfig { percent, at_least, window } = self.config;
        let message = format!(
            "UsageMailsHeld: more than {at_least} customers, or {percent} percent of all, reached a limit within {window} s. Check \
             the ledger and the Plans' limits; `quota.notify: None` of a Plan ends these e-mails. The others get theirs as time passes",
        );
        let held = self.state().held.contains(uid);
        held.then(|| Failure::new(Step::Notice, Reason::UsageMailsHeld, message, Blame::Mismatch))
    }

    /// Sets the metric.
    pub fn measure(&self, metrics: &Metrics) {
        metrics.held_usage_mails.set(i64::try_from(self.state().held.len()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second)
    }

    #[test]
    fn the_first_ones_begin_and_the_next_ones_as_time_passes() {
        let brake = MailBrake::new(BrakeConfig { percent: 5, at_least: 3, window: 3600 });
        let tenants = || 40;
        for n in 0..3 {
            assert!(!brake.holds(&n.to_string(), at(n), tenants), "{n}");
            brake.count(&n.to_string(), at(n));
        }
        assert!(brake.holds("new", at(10), tenants));
        assert!(!brake.holds("1", at(10), tenants), "one that has begun goes on");
        assert!(!brake.holds("new", at(10), || 100), "of many tenants, three are few");
        brake.waits("new", true);
        assert!(brake.incident("new").is_some() && brake.incident("1").is_none());
        assert!(!brake.holds("new", at(3600), tenants), "an hour after the first");
        brake.waits("new", false);
        assert!(brake.incident("new").is_none());
        let off = MailBrake::new(BrakeConfig { percent: 100, at_least: 0, window: 3600 });
        off.count("1", at(0));
        assert!(!off.holds("new", at(0), tenants));
    }
}
