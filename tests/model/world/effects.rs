//! What effects change in the world.

use tenant_operator::lifecycle::{
    Blame, Effect, Failure, Fault, Found, Notice, ObservedRefund, Outcome, Proration, Provider, Reason, SessionState,
    Step, Stored,
};

use super::{LARGER, RETENTION, Reconcile, SMALLER, Small, State};
use crate::mistakes::Mistake;

impl Small {
    /// Does an effect; without an answer the reconcile learns of a failure.
    pub(super) fn perform(&self, state: &mut State, effect: &Effect, answered: bool) {
        let Some(reconcile) = state.reconcile.clone() else { return };
        // A note of what was sent is written even if the object has changed; every other write needs the object as it
        // was read.
        let fresh = reconcile.fresh(&state.tenant) || matches!(effect, Effect::MarkSent(_));
        if writes_object(effect) {
            if !fresh || state.gone {
                state.reconcile = None;
                return;
            }
            state.before = Some(Box::new(state.tenant.clone()));
            state.write_object(effect);
            if state.gone && self.outbox {
                state.beside.gone(&state.tenant.status);
            }
            if answered && !state.gone {
                let tenant = state.tenant.clone();
                state.learn(effect, Outcome::Done);
                let right = state.has_key();
                if let Some(reconcile) = &mut state.reconcile {
                    // Perhaps with the wish for another key.
                    reconcile.observed.api_key = reconcile.observed.api_key.map(|there| there && right);
                    (reconcile.view, reconcile.overtaken) = (tenant, false);
                }
            } else {
                state.reconcile = None;
            }
            return;
        }
        let outcome = if self.broken_call(state, effect) { failure() } else { self.change(state, &reconcile, effect) };
        state.learn(effect, if answered { outcome } else { failure() });
    }

    /// A query for the samples waits until they are visible. In a world with an event store it may come earlier, and is
    /// repeated.
    pub(super) fn can(&self, state: &State, effect: &Effect) -> bool {
        *effect != Effect::VerifySamples || state.visible || self.outbox
    }

    pub(super) fn broken_call(&self, state: &State, effect: &Effect) -> bool {
        (state.broken && *effect == Effect::StoreSamples) || (self.mute && *effect == Effect::Notify(Notice::Welcome))
    }

    pub(super) fn switch_price(&self, state: &mut State, plan: &str, proration: Proration) -> Outcome {
        let wanted = if plan == LARGER { LARGER } else { SMALLER };
        let charged = proration == Proration::ChargeNow;
        if charged && state.declined {
            return Outcome::Failed(declined());
        }
        if charged && (state.billed != wanted || self.mistake == Some(Mistake::ChargedBlindly)) {
            state.upgrades = state.upgrades.saturating_add(1);
        }
        state.billed_before = (proration == Proration::AtPeriodEnd && state.billed != wanted).then_some(state.billed);
        state.billed = wanted;
        Outcome::Billing(state.billing().into())
    }

