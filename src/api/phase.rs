//! Where a tenant stands in its life, and the record of every change of that.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;

/// Where the tenant stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Waits for the customer's payment, or for an approval by hand.
    PendingPayment,
    /// Paid for; its parts are being made.
    Provisioning,
    /// Ready for use.
    Active,
    /// Moving to a larger plan.
    Upgrading,
    /// Moving to a smaller plan.
    Downgrading,
    /// Switched off for want of payment or by an admin; data is kept.
    Suspended,
    /// Provisioning was given up; `status.provisioning` says at which step and why.
    Failed,
    /// On its way out.
    Deleting,
    /// Erased.
    Deleted,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What kind of change a transition was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum EventType {
    Signup,
    Provision,
    Activate,
    Fail,
    Upgrade,
    Downgrade,
    Suspend,
    Reactivate,
    Delete,
}

/// Who asked for a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum TriggeredBy {
    User,
    System,
    Admin,
}

/// One change of phase, written in the same update as the phase itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Transition {
    /// The tenant's id.
    pub tenant_id: String,
    /// The kind of change.
    pub event_type: EventType,
    /// The phase before; absent for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_state: Option<Phase>,
    /// The phase after.
    pub to_state: Phase,
    /// When it happened.
    pub timestamp: Timestamp,
    /// Who asked for it.
    pub triggered_by: TriggeredBy,
    /// Why, in one sentence.
    pub reason: String,
    /// Grows by one with each transition of this tenant.
    pub seq: i64,
}
