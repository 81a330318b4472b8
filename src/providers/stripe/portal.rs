//! The customer portal: invoices, payment methods and cancellation on Stripe's own pages.

use serde::Deserialize;
use stripe_billing::billing_portal_session::CreateBillingPortalSession;

use super::{Found, Payer, Stripe, foreign};
use crate::providers::ProviderError;

#[derive(Deserialize)]
struct PortalSession {
    url: String,
}

impl Stripe {
    /// Where this customer manages payments, for a few minutes; None for a tenant without a customer at Stripe. A
    /// restricted key is enough: it reads customers and writes customer portal sessions.
    pub async fn portal(&self, payer: &Payer<'_>) -> Result<Option<String>, ProviderError> {
        let customer = match self.find_customer(payer).await? {
            Found::Customer(customer) => customer,
            Found::NoCustomer | Found::Deleted => return Ok(None),
            Found::Foreign { id, .. } => return Err(foreign(&id)),
        };
        let back = format!("{}/account", self.config.frontend_url);
        let request = CreateBillingPortalSession::new().customer(customer.id).return_url(back);
        // No idempotency key: each visit gets a link of its own, and an old one would be used up.
        Ok(Some(self.read_as::<PortalSession>(request).await?.url))
    }
}
