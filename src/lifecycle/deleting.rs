//! Taking a tenant away: every provider first, then the object.

use super::status::{Draft, Summary};
use super::{Decision, Effect, Input};
use crate::api::conditions::CLEANED_UP;
use crate::api::phase::{EventType, TriggeredBy};
use crate::api::{ConditionStatus, Phase};

pub fn decide(input: &Input) -> Decision {
    if !input.tenant.finalizer {
        return Decision::Wait(None);
    }
    if input.tenant.status.phase != Some(Phase::Deleting) {
        let mut draft = Draft::new(input);
        draft.enter(Phase::Deleting, EventType::Delete, TriggeredBy::Admin, "the object's deletion was asked for");
        draft.status.checkout = None;
        draft.summary(Summary::Reconciling, "Deleting", "removing the subscription, the namespace and the Secrets");
        return draft.changed().unwrap_or(Decision::Wait(None));
    }
    let mut wanted = vec![Effect::DeleteNamespace, Effect::DeleteSecrets];
    if input.by_stripe() {
        wanted.push(Effect::CancelBilling);
    }
    wanted.retain(|effect| !input.facts.done.contains(effect));
    if wanted.is_empty() {
        return Decision::Act(vec![Effect::RemoveFinalizer]);
    }
    let Some(failure) = &input.facts.failure else { return Decision::Act(wanted) };
    let left: Vec<_> = wanted.iter().map(|effect| left_behind(effect, input)).collect();
    let left = left.join(", ");
    let mut draft = Draft::new(input);
    if input.tenant.force_delete {
        let message = format!("forced: left behind are {left}");
        draft.condition(CLEANED_UP, ConditionStatus::False, "Forced", &message);
        draft.status.message = Some(message);
        return draft.changed().unwrap_or(Decision::Act(vec![Effect::RemoveFinalizer]));
    }
    let message = format!(
        "still there: {left}; {}; it is tried again, and the annotation {}=true gives up on them",
        failure.message,
        crate::api::FORCE_DELETE_ANNOTATION
    );
    draft.condition(CLEANED_UP, ConditionStatus::False, &failure.reason, &message);
    draft.summary(Summary::Reconciling, &failure.reason, &message);
    draft.changed().unwrap_or(Decision::Wait(Some(input.policy.notice_retry)))
}

fn left_behind(effect: &Effect, input: &Input) -> String {
    match effect {
        Effect::DeleteNamespace => format!("the Pinecone namespace {}", input.tenant.pinecone_namespace()),
        Effect::DeleteSecrets => "the tenant's Secrets".into(),
        _ => "the Stripe subscription".into(),
    }
}
