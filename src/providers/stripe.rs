//! Stripe, by the request vocabulary of async-stripe and a transport of ours: async-stripe's own client hides the
//! `Retry-After` header and turns an error page into a parse error. Answers are read field by field, because Stripe
//! moves fields between API versions and a tenant must not hang on one that we never use.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use stripe_client_core::{RequestBuilder, StripeMethod};

use super::{CallLimits, Caller, ProviderError};
use crate::api::Timestamp;
use crate::lifecycle::{BillingFact, RefundFact, SessionFact, SessionState, SubscriptionFact};

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
    /// The Kubernetes namespace of the Tenant, for the webhook to find it.
    pub namespace: &'a str,
    /// The name of the Tenant, for the webhook to find it.
    pub name: &'a str,
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
}
#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    tenant_id: Option<String>,
    #[serde(default)]
    attempt: Option<String>,
}
#[derive(Deserialize)]
struct Customer {
    id: String,
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
#[derive(Deserialize)]
struct InvoicePayment {
    payment: Payment,
}
#[derive(Deserialize)]
struct Payment {
    payment_intent: Option<String>,
}
#[derive(Deserialize)]
struct RefundObject {
    #[serde(default)]
    amount: i64,
    currency: Option<String>,
    status: Option<String>,
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
    async fn find_customer(&self, payer: &Payer<'_>) -> Result<Option<Customer>, ProviderError> {
        if let Some(id) = payer.customer_id {
            return match self.get::<Customer>(&format!("/customers/{id}"), json!({})).await {
                Ok(customer) if customer.metadata.tenant_id.as_deref() == Some(payer.tenant_id) => Ok(Some(customer)),
                Ok(_) => Err(ProviderError {
                    provider: PROVIDER,
                    status: None,
                    reason: "ForeignCustomer",
                    message: format!("customer {id} belongs to another tenant: correct spec.billing.stripe.customerId"),
                    retryable: false,
                    retry_after: None,
                }),
                Err(e) => Err(e),
            };
        }
        let found: List<Customer> = self.get("/customers", json!({"email": payer.email, "limit": 100})).await?;
        Ok(found.data.into_iter().find(|c| c.metadata.tenant_id.as_deref() == Some(payer.tenant_id)))
    }

    /// What Stripe says of the tenant.
    pub async fn read(&self, payer: &Payer<'_>) -> Result<BillingFact, ProviderError> {
        let Some(customer) = self.find_customer(payer).await? else { return Ok(BillingFact::default()) };
        let query = json!({"customer": customer.id, "status": "all", "limit": 20});
        let sessions_query = json!({"customer": customer.id, "limit": 20});
        let (subscriptions, sessions) = tokio::try_join!(
            self.get::<List<Subscription>>("/subscriptions", query),
            self.get::<List<Session>>("/checkout/sessions", sessions_query),
        )?;
        let ours = |m: &Option<Metadata>| m.as_ref().and_then(|m| m.tenant_id.as_deref()) == Some(payer.tenant_id);
        let with_method = customer.invoice_settings.default_payment_method.is_some();
        let subscription = subscriptions
            .data
            .into_iter()
            .filter(|s| ours(&s.metadata))
            .map(|s| fact(s, with_method))
            .min_by_key(|s| (!s.paid(), s.status == "canceled"));
        let session = sessions
            .data
            .into_iter()
            .filter(|s| ours(&s.metadata))
            .map(session_fact)
            .max_by_key(|s| (s.attempt, s.state == SessionState::Open));
        Ok(BillingFact { customer_id: Some(customer.id), subscription, session })
    }

