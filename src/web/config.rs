//! How web runs, and whom it calls.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum_client_ip::ClientIpSource;
use secrecy::SecretString;

use super::{Admission, Brand, MeteringConfig};
use crate::access_tokens::AccessTokens;
use crate::export::Stores;
use crate::providers::alerts::Alerts;
use crate::providers::indexes::Indexes;
use crate::providers::models::{ChatModel, Embedder};
use crate::providers::stripe::Stripe;
use crate::serve::ConnectionLimits;

/// How web runs.
#[derive(Clone, Debug)]
pub struct WebConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where metrics are served, apart from what the internet reaches.
    pub metrics_listen: SocketAddr,
    /// Where signups make their Tenants.
    pub namespace: String,
    /// The namespaces whose tenants are served; all of them when empty.
    pub served_namespaces: Vec<String>,
    /// Requests of one tenant in a second, to the tenant API of this replica.
    pub requests_per_second: NonZeroU32,
    /// Where the operator's own Secrets are.
    pub operator_namespace: String,
    /// Stripe's webhook secrets; several while one rotates.
    pub webhook_secrets: Vec<SecretString>,
    /// What services show that report usage. None: none is taken.
    pub usage_events_tokens: AccessTokens,
    /// How long an upload may take. Not longer than the controller's setting of the same name.
    pub upload_limit: Duration,
    /// How long web serves with what Kubernetes last sent it.
    pub serves_on: Duration,
    /// How long a signup waits for the controller's payment link.
    pub checkout_wait: Duration,
    /// The version of the terms that signups accept.
    pub terms_version: String,
    /// How the pages look.
    pub brand: Brand,
    /// Where a customer whose setup takes long books a call. Empty where no calls are offered.
    pub call_url: String,
    /// The file that events are appended to; the log when absent.
    pub events_file: Option<PathBuf>,
    /// The origin whose pages may call this API from a browser.
    pub frontend_url: String,
    /// Where a client's address is read from.
    pub client_ip: ClientIpSource,
    /// Requests of one client address in a second, to what needs no API key.
    pub client_requests_per_second: NonZeroU32,
    /// Signups of one client address in a minute.
    pub signups_per_minute: NonZeroU32,
    /// New leads that this replica keeps in a day.
    pub leads_per_day: NonZeroU32,
    /// Leads that exist at once.
    pub leads_limit: NonZeroU32,
    /// How long web still takes requests after it was told to stop: load balancers send requests until they notice.
    pub shutdown_delay: Duration,
    /// Where the ledger is that counts what tenants use.
    pub metering: MeteringConfig,
    /// What a client gets.
    pub connections: ConnectionLimits,
}

/// Whom web calls.
#[derive(Debug)]
pub struct WebProviders {
    /// Embeds questions and documents.
    pub embedder: Arc<dyn Embedder>,
    /// Answers.
    pub chat: Arc<dyn ChatModel>,
    /// Hold the documents.
    pub indexes: Indexes,
    /// Opens the customer portal, with a restricted key. None if it is not offered.
    pub portal: Option<Stripe>,
    /// Who may sign up.
    pub admission: Admission,
    /// Tells the team of people who write.
    pub alerts: Alerts,
    /// Where the controller writes exports.
    pub exports: Stores,
}
