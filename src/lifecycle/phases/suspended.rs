//! A tenant that is not served. Its data and its Secrets stay; a payment, or the admin who suspended it, brings it
//! back.

use super::pending_payment;
use crate::api::conditions::COLLECTION_PAUSED;
use crate::api::facts::SuspendedFor;
use crate::api::phase::{EventType, TriggeredBy};
use crate::api::tenant::WishedBy;
use crate::api::{ConditionStatus, Phase, TenantStatus};
use crate::lifecycle::agenda::first_due;
use crate::lifecycle::concerns::dispute;
use crate::lifecycle::concerns::dunning::{self, Standing};
use crate::lifecycle::concerns::{billed, notices, payment_link, renewal};
use crate::lifecycle::policy::CARD_RETRY;
use crate::lifecycle::status::{Draft, Summary};
use crate::lifecycle::{Decision, Effect, Failure, Input, Notice, ObservedBilling, ObservedSubscription};

pub fn decide(input: &Input) -> Decision {
    first_due(input, &[dispute::show, surplus, tell, |input| Some(come_back(input))])
}

/// A second subscription is shown as that of an Active tenant is.
fn surplus(input: &Input) -> Option<Decision> {
    let billing = input.observed.billing.as_ref().filter(|_| input.by_stripe())?;
    billed::surplus(input, billing)
}

fn tell(input: &Input) -> Option<Decision> {
    let surplus = input.observed.billing.as_ref().filter(|_| input.by_stripe()).and_then(billed::surplus_alert);
    let told: Vec<_> =
        dispute::alert(input).into_iter().chain(surplus).chain([Notice::Suspended(since(input))]).collect();
    let again = || notices::any_unsent(input, &told).then(|| Decision::Wait(Some(input.notice_wait())));
    notices::tell(input, &told).or_else(again)
}

/// Why a tenant is suspended.
pub fn suspended_for(status: &TenantStatus) -> SuspendedFor {
    status.suspended_for.unwrap_or(SuspendedFor::Payment)
}

/// When it was suspended.
fn since(input: &Input) -> crate::api::Timestamp {
    let entered = input.tenant.status.transitions.iter().rfind(|t| t.to_state == Phase::Suspended);
    entered.map_or(input.tenant.created_at, |t| t.timestamp)
}

fn come_back(input: &Input) -> Decision {
    if let Some(failure) = input.observed.declined_card() {
        return wait_for_card(input, failure);
    }
    if let Some(failure) = input.observed.failure_besides(&Effect::DeleteExports) {
        let mut draft = Draft::new(input);
        draft.billing_failed(failure, &failure.message);
        return draft.changed().unwrap_or(Decision::Wait(Some(input.backoff())));
    }
    let held = held(input);
    if !input.by_stripe() {
        return if held.is_some() { stay(input) } else { resume(input, TriggeredBy::Admin) };
    }
    let Some(billing) = &input.observed.billing else { return look(input, held.is_some()) };
    if let Some(held) = held {
        return hold(input, billing, held);
    }
    match Standing::of(billing) {
        // A tenant that was closed before it was served got its money back. Taken back, suspended and resumed, it pays
        // for the period that begins now.
        Standing::Good if paused(billing) => match until_collection(input) {
            Some(wait) => Decision::Wait(Some(wait)),
            None => Decision::Act(vec![Effect::CollectAnew]),
        },
        // Once nothing holds the tenant back, Stripe collects its late invoices again.
        Standing::PastDue | Standing::Unpaid if paused(billing) => Decision::Act(vec![Effect::ResumeCollection]),
        Standing::Good => match renewal::reopen(input) {
            Some(renew) => Decision::Act(vec![renew]),
            None => store(input, billing).unwrap_or_else(|| resume(input, who(input))),
        },
        Standing::PastDue | Standing::Unpaid => {
            await_payment(input, "Suspended until the customer pays the open invoices in Stripe's customer portal")
        }
        Standing::Ended => pending_payment::by_stripe(input, billing),
    }
}

/// Shows that the card was declined, and when it is charged again.
fn wait_for_card(input: &Input, failure: &Failure) -> Decision {
    let mut draft = Draft::new(input);
    let after = input.now.plus(CARD_RETRY);
    let message = format!("{}. The next attempt to charge the customer's card is at {after}", failure.message);
    draft.status.collect_after = Some(after);
    draft.billing_failed(failure, &message);
    draft.changed().unwrap_or(Decision::Wait(Some(CARD_RETRY)))
}

/// Seconds until a card that was declined may be charged again.
fn until_collection(input: &Input) -> Option<i64> {
    input.tenant.status.collect_after.map(|at| input.until(at)).filter(|left| *left > 0)
}

