//! What a client asks of the ledger, and what it is answered.

use super::account::{Period, State};
use super::beginning::Began;
use super::units::{Amounts, LARGEST, Limits, Unit};
use crate::api::Timestamp;

/// What a client asks, for one operation of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Command {
    /// The operation's name. The same name again gets the same answer.
    pub operation: String,
    /// The tenant's id.
    pub tenant: String,
    /// What to do.
    pub action: Action,
    /// When it happened, by the client's clock. None: now.
    pub at: Option<Timestamp>,
}

/// What to do with an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Sets amounts aside, all of them or none.
    Reserve {
        /// The period by the client's clock. A later one that the ledger knows wins: a closed period never opens again.
        period: Period,
        /// What is set aside.
        amounts: Amounts,
        /// What the tenant may use in all.
        limits: Limits,
        /// Seconds after which the operation expires if it is neither settled nor voided.
        expires_after: u32,
    },
    /// Notes what would be counted if the client were never heard of again.
    Checkpoint {
        /// What was used so far.
        amounts: Amounts,
    },
    /// Counts what was used and gives back the rest.
    Settle {
        /// The period of an operation that was never reserved, because the ledger was away.
        period: Period,
        /// What was used.
        amounts: Amounts,
    },
    /// Gives back everything.
    Void {
        /// The period of an operation that was never reserved.
        period: Period,
    },
    /// Ends an operation whose client was not heard of for too long: counts its last checkpoint. The ledger asks this
    /// itself.
    Expire,
    /// Counts what another system has used, once for each name.
    Event {
        /// The period that it is counted in, also one that is closed. It closes none: the tenant's latest period stays,
        /// unless none is known.
        period: Period,
        /// What was used.
        amounts: Amounts,
    },
    /// Counts what another ledger counted before. It is in no hour, because it was billed from that ledger's hours, and
    /// closes no period: the tenant's latest period stays, unless none is known.
    Move {
        /// The period that it was counted in.
        period: Period,
        /// What was counted.
        amounts: Amounts,
    },
    /// Counts what was counted before the ledger began, and is missing in it. It is in no hour, because the ledger
    /// before counted it in one, and closes no period. What the ledger knows is counted as far as it is more.
    Recount {
        /// The period that it was counted in.
        period: Period,
        /// What was counted.
        amounts: Amounts,
        /// When the ledger began. None if nothing is missing in it.
        began: Option<Began>,
    },
    /// Takes away from levels: what was stored is gone.
    Release {
        /// The newest period by the client's clock.
        period: Period,
        /// What is gone.
        amounts: Amounts,
    },
}

/// The answer to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The amounts are set aside, now or by the same command before.
    Reserved {
        /// The period that they are counted in.
        period: Period,
        /// What is left of each limit.
        left: Limits,
        /// Whether the operation is pending. A command that comes again can find it ended.
        pending: bool,
    },
    /// The checkpoint is noted.
    Checkpointed,
    /// The operation is counted.
    Settled {
        /// What was counted in all.
        posted: Amounts,
        /// What was used beyond the reservation, and is not counted.
        excess: Amounts,
    },
    /// Nothing is counted.
    Voided,
    /// It was pending, and its last checkpoint is counted.
    Expired,
    /// The levels are lower.
    Released,
    /// The event is counted.
    Accepted,
    /// The event was counted before.
    Duplicate,
    /// Nothing was changed.
    Refused(Refusal),
}

/// Why a command changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A limit leaves too little.
    #[error("the limit of {limit} {unit} leaves {left}, and {asked} are asked for")]
    LimitReached {
        /// The unit.
        unit: Unit,
        /// Its limit.
        limit: i64,
        /// What the limit leaves beside what is used and reserved.
        left: i64,
        /// What was asked for.
        asked: i64,
    },
    /// Another command came before under this name.
    #[error("the operation is known with other parameters: use a new name for another operation")]
    OtherParameters,
    /// The operation has ended in another way.
    #[error("the operation has ended before: it is {}", <&str>::from(*.0))]
    Ended(State),
    /// There is no such operation.
    #[error("no operation of this name is known: reserve it first")]
    Unknown,
    /// The period begins later than a client's clock may be ahead.
    #[error("the period begins at {start}, and by the ledger's clock it is {now}: correct the client's clock")]
    PeriodAhead {
        /// When the period begins.
        start: Timestamp,
        /// The present.
        now: Timestamp,
    },
    /// It happened later than a client's clock may be ahead.
    #[error("it happened at {at}, and by the ledger's clock it is {now}: correct the client's clock")]
    Ahead {
        /// When it happened, as the client says.
        at: Timestamp,
        /// The present.
        now: Timestamp,
    },
    /// It happened so long ago that the ledger may have counted and forgotten it.
    #[error(
        "it happened at {at}, more than {days} days ago, and the ledger may have counted it before: it is not counted"
    )]
    TooOld {
        /// When it happened, as the client says.
        at: Timestamp,
        /// The age that is counted.
        days: i64,
    },
    /// The account would hold more than can be counted.
    #[error("the account would hold more than {LARGEST} {0}")]
    TooMuch(Unit),
}

/// The code of [`Refusal::PeriodAhead`], which callers tell from the others: it passes with time.
pub const PERIOD_AHEAD: &str = "period_ahead";

impl Refusal {
    /// Its kind, which never changes. By hand: callers compare one of them, so it is a constant.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::LimitReached { .. } => "limit_reached",
            Self::OtherParameters => "other_parameters",
            Self::Ended(_) => "ended",
            Self::Unknown => "unknown_operation",
            Self::PeriodAhead { .. } => PERIOD_AHEAD,
            Self::Ahead { .. } => "time_ahead",
            Self::TooOld { .. } => "too_old",
            Self::TooMuch(_) => "too_much",
        }
    }
}
