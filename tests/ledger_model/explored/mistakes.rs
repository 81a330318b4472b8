//! Mistakes that one could make in the ledger, each of which is caught.

use tenant_operator::ledger::account::{Account, Line, LineKind, State};
use tenant_operator::ledger::decision::{Action, Answer, Changes, Command, Facts, Refusal, decide};
use tenant_operator::ledger::units::Amounts;

use super::world::no_limits;
use crate::books::{Books, TENANT};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A settlement that comes again counts again.
    PostedTwice,
    /// A settlement that comes again counts as one that was never reserved.
    SettledAnew,
    /// A void is answered, and gives nothing back.
    VoidForgotten,
    /// A void that overtakes its reservation leaves no trace.
    NameNotTaken,
    /// A void of what expired and counted nothing is answered, and leaves no trace.
    ExpiredNotVoided,
    /// The period by the client's clock is believed.
    PeriodReopened,
    /// The limit is judged by the account as it was before the last command.
    LimitReadBefore,
    /// The limit is judged without what is pending.
    PendingNotJudged,
    /// A settlement counts what it says, whatever was reserved.
    SettledAboveReservation,
    /// A settlement counts in the latest period.
    SettledInLatest,
    /// A settlement gives nothing back.
    NotGivenBack,
    /// What expires gives nothing back.
    ExpiredNotGivenBack,
    /// What expires counts nothing.
    CheckpointForgotten,
    /// What expires counts all that it reserved.
    ReservationPosted,
    /// The last checkpoint counts, and not the largest.
    CheckpointGoesDown,
    /// What has ended expires once more.
    EndedExpires,
    /// A late settlement counts what the checkpoint has counted.
    LateCountedTwice,
    /// A late settlement is refused.
    LateRefused,
    /// A settlement of what was never reserved is refused.
    UnreservedRefused,
    /// What a late settlement adds has no line.
    LineForgotten,
    /// A reservation that comes again reserves again.
    ReservedAnew,
}

impl Mistake {
    /// The facts that it would read.
    pub fn facts(self, books: &Books, command: &Command) -> Facts {
        let facts = books.facts(command);
        let mut books = books.clone();
        let state = facts.operation.as_ref().map(|operation| operation.state);
        match (self, &command.action, state) {
            (Self::PeriodReopened, Action::Reserve { .. }, None) => {
                if let Some(tenant) = books.tenants.get_mut(TENANT) {
                    tenant.latest = None;
                }
            }
            (Self::SettledInLatest, Action::Settle { .. }, Some(State::Pending)) => {
                if let (Some(operation), Some(latest)) = (books.operations.get_mut(&command.operation), facts.latest) {
                    operation.period = latest;
                }
            }
            (Self::ReservedAnew, Action::Reserve { .. }, Some(State::Pending | State::Settled | State::Expired))
            | (Self::SettledAnew, Action::Settle { .. }, Some(State::Settled)) => {
                books.operations.remove(&command.operation);
            }
            _ => return facts,
        }
        books.facts(command)
    }

    /// What it would answer and change.
    pub fn decide(self, command: &Command, facts: &Facts, seen: Option<Account>) -> (Answer, Changes) {
        let state = facts.operation.as_ref().map(|operation| operation.state);
        match (self, &command.action, state) {
            (Self::LimitReadBefore, Action::Reserve { .. }, None) => {
                judged_by(command, facts, seen.unwrap_or_default())
            }
            (Self::PendingNotJudged, Action::Reserve { .. }, None) => {
                judged_by(command, facts, Account { reserved: Amounts::ZERO, ..facts.account })
            }
            (Self::LateRefused, Action::Settle { .. }, Some(State::Expired)) => {
                (Answer::Refused(Refusal::Ended(State::Expired)), Changes::default())
            }
            (Self::UnreservedRefused, Action::Settle { .. }, None) => {
                (Answer::Refused(Refusal::Unknown), Changes::default())
            }
            (Self::VoidForgotten, Action::Void { .. }, Some(State::Pending))
            | (Self::NameNotTaken, Action::Void { .. }, None)
            | (Self::ExpiredNotVoided, Action::Void { .. }, Some(State::Expired)) => {
                (Answer::Voided, Changes::default())
            }
            _ => self.distort(command, facts),
        }
    }

    fn distort(self, command: &Command, facts: &Facts) -> (Answer, Changes) {
        let mut believed = facts.clone();
        let Some(operation) = &mut believed.operation else { return decide(command, facts) };
        let state = operation.state;
        match (self, &command.action) {
            (Self::CheckpointForgotten, Action::Expire) | (Self::CheckpointGoesDown, Action::Checkpoint { .. }) => {
                operation.posted = Amounts::ZERO;
            }
            (Self::LateCountedTwice, Action::Settle { .. }) if state == State::Expired => {
                operation.posted = Amounts::ZERO;
            }
            (Self::ReservationPosted, Action::Expire) => operation.posted = operation.reserved,
            (Self::EndedExpires, Action::Expire) if state == State::Settled => operation.state = State::Pending,
            (Self::SettledAboveReservation, Action::Settle { amounts, .. }) if state == State::Pending => {
                // It gives back what it reserved.
                believed.account.reserved = facts.account.reserved.plus(*amounts).minus(operation.reserved);
                operation.reserved = *amounts;
            }
            _ => {}
        }
        let (answer, mut changes) = decide(command, &believed);
        let kept = match command.action {
            Action::Settle { .. } => self == Self::NotGivenBack,
            Action::Expire => self == Self::ExpiredNotGivenBack,
            _ => false,
        };
        if self == Self::LineForgotten && state == State::Expired {
            changes.line = None;
        }
        if let (Some(account), true) = (&mut changes.account, kept) {
            account.reserved = facts.account.reserved;
        }
        if let (Self::PostedTwice, Action::Settle { .. }, Answer::Settled { posted, .. }, State::Settled) =
            (self, &command.action, answer, state)
        {
            changes.account = Some(Account { used: facts.account.used.plus(posted), ..facts.account });
            changes.line = Some(Line { kind: LineKind::Settled, amounts: posted });
        }
        (answer, changes)
    }
}

/// A new reservation that is judged by another account than the one that it changes.
fn judged_by(command: &Command, facts: &Facts, account: Account) -> (Answer, Changes) {
    let judged = decide(command, &Facts { account, ..facts.clone() });
    if !matches!(judged.0, Answer::Reserved { .. }) {
        return judged;
    }
    let mut unlimited = command.clone();
    if let Action::Reserve { limits, .. } = &mut unlimited.action {
        *limits = no_limits();
    }
    decide(&unlimited, facts)
}
