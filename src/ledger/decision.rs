//! What a command comes to: pure, without a clock and without I/O. Each store reads the facts that a command rests on,
//! asks [`decide`], and writes the changes in the same transaction, so that no other command comes between.
//!
//! The semantics are those of two-phase transfers (as in `TigerBeetle`): what may be used is reserved first, and posted
//! or given back later. Whatever happens in between, `used + reserved` never exceeds a limit that was judged, except by
//! what was served while the ledger was away or after a reservation had expired. Such lines say so by their kind.

use strum::IntoEnumIterator;

use super::account::{Account, Line, LineKind, Operation, Period, State};
use super::units::{Amounts, LARGEST, Limits, Unit};
use crate::api::Timestamp;

pub use super::account::KNOWN_DAYS;
pub use super::command::{Action, Answer, Command, Refusal};

/// What a command rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The present, by the ledger's clock.
    pub now: Timestamp,
    /// The operation, if it is known.
    pub operation: Option<Operation>,
    /// The latest period of the tenant.
    pub latest: Option<Period>,
    /// The tenant's account: levels, and the flows of [`period_of`] this command.
    pub account: Account,
}

/// What a command changes. All of it is written in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The operation, as it is from now on.
    pub operation: Option<Operation>,
    /// The tenant's latest period, if it is another one from now on.
    pub latest: Option<Period>,
    /// The account, as it is from now on.
    pub account: Option<Account>,
    /// A new line.
    pub line: Option<Line>,
}

/// Seconds by which a client's clock may be ahead.
const AHEAD: i64 = 5 * 60;
const DAY: i64 = 24 * 3600;
/// Days for which an operation is known that ended and counted nothing.
const UNCOUNTED_DAYS: i64 = 1;
/// Days after which an event is refused.
pub const EVENT_DAYS: i64 = 35;

/// Operations whose [`ended_at`] is before this moment may be forgotten. An operation ends at most `AHEAD` before its
/// client says that it happened, so what counted and comes again after it was forgotten is refused as too old.
pub const fn forgotten_before(now: Timestamp) -> Timestamp {
    now.plus(-(KNOWN_DAYS * DAY + AHEAD))
}

/// From when on the days of an operation run that ends now. None while it is pending.
///
/// One that was voided, or settled with nothing, counts as ended [`KNOWN_DAYS`] less `UNCOUNTED_DAYS` ago, so it is
/// forgotten after a day: a tenant makes any number of them outside its quota, and they would fill the ledger's volume.
/// The name may then be used anew, and that counts nothing twice:
/// - A reservation that the void overtook is not on its way any more: a request lives for seconds, and what it would
///   set aside expires after a day at most.
/// - A settlement that comes late does not count at all. A client ends an operation in one way and repeats that, so
///   after a void it settles nothing, and what it settled with nothing is nothing again. A client that breaks this rule
///   is counted once: the first time counted nothing, and from the second on the name is known for [`KNOWN_DAYS`].
///
/// What expired is known as long as what counted: a client that was away still settles it. So is what was released,
/// which counts although it posted nothing.
pub fn ended_at(operation: &Operation, now: Timestamp) -> Option<Timestamp> {
    let days = match operation.state {
        State::Pending => return None,
        State::Voided => UNCOUNTED_DAYS,
        State::Settled if operation.posted.is_zero() => UNCOUNTED_DAYS,
        State::Settled | State::Expired | State::Released => KNOWN_DAYS,
    };
    Some(now.plus(-(KNOWN_DAYS - days) * DAY))
}

/// The later of two periods. Periods of one tenant are told apart by their start.
fn later(one: Period, other: Option<Period>) -> Period {
    other.filter(|other| other.start >= one.start).unwrap_or(one)
}

