//! Operations that ended long ago are forgotten, so that the ledger does not grow without end. Their lines stay.

use std::sync::Arc;
use std::time::Duration;

use super::decision::forgotten_before;
use super::store::Store;
use crate::clock::Clock;

/// How often the ledger looks for them.
const LOOK: Duration = Duration::from_mins(1);
/// Operations that are deleted in one transaction: commands wait for it.
const AT_ONCE: u32 = 200;
/// Between two such transactions.
const PAUSE: Duration = Duration::from_millis(20);

/// Deletes what ended long ago, again and again. A clock that is ahead deletes nothing early: it must have ended by both clocks.
pub async fn run(store: Arc<dyn Store>, clock: Arc<Clock>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let before = forgotten_before(clock.read().earliest);
        loop {
            match store.forget(before, AT_ONCE).await {
                Ok(AT_ONCE..) => tokio::time::sleep(PAUSE).await,
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "operations that ended long ago are not deleted");
                    break;
                }
            }
        }
    }
}
