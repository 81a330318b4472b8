//! The metered prices on a subscription: which ones there are, and how they are replaced.

use std::collections::HashMap;

use serde::Deserialize;
use stripe_billing::InvoiceStatus;
use stripe_billing::invoice::ListInvoice;
use stripe_billing::subscription::RetrieveSubscription;
use stripe_client_core::{RequestBuilder, StripeMethod};

use super::invoice_lines::Lines;
use super::meter_notes::MeterNotes;
use super::objects::{Identified, Item, List, Subscription};
use super::{PAGE, ProviderError, Stripe};
use crate::api::Timestamp;

/// Seconds before its end after which a draft counts as final: what is sent then may come too late.
const MARGIN: i64 = 300;

/// A subscription, as far as usage is billed by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageSubscription {
    /// `sub_...`
    pub id: String,
    /// The customer.
    pub customer: String,
    /// The tenant that it says it is for.
    pub tenant_id: Option<String>,
    /// Since when it is over.
    pub ended_at: Option<Timestamp>,
    /// Whether usage of a price that is replaced is billed.
    pub flexible: bool,
    /// Whether a change waits for its payment. Stripe takes no other one meanwhile.
    pub pending: bool,
    /// When the present period began.
    pub period_start: Timestamp,
    /// The items with a metered price.
    pub items: Vec<MeteredItem>,
    /// The meters that usage was sent to.
    pub notes: MeterNotes,
}

/// An item with a metered price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeteredItem {
    /// `si_...`
    pub id: String,
    /// The price.
    pub price: String,
    /// The meter.
    pub meter: String,
    /// Since when the price is on the subscription.
    pub created: Timestamp,
}

impl MeteredItem {
    fn of(item: &Item) -> Option<Self> {
        let meter = item.price.recurring.as_ref()?.metered()?.to_owned();
        let created = Timestamp::from_second(item.created);
        Some(Self { id: item.id.clone(), price: item.price.id.clone(), meter, created })
    }
}

impl UsageSubscription {
    fn of(there: Subscription) -> Self {
        let start = there.items.plan().and_then(|item| item.current_period_start).unwrap_or_default();
        Self {
            ended_at: there.ended_at.or(there.canceled_at).filter(|_| there.is_over()).map(Timestamp::from_second),
            flexible: there.billing_mode.as_ref().is_some_and(|mode| mode.type_ == "flexible"),
            pending: there.pending_update.is_some(),
            period_start: Timestamp::from_second(start),
            items: there.items.data.iter().filter_map(MeteredItem::of).collect(),
            customer: there.customer.unwrap_or_default(),
            tenant_id: there.metadata.as_ref().and_then(|metadata| metadata.tenant_id.clone()),
            notes: MeterNotes::of(there.metadata),
            id: there.id,
        }
    }
}

/// The draft of a renewal, which counts usage until it is final.
#[derive(Deserialize)]
struct Draft {
    id: String,
    #[serde(default)]
    billing_reason: Option<String>,
    #[serde(default)]
    automatically_finalizes_at: Option<i64>,
    #[serde(default)]
    lines: Lines,
}

impl Draft {
    /// Whether it still takes usage.
    fn is_open(&self, now: Timestamp) -> bool {
        let renewal = self.billing_reason.as_deref() == Some("subscription_cycle");
        let final_at = self.automatically_finalizes_at.unwrap_or(0);
        renewal && final_at - MARGIN > now.as_second()
    }
}

impl Stripe {
    /// A subscription as it is now.
    pub async fn usage_subscription(&self, id: &str) -> Result<UsageSubscription, ProviderError> {
        self.read_as::<Subscription>(RetrieveSubscription::new(id)).await.map(UsageSubscription::of)
    }

    /// The times before the present period whose usage is still billed, because their invoice is a draft.
    pub async fn open_drafts(
        &self,
        subscription: &str,
        now: Timestamp,
    ) -> Result<Vec<(Timestamp, Timestamp)>, ProviderError> {
        let request = ListInvoice::new().subscription(subscription).status(InvoiceStatus::Draft).limit(PAGE);
        let drafts: List<Draft> = self.read_as(request).await?;
        let mut open = Vec::new();
        for mut draft in drafts.data.into_iter().filter(|draft| draft.is_open(now)) {
            self.complete(&draft.id, &mut draft.lines).await?;
            let at = Timestamp::from_second;
            open.extend(draft.lines.spans().map(|span| (at(span.start), at(span.end))));
        }
        Ok(open)
    }

    /// Moves a subscription to the flexible billing mode, if it is in the classic one.
    pub async fn make_flexible(&self, there: &UsageSubscription) -> Result<(), ProviderError> {
        if there.flexible {
            return Ok(());
        }
        let form = HashMap::from([("billing_mode[type]", "flexible")]);
        let path = format!("/subscriptions/{}/migrate", there.id);
        let migrate = RequestBuilder::new(StripeMethod::Post, path).form(&form);
        self.send::<Identified>(&migrate, None).await.map(drop)
    }

    /// Takes metered prices off a subscription, and puts others on it, in one call. The price of the plan stays.
    ///
    /// What was used at a price that goes is billed at it: in the flexible billing mode, Stripe makes an invoice item
    /// of the usage so far, unless `proration_behavior` is `none`
    /// (<https://docs.stripe.com/billing/subscriptions/usage-based/manage-billing-setup#update-prices-mid-cycle>). The
    /// classic mode drops it, so callers [make an older subscription flexible](Self::make_flexible) first. The item of
    /// a price is deleted and another one made, and not changed in its place, so that its `created` tells from when on
    /// the new price bills.
    pub async fn replace_metered(
        &self,
        there: &UsageSubscription,
        gone: &[&MeteredItem],
        new: &[&str],
    ) -> Result<UsageSubscription, ProviderError> {
        let mut form = HashMap::from([("proration_behavior".to_owned(), "create_prorations")]);
        for (number, item) in gone.iter().enumerate() {
            form.insert(format!("items[{number}][id]"), &*item.id);
            form.insert(format!("items[{number}][deleted]"), "true");
        }
        for (number, price) in new.iter().enumerate() {
            form.insert(format!("items[{}][price]", gone.len() + number), price);
        }
        // No idempotency key: a second call finds no item to delete, or a price that is there, and is refused.
        let change = RequestBuilder::new(StripeMethod::Post, format!("/subscriptions/{}", there.id)).form(&form);
        self.send::<Subscription>(&change, None).await.map(UsageSubscription::of)
    }
}
