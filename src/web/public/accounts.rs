//! Which account an e-mail address has. The API server decides who was first: the name of a Tenant that signs up is a
//! keyed hash of its address, and a label holds the hash of its present address.

use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::api::{EMAIL_LABEL, Phase, Tenant, signed_up};

/// How often one address can be erased and sign up again.
const RETURNS: u32 = 50;

/// The name of the Tenant that signs up with the address of this hash, and the Tenant that has the name already. The
/// API server lets no two signups create it. A customer who was erased signs up again under the next name, and so does
/// a new owner of an address that another customer gave up; all replicas count alike. The record of a customer whom an
/// admin suspended keeps the name after the erasure. None where the names are used up.
pub async fn place(tenants: &Api<Tenant>, hash: &str) -> Result<Option<(String, Option<Tenant>)>, kube::Error> {
    let first = signed_up(hash);
    let mut name = first.clone();
    for n in 2..RETURNS {
        let Some(there) = tenants.get_opt(&name).await? else { return Ok(Some((name, None))) };
        if is_erased(&there) {
            if there.spec.suspension.is_some() {
                return Ok(Some((name, Some(there))));
            }
        } else if there.labels().get(EMAIL_LABEL).is_none_or(|label| label == hash) {
            return Ok(Some((name, Some(there))));
        }
        name = format!("{first}-{n}");
    }
    Ok(None)
}

/// The name of another Tenant whose present address has this hash: its customer has this address now, or it was applied
/// as a manifest.
pub async fn other(tenants: &Api<Tenant>, hash: &str, name: &str) -> Result<Option<String>, kube::Error> {
    let there = tenants.list_metadata(&of_address(hash)).await?.items;
    Ok(there.into_iter().map(|tenant| tenant.name_any()).find(|other| other != name))
}

/// Selects the Tenants whose present address has this hash.
pub fn of_address(hash: &str) -> ListParams {
    ListParams::default().labels(&format!("{EMAIL_LABEL}={hash}"))
}

/// Whether only the record of a customer is left.
pub fn is_erased(tenant: &Tenant) -> bool {
    tenant.status.as_ref().and_then(|s| s.phase) == Some(Phase::Deleted)
}
