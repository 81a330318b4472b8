//! Every phase with every combination of observations: there is always an answer, always the same one, and it always
//! moves on.

use std::sync::Mutex;

use tenant_operator::api::phase::EventType;
use tenant_operator::api::{LinkKind, MailRequest, Phase, Timestamp};
use tenant_operator::lifecycle::{
    Claim, Decision, Effect, Notice, ObservedRefund, Samples, SessionState, TRANSITIONS, is_known,
};

use crate::case::{Case, NOW, failure, operator_fault, outage, session, subscription};

const PHASES: [Option<Phase>; 10] = [
    None,
    Some(Phase::PendingPayment),
    Some(Phase::Provisioning),
    Some(Phase::Active),
    Some(Phase::Upgrading),
    Some(Phase::Downgrading),
    Some(Phase::Suspended),
    Some(Phase::Failed),
    Some(Phase::Deleting),
    Some(Phase::Deleted),
];

type Change = fn(&mut Case);

/// Each group is one aspect; one of its variants holds.
fn aspects() -> Vec<Vec<Change>> {
    vec![
        vec![|_| {}, |c| c.plan = None],
        vec![
            |_| {},
            |c| *c = c.clone().manual(true),
            |c| *c = c.clone().manual(false),
            |c| *c = c.clone().signed_up(),
            |c| *c = c.clone().confirmed(),
        ],
        vec![|_| {}, |c| c.view.deleting = true],
        vec![|_| {}, |c| c.view.finalizer = false],
        vec![|_| {}, |c| c.view.retry_token = Some("again".into()), |c| {
            c.view.mail_requests = vec![MailRequest { kind: LinkKind::LoginLink, at: Timestamp::from_second(NOW) }];
        }],
        vec![
            |_| {},
            |c| c.observed.failure = Some(failure("SampleData", true)),
            |c| {
                c.observed.failure = Some(failure("Billing", false));
            },
            |c| c.observed.failure = Some(operator_fault("Namespace")),
            |c| {
                (c.observed.failure, c.observed.failure_recorded) = (Some(outage("SampleData")), true);
            },
        ],
        vec![
            |_| {},
            |c| *c = c.clone().billing(None, None),
            |c| *c = c.clone().billing(None, Some(session(SessionState::Expired, 1))),
            |c| *c = c.clone().billing(Some(subscription("incomplete")), Some(session(SessionState::Complete, 1))),
            |c| *c = c.clone().billing(Some(subscription("active")), Some(session(SessionState::Complete, 1))),
            |c| *c = c.clone().billing(Some(subscription("canceled")), None),
        ],
        vec![|_| {}, |c| c.observed.api_key = Some(true), |c| c.observed.api_key = Some(false)],
        vec![|_| {}, |c| c.observed.namespace_missing = true, |c| c.observed.pending = true, |c| {
            (c.observed.namespace, c.observed.samples) = (true, Samples::Seen);
        }],
        vec![|_| {}, |c| (c.observed.resync, c.observed.overloaded) = (true, true)],
        vec![|_| {}, |c| *c = told(c.clone()), |c| {
            c.observed.unsent.insert(Notice::Welcome, failure("Notice", true));
        }],
        vec![|_| {}, |c| c.observed.refund = Some(ObservedRefund { amount: 1, currency: None })],
    ]
}

/// The customer got every e-mail that there is on this way.
fn told(case: Case) -> Case {
    let since = case.view.created_at;
    case.sent(&Notice::Welcome).sent(&Notice::Suspended(since))
}

/// Whose the tenant id is.
fn identities() -> Vec<Change> {
    vec![
        |_| {},
        |c| c.view.spec.tenant_id = Some("another".into()),
        |c| {
            c.view.credentials.proof = false;
        },
        |c| {
            (c.view.spec.tenant_id, c.view.credentials.proof) = (Some("another".into()), false);
        },
        |c| (c.view.credentials.outranked, c.view.credentials.rivals) = (true, vec!["x/y".into()]),
    ]
}

/// Effects that are done must not be asked for again within the same reconcile.
fn already_done(case: &Case, effect: &Effect) -> bool {
    match effect {
        Effect::EnsureNamespace => case.observed.namespace,
        Effect::CheckNamespace => case.observed.namespace || case.observed.namespace_missing,
        Effect::EnsureApiKey => case.observed.api_key == Some(true),
        Effect::StoreSamples => case.observed.samples >= Samples::Stored,
        Effect::VerifySamples => case.observed.samples == Samples::Seen,
        Effect::ReadBilling => case.observed.billing.is_some(),
        Effect::Refund => case.observed.refund.is_some(),
        Effect::Notify(notice) => case.observed.sent.contains(notice) || case.view.noted(notice),
        Effect::AssignIdentity => case.view.identified(),
        other => case.observed.done.contains(other),
    }
}

