//! What Stripe alone knows of each tenant: enough to make its Tenant again.

use std::collections::HashMap;

use serde::Deserialize;
use stripe_core::customer::ListCustomer;

use super::{Metadata, PAGE, ProviderError, Stripe, Subscription, observe};
use crate::lifecycle::ObservedSubscription;

/// A tenant that is Stripe's customer, with a subscription that is not over.
#[derive(Clone, Debug)]
pub struct Known {
    /// The tenant's id.
    pub tenant_id: String,
    /// The namespace of its Tenant.
    pub namespace: String,
    /// The name of its Tenant.
    pub name: String,
    /// `cus_...`
    pub customer_id: String,
    /// The customer's e-mail address.
    pub email: String,
    /// The customer's name.
    pub company: String,
    /// The generation of the API key.
    pub key_generation: u32,
    /// The subscription.
    pub subscription: ObservedSubscription,
}

#[derive(Deserialize)]
struct Person {
    id: String,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    metadata: Metadata,
}

impl Stripe {
    /// Every tenant with a subscription that is not over, read page by page.
    pub async fn tenants(&self) -> Result<Vec<Known>, ProviderError> {
        let customers = |after: Option<&str>| {
            let request = ListCustomer::new().limit(PAGE);
            match after {
                Some(after) => request.starting_after(after),
                None => request,
            }
        };
        let people: Vec<Person> = self.all(customers, |p: &Person| &p.id).await?;
        let people: HashMap<String, Person> =
            people.into_iter().filter_map(|p| Some((p.metadata.tenant_id.clone()?, p))).collect();
        let mut best: HashMap<String, Known> = HashMap::new();
        for subscription in self.all_subscriptions().await? {
            let Some(known) = known(subscription, &people) else { continue };
            let there = best.get(&known.tenant_id);
            if there.is_none_or(|there| known.subscription.worth() > there.subscription.worth()) {
                best.insert(known.tenant_id.clone(), known);
            }
        }
        let mut all: Vec<_> = best.into_values().collect();
        all.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(all)
    }
}

fn known(subscription: Subscription, people: &HashMap<String, Person>) -> Option<Known> {
    if subscription.is_over() {
        return None;
    }
    let metadata = subscription.metadata.as_ref()?;
    let (tenant_id, namespace, name) =
        (metadata.tenant_id.clone()?, metadata.tenant_namespace.clone()?, metadata.tenant_name.clone()?);
    let person = people.get(&tenant_id)?;
    Some(Known {
        customer_id: person.id.clone(),
        email: person.email.clone()?,
        company: person.name.clone().unwrap_or_default(),
        key_generation: person.metadata.api_key_generation.as_ref().and_then(|g| g.parse().ok()).unwrap_or(1),
        tenant_id,
        namespace,
        name,
        subscription: observe(subscription, false),
    })
}
