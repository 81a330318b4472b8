//! The namespace of the tenant's data.

use std::time::Duration;

use crate::lifecycle::{Blame, Fault, Outcome, Provider};
use crate::providers::ProviderError;
use crate::providers::indexes::Indexes;
use crate::providers::vector_store::VectorStore;

/// The waits between reads of a write that is not visible yet. If it takes longer, a later reconcile reads again, so
/// that no reconcile holds a place meanwhile.
pub const LOOKS: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(200)];

/// Creates the namespace and checks that it is usable. Succeeds if it already exists.
pub async fn ensure(index: &dyn VectorStore, name: &str) -> Result<Outcome, ProviderError> {
    index.create_namespace(name).await?;
    let mut waits = LOOKS.iter();
    while index.count(name).await?.is_none() {
        let Some(wait) = waits.next() else { return Ok(Outcome::NotYet) };
        tokio::time::sleep(*wait).await;
    }
    Ok(Outcome::Done)
}

/// Checks whether the namespace still exists.
pub async fn check(index: &dyn VectorStore, name: &str) -> Result<Outcome, ProviderError> {
    Ok(if index.count(name).await?.is_some() { Outcome::Done } else { Outcome::Missing })
}

/// Deletes the namespace with its vectors from every index, and checks that it is gone.
pub async fn delete(indexes: &Indexes, name: &str) -> Result<Outcome, ProviderError> {
    for index in indexes.all() {
        delete_in(index, name).await?;
    }
    Ok(Outcome::Done)
}

async fn delete_in(index: &dyn VectorStore, name: &str) -> Result<(), ProviderError> {
    index.delete_namespace(name).await?;
    // The store shows the deletion a moment later.
    let mut waits = LOOKS.iter();
    while index.count(name).await?.is_some() {
        if let Some(wait) = waits.next() {
            tokio::time::sleep(*wait).await;
            continue;
        }
        return Err(ProviderError {
            provider: Provider::VectorStore,
            status: None,
            reason: Fault::NotDeleted,
            message: format!("accepted the deletion of namespace {name}, which still exists"),
            blame: Blame::Call,
            retryable: true,
            retry_after: None,
            tokens: None,
        });
    }
    Ok(())
}
