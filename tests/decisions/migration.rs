//! A move to another embedding model: beside the old data, switched when complete, cleaned up later, and without loss
//! where it fails.

use tenant_operator::api::migration::{Data, EmbeddingSize, Migration, MigrationState as State};
use tenant_operator::api::status::{PlanChangeState, PlanConfig};
use tenant_operator::api::tenant::Desired;
use tenant_operator::api::{Phase, TenantStatus, Timestamp};
use tenant_operator::lifecycle::{Decision, Effect, Found, MigrationError, Notice, ObservedMigration};

use crate::case::{Case, NOW, condition, fails, failure, holds, plan};
use crate::plan_change::{noted, wishing};

pub const SMALL: &str = "text-embedding-3-small";
pub const LARGE: &str = "text-embedding-3-large";

/// An Active tenant that needs nothing, of a plan with both models.
pub fn content() -> Case {
    let mut case = Case::new(Some(Phase::Active)).manual(true).sent(&Notice::Welcome);
    let mut both = plan();
    both.models.embedding_large = Some(LARGE.into());
    case.view.status.config = Some(PlanConfig::of("starter", &both));
    case.plan = Some(both);
    case.observed.api_key = Some(true);
    found(case, &[(1, 10, true)])
}

/// What Pinecone lists: generations, their vectors, and whether these are documents.
pub fn found(mut case: Case, all: &[(u32, u64, bool)]) -> Case {
    let found = |(generation, vectors, documents): &(u32, u64, bool)| Found {
        generation: *generation,
        vectors: *vectors,
        documents: *documents,
    };
    case.observed.found = Some(all.iter().map(found).collect());
    case
}

/// One that chose the large model.
pub fn large() -> Case {
    let mut case = content();
    case.view.spec.settings.embedding = Some(EmbeddingSize::Large);
    case
}

pub fn stored(mut case: Case, generation: u32, embedding: &str) -> Case {
    case.view.spec.data = Some(Data { generation, embedding: embedding.into(), region: None });
    found(case, &[(generation, 10, true)])
}

pub fn moving(case: Case, generation: u32, state: State) -> Case {
    let mut case = case;
    case.view.status.migration = Some(Box::new(Migration {
        generation,
        embedding: LARGE.into(),
        region: None,
        state,
        started_at: Timestamp::from_second(NOW - 100),
        since: Timestamp::from_second(NOW - 50),
        vectors: 0,
        retry_token: None,
    }));
    case
}

pub fn seen(mut case: Case, last: bool, done: bool, problem: Option<(&str, bool)>) -> Case {
    let problem =
        problem.map(|(message, retryable)| MigrationError { message: message.into(), retryable, ahead: false });
    case.observed.migration = Some(ObservedMigration { vectors: 7, problem, done, last });
    case
}

fn state(status: &TenantStatus) -> Option<State> {
    status.migration.as_ref().map(|migration| migration.state)
}

fn migrate(last: bool) -> Effect {
    Effect::Migrate { generation: 2, embedding: LARGE.into(), region: None, last }
}

fn record(generation: u32, embedding: &str) -> Effect {
    Effect::RecordData { generation, embedding: embedding.into(), region: None }
}

/// In the middle of it.
fn copying() -> Case {
    moving(stored(large(), 1, SMALL), 2, State::Copying)
}

fn switching() -> Case {
    moving(stored(large(), 1, SMALL), 2, State::Switching)
}

pub fn switched() -> Case {
    moving(stored(large(), 2, LARGE), 2, State::Switched)
}

