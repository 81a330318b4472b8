//! Reads Stripe's subscriptions of all tenants, and its events since a moment. Both come 100 a page.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stripe_billing::subscription::ListSubscription;
use stripe_client_core::StripeRequest;
use stripe_core::event::ListEvent;
use stripe_types::RangeQueryTs;

use super::objects::{List, Subscription, observe};
use super::{PAGE, ProviderError, Stripe};
use crate::lifecycle::{ObservedSubscription, Provider};

/// Seconds before the newest event that are read again with each look. Stripe shows events some seconds late and out of
/// order, so an older event may appear after a newer one was read.
const OVERLAP: i64 = 300;
/// The types of events that say something of a tenant.
const TYPES: [&str; 8] = [
    "checkout.session.completed",
    "checkout.session.expired",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "refund.updated",
    "refund.failed",
];

/// Up to where events were read: Stripe's time of the newest one, and the events of the last minutes before it.
#[derive(Clone, Debug, Default)]
pub struct EventCursor {
    newest: i64,
    /// Their times, by id.
    seen: HashMap<String, i64>,
}

impl EventCursor {
    /// From when on events are read.
    fn from(&self) -> i64 {
        (self.newest - OVERLAP).max(0)
    }

    /// Notes an event. False if it was noted before.
    fn note(&mut self, id: String, created: i64) -> bool {
        self.newest = self.newest.max(created);
        self.seen.insert(id, created).is_none()
    }

    /// Forgets the events that are not read again.
    fn trim(&mut self) {
        let from = self.from();
        self.seen.retain(|_, created| *created >= from);
    }
}

/// A subscription of a tenant.
#[derive(Clone, Debug)]
pub struct OwnedSubscription {
    /// The tenant.
    pub tenant_id: String,
    /// The namespace of its Tenant.
    pub namespace: Option<String>,
    /// The name of its Tenant.
    pub name: Option<String>,
    /// As it is.
    pub subscription: ObservedSubscription,
}

/// What an event says of a tenant.
#[derive(Clone, Debug)]
pub enum StripeEvent {
    /// A Checkout session was completed or expired.
    Session {
        /// The tenant.
        tenant_id: String,
    },
    /// A refund went on, or failed.
    Refund {
        /// The tenant.
        tenant_id: String,
    },
    /// A subscription changed.
    Subscription {
        /// The tenant.
        tenant_id: String,
        /// As it was then.
        subscription: Box<ObservedSubscription>,
    },
}

impl StripeEvent {
    /// The tenant.
    pub fn tenant_id(&self) -> &str {
        match self {
            Self::Session { tenant_id } | Self::Refund { tenant_id } | Self::Subscription { tenant_id, .. } => {
                tenant_id
            }
        }
    }
}

#[derive(Deserialize)]
struct Event {
    id: String,
    created: i64,
    #[serde(rename = "type")]
    type_: String,
    data: EventData,
}

#[derive(Deserialize)]
struct EventData {
    object: Value,
}

impl Event {
    fn says(&self) -> Option<StripeEvent> {
        let tenant_id = self.data.object["metadata"]["tenant_id"].as_str()?.to_owned();
        if self.type_.starts_with("checkout.session.") {
            return Some(StripeEvent::Session { tenant_id });
        }
        if self.type_.starts_with("refund.") {
            return Some(StripeEvent::Refund { tenant_id });
        }
        let subscription: Subscription = serde_json::from_value(self.data.object.clone()).ok()?;
        Some(StripeEvent::Subscription { tenant_id, subscription: Box::new(observe(&subscription, false)) })
    }
}

impl Stripe {
    /// Every object of a list, newest first, a page at a time. `page` asks for the page after an object.
    pub(super) async fn each<T: DeserializeOwned, R: StripeRequest>(
        &self,
        page: impl Fn(Option<&str>) -> R,
        id: impl Fn(&T) -> &str,
        mut take: impl FnMut(T),
    ) -> Result<(), ProviderError> {
        let mut last: Option<String> = None;
        loop {
            let got: List<T> = self.read_as(page(last.as_deref())).await?;
            let end = got.data.last().map(|object| id(object).to_owned());
            let more = got.has_more && end.is_some();
            if more && end == last {
                return Err(ProviderError::garbage(Provider::Stripe, "the same page of a list again"));
            }
            got.data.into_iter().for_each(&mut take);
            if !more {
                return Ok(());
            }
            last = end;
        }
    }

    /// Every object of a list, newest first.
    pub(super) async fn all<T: DeserializeOwned, R: StripeRequest>(
        &self,
        page: impl Fn(Option<&str>) -> R,
        id: impl Fn(&T) -> &str,
    ) -> Result<Vec<T>, ProviderError> {
        let mut all = Vec::new();
        self.each(page, id, |object| all.push(object)).await?;
        Ok(all)
    }

    /// Every subscription of the account that is not over. Stripe leaves out cancelled ones unless a status is asked
    /// for: <https://docs.stripe.com/api/subscriptions/list>
    pub(super) async fn each_subscription(&self, mut take: impl FnMut(Subscription)) -> Result<(), ProviderError> {
        let page = |after: Option<&str>| {
            let request = ListSubscription::new().limit(PAGE);
            match after {
                Some(after) => request.starting_after(after),
                None => request,
            }
        };
        let living = |subscription: Subscription| {
            if !subscription.is_over() {
                take(subscription);
            }
        };
        self.each(page, |s: &Subscription| &s.id, living).await
    }

    /// Every subscription of a tenant that is not over.
    pub async fn subscriptions(&self, mut take: impl FnMut(OwnedSubscription)) -> Result<(), ProviderError> {
        self.each_subscription(|s| {
            let Some(metadata) = &s.metadata else { return };
            let Some(tenant_id) = metadata.tenant_id.clone() else { return };
            let (namespace, name) = (metadata.tenant_namespace.clone(), metadata.tenant_name.clone());
            take(OwnedSubscription { tenant_id, namespace, name, subscription: observe(&s, false) });
        })
        .await
    }

    /// The cursor of the newest event. Events that Stripe lists late are read all the same.
    pub async fn newest_event(&self) -> Result<EventCursor, ProviderError> {
        let newest: List<Event> = self.read_as(ListEvent::new().types(TYPES.map(str::to_owned)).limit(1)).await?;
        let mut cursor = EventCursor::default();
        for event in newest.data {
            cursor.note(event.id, event.created);
        }
        Ok(cursor)
    }

    /// The events that were not read before, oldest first.
    pub async fn events(&self, since: &EventCursor) -> Result<(Vec<StripeEvent>, EventCursor), ProviderError> {
        let page = |after: Option<&str>| {
            let request = ListEvent::new().types(TYPES.map(str::to_owned)).limit(PAGE);
            let request = request.created(RangeQueryTs::gte(since.from()));
            match after {
                Some(after) => request.starting_after(after),
                None => request,
            }
        };
        let mut next = since.clone();
        let mut said = Vec::new();
        let take = |event: Event| {
            let what = event.says();
            if next.note(event.id, event.created) {
                said.extend(what);
            }
        };
        self.each(page, |e: &Event| &e.id, take).await?;
        next.trim();
        said.reverse();
        Ok((said, next))
    }
}
