//! Who bills what customers use. The ledger counts, the controller reports what it counted, and a biller turns it into
//! money. Nothing here knows how: `stripe/meters.rs` does it by Stripe's meters.

use async_trait::async_trait;
use strum::IntoStaticStr;

use super::ProviderError;
use crate::api::Timestamp;

/// What a biller counts of one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    /// Its id.
    pub id: String,
    /// The name that reports carry.
    pub event_name: String,
    /// The field of a report that names the customer.
    pub customer_key: String,
    /// The field of a report that holds the amount.
    pub value_key: String,
}

/// What a customer used.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// What is counted.
    pub meter: &'a Meter,
    /// The customer's id at the biller.
    pub customer: &'a str,
    /// The name of this report: 100 characters at most. The biller takes a name once within a day.
    pub identifier: &'a str,
    /// When it was used.
    pub at: Timestamp,
    /// How much.
    pub amount: i64,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Delivery {
    /// The biller has it by this call.
    New,
    /// The biller had it before.
    Before,
}

/// Bills what customers use.
#[async_trait]
pub trait Biller: std::fmt::Debug + Send + Sync {
    /// Reports usage once. If it fails, the biller may have it or not: report it again under the same identifier.
    /// Callers have one call at a time under way for a customer and a meter.
    async fn report(&self, report: &Report<'_>) -> Result<Delivery, ProviderError>;

    /// What a meter, named by its id, has of a customer, from a moment until before another one, both on full minutes. What was
    /// reported in the last minutes may be missing.
    async fn reported(
        &self,
        meter: &str,
        customer: &str,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<i64, ProviderError>;
}
