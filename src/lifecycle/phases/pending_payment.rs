//! Waits until the customer has paid, or an admin has approved the contract.

use crate::api::conditions::{PAYMENT_RECEIVED, PLAN_FOUND};
use crate::api::facts::{Awaited, SuspendedFor};
use crate::api::phase::{EventType, TriggeredBy};
use crate::api::status::Checkout;
use crate::api::{ConditionStatus, Phase};
use crate::lifecycle::concerns::dunning::{self, BY_ADMIN};
use crate::lifecycle::concerns::plan_change;
use crate::lifecycle::concerns::plan_obstacles::{PLAN_HAS_NO_PRICE, PLAN_NOT_FOUND, REGION_UNSUPPORTED};
use crate::lifecycle::concerns::{payment_link, verification};
use crate::lifecycle::observed_billing::{ObservedSession, ObservedSubscription, SessionState};
use crate::lifecycle::status::{Draft, Summary};
use crate::lifecycle::{Decision, Effect, Failure, Input, ObservedBilling, Provider};

pub fn decide(input: &Input) -> Decision {
    verification::send(input, await_payment(input))
}

fn await_payment(input: &Input) -> Decision {
    if expired(input) {
        return Decision::Act(vec![Effect::DeleteTenant]);
    }
    let Some(plan) = input.plan else { return plan_missing(input) };
    if let Some(why) = input.policy.regions.unsupported(input.tenant.plan_in_force(), &plan.region) {
        return stalled(input, REGION_UNSUPPORTED, &why);
    }
    if !input.by_stripe() {
        return if input.tenant.spec.billing.approved { begin(input, None) } else { await_approval(input) };
    }
    if plan.stripe_price_id.is_none() {
        return no_price(input);
    }
    if let Some(failure) = &input.observed.failure {
        return billing_failed(input, failure);
    }
    match &input.observed.billing {
        None => payment_link::rest(input).unwrap_or_else(|| Decision::Act(vec![Effect::ReadBilling])),
        Some(billing) => by_stripe(input, billing),
    }
}

/// The customer's way to a paid subscription: also of one whose subscription has ended.
pub fn by_stripe(input: &Input, billing: &ObservedBilling) -> Decision {
    let refs = input.tenant.spec.billing.stripe.clone().unwrap_or_default();
    let paid = billing.subscription.as_ref().filter(|s| s.paid() || pays_late(input, s));
    // The plan may change until the payment; what was paid for counts.
    if let Some(plan) = paid.and_then(|s| s.plan.as_ref())
        && *plan != input.tenant.spec.plan
        && !still_in_force(input, plan)
    {
        return Decision::Act(vec![Effect::FollowPaidPlan { plan: plan.clone() }]);
    }
    if let Some(customer) = &billing.customer_id {
        // Writes the customer's id into the spec at once, so that a changed e-mail address creates no second customer.
        let subscription = paid.map(|s| s.id.clone()).or(refs.subscription_id.clone());
        if refs.customer_id.as_ref() != Some(customer) || refs.subscription_id != subscription {
            return Decision::Act(vec![Effect::StoreStripeIds { customer: customer.clone(), subscription }]);
        }
        if let Some(subscription) = paid {
            if let Some(decision) = paid_plan(input, subscription).and_then(|plan| plan_change::record(input, plan)) {
                return decision;
            }
            return begin(input, Some(subscription));
        }
    }
    if input.tenant.spec.is_suspended() {
        return withhold(input, billing);
    }
    // Opens no Checkout session while Stripe bills a subscription.
    if billing.subscription.as_ref().is_some_and(ObservedSubscription::billed) {
        return processing(input);
    }
    let attempt = input.tenant.spec.billing.checkout_attempt();
    match &billing.session {
        Some(session) if session.attempt == attempt => match session.state {
            SessionState::Open if sells(session, &input.tenant.spec.plan) && !session.elsewhere => link(input, session),
            SessionState::Complete if !over(billing) => processing(input),
            // What it sells is another plan, or would be noted at the place that the Tenant had before a move.
            SessionState::Open => Decision::Act(vec![Effect::NextCheckout { attempt: attempt + 1 }]),
            SessionState::Complete | SessionState::Expired if payment_link::is_renewed(input) => {
                Decision::Act(vec![Effect::NextCheckout { attempt: attempt + 1 }])
            }
            SessionState::Complete | SessionState::Expired => on_request(input),
        },
        Some(session) if session.attempt > attempt => {
            Decision::Act(vec![Effect::NextCheckout { attempt: session.attempt + 1 }])
        }
        _ => open_checkout(input, attempt),
    }
}

/// Whether a tenant that was served before pays late, and its status was lost: it is set up again, and what follows
/// from the delay is decided as for every tenant that is served.
fn pays_late(input: &Input, subscription: &ObservedSubscription) -> bool {
    subscription.billed() && input.tenant.served_before()
}

