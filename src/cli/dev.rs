//! `tenant-operator dev`

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Parser;

use super::controller::WorkArgs;
use super::provider_args::{PortalArgs, ProviderArgs};
use super::{KubeArgs, stop_signal};
use crate::dev::cluster::{Binaries, Cluster};
use crate::dev::{self, DevConfig};
use crate::providers::alerts::Alerts;
use crate::sandbox::Sandbox;
use crate::web::{Admission, WebProviders};

#[derive(clap::Args)]
pub struct Args {
    /// Do the main job once, start to finish, and exit.
    #[arg(long)]
    demo: bool,
    /// Start the control plane alone, print its kubeconfig, and stop when standard input ends.
    #[arg(long)]
    cluster_only: bool,
    /// Where the data, the logs and the `env` file go.
    #[arg(long, default_value = ".dev")]
    folder: PathBuf,
    /// Allow a live Stripe key: real cards are then charged real money.
    #[arg(long)]
    allow_live: bool,
    /// The port of web; any when 0 or taken.
    #[arg(long, default_value = "8080")]
    web_port: u16,
}

impl Args {
    /// Where the logs go.
    pub fn log_file(&self) -> Option<std::fs::File> {
        std::fs::create_dir_all(&self.folder).ok()?;
        std::fs::File::create(self.folder.join("dev.log")).ok()
    }
}

/// The settings of the providers and the work by their own rules, with the sandbox as the default.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Settings {
    #[command(flatten)]
    providers: ProviderArgs,
    #[command(flatten)]
    work: WorkArgs,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    crate::telemetry::init_traces("dev")?;
    if args.cluster_only {
        return cluster_only(&args).await;
    }
    let stripe = std::env::var("STRIPE_SECRET_KEY").unwrap_or_default();
    if (stripe.starts_with("sk_live_") || stripe.starts_with("rk_live_")) && !args.allow_live {
        bail!("STRIPE_SECRET_KEY is a live key: real cards would be charged. Use a test key, or give --allow-live");
    }
    std::fs::create_dir_all(&args.folder)?;
    let folder = args.folder.canonicalize()?;
    let config = DevConfig { demo: args.demo, folder, web_port: args.web_port };
    let named = kube.named().then_some(kube.clone());
    let client = match &named {
        Some(kube) => Some(kube.client().await?),
        None => None,
    };
    let stop = stop_signal();
    let exports = config.folder.clone();
    let settings = move |sandbox: &Sandbox, web_url: &str| settings(sandbox, web_url, &exports);
    Box::pin(dev::run(config, client, settings, stop)).await
}

/// A provider whose key is set is the real one; every other is the sandbox's.
fn settings(sandbox: &Sandbox, web_url: &str, folder: &Path) -> anyhow::Result<dev::Settings> {
    let unset = |name: &str| std::env::var(name).map_or(true, |v| v.is_empty());
    let mut args = Vec::new();
    let mut give = |flag: &str, value: &str| args.extend([flag.to_owned(), value.to_owned()]);
    give("--operator-namespace", dev::OPERATOR_NAMESPACE);
    if unset("FRONTEND_URL") {
        give("--frontend-url", web_url);
    }
    let real_stripe = !unset("STRIPE_SECRET_KEY");
    if !real_stripe {
        give("--stripe-secret-key", "sk_test_sandbox");
        give("--stripe-url", &sandbox.stripe_url);
        give("--stripe-rate", "1000");
    }
    let real_pinecone = !unset("PINECONE_API_KEY");
    if !real_pinecone {
        give("--pinecone-api-key", "pc-sandbox");
        give("--pinecone-url", &sandbox.pinecone_url);
        give("--pinecone-rate", "1000");
    }
    let real_openai = !unset("OPENAI_API_KEY") || !unset("OPENAI_BASE_URL");
    if !real_openai {
        give("--openai-api-key", "sk-sandbox");
        give("--openai-base-url", &sandbox.openai_url);
    }
    let real_mail = !unset("SMTP_URL");
    if !real_mail {
        give("--smtp-url", &format!("smtp://{}", sandbox.smtp_addr));
    }
    if unset("ALERT_WEBHOOK_URL") {
        give("--alert-webhook-url", &format!("{}/_sandbox/alerts", sandbox.url));
    }
    if unset("EXPORTS_URL")
        && let Ok(url) = url::Url::from_file_path(folder.join("exports"))
    {
        give("--exports-url", url.as_str());
    }
    let parsed = Settings::try_parse_from(args)?;
    let p = &parsed.providers;
    let portal = PortalArgs { stripe_portal_key: p.stripe_secret_key.clone(), stripe_url: p.stripe_url.clone() };
    let models = p.rag.models();
    Ok(dev::Settings {
        providers: p.build()?,
        web: WebProviders {
            embedder: models.clone(),
            chat: models,
            indexes: p.rag.indexes(),
            portal: portal.stripe(&p.frontend_url),
            admission: Admission::default(),
            alerts: Alerts::new(p.alert_webhook_url.clone()),
            exports: parsed.work.exports.open()?,
        },
        controller: parsed.work.config(None, !parsed.providers.dpa_url.is_empty())?,
        real_stripe,
        env: vec![
            ("PINECONE_URL", p.rag.index.pinecone_url.clone().into()),
            ("PINECONE_API_KEY", p.rag.pinecone_api_key.clone()),
            ("STRIPE_URL", p.stripe_url.clone().into()),
            ("STRIPE_SECRET_KEY", p.stripe_secret_key.clone()),
            ("OPENAI_URL", p.rag.openai_base_url.clone().into()),
            ("OPENAI_BASE_URL", p.rag.openai_base_url.clone().into()),
            ("OPENAI_API_KEY", p.rag.openai_api_key.clone()),
            ("SMTP_URL", p.smtp_url.clone()),
            ("FRONTEND_URL", p.frontend_url.clone().into()),
        ],
    })
}

async fn cluster_only(args: &Args) -> anyhow::Result<()> {
    let binaries = Binaries::find().await?;
    std::fs::create_dir_all(&args.folder)?;
    let cluster = Cluster::start(&binaries, &args.folder.canonicalize()?).await?;
    println!("KUBECONFIG={}", cluster.kubeconfig.display());
    if let Some(kubectl) = &binaries.kubectl {
        println!("KUBECTL={}", kubectl.display());
    }
    println!("READY");
    let (sender, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        sender.send(())
    });
    tokio::select! {
        _ = ended => {}
        () = stop_signal() => {}
    }
    cluster.stop().await;
    Ok(())
}
