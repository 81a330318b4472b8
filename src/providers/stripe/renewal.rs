//! Ends the subscription of a closed tenant with its period, and lets that of a tenant that is taken back go on.

use std::collections::HashMap;

use stripe_billing::subscription::{CancelSubscription, RetrieveSubscription, UpdateSubscription};
use stripe_client_core::StripeRequest;

use super::objects::{Identified, Subscription};
use super::{CANCEL_AT_BEFORE, CLOSED, Found, PERIOD_END, Payer, ProviderError, Stripe};
use crate::api::Timestamp;

impl Stripe {
    /// Lets every paid subscription of the tenant end with its period, cancels unpaid ones, and expires its open
    /// Checkout sessions. `closed_at` is when the tenant was closed.
    pub async fn stop_renewal(&self, payer: &Payer<'_>, closed_at: Timestamp) -> Result<(), ProviderError> {
        let Found::Customer(customer) = self.find_customer(payer).await? else { return Ok(()) };
        let subscriptions = self.last_subscriptions(payer, &customer.id).await?;
        self.correct_place(payer, &subscriptions).await?;
        for subscription in subscriptions {
            if matches!(subscription.status.as_str(), "active" | "trialing") {
                self.end_with_period(&subscription.id, closed_at).await?;
            } else {
                self.read_as::<Identified>(CancelSubscription::new(subscription.id)).await?;
            }
        }
        Ok(())
    }

    /// Expires the tenant's open Checkout sessions. A session that the customer has just completed stays as it is.
    pub async fn expire_checkout(&self, payer: &Payer<'_>) -> Result<(), ProviderError> {
        let Found::Customer(customer) = self.find_customer(payer).await? else { return Ok(()) };
        self.last_subscriptions(payer, &customer.id).await.map(drop)
    }

    /// Lets a subscription end with its period, and writes down since when its tenant is closed and which end was set
    /// before.
    async fn end_with_period(&self, subscription: &str, closed_at: Timestamp) -> Result<(), ProviderError> {
        let there: Subscription = self.read_as(RetrieveSubscription::new(subscription)).await?;
        let ends = there.ends_with_period();
        if ends && there.closed_at().is_some() {
            return Ok(());
        }
        let later = || there.cancel_at.map(|at| at.to_string()).unwrap_or_default();
        let before = if ends { PERIOD_END.to_owned() } else { later() };
        let metadata = [(CLOSED.to_owned(), closed_at.to_string()), (CANCEL_AT_BEFORE.to_owned(), before)];
        let request = UpdateSubscription::new(subscription).metadata(HashMap::from(metadata));
        // A subscription that the customer has cancelled keeps its end.
        let request = if ends { request } else { request.cancel_at_period_end(true) };
        // No idempotency key: the same value twice is the same.
        self.send::<Identified>(&request.build(), None).await.map(drop)
    }

    /// Removes the note of the closing from the metadata. Does not change the end of the subscription.
    pub async fn forget_closing(&self, subscription: &str) -> Result<(), ProviderError> {
        let request = UpdateSubscription::new(subscription).metadata(unmarked());
        self.send::<Identified>(&request.build(), None).await.map(drop)
    }

    /// Lets a subscription go on as it would have if its tenant had not been closed. One that the customer had
    /// cancelled before still ends, and an end that the customer has undone does not come back.
    pub async fn renew(&self, subscription: &str) -> Result<(), ProviderError> {
        let there: Subscription = self.read_as(RetrieveSubscription::new(subscription)).await?;
        let request = UpdateSubscription::new(subscription).metadata(unmarked());
        let before = there.metadata.as_ref().and_then(|m| m.cancel_at_before.as_deref()).unwrap_or_default();
        // No idempotency key: the same value twice is the same.
        let request = if before == PERIOD_END || !there.ends() {
            request.build()
        } else if before.is_empty() && there.cancel_at_period_end {
            request.cancel_at_period_end(false).build()
        } else {
            // Stripe takes one of `cancel_at` and `cancel_at_period_end`, and clears `cancel_at` by an empty value,
            // which the builder cannot say.
            let mut request = request.build();
            request.body = request.body.map(|body| format!("{body}&cancel_at={before}"));
            request
        };
        self.send::<Identified>(&request, None).await.map(drop)
    }
}

/// Metadata without the note of a closing. An empty value removes a key:
/// <https://docs.stripe.com/metadata#delete-metadata>
fn unmarked() -> HashMap<String, String> {
    [CLOSED, CANCEL_AT_BEFORE].into_iter().map(|key| (key.to_owned(), String::new())).collect()
}