/// The period whose flows a command needs. None where it needs no account.
pub fn period_of(command: &Command, operation: Option<&Operation>, latest: Option<Period>) -> Option<Period> {
    if let Some(operation) = operation {
        return Some(operation.period);
    }
    match command.action {
        Action::Reserve { period, .. } | Action::Release { period, .. } => Some(later(period, latest)),
        // What was served without a reservation is counted when it was served.
        // A start names a period, whatever end the client gives it.
        Action::Settle { period, .. }
        | Action::Event { period, .. }
        | Action::Move { period, .. }
        | Action::Recount { period, .. }
        | Action::Void { period } => Some(latest.filter(|latest| latest.start == period.start).unwrap_or(period)),
        Action::Checkpoint { .. } | Action::Expire => None,
    }
}

/// What a command comes to.
pub fn decide(command: &Command, facts: &Facts) -> (Answer, Changes) {
    let Some(operation) = &facts.operation else { return begin(command, facts) };
    if operation.tenant != command.tenant {
        return refuse(Refusal::OtherParameters);
    }
    match (&command.action, operation.state) {
        (Action::Reserve { amounts, limits, .. }, state) => again(*amounts, limits, operation, state, &facts.account),
        (Action::Checkpoint { amounts }, State::Pending) => {
            let posted = operation.posted.at_least(amounts.at_most(operation.reserved));
            (
                Answer::Checkpointed,
                Changes { operation: Some(Operation { posted, ..operation.clone() }), ..Changes::default() },
            )
        }
        (Action::Settle { amounts, .. }, State::Pending) => {
            let posted = amounts.at_most(operation.reserved);
            let answer = Answer::Settled { posted, excess: amounts.minus(posted) };
            (answer, end(operation, &facts.account, State::Settled, posted))
        }
        (Action::Settle { amounts, .. } | Action::Move { amounts, .. }, State::Settled) => {
            let excess = amounts.minus(operation.posted).at_least(Amounts::ZERO);
            (Answer::Settled { posted: operation.posted, excess }, Changes::default())
        }
        (Action::Settle { amounts, .. }, State::Expired) => {
            late(operation, *amounts, &facts.account, (LineKind::Late, State::Settled))
        }
        // Its client may still settle it.
        (Action::Recount { amounts, .. }, State::Expired) => {
            late(operation, *amounts, &facts.account, (LineKind::Moved, State::Expired))
        }
        // The ledger has it, or its client ends it.
        (Action::Recount { .. }, _) => {
            let settled = Answer::Settled { posted: operation.posted, excess: Amounts::ZERO };
            (settled, Changes::default())
        }
        (Action::Void { .. }, State::Pending) => {
            (Answer::Voided, end(operation, &facts.account, State::Voided, Amounts::ZERO))
        }
        (Action::Void { .. }, State::Voided) => (Answer::Voided, Changes::default()),
        // It expired and counted nothing, as its client wishes. It is voided from now on: the name is not reserved again,
        // and nothing of it is settled.
        (Action::Void { .. }, State::Expired) if operation.posted.is_zero() => {
            let operation = Some(Operation { state: State::Voided, ..operation.clone() });
            (Answer::Voided, Changes { operation, ..Changes::default() })
        }
        (Action::Expire, State::Pending) => {
            (Answer::Expired, end(operation, &facts.account, State::Expired, operation.posted))
        }
        (Action::Release { amounts, .. }, State::Released) if *amounts == operation.reserved => {
            (Answer::Released, Changes::default())
        }
        (Action::Release { .. } | Action::Move { .. }, _) => refuse(Refusal::OtherParameters),
        (Action::Event { .. }, _) => (Answer::Duplicate, Changes::default()),
        (Action::Checkpoint { .. } | Action::Settle { .. } | Action::Void { .. } | Action::Expire, state) => {
            refuse(Refusal::Ended(state))
        }
    }
}

/// Whether a new operation names a period that has not begun. A client whose clock is ahead would close the present one
/// for good.
fn ahead(action: &Action, now: Timestamp) -> Option<Refusal> {
    let (Action::Reserve { period, .. }
    | Action::Settle { period, .. }
    | Action::Event { period, .. }
    | Action::Move { period, .. }
    | Action::Recount { period, .. }
    | Action::Void { period }
    | Action::Release { period, .. }) = action
    else {
        return None;
    };
    (period.start.since(now) > AHEAD).then_some(Refusal::PeriodAhead { start: period.start, now })
}

