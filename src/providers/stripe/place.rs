//! Where a Tenant is: the namespace and the name that Stripe keeps with what the tenant buys. Webhooks carry both.

use std::collections::HashMap;

use stripe_billing::subscription::UpdateSubscription;

use super::objects::{Identified, Metadata, Subscription};
use super::{Payer, ProviderError, Stripe, TENANT_NAME, TENANT_NAMESPACE};
use crate::api::Place;

/// Whether Stripe keeps another place. What carries none was not made by the operator.
pub fn is_elsewhere(metadata: Option<&Metadata>, place: Place<'_>) -> bool {
    let kept = metadata.and_then(|m| Some((m.tenant_namespace.as_deref()?, m.tenant_name.as_deref()?)));
    kept.is_some_and(|kept| kept != (place.namespace, place.name))
}

impl Stripe {
    /// Notes the present place with those of the subscriptions that carry another one and are not over. Stripe keeps
    /// the other keys of the metadata: <https://docs.stripe.com/metadata>
    pub(super) async fn correct_place(
        &self,
        payer: &Payer<'_>,
        subscriptions: &[Subscription],
    ) -> Result<(), ProviderError> {
        let moved = |s: &&Subscription| !s.is_over() && is_elsewhere(s.metadata.as_ref(), payer.place);
        for subscription in subscriptions.iter().filter(moved) {
            let place: HashMap<String, String> = [
                (TENANT_NAMESPACE.to_owned(), payer.place.namespace.to_owned()),
                (TENANT_NAME.to_owned(), payer.place.name.to_owned()),
            ]
            .into();
            // No idempotency key: the same value twice is the same.
            self.read_as::<Identified>(UpdateSubscription::new(&*subscription.id).metadata(place)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_namespace_or_name_is_elsewhere_and_none_is_not() {
        let kept = |namespace: Option<&str>, name: Option<&str>| Metadata {
            tenant_namespace: namespace.map(str::to_owned),
            tenant_name: name.map(str::to_owned),
            ..Metadata::default()
        };
        let here = Place { namespace: "shop", name: "acme" };
        assert!(!is_elsewhere(Some(&kept(Some("shop"), Some("acme"))), here));
        assert!(is_elsewhere(Some(&kept(Some("old"), Some("acme"))), here));
        assert!(is_elsewhere(Some(&kept(Some("shop"), Some("old"))), here));
        assert!(!is_elsewhere(Some(&kept(None, Some("old"))), here) && !is_elsewhere(None, here));
    }
}
