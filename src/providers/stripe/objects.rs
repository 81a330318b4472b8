//! Stripe's objects, as far as they are read: <https://docs.stripe.com/api>.

use std::collections::HashMap;

use serde::Deserialize;

use crate::api::Timestamp;
use crate::api::usage::Cycle;
use crate::lifecycle::{ObservedSession, ObservedSubscription, SessionState, UnconfirmedPrice};

/// A page of a list.
#[derive(Deserialize)]
pub struct List<T> {
    #[serde(default = "Vec::new")]
    pub data: Vec<T>,
    #[serde(default)]
    pub has_more: bool,
}

/// What the operator writes to an object: see the keys beside the client.
#[derive(Deserialize, Default)]
pub struct Metadata {
    #[serde(default)]
    pub tenant_id: Option<String>,
    #[serde(default)]
    pub attempt: Option<String>,
    #[serde(default)]
    pub plan: Option<String>,
    #[serde(default)]
    pub plan_unconfirmed: Option<String>,
    #[serde(default)]
    pub price_unconfirmed: Option<String>,
    #[serde(default)]
    pub closed: Option<String>,
    #[serde(default)]
    pub cancel_at_before: Option<String>,
    #[serde(default)]
    pub waived_refund: Option<String>,
    #[serde(default)]
    pub api_key_generation: Option<String>,
    #[serde(default)]
    pub plan_before: Option<String>,
    #[serde(default)]
    pub plan_from: Option<String>,
    #[serde(default)]
    pub tenant_namespace: Option<String>,
    #[serde(default)]
    pub tenant_name: Option<String>,
    /// Keys that are made of what they are about.
    #[serde(flatten)]
    pub other: HashMap<String, String>,
}

impl Metadata {
    /// The plan of a subscription that bills this price.
    pub fn plan_of(&self, price: Option<&str>) -> Option<String> {
        let confirmed = price.is_some() && self.price_unconfirmed.as_deref() == price;
        if confirmed { self.plan_unconfirmed.clone() } else { self.plan.clone() }
    }
}

/// <https://docs.stripe.com/api/customers/object>
#[derive(Deserialize)]
pub struct Customer {
    pub id: String,
    /// Stripe answers 200 with this for a customer that was deleted in the dashboard.
    #[serde(default)]
    pub deleted: bool,
    #[serde(default)]
    pub metadata: Metadata,
    #[serde(default)]
    pub invoice_settings: InvoiceSettings,
}

/// How a customer pays invoices.
#[derive(Deserialize, Default)]
pub struct InvoiceSettings {
    pub default_payment_method: Option<serde_json::Value>,
}

/// A Checkout session: <https://docs.stripe.com/api/checkout/sessions/object>
#[derive(Deserialize)]
pub struct Session {
    pub id: String,
    pub url: Option<String>,
    pub status: Option<String>,
    #[serde(default)]
    pub expires_at: i64,
    pub metadata: Option<Metadata>,
}

/// <https://docs.stripe.com/api/subscriptions/object>
#[derive(Deserialize)]
pub struct Subscription {
    pub id: String,
    pub status: String,
    pub metadata: Option<Metadata>,
    pub default_payment_method: Option<serde_json::Value>,
    pub pause_collection: Option<serde_json::Value>,
    pub trial_end: Option<i64>,
    #[serde(default)]
    pub pending_update: Option<PendingUpdate>,
    #[serde(default)]
    pub latest_invoice: Option<String>,
    #[serde(default)]
    pub customer: Option<String>,
    #[serde(default)]
    pub cancel_at_period_end: bool,
    /// The portal sets this one on subscriptions of the flexible billing mode:
    /// <https://docs.stripe.com/billing/subscriptions/cancel>
    #[serde(default)]
    pub cancel_at: Option<i64>,
    #[serde(default)]
    pub items: Items,
    #[serde(default)]
    pub billing_cycle_anchor: Option<i64>,
    #[serde(default)]
    pub canceled_at: Option<i64>,
    #[serde(default)]
    pub ended_at: Option<i64>,
    #[serde(default)]
    pub billing_mode: Option<BillingMode>,
}

/// <https://docs.stripe.com/billing/subscriptions/billing-mode>
#[derive(Deserialize)]
pub struct BillingMode {
    /// classic or flexible.
    #[serde(rename = "type")]
    pub type_: String,
}

impl Subscription {
    /// Whether it is over for good.
    pub fn is_over(&self) -> bool {
        matches!(self.status.as_str(), "canceled" | "incomplete_expired")
    }

    /// Whether it ends on a day that is set.
    pub fn ends(&self) -> bool {
        self.cancel_at_period_end || self.cancel_at.is_some()
    }

    /// Whether Stripe begins no further period. One that ends on a later day is billed until then.
    pub fn ends_with_period(&self) -> bool {
        let end = self.items.plan().and_then(|item| item.current_period_end);
        self.cancel_at_period_end || self.cancel_at.zip(end).is_some_and(|(at, end)| at <= end)
    }

    /// When its tenant was closed, unless it was taken back since. Earlier versions wrote `true` and `false`: a closing
    /// without a time counts as older than every request to come back.
    pub fn closed_at(&self) -> Option<Timestamp> {
        match self.metadata.as_ref()?.closed.as_deref()? {
            "" | "false" => None,
            closed => Some(closed.parse().unwrap_or(Timestamp::from_second(0))),
        }
    }
}

