//! Every phase with every combination of observations: there is always an answer, always the same one, and it always
//! moves on.

use std::sync::Mutex;

use tenant_operator::api::migration::{Data, EmbeddingSize, MigrationState};
use tenant_operator::api::phase::EventType;
use tenant_operator::api::plan::Downgrades;
use tenant_operator::api::status::PlanChangeState as State;
use tenant_operator::api::tenant::Desired;
use tenant_operator::api::{LinkKind, MailRequest, Phase, Timestamp};
use tenant_operator::lifecycle::{
    Claim, Decision, Effect, Holdings, Notice, ObservedRefund, ObservedSubscription, Samples, SessionState, Stored,
    TRANSITIONS, is_known,
};

use crate::case::{Case, NOW, ending, failure, operator_fault, outage, session, subscription};
use crate::leaving::erasing;
use crate::migration::{LARGE, found, moving, seen};
use crate::plan_change::{noted, wishing};

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

/// The phases in which a plan can be another one than the spec names.
const SERVED: [Option<Phase>; 4] =
    [Some(Phase::Active), Some(Phase::Upgrading), Some(Phase::Downgrading), Some(Phase::Suspended)];

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
        vec![|_| {}, |c| c.observed.refund = Some(ObservedRefund { amount: 1, ..ObservedRefund::default() }), |c| {
            c.observed.refund = Some(ObservedRefund { pending: 1, ..ObservedRefund::default() });
        }],
    ]
}

/// A request for another plan, with each of its outcomes.
fn plan_changes() -> Vec<Vec<Change>> {
    vec![
        vec![|c| wish(c, 19_900), |c| wish(c, 900), |c| c.wanted = None],
        vec![|_| {}, |c| *c = c.clone().manual(true), |c| *c = c.clone().signed_up()],
        vec![
            |_| {},
            |c| *c = noted(c.clone(), State::Blocked),
            |c| *c = noted(c.clone(), State::Preparing),
            |c| *c = noted(c.clone(), State::Scheduled),
            |c| *c = noted(c.clone(), State::Running),
            |c| *c = noted(c.clone(), State::Applied),
            |c| *c = noted(c.clone(), State::Declined),
        ],
        vec![|_| {}, |c| c.view.spec.plan = "middle".into(), |c| c.view.spec.plan = "third".into()],
        vec![
            |_| {},
            |c| *c = c.clone().billing(None, None),
            |c| *c = c.clone().billing(Some(subscription("active")), None),
            |c| billed(c, "price_19900"),
            |c| billed(c, "price_4900"),
            |c| *c = c.clone().billing(Some(subscription("past_due")), None),
            |c| *c = c.clone().billing(Some(subscription("canceled")), None),
        ],
        vec![
            |_| {},
            |c| c.observed.failure = Some(failure("Billing", true)),
            |c| c.observed.failure = Some(failure("Billing", false)),
            |c| c.observed.failure = Some(operator_fault("Billing")),
        ],
        vec![|_| {}, |c| c.observed.stored = Some(Stored::Counted { documents: 1000, bytes: 0 })],
        vec![|_| {}, |c| {
            if let Some(change) = &mut c.view.status.plan_change {
                change.effective_at = Some(Timestamp::from_second(NOW));
            }
        }],
        vec![|_| {}, |c| c.view.retry_token = Some("again".into())],
        vec![|_| {}, |c| c.wanted.as_mut().into_iter().for_each(|p| p.downgrades = Downgrades::Immediately)],
        vec![|_| {}, |c| c.view.deleting = true],
        vec![|_| {}, |c| c.view.spec.desired = Desired::Suspended],
    ]
}

fn billed(case: &mut Case, price: &str) {
    let subscription = ObservedSubscription { price: Some(price.into()), ..subscription("active") };
    *case = case.clone().billing(Some(subscription), None);
}

