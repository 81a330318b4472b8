//! The tenant's Pinecone namespace.

use std::time::Duration;

use crate::api::Tenant;
use crate::controller::context::Context;
use crate::lifecycle::{Outcome, View};
use crate::providers::ProviderError;

/// Makes it, tolerates that it is there, and waits until it is usable. The attempt's limit ends the wait.
pub async fn ensure(context: &Context, tenant: &Tenant) -> Result<Outcome, ProviderError> {
    let name = View::of(tenant).pinecone_namespace();
    let pinecone = &context.providers.pinecone;
    pinecone.create_namespace(&name).await?;
    let mut wait = Duration::from_millis(50);
    while !pinecone.namespace_exists(&name).await? {
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(2));
    }
    Ok(Outcome::Done)
}
