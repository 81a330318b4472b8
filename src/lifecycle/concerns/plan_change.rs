//! The wish for another plan: checked, prepared, scheduled, and undone. The tenant stays Active until the change
//! begins; `phases/changing_plan.rs` carries it out.

use strum::IntoEnumIterator;

use super::dunning::{self, MISSING, Standing};
use super::notices;
use super::plan_obstacles::{Fit, Obstacle, fit, impossible, moving};
use crate::api::conditions::PLAN_IN_FORCE;
use crate::api::phase::{EventType, TriggeredBy};
use crate::api::plan::{Downgrades, Limits, PlanSpec};
use crate::api::status::{PlanChange, PlanChangeState as State};
use crate::api::{ConditionStatus, Phase, Timestamp, Unit};
use crate::lifecycle::status::{Draft, Summary};
use crate::lifecycle::{Decision, Effect, Input, Notice, ObservedSubscription, Proration, UnconfirmedPrice};

/// Whether a plan is the smaller one: cheaper, or as dear with a lower limit.
pub fn is_smaller(wanted: &PlanSpec, current: Option<&PlanSpec>, in_force: Option<&Limits>) -> bool {
    // Without a limit is more than any limit.
    let below = |new: Option<i64>, there: Option<i64>| new.is_some_and(|new| there.is_none_or(|there| new < there));
    let lower = |there: &Limits| Unit::iter().any(|unit| below(wanted.limits.of(unit), there.of(unit)));
    match current.map(|plan| plan.monthly_price.amount.cmp(&wanted.monthly_price.amount)) {
        Some(std::cmp::Ordering::Greater) => true,
        Some(std::cmp::Ordering::Less) => false,
        Some(std::cmp::Ordering::Equal) | None => in_force.is_some_and(lower),
    }
}

fn goes_down(input: &Input, wanted: &PlanSpec) -> bool {
    is_smaller(wanted, input.plan, input.tenant.status.config.as_ref().map(|c| &c.limits))
}

/// Decides about the plan of an Active tenant. None if nothing is to be done now.
pub fn decide(input: &Input) -> Option<Decision> {
    let (tenant, wish) = (input.tenant, input.tenant.spec.plan.as_str());
    let change = tenant.status.plan_change.as_ref();
    let state = change.filter(|change| &*change.plan == wish).map(|change| change.state);
    let at_stripe = |c: &PlanChange| matches!(c.state, State::Preparing | State::Scheduled | State::Unconfirmed);
    if change.is_some_and(at_stripe) && state.is_none() {
        return undo(input);
    }
    if wish == tenant.plan_in_force() {
        return in_force(input);
    }
    if let Some(decision) = record(input, tenant.plan_in_force()) {
        return Some(decision);
    }
    let answered = change.is_some_and(|c| c.retry_token == tenant.retry_token);
    match (state, input.wanted) {
        (Some(State::Declined), _) if answered => None,
        (Some(State::Unconfirmed), Some(wanted)) if answered => confirmed(input, wanted),
        (Some(State::Preparing), Some(wanted)) => prepare(input, wanted),
        (Some(State::Scheduled), Some(wanted)) => {
            (due(input) && moving(input, wanted).is_none()).then(|| start(input, wanted)).flatten()
        }
        (_, wanted) => begin(input, wanted),
    }
}

/// The spec keeps the plan in force, which outlives the status, while it may name another one.
pub fn record(input: &Input, plan: &str) -> Option<Decision> {
    let known = input.tenant.spec.plan_in_force.as_deref() == Some(plan);
    (!known).then(|| Decision::Act(vec![Effect::RecordPlan { plan: plan.to_owned() }]))
}

