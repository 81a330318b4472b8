//! Stripe, by the request vocabulary of async-stripe and a transport of ours: async-stripe's own client hides the
//! `Retry-After` header and turns an error page into a parse error. Answers are read field by field, because Stripe
//! moves fields between API versions and a tenant must not hang on one that we never use.

mod bulk;
mod settlement;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use stripe_client_core::{RequestBuilder, StripeMethod};

pub use bulk::{EventCursor, StripeEvent};

use super::{CallLimits, Caller, ProviderError};
use crate::api::{Place, Timestamp};
use crate::lifecycle::{Blame, ObservedBilling, ObservedSession, ObservedSubscription, SessionState};

const PROVIDER: &str = "Stripe";
/// The version whose field names are read here.
const API_VERSION: &str = "2026-09-30.endive";
/// Metadata key that ties Stripe's objects to a tenant.
pub const TENANT_ID: &str = "tenant_id";

/// Where Stripe is.
#[derive(Clone, Debug)]
pub struct StripeConfig {
    /// The base URL without a version, such as `https://api.stripe.com`.
    pub url: String,
    /// The secret key.
    pub api_key: String,
    /// How it may be called.
    pub calls: CallLimits,
    /// Where Checkout sends the customer back to.
    pub frontend_url: String,
}

/// A client.
#[derive(Debug)]
pub struct Stripe {
    config: StripeConfig,
    caller: Caller,
}

/// Who pays, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Payer<'a> {
    /// The tenant's identity.
    pub tenant_id: &'a str,
    /// Where the Tenant is, for the webhook to find it.
    pub place: Place<'a>,
    /// The customer's e-mail address.
    pub email: &'a str,
    /// The customer's name.
    pub company: &'a str,
    /// What the spec says of the Stripe customer.
    pub customer_id: Option<&'a str>,
}

#[derive(Deserialize)]
struct List<T> {
    #[serde(default = "Vec::new")]
    data: Vec<T>,
    #[serde(default)]
    has_more: bool,
}
#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    tenant_id: Option<String>,
    #[serde(default)]
    attempt: Option<String>,
    #[serde(default)]
    plan: Option<String>,
}
#[derive(Deserialize)]
struct Customer {
    id: String,
    /// Stripe answers 200 with this for a customer that was deleted in the dashboard.
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    invoice_settings: InvoiceSettings,
}
#[derive(Deserialize, Default)]
struct InvoiceSettings {
    default_payment_method: Option<serde_json::Value>,
}
#[derive(Deserialize)]
struct Session {
    id: String,
    url: Option<String>,
    status: Option<String>,
    #[serde(default)]
    expires_at: i64,
    metadata: Option<Metadata>,
}
#[derive(Deserialize)]
struct Subscription {
    id: String,
    status: String,
    metadata: Option<Metadata>,
    default_payment_method: Option<serde_json::Value>,
    pause_collection: Option<serde_json::Value>,
    trial_end: Option<i64>,
}
#[derive(Deserialize)]
struct Identified {
    id: String,
}
impl Stripe {
    /// A client; nothing is called yet.
    pub fn new(config: StripeConfig) -> Self {
        let caller = Caller::new(PROVIDER, config.calls);
        Self { config, caller }
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder, key: Option<&str>) -> Result<T, ProviderError> {
        let mut url = format!("{}/v1{}", self.config.url, request.path);
        if let Some(query) = &request.query {
            url.push('?');
            url.push_str(query);
        }
        self.caller
            .json(|client| {
                let call = match request.method {
                    StripeMethod::Get => client.get(&url),
                    StripeMethod::Post => client.post(&url),
                    StripeMethod::Delete => client.delete(&url),
                };
                let call = call.bearer_auth(&self.config.api_key).header("stripe-version", API_VERSION);
                let call = match key {
                    Some(key) => call.header("idempotency-key", key),
                    None => call,
                };
                match &request.body {
                    Some(body) => call.header("content-type", "application/x-www-form-urlencoded").body(body.clone()),
                    None => call,
                }
            })
            .await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: impl Serialize) -> Result<T, ProviderError> {
        self.send(RequestBuilder::new(StripeMethod::Get, path).query(&query), None).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, form: impl Serialize, key: &str) -> Result<T, ProviderError> {
        self.send(RequestBuilder::new(StripeMethod::Post, path).form(&form), Some(key)).await
    }

