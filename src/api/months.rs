//! Months as Stripe counts them: from a moment that gives them their day and their time of day, in UTC. "A monthly
//! subscription with a billing cycle anchor date of January 31 bills the last day of the month closest to the anchor
//! date, so February 28 (or February 29 in a leap year), then March 31, April 30, and so on"
//! (<https://docs.stripe.com/billing/subscriptions/billing-cycle>). Each month is counted from the anchor and not from
//! the month before, so that a short month does not move the days after it.

use super::Timestamp;

/// The month that a moment is in: when it begins, and when the next one does.
pub fn around(anchor: Timestamp, moment: Timestamp) -> (Timestamp, Timestamp) {
    let months = anchor.months_until(moment);
    // The day of the month, or its time of day, may be still to come.
    let months = if anchor.plus_months(months) > moment { months - 1 } else { months };
    (anchor.plus_months(months), anchor.plus_months(months + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    /// The starts of the months after an anchor, without years.
    fn starts(anchor: &str, count: usize) -> Vec<String> {
        let mut start = at(anchor);
        let next = |_| {
            start = around(at(anchor), start).1;
            start.to_string()[5..].to_owned()
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn a_day_that_a_month_lacks_is_its_last_one_and_comes_back() {
        let common = ["02-28T10:23:45Z", "03-31T10:23:45Z", "04-30T10:23:45Z", "05-31T10:23:45Z"];
        assert_eq!(starts("2027-01-31T10:23:45Z", 4), common);
        let leap = ["02-29T23:59:59Z", "03-31T23:59:59Z", "04-30T23:59:59Z"];
        assert_eq!(starts("2028-01-31T23:59:59Z", 3), leap);
        assert_eq!(starts("2028-02-29T00:00:00Z", 13)[11..], ["02-28T00:00:00Z", "03-29T00:00:00Z"]);
        assert_eq!(starts("2027-01-30T00:00:00Z", 2), ["02-28T00:00:00Z", "03-30T00:00:00Z"]);
    }

    #[test]
    fn a_month_begins_with_its_first_second_and_ends_before_the_next_one() {
        let anchor = at("2027-01-31T10:23:45Z");
        let months = ["2026-12-31T10:23:45Z", "2027-01-31T10:23:45Z", "2027-02-28T10:23:45Z", "2027-03-31T10:23:45Z"];
        for pair in months.windows(2) {
            let (start, end) = (at(pair[0]), at(pair[1]));
            for moment in [start, start.plus(1), end.plus(-1)] {
                assert_eq!(around(anchor, moment), (start, end), "{moment}");
            }
        }
    }

    /// Europe's clocks go forward on 28 March 2027 and back on 31 October. A month has whole days all the same.
    #[test]
    fn daylight_saving_moves_no_month() {
        let anchor = at("2027-01-31T01:30:00+01:00");
        for (moment, days) in [("2027-03-28T12:00:00+02:00", 31), ("2027-10-31T02:30:00+01:00", 30)] {
            let (start, end) = around(anchor, at(moment));
            assert_eq!((end.since(start), start.as_second() % 86_400), (days * 86_400, 1800), "{moment}");
        }
    }

    /// No month is skipped and none is counted twice, whatever the anchor is.
    #[test]
    fn months_follow_one_another() {
        for day in 0..400 {
            let anchor = at("2027-12-01T08:00:00Z").plus(day * 86_400 + day);
            let mut start = around(anchor, anchor.plus(-800 * 86_400)).0;
            for _ in 0..60 {
                let (from, until) = around(anchor, start);
                assert_eq!(from, start, "{anchor}");
                assert!((28 * 86_400..=31 * 86_400).contains(&until.since(from)), "{anchor}: {from} to {until}");
                assert_eq!(around(anchor, until.plus(-1)), (from, until), "{anchor}");
                start = until;
            }
        }
    }

    /// Times outside the calendar cause no panic.
    #[test]
    fn times_beyond_the_calendar_have_a_month() {
        for wild in [i64::MIN, i64::MAX, 0].map(Timestamp::from_second) {
            for other in [i64::MIN, i64::MAX, 0].map(Timestamp::from_second) {
                let (start, end) = around(wild, other);
                assert!(start <= end, "{start} to {end}");
            }
        }
    }
}
