//! `tenant-operator web`

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use axum_client_ip::ClientIpSource;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::provider_args::{AdmissionArgs, ExportArgs, PortalArgs, RagArgs};
use super::{KubeArgs, span, stop_signal};
use crate::access_tokens::AccessTokens;
use crate::providers::alerts::Alerts;
use crate::serve::ConnectionLimits;
use crate::web::{Brand, MeteringConfig, Web, WebConfig, WebProviders, parse_source};

/// How long requests may go on at the end; Kubernetes kills after 30 seconds by default.
const DRAIN: Duration = Duration::from_secs(7);
/// Of a connection; a shorter one would close those that work.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(1);

/// A shorter one would have web list the Tenants every second.
const SHORTEST_TRUST: Duration = Duration::from_secs(4);

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    rag: RagArgs,
    #[command(flatten)]
    portal: PortalArgs,
    #[command(flatten)]
    admission: AdmissionArgs,
    #[command(flatten)]
    exports: ExportArgs,
    /// Slack-compatible webhook that tells your team of sales leads and the waitlist.
    #[arg(long, env = "ALERT_WEBHOOK_URL", hide_env_values = true)]
    alert_webhook_url: Option<SecretString>,
    /// Address to listen on.
    #[arg(long, env = "WEB_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address for metrics, which the internet must not reach.
    #[arg(long, env = "WEB_METRICS_LISTEN", default_value = "127.0.0.1:8082")]
    metrics_listen: SocketAddr,
    /// Namespace in which signups create Tenants.
    #[arg(long, env = "TENANT_NAMESPACE", default_value = "default")]
    namespace: String,
    /// Allow the namespace of signups to be the operator's own. An attacker in web can then read the signing key and
    /// every provider's key.
    #[arg(long, env = "SHARED_SIGNUP_NAMESPACE", value_parser = clap::builder::FalseyValueParser::new())]
    shared_signup_namespace: bool,
    /// Serve the tenants of these namespaces only, comma-separated. Default: all namespaces.
    #[arg(long, env = "WATCH_NAMESPACE", value_delimiter = ',', overrides_with = "served_namespaces")]
    served_namespaces: Vec<String>,
    /// Requests per second of one tenant to the tenant API of this replica; twice as many at once.
    #[arg(long, env = "REQUESTS_PER_SECOND", default_value = "20")]
    requests_per_second: NonZeroU32,
    /// Namespace of the operator's own Secrets.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    operator_namespace: String,
    /// Stripe webhook secrets, comma-separated while one is rotated.
    #[arg(
        long,
        env = "STRIPE_WEBHOOK_SECRET",
        hide_env_values = true,
        value_delimiter = ',',
        overrides_with = "stripe_webhook_secret"
    )]
    stripe_webhook_secret: Vec<SecretString>,
    /// Tokens of your own services that report usage events, comma-separated while one is rotated; at least 32
    /// characters each. Without one, no events are taken.
    #[arg(
        long,
        env = "USAGE_EVENTS_TOKEN",
        hide_env_values = true,
        value_delimiter = ',',
        overrides_with = "usage_events_token"
    )]
    usage_events_token: Vec<SecretString>,
    /// How long an upload may take: no longer than the controller's --upload-limit, after which an erasure deletes the
    /// data once more.
    #[arg(long, env = "UPLOAD_LIMIT", default_value = "5m", value_parser = span::some_seconds)]
    upload_limit: i64,
    /// URL of the ledger, which counts what tenants use.
    #[arg(long, env = "LEDGER_ENDPOINT", default_value = "http://127.0.0.1:8084")]
    ledger_url: Url,
    /// Folder that keeps what tenants used while the ledger is away, on a volume that outlives the pod. Without it,
    /// questions are refused while the ledger is away, also on plans that would serve them.
    #[arg(long, env = "LEDGER_JOURNAL", value_name = "FOLDER", value_parser = folder)]
    ledger_journal: Option<PathBuf>,
    /// How long a request waits for the ledger.
    #[arg(long, env = "LEDGER_PATIENCE", default_value = "3s", value_parser = span::duration)]
    ledger_patience: Duration,
    /// How long web, while it stops, waits for a ledger that is away to take what the journal holds. In a pod, choose
    /// less than its grace period: the journal ends with the pod.
    #[arg(long, default_value = "10s", value_parser = span::duration)]
    ledger_drain: Duration,
    /// How long a question is open at most; five times as long where its answer comes in pieces. After it, the ledger counts
    /// what is known of the question.
    #[arg(long, hide = true, default_value = "2m", value_parser = span::some_seconds)]
    question_expiry: i64,
    /// How long web serves with what Kubernetes last sent it, while the API server is away or web may not watch Tenants.
    /// After that, web answers 503 to requests with an API key, so that a suspended tenant is not served without end.
    /// Values below 4s become 4s.
    #[arg(long, env = "SERVE_WITHOUT_KUBERNETES", default_value = "1h", value_parser = span::duration)]
    serve_without_kubernetes: Duration,
    /// How long a signup waits for its payment link. A plain number is milliseconds.
    #[arg(long, default_value = "5s", value_parser = span::duration_or_millis)]
    checkout_wait_ms: Duration,
    /// URL of the frontend, whose pages may call this API from a browser.
    #[arg(long, env = "FRONTEND_URL", default_value = "http://localhost:8080")]
    frontend_url: String,
    /// Where a client's address is read from: `ConnectInfo`, or behind a proxy the header that the proxy sets, such as
    /// `RightmostXForwardedFor`.
    #[arg(long, env = "CLIENT_IP_SOURCE", default_value = "ConnectInfo", value_parser = parse_source)]
    client_ip: ClientIpSource,
    /// Signups per minute from one client address (one /64 for IPv6).
    #[arg(long, env = "SIGNUPS_PER_MINUTE", default_value = "30")]
    signups_per_minute: NonZeroU32,
    /// New messages to the sales team and new entries of the waitlist that each replica keeps in a day.
    #[arg(long, env = "LEADS_PER_DAY", default_value = "200")]
    leads_per_day: NonZeroU32,
    /// Messages to the sales team and entries of the waitlist that exist at once. More are refused. The controller
    /// counts them once a minute.
    #[arg(long, env = "LEADS_LIMIT", default_value = "2000")]
    leads_limit: NonZeroU32,
    /// When the sales team answers, as shown on the pages.
    #[arg(long, env = "SALES_REPLY", default_value = "within two working days")]
    sales_reply: String,
    /// Maximum number of open connections.
    #[arg(long, default_value = "2048")]
    max_connections: usize,
    /// Maximum number of open connections from one address (one /56 for IPv6), while --client-ip is `ConnectInfo`.
    #[arg(long, default_value = "1024")]
    max_connections_per_client: usize,
    /// How long a client may read nothing of an answer before its connection is closed.
    #[arg(long, default_value = "1m", value_parser = span::duration)]
    write_timeout: Duration,
    /// Requests per second from one client address (one /64 for IPv6) to the pages and to what needs no API key; twice
    /// as many at once.
    #[arg(long, env = "CLIENT_REQUESTS_PER_SECOND", default_value = "100")]
    client_requests_per_second: NonZeroU32,
    /// How long to wait for the headers of a request. Idle connections are closed after the same time, which must be
    /// longer than a load balancer in front of web keeps its own open: with most it is 60s, and requests on a
    /// connection that is just being closed fail.
    #[arg(long, default_value = "75s", value_parser = span::duration)]
    header_timeout: Duration,
    /// Time between SIGTERM and the last new connection, so that load balancers can take this replica out.
    #[arg(long, default_value = "2s", value_parser = span::duration)]
    shutdown_delay: Duration,
    /// Version of the terms that signups accept.
    #[arg(long, env = "TERMS_VERSION", default_value = "2026-01")]
    terms_version: String,
    /// Product name on pages.
    #[arg(long, env = "PRODUCT_NAME", default_value = "RAG Service")]
    product_name: String,
    /// Colour of buttons and links, as #rrggbb; white text must be readable on it.
    #[arg(long, env = "BRAND_COLOR", default_value = "#3653d8")]
    brand_color: String,
    /// URL where a customer who takes long with the setup can book a call.
    #[arg(long, env = "ONBOARDING_CALL_URL", default_value = "")]
    call_url: String,
    /// File to append activation events to, one line of JSON each. Default: the log, under the target activation.
    #[arg(long, env = "EVENTS_FILE", default_value = "")]
    events_file: String,
    /// URL of your terms.
    #[arg(long, env = "TERMS_URL", default_value = "")]
    terms_url: String,
    /// URL of your privacy policy.
    #[arg(long, env = "PRIVACY_URL", default_value = "")]
    privacy_url: String,
}