/// An admin suspended the signup: the link that is open is closed, and none is made, so that the customer does not pay
/// for a tenant that is not served.
fn withhold(input: &Input, billing: &ObservedBilling) -> Decision {
    let open = billing.session.as_ref().is_some_and(|session| session.state == SessionState::Open);
    if open && !input.observed.done.contains(&Effect::ExpireCheckout) {
        return Decision::Act(vec![Effect::ExpireCheckout]);
    }
    let mut draft = begin_pending(input);
    draft.status.checkout = None;
    draft.status.awaiting = None;
    let message = dunning::suspended_by(input);
    draft.condition(PAYMENT_RECEIVED, ConditionStatus::False, BY_ADMIN, &message);
    draft.summary(Summary::Waiting, BY_ADMIN, &message);
    draft.changed().unwrap_or(Decision::Wait(None))
}

/// Whether a tenant whose status was lost goes on with this plan, and moves to the one it wants afterwards.
fn still_in_force(input: &Input, plan: &str) -> bool {
    input.tenant.status.config.is_none() && input.tenant.spec.plan_in_force.as_deref() == Some(plan)
}

/// The plan that the customer paid for, if the spec names another one as in force and the subscription does not know
/// it: any user with write access to the Tenant may have set that field.
fn paid_plan<'a>(input: &'a Input, subscription: &'a ObservedSubscription) -> Option<&'a str> {
    let (tenant, in_force) = (input.tenant, input.tenant.plan_in_force());
    let paid = subscription.plan.as_ref().unwrap_or(&tenant.spec.plan);
    let known = paid == in_force || subscription.plan_before.as_deref() == Some(in_force);
    (tenant.status.config.is_none() && !known).then_some(paid)
}

/// Whether a session sells this plan.
fn sells(session: &ObservedSession, plan: &str) -> bool {
    session.plan.as_ref().is_none_or(|sold| sold == plan)
}

/// Whether the customer's purchase failed: it was cancelled, or its first payment never arrived.
fn over(billing: &ObservedBilling) -> bool {
    let status = billing.subscription.as_ref().map(|s| s.status.as_str());
    matches!(status, Some("canceled" | "incomplete_expired"))
}

/// Opens a Checkout session. A customer is not asked to pay for a tenant that there is no room for.
fn open_checkout(input: &Input, attempt: u32) -> Decision {
    if verification::before_payment(input) {
        let ends = payment_link::ends_unpaid(input);
        let wait = if ends { payment_link::until_signup_ends(input).max(1) } else { input.policy.resync };
        return verification::await_before_payment(begin_pending(input), wait);
    }
    let Some(wanted) = input.wanted else { return plan_missing(input) };
    if wanted.stripe_price_id.is_none() {
        return no_price(input);
    }
    let Some(why) = &input.observed.capacity_missing else {
        return Decision::Act(vec![Effect::OpenCheckout { attempt }]);
    };
    let mut draft = begin_pending(input);
    let message = format!("New payment links are on hold: {why}");
    draft.awaits(Awaited::Capacity, &message);
    draft.changed().unwrap_or(Decision::Wait(Some(input.policy.hold_retry)))
}

fn link(input: &Input, session: &ObservedSession) -> Decision {
    let mut draft = begin_pending(input);
    draft.status.checkout = session.url.as_ref().map(|url| Checkout {
        session_id: session.id.clone(),
        url: url.clone(),
        expires_at: session.expires_at,
    });
    let left = payment_link::wait(input, session.expires_at).max(1);
    awaiting(draft, Some(left), Awaited::Payment, "Waiting for the customer to pay at status.checkout.url")
}

/// Makes no new link until the customer or an admin asks for one.
fn on_request(input: &Input) -> Decision {
    let mut draft = begin_pending(input);
    draft.status.checkout = None;
    let message = format!(
        "There is no open payment link. The customer gets one on the account page, and `kubectl tenant open {}` prints one",
        input.tenant.name
    );
    awaiting(draft, None, Awaited::LinkRequest, &message)
}

fn processing(input: &Input) -> Decision {
    let mut draft = begin_pending(input);
    // The link is used up.
    draft.status.checkout = None;
    if input.tenant.status.phase == Some(Phase::Suspended) {
        draft.status.suspended_for = Some(SuspendedFor::Payment);
    }
    awaiting(
        draft,
        Some(input.policy.resync),
        Awaited::Processing,
        "Checkout is complete; waiting for the payment to arrive",
    )
}

/// A signup that was never paid for.
fn expired(input: &Input) -> bool {
    payment_link::ends_unpaid(input)
        && input.tenant.status.phase == Some(Phase::PendingPayment)
        && payment_link::until_signup_ends(input) <= 0
        // What Stripe says now counts, not what was last written down.
        && input.observed.billing.as_ref().is_some_and(|b| b.subscription.as_ref().is_none_or(ObservedSubscription::over))
}

