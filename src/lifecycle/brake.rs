//! The brake. A mistake in an account, a key or a clock affects many tenants at once; customers who stop paying come
//! one by one. If too many tenants would be suspended, failed, closed or erased within a while, the brake holds the
//! decision for each further tenant until an admin confirms it.

use std::collections::BTreeSet;

use super::concerns::verification::failed_unconfirmed;
use super::concerns::{dispute, notices};
use super::status::Draft;
use super::{Decision, Input, Observed, View};
use crate::api::conditions::HELD;
use crate::api::facts::{Awaited, Held, SuspendedFor};
use crate::api::phase::TriggeredBy;
use crate::api::tenant::Desired;
use crate::api::{ConditionStatus, Phase, TenantStatus, Timestamp};

pub use crate::api::facts::Harm;

// By hand: each harm has three texts, and strum derives one.
impl Harm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Suspend, Self::Fail, Self::Close, Self::Erase];

    /// The reason in the condition.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Suspend => "SuspensionHeld",
            Self::Fail => "FailureHeld",
            Self::Close => "ClosingHeld",
            Self::Erase => "ErasureHeld",
        }
    }

    /// The label of the metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Suspend => "suspension",
            Self::Fail => "failure",
            Self::Close => "closing",
            Self::Erase => "erasure",
        }
    }

    fn past(self) -> &'static str {
        match self {
            Self::Suspend => "suspended",
            Self::Fail => "failed and refunded",
            Self::Close => "closed",
            Self::Erase => "erased",
        }
    }
}

/// Whether there is something to lose: it was paid for or served. `paid_at` is written once the address is confirmed.
fn is_customer(status: &TenantStatus) -> bool {
    let paid_unconfirmed = status.awaiting.is_some_and(|awaiting| awaiting.what == Awaited::ConfirmationOfPaid);
    status.paid_at.is_some() || status.provisioned_at.is_some() || paid_unconfirmed
}

/// What a status does to its tenant. What an admin asks for by name is no harm: a suspension, or the erasure of this
/// tenant.
pub fn harm(tenant: &View, after: &TenantStatus) -> Option<Harm> {
    let before = &tenant.status;
    let by_system = after.transitions.last().is_some_and(|t| t.triggered_by == TriggeredBy::System);
    let by_name = tenant.deleting && tenant.erase;
    if !is_customer(before) {
        return None;
    }
    if before.erasure.is_none() && after.erasure.is_some() {
        return (!by_name).then_some(Harm::Erase);
    }
    if before.phase == after.phase {
        return None;
    }
    match after.phase? {
        Phase::Suspended => by_system.then_some(Harm::Suspend),
        Phase::Failed => by_system.then_some(Harm::Fail),
        Phase::Deleting if tenant.deleting => (!by_name).then_some(Harm::Erase),
        Phase::Deleting => (tenant.spec.desired == Desired::Deleted).then_some(Harm::Close),
        Phase::PendingPayment
        | Phase::Provisioning
        | Phase::Active
        | Phase::Upgrading
        | Phase::Downgrading
        | Phase::Deleted => None,
    }
}

/// The harm that a tenant's status records, and its time. A controller that starts counts from these.
pub fn met(status: &TenantStatus) -> Vec<(Harm, Timestamp)> {
    let of = |t: &crate::api::phase::Transition| {
        let by_system = t.triggered_by == TriggeredBy::System;
        let harm = match t.to_state {
            Phase::Suspended if by_system => Harm::Suspend,
            Phase::Failed if by_system => Harm::Fail,
            Phase::Deleting => Harm::Close,
            _ => return None,
        };
        Some((harm, t.timestamp))
    };
    let erased = status.erasure.as_ref().map(|erasure| (Harm::Erase, erasure.started_at));
    // A tenant that failed because its address was not confirmed was paid for, and no longer waits.
    let counts = is_customer(status) || failed_unconfirmed(status);
    if counts { status.transitions.iter().filter_map(of).chain(erased).collect() } else { Vec::new() }
}

