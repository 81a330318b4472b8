//! Upgrading and Downgrading. The tenant is served by the plan before while its documents move to the model of the new
//! plan and Stripe bills the new price. If one of them fails, the plan before stays in force and a condition says why.

use crate::api::ConditionStatus;
use crate::api::Phase;
use crate::api::conditions::PLAN_IN_FORCE;
use crate::api::phase::{EventType, TriggeredBy};
use crate::api::plan::{PlanSpec, Upgrades};
use crate::api::status::{PlanChangeState as State, PlanConfig};
use crate::api::tenant::Desired;
use crate::api::usage::Quota;
use crate::lifecycle::concerns::dunning::{MISSING, Standing};
use crate::lifecycle::concerns::migration::{self, Advance};
use crate::lifecycle::concerns::plan_change::{declined, is_in_force, names, note, pays_for, record, unconfirmed};
use crate::lifecycle::concerns::plan_obstacles::PLAN_NOT_FOUND;
use crate::lifecycle::status::{Draft, Summary};
use crate::lifecycle::{
    Blame, Decision, Effect, Failure, Input, ObservedSubscription, Proration, Step, UnconfirmedPrice,
};

/// Decides for a tenant in `Upgrading` or `Downgrading`.
pub fn decide(input: &Input) -> Decision {
    let Some(wanted) = input.wanted else {
        let message = format!("Plan {:?} was deleted meanwhile", input.tenant.spec.plan);
        return back(input, PLAN_NOT_FOUND, &message);
    };
    if let Some(failure) =
        input.observed.failure_besides(&Effect::EnsureApiKey).filter(|failure| failure.step == Step::Data)
    {
        return waiting(input, failure);
    }
    if let Some(decision) = embed(input, wanted) {
        return decision;
    }
    if !input.by_stripe() {
        return apply(input, wanted);
    }
    if let Some(failure) = input.observed.failure_besides(&Effect::EnsureApiKey) {
        let ours = failure.step == Step::Billing;
        if ours && failure.blame == Blame::Call && !failure.retryable {
            return back(input, "PaymentDeclined", &failure.message);
        }
        return waiting(input, failure);
    }
    let Some(billing) = &input.observed.billing else { return Decision::Act(vec![Effect::ReadBilling]) };
    match billing.subscription.as_ref().filter(|_| Standing::of(billing) == Standing::Good) {
        Some(subscription) if pays_for(subscription, wanted) && names(subscription, &input.tenant.spec.plan) => {
            apply(input, wanted)
        }
        Some(ObservedSubscription { unconfirmed: Some(pending), .. }) if asked_for(pending, wanted) => {
            unconfirmed(input, pending)
        }
        Some(_) => {
            let plan = input.tenant.spec.plan.clone();
            Decision::Act(vec![Effect::SwitchPrice { plan, proration: proration(input, wanted) }])
        }
        None => back(input, MISSING, "The subscription is not paid"),
    }
}

/// Whether a change of price is the one to this plan, and the customer's page to confirm it is known.
fn asked_for(pending: &UnconfirmedPrice, plan: &PlanSpec) -> bool {
    pending.url.is_some() && plan.stripe_price_id.as_ref() == Some(&pending.price)
}

fn waiting(input: &Input, failure: &Failure) -> Decision {
    let mut draft = Draft::new(input);
    draft.failure(failure);
    let message = format!("Waiting to move to {}: {}", input.tenant.spec.plan, failure.message);
    draft.summary(Summary::Changing, &failure.reason, &message);
    draft.changed().unwrap_or(Decision::Wait(Some(input.backoff())))
}

/// Moves the documents to the model of the new plan before anything is charged. None once that is done, or if it is not
/// needed.
fn embed(input: &Input, wanted: &PlanSpec) -> Option<Decision> {
    let spec = &input.tenant.spec;
    match migration::copy(input, migration::in_plan(input, wanted)) {
        Advance::Done => None,
        Advance::Hopeless(why) => Some(back(input, "DataNotMigrated", &why)),
        Advance::Next(_) | Advance::Working if !spec.is_wanted() => {
            let state = if spec.desired == Desired::Deleted { "closed" } else { "suspended" };
            Some(back(input, "Canceled", &format!("The tenant is {state}")))
        }
        Advance::Next(decision) => Some(decision),
        Advance::Working => Some(Decision::Wait(migration::wait(input))),
    }
}

/// How Stripe settles the rest of the period.
fn proration(input: &Input, wanted: &PlanSpec) -> Proration {
    let scheduled = input.tenant.status.plan_change.as_ref().is_some_and(|c| c.effective_at.is_some());
    match input.tenant.status.phase {
        Some(Phase::Upgrading) if wanted.upgrades == Upgrades::AfterPayment => Proration::ChargeNow,
        // The period at whose end the change was scheduled is over.
        Some(Phase::Downgrading) if scheduled => Proration::None,
        _ => Proration::NextInvoice,
    }
}

fn apply(input: &Input, wanted: &PlanSpec) -> Decision {
    let plan = input.tenant.spec.plan.as_str();
    if let Some(decision) = migration::pin(input, wanted).or_else(|| record(input, plan)) {
        return decision;
    }
    match migration::switch(input, migration::in_plan(input, wanted)) {
        Advance::Next(decision) => return decision,
        Advance::Working => return Decision::Wait(None),
        Advance::Hopeless(why) => return migration::fail(input, &why).unwrap_or(Decision::Wait(None)),
        Advance::Done => {}
    }
    let mut draft = note(input, State::Applied, None, "", "");
    draft.status.config = Some(PlanConfig::of(plan, wanted));
    let quota = draft.status.quota.get_or_insert_with(|| Quota::begin(input.cycle(), input.now));
    (quota.queries_limit, quota.documents_limit) = (wanted.limits.queries_per_month, wanted.limits.documents);
    draft.billing_answers();
    if let Some(subscription) = input.observed.billing.as_ref().and_then(|b| b.subscription.as_ref()) {
        draft.subscribed(subscription);
    }
    let message = is_in_force(plan);
    draft.condition(PLAN_IN_FORCE, ConditionStatus::True, "InForce", &message);
    draft.enter(Phase::Active, EventType::Activate, TriggeredBy::System, &message);
    draft.summary(Summary::Ready, "Active", "The tenant is ready for use");
    draft.changed().unwrap_or(Decision::Wait(None))
}

/// The plan before stays in force.
fn back(input: &Input, reason: &str, why: &str) -> Decision {
    declined(input, reason, why).changed().unwrap_or(Decision::Wait(None))
}
