//! Reads what Stripe knows of each tenant, which is enough to create its Tenant again.

use std::collections::HashMap;

use serde::Deserialize;
use stripe_core::customer::ListCustomer;

use super::objects::{Metadata, Subscription, observe};
use super::{PAGE, ProviderError, Stripe};
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
        let mut best: HashMap<String, (Subscription, ObservedSubscription)> = HashMap::new();
        self.each_subscription(|subscription| {
            let Some(tenant_id) = subscription.metadata.as_ref().and_then(|m| m.tenant_id.clone()) else { return };
            let observed = observe(&subscription, false);
            if best.get(&tenant_id).is_none_or(|(_, there)| observed.worth() > there.worth()) {
                best.insert(tenant_id, (subscription, observed));
            }
        })
        .await?;
        let customers = |after: Option<&str>| {
            let request = ListCustomer::new().limit(PAGE);
            match after {
                Some(after) => request.starting_after(after),
                None => request,
            }
        };
        let mut all = Vec::new();
        self.each(
            customers,
            |p: &Person| &p.id,
            |person| {
                let of_tenant = person.metadata.tenant_id.as_ref().and_then(|id| best.get(id));
                // Another customer may carry the same id; the one who pays counts.
                let payer =
                    of_tenant.filter(|(s, _)| s.customer.as_deref().is_none_or(|customer| customer == person.id));
                all.extend(payer.and_then(|(subscription, observed)| known(subscription, observed, person)));
            },
        )
        .await?;
        all.sort_by(|a: &Known, b: &Known| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(all)
    }
}

fn known(subscription: &Subscription, observed: &ObservedSubscription, person: Person) -> Option<Known> {
    let metadata = subscription.metadata.as_ref()?;
    Some(Known {
        tenant_id: metadata.tenant_id.clone()?,
        namespace: metadata.tenant_namespace.clone()?,
        name: metadata.tenant_name.clone()?,
        customer_id: person.id,
        email: person.email?,
        company: person.name.unwrap_or_default(),
        key_generation: person.metadata.api_key_generation.and_then(|g| g.parse().ok()).unwrap_or(1),
        subscription: observed.clone(),
    })
}
