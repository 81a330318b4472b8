//! What Stripe bills, compared with what the tenant has: another price than that of the plan in force, or a second
//! subscription. The controller shows both and alerts the platform team. The Plan says whether the plan follows the
//! price; an admin ends a second subscription.

use crate::api::conditions::{PRICE_AS_PLANNED, SINGLE_SUBSCRIPTION};
use crate::api::plan::{PlanSpec, PriceChanges};
use crate::api::status::PlanChangeState;
use crate::api::{ConditionStatus, TenantStatus};
use crate::lifecycle::status::Draft;
use crate::lifecycle::{Decision, Effect, Input, Notice, ObservedBilling, ObservedSubscription};

/// Compares the price of an Active tenant. None if there is nothing to show or follow.
pub fn decide(input: &Input) -> Option<Decision> {
    let billing = input.observed.billing.as_ref().filter(|_| input.by_stripe())?;
    price(input, billing).or_else(|| surplus(input, billing))
}

/// The alert to the platform team.
pub fn alerts(input: &Input) -> Vec<Notice> {
    let Some(billing) = input.observed.billing.as_ref().filter(|_| input.by_stripe()) else { return Vec::new() };
    other_price(input, billing).and_then(price_alert).into_iter().chain(surplus_alert(billing)).collect()
}

/// Whether a subscription bills another price than a plan's, although no change of plan explains it.
pub fn bills_another(status: &TenantStatus, plan: Option<&PlanSpec>, subscription: &ObservedSubscription) -> bool {
    let settled = |state| {
        matches!(
            state,
            PlanChangeState::Applied
                | PlanChangeState::Declined
                | PlanChangeState::Blocked
                | PlanChangeState::Unconfirmed
        )
    };
    let changing = status.plan_change.as_ref().is_some_and(|change| !settled(change.state));
    // A smaller plan is billed before it is in force.
    let scheduled = subscription.plan_before.is_some();
    let expected = plan.and_then(|plan| plan.stripe_price_id.as_ref());
    let differs = expected.is_some() && subscription.price.is_some() && subscription.price.as_ref() != expected;
    differs && subscription.served() && !changing && !scheduled
}

/// Whether the status shows that this price is billed instead of the plan's. None when it shows that the two agree.
pub fn shows_price(status: &TenantStatus, price: Option<&str>) -> Option<bool> {
    status.other_price.as_ref().map(|shown| price == Some(&**shown))
}

/// Whether the status shows a second subscription.
pub fn shows_surplus(status: &TenantStatus) -> bool {
    status.surplus_since.is_some()
}

fn other_price<'a>(input: &'a Input, billing: &'a ObservedBilling) -> Option<&'a ObservedSubscription> {
    let subscription = billing.subscription.as_ref()?;
    bills_another(&input.tenant.status, input.plan, subscription).then_some(subscription)
}

fn price(input: &Input, billing: &ObservedBilling) -> Option<Decision> {
    let mut draft = Draft::new(input);
    let Some(subscription) = other_price(input, billing) else {
        draft.status.other_price.take()?;
        draft.recovered(PRICE_AS_PLANNED, "Stripe bills the price of the plan in force");
        return draft.changed();
    };
    if let Some(plan) = followed(input, subscription) {
        return Some(Decision::Act(vec![Effect::FollowPaidPlan { plan: plan.to_owned() }]));
    }
    let (reason, message) = difference(input, subscription);
    draft.status.other_price = subscription.price.as_deref().map(Into::into);
    draft.condition(PRICE_AS_PLANNED, ConditionStatus::False, reason, &message);
    draft.changed()
}

/// The plan whose price is billed, where the plan in force says that it follows. A wish for another plan goes first.
fn followed<'a>(input: &Input, subscription: &'a ObservedSubscription) -> Option<&'a str> {
    let follow = input.plan.is_some_and(|plan| plan.price_changes == PriceChanges::Follow);
    let undecided = input.tenant.spec.plan == input.tenant.plan_in_force();
    subscription.billed_plan.as_deref().filter(|_| follow && undecided)
}

fn difference(input: &Input, subscription: &ObservedSubscription) -> (&'static str, String) {
    let (price, in_force) = (subscription.price.as_deref().unwrap_or_default(), input.tenant.plan_in_force());
    match &subscription.billed_plan {
        Some(plan) => (
            "PriceOfAnotherPlan",
            format!(
                "Stripe bills {price}, the price of plan {plan}, and the tenant is served by plan {in_force}. Set spec.plan to \
                 {plan} to serve what is billed, or change the price of subscription {} in Stripe's dashboard",
                subscription.id
            ),
        ),
        None => (
            "UnknownPrice",
            format!(
                "Stripe bills {price}, which no Plan has as its stripePriceId, and the tenant is served by plan {in_force}. \
                 Change the price of subscription {} in Stripe's dashboard, unless it is an earlier price of the plan",
                subscription.id
            ),
        ),
    }
}

/// The alert for the price of another Plan. A price that no Plan has is often an earlier price of the same plan, so the
/// controller shows and counts it, and sends no alert.
fn price_alert(subscription: &ObservedSubscription) -> Option<Notice> {
    subscription.billed_plan.as_ref()?;
    subscription.price.clone().map(Notice::PriceAlert)
}

/// Shows a second subscription, of a tenant in any phase.
pub fn surplus(input: &Input, billing: &ObservedBilling) -> Option<Decision> {
    let mut draft = Draft::new(input);
    if billing.surplus.is_empty() {
        draft.status.surplus_since.take()?;
        draft.recovered(SINGLE_SUBSCRIPTION, "Stripe bills one subscription");
        return draft.changed();
    }
    let (counts, name) = (billing.subscription.as_ref().map_or("", |s| &s.id), &input.tenant.name);
    let message = format!(
        "Stripe bills more than one subscription for this tenant: {counts} counts, {} does not. `kubectl tenant subscriptions \
         {name}` lists them; `kubectl tenant subscriptions {name} --end {} --confirm {name}` ends one, and --refund gives back \
         what was paid for its present period",
        billing.surplus.join(", "),
        billing.surplus[0],
    );
    draft.status.surplus_since.get_or_insert(input.now);
    draft.condition(SINGLE_SUBSCRIPTION, ConditionStatus::False, "SurplusSubscription", &message);
    draft.changed()
}

/// The alert to the platform team about a second subscription.
pub fn surplus_alert(billing: &ObservedBilling) -> Option<Notice> {
    (!billing.surplus.is_empty()).then(|| Notice::SurplusAlert(billing.surplus.join("+")))
}