fn begin(input: &Input, wanted: Option<&PlanSpec>) -> Option<Decision> {
    let tenant = input.tenant;
    if let Some(obstacle) = impossible(tenant, input.plan, wanted, &input.policy.regions) {
        return blocked(input, &obstacle);
    }
    let wanted = wanted?;
    let later = goes_down(input, wanted) && wanted.downgrades == Downgrades::AtPeriodEnd;
    let fit = if later { Fit::Fits } else { fit(input, wanted) };
    if input.by_stripe() {
        let shown = tenant.status.plan_change.as_ref().is_some_and(|c| c.state == State::Blocked);
        let Some(billing) = &input.observed.billing else {
            let known = shown && !input.observed.resync;
            return match &fit {
                Fit::Not(obstacle) if known => blocked(input, obstacle),
                Fit::NotCounted if known => Some(Decision::Act(vec![Effect::CountStored])),
                Fit::NotCounted => Some(Decision::Act(vec![Effect::ReadBilling, Effect::CountStored])),
                Fit::Fits | Fit::Not(_) => Some(Decision::Act(vec![Effect::ReadBilling])),
            };
        };
        if Standing::of(billing) != Standing::Good {
            let message = "The change begins once the subscription is paid".into();
            return blocked(input, &Obstacle { reason: MISSING, message, asks_again: false });
        }
        if let Some(subscription) = billing.subscription.as_ref().filter(|s| pays_for(s, wanted)) {
            // Scheduled already, of which a lost status knows nothing.
            if subscription.plan_before.as_deref() == Some(tenant.plan_in_force()) {
                return scheduled(input, subscription.period_ends_at);
            }
            // Bought already, with a new subscription after one that ended.
            return moving(input, wanted).map_or_else(|| start(input, wanted), |obstacle| blocked(input, &obstacle));
        }
    }
    if !later && let Some(obstacle) = moving(input, wanted) {
        return blocked(input, &obstacle);
    }
    match fit {
        Fit::NotCounted => Some(Decision::Act(vec![Effect::CountStored])),
        Fit::Not(obstacle) => blocked(input, &obstacle),
        Fit::Fits if later => {
            let message = format!("The change to {} at the end of the period is being prepared", tenant.spec.plan);
            note(input, State::Preparing, None, "Preparing", &message).changed()
        }
        Fit::Fits => start(input, wanted),
    }
}

/// Enters the phase of the change, which shows in the status what happens next.
fn start(input: &Input, wanted: &PlanSpec) -> Option<Decision> {
    let (tenant, name) = (input.tenant, &input.tenant.spec.plan);
    let down = goes_down(input, wanted);
    let scheduled = tenant.status.plan_change.as_ref().and_then(|c| c.effective_at);
    let message = format!("Moving from {} to {name}", tenant.plan_in_force());
    let mut draft = note(input, State::Running, scheduled, "Running", &message);
    dunning::show(input, &mut draft);
    let (phase, event) =
        if down { (Phase::Downgrading, EventType::Downgrade) } else { (Phase::Upgrading, EventType::Upgrade) };
    draft.enter(phase, event, input.asked_by(), &message);
    // A retry of this is no retry of anything else later.
    if let Some(run) = &mut draft.status.provisioning {
        run.retry_token.clone_from(&tenant.retry_token);
    }
    draft.summary(Summary::Changing, &phase.to_string(), &message);
    draft.changed()
}

/// Whether a subscription is one to this plan.
pub fn pays_for(subscription: &ObservedSubscription, plan: &PlanSpec) -> bool {
    subscription.price.is_some() && subscription.price == plan.stripe_price_id
}

/// Whether a subscription says that it is one to this plan. A price that was switched at Stripe takes no name along,
/// and a lost status is made again by the name.
pub fn names(subscription: &ObservedSubscription, plan: &str) -> bool {
    subscription.plan.as_deref() == Some(plan)
}

/// Stripe changes the price once the customer has confirmed the payment, and the plan follows.
fn confirmed(input: &Input, wanted: &PlanSpec) -> Option<Decision> {
    let over = due(input);
    let Some(billing) = &input.observed.billing else {
        return over.then(|| Decision::Act(vec![Effect::ReadBilling]));
    };
    let subscription = billing.subscription.as_ref()?;
    if pays_for(subscription, wanted) {
        return start(input, wanted);
    }
    let waits = subscription.unconfirmed.is_some() && !over;
    let late = || declined(input, "ConfirmationMissing", "The payment was not confirmed in time").changed();
    (!waits).then(late).flatten()
}

