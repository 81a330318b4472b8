//! What a limit leaves may be set aside, all of it or nothing.

use tenant_operator::ledger::account::State;
use tenant_operator::ledger::decision::{Action, Answer, Refusal};
use tenant_operator::ledger::units::{Amounts, LARGEST, Limits, Unit};

use crate::books::{Books, TENANT, UNIT, limit, period, reserve, reserved, settle, settled, some, void};

fn refused(limit: i64, left: i64, asked: i64) -> Answer {
    Answer::Refused(Refusal::LimitReached { unit: UNIT, limit, left, asked })
}

/// Sets amounts aside without a limit on them.
fn unlimited(amounts: Amounts) -> Action {
    Action::Reserve { period: period(1), amounts, limits: Limits::default(), expires_after: 60 }
}

#[test]
fn a_reservation_up_to_the_limit_is_granted_and_one_beyond_it_is_refused() {
    let mut books = Books::default();
    assert_eq!(books.ask("a", reserve(10, 10)), reserved(0));
    let mut books = Books::default();
    assert_eq!(books.ask("a", reserve(11, 10)), refused(10, 10, 11));
    assert_eq!(books, Books::default(), "a refusal leaves no trace");
}

#[test]
fn what_is_used_and_what_is_reserved_both_count_against_the_limit() {
    let mut books = Books::default();
    books.ask("used", reserve(3, 10));
    books.ask("used", settle(3));
    assert_eq!(books.ask("pending", reserve(4, 10)), reserved(3));
    assert_eq!(books.taken(1), (3, 4));
    assert_eq!(books.ask("a", reserve(4, 10)), refused(10, 3, 4));
    assert_eq!(books.ask("a", reserve(3, 10)), reserved(0));
    assert_eq!(books.taken(1), (3, 7));
    assert_eq!(books.ask("b", reserve(1, 10)), refused(10, 0, 1));
}

#[test]
fn an_operation_remembers_what_it_reserved_and_for_how_long() {
    let mut books = Books::default();
    books.ask("a", Action::Reserve { period: period(1), amounts: some(3), limits: limit(10), expires_after: 17 });
    let operation = &books.operations["a"];
    assert_eq!((operation.tenant.as_str(), operation.period, operation.state), (TENANT, period(1), State::Pending));
    assert_eq!((operation.reserved, operation.posted, operation.expires_after), (some(3), Amounts::ZERO, 17));
    assert!(books.lines.is_empty(), "nothing is counted yet");
}

#[test]
fn all_units_are_reserved_or_none() {
    let mut books = Books::default();
    let amounts = Amounts::of(Unit::Queries, 1).with(Unit::Documents, 2).with(Unit::Bytes, 5);
    let limits = Limits::default().with(Unit::Queries, 1).with(Unit::Documents, 1);
    let ask = |limits| Action::Reserve { period: period(1), amounts, limits, expires_after: 60 };
    let no = Refusal::LimitReached { unit: Unit::Documents, limit: 1, left: 1, asked: 2 };
    assert_eq!(books.ask("a", ask(limits)), Answer::Refused(no));
    assert_eq!(books, Books::default());
    let Answer::Reserved { left, .. } = books.ask("a", ask(limits.with(Unit::Documents, 2))) else {
        panic!("both limits leave enough")
    };
    assert_eq!([Unit::Queries, Unit::Documents, Unit::Bytes].map(|unit| left.of(unit)), [Some(0), Some(0), None]);
    assert_eq!(books.tenants[TENANT].account(period(1)).reserved, amounts);
}

#[test]
fn a_limit_of_a_unit_that_is_not_asked_for_refuses_nothing() {
    let mut books = Books::default();
    books.ask("full", reserve(10, 10));
    let limits = limit(1).with(Unit::Queries, 1);
    let action =
        Action::Reserve { period: period(1), amounts: Amounts::of(Unit::Queries, 1), limits, expires_after: 60 };
    let left = limit(0).with(Unit::Queries, 0);
    assert_eq!(books.ask("a", action), Answer::Reserved { period: period(1), left, pending: true });
}