    pub(super) fn change(&self, state: &mut State, reconcile: &Reconcile, effect: &Effect) -> Outcome {
        if state.stranger && calls_stripe(effect) {
            let believed = self.mistake == Some(Mistake::UnknownCountsAsDeleted) && *effect == Effect::ReadBilling;
            return if believed { Outcome::Billing(Box::default()) } else { Outcome::Failed(unknown()) };
        }
        let repeated = self.mistake == Some(Mistake::NewKeyEachTime);
        let customer = state.had_something();
        let erases = matches!(
            effect,
            Effect::DeleteNamespace | Effect::CancelBilling | Effect::DeleteSecrets | Effect::EraseBilling
        );
        // The wish to leave, once its day has come.
        let due = state.closed_at.is_some_and(|at| at + RETENTION <= state.now);
        state.erased |= erases && customer && !state.tenant.erase && !due;
        match effect {
            Effect::ReadBilling => return Outcome::Billing(state.billing().into()),
            Effect::OpenCheckout { attempt } => {
                if state.customers == 0 || repeated {
                    state.customers = state.customers.saturating_add(1);
                }
                state.customer_gone = false;
                if state.session.is_none_or(|(made, _)| made < *attempt) {
                    state.session = Some((*attempt, SessionState::Open));
                }
                return Outcome::Billing(state.billing().into());
            }
            Effect::EnsureNamespace if !state.namespace => {
                state.namespace = true;
                state.namespaces_made = state.namespaces_made.saturating_add(1);
            }
            Effect::EnsureApiKey => {
                (state.secret, state.key) = (true, reconcile.view.spec.api_key_generation);
            }
            Effect::StoreSamples => state.stored = true,
            Effect::VerifySamples if !state.visible => return Outcome::NotYet,
            Effect::VerifySamples => state.seen = true,
            Effect::Notify(notice) => {
                let count = state.sent.entry(notice.clone()).or_default();
                *count = count.saturating_add(1);
            }
            Effect::Refund => {
                // The controller looks at the refunds first, so it refunds no charge twice.
                if state.refunds < state.charges || self.mistake == Some(Mistake::RefundedBlindly) {
                    state.refunds = state.refunds.saturating_add(1);
                }
                return Outcome::Refunded(ObservedRefund {
                    amount: i64::from(state.refunds),
                    ..ObservedRefund::default()
                });
            }
            Effect::SwitchPrice { plan, proration } => return self.switch_price(state, plan, *proration),
            // Stripe refuses to change a subscription that is over.
            Effect::PauseCollection
            | Effect::ResumeCollection
            | Effect::CollectAnew
            | Effect::RenewAgain
            | Effect::ForgetClosing
                if state.subscribed && state.cancelled =>
            {
                return failure();
            }
            Effect::PauseCollection => {
                state.paused = reconcile.observed.billing.as_ref().is_some_and(|b| b.subscription.is_some());
            }
            Effect::ResumeCollection => state.paused = false,
            Effect::CollectAnew => {
                // The controller looks at the charges first, so it begins collection once.
                let given_back = state.paused && state.refunds == state.charges;
                state.charges = state.charges.saturating_add(u8::from(given_back));
                state.paused = false;
            }
            Effect::ExpireCheckout => state.expire_checkout(),
            Effect::StopRenewal => {
                state.ends |= state.subscribed && state.settled && !state.cancelled;
                state.cancelled |= state.subscribed && !state.settled;
                state.expire_checkout();
            }
            Effect::RenewAgain => state.ends = false,
            Effect::CountHoldings => return Outcome::Holdings(state.holdings()),
            Effect::CountStored => return Outcome::Stored(Stored::Counted { documents: 0, bytes: 0 }),
            Effect::EraseBilling => {
                (state.cancelled, state.customer_gone) = (true, true);
                state.expire_checkout();
            }
            Effect::CancelBilling => {
                state.cancelled = true;
                state.expire_checkout();
            }
            Effect::DeleteNamespace => {
                (state.namespace, state.stored, state.visible, state.namespaces_made) = (false, false, false, 0);
            }
            Effect::FindData => {
                let there = Found { generation: 1, vectors: u64::from(state.stored), documents: false };
                return Outcome::Found(state.namespace.then_some(there).into_iter().collect());
            }
            Effect::DeleteSecrets => state.secret = false,
            Effect::ShipTransitions => return state.beside.ship(&reconcile.view),
            Effect::Export => return state.beside.export(),
            Effect::DeleteExports => state.beside.delete_exports(self.mistake),
            _ => {}
        }
        Outcome::Done
    }
}

fn injected() -> Failure {
    Failure {
        step: Step::SampleData,
        reason: Reason::Provider(Provider::Models, Fault::ProviderError),
        message: "injected".into(),
        blame: Blame::Call,
        retryable: true,
        retry_after: None,
    }
}

pub(super) fn failure() -> Outcome {
    Outcome::Failed(injected())
}

/// What Stripe says of a card that is declined.
fn declined() -> Failure {
    Failure { step: Step::Billing, retryable: false, ..injected() }
}

/// What the operator makes of an account that does not know its tenants.
fn unknown() -> Failure {
    Failure {
        step: Step::Billing,
        reason: Reason::Provider(Provider::Stripe, Fault::AccountMismatch),
        blame: Blame::Mismatch,
        ..injected()
    }
}

fn calls_stripe(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::ReadBilling
            | Effect::OpenCheckout { .. }
            | Effect::SwitchPrice { .. }
            | Effect::Refund
            | Effect::WaiveRefund
            | Effect::PauseCollection
            | Effect::ResumeCollection
            | Effect::CollectAnew
            | Effect::UpdateCustomer
            | Effect::ExpireCheckout
            | Effect::StopRenewal
            | Effect::RenewAgain
            | Effect::ForgetClosing
            | Effect::EraseBilling
            | Effect::CancelBilling
            | Effect::CountHoldings
    )
}

pub(super) fn writes_object(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::AssignIdentity { .. }
            | Effect::NextCheckout { .. }
            | Effect::StoreStripeIds { .. }
            | Effect::FollowPaidPlan { .. }
            | Effect::RecordPlan { .. }
            | Effect::MarkSent(_)
            | Effect::EraseIdentity
            | Effect::RemoveFinalizer
            | Effect::DeleteTenant
    )
}