/// Served by the plan before until the customer has confirmed the payment of this one.
pub fn unconfirmed(input: &Input, pending: &UnconfirmedPrice) -> Decision {
    let plan = &input.tenant.spec.plan;
    let message = format!(
        "The customer's bank asks them to confirm the payment for plan {plan}, until {}, at status.planChange.confirmUrl. The \
         plan changes once they have",
        pending.expires_at
    );
    let mut draft = note(input, State::Unconfirmed, Some(pending.expires_at), "ConfirmationRequired", &message);
    if let Some(change) = &mut draft.status.plan_change {
        change.confirm_url.clone_from(&pending.url);
    }
    served_as_before(&mut draft, &message);
    draft.changed().unwrap_or(Decision::Wait(None))
}

/// A draft that says where the change stands.
pub fn note<'a>(
    input: &'a Input<'a>,
    state: State,
    effective_at: Option<Timestamp>,
    reason: &str,
    message: &str,
) -> Draft<'a> {
    let (mut draft, plan) = (Draft::new(input), input.tenant.spec.plan.as_str());
    let before = draft.status.plan_change.take().filter(|c| c.state == state && &*c.plan == plan);
    // A new value of the annotation tries again.
    let answers = matches!(state, State::Declined | State::Unconfirmed);
    draft.status.plan_change = Some(PlanChange {
        from: input.tenant.plan_in_force().into(),
        plan: plan.into(),
        state,
        since: before.map_or(input.now, |c| c.since),
        effective_at,
        confirm_url: None,
        retry_token: input.tenant.retry_token.clone().filter(|_| answers),
    });
    draft.condition(PLAN_IN_FORCE, ConditionStatus::False, reason, message);
    draft
}

/// Shows the obstacle and checks it again whenever something changes. The tenant's other work goes on.
fn blocked(input: &Input, obstacle: &Obstacle) -> Option<Decision> {
    let noted = note(input, State::Blocked, None, obstacle.reason, &obstacle.message).changed();
    noted.or_else(|| obstacle.asks_again.then_some(Decision::Wait(Some(input.policy.notice_retry))))
}

/// The plan of the spec is in force. What was noted of another wish is over.
fn in_force(input: &Input) -> Option<Decision> {
    let over = |change: &PlanChange| change.state != State::Applied;
    input.tenant.status.plan_change.as_ref().filter(|change| over(change))?;
    forget(input)
}

fn forget(input: &Input) -> Option<Decision> {
    let mut draft = Draft::new(input);
    draft.status.plan_change = None;
    draft.condition(PLAN_IN_FORCE, ConditionStatus::True, "InForce", &is_in_force(input.tenant.plan_in_force()));
    draft.changed()
}

pub fn is_in_force(plan: &str) -> String {
    format!("Plan {plan} is in force")
}

/// Undoes a change that was taken back: Stripe bills the plan in force again.
fn undo(input: &Input) -> Option<Decision> {
    if input.by_stripe() {
        let Some(billing) = &input.observed.billing else { return Some(Decision::Act(vec![Effect::ReadBilling])) };
        let elsewhere = |s: &ObservedSubscription| input.plan.is_some_and(|plan| !pays_for(s, plan));
        // A payment that was confirmed just before the change was taken back is not given away: the comparison of the
        // price follows it, or shows it to a person.
        let asked = input.tenant.status.plan_change.as_ref().is_some_and(|change| change.state == State::Unconfirmed);
        let open = |s: &ObservedSubscription| s.unconfirmed.is_some() || (elsewhere(s) && !asked);
        if Standing::of(billing) != Standing::Ended
            && input.plan.is_some_and(|plan| plan.stripe_price_id.is_some())
            && billing.subscription.as_ref().is_some_and(open)
        {
            let plan = input.tenant.plan_in_force().to_owned();
            let rolled = billing.subscription.as_ref().is_some_and(|s| rolled(input, s));
            // The period that has begun is paid at the smaller price, and what is left of it costs the difference.
            let proration = if rolled { Proration::NextInvoice } else { Proration::None };
            return Some(Decision::Act(vec![Effect::SwitchPrice { plan, proration }]));
        }
    }
    forget(input)
}

