//! What is computed of all Tenants: beside the threads that answer the ledger's clients, a few at a time, so that no
//! question waits for it.

use std::sync::Arc;

use super::Admin;
use crate::api::{Tenant, Timestamp};

/// Why nothing was computed.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// The first listing is not complete, and what follows from half of the Tenants would be wrong.
    #[error(
        "The Tenants are being read. Please try again in 5 seconds. If this lasts, the log of the ledger says why."
    )]
    NotFilled,
    /// The work was stopped.
    #[error(transparent)]
    Stopped(#[from] tokio::task::JoinError),
}

impl Admin {
    /// What follows from all Tenants and the present.
    pub async fn computed<T: Send + 'static>(
        &self,
        of: impl FnOnce(Vec<Arc<Tenant>>, Timestamp) -> T + Send + 'static,
    ) -> Result<T, ComputeError> {
        if !self.tenants.is_filled() {
            return Err(ComputeError::NotFilled);
        }
        let place = self.computing.clone().acquire_owned().await;
        let (tenants, now) = (self.tenants.clone(), self.clock.read().now);
        let work = move || {
            let computed = of(tenants.all(), now);
            drop(place);
            computed
        };
        Ok(tokio::task::spawn_blocking(work).await?)
    }
}
