//! Whether Stripe says something else of a tenant than its status does.

use super::hints::phase;
use crate::api::plan::{PlanSpec, PriceChanges};
use crate::api::tenant::BillingMode;
use crate::api::{Phase, Tenant, TenantStatus, Timestamp};
use crate::lifecycle::{ObservedSubscription, bills_another, next_period_begun, shows_price, shows_surplus};
use crate::providers::Priority;

/// Whether Stripe says something else of the subscription than the status does, and how urgent that is.
pub fn subscription_differs(
    tenant: &Tenant,
    subscription: Option<&ObservedSubscription>,
    as_of: Timestamp,
) -> Option<Priority> {
    if tenant.spec.billing.mode != BillingMode::Stripe {
        return None;
    }
    let status = tenant.status.as_ref();
    match (phase(tenant), subscription) {
        // A customer who has paid waits.
        (None | Some(Phase::PendingPayment), Some(s)) => s.served().then_some(Priority::Person),
        (Some(Phase::Active), Some(s)) => {
            let status = status?;
            let same =
                status.subscription.as_deref() == Some(s.status.as_str()) && status.trial_ends_at == s.trial_ends_at;
            let due = status.plan_change.as_ref().is_some_and(|change| next_period_begun(change, s));
            // Such as one whom another account did not know: Stripe's word for the subscription is what it was.
            let failing = status.billing_failing_since.is_some();
            (!same || due || failing || s.paused || s.closed_at.is_some()).then_some(Priority::Resync)
        }
        // A customer who has paid waits.
        (Some(Phase::Suspended), Some(s)) => {
            let same = status?.subscription.as_deref() == Some(s.status.as_str());
            (!same || s.served()).then_some(Priority::Person).filter(|_| tenant.spec.is_wanted())
        }
        // The subscription ended, and the controller received no event about it.
        (Some(Phase::Suspended), None) => {
            let over = matches!(status?.subscription.as_deref(), None | Some("canceled" | "incomplete_expired"));
            (!over && tenant.spec.is_wanted()).then_some(Priority::Resync)
        }
        // Made after the pages were read.
        (Some(Phase::Active), None) => {
            let before = status?.provisioned_at.is_some_and(|at| at < as_of);
            before.then_some(Priority::Resync)
        }
        // Paid for at a link that was still open when the account was closed.
        (Some(Phase::Deleting), Some(s)) => s.bills_again().then_some(Priority::Repair),
        (
            None
            | Some(
                Phase::PendingPayment
                | Phase::Provisioning
                | Phase::Upgrading
                | Phase::Downgrading
                | Phase::Failed
                | Phase::Deleting
                | Phase::Deleted,
            ),
            _,
        ) => None,
    }
}

/// How the price that is billed for a tenant compares with its plan's.
pub struct PriceDiffers {
    /// Whether another one is billed.
    pub differs: bool,
    /// Whether the status does not say so yet, or the tenant is to follow.
    pub look: bool,
}

/// How the price differs. None for a tenant that is not served, or not by Stripe.
pub fn price_differs(
    tenant: &Tenant,
    plan: Option<&PlanSpec>,
    subscription: &ObservedSubscription,
) -> Option<PriceDiffers> {
    let status = tenant.status.as_ref().filter(|s| s.phase == Some(Phase::Active))?;
    if tenant.spec.billing.mode != BillingMode::Stripe {
        return None;
    }
    let differs = bills_another(status, plan, subscription);
    let shown = shows_price(status, subscription.price.as_deref());
    let follow = plan.is_some_and(|plan| plan.price_changes == PriceChanges::Follow);
    let undecided = tenant.spec.plan == tenant.plan_in_force();
    let look = if differs { shown != Some(true) || (follow && undecided) } else { shown.is_some() };
    Some(PriceDiffers { differs, look })
}

/// Whether a second subscription is there without the status saying so, or gone.
pub fn surplus_differs(tenant: &Tenant, several: bool) -> bool {
    let shown = |status: &&TenantStatus| matches!(status.phase, Some(Phase::Active | Phase::Suspended | Phase::Failed));
    let status = tenant.status.as_ref().filter(shown);
    tenant.spec.billing.mode == BillingMode::Stripe && status.is_some_and(|status| shows_surplus(status) != several)
}

/// For how many seconds after it succeeded a refund may still fail: a bank can take a month to return it
/// (<https://docs.stripe.com/refunds#failed-refunds>).
const REFUND_SETTLES: i64 = 30 * 24 * 3600;

