//! How much of a plan is left, as headers of an answer: `RateLimit-Policy` and `RateLimit` of
//! <https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/> (revision 11), and `X-Quota-*` for clients
//! that read plain numbers.

use std::time::Instant;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponseParts, ResponseParts};

use crate::api::{Timestamp, Unit};
use crate::ledger::account::Period;
use crate::ledger::units::Limits;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// What the plan allows in the period.
pub const QUOTA_LIMIT: HeaderName = HeaderName::from_static("x-quota-limit");
/// What is left of it.
pub const QUOTA_REMAINING: HeaderName = HeaderName::from_static("x-quota-remaining");
/// Seconds until the period ends.
pub const QUOTA_RESET: HeaderName = HeaderName::from_static("x-quota-reset");

/// The headers that a browser may show a page of another origin.
pub const EXPOSED: [HeaderName; 5] = [POLICY, LIMIT, QUOTA_LIMIT, QUOTA_REMAINING, QUOTA_RESET];

/// The units that have a name in the draft's registry of quota units, with it. Tokens have none.
pub const UNITS: [(Unit, &str); 2] = [(Unit::Queries, "requests"), (Unit::EmbeddedBytes, "content-bytes")];

/// How much of a period is left. A response carries it as an extension, and [`crate::web::standings::tell`] writes it.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// When the ledger said it. A question's answer leaves long after that.
    at: Instant,
    limits: Limits,
    left: Limits,
    period: Period,
}

impl Standing {
    /// What is left of some units. `limit` is what the plan says of a unit.
    pub fn of(limit: impl Fn(Unit) -> Option<i64>, left: &Limits, period: Period) -> Self {
        let (mut limits, mut kept) = (Limits::default(), Limits::default());
        for (unit, _) in UNITS {
            if let (Some(limit), Some(left)) = (limit(unit), left.of(unit)) {
                (limits, kept) = (limits.with(unit, limit), kept.with(unit, left.clamp(0, limit.max(0))));
            }
        }
        Self { at: Instant::now(), limits, left: kept, period }
    }

    /// With the units of another one of the same period that this one does not have.
    #[must_use]
    pub fn over(mut self, other: &Self) -> Self {
        for (unit, _) in UNITS.into_iter().filter(|_| self.period == other.period) {
            if let (None, Some(limit), Some(left)) = (self.limits.of(unit), other.limits.of(unit), other.left.of(unit))
            {
                (self.limits, self.left) = (self.limits.with(unit, limit), self.left.with(unit, left));
            }
        }
        self
    }

    /// Whether it is about this period and these limits.
    pub fn is_of(&self, period: Period, limit: impl Fn(Unit) -> Option<i64>) -> bool {
        self.period == period && UNITS.into_iter().all(|(unit, _)| self.limits.of(unit) == limit(unit))
    }

    /// When the ledger said it.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// The same, as said at another time.
    #[must_use]
    pub fn said_at(self, at: Instant) -> Self {
        Self { at, ..self }
    }

    /// What is left of a unit. None without a limit.
    pub fn left(&self, unit: Unit) -> Option<i64> {
        self.left.of(unit)
    }

    fn items(&self, item: impl Fn(&str, &str, i64, i64) -> String) -> Option<HeaderValue> {
        let items = UNITS.iter().filter_map(|(unit, quota_unit)| {
            Some(item(unit.name(), quota_unit, self.limits.of(*unit)?, self.left.of(*unit)?))
        });
        let items: Vec<_> = items.collect();
        HeaderValue::try_from(items.join(", ")).ok().filter(|value| !value.is_empty())
    }

    /// Writes the headers that are not there yet.
    pub fn write(&self, headers: &mut HeaderMap, now: Timestamp) {
        let (window, reset) = (self.period.end.since(self.period.start), self.period.end.since(now).max(0));
        let policy =
            self.items(|name, quota_unit, limit, _| format!("\"{name}\";q={limit};qu=\"{quota_unit}\";w={window}"));
        let left = self.items(|name, _, _, left| format!("\"{name}\";r={left};t={reset}"));
        let numbers = self.limits.of(Unit::Queries).zip(self.left.of(Unit::Queries));
        let numbers =
            numbers.map(|(limit, left)| [(QUOTA_LIMIT, limit), (QUOTA_REMAINING, left), (QUOTA_RESET, reset)]);
        let numbers = numbers.into_iter().flatten().map(|(name, number)| (name, HeaderValue::from(number)));
        let lists = [(POLICY, policy), (LIMIT, left)].into_iter().filter_map(|(name, list)| Some((name, list?)));
        for (name, value) in lists.chain(numbers) {
            headers.entry(name).or_insert(value);
        }
    }
}

impl IntoResponseParts for Standing {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
        parts.extensions_mut().insert(self);
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_name_each_limit_with_what_is_left() {
        let at = Timestamp::from_second;
        let period = Period { start: at(1000), end: at(1000 + 2_592_000) };
        let limits =
            Limits::default().with(Unit::Queries, 100).with(Unit::EmbeddedBytes, 5000).with(Unit::Documents, 3);
        let shown = |standing: Standing| {
            let mut headers = HeaderMap::new();
            standing.write(&mut headers, at(2000));
            EXPOSED.map(|name| headers.get(name).map(|v| v.to_str().expect("text").to_owned()).unwrap_or_default())
        };
        let left = Limits::default().with(Unit::Queries, 42).with(Unit::EmbeddedBytes, 7).with(Unit::Documents, 1);
        assert_eq!(
            shown(Standing::of(|unit| limits.of(unit), &left, period)),
            [
                "\"queries\";q=100;qu=\"requests\";w=2592000, \"embedded_bytes\";q=5000;qu=\"content-bytes\";w=2592000",
                "\"queries\";r=42;t=2591000, \"embedded_bytes\";r=7;t=2591000",
                "100",
                "42",
                "2591000",
            ]
        );
        let one = |unit| Standing::of(|unit| limits.of(unit), &Limits::default().with(unit, 0), period);
        let refused = one(Unit::Queries);
        assert_eq!(shown(refused)[1..4], ["\"queries\";r=0;t=2591000", "100", "0"]);
        assert_eq!(shown(one(Unit::PromptTokens)), [""; 5], "no name for tokens");
        let all = Standing::of(|unit| limits.of(unit), &left, period);
        let told = shown(refused.over(&all));
        assert_eq!(told[1], "\"queries\";r=0;t=2591000, \"embedded_bytes\";r=7;t=2591000", "what is known otherwise");
        let later = Period { start: period.end, end: period.end.plus(1000) };
        assert_eq!(Standing { period: later, ..refused }.over(&all).left(Unit::EmbeddedBytes), None, "another period");
        assert!(all.is_of(period, |unit| limits.of(unit)) && !all.is_of(later, |unit| limits.of(unit)));
        assert!(!refused.is_of(period, |unit| limits.of(unit)), "it lacks a unit");
        let much = Limits::default().with(Unit::Queries, 1000);
        assert_eq!(Standing::of(|unit| limits.of(unit), &much, period).left(Unit::Queries), Some(100), "at most all");
    }
}
