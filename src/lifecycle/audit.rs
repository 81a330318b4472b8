//! Finds inconsistencies in a tenant's record: a phase that lasts too long, a gap in its transitions, a transition that
//! does not exist.

use serde::Serialize;
use strum::IntoStaticStr;

use crate::api::tenant::BillingMode;
use crate::api::{Phase, Tenant, TenantStatus, Timestamp};

use super::is_known;

/// What is odd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// The thing, as a sentence.
    pub message: String,
}

/// A kind of inconsistency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, IntoStaticStr)]
pub enum FindingKind {
    /// A transition that does not exist.
    UnknownTransition,
    /// A transition does not begin where the one before ended.
    MissingTransition,
    /// A number of a transition is missing.
    Gap,
    /// The phase lasts longer than it should.
    Stuck,
    /// The tenant is served although its subscription is over.
    ServedUnpaid,
}

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// After a lost status, numbers go on from the time, far above any count.
const FROM_TIME: i64 = 1_000_000_000;

/// The inconsistencies of a tenant.
pub fn audit(tenant: &Tenant, now: Timestamp) -> Vec<Finding> {
    let Some(status) = &tenant.status else { return Vec::new() };
    let mut findings = Vec::new();
    let mut find = |kind, message: String| findings.push(Finding { kind, message });
    let mut before: Option<(Phase, i64)> = None;
    for t in &status.transitions {
        if !is_known(t.from_state, t.to_state, t.event_type) {
            find(
                FindingKind::UnknownTransition,
                format!(
                    "transition {} leads from {} to {}, which is not allowed",
                    t.seq,
                    name(t.from_state),
                    t.to_state
                ),
            );
        }
        if let Some((phase, seq)) = before {
            if t.from_state != Some(phase) {
                find(
                    FindingKind::MissingTransition,
                    format!(
                        "transition {} begins in {}, but the one before ended in {phase}",
                        t.seq,
                        name(t.from_state)
                    ),
                );
            }
            if t.seq != seq + 1 && !(t.seq > seq && t.seq >= FROM_TIME) {
                find(FindingKind::Gap, format!("transition {} follows {seq}", t.seq));
            }
        }
        before = Some((t.to_state, t.seq));
    }
    if status.phase != before.map(|(phase, _)| phase) {
        find(
            FindingKind::MissingTransition,
            format!(
                "the phase is {}, but the last transition led to {}",
                name(status.phase),
                name(before.map(|b| b.0))
            ),
        );
    }
    if let Some(message) = stuck(tenant, status, now) {
        find(FindingKind::Stuck, message);
    }
    if let Some(message) = unpaid(tenant, status) {
        find(FindingKind::ServedUnpaid, message);
    }
    findings
}

fn name(phase: Option<Phase>) -> String {
    phase.map_or_else(|| "nothing".into(), |phase| phase.to_string())
}

/// Whether the present phase lasts longer than it should.
fn stuck(tenant: &Tenant, status: &TenantStatus, now: Timestamp) -> Option<String> {
    let phase = status.phase?;
    let limit = match phase {
        // An unpaid signup is removed after a week; a manifest may wait for ever.
        Phase::PendingPayment if tenant.spec.login.is_some() => 8 * DAY,
        Phase::Provisioning => 2 * HOUR,
        // The longest retention of a Plan, and a day for the erasure.
        Phase::Deleting if status.erases_at.is_some() => 91 * DAY,
        Phase::Deleting | Phase::Upgrading | Phase::Downgrading => HOUR,
        Phase::Suspended => 90 * DAY,
        Phase::PendingPayment | Phase::Active | Phase::Failed | Phase::Deleted => return None,
    };
    let since = status.transitions.last()?.timestamp;
    (now.since(since) > limit).then(|| format!("{phase} since {since}"))
}

