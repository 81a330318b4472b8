//! What should happen next to a tenant. Pure: no I/O and no clock of its own, so that the function that production runs
//! is the one that `tests/model` explores. `phases/` has what a tenant needs by its phase, `concerns/` what it needs
//! beside that.

mod advice;
mod agenda;
mod audit;
mod brake;
mod concerns;
mod effect;
mod failure;
mod held_decision;
mod merged_write;
mod notice;
mod object_deletion;
mod observed;
mod observed_billing;
mod outbox;
mod phases;
mod policy;
mod status;
mod transitions;
mod view;

pub use advice::advice;
pub use audit::{Finding, FindingKind, audit};
pub use brake::{Harm, harm, held, met};
pub use concerns::billed::{bills_another, shows_price, shows_surplus};
pub use concerns::dispute::state as dispute_state;
pub use concerns::payment_link::link_on_request;
pub use concerns::plan_change::{is_smaller, next_period_begun};
pub use concerns::plan_obstacles::{Obstacle, excess, impossible};
pub use concerns::usage_notices::{begins as usage_mail_begins, is_held as usage_mail_is_held};
pub use concerns::verification::failed_unconfirmed;
pub use effect::{Effect, Proration};
pub use failure::{Blame, Failure, Fault, Provider, Reason, Step};
pub use held_decision::HeldDecision;
pub use merged_write::{may_merge, may_precede};
pub use notice::Notice;
pub use observed::{
    Found, Holdings, MigrationError, Observed, ObservedExport, ObservedMigration, Outcome, Samples, Stored,
};
pub use observed_billing::{
    Dispute, ObservedBilling, ObservedDispute, ObservedRefund, ObservedSession, ObservedSubscription, SessionState,
    UnconfirmedPrice,
};
pub use outbox::shipped;
pub use phases::suspended::suspended_for;
pub use policy::{EmailVerification, Policy, RETRY_WAITS, Regions, UPLOAD_LIMIT};
pub use transitions::{Arrow, TRANSITIONS, is_known};
pub use view::{Claim, Credentials, View, chosen_generation};

use agenda::Concern;
use notice::is_link;

use crate::api::phase::TriggeredBy;
use crate::api::status::Provisioning;
use crate::api::tenant::{BillingMode, WishedBy};
use crate::api::usage::Cycle;
use crate::api::{PlanSpec, SampleData, TenantStatus, Timestamp};

/// All that a decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The tenant as last read or written.
    pub tenant: &'a View,
    /// The plan that is in force, when there is one of that name.
    pub plan: Option<&'a PlanSpec>,
    /// The plan that the spec names, when there is one of that name: another one while the tenant is to move to it.
    pub wanted: Option<&'a PlanSpec>,
    /// What was seen and done since the tenant was read.
    pub observed: &'a Observed,
    /// The present, by the API server's clock.
    pub now: Timestamp,
    /// The present by the clock that is behind: the API server's or the controller's. What cannot be undone waits until
    /// its moment has come by both.
    pub earliest: Timestamp,
    /// The settings.
    pub policy: &'a Policy,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Do these, side by side, and decide again with what came of them.
    Act(Vec<Effect>),
    /// Write this status, and decide again.
    Record(Box<TenantStatus>),
    /// Nothing to do before so many seconds have passed, or something changes.
    Wait(Option<i64>),
}

/// What should happen next. Total: every tenant in every state has an answer.
pub fn decide(input: &Input) -> Decision {
    outbox::ship(input, brake::apply(input, next(input)))
}

fn next(input: &Input) -> Decision {
    if let Some(decision) = concerns::identity::decide(input) {
        return decision;
    }
    if input.tenant.deleting {
        return agenda::first_due(input, &[|input| Some(object_deletion::decide(input))]);
    }
    if let Some(decision) = phases::deleting::begin(input) {
        return decision;
    }
    agenda::first_due(input, &CONCERNS)
}

/// The most urgent first. What a provider that is away may hold up comes after what the phase has to do.
const CONCERNS: [Concern; 8] = [
    concerns::notices::note,
    concerns::requested::decide,
    concerns::place::follow,
    |input| Some(phases::decide(input)),
    concerns::address::follow,
    concerns::key_generation::note,
    concerns::export::follow,
    |input| Some(Decision::Wait(concerns::export::wait(input))),
];

impl Input<'_> {
    /// Who asks for something: the customer on the pages, or an admin who writes manifests.
    fn asked_by(&self) -> TriggeredBy {
        if self.tenant.spec.login.is_some() { TriggeredBy::User } else { TriggeredBy::Admin }
    }

    /// Who asked for the present value of `spec.desired`: the customer if web recorded that, otherwise an admin.
    fn wished_by(&self) -> TriggeredBy {
        match self.tenant.spec.wisher().map(|wish| wish.by) {
            Some(WishedBy::Customer) => TriggeredBy::User,
            Some(WishedBy::Admin) | None => TriggeredBy::Admin,
        }
    }

    /// Seconds until a moment has come by both clocks, for what cannot be undone then; 0 or less from then on.
    fn until(&self, moment: Timestamp) -> i64 {
        moment.since(self.earliest)
    }

    fn by_stripe(&self) -> bool {
        self.tenant.spec.billing.mode == BillingMode::Stripe
    }

    /// The billing periods of the subscription that pays for the tenant.
    fn cycle(&self) -> Option<Cycle> {
        let billing = self.observed.billing.as_ref().filter(|_| self.by_stripe())?;
        billing.subscription.as_ref()?.cycle
    }

    /// A run of attempts that begins now, in answer to the present value of the retry annotation.
    fn fresh_run(&self) -> Provisioning {
        Provisioning {
            attempts: 0,
            started_at: self.now,
            next_retry_at: None,
            held_since: None,
            failed_step: None,
            reason: None,
            last_error: None,
            retry_token: self.tenant.retry_token.clone(),
        }
    }

    /// Whether the retry annotation has a value that no run has answered.
    fn retry_asked(&self) -> bool {
        let Some(token) = &self.tenant.retry_token else { return false };
        self.tenant.status.provisioning.as_ref().and_then(|p| p.retry_token.as_ref()) != Some(token)
    }

    /// The wait before what failed is called again, outside provisioning: longer with each failure in a row.
    fn backoff(&self) -> i64 {
        let wait = self.policy.notice_retry.saturating_mul(1 << self.observed.failures.min(5));
        wait.max(self.observed.failure.as_ref().and_then(|f| f.retry_after).unwrap_or(0))
    }

    /// The wait before notices that could not be sent are tried again: longer where only another address or
    /// another mail server can help.
    fn notice_wait(&self) -> i64 {
        let hopeful = self.observed.unsent.values().any(|failure| failure.retryable);
        if hopeful { self.policy.notice_retry } else { self.policy.resync }
    }

    fn wants_samples(&self) -> bool {
        self.plan.is_some_and(|p| p.sample_data != SampleData::None)
    }
}
