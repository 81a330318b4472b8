//! What the ledger and its clients say to each other, as JSON. `docs/ledger.md` describes it for people.

mod events_store;

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::account::Period;
use super::beginning::Beginning;
use super::units::{Amounts, Limits, sums};
use crate::api::Timestamp;

pub use events_store::{
    EVENTS_HOURS, EventsHour, EventsHours, EventsStatus, HourLines, Rebuild, Rebuilt, TenantLine, TenantLines,
};

/// The longest name of an operation or a tenant.
const LONGEST: usize = 128;

/// The shortest and the longest time that an operation may be pending, in seconds.
pub const PENDING: RangeInclusive<u32> = 1..=24 * 3600;

/// A name, if it is one.
pub fn name_of(name: String) -> Result<String, String> {
    if (1..=LONGEST).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(name)
    } else {
        Err(format!("a name has 1 to {LONGEST} visible ASCII characters and no space"))
    }
}

/// A tenant's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(pub(super) String);

impl TryFrom<String> for TenantId {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name_of(name).map(Self).map_err(|why| format!("tenant: {why}"))
    }
}

impl From<TenantId> for String {
    fn from(tenant: TenantId) -> Self {
        tenant.0
    }
}

/// A period that begins after 1970 and ends after it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Period", into = "Period")]
pub struct SomePeriod(pub(super) Period);

impl TryFrom<Period> for SomePeriod {
    type Error = String;

    fn try_from(period: Period) -> Result<Self, String> {
        if period.start.as_second() > 0 && period.end > period.start {
            Ok(Self(period))
        } else {
            Err(format!("period: {} to {} is no period: it must end after it begins", period.start, period.end))
        }
    }
}

impl From<SomePeriod> for Period {
    fn from(period: SomePeriod) -> Self {
        period.0
    }
}

/// `PUT /v1/operations/{operation}`: sets amounts aside.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// The tenant.
    pub tenant: TenantId,
    /// The tenant's present period.
    pub period: SomePeriod,
    /// What is set aside.
    pub amounts: Amounts,
    /// What the tenant may use in all.
    pub limits: Limits,
    /// Seconds after which the operation expires.
    pub expires_after: u32,
}

/// `POST /v1/operations/{operation}/checkpoint`: what was used so far.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The tenant.
    pub tenant: TenantId,
    /// What was used so far.
    pub amounts: Amounts,
}

/// `POST /v1/operations/{operation}/settle` and `/release`: what was used, or is gone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counted {
    /// The tenant.
    pub tenant: TenantId,
    /// The tenant's period when it was served.
    pub period: SomePeriod,
    /// What was used, or is gone.
    pub amounts: Amounts,
}

/// A release or what is counted again, with the time when it happened: the ledger counts nothing that it may have counted and forgotten.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dated {
    /// The tenant.
    pub tenant: TenantId,
    /// The tenant's period when it was served.
    pub period: SomePeriod,
    /// What is gone.
    pub amounts: Amounts,
    /// When it happened. Left out: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// `POST /v1/operations/{operation}/settle`, as the ledger reads it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settlement {
    /// The tenant.
    pub tenant: TenantId,
    /// The tenant's period when it was served.
    pub period: SomePeriod,
    /// What was used.
    pub amounts: Amounts,
    /// When it happened. Left out: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Whether another ledger counted it before, so that no closed hour holds it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moved: bool,
}

/// `PUT /v1/answers/{tenant}/{key}`: begins a request with an `Idempotency-Key`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeginAnswer {
    /// What tells this request from another one: a hash of it.
    pub request_hash: String,
    /// What tells this attempt from another one: a random name, the same where the call is repeated for a lost answer.
    pub attempt: String,
    /// Seconds after which the key is free again if it was not finished.
    pub expires_after: u32,
}

/// What became of a key that a client begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum AnswerState {
    /// Serve the request, and finish the key.
    New,
    /// The request is being served.
    InProgress,
    /// It was served, with this answer.
    Done(KeptAnswer),
    /// The key belongs to another request.
    OtherRequest,
}

/// An answer that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptAnswer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its body, in Base64.
    pub body: String,
}

impl KeptAnswer {
    /// As it is stored.
    ///
    /// # Panics
    ///
    /// Never: numbers and strings are JSON.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("an answer is JSON: a number and strings")
    }

    /// The bytes that it takes.
    pub fn size(&self) -> i64 {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len());
        i64::try_from(self.body.len() + headers.sum::<usize>()).unwrap_or(i64::MAX)
    }
}

/// `POST /v1/answers/{tenant}/{key}/finish`: keeps the answer, or frees the key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishAnswer {
    /// That of the request that began the key.
    pub request_hash: String,
    /// That of the attempt that began the key.
    pub attempt: String,
    /// The answer. None if there is none to keep: the request failed, or its answer is too long.
    #[serde(default)]
    pub answer: Option<KeptAnswer>,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedAnswer {
    /// Whether it is kept. An answer that is too long is not, nor one of a key that another request has taken.
    pub kept: bool,
}

