//! The facts of the ledger: what a tenant has used and reserved in a period, and what became of each operation.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr};

use super::units::Amounts;
use crate::api::Timestamp;

/// Days for which an operation is known after its end. What happened earlier is refused: it could be counted twice.
pub const KNOWN_DAYS: i64 = 93;

/// A period in which flows are counted, from its start up to and without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Period {
    /// When it begins. It names the period.
    pub start: Timestamp,
    /// When it ends.
    pub end: Timestamp,
}

/// What a tenant has used and reserved: of flows in one period, of levels at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Account {
    /// What was posted.
    pub used: Amounts,
    /// What pending operations may still post.
    pub reserved: Amounts,
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, EnumString, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum State {
    /// Its amounts are reserved. They are settled or voided, or expire.
    Pending,
    /// It was settled: `posted` was counted.
    Settled,
    /// It was voided: nothing was counted.
    Voided,
    /// It took away from a level.
    Released,
    /// It was neither settled nor voided in time: its last checkpoint was counted.
    Expired,
}

/// One operation, named by the client. The same name again is the same operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    /// The tenant that it is counted for.
    pub tenant: String,
    /// The period that its flows are counted in, fixed when it was reserved.
    pub period: Period,
    /// What it reserved, and at most posts.
    pub reserved: Amounts,
    /// What was posted; while it is pending, its last checkpoint.
    pub posted: Amounts,
    /// What became of it.
    pub state: State,
    /// Seconds after which it expires while it is pending.
    pub expires_after: u32,
}

/// Why a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, EnumString, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum LineKind {
    /// A reserved operation was settled.
    Settled,
    /// An operation that was never reserved was settled: the ledger was away when it was served.
    Unreserved,
    /// Another system reported it.
    Event,
    /// Another ledger counted it before.
    Moved,
    /// An operation expired, and its checkpoint was counted.
    Expired,
    /// An operation was settled after it had expired, and the rest was counted.
    Late,
    /// What was stored is gone.
    Released,
}

impl LineKind {
    /// Whether it is in the hour in which it was counted. What another ledger counted was in an hour there.
    pub fn is_in_hour(self) -> bool {
        self != Self::Moved
    }
}

/// One line of the ledger. Lines are only ever appended, and the accounts are their sums.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// Why it was written.
    pub kind: LineKind,
    /// What it adds to the tenant's use. Negative where a level shrinks.
    pub amounts: Amounts,
}