/// A customer who leaves, and may come back.
fn departures() -> Vec<Vec<Change>> {
    vec![
        vec![|c| c.view.spec.desired = Desired::Deleted, |c| c.view.spec.desired = Desired::Active],
        vec![|_| {}, |c| *c = c.clone().manual(true), |c| *c = c.clone().signed_up()],
        vec![|_| {}, |c| c.view.status.erases_at = Some(Timestamp::from_second(NOW + 100)), |c| {
            c.view.status.erases_at = Some(Timestamp::from_second(NOW));
        }],
        vec![|_| {}, |c| c.view.status.erasure = erasing().view.status.erasure, |c| {
            let mut erasure = erasing().view.status.erasure;
            if let Some(erasure) = &mut erasure {
                erasure.erased_at = Some(Timestamp::from_second(NOW));
            }
            c.view.status.erasure = erasure;
        }],
        vec![|_| {}, |c| c.view.erasure = erasing().view.status.erasure],
        vec![|_| {}, |c| c.view.legal_hold = Some("case 12".into())],
        vec![|c| c.view.status.provisioned_at = Some(Timestamp::from_second(NOW - 100)), |_| {}],
        vec![
            |_| {},
            |c| *c = c.clone().billing(None, None),
            |c| *c = c.clone().billing(Some(subscription("active")), None),
            |c| *c = c.clone().billing(Some(ending(NOW - 100)), None),
            |c| *c = c.clone().billing(Some(subscription("canceled")), None),
        ],
        vec![|_| {}, |c| c.observed.holdings = Some(Holdings::default()), |c| {
            c.observed.holdings = Some(Holdings { vectors: 1, ..Holdings::default() });
        }],
        vec![|_| {}, |c| c.observed.done.extend([Effect::StopRenewal]), |c| {
            c.observed.done.extend([Effect::DeleteNamespace, Effect::DeleteSecrets, Effect::EraseBilling]);
        }],
        vec![|_| {}, |c| c.observed.failure = Some(failure("Namespace", true))],
        vec![|_| {}, |c| (c.view.deleting, c.view.erase) = (true, false), |c| c.view.deleting = true],
        vec![|_| {}, |c| *c = c.clone().sent(&Notice::Erased)],
    ]
}

/// Data that moves to another embedding model, by choice or with the plan.
fn moves() -> Vec<Vec<Change>> {
    vec![
        vec![|c| wish(c, 4900), |c| wish(c, 19_900)],
        vec![|c| c.view.spec.plan = "middle".into(), |c| *c = noted(c.clone(), State::Running), |c| {
            *c = noted(c.clone(), State::Running);
            c.wanted.as_mut().expect("a plan").models.embedding = LARGE.into();
        }],
        vec![|_| {}, |c| offer(c)],
        vec![|_| {}, |c| c.view.spec.settings.embedding = Some(EmbeddingSize::Large)],
        vec![|_| {}, |c| c.view.spec.data = Some(data(1, "text-embedding-3-small")), |c| {
            c.view.spec.data = Some(data(2, LARGE));
        }],
        vec![
            |_| {},
            |c| *c = moving(c.clone(), 2, MigrationState::Copying),
            |c| *c = moving(c.clone(), 2, MigrationState::Copied),
            |c| *c = moving(c.clone(), 2, MigrationState::Switching),
            |c| *c = moving(c.clone(), 2, MigrationState::Switched),
            |c| *c = moving(c.clone(), 2, MigrationState::Failed),
            |c| *c = moving(c.clone(), 3, MigrationState::Copying),
        ],
        vec![
            |_| {},
            |c| *c = seen(c.clone(), false, false, None),
            |c| *c = seen(c.clone(), false, false, Some(("no such model", false))),
            |c| *c = seen(c.clone(), false, true, None),
            |c| *c = seen(c.clone(), true, false, Some(("away", true))),
            |c| *c = seen(c.clone(), true, true, None),
        ],
        vec![|_| {}, |c| {
            c.observed.done.extend([1, 2, 3].map(|generation| Effect::DropNamespace { generation }));
        }],
        vec![|_| {}, |c| *c = found(c.clone(), &[(1, 10, true), (2, 10, true)]), |c| {
            *c = found(c.clone(), &[(2, 9, true), (3, 10, true)]);
            c.observed.leftover = Some(3);
        }],
        vec![|_| {}, |c| (c.policy.migration_overlap, c.policy.migration_limit) = (50, 50)],
        vec![|_| {}, |c| billed(c, "price_4900"), |c| billed(c, "price_19900")],
        vec![|_| {}, |c| c.observed.failure = Some(failure("Data", true))],
        vec![|_| {}, |c| c.view.retry_token = Some("again".into())],
    ]
}

fn offer(case: &mut Case) {
    for models in
        case.plan.iter_mut().map(|p| &mut p.models).chain(case.view.status.config.iter_mut().map(|c| &mut c.models))
    {
        models.embedding_large = Some(LARGE.into());
    }
}

fn data(generation: u32, embedding: &str) -> Data {
    Data { generation, embedding: embedding.into(), region: None }
}

