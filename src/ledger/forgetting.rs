//! Operations that ended long ago are forgotten, so that the ledger does not grow without end: those that counted
//! something after 93 days, those that were voided or counted nothing after a day (`decision::ended_at`). Their lines
//! stay. Answers that were kept for a day are forgotten as well.

use std::sync::Arc;
use std::time::Duration;

use futures::Future;

use super::decision::forgotten_before;
use super::store::{Store, StoreError};
use crate::clock::Clock;

/// How often the ledger looks for them.
const LOOK: Duration = Duration::from_mins(1);
/// Operations that are deleted in one transaction: commands wait for it.
const AT_ONCE: u32 = 200;
/// Between two such transactions.
const PAUSE: Duration = Duration::from_millis(20);

/// Deletes in transactions of [`AT_ONCE`] rows, until one finds fewer. `what` names the rows in the log.
async fn in_batches<Deletion>(what: &str, delete: impl Fn() -> Deletion)
where
    Deletion: Future<Output = Result<u32, StoreError>>,
{
    loop {
        match delete().await {
            Ok(AT_ONCE..) => tokio::time::sleep(PAUSE).await,
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "{what} are not deleted");
                return;
            }
        }
    }
}

/// Deletes what ended long ago, again and again. A clock that is ahead deletes nothing early: it must have ended by
/// both clocks.
pub async fn run(store: Arc<dyn Store>, clock: Arc<Clock>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let before = forgotten_before(clock.read().earliest);
        in_batches("operations that ended long ago", || store.forget(before, AT_ONCE)).await;
        let now = clock.read().earliest;
        in_batches("answers that were kept for long enough", || store.answers().sweep(now, AT_ONCE)).await;
    }
}
