//! `tenant-operator dev`: the embedded default. A private control plane, the sandbox, the controller and web in one
//! process, and a table of their progress.

mod apply;
pub mod cluster;
mod demo;
mod endpoint;
mod table;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum_client_ip::ClientIpSource;
use futures::{Future, FutureExt};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use secrecy::{ExposeSecret, SecretString};

use crate::controller::{self, ControllerConfig, Providers};
use crate::operator_keys::IdentityKey;
use crate::pins::Pins;
use crate::sandbox::{Sandbox, SandboxConfig};
use crate::web::{Brand, ConnectionLimits, Web, WebConfig, WebProviders};
use cluster::{Binaries, Cluster};

pub use apply::{apply_crds, apply_yaml};

/// Where the operator's own keys are, apart from the customers in `default`.
pub const OPERATOR_NAMESPACE: &str = "tenant-operator";

/// How `dev` runs.
#[derive(Clone, Debug)]
pub struct DevConfig {
    /// Do the main job once and exit.
    pub demo: bool,
    /// Where the data, the logs and the `env` file go.
    pub folder: PathBuf,
    /// The port of web.
    pub web_port: u16,
}

/// Providers and settings, real or the sandbox's.
#[derive(Debug)]
pub struct Settings {
    /// The controller's clients.
    pub providers: Providers,
    /// Web's clients.
    pub web: WebProviders,
    /// The controller's settings.
    pub controller: ControllerConfig,
    /// Whether payments go to the real Stripe.
    pub real_stripe: bool,
    /// Lines for the `env` file.
    pub env: Vec<(&'static str, SecretString)>,
}

/// Where a user looks.
#[derive(Clone, Debug)]
struct Urls {
    web: String,
    metrics: String,
    sandbox: String,
}

/// Runs until `stop`, or until the demo is done. Leaves nothing running.
pub async fn run(
    config: DevConfig,
    client: Option<Client>,
    settings: impl FnOnce(&Sandbox, &str) -> anyhow::Result<Settings>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let stop = stop.shared();
    let (client, cluster) = if let Some(client) = client {
        (client, None)
    } else {
        let cluster = tokio::select! {
            cluster = private_cluster(&config.folder) => cluster?,
            () = stop.clone() => return Ok(()),
        };
        (client_of(&cluster.kubeconfig).await?, Some(cluster))
    };
    let outcome = serve(&config, client, cluster.as_ref(), settings, stop).await;
    if let Some(cluster) = cluster {
        eprintln!("Stopping the control plane.");
        cluster.stop().await;
    }
    outcome
}

async fn private_cluster(folder: &Path) -> anyhow::Result<Cluster> {
    let binaries = Binaries::find().await?;
    let start = Instant::now();
    let data = folder.join("cluster");
    if data.exists() {
        std::fs::remove_dir_all(&data).context("removing the data of an earlier run")?;
    }
    let cluster = Cluster::start(&binaries, &data).await?;
    eprintln!(
        "Control plane ready after {:.1} s (etcd and kube-apiserver on loopback).",
        start.elapsed().as_secs_f32()
    );
    Ok(cluster)
}

async fn client_of(kubeconfig: &Path) -> anyhow::Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

async fn serve(
    config: &DevConfig,
    client: Client,
    cluster: Option<&Cluster>,
    settings: impl FnOnce(&Sandbox, &str) -> anyhow::Result<Settings>,
    stop: impl Future<Output = ()> + Clone + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let sandbox = Sandbox::start(SandboxConfig {
        advertise: None,
        listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
        ports: [0; 5],
        webhook_secret: format!("whsec_{}", hex::encode(rand::random::<[u8; 12]>())),
        webhook_url: None,
        latency_ms: 0,
        data: None,
    })
    .await?;
    // Stripe sends customers back to web, so its address is known first.
    let addr = web_address(config.web_port)?;
    let settings = settings(&sandbox, &format!("http://{addr}"))?;
    let secret = endpoint::register(&sandbox.stripe_url, &format!("http://{addr}/webhooks/stripe")).await?;
    apply::namespace(&client, OPERATOR_NAMESPACE).await?;
    // The controller's to make, but web starts first.
    IdentityKey::load(&client, OPERATOR_NAMESPACE).await?;
    apply::apply_crds(&client).await?;
    let quick = tokio::time::Instant::now() + apply::CREATES_WAIT;
    apply::plans(&client, &sandbox).await?;
    Pins::forget_sandbox(&client, "default").await?;
    let upload_limit = Duration::from_secs(settings.controller.policy.upload_limit.unsigned_abs());
    let web = web(addr, &client, (&config.folder, upload_limit), &secret, settings.web).await?;
    let urls = Urls {
        web: format!("http://{}", web.addr()?),
        metrics: format!("http://{}/metrics", web.metrics_addr()?),
        sandbox: sandbox.url.clone(),
    };
    sandbox.show_templates(serde_json::json!(settings.providers.mail.previews()));
    let env = environment(&urls, &sandbox, cluster.map(|c| c.kubeconfig.as_path()), &secret, &settings.env);
    let (finish, finished) = tokio::sync::watch::channel(false);
    let done = || {
        let mut finished = finished.clone();
        async move { drop(finished.wait_for(|done| *done).await) }
    };
    let mut serving = tokio::spawn(web.serve(done()));
    let mut controlling =
        tokio::spawn(controller::run(client.clone(), settings.controller, settings.providers, done()));
    let work = async {
        // Part of the start, not of the first signup.
        tokio::time::sleep_until(quick).await;
        if config.demo {
            write_env(config, &env, &programs(cluster))?;
            return demo::run(&client, &urls, settings.real_stripe).await;
        }
        apply::tenants(&client).await?;
        // Written last: a script that waits for this file finds everything ready.
        write_env(config, &env, &programs(cluster))?;
        announce(&urls, config);
        table::show(&client, None).await
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        ended = &mut serving => return Ok(ended??),
        ended = &mut controlling => return Ok(ended??),
        () = stop => Ok(()),
    };
    finish.send_replace(true);
    let ended = futures::future::join(serving, controlling);
    if tokio::time::timeout(Duration::from_secs(5), ended).await.is_err() {
        tracing::warn!("web or the controller did not end in time");
    }
    outcome
}

/// The requested port, or any free one.
fn web_address(wished: u16) -> std::io::Result<SocketAddr> {
    let bind = |port| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    bind(wished).or_else(|_| bind(0))?.local_addr()
}

async fn web(
    addr: SocketAddr,
    client: &Client,
    (folder, upload_limit): (&Path, Duration),
    secret: &SecretString,
    providers: WebProviders,
) -> anyhow::Result<Web> {
    let web = WebConfig {
        listen: addr,
        namespace: "default".into(),
        operator_namespace: OPERATOR_NAMESPACE.into(),
        served_namespaces: Vec::new(),
        requests_per_second: NonZeroU32::MIN.saturating_add(99),
        webhook_secrets: vec![secret.clone()],
        upload_limit,
        checkout_wait: Duration::from_secs(10),
        terms_version: "2026-01".into(),
        brand: Brand {
            sales_reply: "within two working days".into(),
            product: "RAG Service".into(),
            color: "#3653d8".into(),
            terms_url: String::new(),
            privacy_url: String::new(),
        },
        call_url: String::new(),
        events_file: Some(folder.join("events.jsonl")),
        metrics_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        frontend_url: format!("http://{addr}"),
        client_ip: ClientIpSource::ConnectInfo,
        client_requests_per_second: NonZeroU32::MAX,
        signups_per_minute: NonZeroU32::MIN.saturating_add(999),
        leads_per_day: NonZeroU32::MIN.saturating_add(199),
        leads_limit: NonZeroU32::MIN.saturating_add(1999),
        shutdown_delay: Duration::ZERO,
        connections: ConnectionLimits {
            connections: 256,
            per_client: None,
            write_timeout: Duration::from_mins(1),
            header_timeout: Duration::from_secs(75),
            drain: Duration::from_secs(3),
        },
    };
    Ok(Web::bind(client.clone(), web, providers).await?)
}

fn environment(
    urls: &Urls,
    sandbox: &Sandbox,
    kubeconfig: Option<&Path>,
    secret: &SecretString,
    providers: &[(&'static str, SecretString)],
) -> Vec<(&'static str, String)> {
    let mut env = vec![
        ("WEB_URL", urls.web.clone()),
        ("METRICS_URL", urls.metrics.clone()),
        ("SANDBOX_URL", sandbox.url.clone()),
        ("SMTP_ADDR", sandbox.smtp_addr.to_string()),
        ("MAILBOX_URL", format!("{}/mailbox", sandbox.url)),
        ("ADMIN_TOKEN", hex::encode(rand::random::<[u8; 16]>())),
        ("STRIPE_WEBHOOK_SECRET", secret.expose_secret().to_owned()),
        // For `kubectl tenant adopt` and others that need the operator's keys.
        ("POD_NAMESPACE", OPERATOR_NAMESPACE.to_owned()),
    ];
    env.extend(kubeconfig.map(|path| ("KUBECONFIG", path.display().to_string())));
    env.extend(providers.iter().map(|(name, value)| (*name, value.expose_secret().to_owned())));
    env
}

/// The folders of kubectl, where we built it, and of `kubectl tenant`.
fn programs(cluster: Option<&Cluster>) -> Vec<PathBuf> {
    let kubectl = cluster.and_then(|c| c.kubectl.as_deref()).and_then(Path::parent).map(Path::to_path_buf);
    let ours = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    kubectl.into_iter().chain(ours).collect()
}

fn write_env(config: &DevConfig, env: &[(&'static str, String)], programs: &[PathBuf]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let path = config.folder.join("env");
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    for (name, value) in env {
        writeln!(file, "export {name}={}", quoted(value))?;
    }
    for folder in programs {
        writeln!(file, "export PATH={}:\"$PATH\"", quoted(&folder.display().to_string()))?;
    }
    Ok(())
}

fn announce(urls: &Urls, config: &DevConfig) {
    println!("Web       {}", urls.web);
    println!("Mailbox   {}/mailbox", urls.sandbox);
    println!("E-mails   {}/mail-templates", urls.sandbox);
    println!("Shell     source {}/env, then kubectl get tenants", config.folder.display());
    println!("Stop      Ctrl-C\n");
}
