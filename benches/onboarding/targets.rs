//! What is wanted of the figures. A figure that misses its target makes the whole run fail at its end, after all of it was
//! measured: `BENCH_REPORT_ONLY=1` only tells it.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

/// Set to anything but nothing and 0, a missed target does not fail the run.
const REPORT_ONLY: &str = "BENCH_REPORT_ONLY";

/// What is wanted of a figure.
#[allow(dead_code, reason = "each benchmark uses those it needs")]
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// Below this.
    Under(f64),
    /// This or below.
    AtMost(f64),
    /// This or above.
    AtLeast(f64),
    /// Above this.
    Over(f64),
}

impl Wanted {
    /// Whether a figure is as wanted. One that is no number is not.
    fn holds(self, figure: f64) -> bool {
        match self {
            Self::Under(limit) => figure < limit,
            Self::AtMost(limit) => figure <= limit,
            Self::AtLeast(limit) => figure >= limit,
            Self::Over(limit) => figure > limit,
        }
    }

    fn words(self) -> String {
        match self {
            Self::Under(limit) => format!("under {limit}"),
            Self::AtMost(limit) => format!("at most {limit}"),
            Self::AtLeast(limit) => format!("at least {limit}"),
            Self::Over(limit) => format!("over {limit}"),
        }
    }
}

/// How many targets were looked at, and the missed ones in words.
static JUDGED: Mutex<(usize, Vec<String>)> = Mutex::new((0, Vec::new()));

/// Notes whether a figure is as wanted. `what` names it with its unit.
pub fn judge(what: impl Into<String>, figure: f64, wanted: Wanted) {
    let mut judged = JUDGED.lock().unwrap_or_else(PoisonError::into_inner);
    judged.0 += 1;
    if !wanted.holds(figure) {
        judged.1.push(format!("{}: {figure:.2}, wanted {}", what.into(), wanted.words()));
    }
}

/// Prints the targets that were missed. Fails if there are any, unless they are only to be told.
pub fn summary() -> anyhow::Result<()> {
    let judged = JUDGED.lock().unwrap_or_else(PoisonError::into_inner);
    let (count, missed) = &*judged;
    let mut told = format!("targets: {} of {count} met", count - missed.len());
    for line in missed {
        write!(told, "\n  missed: {line}")?;
    }
    println!("{told}");
    let only = std::env::var(REPORT_ONLY).is_ok_and(|value| !matches!(&*value, "" | "0"));
    anyhow::ensure!(missed.is_empty() || only, "{} targets were missed; {REPORT_ONLY}=1 only tells them", missed.len());
    Ok(())
}
