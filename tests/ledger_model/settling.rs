//! A settlement counts what was used, as far as it was reserved.

use tenant_operator::ledger::account::{LineKind, State};
use tenant_operator::ledger::decision::{Action, Answer};
use tenant_operator::ledger::units::{Amounts, Limits, Unit};

use crate::books::{
    Books, OTHER, TENANT, checkpoint, ended, period, reserve, reserve_in, reserved, reserved_before, settle, settle_in,
    settled, void,
};

#[test]
fn a_settlement_counts_what_was_used_and_gives_back_the_rest() {
    let mut books = Books::default();
    books.ask("a", reserve(5, 10));
    assert_eq!(books.ask("a", settle(2)), settled(2, 0));
    assert_eq!((books.taken(1), books.lines_of("a")), ((2, 0), vec![(LineKind::Settled, 2)]));
    assert_eq!(books.state("a"), Some(State::Settled));
    assert_eq!(books.ask("b", reserve(8, 10)), reserved(0));
}

#[test]
fn a_settlement_counts_at_most_what_was_reserved_and_says_what_was_beyond() {
    let mut books = Books::default();
    books.ask("a", reserve(5, 10));
    assert_eq!(books.ask("a", settle(7)), settled(5, 2));
    assert_eq!((books.taken(1), books.lines_of("a")), ((5, 0), vec![(LineKind::Settled, 5)]));
}

#[test]
fn each_unit_is_bounded_by_its_own_reservation() {
    let mut books = Books::default();
    let amounts = Amounts::of(Unit::PromptTokens, 800).with(Unit::CompletionTokens, 100).with(Unit::Queries, 1);
    let action = Action::Reserve { period: period(1), amounts, limits: Limits::default(), expires_after: 60 };
    books.ask("a", action);
    let used = Amounts::of(Unit::PromptTokens, 900).with(Unit::CompletionTokens, 40).with(Unit::EmbeddingTokens, 7);
    let posted = Amounts::of(Unit::PromptTokens, 800).with(Unit::CompletionTokens, 40);
    let excess = Amounts::of(Unit::PromptTokens, 100).with(Unit::EmbeddingTokens, 7);
    let settle = Action::Settle { period: period(1), amounts: used };
    for _ in 0..2 {
        assert_eq!(books.ask("a", settle.clone()), Answer::Settled { posted, excess });
        let account = books.tenants[TENANT].account(period(1));
        assert_eq!((account.used, account.reserved), (posted, Amounts::ZERO));
    }
}

#[test]
fn a_settlement_of_nothing_gives_everything_back_and_writes_no_line() {
    let mut books = Books::default();
    books.ask("a", reserve(5, 10));
    assert_eq!(books.ask("a", settle(0)), settled(0, 0));
    assert_eq!((books.taken(1), books.lines_of("a")), ((0, 0), vec![]));
}

#[test]
fn a_settlement_below_the_checkpoint_counts_what_it_says() {
    let mut books = Books::default();
    books.ask("a", reserve(5, 10));
    books.ask("a", checkpoint(4));
    assert_eq!(books.ask("a", settle(2)), settled(2, 0));
    assert_eq!((books.taken(1), books.lines_of("a")), ((2, 0), vec![(LineKind::Settled, 2)]));
}

#[test]
fn what_was_served_without_a_reservation_counts_beyond_the_limit_and_says_so() {
    let mut books = Books::default();
    books.ask("full", reserve(10, 10));
    assert_eq!(books.ask("a", settle(3)), settled(3, 0));
    assert_eq!((books.taken(1), books.lines_of("a")), ((3, 10), vec![(LineKind::Unreserved, 3)]));
    let operation = &books.operations["a"];
    assert_eq!((operation.state, operation.expires_after), (State::Settled, 0));
    assert!(matches!(books.ask("b", reserve(1, 13)), Answer::Refused(_)), "it takes from the limit afterwards");
    assert_eq!(books.ask("b", reserve(1, 14)), reserved(0));
}

#[test]
fn a_reservation_that_comes_after_its_settlement_sets_nothing_aside() {
    let mut books = Books::default();
    books.ask("a", settle(3));
    assert_eq!(books.ask("a", reserve(5, 10)), OTHER);
    assert_eq!(books.ask("a", reserve(3, 10)), reserved_before(7), "as if it had come in time");
    assert_eq!(books.taken(1), (3, 0));
    assert_eq!(books.ask("a", Action::Expire), ended(State::Settled));
    assert_eq!(books.ask("a", void()), ended(State::Settled));
    assert_eq!(books.taken(1), (3, 0));
}

#[test]
fn an_operation_is_settled_in_the_period_that_it_was_reserved_in() {
    let mut books = Books::default();
    books.ask("old", reserve(5, 10));
    books.ask("new", reserve_in(2, 4, 10));
    assert_eq!((books.taken(1), books.taken(2)), ((0, 5), (0, 4)));
    assert_eq!(books.ask("old", settle_in(2, 3)), settled(3, 0));
    assert_eq!((books.taken(1), books.taken(2)), ((3, 0), (0, 4)));
    assert_eq!(books.lines["old"][0].0, period(1));
}