/// Whether the tenant is served although its subscription is over.
fn unpaid(tenant: &Tenant, status: &TenantStatus) -> Option<String> {
    let served = status.phase == Some(Phase::Active) && tenant.spec.billing.mode == BillingMode::Stripe;
    let word = status.subscription.as_deref().unwrap_or("unknown");
    let good = matches!(word, "trialing" | "active" | "past_due" | "incomplete");
    (served && !good).then(|| format!("Active, and the subscription is {word}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::phase::{EventType, Transition, TriggeredBy};

    const NOW: Timestamp = Timestamp::from_second(10_000_000);

    fn step(from: Option<Phase>, to: Phase, event_type: EventType, seq: i64) -> Transition {
        Transition {
            tenant_id: "t".into(),
            event_type,
            from_state: from,
            to_state: to,
            timestamp: NOW.plus(-60),
            triggered_by: TriggeredBy::System,
            reason: "".into(),
            seq,
        }
    }

    /// An Active tenant without a fault.
    fn sound() -> Tenant {
        let spec = serde_json::json!({"companyName": "A", "adminEmail": "a@b.example"});
        let mut tenant = Tenant::new("a", serde_json::from_value(spec).expect("a spec"));
        tenant.status = Some(TenantStatus {
            phase: Some(Phase::Active),
            subscription: Some("active".into()),
            transitions: vec![
                step(None, Phase::PendingPayment, EventType::Signup, 1),
                step(Some(Phase::PendingPayment), Phase::Provisioning, EventType::Provision, 2),
                step(Some(Phase::Provisioning), Phase::Active, EventType::Activate, 3),
            ],
            ..TenantStatus::default()
        });
        tenant
    }

    fn kinds(change: impl FnOnce(&mut TenantStatus)) -> Vec<&'static str> {
        let mut tenant = sound();
        change(tenant.status.as_mut().expect("a status"));
        audit(&tenant, NOW).iter().map(|finding| finding.kind.into()).collect()
    }

    #[test]
    fn a_sound_record_has_no_finding_and_each_fault_has_its_own() {
        assert_eq!(audit(&sound(), NOW), []);
        assert_eq!(kinds(|s| s.transitions[2].seq = 5), ["Gap"]);
        assert_eq!(kinds(|s| s.transitions[2].seq = 2), ["Gap"]);
        assert_eq!(kinds(|s| s.transitions[2].seq = FROM_TIME), [] as [&str; 0], "a lost status");
        assert_eq!(kinds(|s| drop(s.transitions.remove(1))), ["MissingTransition", "Gap"]);
        assert_eq!(kinds(|s| s.transitions[2].event_type = EventType::Fail), ["UnknownTransition"]);
        assert_eq!(kinds(|s| drop(s.transitions.pop())), ["MissingTransition"]);
        assert_eq!(kinds(|s| s.transitions.clear()), ["MissingTransition"]);
        assert_eq!(kinds(|s| s.subscription = Some("canceled".into())), ["ServedUnpaid"]);
        assert_eq!(kinds(|s| s.subscription = None), ["ServedUnpaid"]);
        let mut by_hand = sound();
        by_hand.spec.billing.mode = BillingMode::Manual;
        by_hand.status.as_mut().expect("a status").subscription = Some("manual".into());
        assert_eq!(audit(&by_hand, NOW), []);
        let mut new = sound();
        new.status = None;
        assert_eq!(audit(&new, NOW), []);
    }

    #[test]
    fn a_phase_that_lasts_too_long_is_stuck() {
        let stuck = |phase: Phase, seconds: i64, login: bool| {
            let mut tenant = sound();
            if login {
                tenant.spec.login = Some(crate::api::tenant::Login { secret_name: "a-login".into() });
            }
            let status = tenant.status.as_mut().expect("a status");
            status.phase = Some(phase);
            let last = status.transitions.last_mut().expect("one");
            (last.to_state, last.timestamp) = (phase, NOW.plus(-seconds));
            audit(&tenant, NOW).iter().any(|finding| finding.kind == FindingKind::Stuck)
        };
        for (phase, limit) in [
            (Phase::PendingPayment, 8 * DAY),
            (Phase::Provisioning, 2 * HOUR),
            (Phase::Deleting, HOUR),
            (Phase::Suspended, 90 * DAY),
        ] {
            assert!(stuck(phase, limit + 1, true) && !stuck(phase, limit, true), "{phase}");
        }
        assert!(!stuck(Phase::PendingPayment, 100 * DAY, false), "a manifest may wait for ever");
        assert!(!stuck(Phase::Active, 1000 * DAY, true) && !stuck(Phase::Failed, 1000 * DAY, true));
    }
}