/// `DELETE /v1/answers/{tenant}`: how many keys were erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasedAnswers {
    /// How many.
    pub erased: u64,
}

/// The most events of a batch.
pub const EVENTS: usize = 10_000;

/// `POST /v1/events`: what other systems tell of.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// At most [`EVENTS`].
    pub events: Vec<Event>,
}

/// One of them. It is counted once, by its source and id.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The system that reports the event.
    pub source: String,
    /// Its name in that system.
    pub id: String,
    /// The tenant.
    pub tenant: TenantId,
    /// The period that it is counted in.
    pub period: SomePeriod,
    /// What was used.
    pub amounts: Amounts,
    /// When it happened.
    pub time: Timestamp,
}

/// What became of a batch: of each event, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventStates {
    /// One for each event.
    pub events: Vec<EventState>,
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum EventState {
    /// It is counted.
    Accepted,
    /// It was counted before.
    Duplicate,
    /// It is not counted. A repetition does not help.
    Refused {
        /// The kind of refusal.
        code: String,
        /// The reason in words.
        detail: String,
    },
}

/// `POST /v1/operations/{operation}/void`: gives back everything.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Void {
    /// The tenant.
    pub tenant: TenantId,
    /// The tenant's present period.
    pub period: SomePeriod,
}

/// What became of a command that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum CommandOutcome {
    /// The amounts are set aside.
    Reserved {
        /// The period that they are counted in.
        period: Period,
        /// What is left of each limit.
        left: Limits,
    },
    /// The checkpoint is noted.
    Checkpointed,
    /// The operation is counted.
    Settled {
        /// What was counted in all.
        posted: Amounts,
        /// What was used beyond the reservation.
        #[serde(default, skip_serializing_if = "no_amounts")]
        excess: Amounts,
    },
    /// Nothing is counted.
    Voided,
    /// The levels are lower.
    Released,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn no_amounts(amounts: &Amounts) -> bool {
    amounts.is_zero()
}

/// `GET /v1/status`: how the ledger is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The ledger's time.
    pub now: Timestamp,
    /// Its snapshots, if any are taken.
    pub snapshots: Option<SnapshotStatus>,
    /// How it began. None for a ledger that a version before this one began, and in Postgres.
    #[serde(default)]
    pub beginning: Option<Beginning>,
}

/// `POST /v1/recounted`: what was before is counted again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recounted {
    /// Which beginning it was before.
    pub beginning: String,
    /// Whose it was. None: all tenants of the moment are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
}

/// `GET /v1/tenants/{tenant}/documents`: a document that was counted before the ledger began, and was not deleted
/// since as far as the ledger knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldDocument {
    /// Its operation.
    pub operation: String,
    /// What was counted of levels.
    pub amounts: Amounts,
    /// Whether it is neither settled nor voided, and will expire.
    pub pending: bool,
}

/// Snapshots that are taken again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    /// How often, in seconds.
    pub every_seconds: u64,
    /// When the latest one of this process was taken.
    pub latest: Option<Timestamp>,
}

/// `GET /v1/usage`: a tenant for which something was counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantUsage {
    /// Its id.
    pub tenant: String,
    /// Its latest period.
    pub period: Period,
    /// What was counted in it, with the levels of the moment.
    #[serde(deserialize_with = "sums")]
    pub used: Amounts,
    /// What pending operations may still add.
    pub reserved: Amounts,
    /// The number of its latest line: ask for what comes after the last one of the list.
    pub seq: i64,
}

/// `GET /v1/tenants/{tenant}/hours`: what a tenant used in closed hours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoursUsage {
    /// Every hour before this moment is closed.
    pub closed_until: Timestamp,
    /// The list is complete up to this moment: ask for what comes from it on, until it is `closed_until`.
    pub listed_until: Timestamp,
    /// Hours with usage, the earliest first.
    pub hours: Vec<HourUsage>,
}

/// What a tenant used in an hour, of one of its periods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourUsage {
    /// When the hour begins.
    pub hour: Timestamp,
    /// The period that the usage counts in.
    pub period: Period,
    /// What was counted, by when the ledger counted it. Of a level, how much it changed: negative where more was deleted
    /// than stored.
    #[serde(deserialize_with = "sums")]
    pub counted: Amounts,
}

/// What a tenant used in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeriodUsage {
    /// The period.
    pub period: Period,
    /// What was counted. In `/usage`, with the levels of the moment.
    #[serde(deserialize_with = "sums")]
    pub used: Amounts,
    /// What pending operations may still add.
    pub reserved: Amounts,
}

/// `GET /v1/tenants/{tenant}/days` and `GET /v1/days`: what was counted on a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayUsage {
    /// The day of UTC.
    pub day: jiff::civil::Date,
    /// What was counted on it. Of a level, how much it changed: negative where more was deleted than stored.
    #[serde(deserialize_with = "sums")]
    pub counted: Amounts,
}