#[test]
fn a_unit_without_a_limit_is_counted_only() {
    let mut books = Books::default();
    books.ask("a", unlimited(some(1_000_000)));
    assert_eq!(books.ask("a", settle(999_999)), settled(999_999, 0));
    assert_eq!(books.taken(1), (999_999, 0));
}

#[test]
fn a_limit_of_zero_leaves_nothing() {
    assert_eq!(Books::default().ask("a", reserve(1, 0)), refused(0, 0, 1));
}

#[test]
fn a_limit_below_what_is_used_refuses_everything_and_takes_nothing_back() {
    let mut books = Books::default();
    books.ask("used", reserve(8, 10));
    books.ask("used", settle(8));
    books.ask("pending", reserve(2, 10));
    assert_eq!(books.ask("a", reserve(1, 5)), refused(5, 0, 1));
    assert_eq!(books.ask("pending", settle(2)), settled(2, 0), "what was reserved before is served");
    assert_eq!(books.taken(1), (10, 0));
}

#[test]
fn a_limit_raised_from_10_to_20_leaves_exactly_10_more() {
    let mut books = Books::default();
    let mut tried = |from: u32, most| {
        let granted = (from..from + 50).filter(|number| {
            let name = number.to_string();
            let granted = matches!(books.ask(&name, reserve(1, most)), Answer::Reserved { .. });
            // Every other one is settled, so that use and reservations count alike.
            if granted && number % 2 == 0 {
                books.ask(&name, settle(1));
            }
            granted
        });
        granted.count()
    };
    assert_eq!(tried(0, 10), 10);
    assert_eq!(tried(100, 20), 10);
    assert_eq!(books.taken(1), (10, 10));
}

#[test]
fn a_reservation_that_is_refused_may_be_granted_once_there_is_room() {
    let mut books = Books::default();
    books.ask("full", reserve(10, 10));
    assert_eq!(books.ask("a", reserve(1, 10)), refused(10, 0, 1));
    books.ask("full", void());
    assert_eq!(books.ask("a", reserve(1, 10)), reserved(9));
}

#[test]
fn one_tenant_takes_nothing_from_another() {
    let mut books = Books::default();
    books.ask("a", reserve(10, 10));
    let other = tenant_operator::ledger::decision::Command {
        operation: "b".into(),
        tenant: "other".into(),
        action: reserve(10, 10),
        at: None,
    };
    assert_eq!(books.apply(&other), reserved(0));
}

#[test]
fn no_account_holds_more_than_the_largest_amount() {
    let mut books = Books::default();
    assert_eq!(
        books.ask("a", unlimited(some(LARGEST))),
        Answer::Reserved { period: period(1), left: Limits::default(), pending: true }
    );
    let too_much = Answer::Refused(Refusal::TooMuch(UNIT));
    assert_eq!(books.ask("b", unlimited(some(1))), too_much);
    assert_eq!(books.ask("b", unlimited(some(LARGEST))), too_much);
    assert_eq!(books.ask("a", settle(i64::MAX)), settled(LARGEST, i64::MAX - LARGEST));
    assert_eq!(books.ask("b", unlimited(some(1))), too_much);
    assert_eq!(books.ask("b", settle(1)), too_much, "not even what was served while the ledger was away");
    assert_eq!(books.taken(1), (LARGEST, 0));
    let queries = Amounts::of(Unit::Queries, LARGEST);
    assert!(matches!(books.ask("c", unlimited(queries)), Answer::Reserved { .. }), "each unit alone");
}

#[test]
fn a_limit_is_named_before_what_cannot_be_counted() {
    let mut books = Books::default();
    books.ask("a", unlimited(some(LARGEST)));
    assert_eq!(books.ask("b", reserve(LARGEST, LARGEST)), refused(LARGEST, 0, LARGEST));
}