    /// Makes the customer, if there is none, and the Checkout session of this attempt.
    pub async fn open_checkout(
        &self,
        payer: &Payer<'_>,
        price: &str,
        plan: &str,
        trial_days: u32,
        attempt: u32,
    ) -> Result<BillingFact, ProviderError> {
        let id = payer.tenant_id;
        let customer = if let Some(customer) = self.find_customer(payer).await? {
            customer.id
        } else {
            let form = json!({"email": payer.email, "name": payer.company, "metadata": {"tenant_id": id}});
            self.post::<Identified>("/customers", form, &format!("{id}-customer")).await?.id
        };
        let metadata = json!({
            "tenant_id": id, "tenant_namespace": payer.namespace, "tenant_name": payer.name,
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
        let session: Session = self.post("/checkout/sessions", form, &format!("{id}-checkout-{attempt}")).await?;
        Ok(BillingFact { customer_id: Some(customer), subscription: None, session: Some(session_fact(session)) })
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

    /// Gives back every payment of a subscription that was not given back yet, and answers the whole sum.
    pub async fn refund(&self, tenant_id: &str, subscription: &str) -> Result<RefundFact, ProviderError> {
        let query = json!({"subscription": subscription, "status": "paid", "limit": 100});
        let invoices: List<Identified> = self.get("/invoices", query).await?;
        let mut whole = RefundFact { amount: 0, currency: None };
        for invoice in invoices.data {
            let query = json!({"invoice": invoice.id, "status": "paid", "limit": 100});
            let payments: List<InvoicePayment> = self.get("/invoice_payments", query).await?;
            for intent in payments.data.into_iter().filter_map(|p| p.payment.payment_intent) {
                let done = self.refund_intent(tenant_id, &intent).await?;
                whole.amount += done.amount;
                whole.currency = done.currency.or(whole.currency);
            }
        }
        Ok(whole)
    }

    async fn refund_intent(&self, tenant_id: &str, intent: &str) -> Result<RefundObject, ProviderError> {
        // Look first: Stripe forgets an idempotency key after 24 hours.
        let made: List<RefundObject> = self.get("/refunds", json!({"payment_intent": intent, "limit": 10})).await?;
        let good = |r: &RefundObject| !matches!(r.status.as_deref(), Some("failed" | "canceled"));
        if let Some(refund) = made.data.into_iter().find(good) {
            return Ok(refund);
        }
        let form = json!({"payment_intent": intent, "metadata": {"tenant_id": tenant_id}});
        self.post("/refunds", form, &format!("{tenant_id}-refund-{intent}")).await
    }

    /// Cancels the tenant's subscription and expires its open Checkout session, where there are any.
    pub async fn cancel(&self, payer: &Payer<'_>) -> Result<(), ProviderError> {
        let gone = |e: ProviderError| if e.is_not_found() { Ok(()) } else { Err(e) };
        let billing = match self.read(payer).await {
            Err(e) if e.is_not_found() => return Ok(()),
            other => other?,
        };
        if let Some(session) = billing.session.filter(|s| s.state == SessionState::Open) {
            let key = format!("{}-expire-{}", payer.tenant_id, session.id);
            let path = format!("/checkout/sessions/{}/expire", session.id);
            self.post::<Identified>(&path, json!({}), &key).await.map(drop).or_else(gone)?;
        }
        if let Some(subscription) = billing.subscription.filter(|s| s.status != "canceled") {
            let request = RequestBuilder::new(StripeMethod::Delete, format!("/subscriptions/{}", subscription.id));
            self.send::<Identified>(request, None).await.map(drop).or_else(gone)?;
        }
        Ok(())
    }
}

fn fact(s: Subscription, customer_has_method: bool) -> SubscriptionFact {
    SubscriptionFact {
        id: s.id,
        status: s.status,
        payment_method: customer_has_method || s.default_payment_method.is_some_and(|v| !v.is_null()),
        paused: s.pause_collection.is_some_and(|v| !v.is_null()),
        trial_ends_at: s.trial_end.map(Timestamp::from_second),
    }
}

fn session_fact(s: Session) -> SessionFact {
    SessionFact {
        id: s.id,
        url: s.url,
        state: match s.status.as_deref() {
            Some("complete") => SessionState::Complete,
            Some("expired") => SessionState::Expired,
            _ => SessionState::Open,
        },
        expires_at: Timestamp::from_second(s.expires_at),
        attempt: s.metadata.and_then(|m| m.attempt).and_then(|a| a.parse().ok()).unwrap_or(1),
    }
}
