//! The end of a purchase: refunds and cancellations.

use std::collections::HashMap;

use serde::Deserialize;
use stripe_billing::InvoiceStatus;
use stripe_billing::invoice::ListInvoice;
use stripe_billing::invoice_payment::{ListInvoicePayment, ListInvoicePaymentStatus};
use stripe_billing::subscription::{
    CancelSubscription, RetrieveSubscription, UpdateSubscription, UpdateSubscriptionPaymentBehavior,
    UpdateSubscriptionProrationBehavior,
};
use stripe_client_core::StripeRequest;
use stripe_core::customer::DeleteCustomer;
use stripe_core::refund::{CreateRefund, ListRefund};

use super::disputes::Bank;
use super::{
    CLOSED, Found, Identified, List, PAGE, PROVIDER, Payer, ProviderError, Stripe, Subscription, observed_session,
    tenant,
};
use crate::lifecycle::{Blame, ObservedRefund};

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

#[derive(Deserialize)]
struct PaidInvoice {
    id: String,
    #[serde(default)]
    amount_paid: i64,
}

impl RefundObject {
    /// Whether the money is on its way.
    fn is_good(&self) -> bool {
        !matches!(self.status.as_deref(), Some("failed" | "canceled"))
    }
}

/// Stripe answers `charge_disputed` to a refund: <https://docs.stripe.com/error-codes>
fn disputed(intent: &str, dispute: &str) -> ProviderError {
    ProviderError {
        provider: PROVIDER,
        status: None,
        reason: "PaymentDisputed",
        message: format!(
            "the customer disputes the payment {intent}, and Stripe refuses a refund until the bank has decided. To give the \
             money back now, accept the dispute {dispute} in Stripe's dashboard"
        ),
        blame: Blame::Call,
        retryable: true,
        retry_after: None,
    }
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

    /// Whether the last payment of a subscription was given back as a whole. In a trial nothing was paid.
    pub async fn was_refunded(&self, subscription: &str) -> Result<bool, ProviderError> {
        let paid = ListInvoice::new().subscription(subscription).status(InvoiceStatus::Paid).limit(PAGE);
        let invoices: List<PaidInvoice> = self.read_as(paid).await?;
        // The newest comes first.
        let Some(invoice) = invoices.data.into_iter().find(|invoice| invoice.amount_paid > 0) else { return Ok(false) };
        let paid = ListInvoicePayment::new().invoice(invoice.id).status(ListInvoicePaymentStatus::Paid).limit(PAGE);
        let payments: List<InvoicePayment> = self.read_as(paid).await?;
        let mut returned = 0;
        for intent in payments.data.into_iter().filter_map(|payment| payment.payment.payment_intent) {
            if let Bank::Returned { amount, .. } = self.bank(&intent).await? {
                returned += amount;
            }
            returned += self.refunded(&intent).await?.amount;
        }
        Ok(returned >= invoice.amount_paid)
    }

    /// What we gave back of one payment so far.
    async fn refunded(&self, intent: &str) -> Result<ObservedRefund, ProviderError> {
        let made: List<RefundObject> = self.read_as(ListRefund::new().payment_intent(intent).limit(PAGE)).await?;
        let mut sum = ObservedRefund { amount: 0, currency: None };
        for refund in made.data.into_iter().filter(RefundObject::is_good) {
            (sum.amount, sum.currency) = (sum.amount + refund.amount, refund.currency);
        }
        Ok(sum)
    }

    /// Gives back what is left of one payment, and answers all that was ever given back of it.
    async fn refund_intent(
        &self,
        tenant_id: &str,
        intent: &str,
        paid: Option<i64>,
    ) -> Result<ObservedRefund, ProviderError> {
        // Look first: Stripe forgets an idempotency key after 24 hours.
        let ObservedRefund { amount, currency } = self.refunded(intent).await?;
        if (amount > 0 && paid.is_none()) || paid.is_some_and(|paid| amount >= paid) {
            return Ok(ObservedRefund { amount, currency });
        }
        match self.bank(intent).await? {
            Bank::Nothing => {}
            Bank::Returned { amount: returned, currency } => {
                return Ok(ObservedRefund { amount: amount + returned, currency: Some(currency) });
            }
            Bank::Holds { dispute } => return Err(disputed(intent, &dispute)),
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

    /// Lets every subscription of the tenant end with what was paid for, cancels those that are not paid for, and expires its
    /// open Checkout sessions.
    pub async fn stop_renewal(&self, payer: &Payer<'_>) -> Result<(), ProviderError> {
        let Found::Customer(customer) = self.find_customer(payer).await? else { return Ok(()) };
        let (subscriptions, sessions) = self.owned(payer, &customer.id).await?;
        self.expire(payer, sessions.into_iter().map(observed_session)).await?;
        for subscription in subscriptions.into_iter().filter(|s| !s.is_over()) {
            if matches!(subscription.status.as_str(), "active" | "trialing") {
                self.set_renewal(&subscription.id, false).await?;
            } else {
                self.read_as::<Identified>(CancelSubscription::new(subscription.id)).await?;
            }
        }
        Ok(())
    }

    /// Cancels one subscription at once.
    pub async fn end(&self, subscription: &str) -> Result<(), ProviderError> {
        self.read_as::<Identified>(CancelSubscription::new(subscription)).await.map(drop)
    }

    /// Begins a period of a paused subscription now, and charges it. Without the payment Stripe answers 402 and leaves the
    /// subscription as it was. See <https://docs.stripe.com/billing/subscriptions/billing-cycle>.
    pub async fn begin_period(&self, subscription: &str) -> Result<(), ProviderError> {
        // No idempotency key: whoever finds it paused no more does not come here.
        let mut request = UpdateSubscription::new(subscription)
            .proration_behavior(UpdateSubscriptionProrationBehavior::None)
            .payment_behavior(UpdateSubscriptionPaymentBehavior::ErrorIfIncomplete)
            .build();
        // Stripe clears a field by an empty value, and takes the anchor as a word; the builder can say neither.
        request.body = request.body.map(|body| format!("{body}&billing_cycle_anchor=now&pause_collection="));
        self.send::<Identified>(request, None).await.map(drop)
    }

    /// Lets a subscription end with its period, or go on.
    pub async fn set_renewal(&self, subscription: &str, renew: bool) -> Result<(), ProviderError> {
        let there: Subscription = self.read_as(RetrieveSubscription::new(subscription)).await?;
        // Why it ends is written down where a lost status finds it again.
        let closed: HashMap<String, String> = [(CLOSED.to_owned(), (!renew).to_string())].into();
        let request = UpdateSubscription::new(subscription).metadata(closed);
        // No idempotency key: the same value twice is the same.
        let request = match (there.cancel_at_period_end, there.cancel_at) {
            (_, None) | (true, _) => request.cancel_at_period_end(!renew).build(),
            // Stripe takes one of the two fields, and clears this one by an empty value, which the builder cannot say.
            (false, Some(_)) if renew => {
                let mut request = request.build();
                request.body = request.body.map(|body| format!("{body}&cancel_at="));
                request
            }
            // The customer cancelled it in the portal: it ends by itself.
            (false, Some(_)) => request.build(),
        };
        self.send::<Identified>(request, None).await.map(drop)
    }

    /// Cancels everything and deletes the customer, with name, address and cards. Stripe keeps the invoices, as the law
    /// wants.
    pub async fn erase(&self, payer: &Payer<'_>) -> Result<(), ProviderError> {
        self.cancel(payer).await?;
        let Found::Customer(customer) = self.find_customer(payer).await? else { return Ok(()) };
        match self.read_as::<Identified>(DeleteCustomer::new(customer.id)).await {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(()),
        }
    }

    /// How many subscriptions of the tenant are not over, and how many customers there are of it.
    pub async fn count(&self, payer: &Payer<'_>) -> Result<(u64, u64), ProviderError> {
        let Found::Customer(customer) = self.find_customer(payer).await? else { return Ok((0, 0)) };
        let (subscriptions, _) = self.owned(payer, &customer.id).await?;
        let living = subscriptions.iter().filter(|s| !s.is_over()).count();
        Ok((u64::try_from(living).unwrap_or(u64::MAX), 1))
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
        for subscription in subscriptions.into_iter().filter(|s| !s.is_over()) {
            let request = CancelSubscription::new(subscription.id);
            self.read_as::<Identified>(request).await.map(drop).or_else(gone)?;
        }
        Ok(())
    }
}
