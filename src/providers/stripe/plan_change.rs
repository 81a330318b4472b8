//! Another price on the same subscription: <https://docs.stripe.com/billing/subscriptions/change-price>

use std::collections::HashMap;

use serde::Deserialize;
use stripe_billing::invoice::{RetrieveInvoice, VoidInvoiceInvoice};
use stripe_billing::subscription::{
    RetrieveSubscription, UpdateSubscription, UpdateSubscriptionItems, UpdateSubscriptionPaymentBehavior,
    UpdateSubscriptionProrationBehavior,
};

use super::objects::{Identified, Subscription, observe};
use super::{PLAN, PLAN_BEFORE, PLAN_FROM, PLAN_UNCONFIRMED, PRICE_UNCONFIRMED, ProviderError, Stripe};
use crate::lifecycle::{Fault, ObservedSubscription, Proration};

impl Stripe {
    /// Switches a subscription to another price and returns the subscription as it is then. Changes nothing if it bills
    /// that price already, so a lost answer does not charge the customer twice.
    pub async fn switch_price(
        &self,
        subscription: &str,
        (price, plan): (&str, &str),
        proration: Proration,
    ) -> Result<ObservedSubscription, ProviderError> {
        let there: Subscription = self.read_as(RetrieveSubscription::new(subscription)).await?;
        // The prices of usage stay as they are here. They follow the plan in force, by `metered_items`.
        let item = there.items.plan();
        if item.is_some_and(|item| item.price.id == price) {
            let named = observe(&there, false).plan.as_deref() == Some(plan);
            // The price of a smaller plan that is scheduled was written together with its name.
            let there =
                if named || proration == Proration::AtPeriodEnd { there } else { self.rename(there, plan).await? };
            return self.drop_pending(there).await;
        }
        if there.pending_update.as_ref().is_some_and(|pending| pending.price() == Some(price)) {
            return self.with_page(&there).await;
        }
        let mut change = UpdateSubscriptionItems::new();
        change.id = item.map(|item| item.id.clone());
        change.price = Some(price.to_owned());
        let (settled, unpaid) = behaviors(proration);
        let before = there.metadata.and_then(|m| m.plan).filter(|_| proration == Proration::AtPeriodEnd);
        let end = item.and_then(|item| item.current_period_end).filter(|_| before.is_some());
        let end = end.map(|end| end.to_string()).unwrap_or_default();
        let metadata = names(plan, &before.unwrap_or_default(), &end);
        let request = UpdateSubscription::new(subscription)
            .items([change.clone()])
            .proration_behavior(settled)
            .payment_behavior(unpaid)
            .metadata(metadata);
        // No idempotency key: the same price again changes and charges nothing, and a key would replay a card that was
        // declined after another one was entered.
        match self.read_as::<Subscription>(request).await {
            Err(e) if e.reason == Fault::ActionRequired && proration == Proration::ChargeNow => {
                self.await_confirmation(subscription, change, (price, plan)).await
            }
            changed => Ok(observe(&changed?, false)),
        }
    }

    /// Writes the plan down of a subscription whose price was switched in the customer portal or the dashboard, which
    /// write no metadata.
    async fn rename(&self, there: Subscription, plan: &str) -> Result<Subscription, ProviderError> {
        self.read_as(UpdateSubscription::new(there.id).metadata(names(plan, "", ""))).await
    }

    /// Lets the change wait at Stripe until the customer has confirmed the payment:
    /// <https://docs.stripe.com/billing/subscriptions/pending-updates>
    async fn await_confirmation(
        &self,
        subscription: &str,
        change: UpdateSubscriptionItems,
        (price, plan): (&str, &str),
    ) -> Result<ObservedSubscription, ProviderError> {
        // Stripe takes no metadata with such a change, so what it is for is written down before it.
        let metadata = strings([(PLAN_UNCONFIRMED, plan), (PRICE_UNCONFIRMED, price)]);
        self.read_as::<Identified>(UpdateSubscription::new(subscription).metadata(metadata)).await?;
        // No idempotency key: a change to this price that waits already was found before.
        let request = UpdateSubscription::new(subscription)
            .items([change])
            .proration_behavior(UpdateSubscriptionProrationBehavior::AlwaysInvoice)
            .payment_behavior(UpdateSubscriptionPaymentBehavior::PendingIfIncomplete);
        let waiting: Subscription = self.read_as(request).await?;
        self.with_page(&waiting).await
    }

    /// A subscription with the page on which the customer confirms the payment of the change that waits.
    async fn with_page(&self, waiting: &Subscription) -> Result<ObservedSubscription, ProviderError> {
        let mut observed = observe(waiting, false);
        let Some(pending) = &mut observed.unconfirmed else { return Ok(observed) };
        let invoice = waiting.latest_invoice.as_deref().unwrap_or_default();
        let hosted: HostedInvoice = self.read_as(RetrieveInvoice::new(invoice)).await?;
        pending.url = Some(hosted.hosted_invoice_url);
        Ok(observed)
    }

    /// Drops a change that waits for a confirmation, by voiding its invoice.
    async fn drop_pending(&self, there: Subscription) -> Result<ObservedSubscription, ProviderError> {
        let (Some(_), Some(invoice)) = (&there.pending_update, &there.latest_invoice) else {
            return Ok(observe(&there, false));
        };
        let voided = self.read_as::<Identified>(VoidInvoiceInvoice::new(invoice.as_str())).await;
        // Paid or voided meanwhile.
        voided.map(drop).or_else(|e| if matches!(e.status, Some(400 | 404)) { Ok(()) } else { Err(e) })?;
        let after: Subscription = self.read_as(RetrieveSubscription::new(there.id)).await?;
        Ok(ObservedSubscription { unconfirmed: None, ..observe(&after, false) })
    }
}

/// An invoice that the customer can pay:
/// <https://docs.stripe.com/api/invoices/object#invoice_object-hosted_invoice_url>
#[derive(Deserialize)]
struct HostedInvoice {
    hosted_invoice_url: String,
}

/// What Stripe does about the difference to the period that is paid for, and when its payment fails.
fn behaviors(proration: Proration) -> (UpdateSubscriptionProrationBehavior, UpdateSubscriptionPaymentBehavior) {
    match proration {
        // If the payment fails, Stripe answers 402 and leaves the subscription unchanged.
        Proration::ChargeNow => {
            (UpdateSubscriptionProrationBehavior::AlwaysInvoice, UpdateSubscriptionPaymentBehavior::ErrorIfIncomplete)
        }
        Proration::NextInvoice => {
            (UpdateSubscriptionProrationBehavior::CreateProrations, UpdateSubscriptionPaymentBehavior::AllowIncomplete)
        }
        Proration::None | Proration::AtPeriodEnd => {
            (UpdateSubscriptionProrationBehavior::None, UpdateSubscriptionPaymentBehavior::AllowIncomplete)
        }
    }
}

/// The metadata of a subscription to a plan: which one it is, and the one before it until a period ends. An empty value
/// removes a key: <https://docs.stripe.com/metadata#delete-metadata>
fn names(plan: &str, before: &str, from: &str) -> HashMap<String, String> {
    strings([(PLAN, plan), (PLAN_BEFORE, before), (PLAN_FROM, from), (PLAN_UNCONFIRMED, ""), (PRICE_UNCONFIRMED, "")])
}

fn strings<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, String> {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}
