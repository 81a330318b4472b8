//! Stripe: requests by async-stripe's typed builders, so that a misspelt field does not compile, and a transport of
//! ours: async-stripe's own client hides the `Retry-After` header and turns an error page into a parse error. Answers
//! are read field by field, because Stripe moves fields between API versions and a tenant must not hang on one that we
//! never use.

mod bulk;
mod checkout;
mod collection;
mod disputes;
mod invoice_lines;
mod invoices;
mod keys;
mod meter_errors;
mod meter_notes;
mod metered_items;
mod meters;
mod objects;
mod place;
mod plan_change;
mod portal;
mod probe;
mod recovery;
mod renewal;
mod settlement;
mod waiver;

use std::cmp::Reverse;
use std::collections::HashMap;

use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use stripe_billing::subscription::{ListSubscription, ListSubscriptionStatus};
use stripe_checkout::checkout_session::ListCheckoutSession;
use stripe_client_core::{RequestBuilder, StripeMethod, StripeRequest};
use stripe_core::customer::{ListCustomer, RetrieveCustomer};

pub use bulk::{EventCursor, OwnedSubscription, StripeEvent};
pub use checkout::Sale;
pub use meter_errors::{MeterErrors, Told, is_meter_error};
pub use meter_notes::MeterNotes;
pub use metered_items::{MeteredItem, UsageSubscription};
pub use meters::UsagePriceError;
pub use probe::{EVENTS, Identity};
pub use recovery::Known;
pub use settlement::Holdings;

use objects::{Customer, List, Metadata, Session, Subscription, observe, observed_session};

use super::gate::Gate;
use super::{CallLimits, Caller, ProviderError};
use crate::api::Place;
use crate::lifecycle::{Blame, Fault, ObservedBilling, ObservedSession, ObservedSubscription, Provider, SessionState};

const PROVIDER: Provider = Provider::Stripe;
/// The version whose field names are read here.
const API_VERSION: &str = "2026-09-30.endive";
/// Objects a page, at most.
const PAGE: i64 = 100;
/// Metadata key that ties Stripe's objects to a tenant.
pub const TENANT_ID: &str = "tenant_id";
/// Metadata keys of subscriptions and sessions: the namespace and the name of the Tenant.
const TENANT_NAMESPACE: &str = "tenant_namespace";
const TENANT_NAME: &str = "tenant_name";
/// Metadata key with the plan that a subscription or session sells.
const PLAN: &str = "plan";
/// Metadata keys of a subscription that bills a smaller plan already: the one that is in force until the period ends,
/// and when that is, in seconds since 1970.
const PLAN_BEFORE: &str = "plan_before";
const PLAN_FROM: &str = "plan_from";
/// Metadata keys of a subscription whose price changes once the customer confirms the payment: the plan and its price.
/// A change that waits at Stripe takes no metadata along.
const PLAN_UNCONFIRMED: &str = "plan_unconfirmed";
const PRICE_UNCONFIRMED: &str = "price_unconfirmed";
/// Metadata key of a customer whose API key was replaced: its generation.
const KEY_GENERATION: &str = "api_key_generation";
/// Metadata key of a subscription whose tenant is closed: since when.
const CLOSED: &str = "closed";
/// Metadata key of such a subscription: the end that was set before, as a time or `PERIOD_END`.
const CANCEL_AT_BEFORE: &str = "cancel_at_before";
/// That the customer had cancelled it by themselves.
const PERIOD_END: &str = "period_end";

/// Metadata key of a subscription: the invoices whose refund a person settles outside of the operator.
const WAIVED: &str = "waived_refund";

/// Where Stripe is.
#[derive(Clone, Debug)]
pub struct StripeConfig {
    /// The base URL without a version, such as `https://api.stripe.com`.
    pub url: String,
    /// The secret key.
    pub api_key: SecretString,
    /// How it may be called.
    pub calls: CallLimits,
    /// Where Checkout sends the customer back to.
    pub frontend_url: String,
    /// Whether Checkout takes promotion codes.
    pub promotion_codes: bool,
}

/// A client.
#[derive(Debug)]
pub struct Stripe {
    config: StripeConfig,
    caller: Caller,
    gate: Gate,
    failed_keys: keys::FailedKeys,
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
    /// Whether Stripe must know the tenant: it has been paid for or served.
    pub known: bool,
    /// Whether a person has confirmed that Stripe no longer knows the customer.
    pub gone: bool,
    /// Whether the tenant's object is deleted. A customer who pays for something else as well is kept then, without the
    /// metadata that names the tenant: an interrupted deletion goes on.
    pub leaving: bool,
}