/// Stripe bills the smaller plan from the next period on; the limits follow then.
fn prepare(input: &Input, wanted: &PlanSpec) -> Option<Decision> {
    let tenant = input.tenant;
    let mut end = tenant.status.quota.as_ref().map(|quota| quota.period_at(input.now).1);
    if input.by_stripe() {
        let Some(billing) = &input.observed.billing else { return Some(Decision::Act(vec![Effect::ReadBilling])) };
        // Without a subscription to change, the suspension is next.
        let subscription = billing.subscription.as_ref().filter(|_| Standing::of(billing) == Standing::Good)?;
        if !pays_for(subscription, wanted) {
            let plan = tenant.spec.plan.clone();
            return Some(Decision::Act(vec![Effect::SwitchPrice { plan, proration: Proration::AtPeriodEnd }]));
        }
        end = subscription.period_ends_at.or(end);
    }
    scheduled(input, end)
}

fn scheduled(input: &Input, end: Option<Timestamp>) -> Option<Decision> {
    let tenant = input.tenant;
    let end = end.unwrap_or(input.now).max(input.now);
    let message = format!("The tenant moves to {} at the end of the period, {end}", tenant.spec.plan);
    note(input, State::Scheduled, Some(end), "Scheduled", &message).changed()
}

/// Whether the moment of a scheduled change has come: by the clock, or because Stripe has begun the next period.
fn due(input: &Input) -> bool {
    let Some(change) = &input.tenant.status.plan_change else { return false };
    let subscription = input.observed.billing.as_ref().and_then(|b| b.subscription.as_ref());
    change.effective_at.is_some_and(|at| input.until(at) <= 0)
        || subscription.is_some_and(|s| next_period_begun(change, s))
}

/// Whether Stripe is past the period at whose end a change was scheduled.
pub fn next_period_begun(change: &PlanChange, subscription: &ObservedSubscription) -> bool {
    let scheduled = change.effective_at.filter(|_| change.state == State::Scheduled);
    scheduled.zip(subscription.period_ends_at).is_some_and(|(at, end)| end > at)
}

/// Whether Stripe has begun a period at the price of a smaller plan that was asked for and is not in force.
fn rolled(input: &Input, subscription: &ObservedSubscription) -> bool {
    let Some(change) = &input.tenant.status.plan_change else { return false };
    // Of a change that was not written down as scheduled, Stripe knows when its period ends.
    let unwritten = change.state == State::Preparing && subscription.plan_before.is_none();
    next_period_begun(change, subscription) || unwritten
}

pub fn declined<'a>(input: &'a Input<'a>, reason: &str, why: &str) -> Draft<'a> {
    let before = input.tenant.plan_in_force();
    let message = format!(
        "The tenant stays on {before}: {why}. To try again, fix the cause and run `kubectl tenant retry {}`; to stay on \
         {before}, set spec.plan to it",
        input.tenant.name
    );
    let mut draft = note(input, State::Declined, None, reason, &message);
    served_as_before(&mut draft, &message);
    draft
}

fn served_as_before(draft: &mut Draft, message: &str) {
    draft.billing_answers();
    draft.enter(Phase::Active, EventType::Activate, TriggeredBy::System, message);
    draft.summary(Summary::Ready, "Active", "The tenant is ready for use");
}

/// The notice to the customer about a change.
pub fn news(input: &Input) -> Option<Notice> {
    let change = input.tenant.status.plan_change.as_ref()?;
    let notice = match change.state {
        State::Applied => Notice::PlanChanged(change.since),
        State::Scheduled => Notice::PlanScheduled(change.since),
        State::Declined => Notice::PlanDeclined(change.since),
        State::Unconfirmed => Notice::PlanUnconfirmed(change.since),
        State::Blocked | State::Preparing | State::Running => return None,
    };
    notices::timely(input, change.since).then_some(notice)
}

/// Seconds until a scheduled change is due.
pub fn wait(input: &Input) -> Option<i64> {
    let dated = |c: &&PlanChange| matches!(c.state, State::Scheduled | State::Unconfirmed);
    let scheduled = input.tenant.status.plan_change.as_ref().filter(dated);
    scheduled.and_then(|c| c.effective_at).map(|at| input.until(at)).filter(|left| *left > 0)
}
