//! Where runs without any fault end. What follows a state is the same whichever run comes by, so a run that comes to a
//! state of an earlier one need not go on: each state of the world is then run from once, not once for every state
//! before it.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use ahash::AHasher;

/// Whether earlier runs ended well, by the states that they came through.
#[derive(Clone, Debug, Default)]
pub struct Converged(Arc<Mutex<HashMap<u64, bool>>>);

/// A run, whose states are noted down when it ends.
pub struct Run<'a> {
    known: &'a Converged,
    passed: Vec<u64>,
}

impl Converged {
    pub fn run(&self) -> Run<'_> {
        Run { known: self, passed: Vec::new() }
    }
}

impl Run<'_> {
    /// The run comes to a state: how an earlier one ended that came through it.
    pub fn comes_to(&mut self, state: &impl Hash) -> Option<bool> {
        let mut hasher = AHasher::default();
        state.hash(&mut hasher);
        let state = hasher.finish();
        self.passed.push(state);
        self.known.0.lock().unwrap_or_else(PoisonError::into_inner).get(&state).copied()
    }

    /// The run has ended, well or not.
    pub fn ends(self, well: bool) -> bool {
        let mut known = self.known.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(self.passed.into_iter().map(|state| (state, well)));
        well
    }
}
