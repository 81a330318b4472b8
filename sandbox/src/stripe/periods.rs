//! How long billing periods are.

use serde_json::Value;

pub const DAY: i64 = 24 * 3600;
/// A billing period: the sandbox's months have 30 days.
pub const PERIOD: i64 = 30 * DAY;

/// How long a period is, in seconds: a trial's, or a month of the sandbox.
pub fn length(subscription: &Value, trial: bool) -> i64 {
    let at = |key: &str| subscription[key].as_i64();
    let trial = at("trial_end").zip(at("trial_start")).filter(|_| trial);
    trial.map_or(PERIOD, |(end, start)| end - start)
}
