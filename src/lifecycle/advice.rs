//! What an admin can do about a tenant, by its phase and the reason of its condition Ready. `kubectl tenant why` and
//! the table in docs/operations.md show it.

use super::concerns::dunning::{ENDED, MISSING};
use super::concerns::plan_obstacles::{PLAN_HAS_NO_PRICE, PLAN_NOT_FOUND, REGION_UNSUPPORTED};
use crate::api::Phase;
use crate::api::facts::Awaited;

/// One fix: of a phase (any when absent), of reasons that begin so, and what to do.
const FIXES: [(Option<Phase>, &str, &str); 27] = [
    (None, "Active", "Nothing to do"),
    (None, "AwaitingPayment", "Nothing: the customer pays at status.checkout.url (`kubectl tenant open`)"),
    (
        None,
        Awaited::LinkRequest.reason(),
        "Nothing: the customer gets a payment link on the account page. `kubectl tenant open` prints one to send to the customer",
    ),
    (None, "PaymentProcessing", "Nothing: the customer's bank is still processing the payment"),
    (
        None,
        "AwaitingVerification",
        "Nothing: the customer opens the link in the confirmation e-mail, or asks for another on the page",
    ),
    (
        Some(Phase::Failed),
        "EmailNotVerified",
        "Correct spec.adminEmail with the customer, then run `kubectl tenant retry`, which asks for no confirmation. The customer was refunded",
    ),
    (
        None,
        "PaymentPastDue",
        "Nothing: Stripe tries the payment again, and the customer was told. See docs/operations.md, \"Late payments and suspensions\"",
    ),
    (None, MISSING, "Nothing: the customer pays the open invoices in Stripe's customer portal. Data is kept"),
    (
        None,
        ENDED,
        "Nothing: the customer buys a new subscription at the link of `kubectl tenant open`, or on the account page. Data is kept",
    ),
    (None, "SuspendedByAdmin", "Run `kubectl tenant resume` to serve the tenant again"),
    (None, "AwaitingApproval", "Set spec.billing.approved to true when the contract is signed"),
    (None, PLAN_NOT_FOUND, "Create the Plan, or correct spec.plan"),
    (None, REGION_UNSUPPORTED, "Choose a Plan of another region, or name an index for this one in PINECONE_REGIONS"),
    (None, PLAN_HAS_NO_PRICE, "Set stripePriceId in the Plan, or use billing mode Manual"),
    (None, "CapacityMissing", "Upgrade Pinecone's plan; the controller then makes the payment links"),
    (None, "TenantId", "This object claims a tenant that is not its own; see docs/operations.md, \"Move a tenant\""),
    (
        None,
        "Secret",
        "Rename or delete the Secret that the message names, if it is not needed; the tenant then continues",
    ),
    (
        Some(Phase::Active),
        "NamespaceMissing",
        "Restore the namespace at Pinecone, or run `kubectl tenant retry` for an empty one with the sample documents",
    ),
    (Some(Phase::Failed), "", "Fix the cause, then run `kubectl tenant retry`. The customer was told and refunded"),
    (
        Some(Phase::Provisioning),
        "Retrying",
        "Nothing, unless every attempt fails the same way: then fix what the message names before the last attempt",
    ),
    (Some(Phase::Upgrading), "", "Nothing: the change is running, and the tenant is served meanwhile"),
    (Some(Phase::Downgrading), "", "Nothing: the change is running, and the tenant is served meanwhile"),
    (Some(Phase::Provisioning), "Provisioning", "Nothing: it is being provisioned"),
    (
        Some(Phase::Deleting),
        "Closed",
        "Nothing: it is erased at status.erasesAt. `kubectl tenant reactivate` takes it back until then",
    ),
    (
        Some(Phase::Deleting),
        "LegalHold",
        "Remove the annotation tenant-operator.dev/legal-hold to let the erasure continue",
    ),
    (
        Some(Phase::Deleted),
        "",
        "Nothing: everything is erased, and this is the record. Delete the object when you no longer need it",
    ),
    (
        Some(Phase::Deleting),
        "",
        "Nothing, unless the message stays the same: the cleanup is retried. See docs/operations.md, \"A deletion does not finish\"",
    ),
];

/// What to do about a tenant of this phase, whose condition Ready has this reason.
pub fn advice(phase: Option<Phase>, reason: &str) -> &'static str {
    FIXES
        .iter()
        .find(|(of, begins, _)| of.is_none_or(|of| Some(of) == phase) && reason.starts_with(begins))
        .map_or("Fix what the message names; the tenant then continues", |(_, _, fix)| fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fix_follows_from_phase_and_reason() {
        assert!(advice(Some(Phase::Failed), "PineconeCallRejected").contains("kubectl tenant retry"));
        assert!(advice(Some(Phase::Provisioning), "PineconeUnauthorized").starts_with("Fix what the message names"));
        assert!(advice(Some(Phase::Active), "NamespaceMissing").contains("Restore the namespace"));
        assert!(advice(Some(Phase::PendingPayment), "TenantIdNotOwned").contains("Move a tenant"));
        assert!(advice(None, "").starts_with("Fix what"), "before the first status");
    }
}
