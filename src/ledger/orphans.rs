//! Operations whose client was not heard of for too long: a web pod was killed, or its answer never came.
//!
//! They expire by an interval of this process's monotonic clock, not at a moment of a calendar: a clock that jumps ends
//! none early. A ledger that starts gives each pending operation its whole interval again.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};

use super::decision::{Action, Answer, Command};
use super::store::{Pending, Store};
use crate::api::Timestamp;
use crate::clock::Clock;

/// How often the ledger looks for operations that expire.
const LOOK: Duration = Duration::from_secs(1);
/// Operations that expire at the same time: they share commits.
const AT_ONCE: usize = 64;
/// Seconds until one that could not expire is tried again.
const RETRY: u32 = 10;
/// How often it looks for pending operations of another replica, which may have died.
const LOOK_AROUND: Duration = Duration::from_mins(1);

/// When pending operations expire.
#[derive(Debug, Default)]
pub struct Orphans(Mutex<Deadlines>);

#[derive(Debug, Default)]
struct Deadlines {
    by_operation: HashMap<String, (Instant, String)>,
    by_time: BTreeSet<(Instant, String)>,
}

impl Deadlines {
    fn forget(&mut self, operation: &str) {
        if let Some((at, _)) = self.by_operation.remove(operation) {
            self.by_time.remove(&(at, operation.to_owned()));
        }
    }
}

impl Orphans {
    fn deadlines(&self) -> std::sync::MutexGuard<'_, Deadlines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an operation its interval from now on, also one that was reserved before.
    pub fn expect(&self, pending: Pending) {
        let at = Instant::now() + Duration::from_secs(pending.expires_after.into());
        let mut deadlines = self.deadlines();
        deadlines.forget(&pending.operation);
        deadlines.by_time.insert((at, pending.operation.clone()));
        deadlines.by_operation.insert(pending.operation, (at, pending.tenant));
    }

    /// Gives an operation its interval, unless it has one.
    fn notice(&self, pending: Pending) {
        if !self.deadlines().by_operation.contains_key(&pending.operation) {
            self.expect(pending);
        }
    }

    /// It was settled or voided.
    pub fn ended(&self, operation: &str) {
        self.deadlines().forget(operation);
    }

    /// How many operations are pending.
    pub fn count(&self) -> usize {
        self.deadlines().by_operation.len()
    }

    fn due(&self, now: Instant) -> Vec<Command> {
        let deadlines = self.deadlines();
        let due = deadlines.by_time.iter().take_while(|(at, _)| *at <= now);
        due.filter_map(|(_, operation)| {
            let (_, tenant) = deadlines.by_operation.get(operation)?;
            Some(Command { operation: operation.clone(), tenant: tenant.clone(), action: Action::Expire, at: None })
        })
        .collect()
    }

    /// Expires an operation, unless it was reserved again since it was found due. One that cannot expire now is tried
    /// again later, and holds up no other.
    async fn expire(&self, command: Command, store: &dyn Store, now: Timestamp) {
        let (operation, tenant) = (command.operation.clone(), command.tenant.clone());
        if !self.is_due(&operation, Instant::now()) {
            return;
        }
        match store.apply(command, now).await {
            Ok(answer) => {
                if answer == Answer::Expired {
                    tracing::info!(operation, "an operation expired: its last checkpoint was counted");
                }
                self.ended(&operation);
            }
            Err(error) => {
                tracing::warn!(%error, operation, "an operation did not expire");
                self.expect(Pending { operation, tenant, expires_after: RETRY });
            }
        }
    }

    fn is_due(&self, operation: &str, now: Instant) -> bool {
        self.deadlines().by_operation.get(operation).is_some_and(|(at, _)| *at <= now)
    }

    /// Expires what is due, again and again.
    pub async fn run(self: Arc<Self>, store: Arc<dyn Store>, clock: Arc<Clock>) {
        let mut looked_around = Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            if looked_around.elapsed() > LOOK_AROUND {
                looked_around = Instant::now();
                match store.pending().await {
                    Ok(pending) => pending.into_iter().for_each(|pending| self.notice(pending)),
                    Err(error) => tracing::warn!(%error, "the pending operations cannot be read"),
                }
            }
            let due = stream::iter(self.due(Instant::now()));
            due.for_each_concurrent(AT_ONCE, |command| self.expire(command, &*store, clock.read().now)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(operation: &str, expires_after: u32) -> Pending {
        Pending { operation: operation.into(), tenant: "t".into(), expires_after }
    }

    #[test]
    fn an_operation_is_due_after_its_interval_and_not_once_it_has_ended() {
        let orphans = Orphans::default();
        for (operation, seconds) in [("late", 60), ("soon", 10), ("settled", 10)] {
            orphans.expect(pending(operation, seconds));
        }
        orphans.ended("settled");
        let due = |seconds| {
            let commands = orphans.due(Instant::now() + Duration::from_secs(seconds));
            commands.into_iter().map(|command| command.operation).collect::<Vec<_>>()
        };
        assert!(due(5).is_empty());
        assert_eq!(due(11), ["soon"]);
        assert_eq!(due(61), ["soon", "late"]);
        // Reserved again, after a lost answer: the interval begins again, and the operation is there once.
        orphans.expect(pending("soon", 100));
        assert_eq!((due(61), orphans.count()), (vec!["late".to_owned()], 2));
        // One that is noticed again keeps its interval, and one that was not awaited gets its own.
        orphans.notice(pending("late", 1000));
        orphans.notice(pending("missed", 30));
        assert_eq!((due(61), orphans.count()), (vec!["missed".to_owned(), "late".to_owned()], 3));
    }
}
