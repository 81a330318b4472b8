//! Namespaces that an object does not know: shown, never deleted, and served if they hold the documents.

use tenant_operator::api::migration::MigrationState as State;
use tenant_operator::api::{Phase, TenantStatus, conditions};
use tenant_operator::lifecycle::{Decision, Effect, MigrationError, Notice, ObservedMigration, Outcome};

use crate::case::{Case, fails, holds};
use crate::migration::{LARGE, SMALL, content, found, large, moving, stored, switched};

const DATA: &str = conditions::DATA_IN_ONE_PLACE;

fn dropped(generation: u32) -> [Effect; 1] {
    [Effect::DropNamespace { generation }]
}

/// The bulk resync saw another generation than the one that the object names.
fn beside(case: Case, other: u32, all: &[(u32, u64, bool)]) -> Case {
    let mut case = found(case, all);
    case.observed.leftover = Some(other);
    case
}

fn message(status: &TenantStatus) -> String {
    conditions::get(&status.conditions, DATA).map(|c| c.message.to_string()).unwrap_or_default()
}

/// The status is written, and then the platform team is told.
fn told(case: &Case) -> (Case, Notice) {
    let mut case = case.clone();
    case.view.status = case.recorded();
    let effects = case.effects();
    let [Effect::Notify(notice @ Notice::DataAlert(_))] = &effects[..] else { panic!("{effects:?}") };
    (case.clone().sent(notice), notice.clone())
}

#[test]
fn a_newer_generation_with_documents_is_shown_and_told_and_never_deleted() {
    let mut unread = stored(content(), 1, SMALL);
    (unread.observed.leftover, unread.observed.found) = (Some(2), None);
    assert_eq!(unread.effects(), [Effect::FindData], "nothing is decided on a guess");
    let case = beside(stored(content(), 1, SMALL), 2, &[(1, 12, true), (2, 10, true)]);
    let status = case.recorded();
    assert!(fails(&status, DATA, "TwoGenerations"), "{status:#?}");
    let text = message(&status);
    for part in ["holds 12 vectors", "holds 10 vectors", "kubectl tenant data choose acme"] {
        assert!(text.contains(part), "{text}");
    }
    let (after, notice) = told(&case);
    assert_eq!(notice.key(), "data-alert.1-of-1-2");
    assert!(matches!(after.decide(), Decision::Wait(_) | Decision::Record(_)), "{:?}", after.decide());
    // No move begins into it.
    let mut wishing = beside(large(), 2, &[(1, 12, true), (2, 10, true)]);
    wishing = found(stored(wishing, 1, SMALL), &[(1, 12, true), (2, 10, true)]);
    wishing.observed.leftover = None;
    let status = wishing.recorded();
    assert!(status.migration.is_none() && fails(&status, DATA, "TwoGenerations"));
    // It is over once the other one is gone.
    let mut over = found(after, &[(1, 12, true)]);
    over.observed.resync = true;
    over.observed.namespace = true;
    assert!(holds(&over.recorded(), DATA, "Recovered"), "{:?}", over.decide());
}

#[test]
fn a_restored_object_is_served_from_the_generation_with_the_documents() {
    // Of generation 1 only the samples are there, or nothing at all.
    for here in [&[(1, 3, false), (2, 240, true)][..], &[(2, 240, true)], &[(2, 3, true), (3, 240, true)]] {
        let best = here.last().expect("one").0;
        let case = beside(stored(content(), 1, SMALL), best, here);
        let status = case.recorded();
        assert!(fails(&status, DATA, "FoundElsewhere"), "{status:#?}");
        assert!(message(&status).contains("holds 240 vectors"), "{}", message(&status));
        let (after, _) = told(&case);
        assert_eq!(after.effects(), [Effect::ServeFrom { generation: best }], "{here:?}");
    }
    // Afterwards the empty one goes.
    let after = beside(stored(content(), 2, LARGE), 1, &[(1, 3, false), (2, 240, true)]);
    assert_eq!(after.effects(), dropped(1));
    // Before anything is made for a restored object, it is looked.
    let mut restored = stored(content(), 1, SMALL);
    restored.view.status.phase = Some(Phase::Provisioning);
    restored.observed.found = None;
    assert_eq!(restored.effects(), [Effect::FindData]);
    let (after, _) = told(&found(restored.clone(), &[(2, 240, true)]));
    assert_eq!(after.effects(), [Effect::ServeFrom { generation: 2 }]);
    assert!(found(restored.clone(), &[]).effects().contains(&Effect::EnsureNamespace), "none is there");
    assert!(found(restored.clone(), &[(1, 9, true), (2, 240, true)]).effects().contains(&Effect::EnsureNamespace));
    restored.view.uid = "t1".into();
    restored.view.status.provisioned_at = None;
    assert!(restored.effects().contains(&Effect::EnsureNamespace), "a new tenant costs no call");
}

