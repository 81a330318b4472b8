//! What is neither settled nor voided expires: its last checkpoint counts.

use tenant_operator::ledger::account::{LineKind, State};
use tenant_operator::ledger::decision::{Action, Answer, Refusal};
use tenant_operator::ledger::units::{Amounts, LARGEST, Limits, Unit};

use crate::books::{
    Books, UNIT, checkpoint, ended, period, reserve, reserve_in, reserved, settle, settle_in, settled, some, void,
};

#[test]
fn an_operation_that_expires_counts_its_last_checkpoint_and_gives_back_the_rest() {
    let mut books = Books::default();
    books.ask("a", reserve(5, 10));
    assert_eq!(books.ask("a", checkpoint(2)), Answer::Checkpointed);
    assert_eq!(books.taken(1), (0, 5), "a checkpoint counts nothing yet");
    assert_eq!(books.ask("a", checkpoint(3)), Answer::Checkpointed);
    assert_eq!(books.ask("a", Action::Expire), Answer::Expired);
    assert_eq!((books.taken(1), books.lines_of("a")), ((3, 0), vec![(LineKind::Expired, 3)]));
    assert_eq!(books.state("a"), Some(State::Expired));
}

#[test]
fn an_operation_without_a_checkpoint_expires_and_counts_nothing() {
    let mut books = Books::default();
    books.ask("a", reserve(5, 10));
    assert_eq!(books.ask("a", Action::Expire), Answer::Expired);
    assert_eq!((books.taken(1), books.lines_of("a")), ((0, 0), vec![]));
    assert_eq!(books.ask("b", reserve(10, 10)), reserved(0));
}

#[test]
fn a_checkpoint_never_goes_down() {
    let mut books = Books::default();
    let amounts = some(5).with(Unit::Queries, 1);
    books.ask("a", Action::Reserve { period: period(1), amounts, limits: Limits::default(), expires_after: 60 });
    books.ask("a", checkpoint(3));
    let late = Action::Checkpoint { amounts: some(1).with(Unit::Queries, 1) };
    assert_eq!(books.ask("a", late), Answer::Checkpointed);
    assert_eq!(books.operations["a"].posted, some(3).with(Unit::Queries, 1), "unit by unit");
}

#[test]
fn a_checkpoint_says_at_most_what_was_reserved() {
    let mut books = Books::default();
    books.ask("a", reserve(5, 10));
    assert_eq!(books.ask("a", checkpoint(9)), Answer::Checkpointed);
    books.ask("a", Action::Expire);
    assert_eq!(books.taken(1), (5, 0));
}

#[test]
fn only_what_is_known_is_checkpointed_or_expires() {
    let mut books = Books::default();
    for action in [checkpoint(1), Action::Expire] {
        assert_eq!(books.ask("a", action), Answer::Refused(Refusal::Unknown));
    }
    assert_eq!(books, Books::default());
    assert_eq!(books.ask("a", reserve(1, 1)), reserved(0), "the name is still free");
}

#[test]
fn a_late_settlement_counts_what_the_checkpoint_did_not_say() {
    let mut books = Books::default();
    books.ask("a", reserve(5, 10));
    books.ask("a", checkpoint(2));
    books.ask("a", Action::Expire);
    assert_eq!(books.ask("a", settle(4)), settled(4, 0));
    assert_eq!(books.taken(1), (4, 0));
    assert_eq!(books.lines_of("a"), [(LineKind::Expired, 2), (LineKind::Late, 2)]);
    assert_eq!(books.state("a"), Some(State::Settled));
    assert_eq!(books.operations["a"].posted, some(4));
}

#[test]
fn a_late_settlement_counts_beyond_the_limit_and_at_most_what_was_reserved() {
    let mut books = Books::default();
    books.ask("a", reserve(5, 10));
    books.ask("a", Action::Expire);
    books.ask("b", reserve(10, 10));
    assert_eq!(books.ask("a", settle(7)), settled(5, 2), "the customer was served");
    assert_eq!(books.taken(1), (5, 10), "the other's reservation stays");
}

#[test]
fn a_late_settlement_takes_nothing_back() {
    let mut books = Books::default();
    books.ask("a", reserve(5, 10));
    books.ask("a", checkpoint(4));
    books.ask("a", Action::Expire);
    for _ in 0..2 {
        assert_eq!(books.ask("a", settle(1)), settled(4, 0));
        assert_eq!((books.taken(1), books.lines_of("a")), ((4, 0), vec![(LineKind::Expired, 4)]));
    }
}

#[test]
fn a_late_settlement_counts_in_the_period_of_the_reservation() {
    let mut books = Books::default();
    books.ask("a", reserve(5, 10));
    books.ask("new", reserve_in(2, 1, 10));
    books.ask("a", Action::Expire);
    books.ask("a", settle_in(2, 3));
    assert_eq!((books.taken(1), books.taken(2)), ((3, 0), (0, 1)));
}

#[test]
fn a_late_void_is_refused_because_the_checkpoint_counts() {
    let mut books = Books::default();
    books.ask("a", reserve(5, 10));
    books.ask("a", checkpoint(2));
    books.ask("a", Action::Expire);
    assert_eq!(books.ask("a", void()), ended(State::Expired));
    assert_eq!(books.taken(1), (2, 0));
}

#[test]
fn a_late_void_of_what_counted_nothing_is_done_and_stays_so() {
    let mut books = Books::default();
    books.ask("a", reserve(5, 10));
    books.ask("a", Action::Expire);
    for _ in 0..2 {
        assert_eq!(books.ask("a", void()), Answer::Voided);
        assert_eq!((books.taken(1), books.state("a")), ((0, 0), Some(State::Voided)));
    }
    for late in [reserve(5, 10), settle(3), checkpoint(1), Action::Expire] {
        assert_eq!(books.ask("a", late), ended(State::Voided));
    }
    assert_eq!((books.taken(1), books.lines_of("a")), ((0, 0), vec![]));
    // A settlement that comes late and counts nothing has ended it in its own way.
    books.ask("b", reserve(5, 10));
    books.ask("b", Action::Expire);
    books.ask("b", settle(0));
    assert_eq!(books.ask("b", void()), ended(State::Settled));
}

#[test]
fn late_settlements_count_no_more_than_the_largest_amount() {
    let mut books = Books::default();
    let all = Action::Reserve {
        period: period(1),
        amounts: Amounts::of(UNIT, LARGEST),
        limits: Limits::default(),
        expires_after: 60,
    };
    for operation in ["a", "b"] {
        assert!(matches!(books.ask(operation, all.clone()), Answer::Reserved { .. }));
        books.ask(operation, Action::Expire);
    }
    assert_eq!(books.ask("a", settle(LARGEST)), settled(LARGEST, 0));
    assert_eq!(books.ask("b", settle(LARGEST)), Answer::Refused(Refusal::TooMuch(UNIT)));
    assert_eq!(books.taken(1), (LARGEST, 0));
    // What the checkpoint has counted is not counted against it again.
    let mut books = Books::default();
    books.ask("c", all);
    books.ask("c", checkpoint(LARGEST - 1));
    books.ask("c", Action::Expire);
    assert_eq!(books.ask("c", settle(LARGEST)), settled(LARGEST, 0));
}