#[test]
fn a_move_is_recorded_first_and_then_copied_switched_and_cleaned_up() {
    assert_eq!(large().effects(), [record(1, SMALL)]);
    let begun = stored(large(), 1, SMALL).recorded();
    let migration = begun.migration.as_deref().expect("begun");
    assert_eq!((migration.generation, &*migration.embedding, migration.state), (2, LARGE, State::Copying));
    assert!(fails(&begun, "DataMigrated", "Copying"));
    assert_eq!(copying().effects(), [migrate(false)]);
    let shown = seen(copying(), false, false, None).recorded();
    assert_eq!((state(&shown), shown.migration.as_ref().map(|m| m.vectors)), (Some(State::Copying), Some(7)));
    let mut waiting = seen(copying(), false, false, None);
    waiting.view.status = shown;
    assert!(matches!(waiting.after_record_or_wait(), Decision::Wait(_)), "nothing waits for it");
    let copied = seen(copying(), false, true, None).recorded();
    assert_eq!(state(&copied), Some(State::Copied));
    let mut next = seen(copying(), false, true, None);
    next.view.status = copied;
    let status = next.recorded();
    assert_eq!(state(&status), Some(State::Switching));
    next.view.status = status;
    assert_eq!(next.effects(), [migrate(true)], "the first copy is not the last one");
    assert_eq!(switching().effects(), [migrate(true)]);
    assert_eq!(seen(copying(), true, true, None).effects(), [migrate(false)], "what another pass saw does not count");
    let mut last = seen(switching(), true, true, None);
    let status = last.recorded();
    assert_eq!(status.migration.as_ref().map(|m| m.vectors), Some(7), "what the new generation holds at the switch");
    last.view.status = status;
    assert_eq!(last.effects(), [record(2, LARGE)]);
    let after = stored(last, 2, LARGE);
    let status = after.recorded();
    assert_eq!((state(&status), status.namespace.as_deref()), (Some(State::Switched), Some("tenant_t1.2")));
    assert!(holds(&status, "DataMigrated", "Migrated"));
}

#[test]
fn the_old_vectors_are_kept_for_a_while_and_only_they_are_deleted() {
    let mut case = switched();
    case.policy.migration_overlap = 60;
    let Decision::Wait(wait) = case.after_record_or_wait() else { panic!("{:?}", case.decide()) };
    assert_eq!(wait, Some(10), "since 50 seconds ago");
    case.policy.migration_overlap = 51;
    assert!(matches!(case.after_record_or_wait(), Decision::Wait(Some(1))), "to the second");
    case.policy.migration_overlap = 50;
    assert_eq!(case.effects(), [Effect::DropNamespace { generation: 1 }]);
    case.observed.done.insert(Effect::DropNamespace { generation: 1 });
    let status = case.recorded();
    assert!(status.migration.is_none() && holds(&status, "DataMigrated", "Migrated"));
    // No state makes the namespace in use go.
    for state in [State::Copying, State::Copied, State::Switching, State::Switched, State::Failed] {
        for overlap in [0, 1000] {
            for size in [None, Some(EmbeddingSize::Large)] {
                let mut case = moving(stored(content(), 2, LARGE), 2, state);
                (case.view.spec.settings.embedding, case.policy.migration_overlap) = (size, overlap);
                let drop = Decision::Act(vec![Effect::DropNamespace { generation: 2 }]);
                assert_ne!(case.decide(), drop, "{state:?} {overlap} {size:?}");
                let mut case = moving(stored(wishing(Phase::Upgrading, 19_900), 2, LARGE), 2, state);
                case.policy.migration_overlap = overlap;
                assert_ne!(noted(case, PlanChangeState::Running).decide(), drop, "{state:?} {overlap}");
            }
        }
    }
}

#[test]
fn a_move_that_is_no_longer_wanted_is_taken_back() {
    for state in [State::Copying, State::Copied, State::Switching, State::Failed] {
        let mut case = moving(stored(content(), 1, SMALL), 2, state);
        assert_eq!(case.effects(), [Effect::DropNamespace { generation: 2 }], "{state:?}");
        case.observed.done.insert(Effect::DropNamespace { generation: 2 });
        let status = case.recorded();
        assert!(status.migration.is_none() && condition(&status, "DataMigrated").is_none());
    }
    // Back and forth waits until the first move is over.
    let mut back = switched();
    back.view.spec.settings.embedding = None;
    back.policy.migration_overlap = 60;
    assert!(matches!(back.after_record_or_wait(), Decision::Wait(Some(10))), "{:?}", back.decide());
    back.view.status.migration = None;
    let status = back.recorded();
    let migration = status.migration.as_deref().expect("begun");
    assert_eq!((migration.generation, &*migration.embedding), (3, SMALL));
}

