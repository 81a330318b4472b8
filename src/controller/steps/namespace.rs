//! The tenant's Pinecone namespace.

use std::time::Duration;

use crate::lifecycle::{Blame, Fault, Outcome, Provider};
use crate::providers::ProviderError;
use crate::providers::indexes::Indexes;
use crate::providers::pinecone::Pinecone;

/// The waits between reads of a write that is not visible yet. If it takes longer, a later reconcile reads again, so that no
/// reconcile holds a place meanwhile.
pub const LOOKS: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(200)];

/// Creates the namespace and checks that it is usable. Succeeds if it already exists.
pub async fn ensure(pinecone: &Pinecone, name: &str) -> Result<Outcome, ProviderError> {
    pinecone.create_namespace(name).await?;
    let mut waits = LOOKS.iter();
    while !pinecone.namespace_exists(name).await? {
        let Some(wait) = waits.next() else { return Ok(Outcome::NotYet) };
        tokio::time::sleep(*wait).await;
    }
    Ok(Outcome::Done)
}

/// Checks whether the namespace still exists.
pub async fn check(pinecone: &Pinecone, name: &str) -> Result<Outcome, ProviderError> {
    Ok(if pinecone.namespace_exists(name).await? { Outcome::Done } else { Outcome::Missing })
}

/// Deletes the namespace with its vectors from every index, and checks that it is gone.
pub async fn delete(indexes: &Indexes, name: &str) -> Result<Outcome, ProviderError> {
    for pinecone in indexes.all() {
        delete_in(pinecone, name).await?;
    }
    Ok(Outcome::Done)
}

async fn delete_in(pinecone: &Pinecone, name: &str) -> Result<(), ProviderError> {
    pinecone.delete_namespace(name).await?;
    // Pinecone shows the deletion a moment later.
    let mut waits = LOOKS.iter();
    while pinecone.namespace_exists(name).await? {
        if let Some(wait) = waits.next() {
            tokio::time::sleep(*wait).await;
            continue;
        }
        return Err(ProviderError {
            provider: Provider::Pinecone,
            status: None,
            reason: Fault::NotDeleted,
            message: format!("accepted the deletion of namespace {name}, which still exists"),
            blame: Blame::Call,
            retryable: true,
            retry_after: None,
        });
    }
    Ok(())
}
