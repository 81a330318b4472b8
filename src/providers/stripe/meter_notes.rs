//! Which meters the usage of a tenant was sent to, as its subscriptions remember them. A Tenant that is restored from a
//! backup, and a Plan that was edited, know nothing of a meter that was used in between, and Stripe lists no events.

use std::collections::{BTreeSet, HashMap};

use stripe_billing::subscription::{ListSubscription, ListSubscriptionStatus, UpdateSubscription};
use stripe_client_core::StripeRequest;

use super::objects::{Identified, List, Metadata, Subscription};
use super::{PAGE, ProviderError, Stripe};
use crate::api::Unit;

/// The key of a subscription's metadata that lists the meters of a unit, such as `usage_meters_queries`. Stripe takes 40
/// characters.
fn key(unit: Unit) -> String {
    format!("usage_meters_{}", unit.in_plans())
}

/// What Stripe takes as a value of metadata: <https://docs.stripe.com/metadata>
const LONGEST: usize = 500;

/// The meters that a subscription remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeterNotes(HashMap<String, String>);

impl MeterNotes {
    /// As the metadata has them.
    pub fn of(metadata: Option<Metadata>) -> Self {
        Self(metadata.map(|metadata| metadata.other).unwrap_or_default())
    }

    /// The meters of a unit, the earliest first.
    pub fn meters(&self, unit: Unit) -> impl Iterator<Item = &str> {
        self.0.get(&key(unit)).into_iter().flat_map(|list| list.split(',')).filter(|id| !id.is_empty())
    }

    /// The list with one more meter, without the earliest ones if it is too long.
    fn with(&self, unit: Unit, meter: &str) -> String {
        let mut all: Vec<_> = self.meters(unit).chain([meter]).collect();
        while all.len() > 1 && all.iter().map(|id| id.len() + 1).sum::<usize>() > LONGEST {
            all.remove(0);
        }
        all.join(",")
    }
}

impl Stripe {
    /// Notes that usage of a unit is sent to a meter, unless the subscription says so already. To be called before
    /// anything is sent.
    pub async fn note_meter(
        &self,
        subscription: &str,
        notes: &MeterNotes,
        (unit, meter): (Unit, &str),
    ) -> Result<(), ProviderError> {
        if notes.meters(unit).any(|noted| noted == meter) {
            return Ok(());
        }
        let change = HashMap::from([(key(unit), notes.with(unit, meter))]);
        // No idempotency key: the same value twice is the same.
        let request = UpdateSubscription::new(subscription).metadata(change).build();
        self.send::<Identified>(&request, None).await.map(drop)
    }

    /// The meters that usage of a unit was sent to, by all subscriptions that a customer has or had for a tenant.
    pub async fn noted_meters(
        &self,
        customer: &str,
        tenant_id: &str,
        unit: Unit,
    ) -> Result<BTreeSet<String>, ProviderError> {
        let all = ListSubscription::new().customer(customer).status(ListSubscriptionStatus::All).limit(PAGE);
        let all: List<Subscription> = self.read_as(all).await?;
        let metadata = all.data.into_iter().filter_map(|subscription| subscription.metadata);
        let notes = metadata.filter(|metadata| metadata.tenant_id.as_deref() == Some(tenant_id));
        let notes = notes.map(|metadata| MeterNotes::of(Some(metadata)));
        Ok(notes.flat_map(|notes| notes.meters(unit).map(str::to_owned).collect::<Vec<_>>()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_remembers_the_latest_meters_of_each_unit() {
        let metadata = serde_json::json!({
            "tenant_id": "t", "usage_meters_queries": "mtr_1,mtr_2", "usage_meters_promptTokens": "mtr_9", "note": "x",
        });
        let notes = MeterNotes::of(serde_json::from_value(metadata).expect("metadata"));
        assert_eq!(notes.meters(Unit::Queries).collect::<Vec<_>>(), ["mtr_1", "mtr_2"]);
        assert_eq!(notes.meters(Unit::CompletionTokens).count(), 0);
        assert_eq!(notes.with(Unit::Queries, "mtr_3"), "mtr_1,mtr_2,mtr_3");
        let long = |number: usize| format!("mtr_{number:0>40}");
        let list = (0..11).map(long).collect::<Vec<_>>().join(",");
        let full = MeterNotes(HashMap::from([(key(Unit::Queries), list)])).with(Unit::Queries, &long(11));
        assert!(full.len() <= LONGEST && full.ends_with(&long(11)) && !full.contains(&long(0)), "{full}");
        assert!(key(Unit::CompletionTokens).len() <= 40);
    }
}