    /// The tenant's customer: the one in the spec, or the one that carries the tenant's id.
    async fn find_customer(&self, payer: &Payer<'_>) -> Result<Found, ProviderError> {
        if let Some(id) = payer.customer_id {
            return match self.get::<Customer>(&format!("/customers/{id}"), json!({})).await {
                Ok(customer) if customer.deleted => Ok(Found::Deleted),
                Ok(customer) if customer.metadata.tenant_id.as_deref() == Some(payer.tenant_id) => {
                    Ok(Found::Customer(customer))
                }
                Ok(_) => Ok(Found::Foreign(id.to_owned())),
                Err(e) if e.is_not_found() => Ok(Found::Deleted),
                Err(e) => Err(e),
            };
        }
        let found: List<Customer> = self.get("/customers", json!({"email": payer.email, "limit": 100})).await?;
        let ours = found.data.into_iter().find(|c| c.metadata.tenant_id.as_deref() == Some(payer.tenant_id));
        Ok(ours.map_or(Found::Nobody, Found::Customer))
    }

    /// What Stripe says of the tenant.
    pub async fn read(&self, payer: &Payer<'_>) -> Result<ObservedBilling, ProviderError> {
        let customer = match self.find_customer(payer).await? {
            Found::Customer(customer) => customer,
            // Stripe cancels the subscriptions of a customer that is deleted.
            Found::Nobody | Found::Deleted => return Ok(ObservedBilling::default()),
            Found::Foreign(id) => return Err(foreign(&id)),
        };
        let (subscriptions, sessions) = self.owned(payer, &customer.id).await?;
        let with_method = customer.invoice_settings.default_payment_method.is_some();
        let subscription = subscriptions.into_iter().map(|s| observe(s, with_method)).min_by_key(rank);
        let session =
            sessions.into_iter().map(observed_session).max_by_key(|s| (s.attempt, s.state == SessionState::Open));
        Ok(ObservedBilling { customer_id: Some(customer.id), subscription, session })
    }

    /// The subscriptions and sessions of a customer that carry the tenant's id.
    async fn owned(
        &self,
        payer: &Payer<'_>,
        customer: &str,
    ) -> Result<(Vec<Subscription>, Vec<Session>), ProviderError> {
        let query = json!({"customer": customer, "status": "all", "limit": 100});
        let sessions_query = json!({"customer": customer, "limit": 100});
        let (mut subscriptions, mut sessions) = tokio::try_join!(
            self.get::<List<Subscription>>("/subscriptions", query),
            self.get::<List<Session>>("/checkout/sessions", sessions_query),
        )?;
        let ours = |m: &Option<Metadata>| m.as_ref().and_then(|m| m.tenant_id.as_deref()) == Some(payer.tenant_id);
        subscriptions.data.retain(|s| ours(&s.metadata));
        sessions.data.retain(|s| ours(&s.metadata));
        Ok((subscriptions.data, sessions.data))
    }

