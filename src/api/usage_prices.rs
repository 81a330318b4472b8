//! What a Plan charges for use beyond its price, and how far usage was sent to Stripe.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

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
    /// Usage that was not sent when the tenant got another subscription, which has no price for its unit. It is sent once
    /// the subscription has one, or dropped if a person says so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub waiting: Vec<WaitingUsage>,
    /// The units of which Stripe's meter has another number than was sent, as of the last comparison.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub differences: Vec<UsageDifference>,
    /// What a person decided last of usage that differed or waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<UsageDecision>,
}

/// Usage that waits for a price.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitingUsage {
    /// The Stripe subscription under which it was counted.
    pub subscription: Text,
    /// What the ledger closed before this time waits. Later usage is billed only from the hour of a new price on.
    pub until: Timestamp,
    /// How much waits.
    pub amount: i64,
    /// How far it was sent.
    pub usage: MeteredUsage,
}

/// A unit of which Stripe has another number than was sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageDifference {
    /// The unit.
    pub unit: Unit,
    /// What was sent since `since` of the unit's entry in `meters`.
    pub sent: i64,
    /// What waits in closed hours.
    pub unsent: i64,
    /// What Stripe's meter has.
    pub at_stripe: i64,
}

/// What a person decided of usage that differed or waited.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageDecision {
    /// What is kept.
    pub keep: KeptUsage,
    /// The unit.
    pub unit: Unit,
    /// The ledger's number: what was sent, or what waited.
    pub ledger: i64,
    /// Stripe's number.
    pub stripe: i64,
    /// When the controller carried it out.
    pub at: Timestamp,
}

/// Whose number the customer pays.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, strum::Display, strum::EnumString,
)]
#[strum(serialize_all = "lowercase")]
pub enum KeptUsage {
    /// Stripe's number stands: nothing is sent for the difference.
    Stripe,
    /// The ledger's number stands: the controller sends the difference to Stripe, once.
    Ledger,
    /// Usage that waits for a price is dropped.
    Nothing,
}

/// What a person decides of one unit, by the numbers that were shown: other numbers are another decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageChoice {
    /// What is kept.
    pub keep: KeptUsage,
    /// The unit.
    pub unit: Unit,
    /// The ledger's number: what was sent, or what waits.
    pub ledger: i64,
    /// Stripe's number.
    pub stripe: i64,
    /// When the person decided. The same numbers can differ again later, and are decided anew.
    pub at: Timestamp,
}

impl UsageChoice {
    /// The value of the annotation that says so of one object.
    pub fn annotation(&self, uid: &str) -> String {
        let Self { keep, unit, ledger, stripe, at } = self;
        format!("{keep}.{}.{ledger}.{stripe}.{}.{uid}", unit.in_plans(), at.as_second())
    }

    /// Reads the annotation of an object.
    pub fn read(value: &str, uid: &str) -> Option<Self> {
        let mut parts = value.splitn(6, '.');
        let (keep, unit) = (parts.next()?.parse().ok()?, serde_json::from_value(json!(parts.next()?)).ok()?);
        let (ledger, stripe) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let at = Timestamp::from_second(parts.next()?.parse().ok()?);
        (parts.next()? == uid).then_some(Self { keep, unit, ledger, stripe, at })
    }

    /// That it was carried out: after it was decided, also where the clock of the person's machine is ahead.
    pub fn done(&self, at: Timestamp) -> UsageDecision {
        let Self { keep, unit, ledger, stripe, at: decided } = *self;
        UsageDecision { keep, unit, ledger, stripe, at: at.max(decided) }
    }

    /// Whether this is what was carried out.
    pub fn is(&self, decision: &UsageDecision) -> bool {
        self.done(decision.at) == *decision
    }
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
    /// Hours that no price bills: between what an earlier subscription had left and this price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpriced: Option<Unpriced>,
}

/// Hours that no price bills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Unpriced {
    /// The first of them.
    pub from: Timestamp,
    /// The first hour after them.
    pub until: Timestamp,
}

impl Unpriced {
    /// Whether an hour is one of them.
    pub fn holds(&self, hour: Timestamp) -> bool {
        (self.from..self.until).contains(&hour)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_of_one_object_and_its_numbers() {
        let choice = UsageChoice {
            keep: KeptUsage::Ledger,
            unit: Unit::PromptTokens,
            ledger: 120,
            stripe: -7,
            at: Timestamp::from_second(9),
        };
        let said = choice.annotation("uid-1");
        assert_eq!(said, "ledger.promptTokens.120.-7.9.uid-1");
        assert_eq!(UsageChoice::read(&said, "uid-1"), Some(choice));
        assert_eq!(UsageChoice::read(&said, "uid-2"), None, "a Tenant that was restored from a backup");
        for wrong in ["", "all.promptTokens.1.1.1.uid-1", "stripe.words.1.1.1.uid-1", "stripe.queries.1.1.uid-1"] {
            assert_eq!(UsageChoice::read(wrong, "uid-1"), None, "{wrong}");
        }
        let done = choice.done(Timestamp::from_second(1));
        assert!(choice.is(&done) && !UsageChoice { stripe: 8, ..choice }.is(&done));
        let later = UsageChoice { at: Timestamp::from_second(10), ..choice };
        assert!(!later.is(&done) && later.is(&later.done(Timestamp::from_second(11))), "decided again");
    }
}
