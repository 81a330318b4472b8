//! Turns by name: work that this replica must not do twice at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// Names without a waiting request are forgotten when there are so many.
const KEPT: usize = 1000;

/// Whose turn it is.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for the turn of this name, and holds it.
    pub async fn take(&self, name: &str) -> OwnedMutexGuard<()> {
        self.turn(name).lock_owned().await
    }

    /// Holds the turn of this name, unless it is held already.
    pub fn try_take(&self, name: &str) -> Option<OwnedMutexGuard<()>> {
        self.turn(name).try_lock_owned().ok()
    }

    fn turn(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() > KEPT {
            all.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        all.entry(name.to_owned()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_name_waits_and_another_does_not() {
        let turns = Turns::default();
        let held = turns.take("a").await;
        drop(turns.take("b").await);
        let waits = tokio::time::timeout(std::time::Duration::from_millis(50), turns.take("a")).await;
        assert!(waits.is_err(), "it is taken");
        for i in 0..2 * KEPT {
            drop(turns.take(&i.to_string()).await);
        }
        let waits = tokio::time::timeout(std::time::Duration::from_millis(50), turns.take("a")).await;
        assert!(waits.is_err(), "a turn that is held is not forgotten");
        drop(held);
        drop(turns.take("a").await);
        assert!(turns.0.lock().expect("a lock").len() <= KEPT + 2);
    }
}