/// Whether a new operation happened at a time at which it cannot be counted.
fn out_of_time(command: &Command, now: Timestamp) -> Option<Refusal> {
    let days = match command.action {
        Action::Event { .. } => EVENT_DAYS,
        Action::Settle { .. } | Action::Release { .. } => KNOWN_DAYS,
        _ => return None,
    };
    let at = command.at?;
    match at.since(now) {
        later if later > AHEAD => Some(Refusal::Ahead { at, now }),
        later if later < -days * DAY => Some(Refusal::TooOld { at, days }),
        _ => None,
    }
}

fn refuse(refusal: Refusal) -> (Answer, Changes) {
    (Answer::Refused(refusal), Changes::default())
}

/// A command for an operation that is not known yet.
fn begin(command: &Command, facts: &Facts) -> (Answer, Changes) {
    let Some(period) = period_of(command, None, facts.latest) else { return refuse(Refusal::Unknown) };
    if let Some(refusal) = ahead(&command.action, facts.now).or_else(|| out_of_time(command, facts.now)) {
        return refuse(refusal);
    }
    let account = facts.account;
    let expires_after = match command.action {
        Action::Reserve { expires_after, .. } => expires_after,
        _ => 0,
    };
    let new = |reserved, posted, state| Operation {
        tenant: command.tenant.clone(),
        period,
        reserved,
        posted,
        state,
        expires_after,
    };
    let latest = match (&command.action, facts.latest) {
        // Another system may count by other periods than the tenant's own, such as calendar months. One of them would
        // close the tenant's present period, and the tenant would have its quota a second time.
        (Action::Event { .. } | Action::Move { .. } | Action::Recount { .. }, Some(_)) => None,
        (_, known) => Some(period).filter(|_| later(period, known) == period && known != Some(period)),
    };
    match &command.action {
        Action::Reserve { amounts, limits, .. } => {
            if let Some(refusal) = exceeds(&account, *amounts, limits) {
                return refuse(refusal);
            }
            let account = Account { reserved: account.reserved.plus(*amounts), ..account };
            let changes = Changes {
                operation: Some(new(*amounts, Amounts::ZERO, State::Pending)),
                latest,
                account: Some(account),
                line: None,
            };
            (Answer::Reserved { period, left: left(limits, &account), pending: true }, changes)
        }
        // It was served while the ledger was away, or by another system. It counts, whatever the limit; only what
        // cannot be counted is refused.
        Action::Settle { amounts, .. } | Action::Event { amounts, .. } | Action::Move { amounts, .. } => {
            if let Some(refusal) = exceeds(&account, *amounts, &Limits::default()) {
                return refuse(refusal);
            }
            let settled = Answer::Settled { posted: *amounts, excess: Amounts::ZERO };
            let (kind, answer) = match command.action {
                Action::Event { .. } => (LineKind::Event, Answer::Accepted),
                Action::Move { .. } => (LineKind::Moved, settled),
                _ => (LineKind::Unreserved, settled),
            };
            let changes = Changes {
                operation: Some(new(*amounts, *amounts, State::Settled)),
                latest,
                account: Some(Account { used: account.used.plus(*amounts), ..account }),
                line: line(kind, *amounts),
            };
            (answer, changes)
        }
        Action::Recount { amounts, began, .. } => {
            let nothing = Answer::Settled { posted: Amounts::ZERO, excess: Amounts::ZERO };
            if amounts.is_zero() || !began.is_some_and(|began| began.lacks(command.at, facts.now)) {
                return (nothing, Changes::default());
            }
            // As one whose client was not heard of: what web's journal has of it comes later, and counts the rest.
            let operation = new(amounts.with_any_flows(), Amounts::ZERO, State::Expired);
            let (answer, changes) = late(&operation, *amounts, &account, (LineKind::Moved, State::Expired));
            (answer, Changes { latest, ..changes })
        }
        // The reservation is on its way and late. Its name is taken, so that it sets nothing aside when it comes.
        Action::Void { .. } => {
            let operation = Some(new(Amounts::ZERO, Amounts::ZERO, State::Voided));
            (Answer::Voided, Changes { operation, ..Changes::default() })
        }
        Action::Release { amounts, .. } => {
            let gone = amounts.only(true).at_most(account.used);
            let changes = Changes {
                operation: Some(new(*amounts, Amounts::ZERO, State::Released)),
                latest,
                account: Some(Account { used: account.used.minus(gone), ..account }),
                line: line(LineKind::Released, Amounts::ZERO.minus(gone)),
            };
            (Answer::Released, changes)
        }
        Action::Checkpoint { .. } | Action::Expire => refuse(Refusal::Unknown),
    }
}

