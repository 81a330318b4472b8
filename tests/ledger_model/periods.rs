//! Flows start at zero in each period, and a closed period never opens again.

use tenant_operator::api::Timestamp;
use tenant_operator::ledger::account::Period;
use tenant_operator::ledger::decision::{Action, Answer};

use crate::books::{Books, TENANT, limit, period, reserve, reserve_in, reserved, settle, settle_in, settled, some};

fn reserved_in(number: u8, left: i64) -> Answer {
    Answer::Reserved { period: period(number), left: limit(left) }
}

fn latest(books: &Books) -> Option<Period> {
    books.tenants[TENANT].latest
}

#[test]
fn a_new_period_starts_at_zero() {
    let mut books = Books::default();
    books.ask("a", reserve(10, 10));
    assert_eq!(books.ask("b", reserve_in(2, 10, 10)), reserved_in(2, 0));
    assert_eq!((books.taken(1), books.taken(2)), ((0, 10), (0, 10)));
    assert_eq!(latest(&books), Some(period(2)));
}

#[test]
fn a_closed_period_never_opens_again() {
    let mut books = Books::default();
    books.ask("a", reserve_in(2, 4, 10));
    // The clock of this client is behind.
    assert_eq!(books.ask("b", reserve(5, 10)), reserved_in(2, 1));
    assert_eq!((books.taken(1), books.taken(2)), ((0, 0), (0, 9)));
    assert!(matches!(books.ask("c", reserve(5, 10)), Answer::Refused(_)), "nor is there more of it to take");
    assert_eq!(latest(&books), Some(period(2)));
}

#[test]
fn what_was_served_without_a_reservation_counts_when_it_was_served() {
    let mut books = Books::default();
    books.ask("a", reserve_in(2, 4, 10));
    assert_eq!(books.ask("old", settle(3)), settled(3, 0));
    assert_eq!((books.taken(1), books.taken(2)), ((3, 0), (0, 4)));
    assert_eq!(latest(&books), Some(period(2)), "which opens no closed period");
    assert_eq!(books.ask("b", reserve(1, 10)), reserved_in(2, 5));
}

#[test]
fn what_was_served_without_a_reservation_may_begin_a_period() {
    let mut books = Books::default();
    books.ask("a", reserve(4, 10));
    books.ask("b", settle_in(2, 3));
    assert_eq!(latest(&books), Some(period(2)));
    assert_eq!(books.ask("c", reserve(1, 10)), reserved_in(2, 6));
}

#[test]
fn a_settlement_of_a_reservation_begins_no_period() {
    let mut books = Books::default();
    books.ask("a", reserve(4, 10));
    books.ask("a", settle_in(2, 3));
    assert_eq!(latest(&books), Some(period(1)));
    assert_eq!(books.ask("b", reserve(1, 10)), reserved(6));
}

#[test]
fn a_refused_reservation_begins_no_period() {
    let mut books = Books::default();
    books.ask("a", reserve(4, 10));
    assert!(matches!(books.ask("b", reserve_in(2, 11, 10)), Answer::Refused(_)));
    assert_eq!(latest(&books), Some(period(1)));
}

#[test]
fn periods_are_told_apart_by_their_start() {
    let mut books = Books::default();
    books.ask("a", reserve(4, 10));
    let longer = Period { end: Timestamp::from_second(period(1).end.as_second() + 5), ..period(1) };
    let action = Action::Reserve { period: longer, amounts: some(4), limits: limit(10), expires_after: 60 };
    assert_eq!(books.ask("b", action), reserved(2), "it ends as it was first said to");
    let unreserved = Action::Settle { period: longer, amounts: some(1) };
    books.ask("c", unreserved);
    assert_eq!(books.ask("d", Action::Void { period: longer }), Answer::Voided);
    assert_eq!(books.ask("e", Action::Release { period: longer, amounts: some(0) }), Answer::Released);
    assert_eq!((latest(&books), books.taken(1)), (Some(period(1)), (1, 8)));
    assert!(books.operations.values().all(|operation| operation.period == period(1)));
}
