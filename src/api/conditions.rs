//! Conditions in the shape of `metav1.Condition`, read by `kubectl wait` and kstatus.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::Display;

use super::{Text, Timestamp};

/// All steps done and the tenant usable.
pub const READY: &str = "Ready";
/// The controller is still working towards the spec.
pub const RECONCILING: &str = "Reconciling";
/// Nothing changes until an admin or the customer acts.
pub const STALLED: &str = "Stalled";
/// The subscription is paid or in trial with a payment method, or billing by hand is approved.
pub const PAYMENT_RECEIVED: &str = "PaymentReceived";
/// The customer proved to read the e-mail address of the signup.
pub const EMAIL_VERIFIED: &str = "EmailVerified";
/// The namespace of the tenant's data is usable.
pub const NAMESPACE_READY: &str = "NamespaceReady";
/// The API-key Secret is there.
pub const API_KEY_READY: &str = "ApiKeyReady";
/// The sample documents were seen by a query.
pub const SAMPLE_DATA_READY: &str = "SampleDataReady";
/// Stripe answers for this tenant; set once it did not.
pub const BILLING_READY: &str = "BillingReady";
/// The tenant id in the spec is this object's own. Set if another object claims the id too.
pub const IDENTITY_VERIFIED: &str = "IdentityVerified";
/// The welcome e-mail was handed to the mail server.
pub const WELCOME_EMAIL_SENT: &str = "WelcomeEmailSent";
/// The Plan named in the spec exists.
pub const PLAN_FOUND: &str = "PlanFound";
/// The plan of the spec is in force; set once another one was asked for.
pub const PLAN_IN_FORCE: &str = "PlanInForce";
/// Stripe bills the price of the plan in force; set once it billed another one.
pub const PRICE_AS_PLANNED: &str = "PriceAsPlanned";
/// Stripe has the usage of all hours that are over; set for tenants with usage prices.
pub const USAGE_BILLED: &str = "UsageBilled";
/// The ledger answers and has all usage of the period; set once it did not.
pub const USAGE_COUNTED: &str = "UsageCounted";
/// Stripe bills one subscription for the tenant; set once there was a second one.
pub const SINGLE_SUBSCRIPTION: &str = "SingleSubscription";
/// The customer disputes a payment at their bank; set once one was.
pub const PAYMENT_DISPUTED: &str = "PaymentDisputed";
/// Provisioning takes longer than normal.
pub const SLOW: &str = "Slow";
/// The payment for a tenant that could not be served was refunded.
pub const REFUNDED: &str = "Refunded";
/// Nothing is charged for a tenant that an admin suspended.
pub const COLLECTION_PAUSED: &str = "CollectionPaused";
/// The subscription of a tenant that leaves is not renewed, or it ends although the tenant is open.
pub const RENEWAL_STOPPED: &str = "RenewalStopped";
/// Everything of a tenant that left is erased; set once that is due.
pub const ERASED: &str = "Erased";
/// All documents are embedded with the model that was asked for last; set once another one was.
pub const DATA_MIGRATED: &str = "DataMigrated";
/// One namespace holds the tenant's documents; set once another one did.
pub const DATA_IN_ONE_PLACE: &str = "DataInOnePlace";
/// The export that was asked for last is complete.
pub const EXPORT_READY: &str = "ExportReady";
/// A decision waits for `kubectl tenant confirm`, because too many tenants would meet it at once.
pub const HELD: &str = "Held";
/// The provider resources of a deleted tenant are gone.
pub const CLEANED_UP: &str = "CleanedUp";

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, Display, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

/// One aspect of the tenant's state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// The aspect, such as Ready or `NamespaceReady`.
    #[serde(rename = "type")]
    pub type_: Text,
    /// True, False or Unknown.
    pub status: ConditionStatus,
    /// The reason, as one word for programs.
    pub reason: Text,
    /// The reason, as a sentence for people.
    pub message: Text,
    /// When `status` last changed.
    pub last_transition_time: Timestamp,
    /// The generation of the spec that this condition describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

impl Condition {
    /// Whether another one has the same status and reason. The message may differ.
    pub fn says_what(&self, other: &Self) -> bool {
        (self.status, &self.reason) == (other.status, &other.reason)
    }
}

/// Sets a condition in place; `lastTransitionTime` moves only when the status does.
pub fn set(list: &mut Vec<Condition>, mut new: Condition) {
    match list.iter_mut().find(|c| c.type_ == new.type_) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time;
            }
            *old = new;
        }
        // Ready comes first, because people look for it.
        None if new.type_ == READY => list.insert(0, new),
        None => list.push(new),
    }
}

/// Sets a condition unless the list says so already. Returns whether it did: what changes beside it is no reason to
/// write.
pub fn show(list: &mut Vec<Condition>, new: Condition) -> bool {
    let shown = get(list, &new.type_).is_some_and(|there| there.says_what(&new) && there.message == new.message);
    if !shown {
        set(list, new);
    }
    !shown
}

/// The condition of that type, if it was ever set.
pub fn get<'a>(list: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    list.iter().find(|c| c.type_ == type_)
}

/// Whether the condition of that type is True.
pub fn is_true(list: &[Condition], type_: &str) -> bool {
    get(list, type_).is_some_and(|c| c.status == ConditionStatus::True)
}
