//! Merges what the concerns of a tenant want into one decision. A concern that waits, or whose effect failed in this
//! reconcile, leaves the turn to the next one, so it never holds up what is due; the soonest wait of all counts.
//!
//! Concerns take turns instead of acting side by side, because the controller decides again once all effects of a
//! decision have answered: a provider that hangs would hold up what the others answered long ago, such as a replaced
//! key. One concern's effects run side by side. `tests/decisions/due.rs` and `due_by_phase.rs` combine what may hold a
//! tenant up with what is due.

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
