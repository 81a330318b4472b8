//! Builds a status: facts, transitions, and the conditions and the summary that people read. Decisions rest on the
//! facts. What the conditions say is compared here alone, with what they are to say next.

use std::fmt::Display;

use super::{Decision, Failure, Input, ObservedSubscription, Provider, Step, is_known, outbox};
use crate::api::conditions::{
    self, API_KEY_READY, BILLING_READY, DATA_MIGRATED, NAMESPACE_READY, PAYMENT_RECEIVED, READY, RECONCILING,
    SAMPLE_DATA_READY, STALLED,
};
use crate::api::facts::{Awaited, Awaiting, SuspendedFor};
use crate::api::phase::{EventType, Transition, TriggeredBy};
use crate::api::{Condition, ConditionStatus, Phase, TenantStatus};

/// A status under construction.
pub struct Draft<'a> {
    input: &'a Input<'a>,
    pub status: TenantStatus,
}

impl<'a> Draft<'a> {
    pub fn new(input: &'a Input<'a>) -> Self {
        let mut status = input.tenant.status.clone();
        status.observed_generation = input.tenant.generation;
        let own = input.tenant.spec.data.as_ref().and_then(|data| data.region.clone());
        status.region = own.or_else(|| input.plan.map(|p| p.region.clone())).or(status.region);
        Self { input, status }
    }

    /// Sets a condition. The reason is a word, or the reason of a failure.
    pub fn condition(&mut self, type_: &str, status: ConditionStatus, reason: impl Display + Copy, message: &str) {
        let new = self.new_condition(type_, status, &reason.to_string(), message);
        conditions::set(&mut self.status.conditions, new);
    }

    fn new_condition(&self, type_: &str, status: ConditionStatus, reason: &str, message: &str) -> Condition {
        Condition {
            type_: type_.into(),
            status,
            reason: reason.into(),
            message: message.into(),
            last_transition_time: self.input.now,
            observed_generation: self.input.tenant.generation,
        }
    }

    /// Sets a condition unless it says so already. Returns whether it did: what changes beside it is no reason to
    /// write.
    pub fn show(&mut self, type_: &str, status: ConditionStatus, reason: &str, message: &str) -> bool {
        let new = self.new_condition(type_, status, reason, message);
        conditions::show(&mut self.status.conditions, new)
    }

    /// Like `show`, of a condition that was set before. Does nothing if it never was.
    pub fn correct(&mut self, type_: &str, status: ConditionStatus, reason: &str, message: &str) -> bool {
        conditions::get(&self.status.conditions, type_).is_some() && self.show(type_, status, reason, message)
    }

    /// The condition of a step that failed.
    pub fn failure(&mut self, failure: &Failure) {
        match failure.step {
            Step::Billing => self.billing_failed(failure, &failure.message),
            step => {
                if let Some(type_) = condition_of(step) {
                    self.condition(type_, ConditionStatus::False, &failure.reason, &failure.message);
                }
            }
        }
    }

    /// Stripe does not answer for the tenant, or refuses.
    pub fn billing_failed(&mut self, failure: &Failure, message: &str) {
        self.status.billing_failing_since.get_or_insert(self.input.now);
        self.condition(BILLING_READY, ConditionStatus::False, &failure.reason, message);
    }

    /// Stripe answers for the tenant.
    pub fn billing_answers(&mut self) {
        self.status.billing_failing_since = None;
        self.recovered(BILLING_READY, "Stripe answers");
    }

    /// The namespace of the tenant's data is usable.
    pub fn namespace_usable(&mut self) {
        self.status.namespace_missing_since = None;
        let message = format!("The {} namespace is usable", Provider::VectorStore);
        self.condition(NAMESPACE_READY, ConditionStatus::True, "Usable", &message);
    }

    /// The tenant waits for this before it is set up.
    pub fn awaits(&mut self, what: Awaited, message: &str) {
        let before = self.status.awaiting.filter(|before| before.what == what);
        self.status.awaiting = Some(before.unwrap_or(Awaiting { what, since: self.input.now }));
        // A payment that has arrived is shown as such.
        if what != Awaited::ConfirmationOfPaid {
            self.condition(PAYMENT_RECEIVED, ConditionStatus::False, what.reason(), message);
        }
        self.summary(Summary::Waiting, what.reason(), message);
    }

    /// Something else is shown than that the customer can ask for a payment link. Once that is over, Stripe is asked
    /// again.
    pub fn ask_again(&mut self) {
        if let Some(awaiting) = self.status.awaiting.as_mut().filter(|a| a.what == Awaited::LinkRequest) {
            awaiting.what = Awaited::Payment;
        }
    }

    /// The tenant is not served, for this reason.
    pub fn suspended(&mut self, why: SuspendedFor, message: &str) {
        self.status.suspended_for = Some(why);
        self.ask_again();
        self.summary(Summary::Waiting, why.reason(), message);
    }

