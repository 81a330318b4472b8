//! The facts of a status that take one of a few values. The controller decides by them; conditions show them and are
//! not read back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use super::Timestamp;

/// Why a tenant is suspended, which decides how it is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SuspendedFor {
    /// A payment is missing. The tenant is resumed when the customer pays the open invoices.
    Payment,
    /// The subscription has ended. The tenant is resumed when the customer subscribes again.
    End,
    /// The customer disputes a payment at the bank. The tenant is resumed when the dispute is won or accepted.
    Dispute,
    /// An admin suspended the tenant, and an admin resumes it.
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

/// What a tenant waits for before it is provisioned, the first time or again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Awaiting {
    /// What it waits for.
    pub what: Awaited,
    /// When the wait began.
    pub since: Timestamp,
}

/// What a tenant can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Awaited {
    /// The customer must pay at the payment link.
    Payment,
    /// The payment link has expired, and the customer must request a new one.
    LinkRequest,
    /// The customer has paid, and the payment is being processed.
    Processing,
    /// An admin must approve the contract.
    Approval,
    /// There is no room for another tenant. The payment link is created once there is.
    Capacity,
    /// The customer must confirm the e-mail address. The payment link is created afterwards.
    Confirmation,
    /// The customer has paid and must still confirm the e-mail address.
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

/// A change that the brake holds, because too many tenants would be affected at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The change.
    pub harm: Harm,
    /// When the brake began to hold the change.
    pub since: Timestamp,
}

/// A harmful change that must not happen to many tenants at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Harm {
    /// The controller suspends the tenant.
    Suspend,
    /// The controller gives up on the tenant and refunds it.
    Fail,
    /// The tenant is closed, and its data is erased after the retention of its plan.
    Close,
    /// The tenant's data is erased.
    Erase,
}

/// The state of a payment dispute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, IntoStaticStr)]
pub enum DisputeState {
    /// The bank has not decided yet.
    Open,
    /// The bank decided for the customer and returned the payment.
    Lost,
}

impl DisputeState {
    /// The reason in the condition `PaymentDisputed`.
    pub fn reason(self) -> &'static str {
        self.into()
    }
}
