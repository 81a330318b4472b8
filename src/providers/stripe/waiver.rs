//! Refunds that a person settles outside of the operator, as the subscription remembers them. To Stripe, such a payment
//! still stands: without a note, the next run of attempts would charge nothing, and refund the payment if it failed.

use std::collections::{BTreeSet, HashMap};

use stripe_billing::subscription::{RetrieveSubscription, UpdateSubscription};
use stripe_client_core::StripeRequest;

use super::objects::{Identified, Subscription};
use super::{ProviderError, Stripe, WAIVED};

impl Stripe {
    /// Notes that a person settles the refund of the last paid period, if the invoice that they name was paid for it. The
    /// note is the subscription's metadata, so it outlives a status that is lost or restored. If they name another one, or
    /// none, answers an invoice that they can name, and notes nothing.
    pub async fn waive_refund(&self, subscription: &str, named: Option<&str>) -> Result<Option<String>, ProviderError> {
        let paid = self.last_period(subscription).await?;
        let is_named = paid.iter().any(|due| Some(&*due.invoice) == named);
        let new: Vec<_> = paid.into_iter().filter(|due| !due.waived).map(|due| due.invoice).collect();
        // Nothing was paid, or all of it is noted.
        let Some(first) = new.first() else { return Ok(None) };
        if !is_named {
            return Ok(Some(first.clone()));
        }
        let mut invoices = self.waived(subscription).await?;
        invoices.extend(new);
        let list = invoices.into_iter().collect::<Vec<_>>().join(",");
        let request = UpdateSubscription::new(subscription).metadata(HashMap::from([(WAIVED.to_owned(), list)]));
        // No idempotency key: the same value twice is the same.
        self.send::<Identified>(&request.build(), None).await?;
        Ok(None)
    }

    /// The invoices of a subscription whose refund a person settles.
    pub(super) async fn waived(&self, subscription: &str) -> Result<BTreeSet<String>, ProviderError> {
        let there: Subscription = self.read_as(RetrieveSubscription::new(subscription)).await?;
        let noted = there.metadata.and_then(|metadata| metadata.waived_refund).unwrap_or_default();
        Ok(noted.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect())
    }
}