fn begin_pending<'a>(input: &'a Input<'a>) -> Draft<'a> {
    let mut draft = Draft::new(input);
    if input.tenant.status.phase == Some(Phase::Suspended) {
        draft.status.suspended_for = Some(SuspendedFor::End);
        return draft;
    }
    draft.enter(Phase::PendingPayment, EventType::Signup, input.asked_by(), "The Tenant was created");
    if input.plan.is_some() {
        draft.condition(PLAN_FOUND, ConditionStatus::True, "Found", "The plan exists");
    }
    verification::show(input, &mut draft);
    draft
}

fn awaiting(mut draft: Draft, wait: Option<i64>, what: Awaited, message: &str) -> Decision {
    draft.awaits(what, message);
    draft.changed().unwrap_or(Decision::Wait(wait))
}

fn await_approval(input: &Input) -> Decision {
    let mut draft = begin_pending(input);
    draft.status.subscription = Some("manual".into());
    let message = "Waiting for approval: set spec.billing.approved to true when the contract is signed";
    draft.awaits(Awaited::Approval, message);
    draft.changed().unwrap_or(Decision::Wait(None))
}

fn plan_missing(input: &Input) -> Decision {
    let message = format!("No Plan is named {:?}. `kubectl get plans` lists the existing ones", input.tenant.spec.plan);
    let mut draft = begin_pending(input);
    draft.ask_again();
    draft.condition(PLAN_FOUND, ConditionStatus::False, PLAN_NOT_FOUND, &message);
    draft.summary(Summary::Stalled, PLAN_NOT_FOUND, &message);
    draft.changed().unwrap_or(Decision::Wait(None))
}

fn no_price(input: &Input) -> Decision {
    let message = format!(
        "Plan {} has no stripePriceId. Set it on the Plan, or create the Tenant with billing.mode: Manual",
        input.tenant.spec.plan
    );
    stalled(input, PLAN_HAS_NO_PRICE, &message)
}

fn stalled(input: &Input, reason: &str, message: &str) -> Decision {
    let mut draft = begin_pending(input);
    draft.ask_again();
    draft.summary(Summary::Stalled, reason, message);
    draft.changed().unwrap_or(Decision::Wait(None))
}

fn billing_failed(input: &Input, failure: &Failure) -> Decision {
    let mut draft = begin_pending(input);
    // The limit of a confirmation runs on while Stripe does not answer.
    draft.ask_again();
    draft.condition(PAYMENT_RECEIVED, ConditionStatus::Unknown, &failure.reason, &failure.message);
    draft.summary(Summary::Reconciling, &failure.reason, &failure.message);
    draft.changed().unwrap_or(Decision::Wait(Some(input.backoff())))
}

/// Paid or approved: Provisioning begins. A tenant that was approved from the start goes through `PendingPayment` in
/// the same write.
fn begin(input: &Input, subscription: Option<&ObservedSubscription>) -> Decision {
    if let Some(decision) = plan_change::record(input, input.tenant.plan_in_force()) {
        return decision;
    }
    let mut draft = begin_pending(input);
    let (reason, message) = match subscription {
        Some(s) if s.status == "trialing" => ("TrialStarted", "The trial has begun, with a payment method on file"),
        Some(s) if s.served() => ("Paid", "The subscription is paid"),
        Some(_) => (dunning::PAST_DUE, "A payment is late, and the tenant was served before"),
        None => ("Approved", "Manual billing is approved"),
    };
    if subscription.is_some_and(|s| !s.served()) {
        dunning::note_late(input, &mut draft, message);
    } else {
        draft.status.payment_late_since = None;
        draft.condition(PAYMENT_RECEIVED, ConditionStatus::True, reason, message);
    }
    draft.status.subscription = Some(subscription.map_or("manual".into(), |s| s.status.as_str().into()));
    draft.status.trial_ends_at = subscription.and_then(|s| s.trial_ends_at);
    draft.status.checkout = None;
    if verification::missing(input) {
        return verification::await_after_payment(input, draft);
    }
    draft.status.awaiting = None;
    draft.status.paid_at = draft.status.paid_at.or(Some(input.now));
    draft.status.provisioning = Some(input.fresh_run());
    // What was given back when the account was closed says nothing of this run.
    (draft.status.refund, draft.status.refund_owed_since) = (None, None);
    let by = if subscription.is_some() { TriggeredBy::User } else { TriggeredBy::Admin };
    draft.enter(Phase::Provisioning, EventType::Provision, by, message);
    draft.summary(
        Summary::Reconciling,
        "Provisioning",
        &format!("Creating the {} namespace, the API key and the sample documents", Provider::VectorStore),
    );
    draft.changed().unwrap_or(Decision::Wait(None))
}
