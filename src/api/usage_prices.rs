//! What a Plan charges for use beyond its price, and how far usage was sent to Stripe.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quota::{LARGEST, Unit};
use super::{Text, Timestamp};

/// A Stripe price for what a tenant uses of one unit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsagePrice {
    /// The unit that is billed. Each unit may be listed once. `documents` and `bytes` cannot be billed by usage: they
    /// are what is stored at the moment, and not what was used in a period.
    #[x_kube(validation = ("self != 'documents' && self != 'bytes'", "unit must be queries, promptTokens, completionTokens, embeddingTokens or embeddedBytes: what is stored cannot be billed by usage"))]
    pub unit: Unit,
    /// The Stripe price of the unit, such as `price_1PgafmB7WZ01zgkW6dKueIc5`: a monthly price with
    /// `recurring.usage_type: metered`, whose meter adds up (`sum`). Each unit needs a meter of its own. Plans may
    /// share meters.
    #[x_kube(validation = ("self.startsWith('price_')", "stripePriceId must be a Stripe price id, which starts with price_"))]
    #[schemars(length(max = 120))]
    pub stripe_price_id: Text,
    /// Whole units of each billing period that the plan's price covers. If it is above 0, the Stripe price must have
    /// graduated tiers, whose first tier ends here and costs nothing: the controller sends all usage, and Stripe
    /// charges what is beyond.
    #[serde(default)]
    #[schemars(range(min = 0, max = LARGEST))]
    pub included: i64,
}

/// How far usage was sent to Stripe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UsageBilling {
    /// The Stripe subscription that bills the usage.
    pub subscription: Text,
    /// One entry for each metered price of the subscription.
    #[schemars(length(max = 20))]
    pub meters: Vec<MeteredUsage>,
    /// When the metered prices of the subscription are replaced with those of the plan in force, if they differ: after
    /// a full hour, so that each hour has one price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace_at: Option<Timestamp>,
    /// Whether usage was left that no subscription bills. The condition `UsageBilled` named it, and a person invoices it
    /// by hand: a later subscription does not bill it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub invoice_by_hand: bool,
}

/// How far the usage of one unit was sent to Stripe.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeteredUsage {
    /// The unit.
    pub unit: Unit,
    /// The Stripe price.
    #[schemars(length(max = 120))]
    pub price: Text,
    /// The Stripe meter.
    #[schemars(length(max = 120))]
    pub meter: Text,
    /// The first hour that this price bills.
    pub since: Timestamp,
    /// All hours that the ledger closed before this time were sent.
    pub through: Timestamp,
    /// What was sent of all hours from `since` until before `through`.
    pub sent: i64,
}
