//! Moves of tenants' data to another embedding model or region, as they run. What was copied survives the controller.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;

use super::Waits;
use crate::api::migration::MigrationState;
use crate::api::{Phase, Tenant, data_namespace};
use crate::controller::context::Context;
use crate::controller::{Key, Providers};
use crate::lifecycle::{MigrationError, ObservedMigration};
use crate::providers::Priority;
use crate::rag::{Reembed, ReembedError};

/// The store shows what it took a moment later.
const SETTLE: Duration = Duration::from_secs(2);
/// So many last passes in a row find nothing to do before the switch: one alone may read what was there before a write.
const CLEAN_PASSES: u32 = 2;
/// How often it is looked whether the cache shows a move that has just begun.
const LAG_LOOK: Duration = Duration::from_millis(100);
/// How many times.
const LAG_LOOKS: u32 = 50;

/// A move, as the status names it.
#[derive(Clone, PartialEq, Eq)]
pub struct Move {
    pub generation: u32,
    pub embedding: String,
    pub region: Option<String>,
    /// Whether to go on until nothing changes any more.
    pub last: bool,
}

impl Move {
    fn name(&self) -> String {
        format!("{}/{}/{:?}/{}", self.generation, self.embedding, self.region, self.last)
    }
}

/// How far the move is. It is begun, or taken up again after a restart.
pub fn go_on(context: &Arc<Context>, tenant: &Tenant, to: Move) -> ObservedMigration {
    let uid = tenant.uid().unwrap_or_default();
    context.migrations.seen(&uid, &to.name()).unwrap_or_else(|| {
        let begun = ObservedMigration::begun(to.last);
        let name = to.name();
        let task = Task { context: context.clone(), tenant: tenant.clone(), uid: uid.clone(), to };
        context.migrations.begin(uid, name, begun.clone(), async move { task.work().await });
        begun
    })
}

struct Task {
    context: Arc<Context>,
    tenant: Tenant,
    uid: String,
    to: Move,
}

impl Task {
    /// Works until the move is complete. Shows an error in the status and tries again; the lifecycle ends a move that
    /// takes too long.
    async fn work(&self) {
        let mut waits = Waits::default();
        loop {
            let outcome = {
                let (tasks, name) = (&self.context.migrations, self.to.name());
                // Uploads wait for the last pass.
                let (turn, priority) = if self.to.last {
                    (tasks.urgent_turn(&self.uid, &name).await, Priority::Person)
                } else {
                    (tasks.turn(&self.uid, &name).await, Priority::Resync)
                };
                let Some(_turn) = turn else { return };
                priority.scope(self.run()).await
            };
            match outcome {
                Ok(vectors) => {
                    tracing::info!(tenant = self.tenant.name_any(), vectors, last = self.to.last, "data copied");
                    let done = ObservedMigration { vectors, done: true, ..ObservedMigration::begun(self.to.last) };
                    return self.show(true, |_| done);
                }
                Err(ReembedError::Stopped) => {
                    self.context.migrations.forget(&self.uid, &self.to.name());
                    return self.context.queue.add(Key::of(&self.tenant), Priority::Repair);
                }
                Err(error) => {
                    tracing::warn!(tenant = self.tenant.name_any(), %error, "copying the data failed; retrying");
                    let ahead = matches!(error, ReembedError::TargetAhead { .. });
                    let problem = MigrationError { message: error.to_string(), retryable: error.retryable(), ahead };
                    self.show(false, |before| ObservedMigration { problem: Some(problem), ..before.clone() });
                }
            }
            waits.next().await;
        }
    }

    /// Passes over everything until a pass finds nothing to do. Each pass finds what was stored or deleted during the
    /// one before.
    async fn run(&self) -> Result<u64, ReembedError> {
        let id = self.tenant.tenant_id();
        let (from, to) = (self.tenant.data_namespace(), data_namespace(id, self.to.generation));
        let Providers { indexes, embedder, .. } = &self.context.providers;
        let embedder = &**embedder;
        let here = indexes.of(self.tenant.region())?;
        let there = self.to.region.as_deref().map_or(Ok(here), |region| indexes.of(Some(region)))?;
        let on_batch = |vectors| {
            self.progress(vectors);
            self.is_wanted() && self.context.migrations.may_go_on(&self.uid, &self.to.name())
        };
        let model = &self.to.embedding;
        let reembed = Reembed { embedder, from: (here, &from), to: (there, &to), model, on_batch: &on_batch };
        self.until_wanted().await?;
        // A task of a move that this process has not begun may be that of an object from a backup.
        if !self.context.own_moves.contains(&self.uid, self.to.generation) {
            reembed.refuse_target_ahead().await?;
            self.context.own_moves.insert(&self.uid, self.to.generation);
        }
        if self.to.last {
            tokio::time::sleep(SETTLE).await;
        }
        let mut clean = 0;
        loop {
            let pass = reembed.pass().await?;
            clean = if pass.changed == 0 { clean + 1 } else { 0 };
            if clean == CLEAN_PASSES || !self.to.last {
                return Ok(pass.vectors);
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    /// The cache may lag behind the status that began this.
    async fn until_wanted(&self) -> Result<(), ReembedError> {
        for _ in 0..LAG_LOOKS {
            if self.is_wanted() {
                return Ok(());
            }
            tokio::time::sleep(LAG_LOOK).await;
        }
        Err(ReembedError::Stopped)
    }

    /// Whether the tenant still moves there. A task must not write into a namespace that is being deleted.
    fn is_wanted(&self) -> bool {
        let place = self.tenant.place();
        let key = Key { namespace: place.namespace.into(), name: place.name.into() };
        let Some(tenant) = self.context.caches.tenant(&key).filter(|_| self.context.fence.holds()) else {
            return false;
        };
        let state = if self.to.last { MigrationState::Switching } else { MigrationState::Copying };
        let status = tenant.status.as_ref();
        let moves = status.and_then(|s| s.migration.as_ref()).is_some_and(|there| {
            (there.generation, there.state) == (self.to.generation, state)
                && *there.embedding == *self.to.embedding
                && there.region.as_deref() == self.to.region.as_deref()
        });
        let served = status.and_then(|s| s.phase).is_some_and(Phase::is_served);
        moves && served && tenant.uid().is_some_and(|uid| uid == self.uid)
    }

    /// Lets the status say now and then how far it is.
    fn progress(&self, vectors: u64) {
        if self.context.migrations.is_due(&self.uid) {
            let last = self.to.last;
            self.show(false, |_| ObservedMigration { vectors, ..ObservedMigration::begun(last) });
        }
    }

    /// Notes what there is to see, and has the tenant looked at.
    fn show(&self, ended: bool, seen: impl FnOnce(&ObservedMigration) -> ObservedMigration) {
        if self.context.migrations.note(&self.uid, &self.to.name(), ended, seen) {
            self.context.queue.add(Key::of(&self.tenant), Priority::Repair);
        }
    }
}
