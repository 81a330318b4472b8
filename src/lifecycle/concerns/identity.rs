//! Decides who owns a tenant id, before anything else. The controller does nothing to a tenant for an object that
//! cannot prove that the tenant is its own.

use crate::api::ConditionStatus;
use crate::api::conditions::{CLEANED_UP, IDENTITY_VERIFIED};
use crate::lifecycle::status::{Draft, Summary};
use crate::lifecycle::view::Claim;
use crate::lifecycle::{Decision, Effect, Input};

/// None when the identity is settled and the phase decides.
pub fn decide(input: &Input) -> Option<Decision> {
    let tenant = input.tenant;
    match tenant.claim() {
        Claim::Unproven => Some(refuse(input, "TenantIdNotOwned", &unproven(input))),
        Claim::Outranked => Some(refuse(input, "TenantIdConflict", &outranked(input))),
        Claim::Unassigned | Claim::Rightful if tenant.deleting => None,
        Claim::Unassigned | Claim::Rightful if !tenant.identified() => Some(assign(input)),
        Claim::Unassigned | Claim::Rightful => rivals(input),
    }
}

fn assign(input: &Input) -> Decision {
    let Some(failure) = &input.observed.failure else {
        return Decision::Act(vec![Effect::AssignIdentity { plan: plan_to_record(input) }]);
    };
    let mut draft = Draft::new(input);
    draft.ask_again();
    draft.condition(IDENTITY_VERIFIED, ConditionStatus::Unknown, &failure.reason, &failure.message);
    draft.summary(Summary::Reconciling, &failure.reason, &failure.message);
    draft.changed().unwrap_or(Decision::Wait(Some(input.backoff())))
}

/// The plan in force, of a tenant that is served or about to be. Before that the spec may still be corrected, so no
/// plan is written.
fn plan_to_record(input: &Input) -> Option<String> {
    let (tenant, regions) = (input.tenant, &input.policy.regions);
    let plan = tenant.plan_in_force();
    let sellable = input.plan.is_some_and(|there| regions.unsupported(plan, &there.region).is_none());
    let approved = !input.by_stripe() && tenant.spec.billing.approved && sellable;
    let settled = tenant.status.config.is_some() || approved;
    (tenant.spec.plan_in_force.is_none() && settled).then(|| plan.to_owned())
}

fn unproven(input: &Input) -> String {
    let tenant = input.tenant;
    format!(
        "spec.tenantId {} was not issued to {}/{}, so nothing of that tenant is used. To create a new tenant, delete \
         this object and create it without spec.tenantId. If it was moved or renamed, run \
         `kubectl tenant adopt {} --namespace {} --operator-namespace RELEASE-NAMESPACE`.{}",
        tenant.tenant_id(),
        tenant.namespace,
        tenant.name,
        tenant.name,
        tenant.namespace,
        also(input)
    )
}

fn outranked(input: &Input) -> String {
    format!(
        "spec.tenantId {} is served for an older object that holds it too, so nothing is done for this one. Delete one \
         of them; the tenant's data stay with the other.{}",
        input.tenant.tenant_id(),
        also(input)
    )
}

fn also(input: &Input) -> String {
    let rivals = &input.tenant.credentials.rivals;
    match input.tenant.credentials.more_rivals {
        _ if rivals.is_empty() => String::new(),
        0 => format!(" Also claimed by: {}.", rivals.join(", ")),
        more => format!(" Also claimed by: {} and {more} others.", rivals.join(", ")),
    }
}

/// Shows the false claim and does nothing else. A deletion of the object deletes nothing of the tenant that it claimed.
fn refuse(input: &Input, reason: &str, message: &str) -> Decision {
    let mut draft = Draft::new(input);
    draft.ask_again();
    draft.condition(IDENTITY_VERIFIED, ConditionStatus::False, reason, message);
    draft.summary(Summary::Stalled, reason, message);
    if !input.tenant.deleting {
        return draft.changed().unwrap_or(Decision::Wait(None));
    }
    if !input.tenant.finalizer {
        return Decision::Wait(None);
    }
    draft.condition(
        CLEANED_UP,
        ConditionStatus::False,
        reason,
        "Nothing was deleted: the tenant does not belong to this object",
    );
    draft.changed().unwrap_or(Decision::Act(vec![Effect::RemoveFinalizer]))
}

/// The rightful object goes on, and shows who else claims its tenant.
fn rivals(input: &Input) -> Option<Decision> {
    let mut draft = Draft::new(input);
    let news = if input.tenant.credentials.rivals.is_empty() {
        let message = "The tenant id was issued to this object";
        draft.correct(IDENTITY_VERIFIED, ConditionStatus::True, "Issued", message)
    } else {
        let message = format!("The tenant belongs to this object.{} They are not served.", also(input));
        draft.show(IDENTITY_VERIFIED, ConditionStatus::True, "ClaimedElsewhere", &message)
    };
    news.then(|| draft.changed()).flatten()
}
