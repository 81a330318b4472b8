//! What customers dispute.

use super::hints::hint_all;
use crate::controller::context::Context;
use crate::providers::ProviderError;

/// Compares what customers dispute.
pub async fn compare(context: &Context) -> Result<(), ProviderError> {
    let disputes = context.providers.stripe.disputes().await?;
    let read = disputes.len();
    let open = disputes.values().filter(|dispute| !dispute.lost).count();
    context.metrics.open_disputes.set(i64::try_from(open).unwrap_or(i64::MAX));
    context.disputes.replace(disputes);
    let suspend = context.policy.suspend_disputed;
    hint_all(context, "disputes", read, |tenant| context.disputes.differ(tenant, suspend)).await;
    Ok(())
}
