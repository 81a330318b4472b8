//! Decides between the concerns of a tenant. One that waits, or whose effect failed in this reconcile, leaves the turn to the
//! next one, so it never holds up what is due.

use super::{Decision, Effect, Input};

/// What one concern wants now. None when it has nothing to do and nothing to wait for.
pub type Concern = fn(&Input) -> Option<Decision>;

/// Asks the concerns in this order. The first one that has something to do or to write down decides. When none has, the
/// soonest wait decides.
pub fn first_due(input: &Input, concerns: &[Concern]) -> Decision {
    let mut soonest = None;
    for concern in concerns {
        match concern(input).map(|decision| untried(input, decision)) {
            None => {}
            Some(Decision::Wait(wait)) => soonest = sooner(soonest, wait),
            Some(due) => return due,
        }
    }
    Decision::Wait(soonest)
}

/// An effect that failed in this reconcile is called again in a later one, after the backoff.
fn untried(input: &Input, decision: Decision) -> Decision {
    let Decision::Act(effects) = decision else { return decision };
    let untried: Vec<Effect> = effects.into_iter().filter(|e| !input.observed.failed.contains_key(e)).collect();
    if untried.is_empty() { Decision::Wait(Some(input.backoff())) } else { Decision::Act(untried) }
}

/// The shorter of two waits, each in seconds. None waits for a change alone.
pub fn sooner(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    one.into_iter().chain(other).min()
}
