//! Who goes first: a person who waits before provisioning, that before repair, that before resync. The priority of a
//! piece of work travels with its task, so that a provider's rate limit serves the same order as the controller's
//! queue.

use std::sync::Arc;

use futures::Future;

/// How urgent a piece of work is, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A person waits: a signup, a payment, a deletion.
    Person,
    /// A tenant that was paid for is being set up.
    Provisioning,
    /// Something changed or broke.
    Repair,
    /// A look whether everything is as it was.
    Resync,
}

impl Priority {
    /// All, most urgent first.
    pub const ALL: [Self; 4] = [Self::Person, Self::Provisioning, Self::Repair, Self::Resync];
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Their names in metrics, in the same order.
    pub const NAMES: [&str; Self::COUNT] = ["person", "provisioning", "repair", "resync"];

    /// Its place, 0 for the most urgent.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The priority of the present task. Work without one counts as a person's.
    pub fn current() -> Self {
        CURRENT.try_with(|p| *p).unwrap_or(Self::Person)
    }

    /// Runs work at this priority.
    pub async fn scope<T>(self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }
}

tokio::task_local! {
    static CURRENT: Priority;
    static PARTY: Arc<str>;
}

/// On whose behalf a piece of work is done, such as a tenant's. It travels with the task, so that a provider's rate
/// limit serves the parties in turn.
#[derive(Clone, Copy, Debug)]
pub struct Party;

impl Party {
    /// The party of the present task. None for the operator's own work.
    pub fn current() -> Option<Arc<str>> {
        PARTY.try_with(Arc::clone).ok()
    }

    /// Does work on a party's behalf.
    pub async fn scope<T>(party: &str, work: impl Future<Output = T>) -> T {
        // On the heap: the future of a tenant's work is large, and is awaited through several layers.
        Box::pin(PARTY.scope(party.into(), work)).await
    }
}
