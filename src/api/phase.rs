//! A tenant's phase, and the record of every change of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString};

use super::{Text, Timestamp};

/// The tenant's phase.
#[derive(
    Clone,
    Copy,
    Debug,
    Display,
    EnumIter,
    EnumString,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum Phase {
    /// Waiting for the customer's payment, or for manual approval.
    PendingPayment,
    /// Paid or approved; the tenant's resources are being created.
    Provisioning,
    /// Ready for use.
    Active,
    /// Moving to a larger plan.
    Upgrading,
    /// Moving to a smaller plan.
    Downgrading,
    /// Not served, because of a missing payment or an admin's suspension. Data is kept.
    Suspended,
    /// Provisioning failed. `status.provisioning` names the step and the reason.
    Failed,
    /// Being deleted.
    Deleting,
    /// Erased; the record is kept.
    Deleted,
}

impl Phase {
    /// Whether questions are answered.
    pub const fn is_served(self) -> bool {
        matches!(self, Self::Active | Self::Upgrading | Self::Downgrading)
    }
}

/// The kind of a transition.
#[derive(Clone, Copy, Debug, Display, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
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

/// Who caused a transition.
#[derive(Clone, Copy, Debug, Display, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
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
    /// The previous phase; absent for the first transition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_state: Option<Phase>,
    /// The new phase.
    pub to_state: Phase,
    /// When it happened.
    pub timestamp: Timestamp,
    /// Who caused it.
    pub triggered_by: TriggeredBy,
    /// Why, in one sentence.
    pub reason: Text,
    /// The number of the transition; it increases by one with each transition of this tenant.
    pub seq: i64,
}
