//! What Stripe says of all tenants together: its subscriptions, and its events since a moment. Both come 100 a page.

use std::collections::HashSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stripe_billing::subscription::{ListSubscription, ListSubscriptionStatus};
use stripe_client_core::StripeRequest;
use stripe_core::event::ListEvent;
use stripe_types::RangeQueryTs;

use super::{List, PAGE, ProviderError, Stripe, Subscription, observe};
use crate::lifecycle::ObservedSubscription;

/// Pages of one listing, at most: 100,000 objects.
const PAGES: usize = 1000;
/// The types of events that say something of a tenant.
const TYPES: [&str; 6] = [
    "checkout.session.completed",
    "checkout.session.expired",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "customer.subscription.paused",
];

/// Up to where events were read: Stripe's time of the newest one, and all that had that time.
#[derive(Clone, Debug, Default)]
pub struct EventCursor {
    created: i64,
    seen: HashSet<String>,
}

/// What an event says of a tenant.
#[derive(Clone, Debug)]
pub enum StripeEvent {
    /// A Checkout session was completed or expired.
    Session {
        /// The tenant.
        tenant_id: String,
    },
    /// A subscription changed.
    Subscription {
        /// The tenant.
        tenant_id: String,
        /// As it was then.
        subscription: ObservedSubscription,
    },
}

impl StripeEvent {
    /// The tenant.
    pub fn tenant_id(&self) -> &str {
        match self {
            Self::Session { tenant_id } | Self::Subscription { tenant_id, .. } => tenant_id,
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
        let subscription: Subscription = serde_json::from_value(self.data.object.clone()).ok()?;
        Some(StripeEvent::Subscription { tenant_id, subscription: observe(subscription, false) })
    }
}

impl Stripe {
    /// Every object of a list, newest first. `page` asks for the page after an object.
    pub(super) async fn all<T: DeserializeOwned, R: StripeRequest>(
        &self,
        page: impl Fn(Option<&str>) -> R,
        id: impl Fn(&T) -> &str,
    ) -> Result<Vec<T>, ProviderError> {
        let mut all: Vec<T> = Vec::new();
        for _ in 0..PAGES {
            let got: List<T> = self.read_as(page(all.last().map(&id))).await?;
            let more = got.has_more && !got.data.is_empty();
            all.extend(got.data);
            if !more {
                return Ok(all);
            }
        }
        Err(ProviderError::garbage("Stripe", "a list that does not end"))
    }

    /// Every subscription of the account.
    pub(super) async fn all_subscriptions(&self) -> Result<Vec<Subscription>, ProviderError> {
        let page = |after: Option<&str>| {
            let request = ListSubscription::new().status(ListSubscriptionStatus::All).limit(PAGE);
            match after {
                Some(after) => request.starting_after(after),
                None => request,
            }
        };
        self.all(page, |s: &Subscription| &s.id).await
    }

    /// Every subscription that belongs to a tenant, with the tenant's id.
    pub async fn subscriptions(&self) -> Result<Vec<(String, ObservedSubscription)>, ProviderError> {
        let all = self.all_subscriptions().await?;
        let tenant = |s: &Subscription| s.metadata.as_ref()?.tenant_id.clone();
        Ok(all.into_iter().filter_map(|s| Some((tenant(&s)?, observe(s, false)))).collect())
    }

    /// Where the events end now.
    pub async fn newest_event(&self) -> Result<EventCursor, ProviderError> {
        let newest: List<Event> = self.read_as(ListEvent::new().types(TYPES.map(str::to_owned)).limit(1)).await?;
        Ok(newest
            .data
            .into_iter()
            .next()
            .map_or_else(EventCursor::default, |event| EventCursor { created: event.created, seen: [event.id].into() }))
    }

    /// What happened since, oldest first.
    pub async fn events(&self, since: &EventCursor) -> Result<(Vec<StripeEvent>, EventCursor), ProviderError> {
        let page = |after: Option<&str>| {
            let request = ListEvent::new().types(TYPES.map(str::to_owned)).limit(PAGE);
            let request = request.created(RangeQueryTs::gte(since.created));
            match after {
                Some(after) => request.starting_after(after),
                None => request,
            }
        };
        let mut all: Vec<Event> = self.all(page, |e: &Event| &e.id).await?;
        let created = all.iter().map(|e| e.created).max().unwrap_or(since.created);
        let seen = all.iter().filter(|e| e.created == created).map(|e| e.id.clone()).collect();
        all.retain(|e| !since.seen.contains(&e.id));
        let said = all.iter().rev().filter_map(Event::says).collect();
        Ok((said, EventCursor { created, seen }))
    }
}
