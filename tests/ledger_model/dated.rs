//! What happened a while ago, and what other systems tell of.

use tenant_operator::api::Timestamp;
use tenant_operator::ledger::account::{Account, LineKind, Operation, State};
use tenant_operator::ledger::decision::{
    Action, Answer, Command, Facts, Refusal, decide, ended_at, forgotten_before, period_of,
};
use tenant_operator::ledger::units::{Amounts, Unit};

use crate::books::{Books, OTHER, TENANT, UNIT, limit, period, reserve, reserve_in, reserved, settle, settled, some};

const DAY: i64 = 24 * 3600;

fn event(number: u8, amount: i64) -> Action {
    Action::Event { period: period(number), amounts: some(amount) }
}

/// What the ledger answers to a new operation at a time.
fn asked(action: Action, at: i64, now: i64) -> Answer {
    let [at, now] = [at, now].map(|days| period(1).start.plus(days));
    let command = Command { operation: "a".into(), tenant: TENANT.into(), action, at: Some(at) };
    let facts = Facts { now, operation: None, latest: Some(period(1)), account: Account::default() };
    decide(&command, &facts).0
}

#[test]
fn an_event_of_34_days_counts_and_one_of_36_is_refused() {
    assert_eq!(asked(event(1, 1), 0, 34 * DAY), Answer::Accepted);
    assert_eq!(asked(event(1, 1), 0, 35 * DAY), Answer::Accepted);
    let old = Answer::Refused(Refusal::TooOld { at: period(1).start, days: 35 });
    assert_eq!(asked(event(1, 1), 0, 35 * DAY + 1), old);
    assert_eq!(asked(event(1, 1), 0, 36 * DAY), old);
}

#[test]
fn a_settlement_of_92_days_counts_and_one_of_94_is_refused() {
    assert_eq!(asked(settle(1), 0, 92 * DAY), settled(1, 0));
    assert_eq!(asked(settle(1), 0, 93 * DAY), settled(1, 0));
    let old = Answer::Refused(Refusal::TooOld { at: period(1).start, days: 93 });
    assert_eq!(asked(settle(1), 0, 93 * DAY + 1), old);
    let release = Action::Release { period: period(1), amounts: Amounts::of(Unit::Documents, 1) };
    assert_eq!(asked(release.clone(), 0, 93 * DAY), Answer::Released);
    assert_eq!(asked(release, 0, 94 * DAY), old);
    // Nothing that happened so long ago is reserved, and a void counts nothing.
    assert_eq!(asked(Action::Void { period: period(1) }, 0, 94 * DAY), Answer::Voided);
}

#[test]
fn a_clock_may_be_ahead_by_five_minutes() {
    for action in [settle(1), event(1, 1)] {
        assert!(!matches!(asked(action.clone(), 300, 0), Answer::Refused(_)));
        let now = period(1).start;
        let wanted = Answer::Refused(Refusal::Ahead { at: now.plus(301), now });
        assert_eq!(asked(action, 301, 0), wanted);
    }
}

/// Whatever a client's clock says: when an operation may be forgotten, its repetition is too old.
#[test]
fn what_may_be_forgotten_is_refused() {
    for ahead in [-1000, 0, 299, 300] {
        for since in (92 * DAY..94 * DAY).step_by(7) {
            // It ends in the moment in which it is settled.
            assert_eq!(asked(settle(1), ahead, 0), settled(1, 0));
            let forgotten = period(1).start < forgotten_before(period(1).start.plus(since));
            let refused = matches!(asked(settle(1), ahead, since), Answer::Refused(Refusal::TooOld { .. }));
            assert!(refused || !forgotten, "{ahead} s ahead, after {since} s");
        }
    }
}

