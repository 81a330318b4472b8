//! The tenant's Pinecone namespace.

use std::time::Duration;

use crate::lifecycle::{Blame, Fault, Outcome, Provider};
use crate::providers::ProviderError;
use crate::providers::indexes::Indexes;
use crate::providers::pinecone::Pinecone;

/// The waits between looks for what was just written. What takes longer is looked for in a reconcile of its own, so that
/// nothing is held meanwhile.
pub const LOOKS: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(200)];

/// Makes it, tolerates that it is there, and sees whether it is usable.
pub async fn ensure(pinecone: &Pinecone, name: &str) -> Result<Outcome, ProviderError> {
    pinecone.create_namespace(name).await?;
    let mut waits = LOOKS.iter();
    while !pinecone.namespace_exists(name).await? {
        let Some(wait) = waits.next() else { return Ok(Outcome::NotYet) };
        tokio::time::sleep(*wait).await;
    }
    Ok(Outcome::Done)
}

/// Sees whether it is still there.
pub async fn check(pinecone: &Pinecone, name: &str) -> Result<Outcome, ProviderError> {
    Ok(if pinecone.namespace_exists(name).await? { Outcome::Done } else { Outcome::Missing })
}

/// Deletes it with its vectors, in whichever index it is, and sees that it is gone.
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
