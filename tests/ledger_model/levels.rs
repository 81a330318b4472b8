//! Levels are what is stored at the moment: they outlive periods, and a release lowers them.

use strum::IntoEnumIterator;
use tenant_operator::ledger::account::{LineKind, State};
use tenant_operator::ledger::decision::{Action, Answer, Refusal};
use tenant_operator::ledger::units::{Amounts, Limits, Unit};

use crate::books::{Books, OTHER, TENANT, period};

fn documents(amount: i64) -> Amounts {
    Amounts::of(Unit::Documents, amount)
}

fn release(number: u8, amounts: Amounts) -> Action {
    Action::Release { period: period(number), amounts }
}

/// Stores so many documents in a period, of at most 10.
fn store(books: &mut Books, operation: &str, number: u8, amount: i64) -> Answer {
    let limits = Limits::default().with(Unit::Documents, 10);
    let reserve = Action::Reserve { period: period(number), amounts: documents(amount), limits, expires_after: 60 };
    let answer = books.ask(operation, reserve);
    if matches!(answer, Answer::Reserved { .. }) {
        books.ask(operation, Action::Settle { period: period(number), amounts: documents(amount) });
    }
    answer
}

fn level(books: &Books, number: u8) -> i64 {
    books.tenants[TENANT].account(period(number)).used[Unit::Documents]
}

#[test]
fn a_level_stays_when_a_period_ends() {
    let mut books = Books::default();
    store(&mut books, "a", 1, 6);
    let full = Refusal::LimitReached { unit: Unit::Documents, limit: 10, left: 4, asked: 5 };
    assert_eq!(store(&mut books, "b", 2, 5), Answer::Refused(full));
    assert!(matches!(store(&mut books, "b", 2, 4), Answer::Reserved { .. }));
    assert_eq!((level(&books, 1), level(&books, 2)), (10, 10));
}

#[test]
fn documents_and_bytes_outlive_a_period_and_all_else_starts_at_zero() {
    let mut books = Books::default();
    let all = Unit::iter().fold(Amounts::ZERO, |all, unit| all.with(unit, 1));
    books.ask("a", Action::Settle { period: period(1), amounts: all });
    let next = books.tenants[TENANT].account(period(2)).used;
    assert_eq!(next, documents(1).with(Unit::Bytes, 1));
    books.ask("gone", release(2, all));
    assert_eq!(books.tenants[TENANT].account(period(2)).used, Amounts::ZERO);
}

#[test]
fn a_release_lowers_a_level_and_makes_room() {
    let mut books = Books::default();
    store(&mut books, "a", 1, 10);
    assert_eq!(books.ask("gone", release(2, documents(3))), Answer::Released);
    assert_eq!(level(&books, 2), 7);
    let (at, line) = &books.lines["gone"][0];
    assert_eq!((*at, line.kind, line.amounts), (period(2), LineKind::Released, documents(-3)));
    assert_eq!(books.state("gone"), Some(State::Released));
    assert!(matches!(store(&mut books, "b", 2, 3), Answer::Reserved { .. }));
}

#[test]
fn a_release_never_lowers_a_level_below_zero() {
    let mut books = Books::default();
    store(&mut books, "a", 1, 2);
    assert_eq!(books.ask("gone", release(1, documents(5))), Answer::Released);
    assert_eq!((level(&books, 1), books.lines["gone"][0].1.amounts), (0, documents(-2)));
    assert_eq!(books.ask("more", release(1, documents(1))), Answer::Released);
    assert_eq!(level(&books, 1), 0);
    assert!(!books.lines.contains_key("more"), "nothing was there to release");
}

#[test]
fn a_release_is_done_once_under_its_name() {
    let mut books = Books::default();
    store(&mut books, "a", 1, 9);
    for _ in 0..3 {
        assert_eq!(books.ask("gone", release(1, documents(4))), Answer::Released);
        assert_eq!(level(&books, 1), 5);
    }
    assert_eq!(books.ask("gone", release(1, documents(3))), OTHER);
    assert_eq!(level(&books, 1), 5);
}

#[test]
fn a_release_that_found_less_is_still_answered_again() {
    let mut books = Books::default();
    store(&mut books, "a", 1, 2);
    books.ask("gone", release(1, documents(4)));
    store(&mut books, "b", 1, 5);
    assert_eq!(books.ask("gone", release(1, documents(4))), Answer::Released);
    assert_eq!(level(&books, 1), 5);
}

#[test]
fn a_release_takes_nothing_from_flows_nor_from_reservations() {
    let mut books = Books::default();
    let both = documents(2).with(Unit::Queries, 3);
    let reserve = |period| Action::Reserve { period, amounts: both, limits: Limits::default(), expires_after: 60 };
    books.ask("a", reserve(period(1)));
    books.ask("a", Action::Settle { period: period(1), amounts: both });
    books.ask("pending", reserve(period(1)));
    books.ask("gone", release(1, both));
    let account = books.tenants[TENANT].account(period(1));
    assert_eq!((account.used, account.reserved), (Amounts::of(Unit::Queries, 3), both));
}

#[test]
fn a_release_in_a_new_period_begins_it() {
    let mut books = Books::default();
    store(&mut books, "a", 1, 2);
    books.ask("gone", release(2, documents(1)));
    assert_eq!(books.tenants[TENANT].latest, Some(period(2)));
    books.ask("late", release(1, documents(1)));
    assert_eq!((books.tenants[TENANT].latest, level(&books, 2)), (Some(period(2)), 0));
    assert_eq!(books.lines["late"][0].0, period(2), "a closed period does not open for it");
}

#[test]
fn a_level_that_was_reserved_in_the_old_period_is_stored_in_the_new_one() {
    let mut books = Books::default();
    let reserve =
        Action::Reserve { period: period(1), amounts: documents(2), limits: Limits::default(), expires_after: 60 };
    books.ask("a", reserve);
    store(&mut books, "b", 2, 3);
    books.ask("a", Action::Settle { period: period(2), amounts: documents(2) });
    assert_eq!((level(&books, 1), level(&books, 2)), (5, 5));
    assert!(books.tenants[TENANT].levels.reserved.is_zero());
}
