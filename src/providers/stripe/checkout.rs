//! The purchase: the customer, and the Checkout session at which a subscription is bought.

use std::collections::HashMap;

use stripe_checkout::CheckoutSessionMode;
use stripe_checkout::checkout_session::{
    CreateCheckoutSession, CreateCheckoutSessionLineItems, CreateCheckoutSessionPaymentMethodCollection,
    CreateCheckoutSessionSubscriptionData, ExpireCheckoutSession,
};
use stripe_core::customer::{CreateCustomer, UpdateCustomer};

use super::objects::{Identified, Session, observed_session};
use super::{
    Found, KEY_GENERATION, PLAN, Payer, ProviderError, Stripe, TENANT_ID, TENANT_NAME, TENANT_NAMESPACE, foreign,
    tenant,
};
use crate::api::UsagePrice;
use crate::lifecycle::{ObservedBilling, ObservedSession, SessionState};

/// What a Checkout session sells.
#[derive(Clone, Copy, Debug)]
pub struct Sale<'a> {
    /// The price of the plan.
    pub price: &'a str,
    /// The prices of what the plan charges by use.
    pub usage_prices: &'a [UsagePrice],
    /// The plan's name.
    pub plan: &'a str,
    /// Days before the first charge.
    pub trial_days: u32,
    /// The number of the session.
    pub attempt: u32,
}

impl Stripe {
    /// Creates the customer if there is none, and the Checkout session of this attempt.
    pub async fn open_checkout(&self, payer: &Payer<'_>, sale: &Sale<'_>) -> Result<ObservedBilling, ProviderError> {
        let (id, attempt) = (payer.tenant_id, sale.attempt);
        let mut key = format!("{id}-checkout-{attempt}");
        let customer = match self.find_customer(payer).await? {
            Found::Customer(customer) => customer.id,
            Found::Foreign { id, .. } => return Err(foreign(&id)),
            Found::NoCustomer => self.create_customer(payer, format!("{id}-customer")).await?,
            // Under its old key, Stripe would answer with the customer that is gone.
            Found::Deleted => {
                let gone = payer.customer_id.unwrap_or_default();
                let customer = self.create_customer(payer, format!("{id}-customer-after-{gone}")).await?;
                key = format!("{key}-{customer}");
                customer
            }
        };
        if attempt > 1 {
            // Expires the links of earlier attempts: one of them may sell another plan.
            let (_, sessions) = self.owned(payer, &customer).await?;
            let earlier = sessions.into_iter().map(observed_session).filter(|s| s.attempt < attempt);
            self.expire(payer, earlier).await?;
        }
        let request = self.checkout(payer, &customer, sale);
        let session: Session = self.once(request, &key).await?;
        Ok(ObservedBilling {
            customer_id: Some(customer),
            subscription: None,
            session: Some(observed_session(session)),
            surplus: Vec::new(),
            surplus_collected: Vec::new(),
            surplus_renewing: Vec::new(),
        })
    }

    fn checkout(&self, payer: &Payer<'_>, customer: &str, sale: &Sale<'_>) -> CreateCheckoutSession {
        let metadata: HashMap<String, String> = [
            (TENANT_ID, payer.tenant_id),
            (TENANT_NAMESPACE, payer.place.namespace),
            (TENANT_NAME, payer.place.name),
            (PLAN, sale.plan),
            ("attempt", &sale.attempt.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        let line = |price: &str, quantity| {
            let mut line = CreateCheckoutSessionLineItems::new();
            line.price = Some(price.to_owned());
            line.quantity = quantity;
            line
        };
        // Stripe refuses a quantity for what a meter counts.
        let metered = sale.usage_prices.iter().map(|usage| line(&usage.stripe_price_id, None));
        let lines: Vec<_> = std::iter::once(line(sale.price, Some(1))).chain(metered).collect();
        let mut subscription = CreateCheckoutSessionSubscriptionData::new();
        subscription.metadata = Some(metadata.clone());
        subscription.trial_period_days = Some(sale.trial_days).filter(|days| *days > 0);
        let frontend = &self.config.frontend_url;
        let session = CreateCheckoutSession::new();
        // Stripe shows no field for a code unless it is asked to.
        let session = if self.config.promotion_codes { session.allow_promotion_codes(true) } else { session };
        session
            .mode(CheckoutSessionMode::Subscription)
            .customer(customer)
            .client_reference_id(payer.tenant_id)
            .line_items(lines)
            .payment_method_collection(CreateCheckoutSessionPaymentMethodCollection::Always)
            .success_url(format!("{frontend}/onboarding/success?session_id={{CHECKOUT_SESSION_ID}}"))
            .cancel_url(format!("{frontend}/signup?cancelled=true"))
            .metadata(metadata)
            .subscription_data(subscription)
    }

    async fn create_customer(&self, payer: &Payer<'_>, key: String) -> Result<String, ProviderError> {
        let request = CreateCustomer::new().email(payer.email).name(payer.company).metadata(tenant(payer.tenant_id));
        Ok(self.once::<Identified>(request, &key).await?.id)
    }

    /// Updates the customer's name and address, the generation of the API key, and the place of the Tenant. Does not
    /// create a deleted customer again.
    pub async fn update_customer(&self, payer: &Payer<'_>, key_generation: u32) -> Result<(), ProviderError> {
        let customer = match self.find_customer(payer).await? {
            Found::Customer(customer) => customer.id,
            Found::Foreign { id, .. } => return Err(foreign(&id)),
            Found::NoCustomer | Found::Deleted => return Ok(()),
        };
        let metadata: HashMap<_, _> = [(KEY_GENERATION.to_owned(), key_generation.to_string())].into();
        let request = UpdateCustomer::new(&*customer).email(payer.email).name(payer.company).metadata(metadata);
        self.read_as::<Identified>(request).await?;
        let (subscriptions, _) = self.owned(payer, &customer).await?;
        self.correct_place(payer, &subscriptions).await
    }

    /// Expires those of the sessions that are open.
    pub(super) async fn expire(
        &self,
        payer: &Payer<'_>,
        sessions: impl Iterator<Item = ObservedSession>,
    ) -> Result<(), ProviderError> {
        for session in sessions.filter(|s| s.state == SessionState::Open) {
            let key = format!("{}-expire-{}", payer.tenant_id, session.id);
            match self.once::<Identified>(ExpireCheckoutSession::new(session.id), &key).await {
                Ok(_) => {}
                // Gone, or no longer open.
                Err(e) if matches!(e.status, Some(400 | 404)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