/// Gives the case a plan and the wish for another one.
fn wish(case: &mut Case, amount: i64) {
    let other = wishing(Phase::Active, amount);
    (case.plan, case.wanted) = (other.plan, other.wanted);
    (case.view.status.config, case.view.status.quota) = (other.view.status.config, other.view.status.quota);
    (case.view.spec.plan, case.view.sent, case.observed.api_key) =
        (other.view.spec.plan, other.view.sent, other.observed.api_key);
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
        Effect::CountHoldings => case.observed.holdings.is_some(),
        Effect::CountStored => case.observed.stored.is_some(),
        Effect::Notify(notice) => case.observed.sent.contains(notice) || case.view.noted(notice),
        Effect::RecordPlan { plan } => case.view.spec.plan_in_force.as_ref() == Some(plan),
        Effect::AssignIdentity { .. } => case.view.identified(),
        Effect::Migrate { last, .. } => case.observed.migration.as_ref().is_some_and(|m| m.last == *last),
        Effect::FindData => case.observed.found.is_some(),
        other => case.observed.done.contains(other),
    }
}

/// Tries every combination, the phases side by side.
fn sweep(phases: &[Option<Phase>], aspects: &[Vec<Change>]) -> Vec<Way> {
    let combinations: usize = aspects.iter().map(Vec::len).product();
    let ways = Mutex::new(Vec::new());
    std::thread::scope(|threads| {
        for phases in phases.chunks(phases.len().div_ceil(2)) {
            let ways = &ways;
            threads.spawn(move || {
                let mut seen: Vec<Way> = Vec::new();
                for phase in phases {
                    combine(&Case::new(*phase), aspects, 0, &mut |case, number| check(case, *phase, number, &mut seen));
                }
                ways.lock().expect("a lock").extend(seen);
            });
        }
    });
    println!("{} combinations of phase and observations", combinations * phases.len());
    ways.into_inner().expect("a lock")
}

/// Each variant of the first aspect with each combination of the others. A combination is named by a number.
fn combine(case: &Case, aspects: &[Vec<Change>], number: usize, check: &mut impl FnMut(&Case, usize)) {
    let Some((variants, rest)) = aspects.split_first() else { return check(case, number) };
    for (index, change) in variants.iter().enumerate() {
        let mut case = case.clone();
        change(&mut case);
        combine(&case, rest, number * variants.len() + index, check);
    }
}

/// A change of phase: from, to, and what it is called.
type Way = (Option<Phase>, Phase, EventType);

/// Every change of phase is one of the table's, and every one of the table's happens.
#[test]
fn there_is_always_one_answer_and_it_moves_on() {
    let mut seen = sweep(&PHASES, &aspects());
    seen.extend(sweep(&SERVED, &plan_changes()));
    seen.extend(sweep(&PHASES, &departures()));
    seen.extend(sweep(&SERVED, &moves()));
    for arrow in TRANSITIONS {
        let way = (arrow.from, arrow.to, arrow.event);
        // Only after a week; tests/decisions/verification.rs goes there.
        let late = arrow.from == Some(Phase::PendingPayment) && arrow.to == Phase::Failed;
        assert!(seen.contains(&way) || late, "{way:?} never happens");
    }
}

/// A Tenant that cannot prove its tenant id changes nothing of the tenant with that id.
#[test]
fn an_id_without_proof_touches_nothing() {
    let aspects = [
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
    ];
    sweep(&PHASES, &aspects);
}

fn check(case: &Case, phase: Option<Phase>, number: usize, seen: &mut Vec<Way>) {
    let decision = case.next();
    assert_eq!(decision, case.next(), "{phase:?} {number}: the same input, the same answer");
    match decision {
        Decision::Act(effects) => {
            assert!(!effects.is_empty(), "{phase:?} {number}: an act of nothing would never end");
            if matches!(case.view.claim(), Claim::Unproven | Claim::Outranked) {
                let allowed = [Effect::RemoveFinalizer];
                assert!(case.view.deleting && effects == allowed, "{phase:?} {number}: touches another's: {effects:?}");
            }
            let in_use = Effect::DropNamespace { generation: case.view.data_generation() };
            assert!(!effects.contains(&in_use), "{phase:?} {number}: deletes the data in use");
            let repeated = effects.iter().find(|e| already_done(case, e));
            assert_eq!(repeated, None, "{phase:?} {number}: done already");
            if let [Effect::RecordPlan { plan }] = &effects[..] {
                let mut after = case.clone();
                after.view.spec.plan_in_force = Some(plan.clone());
                check(&after, phase, number, seen);
            }
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