#[test]
fn an_event_counts_once_beyond_the_limit_in_the_period_that_it_names() {
    let mut books = Books::default();
    books.ask("r", reserve(5, 5));
    books.ask("r", settle(5));
    assert_eq!(books.ask("e", event(1, 3)), Answer::Accepted);
    for again in [event(1, 3), event(1, 7), event(2, 3)] {
        assert_eq!(books.ask("e", again), Answer::Duplicate);
    }
    assert_eq!((books.taken(1), books.lines_of("e")), ((8, 0), vec![(LineKind::Event, 3)]));
    assert_eq!(books.state("e"), Some(State::Settled));
    // In a closed period too, which takes no reservation all the same.
    let next = Answer::Reserved { period: period(2), left: limit(4), pending: true };
    assert_eq!(books.ask("next", reserve_in(2, 1, 5)), next);
    assert_eq!(books.ask("late", event(1, 1)), Answer::Accepted);
    assert_eq!((books.taken(1), books.taken(2)), ((9, 0), (0, 1)));
    let Answer::Reserved { period: found, left, .. } = books.ask("behind", reserve(1, 5)) else { panic!("refused") };
    assert_eq!((found, left), (period(2), limit(3)));
}

/// A gateway that counts by calendar months names other periods than the tenant's own.
#[test]
fn an_event_closes_no_period_so_it_gives_no_second_quota() {
    let mut books = Books::default();
    assert_eq!(books.ask("all", reserve(5, 5)), reserved(0));
    assert_eq!(books.ask("e", event(2, 1)), Answer::Accepted);
    assert_eq!(books.tenants[TENANT].latest, Some(period(1)));
    let refusal = Refusal::LimitReached { unit: UNIT, limit: 5, left: 0, asked: 1 };
    assert_eq!(books.ask("more", reserve(1, 5)), Answer::Refused(refusal));
    assert_eq!((books.taken(1), books.taken(2)), ((0, 5), (1, 0)));
    // It counts once the tenant itself comes to that period.
    let next = Answer::Reserved { period: period(2), left: limit(3), pending: true };
    assert_eq!(books.ask("next", reserve_in(2, 1, 5)), next);
}

#[test]
fn an_event_begins_the_first_period_of_a_tenant() {
    let mut books = Books::default();
    assert_eq!(books.ask("e", event(1, 2)), Answer::Accepted);
    assert_eq!(books.ask("later", event(2, 2)), Answer::Accepted);
    assert_eq!(books.tenants[TENANT].latest, Some(period(1)));
    assert_eq!(books.ask("r", reserve(1, 5)), reserved(2));
}

#[test]
fn what_counted_nothing_is_forgotten_after_a_day_and_all_else_after_93() {
    let now = period(1).start;
    let operation = |state, posted| Operation {
        tenant: TENANT.into(),
        period: period(1),
        reserved: some(1),
        posted,
        state,
        expires_after: 60,
    };
    for (state, posted, days) in [
        (State::Voided, Amounts::ZERO, 1),
        (State::Settled, Amounts::ZERO, 1),
        (State::Settled, some(1), 93),
        // A settlement can still come for it.
        (State::Expired, Amounts::ZERO, 93),
        (State::Expired, some(1), 93),
        (State::Released, Amounts::ZERO, 93),
    ] {
        let ended = ended_at(&operation(state, posted), now).expect("it has ended");
        let is_forgotten = |after: i64| ended < forgotten_before(now.plus(after));
        // A client's clock may be ahead by five minutes.
        let least = days * DAY + 300;
        assert_eq!([least, least + 1].map(is_forgotten), [false, true], "{state:?}");
    }
    assert_eq!(ended_at(&operation(State::Pending, some(1)), now), None);
}

#[test]
fn an_event_of_another_tenant_under_the_same_name_is_refused() {
    let mut books = Books::default();
    books.ask("e", event(1, 3));
    let other = Command { operation: "e".into(), tenant: "other".into(), action: event(1, 3), at: None };
    assert_eq!(books.apply(&other), OTHER);
}

#[test]
fn an_event_of_a_period_that_has_not_begun_is_refused() {
    let command = Command { operation: "e".into(), tenant: TENANT.into(), action: event(2, 1), at: None };
    let now: Timestamp = period(2).start.plus(-301);
    let latest = Some(period(1));
    assert_eq!(period_of(&command, None, latest), Some(period(2)));
    let facts = Facts { now, operation: None, latest, account: Account::default() };
    let wanted = Answer::Refused(Refusal::PeriodAhead { start: period(2).start, now });
    assert_eq!(decide(&command, &facts).0, wanted);
}