/// Why the tenant is not served even if it pays.
fn held(input: &Input) -> Option<SuspendedFor> {
    if input.tenant.spec.is_suspended() {
        return Some(SuspendedFor::Admin);
    }
    dispute::suspends(input).then_some(SuspendedFor::Dispute)
}

/// Stripe is asked when something changed there, when nothing is known, and when a payment link has expired or is asked
/// for.
fn look(input: &Input, held: bool) -> Decision {
    let paused = input.tenant.status.collection_paused_since.is_some();
    if held && paused && !input.observed.resync {
        return Decision::Wait(None);
    }
    payment_link::rest(input).unwrap_or_else(|| Decision::Act(vec![Effect::ReadBilling]))
}

fn paused(billing: &ObservedBilling) -> bool {
    billing.subscription.as_ref().is_some_and(ObservedSubscription::resumable)
}

/// Pauses collection: a customer is not charged for a tenant that is not served.
fn hold(input: &Input, billing: &ObservedBilling, why: SuspendedFor) -> Decision {
    let collected = Standing::of(billing) != Standing::Ended && !paused(billing);
    if collected || !billing.surplus_collected.is_empty() {
        return Decision::Act(vec![Effect::PauseCollection]);
    }
    let mut draft = Draft::new(input);
    draft.billing_answers();
    draft.status.collection_paused_since.get_or_insert(input.now);
    let message = "Nothing is charged while the tenant is suspended";
    draft.condition(COLLECTION_PAUSED, ConditionStatus::True, why.reason(), message);
    let message = if why == SuspendedFor::Admin { dunning::suspended_by(input) } else { dispute::MESSAGE.into() };
    draft.suspended(why, &message);
    draft.changed().unwrap_or(Decision::Wait(None))
}

fn stay(input: &Input) -> Decision {
    let mut draft = Draft::new(input);
    draft.suspended(SuspendedFor::Admin, &dunning::suspended_by(input));
    draft.changed().unwrap_or(Decision::Wait(None))
}

fn await_payment(input: &Input, message: &str) -> Decision {
    let mut draft = Draft::new(input);
    dunning::show(input, &mut draft);
    draft.billing_answers();
    draft.status.checkout = None;
    draft.status.subscription = status_of(input).or(draft.status.subscription.take());
    draft.suspended(SuspendedFor::Payment, message);
    draft.changed().unwrap_or(Decision::Wait(None))
}

fn status_of(input: &Input) -> Option<crate::api::Text> {
    let subscription = input.observed.billing.as_ref()?.subscription.as_ref()?;
    Some(subscription.status.as_str().into())
}

/// A new subscription is kept in the spec, where it outlives the status.
fn store(input: &Input, billing: &ObservedBilling) -> Option<Decision> {
    let (customer, subscription) = (billing.customer_id.clone()?, billing.subscription.as_ref()?.id.clone());
    let refs = input.tenant.spec.billing.stripe.clone().unwrap_or_default();
    let same = refs.customer_id.as_ref() == Some(&customer) && refs.subscription_id.as_ref() == Some(&subscription);
    let store = Effect::StoreStripeIds { customer, subscription: Some(subscription) };
    (!same).then(|| Decision::Act(vec![store]))
}

/// Who brings it back: the admin who suspended it, the bank that decided a dispute, or the customer who paid.
fn who(input: &Input) -> TriggeredBy {
    match suspended_for(&input.tenant.status) {
        SuspendedFor::Admin => TriggeredBy::Admin,
        SuspendedFor::Dispute => TriggeredBy::System,
        SuspendedFor::Payment | SuspendedFor::End => TriggeredBy::User,
    }
}

fn resume(input: &Input, by: TriggeredBy) -> Decision {
    let mut draft = Draft::new(input);
    dunning::show(input, &mut draft);
    draft.billing_answers();
    draft.status.checkout = None;
    draft.status.collection_paused_since = None;
    draft.forget(COLLECTION_PAUSED);
    draft.status.collect_after = None;
    // One that was suspended on its way to service.
    draft.status.provisioned_at.get_or_insert(input.now);
    if let Some(subscription) = input.observed.billing.as_ref().and_then(|b| b.subscription.as_ref()) {
        draft.subscribed(subscription);
    }
    let message: String = match by {
        TriggeredBy::User => "The customer paid".into(),
        TriggeredBy::Admin => match input.tenant.spec.wisher().filter(|wish| wish.by == WishedBy::Admin) {
            Some(wish) => format!("The suspension was ended by {wish}"),
            None => "An admin ended the suspension".into(),
        },
        TriggeredBy::System => "The dispute is over".into(),
    };
    draft.enter(Phase::Active, EventType::Reactivate, by, &message);
    draft.summary(Summary::Ready, "Active", "The tenant is ready for use");
    draft.changed().unwrap_or(Decision::Wait(None))
}
