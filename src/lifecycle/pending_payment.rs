//! Until the customer has paid, or the contract is approved by hand.

use super::facts::{SessionState, SubscriptionFact};
use super::status::{Draft, Summary};
use super::{BillingFact, Decision, Effect, Input};
use crate::api::conditions::{PAYMENT_RECEIVED, PLAN_FOUND};
use crate::api::phase::{EventType, TriggeredBy};
use crate::api::tenant::Checkout;
use crate::api::{ConditionStatus, Phase};

pub fn decide(input: &Input) -> Decision {
    if expired(input) {
        return Decision::Act(vec![Effect::DeleteTenant]);
    }
    let Some(plan) = input.plan else { return plan_missing(input) };
    if !input.by_stripe() {
        return if input.tenant.spec.billing.approved { begin(input, None) } else { await_approval(input) };
    }
    if plan.stripe_price_id.is_none() {
        let message = format!(
            "plan {} has no stripePriceId: set it on the Plan, or set billing.mode: Manual on the Tenant",
            input.tenant.spec.plan
        );
        return stalled(input, "PlanHasNoPrice", &message);
    }
    if let Some(failure) = &input.facts.failure {
        return billing_failed(input, &failure.reason.clone(), &failure.message.clone());
    }
    match &input.facts.billing {
        None => Decision::Act(vec![Effect::ReadBilling]),
        Some(billing) => by_stripe(input, billing),
    }
}

fn by_stripe(input: &Input, billing: &BillingFact) -> Decision {
    if let (Some(subscription), Some(customer)) = (&billing.subscription, &billing.customer_id)
        && subscription.paid()
    {
        let refs = input.tenant.spec.billing.stripe.clone().unwrap_or_default();
        if refs.subscription_id.as_ref() != Some(&subscription.id) || refs.customer_id.as_ref() != Some(customer) {
            return Decision::Act(vec![Effect::StoreStripeIds {
                customer: customer.clone(),
                subscription: subscription.id.clone(),
            }]);
        }
        return begin(input, Some(subscription));
    }
    let attempt = input.tenant.spec.billing.stripe.as_ref().and_then(|s| s.checkout_attempt).unwrap_or(1);
    match &billing.session {
        Some(session) if session.state == SessionState::Open && session.attempt == attempt => {
            let mut draft = begin_pending(input);
            draft.status.checkout = session.url.as_ref().map(|url| Checkout {
                session_id: session.id.clone(),
                url: url.clone(),
                expires_at: session.expires_at,
            });
            awaiting(
                input,
                draft,
                "AwaitingPayment",
                "waiting for the customer to pay; status.checkout.url is the link",
            )
        }
        Some(session) if session.state == SessionState::Complete && session.attempt == attempt => {
            let draft = begin_pending(input);
            awaiting(input, draft, "PaymentProcessing", "checkout is complete; waiting for the subscription to be paid")
        }
        Some(session) if session.attempt >= attempt => {
            Decision::Act(vec![Effect::NextCheckout { attempt: session.attempt + 1 }])
        }
        _ => Decision::Act(vec![Effect::OpenCheckout { attempt }]),
    }
}

/// A signup that was never paid for. Tenants that came by manifest are their owner's to delete.
fn expired(input: &Input) -> bool {
    let tenant = input.tenant;
    let unpaid = tenant.spec.billing.stripe.as_ref().is_none_or(|s| s.subscription_id.is_none());
    tenant.spec.login.is_some()
        && unpaid
        && tenant.status.phase == Some(Phase::PendingPayment)
        && input.now.since(tenant.created_at) > input.policy.signup_ttl
        // What Stripe says now counts, not what was last written down.
        && input.facts.billing.as_ref().is_some_and(|b| !b.subscription.as_ref().is_some_and(SubscriptionFact::paid))
}

fn begin_pending<'a>(input: &'a Input<'a>) -> Draft<'a> {
    let mut draft = Draft::new(input);
    let by = if input.tenant.spec.login.is_some() { TriggeredBy::User } else { TriggeredBy::Admin };
    draft.enter(Phase::PendingPayment, EventType::Signup, by, "the tenant was created");
    if input.plan.is_some() {
        draft.condition(PLAN_FOUND, ConditionStatus::True, "Found", "the plan exists");
    }
    draft
}

fn awaiting(input: &Input, mut draft: Draft, reason: &str, message: &str) -> Decision {
    draft.condition(PAYMENT_RECEIVED, ConditionStatus::False, reason, message);
    draft.summary(Summary::Waiting, reason, message);
    draft.changed().unwrap_or(Decision::Wait(Some(input.policy.resync)))
}

fn await_approval(input: &Input) -> Decision {
    let mut draft = begin_pending(input);
    draft.status.subscription = Some("manual".into());
    let message = "waiting for approval: set spec.billing.approved to true when the contract is signed";
    draft.condition(PAYMENT_RECEIVED, ConditionStatus::False, "AwaitingApproval", message);
    draft.summary(Summary::Waiting, "AwaitingApproval", message);
    draft.changed().unwrap_or(Decision::Wait(None))
}

fn plan_missing(input: &Input) -> Decision {
    let message =
        format!("there is no Plan named {:?}; `kubectl get plans` lists those there are", input.tenant.spec.plan);
    let mut draft = begin_pending(input);
    draft.condition(PLAN_FOUND, ConditionStatus::False, "PlanNotFound", &message);
    draft.summary(Summary::Stalled, "PlanNotFound", &message);
    draft.changed().unwrap_or(Decision::Wait(None))
}

fn stalled(input: &Input, reason: &str, message: &str) -> Decision {
    let mut draft = begin_pending(input);
    draft.summary(Summary::Stalled, reason, message);
    draft.changed().unwrap_or(Decision::Wait(None))
}

fn billing_failed(input: &Input, reason: &str, message: &str) -> Decision {
    let mut draft = begin_pending(input);
    draft.condition(PAYMENT_RECEIVED, ConditionStatus::Unknown, reason, message);
    draft.summary(Summary::Reconciling, reason, message);
    draft.changed().unwrap_or(Decision::Wait(Some(input.policy.notice_retry)))
}

/// Paid or approved: Provisioning begins. A tenant that was approved from the start goes through `PendingPayment` in
/// the same write.
fn begin(input: &Input, subscription: Option<&SubscriptionFact>) -> Decision {
    let mut draft = begin_pending(input);
    let (reason, message) = match subscription {
        Some(s) if s.status == "trialing" => ("TrialStarted", "a trial with a payment method has begun"),
        Some(_) => ("Paid", "the subscription is paid"),
        None => ("Approved", "billing by hand is approved"),
    };
    draft.condition(PAYMENT_RECEIVED, ConditionStatus::True, reason, message);
    draft.status.subscription = Some(subscription.map_or("manual".into(), |s| s.status.clone()));
    draft.status.trial_ends_at = subscription.and_then(|s| s.trial_ends_at);
    draft.status.checkout = None;
    draft.status.paid_at = draft.status.paid_at.or(Some(input.now));
    draft.status.provisioning = Some(input.fresh_run());
    let by = if subscription.is_some() { TriggeredBy::User } else { TriggeredBy::Admin };
    draft.enter(Phase::Provisioning, EventType::Provision, by, message);
    draft.summary(Summary::Reconciling, "Provisioning", "making the namespace, the API key and the sample documents");
    draft.changed().unwrap_or(Decision::Wait(None))
}