/// A reservation whose name is known.
fn again(
    amounts: Amounts,
    limits: &Limits,
    operation: &Operation,
    state: State,
    account: &Account,
) -> (Answer, Changes) {
    match state {
        State::Voided => refuse(Refusal::Ended(state)),
        State::Released => refuse(Refusal::OtherParameters),
        _ if operation.reserved != amounts => refuse(Refusal::OtherParameters),
        // One that has ended was reserved once, and the answer was lost. After an expiry nothing is set aside any more;
        // what the client still settles counts as late.
        State::Pending | State::Settled | State::Expired => {
            let (period, left, pending) = (operation.period, left(limits, account), state == State::Pending);
            (Answer::Reserved { period, left, pending }, Changes::default())
        }
    }
}

/// Ends a pending operation: its reservation is given back, and `posted` of it is counted.
fn end(operation: &Operation, account: &Account, state: State, posted: Amounts) -> Changes {
    let kind = if state == State::Expired { LineKind::Expired } else { LineKind::Settled };
    Changes {
        operation: Some(Operation { posted, state, ..operation.clone() }),
        latest: None,
        account: Some(Account {
            used: account.used.plus(posted),
            reserved: account.reserved.minus(operation.reserved),
        }),
        line: line(kind, posted),
    }
}

/// A settlement after the expiry: the customer was served, so what the checkpoint did not say is counted, beyond the
/// limit if need be; only what cannot be counted is refused. What was counted is not taken back.
fn late(
    operation: &Operation,
    amounts: Amounts,
    account: &Account,
    (kind, state): (LineKind, State),
) -> (Answer, Changes) {
    let within = amounts.at_most(operation.reserved);
    let rest = within.minus(operation.posted).at_least(Amounts::ZERO);
    if let Some(refusal) = exceeds(account, rest, &Limits::default()) {
        return refuse(refusal);
    }
    let posted = operation.posted.plus(rest);
    let changes = Changes {
        operation: Some(Operation { posted, state, ..operation.clone() }),
        latest: None,
        account: Some(Account { used: account.used.plus(rest), ..*account }),
        line: line(kind, rest),
    };
    (Answer::Settled { posted, excess: amounts.minus(within) }, changes)
}

fn line(kind: LineKind, amounts: Amounts) -> Option<Line> {
    (!amounts.is_zero()).then_some(Line { kind, amounts })
}

fn left(limits: &Limits, account: &Account) -> Limits {
    limits.left(account.used.plus(account.reserved))
}

/// The first unit that leaves too little for the amounts.
fn exceeds(account: &Account, amounts: Amounts, limits: &Limits) -> Option<Refusal> {
    Unit::iter().filter(|unit| amounts[*unit] > 0).find_map(|unit| {
        let asked = amounts[unit];
        let taken = account.used[unit].saturating_add(account.reserved[unit]);
        let limit = limits.of(unit);
        match limit {
            Some(limit) if taken.saturating_add(asked) > limit => {
                Some(Refusal::LimitReached { unit, limit, left: (limit - taken).max(0), asked })
            }
            _ if taken.saturating_add(asked) > LARGEST => Some(Refusal::TooMuch(unit)),
            _ => None,
        }
    })
}
