//! The end of a purchase: refunds and cancellations.

use std::collections::HashMap;

use serde::Deserialize;
use stripe_billing::InvoiceStatus;
use stripe_billing::invoice::ListInvoice;
use stripe_billing::invoice_payment::{ListInvoicePayment, ListInvoicePaymentStatus};
use stripe_billing::subscription::{
    CancelSubscription, ListSubscription, UpdateSubscription, UpdateSubscriptionPaymentBehavior,
    UpdateSubscriptionProrationBehavior,
};
use stripe_client_core::StripeRequest;
use stripe_core::customer::{DeleteCustomer, UpdateCustomer};
use stripe_core::refund::{CreateRefund, ListRefund};

use super::disputes::Bank;
use super::invoice_lines::Lines;
use super::objects::{Identified, List, Subscription, observed_session};
use super::{
    Found, KEY_GENERATION, PAGE, PROVIDER, Payer, ProviderError, Stripe, TENANT_ID, TENANT_NAME, TENANT_NAMESPACE,
    tenant,
};
use crate::lifecycle::{Blame, Fault, ObservedRefund};

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

/// The fields of <https://docs.stripe.com/api/invoices/object> that say what was paid for which time.
#[derive(Deserialize)]
struct PaidInvoice {
    id: String,
    #[serde(default)]
    amount_paid: i64,
    #[serde(default)]
    currency: String,
    #[serde(default)]
    lines: Lines,
}

impl PaidInvoice {
    fn ends(&self) -> impl Iterator<Item = i64> {
        self.lines.spans().map(|period| period.end)
    }

    /// The part of the payment for the period that ends at that moment. Lines of earlier periods, such as the
    /// prorations of a plan change that is billed with the renewal, are for time that was served.
    fn paid_until(&self, end: i64) -> i64 {
        if !self.ends().any(|there| there == end) {
            return 0;
        }
        let earlier = self.lines.iter().filter(|line| line.period.as_ref().is_some_and(|period| period.end < end));
        let earlier: i64 = earlier.map(|line| line.amount).sum();
        (self.amount_paid - earlier.max(0)).max(0)
    }
}

/// A payment, and the amount of it that is for the period to refund.
pub(super) struct Due {
    pub(super) invoice: String,
    intent: String,
    amount: i64,
    currency: String,
    /// Whether a person settles its refund outside of the operator.
    pub(super) waived: bool,
}

impl Due {
    /// The amount that the customer's bank has returned. A dispute in another currency cannot be compared, and counts
    /// as the whole amount.
    fn returned(&self, bank: &Bank) -> i64 {
        let comparable = bank.currency.as_ref().is_none_or(|currency| *currency == self.currency);
        if comparable { bank.returned } else { self.amount }
    }
}

/// The refunds that were made of one payment: <https://docs.stripe.com/refunds#refund-object>
#[derive(Default)]
struct Made {
    /// Stripe has given it back.
    succeeded: i64,
    /// Stripe is still giving it back, or waits for the customer's bank details.
    pending: i64,
    /// How many did not reach the customer; Stripe has put that money back on the balance.
    failed: usize,
    currency: Option<String>,
}

impl Made {
    fn of(refunds: Vec<RefundObject>) -> Self {
        refunds.into_iter().fold(Self::default(), |mut made, refund| {
            match refund.status.as_deref() {
                Some("failed" | "canceled") => made.failed += 1,
                Some("pending" | "requires_action") => made.pending += refund.amount,
                _ => made.succeeded += refund.amount,
            }
            made.currency = made.currency.or(refund.currency);
            made
        })
    }
}

/// Refunds of one payment that may fail before an admin has to act.
const FAILED_REFUNDS: usize = 3;

fn unsettled(reason: Fault, blame: Blame, message: String) -> ProviderError {
    ProviderError {
        provider: PROVIDER,
        status: None,
        reason,
        message,
        blame,
        retryable: true,
        retry_after: None,
        tokens: None,
    }
}

