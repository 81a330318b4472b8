//! The end of a purchase: refunds and cancellations.

use serde::Deserialize;
use stripe_billing::InvoiceStatus;
use stripe_billing::invoice::ListInvoice;
use stripe_billing::invoice_payment::{ListInvoicePayment, ListInvoicePaymentStatus};
use stripe_billing::subscription::CancelSubscription;
use stripe_core::refund::{CreateRefund, ListRefund};

use super::{Found, Identified, List, PAGE, Payer, ProviderError, Stripe, observed_session, tenant};
use crate::lifecycle::ObservedRefund;

#[derive(Deserialize)]
struct InvoicePayment {
    payment: Payment,
    #[serde(default)]
    amount_paid: Option<i64>,
}
#[derive(Deserialize)]
struct Payment {
    payment_intent: Option<String>,
}
#[derive(Deserialize)]
struct RefundObject {
    #[serde(default)]
    amount: i64,
    currency: Option<String>,
    status: Option<String>,
}

impl Stripe {
    /// Gives back every payment of a subscription that was not given back yet, and answers the whole sum.
    pub async fn refund(&self, tenant_id: &str, subscription: &str) -> Result<ObservedRefund, ProviderError> {
        let paid = ListInvoice::new().subscription(subscription).status(InvoiceStatus::Paid).limit(PAGE);
        let invoices: List<Identified> = self.read_as(paid).await?;
        let mut whole = ObservedRefund { amount: 0, currency: None };
        for invoice in invoices.data {
            let paid = ListInvoicePayment::new().invoice(invoice.id).status(ListInvoicePaymentStatus::Paid).limit(PAGE);
            let payments: List<InvoicePayment> = self.read_as(paid).await?;
            for payment in payments.data {
                let Some(intent) = payment.payment.payment_intent else { continue };
                let done = self.refund_intent(tenant_id, &intent, payment.amount_paid).await?;
                whole.amount += done.amount;
                whole.currency = done.currency.or(whole.currency);
            }
        }
        Ok(whole)
    }

    /// Gives back what is left of one payment, and answers all that was ever given back of it.
    async fn refund_intent(
        &self,
        tenant_id: &str,
        intent: &str,
        paid: Option<i64>,
    ) -> Result<ObservedRefund, ProviderError> {
        // Look first: Stripe forgets an idempotency key after 24 hours.
        let made: List<RefundObject> = self.read_as(ListRefund::new().payment_intent(intent).limit(PAGE)).await?;
        let good = |r: &&RefundObject| !matches!(r.status.as_deref(), Some("failed" | "canceled"));
        let (mut amount, mut currency) = (0, None);
        for refund in made.data.iter().filter(good) {
            amount += refund.amount;
            currency.clone_from(&refund.currency);
        }
        if (amount > 0 && paid.is_none()) || paid.is_some_and(|paid| amount >= paid) {
            return Ok(ObservedRefund { amount, currency });
        }
        // Without an amount, Stripe refunds what is left.
        let request = CreateRefund::new().payment_intent(intent).metadata(tenant(tenant_id));
        let key = match amount {
            0 => format!("{tenant_id}-refund-{intent}"),
            before => format!("{tenant_id}-refund-{intent}-after-{before}"),
        };
        let rest: RefundObject = self.once(request, &key).await?;
        Ok(ObservedRefund { amount: amount + rest.amount, currency: rest.currency.or(currency) })
    }

    /// Cancels every subscription of the tenant and expires its open Checkout sessions. What belongs to somebody else
    /// is left alone.
    pub async fn cancel(&self, payer: &Payer<'_>) -> Result<(), ProviderError> {
        let gone = |e: ProviderError| if e.is_not_found() { Ok(()) } else { Err(e) };
        let Found::Customer(customer) = self.find_customer(payer).await? else { return Ok(()) };
        let (subscriptions, sessions) = match self.owned(payer, &customer.id).await {
            Err(e) if e.is_not_found() => return Ok(()),
            other => other?,
        };
        self.expire(payer, sessions.into_iter().map(observed_session)).await?;
        for subscription in
            subscriptions.into_iter().filter(|s| !matches!(s.status.as_str(), "canceled" | "incomplete_expired"))
        {
            let request = CancelSubscription::new(subscription.id);
            self.read_as::<Identified>(request).await.map(drop).or_else(gone)?;
        }
        Ok(())
    }
}
