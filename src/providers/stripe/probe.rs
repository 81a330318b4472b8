//! Requests of the preflight checks.

use std::fmt;

use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use stripe_billing::subscription::{CancelSubscription, CreateSubscription, CreateSubscriptionItems};
use stripe_client_core::{RequestBuilder, StripeMethod};
use stripe_core::customer::{CreateCustomer, DeleteCustomer};

use super::objects::{Identified, List};
use super::{PAGE, PROVIDER, ProviderError, Stripe};
use crate::api::Timestamp;
use crate::lifecycle::{Blame, Fault};

/// Events that a webhook endpoint must get.
pub const EVENTS: [&str; 5] = [
    "checkout.session.completed",
    "checkout.session.expired",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
];

/// The account of the key.
#[derive(Deserialize)]
pub struct Account {
    /// `acct_...`
    pub id: String,
    /// Whether Stripe lets it charge.
    #[serde(default)]
    pub charges_enabled: bool,
}

/// An account in one mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `acct_...`
    pub account: String,
    /// Whether money moves.
    pub livemode: bool,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} mode)", self.account, if self.livemode { "live" } else { "test" })
    }
}

/// The mode of a key by its prefix: <https://docs.stripe.com/keys#obtain-api-keys>
fn livemode(key: &str) -> Option<bool> {
    let (kind, rest) = key.split_once('_')?;
    let known = matches!(kind, "sk" | "rk");
    let rest = rest.strip_prefix("org_").unwrap_or(rest);
    known.then(|| if rest.starts_with("live") { Some(true) } else { rest.starts_with("test").then_some(false) })?
}

/// The account that Stripe names when it refuses a restricted key: "The provided key '...' does not have the required
/// permissions for this endpoint on account 'acct_...'" (<https://github.com/stripe/stripe-node/issues/2246>).
fn named(refusal: &str) -> Option<String> {
    let rest = &refusal[refusal.find("on account ")?..];
    let id: String =
        rest[rest.find("acct_")?..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    (id.len() > "acct_".len()).then_some(id)
}

/// A price.
#[derive(Deserialize)]
pub struct Price {
    /// Whether it can be bought.
    pub active: bool,
    /// In the smallest unit of the currency.
    pub unit_amount: Option<i64>,
    /// ISO code in lower case.
    pub currency: String,
    recurring: Option<serde_json::Value>,
}

impl Price {
    /// Whether it is a subscription's.
    pub fn recurring(&self) -> bool {
        self.recurring.as_ref().is_some_and(|r| !r.is_null())
    }
}

/// Where Stripe sends events.
#[derive(Deserialize)]
pub struct WebhookEndpoint {
    /// Its address.
    pub url: String,
    /// enabled or disabled.
    #[serde(default)]
    pub status: String,
    /// The events that it gets; `*` for all.
    #[serde(default)]
    pub enabled_events: Vec<String>,
}

impl Stripe {
    async fn look<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ProviderError> {
        self.send(&RequestBuilder::new(StripeMethod::Get, path), None).await
    }

    async fn look_at_all<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        query: &str,
    ) -> Result<Vec<T>, ProviderError> {
        let mut request = RequestBuilder::new(StripeMethod::Get, path);
        request.query = Some(query.to_owned());
        Ok(self.send::<List<T>>(&request, None).await?.data)
    }

    /// The account and the mode of the key. Asked past the gate.
    pub async fn identity(&self) -> Result<Identity, ProviderError> {
        let livemode = livemode(self.config.api_key.expose_secret()).ok_or_else(|| ProviderError {
            provider: PROVIDER,
            status: None,
            reason: Fault::NoMode,
            message: "the key begins with none of sk_live_, sk_test_, rk_live_ and rk_test_: correct STRIPE_SECRET_KEY"
                .into(),
            blame: Blame::Admin,
            retryable: true,
            retry_after: None,
            tokens: None,
        })?;
        let account = match self.call::<Account>(&RequestBuilder::new(StripeMethod::Get, "/account"), None).await {
            Ok(account) => account.id,
            Err(error) if error.status == Some(403) => named(&error.message).ok_or(error)?,
            Err(error) => return Err(error),
        };
        Ok(Identity { account, livemode })
    }

    /// The account.
    pub async fn account(&self) -> Result<Account, ProviderError> {
        self.look("/account").await
    }

    /// A price by its id.
    pub async fn price(&self, id: &str) -> Result<Price, ProviderError> {
        self.look(&format!("/prices/{id}")).await
    }

    /// The first hundred endpoints; Stripe allows 16, and lists 10 unless it is asked for more.
    pub async fn webhook_endpoints(&self) -> Result<Vec<WebhookEndpoint>, ProviderError> {
        self.look_at_all("/webhook_endpoints", &format!("limit={PAGE}")).await
    }

    /// Whether the customer portal has saved settings. Without them Stripe refuses to open it:
    /// <https://docs.stripe.com/customer-management/integrate-customer-portal>
    pub async fn portal_is_set_up(&self) -> Result<bool, ProviderError> {
        let saved =
            self.look_at_all::<Identified>("/billing_portal/configurations", "active=true&is_default=true&limit=1");
        Ok(!saved.await?.is_empty())
    }

    /// Stripe's time, from the Date header of an answer with any status.
    pub async fn clock(&self) -> Option<Timestamp> {
        let answer = self.caller().client.get(&self.config.url).send().await.ok()?;
        Timestamp::from_http_date(answer.headers().get("date")?.to_str().ok()?)
    }

    /// Creates a customer with a subscription in trial, and deletes both again.
    pub async fn try_subscription(&self, price: &str) -> Result<(), ProviderError> {
        let id = hex::encode(rand::random::<[u8; 8]>());
        let customer = CreateCustomer::new().email("preflight@example.com").name("tenant-operator preflight");
        let customer: Identified = self.once(customer, &format!("preflight-{id}-customer")).await?;
        let made = self.subscribe(&customer.id, price, &id).await;
        let _: Identified = self.read_as(DeleteCustomer::new(customer.id)).await?;
        made
    }

    async fn subscribe(&self, customer: &str, price: &str, id: &str) -> Result<(), ProviderError> {
        let mut item = CreateSubscriptionItems::new();
        item.price = Some(price.to_owned());
        let request = CreateSubscription::new().customer(customer).items([item]).trial_period_days(1u32);
        let made: Identified = self.once(request, &format!("preflight-{id}-subscription")).await?;
        self.read_as::<Identified>(CancelSubscription::new(made.id)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_its_mode() {
        for (key, mode) in [
            ("sk_live_1", Some(true)),
            ("rk_live_1", Some(true)),
            ("sk_test_1", Some(false)),
            ("rk_test_1", Some(false)),
            ("sk_org_live_1", Some(true)),
            ("whsec_live", None),
            ("", None),
        ] {
            assert_eq!(livemode(key), mode, "{key}");
        }
    }

    #[test]
    fn a_restricted_key_is_told_its_account() {
        let said = "answered 403 Forbidden: The provided key 'rk_test_***acct_no***d' does not have the required permissions for this \
                    endpoint on account 'acct_1PJBLEBBLEfV'. Having the 'rak_accounts_kyc_basic_read' permission would allow";
        assert_eq!(named(said).as_deref(), Some("acct_1PJBLEBBLEfV"));
        assert_eq!(named("answered 403: not on account acct_"), None);
        assert_eq!(named("answered 403"), None);
    }
}