/// Whether a refund of a tenant that is not served may have failed since, in an event that no controller saw.
pub fn refund_may_fail(tenant: &Tenant, now: Timestamp) -> bool {
    let left = matches!(phase(tenant), Some(Phase::Failed | Phase::Deleting));
    let refund = tenant.status.as_ref().filter(|_| left).and_then(|status| status.refund.as_ref());
    refund.is_some_and(|refund| refund.amount > 0 && now.since(refund.at) < REFUND_SETTLES)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, subscription, tenant};
    use super::*;
    use crate::api::status::PlanChangeState;
    use crate::api::tenant::Desired;

    #[test]
    fn only_what_differs_is_looked_at() {
        let active = tenant(Some(Phase::Active));
        let differs = |s: &ObservedSubscription| subscription_differs(&active, Some(s), NOW);
        assert_eq!(differs(&subscription("active")), None);
        assert_eq!(differs(&subscription("past_due")), Some(Priority::Resync));
        assert_eq!(differs(&ObservedSubscription { paused: true, ..subscription("active") }), Some(Priority::Resync));
        let trial = ObservedSubscription { trial_ends_at: Some(NOW), ..subscription("active") };
        assert_eq!(differs(&trial), Some(Priority::Resync));
        assert_eq!(subscription_differs(&active, None, NOW), Some(Priority::Resync), "it vanished");
        let before = Timestamp::from_second(50);
        assert_eq!(subscription_differs(&active, None, before), None, "made after the pages were read");
    }

    #[test]
    fn a_closed_tenant_that_is_billed_again_is_looked_at() {
        let closed = tenant(Some(Phase::Deleting));
        let differs = |s: &ObservedSubscription| subscription_differs(&closed, Some(s), NOW);
        assert_eq!(differs(&subscription("active")), Some(Priority::Repair));
        assert_eq!(differs(&ObservedSubscription { renews: false, ..subscription("active") }), None);
        assert_eq!(differs(&subscription("canceled")), None);
    }

    #[test]
    fn a_refund_that_may_have_failed_is_looked_at_for_a_month() {
        let refunded = |phase, amount, at| {
            let mut tenant = tenant(Some(phase));
            let refund = serde_json::json!({"amount": amount, "at": Timestamp::from_second(at)});
            let status = tenant.status.as_mut().expect("a status");
            status.refund = Some(serde_json::from_value(refund).expect("a refund"));
            refund_may_fail(&tenant, Timestamp::from_second(REFUND_SETTLES))
        };
        for phase in [Phase::Failed, Phase::Deleting] {
            assert!(refunded(phase, 4900, 1), "{phase}");
            assert!(!refunded(phase, 4900, 0) && !refunded(phase, 0, 1), "{phase}");
        }
        assert!(!refunded(Phase::Active, 4900, 1) && !refund_may_fail(&tenant(Some(Phase::Failed)), NOW));
    }

    #[test]
    fn a_second_subscription_is_seen_whether_the_tenant_is_served_or_not() {
        for phase in [Phase::Active, Phase::Suspended, Phase::Failed] {
            assert!(surplus_differs(&tenant(Some(phase)), true), "{phase}");
            assert!(!surplus_differs(&tenant(Some(phase)), false), "{phase}");
        }
        assert!(!surplus_differs(&tenant(Some(Phase::Deleting)), true), "all of them are stopped");
    }

    #[test]
    fn a_suspended_tenant_whose_subscription_ended_is_looked_at_once() {
        let mut suspended = tenant(Some(Phase::Suspended));
        let known_as = |tenant: &mut Tenant, word: &str| {
            tenant.status.as_mut().expect("a status").subscription = Some(word.into());
            subscription_differs(tenant, None, NOW)
        };
        assert_eq!(known_as(&mut suspended, "past_due"), Some(Priority::Resync));
        assert_eq!(known_as(&mut suspended, "canceled"), None);
        suspended.spec.desired = Desired::Suspended;
        assert_eq!(known_as(&mut suspended, "past_due"), None);
    }

    #[test]
    fn a_scheduled_change_is_due_once_stripe_has_begun_the_next_period() {
        let mut active = tenant(Some(Phase::Active));
        let change = serde_json::json!({"from": "large", "plan": "small", "state": "Scheduled",
            "since": Timestamp::from_second(100), "effectiveAt": NOW});
        let status = active.status.as_mut().expect("a status");
        status.plan_change = Some(serde_json::from_value(change).expect("a change"));
        let until = |second| {
            let period_ends_at = Some(Timestamp::from_second(second));
            ObservedSubscription { period_ends_at, ..subscription("active") }
        };
        assert_eq!(subscription_differs(&active, Some(&until(1000)), NOW), None, "the period it was scheduled in");
        assert_eq!(subscription_differs(&active, Some(&until(2000)), NOW), Some(Priority::Resync));
        let status = active.status.as_mut().expect("a status");
        status.plan_change.as_mut().expect("a change").state = PlanChangeState::Applied;
        assert_eq!(subscription_differs(&active, Some(&until(2000)), NOW), None, "done long ago");
    }

    #[test]
    fn a_payment_whose_webhook_was_lost_is_urgent() {
        let pending = tenant(Some(Phase::PendingPayment));
        let differs = |s: &str| subscription_differs(&pending, Some(&subscription(s)), NOW);
        assert_eq!(differs("trialing"), Some(Priority::Person));
        assert_eq!(differs("incomplete"), None);
        let mut manual = pending.clone();
        manual.spec.billing.mode = BillingMode::Manual;
        assert_eq!(subscription_differs(&manual, Some(&subscription("active")), NOW), None);
    }
}