#[test]
fn a_failed_copy_is_retried_until_that_cannot_help() {
    let away = seen(copying(), false, false, Some(("Pinecone: away", true)));
    let status = away.recorded();
    assert_eq!(state(&status), Some(State::Copying));
    assert!(fails(&status, "DataMigrated", "Retrying"));
    for case in [seen(copying(), false, false, Some(("no such model", false))), {
        let mut late = away;
        late.policy.migration_limit = 100;
        late
    }] {
        let mut case = case;
        case.view.retry_token = Some("before".into());
        assert_eq!(case.effects(), [Effect::DropNamespace { generation: 2 }]);
        case.observed.done.insert(Effect::DropNamespace { generation: 2 });
        let status = case.recorded();
        assert!(state(&status) == Some(State::Failed) && fails(&status, "DataMigrated", "Failed"));
        assert!(holds(&status, "Ready", "Active") || condition(&status, "Ready").is_none(), "it is served as before");
        let mut failed = large();
        failed.view.spec.data = Some(Data { generation: 1, embedding: SMALL.into(), region: None });
        failed.view.status.migration.clone_from(&status.migration);
        failed.view.status.conditions.clone_from(&status.conditions);
        failed.view.retry_token = Some("before".into());
        assert!(matches!(failed.after_record_or_wait(), Decision::Wait(_)), "{:?}", failed.decide());
        failed.view.retry_token = Some("again".into());
        assert_eq!(state(&failed.recorded()), Some(State::Copying), "a retry starts over");
    }
    // Once uploads wait, it only goes forward.
    let status = seen(switching(), true, false, Some(("Pinecone: away", false))).recorded();
    assert!(state(&status) == Some(State::Switching) && fails(&status, "DataMigrated", "Retrying"));
}

#[test]
fn a_model_that_the_plan_does_not_have_is_said() {
    let mut case = large();
    case.view.status.config.as_mut().expect("there").models.embedding_large = None;
    assert_eq!(case.effects(), [record(1, SMALL)], "the Plan offers it by now");
    case.plan.as_mut().expect("a plan").models.embedding_large = None;
    let status = case.recorded();
    assert!(status.migration.is_none() && fails(&status, "DataMigrated", "NotInPlan"));
    case.view.status = status;
    assert!(matches!(case.after_record_or_wait(), Decision::Wait(_)));
    case.view.spec.settings.embedding = None;
    assert!(condition(&case.recorded(), "DataMigrated").is_none());
    // Models of a Plan that are edited are for new tenants.
    let mut edited = content();
    edited.plan.as_mut().expect("a plan").models.embedding = "another".into();
    assert!(matches!(edited.after_record_or_wait(), Decision::Wait(_)), "{:?}", edited.decide());
}

/// In a change to a plan whose model is another one.
fn upgrading() -> Case {
    let mut case = noted(wishing(Phase::Upgrading, 19_900), PlanChangeState::Running);
    case.wanted.as_mut().expect("a plan").models.embedding = LARGE.into();
    case
}

pub fn paid(case: Case, price: &str) -> Case {
    let subscription = tenant_operator::lifecycle::ObservedSubscription {
        price: Some(price.into()),
        plan: Some(if price == "price_4900" { "middle" } else { "other" }.into()),
        ..crate::case::subscription("active")
    };
    case.billing(Some(subscription), None)
}

#[test]
fn a_plan_with_another_model_is_charged_once_everything_is_copied_and_in_force_once_it_answers() {
    assert_eq!(upgrading().effects(), [record(1, SMALL)]);
    assert_eq!(state(&stored(upgrading(), 1, SMALL).recorded()), Some(State::Copying));
    let copying = moving(stored(upgrading(), 1, SMALL), 2, State::Copying);
    assert_eq!(copying.effects(), [migrate(false)]);
    let copied = moving(stored(upgrading(), 1, SMALL), 2, State::Copied);
    assert_eq!(copied.effects(), [Effect::ReadBilling], "only now");
    assert!(matches!(&*paid(copied.clone(), "price_4900").effects(), [Effect::SwitchPrice { .. }]));
    let status = paid(copied, "price_19900").recorded();
    assert_eq!((status.phase, state(&status)), (Some(Phase::Upgrading), Some(State::Switching)));
    assert_eq!(&*status.config.expect("a config").plan, "middle", "the plan before answers");
    let mut last = seen(moving(stored(upgrading(), 1, SMALL), 2, State::Switching), true, true, None);
    last.view.status.migration.as_mut().expect("a move").vectors = 7;
    assert_eq!(paid(last.clone(), "price_19900").effects(), [record(2, LARGE)]);
    let status = paid(stored(last, 2, LARGE), "price_19900").recorded();
    assert_eq!(status.phase, Some(Phase::Active));
    assert_eq!(&*status.config.expect("a config").models.embedding, LARGE);
}

