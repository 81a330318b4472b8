//! What is new at Stripe since the last look.

use super::billing::subscription_differs;
use super::hints::{hint, phase};
use crate::api::{Phase, Tenant, Timestamp};
use crate::controller::context::Context;
use crate::providers::stripe::{EventCursor, StripeEvent};
use crate::providers::{Priority, ProviderError};

/// Reads what is new at Stripe.
pub async fn read(context: &Context, cursor: &mut Option<EventCursor>) -> Result<(), ProviderError> {
    let Some(known) = cursor.as_ref() else {
        *cursor = Some(context.providers.stripe.newest_event().await?);
        return Ok(());
    };
    let (events, next) = context.providers.stripe.events(known).await?;
    *cursor = Some(next);
    for event in events {
        let Some(key) = context.claims.holder(event.tenant_id()) else { continue };
        let Some(tenant) = context.caches.tenant(&key) else { continue };
        if let Some(priority) = event_differs(&tenant, &event, context.clock.read().now) {
            hint(context, &tenant, priority);
        }
    }
    Ok(())
}

fn event_differs(tenant: &Tenant, event: &StripeEvent, now: Timestamp) -> Option<Priority> {
    match event {
        StripeEvent::Subscription { subscription, .. } => {
            subscription_differs(tenant, Some(subscription.as_ref()), now)
        }
        StripeEvent::Refund { .. } => {
            matches!(phase(tenant), Some(Phase::Failed | Phase::Deleting)).then_some(Priority::Repair)
        }
        StripeEvent::Session { .. } => {
            matches!(phase(tenant), None | Some(Phase::PendingPayment | Phase::Suspended)).then_some(Priority::Person)
        }
    }
}
