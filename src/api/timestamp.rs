//! RFC 3339 times with whole seconds, as Kubernetes writes them.

use std::borrow::Cow;

use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Span};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What the API server accepts of a moment. Its format `date-time` alone takes offsets such as `+99:99`, and years that
/// no library counts: one such object would make every list of Tenants unreadable.
pub(super) const ACCEPTED: &str = concat!(
    "^[0-8][0-9]{3}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?",
    "([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
);

/// 0001-01-01T00:00:00Z and 8999-12-31T23:59:59Z: an offset may take an accepted time out of the years that are accepted
/// when it is written again.
const FIRST: i64 = -62_135_596_800;
const LAST: i64 = 221_845_391_999;

/// A moment, in whole seconds of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The present, by the system's clock.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_second())
    }

    /// That of an HTTP `Date` (RFC 9110, 5.6.7), if it is one.
    pub fn from_http_date(date: &str) -> Option<Self> {
        Some(jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?.into())
    }

    /// `seconds` after 1970-01-01T00:00:00Z.
    pub const fn from_second(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub const fn as_second(self) -> i64 {
        self.0
    }

    /// This moment and `seconds` more.
    #[must_use]
    pub const fn plus(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Seconds from `earlier` to this moment; negative when `earlier` is later.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// When the hour of UTC begins that this moment is in.
    #[must_use]
    pub const fn hour(self) -> Self {
        Self(self.0.div_euclid(3600) * 3600)
    }

    /// So many months of UTC later: the same day of the month, or the last one of a month that is shorter, and the same
    /// time of day.
    #[must_use]
    pub fn plus_months(self, months: i64) -> Self {
        // More months than all accepted years have lead nowhere.
        let there = Span::new().try_months(months).map(|months| self.civil().saturating_add(months));
        there.and_then(|there| Offset::UTC.to_timestamp(there)).map_or(self, Self::from)
    }

    /// From the calendar month of this moment to that of another one, both of UTC.
    pub fn months_until(self, other: Self) -> i64 {
        let month = |date: DateTime| 12 * i64::from(date.year()) + i64::from(date.month());
        month(other.civil()) - month(self.civil())
    }

    /// Date and time of UTC, within the years that are accepted.
    fn civil(self) -> DateTime {
        let time = jiff::Timestamp::from_second(self.0.clamp(FIRST, LAST)).unwrap_or_default();
        Offset::UTC.to_datetime(time)
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(time: jiff::Timestamp) -> Self {
        Self(time.as_second())
    }
}

impl std::str::FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        text.parse::<jiff::Timestamp>().map(Self::from)
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = jiff::Timestamp::UNIX_EPOCH.saturating_add(SignedDuration::from_secs(self.0));
        write!(f, "{}", time.unwrap_or(jiff::Timestamp::UNIX_EPOCH))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let time: jiff::Timestamp = text.parse().map_err(D::Error::custom)?;
        Ok(Self(time.as_second().clamp(FIRST, LAST)))
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time", "pattern": ACCEPTED})
    }
}
