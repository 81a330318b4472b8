//! `tenant-operator preflight`

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use clap::{Parser, ValueEnum};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Mutex, OnceCell};

use super::provider_args::IndexArgs;
use super::{KubeArgs, span};
use crate::preflight::{Check, Report, Target, checks, reference, run as run_checks};
use crate::providers::CallLimits;
use crate::providers::mail::{Mail, MailConfig};
use crate::providers::openai::{OpenAi, OpenAiConfig};
use crate::providers::stripe::{Stripe, StripeConfig};

/// How the report is printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs; holds everything that the text does.
    Json,
}

/// Check the cluster, the providers and their keys before customers sign up.
///
/// Exit codes: 0 when all is well, 1 when a check failed, 2 when there are warnings.
#[derive(clap::Args, Clone)]
pub struct Args {
    /// Run these areas only, comma-separated: kubernetes, access, stripe, pinecone, openai, mail, web, ledger, clock.
    #[arg(value_delimiter = ',')]
    areas: Vec<String>,
    /// How to print the report.
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
    /// Fail on warnings: exit with 1 instead of 2.
    #[arg(long)]
    strict: bool,
    /// Change nothing at the providers, only warn of one that does not answer, and exit 0 on warnings: for the start of
    /// a pod.
    #[arg(long, conflicts_with = "strict")]
    startup: bool,
    /// Check the rights of this account as well. On by default in a pod.
    #[arg(long)]
    permissions: bool,
    /// Send a test e-mail to this address.
    #[arg(long)]
    test_mail: Option<String>,
    /// Check that web answers at this URL.
    #[arg(long, overrides_with = "web_url")]
    web_url: Option<String>,
    /// Check the ledger at this URL.
    #[arg(long, env = "LEDGER_ENDPOINT", overrides_with = "ledger_url")]
    ledger_url: Option<Url>,
    /// Print the documentation of all checks as Markdown instead.
    #[arg(long, hide = true)]
    reference: bool,
    /// Watched namespaces, comma-separated. Default: all namespaces.
    #[arg(long = "namespace", env = "WATCH_NAMESPACE", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Namespace of the operator's own Secrets and Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    operator_namespace: String,
    /// Namespace in which signups create Tenants, for the check that it is not the operator's own.
    #[arg(long, env = "TENANT_NAMESPACE")]
    signup_namespace: Option<String>,
    /// Only warn if it is the operator's own.
    #[arg(long, env = "SHARED_SIGNUP_NAMESPACE", value_parser = clap::builder::FalseyValueParser::new())]
    shared_signup_namespace: bool,
    /// Stripe secret key.
    #[arg(long, env = "STRIPE_SECRET_KEY", hide_env_values = true)]
    stripe_secret_key: Option<SecretString>,
    /// Base URL of Stripe.
    #[arg(long, env = "STRIPE_URL", default_value = STRIPE)]
    stripe_url: String,
    /// Stripe webhook secrets, comma-separated.
    #[arg(long, env = "STRIPE_WEBHOOK_SECRET", hide_env_values = true, value_delimiter = ',')]
    stripe_webhook_secret: Option<Vec<SecretString>>,
    /// Pinecone API key.
    #[arg(long, env = "PINECONE_API_KEY", hide_env_values = true)]
    pinecone_api_key: Option<SecretString>,
    #[command(flatten)]
    index: IndexArgs,
    /// Namespaces that Pinecone allows for the index: 100 (Starter), 1000 (Builder) or 100000 (Standard).
    #[arg(long, env = "PINECONE_NAMESPACE_LIMIT", default_value = "100000")]
    pinecone_namespace_limit: u64,
    /// API key of the OpenAI-compatible API.
    #[arg(long, env = "OPENAI_API_KEY", hide_env_values = true)]
    openai_api_key: Option<SecretString>,
    /// Base URL of the OpenAI-compatible API, with the version.
    #[arg(long, env = "OPENAI_BASE_URL", default_value = "https://api.openai.com/v1")]
    openai_base_url: String,
    /// Mail server: smtp://host:port or <smtps://user:password@host>.
    #[arg(long, env = "SMTP_URL", hide_env_values = true)]
    smtp_url: Option<SecretString>,
    /// Sender of e-mails.
    #[arg(long, env = "FROM_EMAIL", default_value = "hello@example.com")]
    from_email: String,
    /// Selectors of your DKIM keys, comma-separated, as your mail provider shows them.
    #[arg(long, env = "DKIM_SELECTORS", value_delimiter = ',', overrides_with = "dkim_selectors")]
    dkim_selectors: Vec<String>,
    /// Name server to ask, such as 1.1.1.1:53. Default: those of /etc/resolv.conf.
    #[arg(long, env = "DNS_SERVER")]
    dns_server: Option<SocketAddr>,
    /// URL at which customers reach the service.
    #[arg(long, env = "FRONTEND_URL", default_value = "http://localhost:8080")]
    frontend_url: String,
    /// Timeout of one call to a provider. A plain number is milliseconds.
    #[arg(long, env = "PROVIDER_TIMEOUT_MS", default_value = "10s", value_parser = span::duration_or_millis)]
    provider_timeout_ms: Duration,
}