#[test]
fn a_superseded_generation_goes_once_its_successor_holds_as_much() {
    let case = |all: &[(u32, u64, bool)]| beside(stored(content(), 2, SMALL), 1, all);
    assert_eq!(case(&[(1, 10, true), (2, 10, true)]).effects(), dropped(1));
    assert_eq!(case(&[(1, 3, false), (2, 0, false)]).effects(), dropped(1), "it holds no documents");
    assert!(fails(&case(&[(1, 11, true), (2, 10, true)]).recorded(), DATA, "TwoGenerations"), "it holds more");
    let mut done = case(&[(1, 10, true), (2, 10, true)]);
    done.observed.done.extend(dropped(1));
    assert!(matches!(done.after_record_or_wait(), Decision::Wait(_)), "once");
    // At the end of a move, the last pass had compared all vectors, even if the customer has deleted some since.
    let mut over = switched();
    over.policy.migration_overlap = 50;
    over.view.status.migration.as_mut().expect("a move").vectors = 10;
    assert_eq!(found(over.clone(), &[(1, 10, true), (2, 4, true)]).effects(), dropped(1));
    assert!(fails(&found(over.clone(), &[(1, 11, true), (2, 4, true)]).recorded(), DATA, "TwoGenerations"));
    let gone = found(over.clone(), &[(1, 10, true)]);
    assert!(fails(&gone.recorded(), DATA, "FoundElsewhere"), "the successor is gone");
    over.observed.found = None;
    assert_eq!(over.effects(), [Effect::FindData]);
}

#[test]
fn a_copy_that_is_given_up_goes_only_while_its_source_is_there() {
    let discarded = moving(stored(content(), 1, SMALL), 2, State::Copying);
    assert_eq!(found(discarded.clone(), &[(1, 10, true), (2, 6, true)]).effects(), dropped(2));
    // The object was restored with the status of the move: the source is long gone.
    assert!(fails(&found(discarded, &[(2, 10, true)]).recorded(), DATA, "FoundElsewhere"));
}

#[test]
fn a_person_chooses_and_the_others_go() {
    let mut case = stored(content(), 1, SMALL);
    case.view.chosen = Some(2);
    case.observed.found = None;
    assert_eq!(case.effects(), [Effect::FindData]);
    let both = &[(1, 12, true), (2, 10, true)];
    assert_eq!(found(case.clone(), both).effects(), [Effect::ServeFrom { generation: 2 }]);
    let mut served = stored(case.clone(), 2, LARGE);
    served = found(served, both);
    assert_eq!(served.effects(), dropped(1));
    served.observed.done.extend(dropped(1));
    let mut last = served.clone();
    if let Decision::Record(status) = last.decide() {
        last.view.status = *status;
    }
    assert_eq!(last.effects(), [Effect::ForgetChoice]);
    case.view.chosen = Some(7);
    let status = found(case, both).recorded();
    assert!(fails(&status, DATA, "NoSuchGeneration") && message(&status).contains("holds 12 vectors"));
}

/// A move whose copy holds vectors that its source does not, as the task that copies has read.
fn ahead(wanted: Case, state: State) -> Case {
    let mut case = found(moving(stored(wanted, 1, SMALL), 2, state), &[(1, 10, true), (2, 10, true)]);
    let last = state == State::Switching;
    let problem = Some(MigrationError { message: "Namespace t.2 is ahead".into(), retryable: false, ahead: true });
    case.observed.migration = Some(ObservedMigration { vectors: 0, problem, done: false, last });
    case
}

#[test]
fn a_copy_that_is_ahead_is_shown_and_ends_the_move_and_is_kept_until_a_choice() {
    for state in [State::Copying, State::Switching] {
        let case = ahead(large(), state);
        let status = case.recorded();
        assert!(fails(&status, DATA, "TwoGenerations"), "{state:?}: {status:#?}");
        let text = message(&status);
        for part in ["(generation 1) holds 10", "(generation 2) holds 10", "kubectl tenant data choose acme"] {
            assert!(text.contains(part), "{text}");
        }
        // The controller alerts the operators and then ends the move, so uploads no longer wait for it.
        let (mut after, _) = told(&case);
        let status = after.recorded();
        assert_eq!(status.migration.as_ref().map(|m| m.state), Some(State::Failed), "{state:?}");
        assert!(fails(&status, "DataMigrated", "Failed") && fails(&status, DATA, "TwoGenerations"));
        after.view.status = status;
        assert!(matches!(after.after_record_or_wait(), Decision::Wait(_)), "nothing is deleted");
        // The choice of either one deletes the other one.
        after.observed.found = Some(case.observed.found.clone().expect("found"));
        after.view.chosen = Some(1);
        assert_eq!(after.effects(), dropped(2), "{state:?}");
        after.view.chosen = Some(2);
        assert_eq!(after.effects(), [Effect::ServeFrom { generation: 2 }], "{state:?}");
    }
}

#[test]
fn uploads_do_not_wait_for_a_move_that_is_no_longer_wanted() {
    let case = ahead(content(), State::Switching);
    assert!(fails(&case.recorded(), DATA, "TwoGenerations"));
    let (mut after, _) = told(&case);
    let status = after.recorded();
    assert_eq!(status.migration.as_ref().map(|m| m.state), Some(State::Failed));
    after.view.status = status;
    assert!(
        matches!(after.after_record_or_wait(), Decision::Wait(_)),
        "nothing is deleted, and nothing more is written"
    );
}

#[test]
fn a_deletion_that_finds_vectors_of_its_own_is_shown() {
    let mut case = found(moving(stored(content(), 1, SMALL), 2, State::Copying), &[(1, 10, true), (2, 6, true)]);
    assert_eq!(case.effects(), dropped(2));
    case.observed.learn(&Effect::DropNamespace { generation: 2 }, Outcome::OnlyThere(2));
    assert!(fails(&case.recorded(), DATA, "TwoGenerations"), "{:?}", case.decide());
}
