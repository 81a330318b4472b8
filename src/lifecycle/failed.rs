//! Given up: the money back, somebody told, and a way to start over.

use super::status::{Draft, Summary};
use super::{Decision, Effect, Input, Notice};
use crate::api::conditions::REFUNDED;
use crate::api::phase::{EventType, TriggeredBy};
use crate::api::tenant::Refund;
use crate::api::{ConditionStatus, Phase};

pub fn decide(input: &Input) -> Decision {
    if let Some(decision) = retry(input) {
        return decision;
    }
    if input.facts.failure.is_some() {
        return Decision::Wait(Some(input.policy.notice_retry));
    }
    if let Some(decision) = refund(input) {
        return decision;
    }
    let run = input.tenant.run();
    let notices = [Notice::FailedAlert(run.clone()), Notice::FailedMail(run)];
    let open: Vec<_> = notices.into_iter().filter(|n| !input.tenant.noted(n)).collect();
    let unsaid: Vec<_> = open.iter().filter(|n| input.facts.sent.contains(n)).cloned().collect();
    let untried: Vec<_> = open
        .iter()
        .filter(|n| !input.facts.sent.contains(n) && !input.facts.unsent.contains_key(n))
        .map(|n| Effect::Notify(n.clone()))
        .collect();
    if !untried.is_empty() {
        Decision::Act(untried)
    } else if !unsaid.is_empty() {
        Decision::Act(vec![Effect::MarkSent(unsaid)])
    } else if open.is_empty() {
        Decision::Wait(None)
    } else {
        Decision::Wait(Some(input.notice_wait()))
    }
}

/// A new value of the retry annotation starts over.
fn retry(input: &Input) -> Option<Decision> {
    let token = input.tenant.retry_token.as_ref()?;
    let answered = input.tenant.status.provisioning.as_ref().and_then(|p| p.retry_token.as_ref());
    if answered == Some(token) {
        return None;
    }
    let mut draft = Draft::new(input);
    draft.status.provisioning = Some(input.fresh_run());
    draft.enter(Phase::Provisioning, EventType::Provision, TriggeredBy::Admin, "a retry was asked for");
    draft.summary(Summary::Reconciling, "Provisioning", "a retry was asked for");
    draft.changed()
}

/// Nobody is charged for a tenant that is not served.
fn refund(input: &Input) -> Option<Decision> {
    if !input.by_stripe() || input.tenant.status.refund.is_some() {
        return None;
    }
    let facts = input.facts;
    let Some(billing) = &facts.billing else { return Some(Decision::Act(vec![Effect::ReadBilling])) };
    let paused = billing.subscription.as_ref().is_none_or(|s| s.paused);
    if !paused {
        return Some(Decision::Act(vec![Effect::PauseCollection]));
    }
    let Some(refund) = &facts.refund else { return Some(Decision::Act(vec![Effect::Refund])) };
    let mut draft = Draft::new(input);
    draft.status.refund = Some(Refund { amount: refund.amount, currency: refund.currency.clone(), at: input.now });
    if refund.amount == 0 {
        draft.condition(
            REFUNDED,
            ConditionStatus::True,
            "NothingPaid",
            "nothing had been paid, so nothing is given back; collection is paused",
        );
    } else {
        draft.condition(
            REFUNDED,
            ConditionStatus::True,
            "Refunded",
            "what was paid was given back; collection is paused",
        );
    }
    draft.changed()
}