/// Stripe answers `charge_disputed` to a refund: <https://docs.stripe.com/error-codes>
fn disputed(intent: &str, dispute: &str) -> ProviderError {
    unsettled(
        Fault::PaymentDisputed,
        Blame::Call,
        format!(
            "the customer disputes the payment {intent}, and Stripe refuses a refund until the bank has decided. To give the \
             money back now, accept the dispute {dispute} in Stripe's dashboard"
        ),
    )
}

/// A refund fails if the customer's account is closed or its bank refuses:
/// <https://docs.stripe.com/refunds#failed-refunds>
fn refund_failed(intent: &str) -> ProviderError {
    unsettled(
        Fault::RefundFailed,
        Blame::Call,
        format!(
            "{FAILED_REFUNDS} refunds of the payment {intent} did not reach the customer. Refund it in Stripe's dashboard once \
             the customer's bank accepts it"
        ),
    )
}

/// A new charge before the earlier refund is certain could charge twice.
fn refund_pending(intent: &str) -> ProviderError {
    unsettled(
        Fault::RefundPending,
        Blame::Admin,
        format!("the refund of the payment {intent} is not completed; the next period is charged once it is"),
    )
}

/// What Stripe holds of a tenant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Holdings {
    /// Its subscriptions that are not over.
    pub subscriptions: u64,
    /// Its customers.
    pub customers: u64,
    /// The customers that its spec names and that are not its own, because they pay for something else.
    pub kept_customers: u64,
}