#[test]
fn a_plan_change_whose_data_cannot_move_goes_back_without_a_charge() {
    let stuck = seen(
        moving(stored(upgrading(), 1, SMALL), 2, State::Copying),
        false,
        false,
        Some(("OpenAI: no such model", false)),
    );
    let status = stuck.recorded();
    assert_eq!(status.phase, Some(Phase::Active));
    assert!(fails(&status, "PlanInForce", "DataNotMigrated"));
    assert_eq!(status.plan_change.as_ref().map(|c| c.state), Some(PlanChangeState::Declined));
    let mut after = stuck;
    (after.view.status, after.observed.migration) = (status, None);
    assert_eq!(after.effects(), [Effect::DropNamespace { generation: 2 }], "nothing of it stays");
    // A card that is declined later is no different.
    let mut declined = paid(moving(stored(upgrading(), 1, SMALL), 2, State::Copied), "price_4900");
    declined.observed.failure = Some(failure("Billing", false));
    assert_eq!(declined.recorded().phase, Some(Phase::Active));
    // A suspension or a deletion that is asked for meanwhile does not wait for it.
    for desired in [Desired::Suspended, Desired::Deleted] {
        let mut leaves = moving(stored(upgrading(), 1, SMALL), 2, State::Copying);
        leaves.view.spec.desired = desired;
        assert!(fails(&leaves.recorded(), "PlanInForce", "Canceled"), "{desired:?}");
    }
}

#[test]
fn one_move_at_a_time() {
    let mut case = paid(wishing(Phase::Active, 19_900), "price_4900");
    case.wanted.as_mut().expect("a plan").models.embedding = "third".into();
    for case in [
        moving(stored(case.clone(), 1, SMALL), 2, State::Copying),
        moving(stored(case.clone(), 2, LARGE), 2, State::Switched),
        paid(moving(stored(case.clone(), 2, LARGE), 2, State::Switched), "price_19900"),
    ] {
        let status = case.recorded();
        assert!(status.phase == Some(Phase::Active) && fails(&status, "PlanInForce", "DataMoving"), "{status:#?}");
    }
    // A change for later is told to Stripe now, and begins when the data is at rest.
    let mut down = paid(wishing(Phase::Active, 900), "price_4900");
    down.wanted.as_mut().expect("a plan").models.embedding = "third".into();
    let status = moving(stored(down.clone(), 1, SMALL), 2, State::Copying).recorded();
    assert_eq!(status.plan_change.as_ref().map(|c| c.state), Some(PlanChangeState::Preparing));
    let mut due = noted(paid(down, "price_900"), PlanChangeState::Scheduled);
    due.view.status.plan_change.as_mut().expect("there").effective_at = Some(Timestamp::from_second(NOW));
    assert_eq!(stored(due.clone(), 1, SMALL).recorded().phase, Some(Phase::Downgrading));
    let busy = moving(stored(due, 2, LARGE), 2, State::Switched);
    assert!(
        !matches!(busy.decide(), Decision::Record(status) if status.phase != Some(Phase::Active)),
        "{:?}",
        busy.decide()
    );
    let status = moving(stored(case, 1, SMALL), 2, State::Failed).recorded();
    assert_eq!(status.phase, Some(Phase::Upgrading), "a move that failed does not block the plan change");
}

#[test]
fn the_tenants_own_model_outlives_the_plans() {
    // On the large model by its own choice; the next plan calls the same one small.
    let mut case = stored(upgrading(), 2, LARGE);
    case.view.spec.settings.embedding = Some(EmbeddingSize::Large);
    assert_eq!(case.effects(), [Effect::ReadBilling], "nothing has to move");
    // Never moved, and the next plan has another small model beside the present one as its large one.
    let mut case = paid(upgrading(), "price_19900");
    case.view.spec.settings.embedding = Some(EmbeddingSize::Large);
    let models = &mut case.wanted.as_mut().expect("a plan").models;
    (models.embedding, models.embedding_large) = ("third".into(), Some(SMALL.into()));
    assert_eq!(case.effects(), [record(1, SMALL)], "or it would be forgotten with the plan before");
    assert_eq!(stored(case, 1, SMALL).recorded().phase, Some(Phase::Active));
}
