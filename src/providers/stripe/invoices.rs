//! What a customer was billed.

use serde::{Deserialize, Serialize};
use stripe_billing::invoice::ListInvoice;

use super::{Found, Payer, ProviderError, Stripe};

/// An invoice, as a reference to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoice {
    /// `in_...`
    pub id: String,
    /// The number that the customer sees.
    #[serde(default)]
    pub number: Option<String>,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// Stripe's word: draft, open, paid, uncollectible or void.
    #[serde(default)]
    pub status: Option<String>,
    /// The sum, in the smallest unit of the currency.
    #[serde(default)]
    pub amount_due: i64,
    /// What was paid of it.
    #[serde(default)]
    pub amount_paid: i64,
    /// The currency.
    #[serde(default)]
    pub currency: Option<String>,
}

impl Stripe {
    /// Every invoice of the tenant's customer, newest first.
    pub async fn invoices(&self, payer: &Payer<'_>) -> Result<Vec<Invoice>, ProviderError> {
        let Found::Customer(customer) = self.find_customer(payer).await? else { return Ok(Vec::new()) };
        let page = |after: Option<&str>| {
            let request = ListInvoice::new().customer(&customer.id).limit(super::PAGE);
            match after {
                Some(after) => request.starting_after(after),
                None => request,
            }
        };
        self.all(page, |invoice: &Invoice| &invoice.id).await
    }
}