/// A folder. An empty one is none: clap refuses it by itself.
#[allow(clippy::unnecessary_wraps, reason = "clap takes functions that can fail")]
fn folder(path: &str) -> Result<PathBuf, std::convert::Infallible> {
    Ok(path.into())
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    crate::telemetry::init_traces("web")?;
    if args.namespace == args.operator_namespace {
        anyhow::ensure!(
            args.shared_signup_namespace,
            "TENANT_NAMESPACE and POD_NAMESPACE are both {}, where the signing key is: web may read every Secret of the \
             namespace of signups. Set TENANT_NAMESPACE to another namespace, or SHARED_SIGNUP_NAMESPACE=true to run at that risk",
            args.namespace
        );
        tracing::warn!("SHARED_SIGNUP_NAMESPACE is set: web may read the signing key and every provider's key");
    }
    let config = WebConfig {
        listen: args.listen,
        namespace: args.namespace,
        operator_namespace: args.operator_namespace,
        served_namespaces: args.served_namespaces.into_iter().filter(|n| !n.is_empty()).collect(),
        requests_per_second: args.requests_per_second,
        webhook_secrets: args.stripe_webhook_secret.into_iter().filter(|s| !s.expose_secret().is_empty()).collect(),
        usage_events_tokens: AccessTokens::new("USAGE_EVENTS_TOKEN", args.usage_events_token)?,
        upload_limit: Duration::from_secs(args.upload_limit.unsigned_abs()),
        serves_on: args.serve_without_kubernetes.max(SHORTEST_TRUST),
        checkout_wait: args.checkout_wait_ms,
        terms_version: args.terms_version,
        brand: Brand {
            sales_reply: args.sales_reply,
            product: args.product_name,
            color: args.brand_color,
            terms_url: args.terms_url,
            privacy_url: args.privacy_url,
        },
        call_url: args.call_url,
        events_file: (!args.events_file.is_empty()).then(|| args.events_file.into()),
        metrics_listen: args.metrics_listen,
        frontend_url: args.frontend_url,
        client_ip: args.client_ip.clone(),
        client_requests_per_second: args.client_requests_per_second,
        signups_per_minute: args.signups_per_minute,
        leads_per_day: args.leads_per_day,
        leads_limit: args.leads_limit,
        shutdown_delay: args.shutdown_delay,
        metering: MeteringConfig {
            url: args.ledger_url,
            journal: args.ledger_journal.filter(|folder| !folder.as_os_str().is_empty()),
            patience: args.ledger_patience,
            drain: args.ledger_drain,
            question_expiry: Duration::from_secs(args.question_expiry.unsigned_abs()),
            // An upload ends in time, but for what it has to take back.
            document_expiry: Duration::from_secs(args.upload_limit.unsigned_abs()) * 2,
        },
        connections: ConnectionLimits {
            connections: args.max_connections.max(1),
            // Behind a proxy, all connections are the proxy's.
            per_client: (args.client_ip == ClientIpSource::ConnectInfo)
                .then_some(args.max_connections_per_client.max(1)),
            write_timeout: args.write_timeout.max(SHORTEST_TIMEOUT),
            header_timeout: args.header_timeout.max(SHORTEST_TIMEOUT),
            drain: DRAIN,
        },
    };
    if config.webhook_secrets.is_empty() {
        tracing::warn!("STRIPE_WEBHOOK_SECRET is not set: every webhook is refused");
    }
    let models = args.rag.models();
    let providers = WebProviders {
        embedder: models.clone(),
        chat: models,
        indexes: args.rag.indexes(),
        portal: args.portal.stripe(&config.frontend_url),
        admission: args.admission.build()?,
        exports: args.exports.open()?,
        alerts: Alerts::new(args.alert_webhook_url.filter(|url| !url.expose_secret().is_empty())),
    };
    let web = Web::bind(kube.client().await?, config, providers).await?;
    println!("listening on http://{}", web.addr()?);
    println!("metrics on http://{}/metrics", web.metrics_addr()?);
    Ok(web.serve(stop_signal()).await?)
}
