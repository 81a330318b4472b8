//! What the ledger counted for a tenant.

use crate::api::Tenant;
use crate::api::usage::{TakenOver, Usage};
use crate::ledger::client::LedgerClient;
use crate::ledger::units::Unit;
use crate::lifecycle::{Outcome, Stored};

/// Reads what the tenant stores. What an earlier version of web noted on the Tenant, and web has not handed to the
/// ledger yet, belongs to it.
pub async fn count_stored(ledger: &LedgerClient, tenant: &Tenant) -> Outcome {
    let used = match ledger.usage(tenant.tenant_id()).await {
        // What is set aside is being stored.
        Ok(usage) => usage.map(|usage| usage.used.plus(usage.reserved)).unwrap_or_default(),
        Err(error) => {
            tracing::warn!(%error, tenant = tenant.place().name, "the ledger does not say what the tenant stores");
            return Outcome::Stored(Stored::Unknown);
        }
    };
    let (noted, mark) = (Usage::of(tenant), TakenOver::of(tenant));
    // Web writes the mark before it tells the ledger.
    let taken_over = mark.from.unwrap_or(mark.usage);
    Outcome::Stored(Stored::Counted {
        documents: (used[Unit::Documents] + noted.documents - taken_over.documents).max(0),
        bytes: (used[Unit::Bytes] + noted.bytes - taken_over.bytes).max(0),
    })
}
