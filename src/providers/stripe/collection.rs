//! Whether Stripe collects on a subscription: <https://docs.stripe.com/billing/subscriptions/pause-payment>

use std::collections::HashMap;

use serde::Deserialize;
use stripe_billing::InvoiceStatus;
use stripe_billing::invoice::{ListInvoice, UpdateInvoice};
use stripe_billing::subscription::{
    UpdateSubscription, UpdateSubscriptionPauseCollection, UpdateSubscriptionPauseCollectionBehavior,
};
use stripe_client_core::StripeRequest;

use super::{Identified, PAGE, ProviderError, Stripe};

#[derive(Deserialize)]
struct UnpaidInvoice {
    id: String,
    /// Why it was made: <https://docs.stripe.com/api/invoices/object#invoice_object-billing_reason>
    #[serde(default)]
    billing_reason: Option<String>,
    /// Whether Stripe tries to collect it by itself: <https://docs.stripe.com/invoicing/automatic-collection>
    #[serde(default)]
    auto_advance: Option<bool>,
}

impl Stripe {
    /// Stops or starts collecting on a subscription. A pause holds for the invoices that come; Stripe goes on trying to collect
    /// those that are there already, so that is stopped as well. The customer can still pay those that are open.
    pub async fn set_collection(&self, subscription: &str, paused: bool) -> Result<(), ProviderError> {
        // The pause comes last: where it is seen, the retries are stopped.
        self.set_retries(subscription, !paused).await?;
        // No idempotency key: the same value twice is the same, and a key would answer "paused" again after a resume.
        let void = UpdateSubscriptionPauseCollection::new(UpdateSubscriptionPauseCollectionBehavior::Void);
        let request = UpdateSubscription::new(subscription);
        let request = if paused {
            request.pause_collection(void).build()
        } else {
            // Stripe clears a field by an empty value, which the builder cannot say.
            request.build().form(&HashMap::from([("pause_collection", "")]))
        };
        self.send::<Identified>(&request, None).await?;
        Ok(())
    }

    async fn set_retries(&self, subscription: &str, on: bool) -> Result<(), ProviderError> {
        // A renewal is a draft for about an hour before it is collected: <https://docs.stripe.com/invoicing/automatic-collection>.
        // Drafts of other kinds were made by a person, who collects them. Drafts are read first: one that is finalized meanwhile is
        // among the open invoices then.
        let mut unpaid = self.unpaid(subscription, InvoiceStatus::Draft).await?;
        unpaid.retain(|invoice| invoice.billing_reason.as_deref() == Some("subscription_cycle"));
        unpaid.extend(self.unpaid(subscription, InvoiceStatus::Open).await?);
        for invoice in unpaid.into_iter().filter(|invoice| invoice.auto_advance != Some(on)) {
            // No idempotency key: the same value twice is the same.
            let changed = self.read_as::<Identified>(UpdateInvoice::new(invoice.id).auto_advance(on)).await;
            match changed {
                // Paid or voided meanwhile.
                Err(e) if matches!(e.status, Some(400 | 404)) => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    async fn unpaid(&self, subscription: &str, status: InvoiceStatus) -> Result<Vec<UnpaidInvoice>, ProviderError> {
        let page = |after: Option<&str>| {
            let request = ListInvoice::new().subscription(subscription).status(status.clone()).limit(PAGE);
            match after {
                Some(after) => request.starting_after(after),
                None => request,
            }
        };
        self.all(page, |invoice: &UnpaidInvoice| &invoice.id).await
    }
}
