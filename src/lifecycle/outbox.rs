//! The transitions in the status are an outbox: each is shipped before the tenant rests and before its object goes, and
//! none leaves the status before that.

use super::concerns::notices;
use super::{Claim, Decision, Effect, Input, Observed};
use crate::api::TenantStatus;
use crate::api::phase::Transition;

/// Transitions that the status keeps, once they are shipped.
const KEPT: usize = 50;
/// Transitions that the status keeps at most, even if they are not shipped: an object has a limited size.
const MOST: usize = 1000;

/// The number of the last transition that is known to be shipped.
pub fn shipped(status: &TenantStatus, observed: &Observed) -> i64 {
    status.shipped_seq.unwrap_or(0).max(observed.shipped)
}

fn known(input: &Input) -> i64 {
    shipped(&input.tenant.status, input.observed)
}

/// Removes the oldest transitions if there are too many.
pub fn trim(input: &Input, transitions: &mut Vec<Transition>) {
    let shipped = if input.policy.outbox { known(input) } else { i64::MAX };
    let surplus = transitions.len().saturating_sub(KEPT);
    let free = transitions.iter().take(surplus).take_while(|t| t.seq <= shipped).count();
    transitions.drain(..free.max(transitions.len().saturating_sub(MOST)));
}

/// The decision, or the shipping of transitions that has to come first.
pub fn ship(input: &Input, decision: Decision) -> Decision {
    let last = input.tenant.status.transitions.last().map_or(0, |t| t.seq);
    if !input.policy.outbox || last <= known(input) || input.tenant.claim() != Claim::Rightful {
        return decision;
    }
    let goes = matches!(&decision, Decision::Act(effects)
        if effects.iter().any(|effect| matches!(effect, Effect::RemoveFinalizer | Effect::DeleteTenant)));
    match decision {
        Decision::Wait(_) if input.observed.unshipped => {
            notices::wait_at_most(decision, Some(input.policy.notice_retry))
        }
        Decision::Wait(_) => Decision::Act(vec![Effect::ShipTransitions]),
        Decision::Act(_) if goes && !input.observed.unshipped => Decision::Act(vec![Effect::ShipTransitions]),
        Decision::Act(_) if goes && !input.tenant.force_delete => Decision::Wait(Some(input.policy.notice_retry)),
        other => other,
    }
}
