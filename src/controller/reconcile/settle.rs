//! The end of a reconcile: what is remembered of a tenant with nothing to do, and when it is looked at again.

use std::time::{Duration, Instant};

use super::memory::{ProvisioningProgress, Settled};
use super::{Next, Reconcile};
use crate::api::tenant::BillingMode;
use crate::controller::context::version;
use crate::controller::queue::urgency::priority;
use crate::providers::Priority;

/// How soon a lagging cache of Secrets is looked at again, in seconds.
const SECRET_CHECK: i64 = 15;

impl Reconcile<'_> {
    /// Nothing has changed since nothing was to be done.
    pub(super) fn settled(&self) -> Option<Next> {
        let now = Instant::now();
        let (same, until) = self.memory.settled.as_ref()?;
        if *same != self.seen || self.observed.resync || until.is_some_and(|until| until <= now) {
            return None;
        }
        Some(until.map(|until| (until - now, Priority::Resync)))
    }

    /// Remembers that there is nothing to do for now.
    pub(super) fn settle(&self, wait: Option<i64>) -> Next {
        let observed = &self.observed;
        // Of plan and Secret as this reconcile saw them: what changed meanwhile is another one's.
        let context = self.context;
        let secret = context.caches.api_key_secret(&self.object).and(context.verified_secret(&self.uid));
        let settled = Settled {
            version: version(&self.object),
            secret: secret.or(self.seen.secret.clone()),
            ..self.seen.clone()
        };
        // While the Secret's cache lags, look again soon: it may have been deleted meanwhile.
        let wait = if settled.secret.is_none() && self.active() {
            Some(wait.unwrap_or(SECRET_CHECK).min(SECRET_CHECK))
        } else {
            wait
        };
        let wait = wait.map(|s| Duration::from_secs(s.max(1).unsigned_abs()));
        // A hint is done with once everything was read back and nothing failed.
        let failed = observed.failure.is_some() || !observed.failed.is_empty();
        let acted_on = !failed && (!self.active() || observed.billing.is_some() || !self.by_stripe());
        let progress = self.progress();
        context.memory.remember(&self.uid, |m| {
            m.saw(settled.version);
            m.settled = Some((settled, wait.map(|w| Instant::now() + w)));
            m.failures = if failed { m.failures + 1 } else { 0 };
            m.progress = progress;
            if acted_on {
                m.hints_done = self.memory.hints;
                m.leftover = None;
                m.stripe_event = Some(self.event.clone());
            }
        });
        wait.map(|wait| (wait, self.priority()))
    }

    fn by_stripe(&self) -> bool {
        self.object.spec.billing.mode == BillingMode::Stripe
    }

    /// Kept only while the tenant waits to see what it wrote: a new attempt begins anew.
    fn progress(&self) -> Option<ProvisioningProgress> {
        let pending = self.observed.pending && self.observed.failure.is_none();
        pending.then(|| ProvisioningProgress {
            namespace: self.observed.namespace,
            samples: self.observed.samples,
            since: self.memory.progress.as_ref().map_or_else(Instant::now, |p| p.since),
        })
    }

    /// Of the next look, when nothing changes before.
    fn priority(&self) -> Priority {
        match priority(&self.object) {
            Priority::Person | Priority::Repair => Priority::Repair,
            other => other,
        }
    }
}