/// A change that waits for its payment:
/// <https://docs.stripe.com/api/subscriptions/object#subscription_object-pending_update>
#[derive(Deserialize)]
pub struct PendingUpdate {
    pub expires_at: i64,
    #[serde(default)]
    pub subscription_items: Option<Vec<PendingItem>>,
}

impl PendingUpdate {
    pub fn price(&self) -> Option<&str> {
        plan_item(self.subscription_items.as_ref()?, |item| &item.price).map(|item| item.price.id.as_str())
    }
}

#[derive(Deserialize)]
pub struct PendingItem {
    pub price: Price,
}

/// What a subscription bills.
#[derive(Deserialize, Default)]
pub struct Items {
    #[serde(default)]
    pub data: Vec<Item>,
}

impl Items {
    /// The item that bills the plan.
    pub fn plan(&self) -> Option<&Item> {
        plan_item(&self.data, |item| &item.price)
    }
}

/// The item that bills the plan, among those that bill usage: Stripe promises no order. The plan's price is the one
/// that is not metered; a second such price, which a person added in the dashboard, comes after it.
fn plan_item<T>(items: &[T], price: impl Fn(&T) -> &Price) -> Option<&T> {
    items.iter().find(|item| !price(item).is_metered()).or(items.first())
}

#[derive(Deserialize)]
pub struct Item {
    pub id: String,
    pub price: Price,
    #[serde(default)]
    pub created: i64,
    #[serde(default)]
    pub current_period_start: Option<i64>,
    #[serde(default)]
    pub current_period_end: Option<i64>,
}

/// The price of an item.
#[derive(Deserialize)]
pub struct Price {
    pub id: String,
    #[serde(default)]
    pub recurring: Option<Recurring>,
}

impl Price {
    /// Whether it bills what a meter counts.
    pub fn is_metered(&self) -> bool {
        self.recurring.as_ref().is_some_and(Recurring::is_metered)
    }
}

/// How a price recurs: <https://docs.stripe.com/api/prices/object#price_object-recurring>
#[derive(Deserialize)]
pub struct Recurring {
    #[serde(default)]
    usage_type: Option<String>,
    #[serde(default)]
    meter: Option<String>,
}

impl Recurring {
    fn is_metered(&self) -> bool {
        self.usage_type.as_deref() == Some("metered")
    }

    /// The meter of a price that bills what it counts.
    pub fn metered(&self) -> Option<&str> {
        self.meter.as_deref().filter(|_| self.is_metered())
    }
}

/// An object of which only the id is read.
#[derive(Deserialize)]
pub struct Identified {
    pub id: String,
}

/// What a subscription says to the lifecycle.
pub fn observe(s: &Subscription, customer_has_method: bool) -> ObservedSubscription {
    let item = s.items.plan();
    let end = item.and_then(|i| i.current_period_end);
    // Written with the change, and past when the next period has begun.
    let waits = |m: &&Metadata| m.plan_from.is_some() && m.plan_from == end.map(|end| end.to_string());
    let set = |value: &Option<serde_json::Value>| value.as_ref().is_some_and(|v| !v.is_null());
    ObservedSubscription {
        period_ends_at: end.map(Timestamp::from_second),
        cycle: s.billing_cycle_anchor.zip(item.and_then(|i| i.current_period_start)).map(|(anchor, start)| Cycle {
            anchor: Timestamp::from_second(anchor),
            period_start: Timestamp::from_second(start),
        }),
        plan_before: s.metadata.as_ref().filter(waits).and_then(|m| m.plan_before.clone()),
        price: item.map(|i| i.price.id.clone()),
        billed_plan: None,
        unconfirmed: s.pending_update.as_ref().and_then(|pending| {
            let (price, expires_at) = (pending.price()?.to_owned(), Timestamp::from_second(pending.expires_at));
            Some(UnconfirmedPrice { price, url: None, expires_at })
        }),
        ends: s.ends() && s.closed_at().is_some(),
        closed_at: s.closed_at(),
        elsewhere: false,
        renews: !s.is_over() && !s.ends_with_period(),
        id: s.id.clone(),
        status: s.status.clone(),
        payment_method: customer_has_method || set(&s.default_payment_method),
        paused: set(&s.pause_collection),
        plan: s.metadata.as_ref().and_then(|m| m.plan_of(item.map(|i| i.price.id.as_str()))),
        trial_ends_at: s.trial_end.map(Timestamp::from_second),
    }
}

/// What a Checkout session says to the lifecycle.
pub fn observed_session(s: Session) -> ObservedSession {
    ObservedSession {
        id: s.id,
        url: s.url,
        state: match s.status.as_deref() {
            Some("complete") => SessionState::Complete,
            Some("expired") => SessionState::Expired,
            _ => SessionState::Open,
        },
        expires_at: Timestamp::from_second(s.expires_at),
        attempt: s.metadata.as_ref().and_then(|m| m.attempt.as_ref()?.parse().ok()).unwrap_or(1),
        plan: s.metadata.and_then(|m| m.plan),
        elsewhere: false,
    }
}
