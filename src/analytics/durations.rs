//! How long something took for several customers.

use serde::Serialize;

const MINUTE: f64 = 60.0;
const DAY: i64 = 24 * 3600;

/// Percentiles by the nearest rank: the smallest of the times that so many per cent of them do not exceed. Each is a
/// time that was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Durations {
    /// How many were measured.
    pub measured: usize,
    /// Half of them took at most this many minutes.
    pub median_minutes: f64,
    /// Three quarters of them took at most this many minutes.
    pub p75_minutes: f64,
    /// Nine tenths of them took at most this many minutes.
    pub p90_minutes: f64,
    /// Per cent of them that took at most 24 hours.
    pub within_24h_percentage: f64,
    /// Per cent of them that took at most 48 hours.
    pub within_48h_percentage: f64,
}

impl Durations {
    /// Of seconds. None if there are none.
    pub fn of(seconds: impl IntoIterator<Item = i64>) -> Option<Self> {
        // What is reached out of order took no time.
        let mut sorted: Vec<i64> = seconds.into_iter().map(|seconds| seconds.max(0)).collect();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        let rank = |percent: usize| (sorted.len() * percent).div_ceil(100).saturating_sub(1).min(last);
        let minutes = |percent| float(sorted[rank(percent)]) / MINUTE;
        let within = |most: i64| percentage(sorted.partition_point(|seconds| *seconds <= most), sorted.len());
        Some(Self {
            measured: sorted.len(),
            median_minutes: minutes(50),
            p75_minutes: minutes(75),
            p90_minutes: minutes(90),
            within_24h_percentage: within(DAY).unwrap_or_default(),
            within_48h_percentage: within(2 * DAY).unwrap_or_default(),
        })
    }
}

/// The mean of seconds, in minutes. None of none.
#[allow(clippy::cast_precision_loss)]
pub fn mean_minutes(seconds: Vec<i64>) -> Option<f64> {
    let count = seconds.len();
    let sum: i64 = seconds.into_iter().map(|seconds| seconds.max(0)).sum();
    (count > 0).then(|| float(sum) / MINUTE / count as f64)
}

/// Counts and seconds of customers are far below 2^52, so nothing is lost.
#[allow(clippy::cast_precision_loss)]
const fn float(number: i64) -> f64 {
    number as f64
}

/// How many per cent a part is. None of nothing.
#[allow(clippy::cast_precision_loss)]
pub fn percentage(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 * 100.0 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let of = |seconds: &[i64]| Durations::of(seconds.iter().copied());
        assert_eq!(of(&[]), None);
        let one = of(&[90]).expect("one");
        assert_eq!((one.median_minutes, one.p90_minutes, one.measured), (1.5, 1.5, 1));
        let hundred = Durations::of((1..=100).rev().map(|n| n * 60)).expect("some");
        assert_eq!((hundred.median_minutes, hundred.p75_minutes, hundred.p90_minutes), (50.0, 75.0, 90.0));
        let two = of(&[60, 120]).expect("two");
        assert_eq!((two.median_minutes, two.p75_minutes), (1.0, 2.0));
        let ten = Durations::of((1..=10).map(|n| n * 60)).expect("ten");
        assert_eq!((ten.median_minutes, ten.p75_minutes, ten.p90_minutes), (5.0, 8.0, 9.0));
    }

    #[test]
    fn a_day_is_24_hours_and_its_last_second_counts() {
        let days = Durations::of([-5, DAY, DAY + 1, 2 * DAY, 2 * DAY + 1]).expect("some");
        assert_eq!((days.within_24h_percentage, days.within_48h_percentage), (40.0, 80.0));
        assert_eq!(percentage(1, 0), None);
        assert_eq!(percentage(1, 8), Some(12.5));
    }
}
