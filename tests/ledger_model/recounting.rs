//! A ledger that lost its data counts again what others report: each document once, and what was used as far as it is more,
//! in whatever order the controller, web and its journal tell it.

use tenant_operator::api::Timestamp;
use tenant_operator::ledger::account::{LineKind, State};
use tenant_operator::ledger::beginning::{Began, had_used};
use tenant_operator::ledger::decision::{Action, Answer, Command, decide};
use tenant_operator::ledger::units::{Amounts, Limits, Unit};

use crate::books::{Books, TENANT, period};

const DAY: i64 = 24 * 3600;
/// The present of these books.
const NOW: i64 = i64::MAX / 2;

fn began(days_ago: i64) -> Began {
    Began { at: Timestamp::from_second(NOW - days_ago * DAY), snapshot: None }
}

fn document() -> Amounts {
    Amounts::of(Unit::Documents, 1).with(Unit::Bytes, 70)
}

fn embedded() -> Amounts {
    Amounts::of(Unit::EmbeddingTokens, 9).with(Unit::EmbeddedBytes, 60)
}

fn recount(amounts: Amounts, began: impl Into<Option<Began>>) -> Action {
    Action::Recount { period: period(1), amounts, began: began.into() }
}

fn settle(amounts: Amounts) -> Action {
    Action::Settle { period: period(1), amounts }
}

fn release() -> Action {
    Action::Release { period: period(1), amounts: document() }
}

fn ask(books: &mut Books, operation: &str, action: Action, at: i64) -> Answer {
    let at = matches!(action, Action::Recount { .. }).then(|| Timestamp::from_second(at));
    books.apply(&Command { operation: operation.into(), tenant: TENANT.into(), action, at })
}

fn used(books: &Books) -> Amounts {
    books.tenants.get(TENANT).map(|tenant| tenant.account(period(1)).used).unwrap_or_default()
}

/// All orders of the steps of several actors, each of whom keeps their own.
fn orders<T: Clone>(actors: &[Vec<T>]) -> Vec<Vec<T>> {
    if actors.iter().all(Vec::is_empty) {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for at in (0..actors.len()).filter(|at| !actors[*at].is_empty()) {
        let mut rest = actors.to_vec();
        let first = rest[at].remove(0);
        all.extend(orders(&rest).into_iter().map(|order| [vec![first.clone()], order].concat()));
    }
    all
}

#[test]
fn a_document_is_counted_once_in_any_order_and_a_deletion_takes_only_its_own() {
    let before = NOW - DAY;
    let controller = vec![("d", recount(document(), began(0)))];
    let journal = vec![("d", settle(document().plus(embedded())))];
    let deletion = vec![("d", recount(document(), began(0))), ("gone-d", release())];
    let mut tried = 0;
    for (actors, documents, tokens) in [
        (vec![controller.clone(), controller.clone()], 1, 0),
        (vec![controller.clone(), journal.clone(), journal.clone()], 1, 9),
        (vec![controller.clone(), deletion.clone(), controller.clone()], 0, 0),
        // The journal delivers a release after all that came before it.
        (vec![controller.clone(), [journal, deletion].concat(), controller], 0, 9),
    ] {
        for order in orders(&actors) {
            let mut books = Books::default();
            // Another document, which a release could be taken from.
            ask(&mut books, "other", settle(document()), NOW);
            for (operation, action) in &order {
                ask(&mut books, operation, action.clone(), before);
            }
            let wanted = Amounts::of(Unit::Documents, 1 + documents).with(Unit::Bytes, 70 * (1 + documents));
            assert_eq!(used(&books).only(true), wanted, "{order:?}");
            assert_eq!(used(&books)[Unit::EmbeddingTokens], tokens, "{order:?}");
            tried += 1;
        }
    }
    assert!(tried > 20, "{tried} orders");
}

/// What is wrong without web's part: a release would take the place of a document that is stored.
#[test]
fn a_release_without_the_recount_before_it_takes_another_documents_place() {
    let mut books = Books::default();
    ask(&mut books, "other", settle(document()), NOW);
    ask(&mut books, "gone-d", release(), NOW);
    assert_eq!(used(&books)[Unit::Documents], 0, "one is stored");
}

#[test]
fn what_the_ledger_knows_or_could_have_forgotten_is_not_counted_again() {
    for (began, at, wanted) in [
        (None, NOW - DAY, 0),
        (Some(began(1)), NOW - 2 * DAY, 1),
        (Some(began(2)), NOW - DAY, 0),
        (Some(began(90)), NOW - 100 * DAY, 0),
    ] {
        let mut books = Books::default();
        ask(&mut books, "d", recount(document(), began), at);
        assert_eq!(used(&books)[Unit::Documents], wanted, "{began:?} at {at}");
    }
    let mut books = Books::default();
    let limits = Limits::default();
    let reserve = Action::Reserve { period: period(1), amounts: document(), limits, expires_after: 60 };
    ask(&mut books, "pending", reserve, NOW);
    ask(&mut books, "embedded again", settle(embedded()), NOW);
    ask(&mut books, "void", Action::Void { period: period(1) }, NOW);
    for known in ["pending", "embedded again", "void"] {
        ask(&mut books, known, recount(document(), began(0)), NOW - DAY);
    }
    assert_eq!((used(&books)[Unit::Documents], books.operations["pending"].state), (0, State::Pending));
}

#[test]
fn what_was_used_is_counted_as_far_as_it_is_more_and_once() {
    let queries = |amount| Amounts::of(Unit::Queries, amount);
    let used_of = |books: &Books| used(books)[Unit::Queries];
    let mut empty = Books::default();
    ask(&mut empty, "new question", settle(queries(2)), NOW);
    for _ in 0..3 {
        ask(&mut empty, "before", recount(queries(40), began(0)), NOW - DAY);
    }
    assert_eq!(used_of(&empty), 42);

    // One that began with a snapshot, in which the tenant had used 30.
    let mut restored = Books::default();
    ask(&mut restored, "old questions", settle(queries(30)), NOW - DAY);
    restored.operations.insert("before".into(), had_used(TENANT, period(1), queries(30)));
    ask(&mut restored, "new question", settle(queries(2)), NOW);
    for told in [25, 40, 40] {
        ask(&mut restored, "before", recount(queries(told), began(0)), NOW - DAY);
    }
    assert_eq!(used_of(&restored), 42);
    let lines: Vec<_> = restored.lines["before"].iter().map(|(_, line)| line.kind).collect();
    assert!(lines.iter().all(|kind| *kind == LineKind::Moved && !kind.is_in_hour()), "{lines:?}");
}

#[test]
fn it_closes_no_period() {
    let mut books = Books::default();
    ask(&mut books, "new question", settle(Amounts::of(Unit::Queries, 1)), NOW);
    let later = Action::Recount { period: period(2), amounts: Amounts::of(Unit::Queries, 5), began: Some(began(0)) };
    let command = Command { operation: "before".into(), tenant: TENANT.into(), action: later, at: None };
    let (_, changes) = decide(&command, &books.facts(&command));
    assert_eq!(changes.latest, None);
    books.apply(&command);
    assert_eq!(books.tenants[TENANT].latest, Some(period(1)));
}