/// The harm that is held for a tenant, and the value of the annotation that confirms it. The value holds for this time
/// only.
pub fn held(status: &TenantStatus) -> Option<(Harm, String)> {
    let Held { harm, since } = status.held?;
    Some((harm, format!("{}.{}", harm.reason(), since.as_second())))
}

/// The decision of one concern: None while it is held and shown, so that it holds up no other.
pub fn permit(input: &Input, decision: Decision) -> Option<Decision> {
    let Decision::Record(after) = &decision else { return Some(decision) };
    match held_now(input, after) {
        Some(harm) => Some(hold(input, harm, after)).filter(|shown| !matches!(shown, Decision::Wait(_))),
        None => Some(decision),
    }
}

/// The harm that a status would do to its tenant, if the brake holds that kind now.
fn held_now(input: &Input, after: &TenantStatus) -> Option<Harm> {
    let shown = held(&input.tenant.status);
    let harm = harm(input.tenant, after).filter(|harm| input.observed.held.contains(harm))?;
    (!is_confirmed(input, harm, shown.as_ref())).then_some(harm)
}

/// Whether the held harm would still happen without the brake.
fn is_due(input: &Input) -> bool {
    let observed = Observed { held: BTreeSet::new(), ..input.observed.clone() };
    let free = Input { observed: &observed, ..*input };
    matches!(super::next(&free), Decision::Record(after) if harm(input.tenant, &after).is_some())
}

/// The decision, or the status to show while the brake holds it.
pub fn apply(input: &Input, decision: Decision) -> Decision {
    let shown = held(&input.tenant.status);
    match decision {
        Decision::Record(mut after) => {
            if let Some(harm) = held_now(input, &after) {
                return hold(input, harm, &after);
            }
            if harm(input.tenant, &after).is_some() {
                after.held = None;
                after.conditions.retain(|c| c.type_ != HELD);
            }
            Decision::Record(after)
        }
        wait @ Decision::Wait(_) if shown.is_some() && is_due(input) => {
            notices::wait_at_most(wait, Some(input.policy.resync))
        }
        // The reason for the harm is gone, unless a failure kept the controller from checking it, or disputes are not
        // read yet.
        Decision::Wait(wait) if shown.is_some() && input.observed.failure.is_none() && !dispute::is_unread(input) => {
            let mut draft = Draft::new(input);
            draft.status.held = None;
            draft.forget(HELD);
            draft.changed().unwrap_or(Decision::Wait(wait))
        }
        other => other,
    }
}

fn is_confirmed(input: &Input, harm: Harm, shown: Option<&(Harm, String)>) -> bool {
    shown.is_some_and(|(held, token)| *held == harm && input.tenant.confirmed.as_ref() == Some(token))
}

/// The reason of the change, as the tenant would show it.
fn why(harm: Harm, after: &TenantStatus) -> &str {
    match harm {
        Harm::Suspend => after.suspended_for.map_or("", SuspendedFor::reason),
        Harm::Fail => after.provisioning.as_ref().and_then(|run| run.reason.as_deref()).unwrap_or_default(),
        Harm::Close => "Closed",
        Harm::Erase if after.erasure.is_some() => "Erasing",
        Harm::Erase => "Deleting",
    }
}

fn hold(input: &Input, harm: Harm, after: &TenantStatus) -> Decision {
    let why = why(harm, after);
    let message = format!(
        "The tenant would be {} ({why}). This is held because too many tenants would be {} within a short time. Check that the \
         accounts, keys and clocks are right; then confirm it with `kubectl tenant confirm {}`, or for all with \
         `kubectl tenant confirm --all`",
        harm.past(),
        harm.past(),
        input.tenant.name
    );
    let mut draft = Draft::new(input);
    let since = draft.status.held.map_or(input.now, |held| held.since);
    draft.status.held = Some(Held { harm, since });
    draft.condition(HELD, ConditionStatus::True, harm.reason(), &message);
    // Provisioning goes on trying; what the others wait for is found by the comparison.
    let again = if harm == Harm::Fail { input.policy.hold_retry } else { input.policy.resync };
    draft.changed().unwrap_or(Decision::Wait(Some(again)))
}
