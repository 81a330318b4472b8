//! `tenant-operator web`

use std::net::SocketAddr;
use std::time::Duration;

use super::provider_args::RagArgs;
use super::{KubeArgs, stop_signal};
use crate::web::{Web, WebConfig};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    rag: RagArgs,
    /// Where to listen.
    #[arg(long, env = "WEB_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where signups make their Tenants.
    #[arg(long, env = "TENANT_NAMESPACE", default_value = "default")]
    namespace: String,
    /// Where the operator's own Secrets are.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    operator_namespace: String,
    /// Stripe's webhook secrets, comma-separated while one rotates.
    #[arg(long, env = "STRIPE_WEBHOOK_SECRET", hide_env_values = true, value_delimiter = ',')]
    stripe_webhook_secret: Vec<String>,
    /// How long a signup waits for the controller's payment link, in milliseconds.
    #[arg(long, default_value = "5000")]
    checkout_wait_ms: u64,
    /// The version of the terms that signups accept.
    #[arg(long, env = "TERMS_VERSION", default_value = "2026-01")]
    terms_version: String,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let config = WebConfig {
        listen: args.listen,
        namespace: args.namespace,
        operator_namespace: args.operator_namespace,
        webhook_secrets: args.stripe_webhook_secret.into_iter().filter(|s| !s.is_empty()).collect(),
        checkout_wait: Duration::from_millis(args.checkout_wait_ms),
        terms_version: args.terms_version,
    };
    if config.webhook_secrets.is_empty() {
        tracing::warn!("STRIPE_WEBHOOK_SECRET is not set: every webhook is refused");
    }
    let web = Web::bind(kube.client().await?, config, args.rag.openai(), args.rag.pinecone()).await?;
    println!("listening on http://{}", web.addr()?);
    Ok(web.serve(stop_signal()).await?)
}