impl Stripe {
    /// Refunds the last paid period, and returns the whole sum. Earlier periods were served: a subscription is paused
    /// as soon as its tenant fails, so no later period is paid. Leaves out payments whose refund a person settles.
    pub async fn refund(&self, tenant_id: &str, subscription: &str) -> Result<ObservedRefund, ProviderError> {
        let mut whole = ObservedRefund::default();
        let mut problem = None;
        for due in self.last_period(subscription).await? {
            if due.waived {
                whole.waived += due.amount;
                continue;
            }
            match self.give_back(tenant_id, &due).await {
                Ok(done) => {
                    (whole.amount, whole.pending) = (whole.amount + done.amount, whole.pending + done.pending);
                    whole.currency = done.currency.or(whole.currency);
                }
                // The other payments are refunded all the same.
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        problem.map_or(Ok(whole), Err)
    }

    /// The invoice of the newest payment of the last paid period, if that period is fully refunded, or its refund is a
    /// person's to settle. None in a trial, which has no payment.
    pub async fn refunded_period(&self, subscription: &str) -> Result<Option<String>, ProviderError> {
        let paid = self.last_period(subscription).await?;
        for due in paid.iter().filter(|due| !due.waived) {
            let made = self.made(&due.intent).await?;
            if made.succeeded >= due.amount {
                continue;
            }
            if made.succeeded + due.returned(&self.bank(&due.intent).await?) >= due.amount {
                continue;
            }
            if made.pending > 0 {
                return Err(refund_pending(&due.intent));
            }
            return Ok(None);
        }
        Ok(paid.into_iter().next().map(|due| due.invoice))
    }

    /// Whether the last paid period is refunded, or its refund is on the way.
    pub async fn was_refunded(&self, subscription: &str) -> Result<bool, ProviderError> {
        match self.refunded_period(subscription).await {
            Err(error) if error.reason == Fault::RefundPending => Ok(true),
            other => other.map(|invoice| invoice.is_some()),
        }
    }

    /// The payments for the last period of a subscription, newest first: its invoice, and those of plan changes within
    /// it.
    pub(super) async fn last_period(&self, subscription: &str) -> Result<Vec<Due>, ProviderError> {
        let paid = ListInvoice::new().subscription(subscription).status(InvoiceStatus::Paid).limit(PAGE);
        let mut invoices: List<PaidInvoice> = self.read_as(paid).await?;
        for invoice in &mut invoices.data {
            self.complete(&invoice.id, &mut invoice.lines).await?;
        }
        // A trial's invoice of 0 counts as a period too, so what was paid before the trial is not refunded.
        let Some(end) = invoices.data.iter().flat_map(PaidInvoice::ends).max() else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        let waived = self.waived(subscription).await?;
        for invoice in invoices.data {
            let mut left = invoice.paid_until(end);
            if left == 0 {
                continue;
            }
            let paid =
                ListInvoicePayment::new().invoice(&invoice.id).status(ListInvoicePaymentStatus::Paid).limit(PAGE);
            let payments: List<InvoicePayment> = self.read_as(paid).await?;
            for payment in payments.data {
                let Some(intent) = payment.payment.payment_intent else { continue };
                let amount = payment.amount_paid.unwrap_or(left).min(left);
                left -= amount;
                if amount > 0 {
                    let (id, currency) = (invoice.id.clone(), invoice.currency.clone());
                    all.push(Due { waived: waived.contains(&id), invoice: id, intent, amount, currency });
                }
            }
        }
        Ok(all)
    }

    async fn made(&self, intent: &str) -> Result<Made, ProviderError> {
        let made: List<RefundObject> = self.read_as(ListRefund::new().payment_intent(intent).limit(PAGE)).await?;
        Ok(Made::of(made.data))
    }

    /// Refunds the rest of one payment, and returns everything that was refunded of it, by us or by the customer's
    /// bank.
    async fn give_back(&self, tenant_id: &str, due: &Due) -> Result<ObservedRefund, ProviderError> {
        // Look first: Stripe forgets an idempotency key after 24 hours.
        let made = self.made(&due.intent).await?;
        let given = made.succeeded + made.pending;
        if given >= due.amount {
            let Made { succeeded: amount, pending, currency, .. } = made;
            return Ok(ObservedRefund { amount, pending, currency, waived: 0 });
        }
        let bank = self.bank(&due.intent).await?;
        if let Some(dispute) = bank.holds {
            return Err(disputed(&due.intent, &dispute));
        }
        let returned = due.returned(&bank);
        let (amount, currency) = (made.succeeded + returned, made.currency.or(Some(due.currency.clone())));
        // A bank may return only a part: the rest is ours to refund.
        let rest = due.amount - given - returned;
        if rest <= 0 {
            return Ok(ObservedRefund { amount, pending: made.pending, currency, waived: 0 });
        }
        if made.failed >= FAILED_REFUNDS {
            return Err(refund_failed(&due.intent));
        }
        let request = CreateRefund::new().payment_intent(&due.intent).amount(rest).metadata(tenant(tenant_id));
        let key = format!("{tenant_id}-refund-{}-after-{given}-{}", due.intent, made.failed);
        let done: RefundObject = self.once(request, &key).await?;
        let currency = done.currency.clone().or(currency);
        let done = Made::of(vec![done]);
        if done.failed > 0 {
            return Err(refund_failed(&due.intent));
        }
        let (amount, pending) = (amount + done.succeeded, made.pending + done.pending);
        Ok(ObservedRefund { amount, pending, currency, waived: 0 })
    }

    /// Expires the tenant's open Checkout sessions, and lists its subscriptions that are not over. A customer can pay a
    /// session until it expires, so the subscriptions are listed afterwards: Stripe answers 400 to the expiry of a
    /// session that was just paid, and its subscription is in the list.
    pub(super) async fn last_subscriptions(
        &self,
        payer: &Payer<'_>,
        customer: &str,
    ) -> Result<Vec<Subscription>, ProviderError> {
        let (_, sessions) = self.owned(payer, customer).await?;
        self.expire(payer, sessions.into_iter().map(observed_session)).await?;
        let (mut subscriptions, _) = self.owned(payer, customer).await?;
        subscriptions.retain(|s| !s.is_over());
        Ok(subscriptions)
    }

    /// Cancels one subscription at once.
    pub async fn end(&self, subscription: &str) -> Result<(), ProviderError> {
        self.read_as::<Identified>(CancelSubscription::new(subscription)).await.map(drop)
    }

    /// Begins and charges a new period of a paused subscription now, after the refunded one. If the payment fails,
    /// Stripe answers 402 and leaves the subscription unchanged. See
    /// <https://docs.stripe.com/billing/subscriptions/billing-cycle>.
    pub async fn begin_period(&self, subscription: &str, refunded: &str) -> Result<(), ProviderError> {
        let mut request = UpdateSubscription::new(subscription)
            .proration_behavior(UpdateSubscriptionProrationBehavior::None)
            .payment_behavior(UpdateSubscriptionPaymentBehavior::ErrorIfIncomplete)
            .build();
        // Stripe clears a field by an empty value, and takes the anchor as a word; the builder can say neither.
        request.body = request.body.map(|body| format!("{body}&billing_cycle_anchor=now&pause_collection="));
        self.keyed::<Identified>(&request, &format!("{subscription}-period-after-{refunded}")).await.map(drop)
    }

    /// Cancels everything and deletes the customer, with name, address and cards. Stripe keeps the invoices, as the law
    /// wants. A customer who pays for something else as well is kept, without the metadata that names the tenant.
    pub async fn erase(&self, payer: &Payer<'_>) -> Result<(), ProviderError> {
        self.cancel(payer).await?;
        let Found::Customer(customer) = self.find_customer(payer).await? else { return Ok(()) };
        // Stripe cancels every subscription of a customer that is deleted. One that is not this tenant's pays for
        // something else.
        if self.pays_for_others(payer, &customer.id).await? {
            tracing::warn!(
                tenant = payer.tenant_id,
                customer = customer.id,
                "the customer has subscriptions that are not this tenant's, and is kept"
            );
            return self.disown(&customer.id).await;
        }
        match self.read_as::<Identified>(DeleteCustomer::new(customer.id)).await {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(()),
        }
    }

    /// Whether a customer has subscriptions that are not over and not this tenant's.
    async fn pays_for_others(&self, payer: &Payer<'_>, customer: &str) -> Result<bool, ProviderError> {
        let all: List<Subscription> = self.read_as(ListSubscription::new().customer(customer).limit(PAGE)).await?;
        let other =
            |s: &Subscription| s.metadata.as_ref().and_then(|m| m.tenant_id.as_deref()) != Some(payer.tenant_id);
        Ok(all.data.iter().any(|s| !s.is_over() && other(s)))
    }

    /// Removes everything that names the tenant from a customer's metadata.
    async fn disown(&self, customer: &str) -> Result<(), ProviderError> {
        // An empty value removes a key: <https://docs.stripe.com/metadata#delete-metadata>
        let names = [TENANT_ID, TENANT_NAMESPACE, TENANT_NAME, KEY_GENERATION];
        let metadata: HashMap<String, String> = names.map(|key| (key.to_owned(), String::new())).into();
        self.read_as::<Identified>(UpdateCustomer::new(customer).metadata(metadata)).await.map(drop)
    }

    /// What Stripe holds of the tenant.
    pub async fn count(&self, payer: &Payer<'_>) -> Result<Holdings, ProviderError> {
        let customer = match self.find_customer(payer).await? {
            Found::Customer(customer) => customer,
            Found::Foreign { .. } => return Ok(Holdings { kept_customers: 1, ..Holdings::default() }),
            Found::NoCustomer | Found::Deleted => return Ok(Holdings::default()),
        };
        let (subscriptions, _) = self.owned(payer, &customer.id).await?;
        let living = subscriptions.iter().filter(|s| !s.is_over()).count();
        Ok(Holdings { subscriptions: u64::try_from(living).unwrap_or(u64::MAX), customers: 1, kept_customers: 0 })
    }

    /// Cancels every subscription of the tenant and expires its open Checkout sessions. Does not touch those of other
    /// tenants or another site.
    pub async fn cancel(&self, payer: &Payer<'_>) -> Result<(), ProviderError> {
        let gone = |e: ProviderError| if e.is_not_found() { Ok(()) } else { Err(e) };
        let Found::Customer(customer) = self.find_customer(payer).await? else { return Ok(()) };
        let subscriptions = match self.last_subscriptions(payer, &customer.id).await {
            Err(e) if e.is_not_found() => return Ok(()),
            other => other?,
        };
        for subscription in subscriptions {
            let request = CancelSubscription::new(subscription.id);
            self.read_as::<Identified>(request).await.map(drop).or_else(gone)?;
        }
        Ok(())
    }
}
