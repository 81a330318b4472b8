//! Which moves of data this process may go on with unseen: an object from a backup may name one that ended long ago.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The moves whose copies this process has begun or found to hold nothing of their own, until they end.
#[derive(Default)]
pub struct OwnMoves(Mutex<HashSet<(String, u32)>>);

impl OwnMoves {
    fn moves(&self) -> MutexGuard<'_, HashSet<(String, u32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this one is among them.
    pub fn contains(&self, uid: &str, generation: u32) -> bool {
        self.moves().contains(&(uid.to_owned(), generation))
    }

    /// Adds one.
    pub fn insert(&self, uid: &str, generation: u32) {
        self.moves().insert((uid.to_owned(), generation));
    }

    /// Forgets the moves of a tenant: from the switch on, its customer stores in the namespace of the copy.
    pub fn end(&self, uid: &str) {
        self.moves().retain(|(of, _)| of != uid);
    }
}
