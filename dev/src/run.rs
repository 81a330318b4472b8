//! From the start of everything to its end.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use futures::{Future, FutureExt};
use tenant_operator::operator_keys;
use tenant_operator_sandbox::{Sandbox, SandboxConfig};

use crate::access::Access;
use crate::cluster::{Binaries, Cluster};
use crate::operator::{self, Addresses, Setup};
use crate::providers::Providers;
use crate::{OPERATOR_NAMESPACE, Urls, apply, demo, endpoint, env_file, table};

/// How everything runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Do the main job once and exit.
    pub demo: bool,
    /// Where the data, the logs and the `env` file go.
    pub folder: PathBuf,
    /// The port of web.
    pub web_port: u16,
}

/// Runs until `stop`, or until the demo is done. Leaves nothing running. Without a named cluster, it starts one.
pub async fn run(
    config: Config,
    named: Option<Access>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let program = operator::program()?;
    let stop = stop.shared();
    let (access, cluster) = if let Some(access) = named {
        (access, None)
    } else {
        let cluster = tokio::select! {
            cluster = private_cluster(&config.folder) => cluster?,
            () = stop.clone() => return Ok(()),
        };
        (Access { kubeconfig: Some(cluster.kubeconfig.clone()), context: None }, Some(cluster))
    };
    let outcome = serve(&config, program, &access, cluster.as_ref(), stop).await;
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
    // What an earlier run's tenants used goes with them.
    for old in [&data, &folder.join("ledger"), &folder.join("journal")] {
        if old.exists() {
            std::fs::remove_dir_all(old).context("removing the data of an earlier run")?;
        }
    }
    let cluster = Cluster::start(&binaries, &data).await?;
    eprintln!(
        "Control plane ready after {:.1} s (etcd and kube-apiserver on loopback).",
        start.elapsed().as_secs_f32()
    );
    Ok(cluster)
}

async fn sandbox() -> std::io::Result<Sandbox> {
    Sandbox::start(SandboxConfig {
        advertise: None,
        listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
        ports: [0; 5],
        webhook_secret: format!("whsec_{}", hex::encode(rand::random::<[u8; 12]>())),
        webhook_url: None,
        latency_ms: 0,
        data: None,
    })
    .await
}

async fn serve(
    config: &Config,
    program: PathBuf,
    access: &Access,
    cluster: Option<&Cluster>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let client = access.client().await?;
    let sandbox = sandbox().await?;
    // Stripe sends customers back to web, so its address is known first.
    let at = Addresses::choose(config.web_port)?;
    let urls = Urls {
        web: format!("http://{}", at.web),
        metrics: format!("http://{}/metrics", at.metrics),
        sandbox: sandbox.url.clone(),
        admin: format!("http://{}", at.admin),
    };
    let providers = Providers::choose(&|name| std::env::var(name).ok(), &sandbox, &urls.web, &config.folder);
    let secret = endpoint::register(&sandbox.stripe_url, &format!("{}/webhooks/stripe", urls.web)).await?;
    apply::namespace(&client, OPERATOR_NAMESPACE).await?;
    apply::apply_crds(&client).await?;
    let quick = tokio::time::Instant::now() + apply::CREATES_WAIT;
    apply::plans(&client, &sandbox).await?;
    apply::forget_pins(&client, OPERATOR_NAMESPACE).await?;
    let ledger_key = config.folder.join("ledger.key");
    env_file::secret(&ledger_key, &ledger_key_of(&client).await?)?;
    let token = || hex::encode(rand::random::<[u8; 32]>());
    let (usage_events_token, admin_token) = (token(), token());
    let setup = Setup {
        program,
        access,
        providers: &providers,
        folder: &config.folder,
        ledger_key: &ledger_key,
        usage_events_token: &usage_events_token,
        admin_token: &admin_token,
    };
    sandbox.show_templates(setup.mail_previews().await?);
    let mut env = environment(&urls, &sandbox, cluster, &secret, &providers);
    env.push(("LEDGER_ENDPOINT", format!("http://{}", at.ledger)));
    env.push(("LEDGER_KEY_FILE", ledger_key.display().to_string()));
    env.push(("USAGE_EVENTS_TOKEN", usage_events_token.clone()));
    env.push(("ADMIN_URL", urls.admin.clone()));
    env.push(("ADMIN_TOKEN", admin_token.clone()));
    let write_env = || env_file::write(&config.folder.join("env"), &env, &env_file::programs(cluster));
    let mut operator = setup.start(at, &secret)?;
    let work = async {
        operator::ready(at).await?;
        // Part of the start, not of the first signup.
        tokio::time::sleep_until(quick).await;
        if config.demo {
            write_env()?;
            return demo::run(&client, &urls, providers.real_stripe).await;
        }
        apply::tenants(&client).await?;
        // Written last: a script that waits for this file finds everything ready.
        write_env()?;
        announce(&urls, &admin_token, config);
        table::show(&client, None).await
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        error = operator.ended() => Err(error),
        () = stop => Ok(()),
    };
    operator.stop().await;
    outcome
}

/// The ledger's key, which its process reads from a file, as its pod does.
async fn ledger_key_of(client: &kube::Client) -> anyhow::Result<String> {
    Ok(operator_keys::ledger_key(client, OPERATOR_NAMESPACE).await?.digits())
}

fn environment(
    urls: &Urls,
    sandbox: &Sandbox,
    cluster: Option<&Cluster>,
    webhook_secret: &str,
    providers: &Providers,
) -> Vec<(&'static str, String)> {
    let mut env = vec![
        ("WEB_URL", urls.web.clone()),
        ("METRICS_URL", urls.metrics.clone()),
        ("SANDBOX_URL", sandbox.url.clone()),
        ("SMTP_ADDR", sandbox.smtp_addr.to_string()),
        ("MAILBOX_URL", format!("{}/mailbox", sandbox.url)),
        ("STRIPE_WEBHOOK_SECRET", webhook_secret.to_owned()),
        // For `kubectl tenant adopt` and others that need the operator's keys.
        ("POD_NAMESPACE", OPERATOR_NAMESPACE.to_owned()),
    ];
    env.extend(cluster.map(|cluster| ("KUBECONFIG", cluster.kubeconfig.display().to_string())));
    env.extend(providers.shown.iter().cloned());
    env
}

fn announce(urls: &Urls, admin_token: &str, config: &Config) {
    let folder = config.folder.display();
    println!("Web       {}", urls.web);
    println!("Admin     {}/admin, with the token {admin_token}", urls.admin);
    println!("Mailbox   {}/mailbox", urls.sandbox);
    println!("E-mails   {}/mail-templates", urls.sandbox);
    println!("Shell     source {folder}/env, then kubectl get tenants");
    println!("Logs      {folder}/ledger.log, controller.log and web.log");
    println!("Stop      Ctrl-C\n");
}