    /// Sets a condition that was not True to True again. Does nothing if it was never set.
    pub fn recovered(&mut self, type_: &str, message: &str) {
        if conditions::get(&self.status.conditions, type_).is_some_and(|c| c.status != ConditionStatus::True) {
            self.condition(type_, ConditionStatus::True, "Recovered", message);
        }
    }

    /// The Secret holds the key of the present generation. Notes a new generation with the time, from which on the key
    /// before it stays valid for a while. After a lost status the change is unknown, so a time that is noted already is
    /// kept.
    pub fn key_in_force(&mut self) {
        let (wanted, status) = (self.input.tenant.spec.api_key_generation, &mut self.status);
        if status.api_key_generation.is_some_and(|there| there != wanted) {
            status.api_key_created_at = Some(self.input.now);
        }
        status.api_key_created_at.get_or_insert(self.input.now);
        status.api_key_generation = Some(wanted);
    }

    /// Notes Stripe's state of the subscription.
    pub fn subscribed(&mut self, subscription: &ObservedSubscription) {
        self.status.subscription = Some(subscription.status.as_str().into());
        self.status.trial_ends_at = subscription.trial_ends_at;
        if let (Some(quota), Some(cycle)) = (&mut self.status.quota, subscription.cycle) {
            quota.follow(cycle, self.input.now);
        }
    }

    /// Removes a condition unless it is True. Returns whether it did.
    pub fn withdraw(&mut self, type_: &str) -> bool {
        !conditions::is_true(&self.status.conditions, type_) && self.forget(type_)
    }

    /// Removes a condition that no longer applies. Returns whether it was there.
    pub fn forget(&mut self, type_: &str) -> bool {
        let before = self.status.conditions.len();
        self.status.conditions.retain(|c| c.type_ != type_);
        self.status.conditions.len() < before
    }

    /// Changes the phase and writes the transition down, in the same status. The same phase again changes nothing.
    pub fn enter(&mut self, phase: Phase, event_type: EventType, by: TriggeredBy, reason: &str) {
        if self.status.phase == Some(phase) {
            return;
        }
        debug_assert!(
            is_known(self.status.phase, phase, event_type),
            "{:?} to {phase} is no transition",
            self.status.phase
        );
        // After a lost status the count goes on far above any earlier one: (tenant id, seq) is never used twice.
        let seq = match self.status.transitions.last() {
            Some(last) => last.seq + 1,
            None if self.input.tenant.sent.is_empty() => 1,
            None => self.input.now.as_second(),
        };
        self.status.transitions.push(Transition {
            tenant_id: self.input.tenant.tenant_id().into(),
            event_type,
            from_state: self.status.phase,
            to_state: phase,
            timestamp: self.input.now,
            triggered_by: by,
            reason: reason.into(),
            seq,
        });
        outbox::trim(self.input, &mut self.status.transitions);
        self.status.phase = Some(phase);
        if phase != Phase::Suspended {
            self.status.suspended_for = None;
        }
    }

    /// Ready, Reconciling and Stalled in the kstatus way, and the message.
    pub fn summary(&mut self, summary: Summary, reason: impl Display + Copy, message: &str) {
        let flag = |b| if b { ConditionStatus::True } else { ConditionStatus::False };
        let served = matches!(summary, Summary::Ready | Summary::Changing);
        self.condition(READY, flag(served), reason, message);
        let working = matches!(summary, Summary::Reconciling | Summary::Changing);
        self.condition(RECONCILING, flag(working), reason, message);
        self.condition(STALLED, flag(summary == Summary::Stalled), reason, message);
        self.status.message = Some(message.into());
    }

    /// A decision to write the status if it differs from the last one.
    pub fn changed(mut self) -> Option<Decision> {
        // This field alone is no reason to write: tenants of earlier versions get it with their next status.
        if self.status != self.input.tenant.status && self.status.phase != Some(Phase::Deleted) {
            self.status.admin_email.get_or_insert_with(|| self.input.tenant.spec.admin_email.clone());
        }
        if self.status != self.input.tenant.status {
            self.status.shipped_seq =
                Some(outbox::shipped(&self.input.tenant.status, self.input.observed)).filter(|seq| *seq > 0);
        }
        (self.status != self.input.tenant.status).then(|| Decision::Record(Box::new(self.status)))
    }
}

/// The condition that shows whether a step works.
fn condition_of(step: Step) -> Option<&'static str> {
    Some(match step {
        Step::Namespace => NAMESPACE_READY,
        Step::ApiKey => API_KEY_READY,
        Step::SampleData => SAMPLE_DATA_READY,
        Step::Data => DATA_MIGRATED,
        // Billing, identity and notices have conditions of their own.
        Step::Billing
        | Step::Identity
        | Step::Notice
        | Step::Export
        | Step::Outbox
        | Step::Usage
        | Step::Brake
        | Step::Pin
        | Step::EmailVerification => return None,
    })
}

/// What people read first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Summary {
    Ready,
    Reconciling,
    /// Served, while something is changed.
    Changing,
    Stalled,
    /// Waits for the customer, an admin or a provider, which is neither progress nor a fault.
    Waiting,
}
