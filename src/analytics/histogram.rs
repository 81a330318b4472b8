//! How long customers took to complete the setup, in four ranges.

use serde::Serialize;

use super::durations::percentage;
use super::{Journey, Milestone, Span};

/// A range of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeRange {
    /// Less than 30 minutes.
    Under30Minutes,
    /// From 30 minutes on, and less than 2 hours.
    Under2Hours,
    /// From 2 hours on, and at most 24 hours.
    Within24Hours,
    /// More than 24 hours.
    Over24Hours,
}

impl TimeRange {
    /// All of them, the shortest first.
    pub const ALL: [Self; 4] = [Self::Under30Minutes, Self::Under2Hours, Self::Within24Hours, Self::Over24Hours];

    /// The range of a time in seconds. What is reached out of order took no time.
    pub const fn of(seconds: i64) -> Self {
        if seconds < 1800 {
            Self::Under30Minutes
        } else if seconds < 7200 {
            Self::Under2Hours
        } else if seconds <= 86400 {
            Self::Within24Hours
        } else {
            Self::Over24Hours
        }
    }
}

/// Customers whose time is in a range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TimeBucket {
    /// The range.
    pub range: TimeRange,
    /// How many.
    pub customers: usize,
    /// Per cent of those who completed the setup. None if there are none.
    pub percentage: Option<f64>,
}

/// Of the customers who signed up or were invited in a span and completed the setup: how long they took from the signup.
pub fn activation_histogram(all: &[Journey], span: Span) -> [TimeBucket; 4] {
    let took = |journey: &Journey| Some(journey.reached(Milestone::Completed)?.since(journey.signed_up));
    buckets(span.cohort(all).into_iter().filter_map(took))
}

fn buckets(seconds: impl Iterator<Item = i64>) -> [TimeBucket; 4] {
    let mut counts = [0; 4];
    for seconds in seconds {
        counts[TimeRange::of(seconds) as usize] += 1;
    }
    let all = counts.iter().sum();
    TimeRange::ALL.map(|range| {
        let customers = counts[range as usize];
        TimeBucket { range, customers, percentage: percentage(customers, all) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Timestamp;
    use crate::events::Origin;

    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;

    fn counts(seconds: &[i64]) -> [usize; 4] {
        buckets(seconds.iter().copied()).map(|bucket| bucket.customers)
    }

    #[test]
    fn every_time_is_in_one_range_and_a_limit_is_in_the_right_one() {
        assert_eq!(counts(&[]), [0; 4]);
        assert_eq!(buckets([].into_iter())[0].percentage, None);
        assert_eq!(counts(&[i64::MIN, -1, 0, 30 * MINUTE - 1]), [4, 0, 0, 0]);
        assert_eq!(counts(&[30 * MINUTE, 2 * HOUR - 1]), [0, 2, 0, 0]);
        assert_eq!(counts(&[2 * HOUR, DAY]), [0, 0, 2, 0], "the last second of 24 hours counts");
        assert_eq!(counts(&[DAY + 1, i64::MAX]), [0, 0, 0, 2]);
        let shares = buckets([0, 1, 2, DAY * 2].into_iter()).map(|bucket| bucket.percentage);
        assert_eq!(shares, [Some(75.0), Some(0.0), Some(0.0), Some(25.0)]);
    }

    #[test]
    fn only_customers_of_the_span_who_came_by_the_pages_and_completed_count() {
        let done = |name: &str, at: i64| Journey::example(name, at, &[(Milestone::Completed, 60)]);
        let mut manifest = done("manifest", 5 * DAY);
        manifest.origin = Origin::Manifest;
        let all = [done("old", 0), done("new", 5 * DAY), manifest, Journey::example("open", 5 * DAY, &[])];
        let span = Span::days_before(Timestamp::from_second(6 * DAY), 2);
        assert_eq!(activation_histogram(&all, span).map(|bucket| bucket.customers), [1, 0, 0, 0]);
    }
}
