//! Whether Stripe collects on a subscription: <https://docs.stripe.com/billing/subscriptions/pause-payment>

use std::collections::HashMap;

use serde::Deserialize;
use stripe_billing::InvoiceStatus;
use stripe_billing::invoice::{ListInvoice, RetrieveInvoice, UpdateInvoice};
use stripe_billing::subscription::{
    RetrieveSubscription, UpdateSubscription, UpdateSubscriptionPauseCollection,
    UpdateSubscriptionPauseCollectionBehavior,
};
use stripe_client_core::StripeRequest;

use super::invoice_lines::Lines;
use super::objects::{Identified, Subscription};
use super::{PAGE, ProviderError, Stripe};

/// Metadata key of a draft whose collection the operator has stopped.
const STOPPED: &str = "collection_stopped";

#[derive(Deserialize)]
struct UnpaidInvoice {
    id: String,
    /// Why it was made: <https://docs.stripe.com/api/invoices/object#invoice_object-billing_reason>
    #[serde(default)]
    billing_reason: Option<String>,
    /// Whether Stripe tries to collect it by itself: <https://docs.stripe.com/invoicing/automatic-collection>
    #[serde(default)]
    auto_advance: Option<bool>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    metadata: Option<Marks>,
    #[serde(default)]
    lines: Lines,
}

#[derive(Deserialize)]
struct Marks {
    #[serde(default)]
    collection_stopped: Option<String>,
}

impl UnpaidInvoice {
    fn is_draft(&self) -> bool {
        self.status.as_deref() == Some("draft")
    }

    /// Whether Stripe is to collect it again. A draft was stopped by the operator, or it is not the operator's to
    /// start; and the customer was not served in a period before the present one.
    fn resumable(&self, period_end: Option<i64>) -> bool {
        let stopped = self.metadata.as_ref().is_some_and(|m| m.collection_stopped.as_deref() == Some("true"));
        let ends = self.lines.spans().map(|period| period.end).max();
        !self.is_draft() || (stopped && ends >= period_end)
    }
}

impl Stripe {
    /// Stops or starts collecting on a subscription. A pause at Stripe holds for future invoices only, and Stripe goes
    /// on trying to collect the open ones, so this stops those retries as well. The customer can still pay an open
    /// invoice.
    pub async fn set_collection(&self, subscription: &str, paused: bool) -> Result<(), ProviderError> {
        // The pause comes last, so that a pause proves that the retries are stopped.
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
        // A renewal that began after the invoices were read, and before the pause.
        if paused { self.set_retries(subscription, false).await } else { Ok(()) }
    }

    async fn set_retries(&self, subscription: &str, on: bool) -> Result<(), ProviderError> {
        // A renewal is a draft for about an hour before it is collected:
        // <https://docs.stripe.com/invoicing/automatic-collection>. Drafts of other kinds were made by a person, who
        // collects them. Drafts are read first: one that is finalized meanwhile is among the open invoices then.
        let mut unpaid = self.unpaid(subscription, InvoiceStatus::Draft).await?;
        unpaid.retain(|invoice| invoice.billing_reason.as_deref() == Some("subscription_cycle"));
        unpaid.extend(self.unpaid(subscription, InvoiceStatus::Open).await?);
        let stopped = on && unpaid.iter().any(UnpaidInvoice::is_draft);
        let there: Option<Subscription> =
            if stopped { Some(self.read_as(RetrieveSubscription::new(subscription)).await?) } else { None };
        // Only of a draft do the lines matter, and only where it is to be collected again.
        for draft in unpaid.iter_mut().filter(|invoice| on && invoice.is_draft()) {
            self.complete(&draft.id, &mut draft.lines).await?;
        }
        let period_end = there.and_then(|s| s.items.plan()?.current_period_end);
        let differs =
            |invoice: &UnpaidInvoice| invoice.auto_advance != Some(on) && (!on || invoice.resumable(period_end));
        for invoice in unpaid.into_iter().filter(differs) {
            let mut request = UpdateInvoice::new(&*invoice.id).auto_advance(on);
            if invoice.is_draft() {
                let mark = if on { String::new() } else { "true".to_owned() };
                request = request.metadata(HashMap::from([(STOPPED.to_owned(), mark)]));
            }
            // No idempotency key: the same value twice is the same.
            if let Err(refused) = self.read_as::<Identified>(request).await {
                self.settled_meanwhile(&invoice.id, refused).await?;
            }
        }
        Ok(())
    }

    /// Stripe refuses the change of an invoice that was paid, voided or deleted meanwhile. Every other refusal is an
    /// error.
    async fn settled_meanwhile(&self, invoice: &str, refused: ProviderError) -> Result<(), ProviderError> {
        match refused.status {
            Some(404) => Ok(()),
            Some(400) => {
                let there: UnpaidInvoice = self.read_as(RetrieveInvoice::new(invoice)).await?;
                let unpaid = matches!(there.status.as_deref(), None | Some("draft" | "open"));
                if unpaid { Err(refused) } else { Ok(()) }
            }
            _ => Err(refused),
        }
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
