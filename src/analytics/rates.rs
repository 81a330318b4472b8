//! How sure a rate is: with ten customers, seven of ten may be luck.

use serde::Serialize;

/// The standard normal's quantile of 97.5 %: an interval in which the true rate lies 19 times out of 20.
const Z: f64 = 1.959_964;

/// Per cent between which the true rate lies, 19 times out of 20.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// At least.
    pub low: f64,
    /// At most.
    pub high: f64,
}

impl Interval {
    /// Of so many successes in so many trials, by Wilson's score, which holds for few trials too. None of no trials.
    /// <https://doi.org/10.1080/01621459.1927.10502953>
    #[allow(clippy::cast_precision_loss)]
    pub fn of(successes: usize, trials: usize) -> Option<Self> {
        if trials == 0 {
            return None;
        }
        let n = trials as f64;
        let rate = successes as f64 / n;
        let spread = 1.0 + Z * Z / n;
        let middle = (rate + Z * Z / (2.0 * n)) / spread;
        let half = Z / spread * (rate * (1.0 - rate) / n + Z * Z / (4.0 * n * n)).sqrt();
        Some(Self { low: (middle - half).max(0.0) * 100.0, high: (middle + half).min(1.0) * 100.0 })
    }
}

/// Whether one of two groups does better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// This one does, and luck alone shows as much less than once in 20 times.
    Better(String),
    /// The difference may be luck, or the groups are too small to tell.
    MayBeLuck,
}

/// Successes of trials, of a group with a name.
pub type Trials<'a> = (&'a str, usize, usize);

/// Customers that each group needs before the comparison means anything: below, the test's approximation fails.
pub const ENOUGH: usize = 30;

/// Compares two groups by the test of two proportions.
#[allow(clippy::cast_precision_loss)]
pub fn compare(one: Trials<'_>, other: Trials<'_>) -> Verdict {
    let ((_, won, of), (_, their_won, their_of)) = (one, other);
    if of < ENOUGH || their_of < ENOUGH {
        return Verdict::MayBeLuck;
    }
    let (n, m) = (of as f64, their_of as f64);
    let pooled = (won + their_won) as f64 / (n + m);
    let deviation = (pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m)).sqrt();
    let difference = won as f64 / n - their_won as f64 / m;
    if deviation == 0.0 || difference.abs() <= Z * deviation {
        Verdict::MayBeLuck
    } else {
        Verdict::Better(if difference > 0.0 { one.0 } else { other.0 }.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(successes: usize, trials: usize) -> (f64, f64) {
        let interval = Interval::of(successes, trials).expect("trials");
        ((interval.low * 10.0).round() / 10.0, (interval.high * 10.0).round() / 10.0)
    }

    /// Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, Wilson without continuity
    /// correction: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    #[test]
    fn intervals_are_those_of_the_literature() {
        assert_eq!(rounded(81, 263), (25.5, 36.6));
        assert_eq!(rounded(15, 148), (6.2, 16.0));
        assert_eq!(rounded(0, 20), (0.0, 16.1));
        assert_eq!(rounded(1, 29), (0.6, 17.2));
        assert_eq!(rounded(20, 20), (83.9, 100.0));
        assert_eq!(Interval::of(0, 0), None);
    }

    #[test]
    fn a_winner_is_named_only_if_luck_is_unlikely() {
        let better = |one, other| compare(one, other);
        assert_eq!(better(("a", 70, 100), ("b", 50, 100)), Verdict::Better("a".into()));
        assert_eq!(better(("a", 50, 100), ("b", 70, 100)), Verdict::Better("b".into()));
        assert_eq!(better(("a", 55, 100), ("b", 50, 100)), Verdict::MayBeLuck);
        assert_eq!(better(("a", 29, 29), ("b", 0, 100)), Verdict::MayBeLuck, "too few");
        assert_eq!(better(("a", 0, 100), ("b", 0, 100)), Verdict::MayBeLuck, "no difference");
        // 64 against 50 of 100 is just beyond chance, 63 is within it.
        assert_eq!(better(("a", 64, 100), ("b", 50, 100)), Verdict::Better("a".into()));
        assert_eq!(better(("a", 63, 100), ("b", 50, 100)), Verdict::MayBeLuck);
    }
}
