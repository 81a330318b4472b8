//! What the ledger and its clients say about the events store.

use serde::{Deserialize, Serialize};

use crate::api::Timestamp;
use crate::ledger::account::LineKind;
use crate::ledger::units::{Amounts, sums};

/// `GET /v1/tenants/{tenant}/lines`: lines of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantLines {
    /// What was written before this moment is listed. None while the events store is made anew.
    pub complete_until: Option<Timestamp>,
    /// In the order of their numbers.
    pub lines: Vec<TenantLine>,
}

/// A line of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantLine {
    /// Its number: ask for what comes after the last one of the list.
    pub seq: i64,
    /// The operation.
    pub operation: String,
    /// When it was written.
    pub at: Timestamp,
    /// The start of the hour that it is part of.
    pub hour: Timestamp,
    /// The start of the period that its flows are counted in.
    pub period_start: Timestamp,
    /// Why it was written.
    pub kind: LineKind,
    /// What it adds.
    #[serde(deserialize_with = "sums")]
    pub counted: Amounts,
}

/// `GET /v1/tenants/{tenant}/hours/lines`: the ledger's own lines of an hour of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourLines {
    /// In the order of their numbers. A page may be empty where others have used much in that hour.
    pub lines: Vec<TenantLine>,
    /// The number after which the next page begins. None after the last one.
    pub next: Option<i64>,
}

/// The most hours of one answer of the events store: 93 days.
pub const EVENTS_HOURS: i64 = 93 * 24;

/// `GET /v1/tenants/{tenant}/events/hours`: what the lines of the events store add up to, hour by hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsHours {
    /// The store may lack lines of hours before this moment. None if it keeps all.
    pub kept_from: Option<Timestamp>,
    /// Hours before this moment are complete. None while the store is made anew.
    pub complete_until: Option<Timestamp>,
    /// The hours with lines.
    pub hours: Vec<EventsHour>,
}

/// What the lines of an hour add up to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsHour {
    /// When the hour begins.
    pub hour: Timestamp,
    /// The sum.
    #[serde(deserialize_with = "sums")]
    pub counted: Amounts,
}

/// `GET /v1/events/store`: how the events store is fed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsStatus {
    /// `SQLite` or `ClickHouse`.
    pub store: String,
    /// How often it was begun anew. None while it was not reached.
    pub generation: Option<i64>,
    /// The last line that it holds.
    pub seq: i64,
    /// Whether it holds all that the ledger has, as of the last look.
    pub complete: bool,
    /// What was written before this moment is in it.
    pub complete_until: Option<Timestamp>,
    /// Lines that it lacks, counted up to 100,000.
    pub waiting: u32,
    /// Why it is not fed.
    pub failing: Option<String>,
    /// How many sums of closed hours differ from the ledger's.
    pub differences: Option<u64>,
    /// Up to which hour they were compared.
    pub compared_until: Option<Timestamp>,
}

/// `POST /v1/events/rebuild`: make the events store anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rebuild {
    /// Also if it belongs to another ledger, whose lines it then loses.
    #[serde(default)]
    pub take_over: bool,
}

/// The events store is empty, and is being filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuilt {
    /// The generation that begins.
    pub generation: i64,
}