/// Tries every combination, the phases side by side.
fn sweep(aspects: &[Vec<Change>]) -> Vec<Way> {
    let combinations: usize = aspects.iter().map(Vec::len).product();
    let ways = Mutex::new(Vec::new());
    std::thread::scope(|threads| {
        for phases in PHASES.chunks(5) {
            let ways = &ways;
            threads.spawn(move || {
                let mut seen: Vec<Way> = Vec::new();
                for (phase, number) in phases.iter().flat_map(|p| (0..combinations).map(move |n| (*p, n))) {
                    let mut case = Case::new(phase);
                    let mut rest = number;
                    for variants in aspects {
                        variants[rest % variants.len()](&mut case);
                        rest /= variants.len();
                    }
                    check(&case, phase, number, &mut seen);
                }
                ways.lock().expect("a lock").extend(seen);
            });
        }
    });
    println!("{} combinations of phase and observations", combinations * PHASES.len());
    ways.into_inner().expect("a lock")
}

/// A change of phase: from, to, and what it is called.
type Way = (Option<Phase>, Phase, EventType);

/// Every change of phase is one of the table's, and every one of the table's happens.
#[test]
fn there_is_always_one_answer_and_it_moves_on() {
    let seen = sweep(&aspects());
    for arrow in TRANSITIONS {
        let way = (arrow.from, arrow.to, arrow.event);
        // Only after a week; tests/decisions/verification.rs goes there.
        let late = arrow.from == Some(Phase::PendingPayment) && arrow.to == Phase::Failed;
        assert!(seen.contains(&way) || late, "{way:?} never happens");
    }
}

/// Whoever cannot prove that a tenant is its own touches nothing of it.
#[test]
fn an_id_without_proof_touches_nothing() {
    sweep(&[
        identities(),
        vec![|_| {}, |c| c.plan = None],
        vec![|_| {}, |c| *c = c.clone().signed_up(), |c| *c = c.clone().manual(true)],
        vec![|_| {}, |c| c.view.deleting = true],
        vec![|_| {}, |c| c.view.force_delete = true],
        vec![|_| {}, |c| c.view.finalizer = false],
        vec![|_| {}, |c| c.view.retry_token = Some("again".into())],
        vec![|_| {}, |c| c.observed.failure = Some(failure("Billing", false))],
        vec![|_| {}, |c| *c = c.clone().billing(Some(subscription("active")), None)],
        vec![|_| {}, |c| c.observed.resync = true],
    ]);
}

fn check(case: &Case, phase: Option<Phase>, number: usize, seen: &mut Vec<Way>) {
    let decision = case.decide();
    assert_eq!(decision, case.decide(), "{phase:?} {number}: the same input, the same answer");
    match decision {
        Decision::Act(effects) => {
            assert!(!effects.is_empty(), "{phase:?} {number}: an act of nothing would never end");
            if matches!(case.view.claim(), Claim::Unproven | Claim::Outranked) {
                let allowed = [Effect::RemoveFinalizer];
                assert!(case.view.deleting && effects == allowed, "{phase:?} {number}: touches another's: {effects:?}");
            }
            let repeated = effects.iter().find(|e| already_done(case, e));
            assert_eq!(repeated, None, "{phase:?} {number}: done already");
        }
        Decision::Record(status) => {
            assert_ne!(*status, case.view.status, "{phase:?} {number}: a write that changes nothing would never end");
            let before = case.view.status.transitions.len();
            let moved = status.phase != case.view.status.phase;
            assert_eq!(status.transitions.len() > before, moved, "{phase:?} {number}: a transition for each change");
            for t in &status.transitions[before..] {
                let way = (t.from_state, t.to_state, t.event_type);
                assert!(is_known(way.0, way.1, way.2), "{phase:?} {number}: {way:?} is no transition");
                if !seen.contains(&way) {
                    seen.push(way);
                }
            }
        }
        Decision::Wait(wait) => {
            assert!(wait.is_none_or(|seconds| seconds > 0), "{phase:?} {number}: a wait of {wait:?} would spin");
        }
    }
}
