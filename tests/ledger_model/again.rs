//! The same operation again: the same answer, and nothing changes.

use tenant_operator::ledger::account::State;
use tenant_operator::ledger::decision::{Action, Answer, Command};
use tenant_operator::ledger::units::{Amounts, Unit};

use crate::books::{
    Books, OTHER, TENANT, checkpoint, ended, limit, period, reserve, reserve_in, reserved, reserved_before, settle,
    settle_in, settled, some, void,
};

/// Asks something that must change nothing.
fn unmoved(books: &mut Books, operation: &str, action: Action) -> Answer {
    let before = books.clone();
    let answer = books.ask(operation, action);
    assert_eq!(*books, before);
    answer
}

#[test]
fn a_reservation_whose_answer_was_lost_is_answered_again_whatever_came_of_it() {
    let mut books = Books::default();
    for (operation, amount) in [("pending", 2), ("settled", 3), ("expired", 4)] {
        books.ask(operation, reserve(amount, 10));
    }
    books.ask("settled", settle(1));
    books.ask("expired", Action::Expire);
    // 1 used, 2 pending.
    for (operation, amount) in [("pending", 2), ("settled", 3), ("expired", 4)] {
        let wanted = if operation == "pending" { reserved(7) } else { reserved_before(7) };
        assert_eq!(unmoved(&mut books, operation, reserve(amount, 10)), wanted, "{operation}");
    }
}

#[test]
fn it_is_answered_again_even_if_the_limit_is_reached_by_now_or_lowered() {
    let mut books = Books::default();
    books.ask("a", reserve(2, 10));
    books.ask("b", reserve(8, 10));
    assert_eq!(unmoved(&mut books, "a", reserve(2, 10)), reserved(0));
    assert_eq!(unmoved(&mut books, "a", reserve(2, 3)), reserved(0));
}

#[test]
fn it_keeps_its_period_and_says_which() {
    let mut books = Books::default();
    books.ask("a", reserve(2, 10));
    books.ask("b", reserve_in(2, 5, 10));
    assert_eq!(unmoved(&mut books, "a", reserve_in(2, 2, 10)), reserved(8), "8 are left of the first period");
}

#[test]
fn a_voided_operation_is_not_reserved_again() {
    let mut books = Books::default();
    books.ask("a", reserve(2, 10));
    books.ask("a", void());
    assert_eq!(unmoved(&mut books, "a", reserve(2, 10)), ended(State::Voided));
}

#[test]
fn other_amounts_under_the_same_name_are_refused() {
    let mut books = Books::default();
    for (operation, end) in [("pending", None), ("settled", Some(settle(1))), ("expired", Some(Action::Expire))] {
        books.ask(operation, reserve(2, 10));
        end.map(|end| books.ask(operation, end));
        assert_eq!(unmoved(&mut books, operation, reserve(3, 10)), OTHER, "{operation}");
        assert_eq!(unmoved(&mut books, operation, reserve(1, 10)), OTHER, "{operation}");
        let more = some(2).with(Unit::Queries, 1);
        let action = Action::Reserve { period: period(1), amounts: more, limits: limit(10), expires_after: 60 };
        assert_eq!(unmoved(&mut books, operation, action), OTHER, "{operation}");
    }
}

#[test]
fn another_tenant_under_the_same_name_is_refused_whatever_it_asks() {
    let mut books = Books::default();
    for (operation, end) in [
        ("pending", None),
        ("settled", Some(settle(1))),
        ("voided", Some(void())),
        ("expired", Some(Action::Expire)),
        ("unreserved", Some(settle(2))),
        ("released", Some(Action::Release { period: period(1), amounts: some(2) })),
    ] {
        if !["unreserved", "released"].contains(&operation) {
            books.ask(operation, reserve(2, 10));
        }
        end.map(|end| books.ask(operation, end));
        for action in [
            reserve(2, 10),
            checkpoint(2),
            settle(2),
            void(),
            Action::Expire,
            Action::Release { period: period(1), amounts: some(2) },
        ] {
            let before = books.clone();
            let command = Command { operation: operation.into(), tenant: "other".into(), action, at: None };
            assert_eq!(books.apply(&command), OTHER, "{command:?}");
            let known = |books: &Books| (books.operations.clone(), books.tenants[TENANT].clone(), books.lines.clone());
            assert_eq!(known(&books), known(&before), "{command:?}");
        }
    }
}

#[test]
fn a_settlement_is_answered_again_and_counts_once() {
    let mut books = Books::default();
    books.ask("a", reserve(4, 10));
    for _ in 0..3 {
        assert_eq!(books.ask("a", settle(6)), settled(4, 2));
        assert_eq!(books.taken(1), (4, 0));
    }
    books.ask("less", reserve(5, 10));
    books.ask("less", settle(2));
    assert_eq!(unmoved(&mut books, "less", settle(4)), settled(2, 2), "other amounts count nothing more, and are told");
    books.ask("unreserved", settle(5));
    assert_eq!(unmoved(&mut books, "unreserved", settle(5)), settled(5, 0));
    assert_eq!(
        unmoved(&mut books, "unreserved", settle_in(2, 5)),
        settled(5, 0),
        "a new period makes no new operation"
    );
    assert_eq!(unmoved(&mut books, "unreserved", settle(3)), settled(5, 0), "there is no excess below nothing");
    assert_eq!(unmoved(&mut books, "unreserved", settle(7)), settled(5, 2));
}

#[test]
fn a_late_settlement_is_answered_again_and_counts_once() {
    let mut books = Books::default();
    books.ask("a", reserve(4, 10));
    books.ask("a", checkpoint(1));
    books.ask("a", Action::Expire);
    assert_eq!(books.ask("a", settle(6)), settled(4, 2));
    assert_eq!(unmoved(&mut books, "a", settle(6)), settled(4, 2));
    assert_eq!(books.taken(1), (4, 0));
}

#[test]
fn a_void_is_answered_again() {
    let mut books = Books::default();
    books.ask("a", reserve(4, 10));
    books.ask("b", reserve(4, 10));
    for _ in 0..3 {
        assert_eq!(books.ask("a", void()), Answer::Voided);
        assert_eq!(books.taken(1), (0, 4), "it gives back its own reservation, once");
    }
}

#[test]
fn what_has_ended_does_not_end_in_another_way() {
    let mut books = Books::default();
    for operation in ["settled", "voided", "expired"] {
        books.ask(operation, reserve(2, 10));
    }
    books.ask("settled", settle(1));
    books.ask("voided", void());
    books.ask("expired", checkpoint(1));
    books.ask("expired", Action::Expire);
    let release = Action::Release { period: period(1), amounts: Amounts::of(Unit::Bytes, 1) };
    books.ask("released", release.clone());
    for (operation, state, actions) in [
        ("settled", State::Settled, vec![checkpoint(2), void(), Action::Expire]),
        ("voided", State::Voided, vec![checkpoint(2), settle(2), Action::Expire]),
        ("expired", State::Expired, vec![checkpoint(2), void(), Action::Expire]),
        ("released", State::Released, vec![checkpoint(2), settle(2), void(), Action::Expire]),
    ] {
        for action in actions {
            assert_eq!(unmoved(&mut books, operation, action.clone()), ended(state), "{operation}: {action:?}");
        }
        if state != State::Released {
            assert_eq!(unmoved(&mut books, operation, release.clone()), OTHER, "{operation}");
        }
    }
    books.ask("pending", reserve(1, 10));
    assert_eq!(unmoved(&mut books, "pending", release), OTHER);
    assert_eq!(unmoved(&mut books, "released", reserve(1, 10)), OTHER);
}
