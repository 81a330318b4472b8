//! Another price on the same subscription: <https://docs.stripe.com/billing/subscriptions/change-price>

use std::collections::HashMap;

use stripe_billing::subscription::{
    RetrieveSubscription, UpdateSubscription, UpdateSubscriptionItems, UpdateSubscriptionPaymentBehavior,
    UpdateSubscriptionProrationBehavior,
};

use super::{PLAN, PLAN_BEFORE, PLAN_FROM, ProviderError, Stripe, Subscription, observe};
use crate::lifecycle::{ObservedSubscription, Proration};

impl Stripe {
    /// Bills another price on a subscription, and answers the subscription as it is then. One that bills it already is left
    /// alone, so that an answer that was lost charges nobody twice.
    pub async fn switch_price(
        &self,
        subscription: &str,
        (price, plan): (&str, &str),
        proration: Proration,
    ) -> Result<ObservedSubscription, ProviderError> {
        let there: Subscription = self.read_as(RetrieveSubscription::new(subscription)).await?;
        let item = there.items.data.first();
        if item.is_some_and(|item| item.price.id == price) {
            return Ok(observe(&there, false));
        }
        let mut change = UpdateSubscriptionItems::new();
        change.id = item.map(|item| item.id.clone());
        change.price = Some(price.to_owned());
        let (settled, unpaid) = match proration {
            // Without the payment Stripe answers 402 and leaves the subscription as it was.
            Proration::ChargeNow => (
                UpdateSubscriptionProrationBehavior::AlwaysInvoice,
                UpdateSubscriptionPaymentBehavior::ErrorIfIncomplete,
            ),
            Proration::NextInvoice => (
                UpdateSubscriptionProrationBehavior::CreateProrations,
                UpdateSubscriptionPaymentBehavior::AllowIncomplete,
            ),
            Proration::None | Proration::AtPeriodEnd => {
                (UpdateSubscriptionProrationBehavior::None, UpdateSubscriptionPaymentBehavior::AllowIncomplete)
            }
        };
        let before = there.metadata.and_then(|m| m.plan).filter(|_| proration == Proration::AtPeriodEnd);
        let end = item.and_then(|item| item.current_period_end).filter(|_| before.is_some());
        // An empty value removes a key: <https://docs.stripe.com/metadata#delete-metadata>
        let end = end.map(|end| end.to_string()).unwrap_or_default();
        let metadata = [(PLAN, plan), (PLAN_BEFORE, &before.unwrap_or_default()), (PLAN_FROM, &end)];
        let metadata: HashMap<_, _> = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let request = UpdateSubscription::new(subscription)
            .items([change])
            .proration_behavior(settled)
            .payment_behavior(unpaid)
            .metadata(metadata);
        // No idempotency key: the same price again changes and charges nothing, and a key would replay a card that was
        // declined after another one was entered.
        let changed: Subscription = self.read_as(request).await?;
        Ok(observe(&changed, false))
    }
}
