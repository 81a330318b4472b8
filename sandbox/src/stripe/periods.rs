//! How long billing periods are: calendar months of UTC, from the subscription's `billing_cycle_anchor`. "A monthly
//! subscription with a billing cycle anchor date of January 31 bills the last day of the month closest to the anchor
//! date, so February 28 (or February 29 in a leap year), then March 31, April 30, and so on", and the anchor's "default
//! value is either the subscription creation date or the trial end date"
//! (<https://docs.stripe.com/billing/subscriptions/billing-cycle>). "The timestamp is in UTC format" (Stripe's
//! description of its API), so daylight saving moves no period.

use jiff::tz::Offset;
use jiff::{Span, Timestamp};
use serde_json::Value;

pub const DAY: i64 = 24 * 3600;

/// When the period that begins at a moment ends: the first of the months after the anchor that is later.
pub fn end(anchor: i64, start: i64) -> i64 {
    let date = |second: i64| Offset::UTC.to_datetime(Timestamp::from_second(second).unwrap_or_default());
    let (anchor, start) = (date(anchor), date(start));
    let month = |date: jiff::civil::DateTime| 12 * i64::from(date.year()) + i64::from(date.month());
    // Counted from the anchor: a short month does not move the days after it.
    let after = |months: i64| anchor.saturating_add(Span::new().try_months(months).unwrap_or_default());
    let passed = month(start) - month(anchor);
    let end = if after(passed) > start { after(passed) } else { after(passed + 1) };
    Offset::UTC.to_timestamp(end).unwrap_or(Timestamp::MAX).as_second()
}

/// When a period of a subscription that begins at a moment ends. A trial ends on its own day.
pub fn end_of(subscription: &Value, trial: bool, start: i64) -> i64 {
    let trial_end = subscription["trial_end"].as_i64().filter(|_| trial);
    // Subscriptions of an earlier state have no anchor.
    let anchor = subscription["billing_cycle_anchor"].as_i64().unwrap_or(start);
    trial_end.unwrap_or_else(|| end(anchor, start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("a time").as_second()
    }

    fn ends(anchor: &str, count: usize) -> Vec<String> {
        let mut start = at(anchor);
        let next = |_| {
            start = end(at(anchor), start);
            Timestamp::from_second(start).expect("a time").to_string()[5..16].to_owned()
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn the_day_of_the_anchor_is_kept() {
        assert_eq!(ends("2027-01-31T10:23:45Z", 3), ["02-28T10:23", "03-31T10:23", "04-30T10:23"]);
        assert_eq!(ends("2028-01-31T23:59:59Z", 3), ["02-29T23:59", "03-31T23:59", "04-30T23:59"]);
        assert_eq!(ends("2026-11-30T00:00:00Z", 4), ["12-30T00:00", "01-30T00:00", "02-28T00:00", "03-30T00:00"]);
        assert_eq!(ends("2028-02-29T12:00:00Z", 13)[10..], ["01-29T12:00", "02-28T12:00", "03-29T12:00"]);
    }

    /// Such as a period that begins when a trial ends, or when a price is added.
    #[test]
    fn a_period_that_begins_between_two_months_ends_with_the_next_one() {
        let anchor = at("2027-01-31T10:23:45Z");
        for (start, until) in [
            ("2027-02-10T00:00:00Z", "2027-02-28T10:23:45Z"),
            ("2027-02-28T10:23:44Z", "2027-02-28T10:23:45Z"),
            ("2027-02-28T10:23:46Z", "2027-03-31T10:23:45Z"),
            ("2027-01-17T10:23:45Z", "2027-01-31T10:23:45Z"),
        ] {
            assert_eq!(end(anchor, at(start)), at(until), "{start}");
        }
    }
}
