//! What the controller remembers of a tenant from one reconcile to the next, where that is one of a few. Conditions show these facts and
//! are not read back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;

/// Why a tenant is suspended, and so what brings it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SuspendedFor {
    /// A payment is missing. The customer pays the open invoices.
    Payment,
    /// The subscription has ended. The customer subscribes again.
    End,
    /// The customer disputes a payment at their bank.
    Dispute,
    /// An admin suspended it, and ends that.
    Admin,
}

impl SuspendedFor {
    /// The reason in the condition Ready.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Payment => "PaymentMissing",
            Self::End => "SubscriptionEnded",
            Self::Dispute => "PaymentDisputed",
            Self::Admin => "SuspendedByAdmin",
        }
    }
}

/// What a tenant waits for before it is set up, or set up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Awaiting {
    /// What it waits for.
    pub what: Awaited,
    /// Since when it waits for that.
    pub since: Timestamp,
}

/// What a tenant can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Awaited {
    /// The customer pays at the payment link.
    Payment,
    /// The customer asks for a new payment link.
    LinkRequest,
    /// The customer has paid, and the payment is on its way.
    Processing,
    /// An admin approves the contract.
    Approval,
    /// There is no room for another tenant. The payment link follows once there is.
    Capacity,
    /// The customer confirms the e-mail address. The payment link follows.
    Confirmation,
    /// The customer has paid, and confirms the e-mail address.
    ConfirmationOfPaid,
}

impl Awaited {
    /// The reason in the conditions Ready and `PaymentReceived`.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Payment => "AwaitingPayment",
            Self::LinkRequest => "LinkOnRequest",
            Self::Processing => "PaymentProcessing",
            Self::Approval => "AwaitingApproval",
            Self::Capacity => "CapacityMissing",
            Self::Confirmation | Self::ConfirmationOfPaid => "AwaitingVerification",
        }
    }
}

/// A change that the brake holds, because it would meet too many tenants at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The change.
    pub harm: Harm,
    /// Since when it is held.
    pub since: Timestamp,
}

/// A harmful change that must not happen to many tenants at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Harm {
    /// The controller suspends the tenant.
    Suspend,
    /// The controller gives up on the tenant and refunds it.
    Fail,
    /// The tenant is closed, and erased after its retention.
    Close,
    /// The tenant's data is erased.
    Erase,
}

/// Where the dispute of a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DisputeState {
    /// The bank has not decided.
    Open,
    /// The bank gave the payment back to the customer.
    Lost,
}

impl DisputeState {
    /// The reason in the condition `PaymentDisputed`.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Open => "Open",
            Self::Lost => "Lost",
        }
    }
}