    /// Makes the customer, if there is none, and the Checkout session of this attempt.
    pub async fn open_checkout(
        &self,
        payer: &Payer<'_>,
        price: &str,
        plan: &str,
        trial_days: u32,
        attempt: u32,
    ) -> Result<ObservedBilling, ProviderError> {
        let id = payer.tenant_id;
        let mut key = format!("{id}-checkout-{attempt}");
        let customer = match self.find_customer(payer).await? {
            Found::Customer(customer) => customer.id,
            Found::Foreign(other) => return Err(foreign(&other)),
            Found::Nobody => self.create_customer(payer, format!("{id}-customer")).await?,
            // Under its old key, Stripe would answer with the customer that is gone.
            Found::Deleted => {
                let gone = payer.customer_id.unwrap_or_default();
                let customer = self.create_customer(payer, format!("{id}-customer-after-{gone}")).await?;
                key = format!("{key}-{customer}");
                customer
            }
        };
        if attempt > 1 {
            // Nobody may pay at a link of an earlier attempt, which may sell another plan.
            let (_, sessions) = self.owned(payer, &customer).await?;
            let earlier = sessions.into_iter().map(observed_session).filter(|s| s.attempt < attempt);
            self.expire(payer, earlier).await?;
        }
        let metadata = json!({
            "tenant_id": id, "tenant_namespace": payer.place.namespace, "tenant_name": payer.place.name,
            "plan": plan, "attempt": attempt.to_string(),
        });
        let mut subscription = json!({"metadata": metadata});
        if trial_days > 0 {
            subscription["trial_period_days"] = json!(trial_days);
        }
        let frontend = &self.config.frontend_url;
        let form = json!({
            "mode": "subscription",
            "customer": customer,
            "client_reference_id": id,
            "line_items": [{"price": price, "quantity": 1}],
            "payment_method_collection": "always",
            "success_url": format!("{frontend}/onboarding/success?session_id={{CHECKOUT_SESSION_ID}}"),
            "cancel_url": format!("{frontend}/signup?cancelled=true"),
            "metadata": metadata,
            "subscription_data": subscription,
        });
        let session: Session = self.post("/checkout/sessions", form, &key).await?;
        Ok(ObservedBilling {
            customer_id: Some(customer),
            subscription: None,
            session: Some(observed_session(session)),
        })
    }

    async fn create_customer(&self, payer: &Payer<'_>, key: String) -> Result<String, ProviderError> {
        let form = json!({"email": payer.email, "name": payer.company, "metadata": {"tenant_id": payer.tenant_id}});
        Ok(self.post::<Identified>("/customers", form, &key).await?.id)
    }

    /// Stops or starts collecting on a subscription.
    pub async fn set_collection(&self, subscription: &str, paused: bool) -> Result<(), ProviderError> {
        let form =
            if paused { json!({"pause_collection": {"behavior": "void"}}) } else { json!({"pause_collection": ""}) };
        // No idempotency key: setting the same value twice is the same, and a key would replay an old answer.
        let request = RequestBuilder::new(StripeMethod::Post, format!("/subscriptions/{subscription}")).form(&form);
        self.send::<Identified>(request, None).await?;
        Ok(())
    }

    /// Expires those of the sessions that are open.
    async fn expire(
        &self,
        payer: &Payer<'_>,
        sessions: impl Iterator<Item = ObservedSession>,
    ) -> Result<(), ProviderError> {
        for session in sessions.filter(|s| s.state == SessionState::Open) {
            let key = format!("{}-expire-{}", payer.tenant_id, session.id);
            let path = format!("/checkout/sessions/{}/expire", session.id);
            match self.post::<Identified>(&path, json!({}), &key).await {
                Ok(_) => {}
                // Gone, or no longer open.
                Err(e) if matches!(e.status, Some(400 | 404)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The provider's calls, for whoever wants to know whether it is away.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

/// Who the customer of a tenant is.
enum Found {
    Customer(Customer),
    /// There is none yet.
    Nobody,
    /// There was one.
    Deleted,
    /// The spec names somebody else's.
    Foreign(String),
}

fn foreign(id: &str) -> ProviderError {
    ProviderError {
        provider: PROVIDER,
        status: None,
        reason: "ForeignCustomer",
        message: format!("customer {id} belongs to another tenant: correct spec.billing.stripe.customerId"),
        blame: Blame::Call,
        retryable: false,
        retry_after: None,
    }
}

/// The subscription that is worth most comes first.
fn rank(s: &ObservedSubscription) -> (bool, bool) {
    (!s.paid(), s.status == "canceled")
}

fn observe(s: Subscription, customer_has_method: bool) -> ObservedSubscription {
    ObservedSubscription {
        id: s.id,
        status: s.status,
        payment_method: customer_has_method || s.default_payment_method.is_some_and(|v| !v.is_null()),
        paused: s.pause_collection.is_some_and(|v| !v.is_null()),
        plan: s.metadata.and_then(|m| m.plan),
        trial_ends_at: s.trial_end.map(Timestamp::from_second),
    }
}

fn observed_session(s: Session) -> ObservedSession {
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
    }
}