const STRIPE: &str = "https://api.stripe.com";
const PER_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();

impl Args {
    async fn target(self, kube: &KubeArgs) -> Target {
        let calls = CallLimits { per_second: PER_SECOND, timeout: self.provider_timeout_ms, retries: 1 };
        let url = |url: &str| url.trim_end_matches('/').to_owned();
        let set = |secret: Option<SecretString>| secret.filter(|s| !s.expose_secret().is_empty());
        let stripe = set(self.stripe_secret_key).map(|key| {
            let config = StripeConfig {
                url: url(&self.stripe_url),
                api_key: key.clone(),
                calls,
                frontend_url: url(&self.frontend_url),
                promotion_codes: false,
            };
            (Stripe::new(config), key)
        });
        let indexes = set(self.pinecone_api_key).map(|api_key| self.index.open(api_key, calls));
        let openai = set(self.openai_api_key)
            .map(|api_key| OpenAi::new(OpenAiConfig { url: url(&self.openai_base_url), api_key, calls }));
        let mail = set(self.smtp_url).map(|smtp_url| {
            Mail::new(MailConfig {
                smtp_url,
                from: self.from_email.clone(),
                product: "tenant-operator".into(),
                frontend_url: url(&self.frontend_url),
                docs_url: String::new(),
                dpa_url: String::new(),
                win_back_offer: String::new(),
                pages_namespace: String::new(),
                templates: None,
            })
            .map_err(|e| e.to_string())
        });
        Target {
            kubernetes: kube.client().await.map_err(|e| format!("no cluster: {}", super::describe(&e))),
            operator_namespace: self.operator_namespace,
            signup_namespace: self.signup_namespace.filter(|namespace| !namespace.is_empty()),
            shared_signup_namespace: self.shared_signup_namespace,
            namespaces: self.namespaces.into_iter().filter(|n| !n.is_empty()).collect(),
            permissions: self.permissions || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
            stripe,
            real_stripe: url(&self.stripe_url) == STRIPE,
            webhook_secrets: self.stripe_webhook_secret,
            frontend_url: self.frontend_url,
            indexes,
            namespace_limit: self.pinecone_namespace_limit,
            openai,
            mail,
            from_email: self.from_email,
            dkim_selectors: self.dkim_selectors.into_iter().filter(|s| !s.is_empty()).collect(),
            dns_server: self.dns_server,
            test_mail: self.test_mail,
            web_url: self.web_url,
            ledger_url: self.ledger_url,
            writes: !self.startup,
            startup: self.startup,
            plans: OnceCell::new(),
        }
    }
}

/// How long a report is reused for requests by HTTP.
const STANDS: Duration = Duration::from_mins(1);

/// `GET /preflight` for monitors: every check that writes nothing, at most once a minute. 200 when none failed, else
/// 503.
pub fn routes(kube: &KubeArgs) -> anyhow::Result<axum::Router> {
    // With the pod's own variables, as `tenant-operator preflight` there would have.
    let args = Alone::try_parse_from(["preflight"])?.args;
    let (kube, last) = (kube.clone(), Arc::<Mutex<Option<(Instant, Report)>>>::default());
    let report = move || {
        let (kube, args, last) = (kube.clone(), args.clone(), last.clone());
        async move {
            // A request during a run waits for the same report.
            let mut last = last.lock().await;
            if last.as_ref().is_none_or(|(at, _)| at.elapsed() > STANDS) {
                let target = Target { writes: false, ..args.target(&kube).await };
                *last = Some((Instant::now(), run_checks(&target, &[]).await));
            }
            let report = last.as_ref().map(|(_, report)| report.clone());
            let failed = report.as_ref().is_none_or(|r| r.exit_code(false) == 1);
            let status = if failed { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            (status, axum::Json(report))
        }
    };
    Ok(axum::Router::new().route("/preflight", axum::routing::get(report)))
}

/// The arguments as a command of their own.
#[derive(clap::Parser)]
struct Alone {
    #[command(flatten)]
    args: Args,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<ExitCode> {
    if args.reference {
        print!("{}", reference());
        return Ok(ExitCode::SUCCESS);
    }
    let (areas, output, strict, startup) = (args.areas.clone(), args.output, args.strict, args.startup);
    let known: BTreeSet<_> = checks().into_iter().flatten().map(Check::area).collect();
    if let Some(unknown) = areas.iter().find(|area| !known.contains(area.as_str())) {
        let known: Vec<_> = known.into_iter().collect();
        anyhow::bail!("there is no such area as {unknown:?}: use {}", known.join(", "));
    }
    let report = run_checks(&args.target(kube).await, &areas).await;
    match output {
        Output::Text => println!("{}", report.text()),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    let code = report.exit_code(strict);
    Ok(ExitCode::from(if startup && code == 2 { 0 } else { code }))
}
