//! Every phase with every combination of observations: there is always an answer, always the same one, and it always
//! moves on.

use tenant_operator::api::Phase;
use tenant_operator::lifecycle::{Decision, Effect, Notice, RefundFact, Samples, SessionState};

use crate::case::{Case, failure, session, subscription};

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
        vec![|_| {}, |c| *c = c.clone().manual(true), |c| *c = c.clone().manual(false), |c| *c = c.clone().signed_up()],
        vec![|_| {}, |c| c.view.deleting = true],
        vec![|_| {}, |c| c.view.finalizer = false],
        vec![|_| {}, |c| c.view.retry_token = Some("again".into())],
        vec![|_| {}, |c| c.facts.failure = Some(failure("SampleData", true)), |c| {
            c.facts.failure = Some(failure("Billing", false));
        }],
        vec![
            |_| {},
            |c| *c = c.clone().billing(None, None),
            |c| *c = c.clone().billing(None, Some(session(SessionState::Expired, 1))),
            |c| *c = c.clone().billing(Some(subscription("incomplete")), Some(session(SessionState::Complete, 1))),
            |c| *c = c.clone().billing(Some(subscription("active")), Some(session(SessionState::Complete, 1))),
            |c| *c = c.clone().billing(Some(subscription("canceled")), None),
        ],
        vec![|_| {}, |c| c.facts.api_key = Some(true), |c| c.facts.api_key = Some(false)],
        vec![|_| {}, |c| c.facts.namespace = true, |c| {
            (c.facts.namespace, c.facts.samples) = (true, Samples::Seen);
        }],
        vec![|_| {}, |c| (c.facts.resync, c.facts.busy) = (true, true)],
        vec![|_| {}, |c| *c = c.clone().sent(&Notice::Welcome), |c| {
            c.facts.unsent.insert(Notice::Welcome, failure("Notice", true));
        }],
        vec![|_| {}, |c| c.facts.refund = Some(RefundFact { amount: 1, currency: None })],
    ]
}

/// Effects that are done must not be asked for again within the same pass.
fn already_done(case: &Case, effect: &Effect) -> bool {
    match effect {
        Effect::EnsureNamespace => case.facts.namespace,
        Effect::EnsureApiKey => case.facts.api_key == Some(true),
        Effect::StoreSamples => case.facts.samples >= Samples::Stored,
        Effect::VerifySamples => case.facts.samples == Samples::Seen,
        Effect::ReadBilling => case.facts.billing.is_some(),
        Effect::Refund => case.facts.refund.is_some(),
        Effect::Notify(notice) => case.facts.sent.contains(notice) || case.view.noted(notice),
        Effect::AssignIdentity => case.view.identified(),
        other => case.facts.done.contains(other),
    }
}

#[test]
fn there_is_always_one_answer_and_it_moves_on() {
    let aspects = aspects();
    let combinations: usize = aspects.iter().map(Vec::len).product();
    for phase in PHASES {
        for number in 0..combinations {
            let mut case = Case::new(phase);
            let mut rest = number;
            for variants in &aspects {
                variants[rest % variants.len()](&mut case);
                rest /= variants.len();
            }
            check(&case, phase, number);
        }
    }
    println!("{} combinations of phase and observations", combinations * PHASES.len());
}

fn check(case: &Case, phase: Option<Phase>, number: usize) {
    let decision = case.decide();
    assert_eq!(decision, case.decide(), "{phase:?} {number}: the same input, the same answer");
    match decision {
        Decision::Act(effects) => {
            assert!(!effects.is_empty(), "{phase:?} {number}: an act of nothing would never end");
            let repeated = effects.iter().find(|e| already_done(case, e));
            assert_eq!(repeated, None, "{phase:?} {number}: done already");
        }
        Decision::Record(status) => {
            assert_ne!(*status, case.view.status, "{phase:?} {number}: a write that changes nothing would never end");
            let before = case.view.status.transitions.len();
            let moved = status.phase != case.view.status.phase;
            assert_eq!(status.transitions.len() > before, moved, "{phase:?} {number}: a transition for each change");
        }
        Decision::Wait(wait) => {
            assert!(wait.is_none_or(|seconds| seconds > 0), "{phase:?} {number}: a wait of {wait:?} would spin");
        }
    }
}
