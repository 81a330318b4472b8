//! Sends each notice once: sends it, then notes that it was sent.

use crate::api::Timestamp;
use crate::lifecycle::{Decision, Effect, Input, Notice};

/// How long after its occasion an e-mail that nothing depends on is still sent, in seconds.
const TIMELY: i64 = 24 * 3600;

/// By how many seconds the clock that an occasion was noted by may be ahead.
const AHEAD: i64 = 60;

/// Whether an event at this time is recent enough to send an e-mail about it.
pub fn timely(input: &Input, at: Timestamp) -> bool {
    (-AHEAD..TIMELY).contains(&input.now.since(at))
}

/// The next step for these notices. None if each was noted, or could not be sent or noted in this reconcile.
pub fn tell(input: &Input, notices: &[Notice]) -> Option<Decision> {
    let observed = input.observed;
    let open = || notices.iter().filter(|n| !input.tenant.noted(n));
    let tried = |n: &Notice| observed.sent.contains(n) || observed.unsent.contains_key(n);
    let untried: Vec<_> = open().filter(|n| !tried(n)).cloned().map(Effect::Notify).collect();
    if !untried.is_empty() {
        return Some(Decision::Act(untried));
    }
    let sent: Vec<_> = open().filter(|n| observed.sent.contains(*n)).cloned().collect();
    // A note that was refused holds up nothing that comes after the notice. [`note`] writes it later.
    let note = Effect::MarkSent(sent.clone());
    (!sent.is_empty() && !observed.failed.contains_key(&note)).then(|| Decision::Act(vec![note]))
}

/// What was sent is noted before anything else is done: a write that is refused meanwhile would send it again.
pub fn note(input: &Input) -> Option<Decision> {
    let sent: Vec<_> = input.observed.sent.iter().filter(|n| !input.tenant.noted(n)).cloned().collect();
    (!sent.is_empty()).then(|| Decision::Act(vec![Effect::MarkSent(sent)]))
}

/// Whether one of these could not be sent.
pub fn any_unsent(input: &Input, notices: &[Notice]) -> bool {
    notices.iter().any(|n| input.observed.unsent.contains_key(n))
}

/// The decision, with no longer a wait than this.
pub fn wait_at_most(decision: Decision, limit: Option<i64>) -> Decision {
    match (decision, limit) {
        (Decision::Wait(wait), Some(limit)) => Decision::Wait(Some(wait.map_or(limit, |wait| wait.min(limit)))),
        (decision, _) => decision,
    }
}