impl Stripe {
    /// A client; nothing is called yet.
    pub fn new(config: StripeConfig) -> Self {
        let caller = Caller::new(PROVIDER, config.calls);
        Self { config, caller, gate: Gate::new(PROVIDER), failed_keys: keys::FailedKeys::default() }
    }

    /// Lets calls through, or not.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    async fn send<T: DeserializeOwned>(&self, request: &RequestBuilder, key: Option<&str>) -> Result<T, ProviderError> {
        self.gate.pass().await?;
        self.call(request, key).await
    }

    /// Sends a request past the gate.
    async fn call<T: DeserializeOwned>(&self, request: &RequestBuilder, key: Option<&str>) -> Result<T, ProviderError> {
        // Paths are of API v1, unless they say otherwise.
        let version = if request.path.starts_with("/v2/") { "" } else { "/v1" };
        let mut url = format!("{}{version}{}", self.config.url, request.path);
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
                let call = call.bearer_auth(self.config.api_key.expose_secret()).header("stripe-version", API_VERSION);
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

    /// Sends a request that changes nothing, or sets a value. One that sets a value is not sent again inside the call
    /// unless Stripe said that it did not begin.
    async fn read_as<T: DeserializeOwned>(&self, request: impl StripeRequest) -> Result<T, ProviderError> {
        self.send(&request.build(), None).await
    }

    /// Sends a request that must happen once, even if its answer is lost.
    async fn once<T: DeserializeOwned>(&self, request: impl StripeRequest, key: &str) -> Result<T, ProviderError> {
        self.keyed(&request.build(), key).await
    }

    /// The tenant's customer: the one in the spec, or the one that carries the tenant's id.
    async fn find_customer(&self, payer: &Payer<'_>) -> Result<Found, ProviderError> {
        if let Some(id) = payer.customer_id {
            return match self.read_as::<Customer>(RetrieveCustomer::new(id)).await {
                Ok(customer) if customer.deleted => Ok(Found::Deleted),
                Ok(customer) if customer.metadata.tenant_id.as_deref() == Some(payer.tenant_id) => {
                    Ok(Found::Customer(customer.into()))
                }
                Ok(customer) => {
                    Ok(Found::Foreign { id: id.to_owned(), disowned: customer.metadata.tenant_id.is_none() })
                }
                // Not `deleted: true`: this account never had the customer, or test data was cleared.
                Err(e) if e.is_not_found() && payer.gone => Ok(Found::Deleted),
                Err(e) if e.is_not_found() => Err(unknown(
                    &e,
                    &format!("customer {id}"),
                    "Correct spec.billing.stripe.customerId; if the customer is gone for good, confirm it with `kubectl tenant confirm`",
                )),
                Err(e) => Err(e),
            };
        }
        let found: List<Customer> = self.read_as(ListCustomer::new().email(payer.email).limit(PAGE)).await?;
        let ours = found.data.into_iter().find(|c| c.metadata.tenant_id.as_deref() == Some(payer.tenant_id));
        match ours {
            Some(customer) => Ok(Found::Customer(customer.into())),
            None if payer.known => Err(unknown(
                &ProviderError { status: None, ..foreign("") },
                &format!("a customer of tenant {}", payer.tenant_id),
                "Write the customer's id into spec.billing.stripe.customerId",
            )),
            None => Ok(Found::NoCustomer),
        }
    }

    /// What Stripe says of the tenant.
    pub async fn read(&self, payer: &Payer<'_>) -> Result<ObservedBilling, ProviderError> {
        let customer = match self.find_customer(payer).await? {
            Found::Customer(customer) => customer,
            // Stripe cancels the subscriptions of a customer that is deleted.
            Found::NoCustomer | Found::Deleted => return Ok(ObservedBilling::default()),
            Found::Foreign { id, disowned: true } if payer.leaving => {
                // Subscriptions keep the tenant's id. The deletion has not ended one that still runs.
                let (subscriptions, _) = self.owned(payer, &id).await?;
                let over = !subscriptions.is_empty() && subscriptions.iter().all(Subscription::is_over);
                return if over { Ok(ObservedBilling::default()) } else { Err(foreign(&id)) };
            }
            Found::Foreign { id, .. } => return Err(foreign(&id)),
        };
        let (subscriptions, sessions) = self.owned(payer, &customer.id).await?;
        // Stripe keeps both for ever. A customer of a tenant that was paid for has at least one.
        if payer.known && subscriptions.is_empty() && sessions.is_empty() {
            return Err(unknown(
                &foreign(&customer.id),
                &format!("a subscription of tenant {} with customer {}", payer.tenant_id, customer.id),
                "Correct spec.billing.stripe.customerId",
            ));
        }
        let with_method = customer.invoice_settings.default_payment_method.is_some();
        let mut all: Vec<_> = subscriptions.iter().map(|s| observe(s, with_method)).collect();
        // Of several that are worth the same, the oldest counts: Stripe lists the newest first.
        all.reverse();
        all.sort_by_key(|s| Reverse(s.worth()));
        let billed = all.iter().skip(1).filter(|s| s.billed());
        let collected = billed.clone().filter(|s| !s.paused).map(|s| s.id.clone()).collect();
        let renewing = billed.clone().filter(|s| s.bills_again()).map(|s| s.id.clone()).collect();
        let surplus = billed.map(|s| s.id.clone()).collect();
        let moved = subscriptions.iter().any(|s| !s.is_over() && place::is_elsewhere(s.metadata.as_ref(), payer.place));
        let subscription = all.into_iter().next().map(|s| ObservedSubscription { elsewhere: moved, ..s });
        let observed = |s: Session| {
            let elsewhere = place::is_elsewhere(s.metadata.as_ref(), payer.place);
            ObservedSession { elsewhere, ..observed_session(s) }
        };
        let session = sessions.into_iter().map(observed).max_by_key(|s| (s.attempt, s.state == SessionState::Open));
        Ok(ObservedBilling {
            customer_id: Some(customer.id),
            subscription,
            session,
            surplus,
            surplus_collected: collected,
            surplus_renewing: renewing,
        })
    }

    /// The subscriptions and sessions of a customer that carry the tenant's id.
    async fn owned(
        &self,
        payer: &Payer<'_>,
        customer: &str,
    ) -> Result<(Vec<Subscription>, Vec<Session>), ProviderError> {
        let all = ListSubscriptionStatus::All;
        let (mut subscriptions, mut sessions) = tokio::try_join!(
            self.read_as::<List<Subscription>>(ListSubscription::new().customer(customer).status(all).limit(PAGE)),
            self.read_as::<List<Session>>(ListCheckoutSession::new().customer(customer).limit(PAGE)),
        )?;
        let ours = |m: &Option<Metadata>| m.as_ref().and_then(|m| m.tenant_id.as_deref()) == Some(payer.tenant_id);
        subscriptions.data.retain(|s| ours(&s.metadata));
        sessions.data.retain(|s| ours(&s.metadata));
        Ok((subscriptions.data, sessions.data))
    }

    /// The tenant's subscriptions that Stripe bills, newest first.
    pub async fn living(&self, payer: &Payer<'_>) -> Result<Vec<ObservedSubscription>, ProviderError> {
        let Found::Customer(customer) = self.find_customer(payer).await? else { return Ok(Vec::new()) };
        let (subscriptions, _) = self.owned(payer, &customer.id).await?;
        Ok(subscriptions.iter().map(|s| observe(s, false)).filter(ObservedSubscription::billed).collect())
    }

    /// The provider's calls, which show whether it is away.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

/// The customer of a tenant at Stripe.
enum Found {
    Customer(Box<Customer>),
    /// There is none yet.
    NoCustomer,
    /// There was one.
    Deleted,
    /// The spec names another customer than the tenant's.
    Foreign {
        /// The customer.
        id: String,
        /// Whether it names no tenant.
        disowned: bool,
    },
}

/// The metadata that ties an object of Stripe's to a tenant.
fn tenant(id: &str) -> HashMap<String, String> {
    [(TENANT_ID.to_owned(), id.to_owned())].into()
}

fn foreign(id: &str) -> ProviderError {
    ProviderError {
        provider: PROVIDER,
        status: None,
        reason: Fault::ForeignCustomer,
        message: format!("customer {id} belongs to another tenant: correct spec.billing.stripe.customerId"),
        blame: Blame::Mismatch,
        retryable: true,
        retry_after: None,
        tokens: None,
    }
}

/// Stripe does not know an object that the operator knows. The controller changes nothing, and asks an admin to decide.
fn unknown(error: &ProviderError, what: &str, fix: &str) -> ProviderError {
    ProviderError {
        reason: Fault::CustomerUnknown,
        message: format!("does not know {what}, so nothing is changed for this tenant. {fix}"),
        blame: Blame::Mismatch,
        retryable: true,
        retry_after: None,
        tokens: None,
        ..error.clone()
    }
}
