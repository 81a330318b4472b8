//! Flows start at zero in each period, and a closed period never opens again.

use tenant_operator::api::Timestamp;
use tenant_operator::ledger::account::{Account, Operation, Period, State};
use tenant_operator::ledger::decision::{Action, Answer, Changes, Command, Facts, Refusal, decide};
use tenant_operator::ledger::units::{Amounts, Unit};

use crate::books::{Books, TENANT, limit, period, reserve, reserve_in, reserved, settle, settle_in, settled, some};

fn reserved_in(number: u8, left: i64) -> Answer {
    Answer::Reserved { period: period(number), left: limit(left), pending: true }
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

#[test]
fn a_period_that_begins_more_than_five_minutes_from_now_is_refused_for_a_new_operation() {
    let judged = |action: Action, seconds: i64, operation: Option<Operation>| {
        let now = Timestamp::from_second(period(2).start.as_second() - seconds);
        let command = Command { operation: "a".into(), tenant: TENANT.into(), action, at: None };
        let facts = Facts { now, operation, latest: Some(period(1)), account: Account::default() };
        decide(&command, &facts)
    };
    let new = [
        reserve_in(2, 1, 10),
        Action::Settle { period: period(2), amounts: some(1) },
        Action::Void { period: period(2) },
        Action::Release { period: period(2), amounts: Amounts::of(Unit::Documents, 1) },
    ];
    for action in new.clone() {
        let (answer, changes) = judged(action.clone(), 301, None);
        let Answer::Refused(Refusal::PeriodAhead { start, .. }) = answer else { panic!("{action:?}: {answer:?}") };
        assert_eq!((start, changes), (period(2).start, Changes::default()));
        let (answer, _) = judged(action.clone(), 300, None);
        assert!(!matches!(answer, Answer::Refused(_)), "{action:?}: {answer:?}");
    }
    // What is known has a period: that of the command is not used, and nothing that was served is lost.
    let pending = Operation {
        tenant: TENANT.into(),
        period: period(1),
        reserved: some(1),
        posted: Amounts::ZERO,
        state: State::Pending,
        expires_after: 60,
    };
    for action in [&new[1], &new[2]] {
        let (answer, _) = judged(action.clone(), 9000, Some(pending.clone()));
        assert!(!matches!(answer, Answer::Refused(_)), "{action:?}: {answer:?}");
    }
}
