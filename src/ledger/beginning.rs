//! How a ledger began: empty or with a snapshot. What was counted before is then missing, or part of it is, and the
//! controller counts again what others know: what was used from the Tenants' status, what is stored from the vector
//! store.
//!
//! All of it is counted under names that never change, so that a retry, a crash or another replica counts nothing
//! twice: a document under the name that its upload has, what a tenant had used in a period under a name of the
//! beginning.

use serde::{Deserialize, Serialize};

use super::account::{KNOWN_DAYS, Operation, Period, State};
use super::names;
use super::units::Amounts;
use crate::api::Timestamp;

/// Days for which what was before is counted again: fewer than operations are known for, so that nothing is that was
/// counted again and forgotten.
const DAYS: i64 = KNOWN_DAYS - 3;
/// Seconds by which a client's clock may differ from the ledger's.
const SKEW: i64 = 5 * 60;
const DAY: i64 = 24 * 3600;

/// How a ledger began, and whether what was before has been counted again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// Names it: a ledger that begins again has another one.
    pub id: String,
    /// When it began.
    #[serde(flatten)]
    pub began: Began,
    /// When the controller had counted again what the tenants of the moment store. None until then. A tenant that it sees
    /// later is counted then: the ledger keeps which ones were.
    pub recounted: Option<Timestamp>,
}

/// When a ledger began, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Began {
    /// When.
    pub at: Timestamp,
    /// When the snapshot was taken that it began with. None if it began empty.
    pub snapshot: Option<Timestamp>,
}

impl Began {
    /// Whether something that the ledger does not know, and that was counted at that time, was counted before this
    /// ledger began and is missing in it. None: some time before.
    pub fn lacks(&self, at: Option<Timestamp>, now: Timestamp) -> bool {
        let was_before = at.is_none_or(|at| at.since(self.at) < SKEW);
        // The snapshot had it, and the ledger has forgotten its name since.
        let forgotten =
            |at: Timestamp| self.snapshot.is_some_and(|taken| at <= taken) && now.since(at) > KNOWN_DAYS * DAY;
        now.since(self.at) < DAYS * DAY && was_before && !at.is_some_and(forgotten)
    }
}

/// The name under which it is counted what a tenant had used in a period before a ledger began.
pub fn used_before(beginning: &str, tenant: &str, period_start: Timestamp) -> String {
    names::fitted(format!("before-{beginning}-{tenant}-{}", period_start.as_second()))
}

/// What the ledger has of that at its beginning. What is counted again is counted as far as it is more.
pub fn had_used(tenant: &str, period: Period, used: Amounts) -> Operation {
    let posted = used.only(false);
    Operation {
        tenant: tenant.to_owned(),
        period,
        reserved: Amounts::ZERO.with_any_flows(),
        posted,
        state: State::Expired,
        expires_after: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: i64) -> Timestamp {
        Timestamp::from_second(day * DAY)
    }

    #[test]
    fn an_empty_ledger_lacks_what_was_before_for_as_long_as_it_knows_what_it_counted_again() {
        let began = Began { at: day(1000), snapshot: None };
        for (at, now, lacks) in
            [(999, 1000, true), (1, 1000, true), (999, 1089, true), (999, 1090, false), (1001, 1001, false)]
        {
            assert_eq!(began.lacks(Some(day(at)), day(now)), lacks, "of day {at}, on day {now}");
        }
        assert!(began.lacks(None, day(1000)) && !began.lacks(None, day(1090)));
        assert!(began.lacks(Some(day(1000).plus(SKEW - 1)), day(1000)), "another clock");
    }

    #[test]
    fn a_ledger_that_began_with_a_snapshot_does_not_lack_what_it_has_forgotten_since() {
        let began = Began { at: day(1000), snapshot: Some(day(999)) };
        for (at, now, lacks) in [(998, 1000, true), (900, 1000, false), (910, 1000, true), (910, 1010, false)] {
            assert_eq!(began.lacks(Some(day(at)), day(now)), lacks, "of day {at}, on day {now}");
        }
        let old = Began { snapshot: Some(day(800)), ..began };
        assert!(old.lacks(Some(day(850)), day(1000)), "after an old snapshot");
    }

    #[test]
    fn a_ledger_is_told_the_same_way_as_it_is_read() {
        let began = Began { at: day(1000), snapshot: Some(day(999)) };
        let beginning = Beginning { id: "ab".into(), began, recounted: None };
        let text = serde_json::to_string(&beginning).expect("JSON");
        assert_eq!(
            text,
            r#"{"id":"ab","at":"1972-09-27T00:00:00Z","snapshot":"1972-09-26T00:00:00Z","recounted":null}"#
        );
        assert_eq!(serde_json::from_str::<Beginning>(&text).expect("a beginning"), beginning);
    }
}
