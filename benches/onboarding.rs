//! `make bench`: many tenants from creation to Active beside a bare client that does the same writes, one tenant on an
//! idle system, and the controller's memory. Prints figures and ratios of this one run.

// Counts and seconds of a benchmark are far from where these casts lose anything.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tenant_operator::api::conditions::{WELCOME_EMAIL_SENT, is_true};
use tenant_operator::api::tenant::{Billing, BillingMode};
use tenant_operator::api::{Phase, Tenant, TenantSpec, TenantStatus};
use tenant_operator::dev::cluster::{Binaries, Cluster};
use tenant_operator::dev::{apply_crds, apply_yaml};

const TENANTS: usize = 1000;
const IN_FLIGHT: usize = 32;
const SINGLES: usize = 40;
/// What `tenant-operator sandbox` prints at its start.
const SANDBOX_LINES: usize = 5;

fn tenant(name: &str) -> Tenant {
    Tenant::new(
        name,
        TenantSpec {
            company_name: "Analytical Engines".into(),
            admin_email: format!("{name}@example.com"),
            plan: "enterprise".into(),
            billing: Billing { mode: BillingMode::Manual, approved: true, stripe: None },
            tenant_id: None,
            login: None,
            terms: None,
            api_key_generation: 1,
        },
    )
}

/// A process that ends with the scope.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The providers' stand-ins, in a process of their own.
struct Providers {
    process: Process,
    env: Vec<(String, String)>,
}

impl Providers {
    fn start(latency_ms: u64) -> anyhow::Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tenant-operator"))
            .args(["sandbox", "--latency-ms", &latency_ms.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("piped")?;
        let process = Process(child);
        let mut env = Vec::new();
        for line in BufReader::new(out).lines().take(SANDBOX_LINES) {
            let line = line?;
            let (name, value) = line.split_once('=').context("NAME=value")?;
            env.push((name.to_owned(), value.to_owned()));
            if name == "SMTP_ADDR" {
                env.push(("SMTP_URL".into(), format!("smtp://{value}")));
            }
        }
        Ok(Self { process, env })
    }
}

/// A controller of its own for one namespace, with providers of its own.
struct Controller {
    process: Process,
    providers: Providers,
    port: u16,
}

impl Controller {
    fn start(cluster: &Cluster, namespace: &str, latency_ms: u64) -> anyhow::Result<Self> {
        let providers = Providers::start(latency_ms)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new(env!("CARGO_BIN_EXE_tenant-operator"))
            .args(["controller", "--namespace", namespace, "--listen", &format!("127.0.0.1:{port}")])
            .arg("--kubeconfig")
            .arg(&cluster.kubeconfig)
            .envs([("POD_NAMESPACE", namespace), ("PINECONE_API_KEY", "x"), ("STRIPE_SECRET_KEY", "sk_test_x")])
            .envs(providers.env.iter().cloned())
            .envs([("PINECONE_RATE", "100000"), ("RUST_LOG", "error")])
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { process: Process(child), providers, port })
    }

    fn resident_mb(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.0.id()))?;
        let line = status.lines().find(|l| l.starts_with("VmRSS")).context("VmRSS")?;
        Ok(line.split_whitespace().nth(1).unwrap_or("0").parse::<f64>()? / 1024.0)
    }

    /// The sum of a counter over the labels that `counts` takes.
    async fn metric(&self, name: &str, counts: impl Fn(&str) -> bool) -> anyhow::Result<u64> {
        let text = reqwest::get(format!("http://127.0.0.1:{}/metrics", self.port)).await?.text().await?;
        let lines = text.lines().filter(|l| l.starts_with(name) && counts(l));
        Ok(lines.filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }

    /// Kubernetes writes that take a tenant to Active, and those after it.
    async fn writes(&self) -> anyhow::Result<(u64, u64)> {
        let after = |line: &str| line.contains("\"notice\"") || line.contains("\"condition\"");
        let name = "kubernetes_writes_total";
        Ok((self.metric(name, |l| !after(l)).await?, self.metric(name, after).await?))
    }
}

async fn namespace(client: &Client, name: &str) -> anyhow::Result<Api<Tenant>> {
    let object =
        Namespace { metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() }, ..Namespace::default() };
    Api::all(client.clone()).create(&PostParams::default(), &object).await?;
    Ok(Api::namespaced(client.clone(), name))
}

async fn create_all(api: &Api<Tenant>, count: usize) -> anyhow::Result<()> {
    stream::iter(0..count)
        .map(|i| async move { api.create(&PostParams::default(), &tenant(&format!("t{i}"))).await })
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(async |_| Ok(()))
        .await?;
    Ok(())
}

/// Waits until so many tenants are as wanted.
async fn until(api: &Api<Tenant>, count: usize, wanted: impl Fn(&TenantStatus) -> bool) -> anyhow::Result<()> {
    let mut changes =
        std::pin::pin!(watcher(api.clone(), watcher::Config::default()).default_backoff().applied_objects());
    let mut there = HashSet::new();
    while let Some(tenant) = changes.try_next().await? {
        let status = tenant.status.as_ref();
        if status.and_then(|s| s.phase) == Some(Phase::Failed) {
            bail!("{} failed: {status:?}", tenant.name_any());
        }
        if status.is_some_and(&wanted) {
            there.insert(tenant.name_any());
        }
        if there.len() == count {
            return Ok(());
        }
    }
    bail!("the watch ended")
}

fn active(status: &TenantStatus) -> bool {
    status.phase == Some(Phase::Active)
}

fn welcomed(status: &TenantStatus) -> bool {
    is_true(&status.conditions, WELCOME_EMAIL_SENT)
}

/// Seconds of processor time that processes have used so far.
#[derive(Clone)]
struct Cpu(Vec<(&'static str, u32, f64)>);

impl Cpu {
    fn read(processes: &[(&'static str, u32)]) -> Self {
        Self(processes.iter().map(|(name, pid)| (*name, *pid, Self::seconds(*pid).unwrap_or(0.0))).collect())
    }

    fn seconds(pid: u32) -> Option<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Fields 14 and 15, counted behind the name; 100 ticks a second on every Linux.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some((fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?) / 100.0)
    }

    /// What each has used since.
    fn since(&self) -> String {
        let used =
            self.0.iter().map(|(name, pid, at)| format!("{name} {:.1}", Self::seconds(*pid).unwrap_or(0.0) - at));
        used.collect::<Vec<_>>().join(", ")
    }
}

/// The same writes by a bare client: create, patch, Secret, two statuses.
async fn floor(client: &Client, sample: &Tenant) -> anyhow::Result<f64> {
    let api = namespace(client, "bench-floor").await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "bench-floor");
    let start = Instant::now();
    stream::iter(0..TENANTS)
        .map(|i| bare(api.clone(), secrets.clone(), format!("t{i}"), sample.status.clone().unwrap_or_default()))
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(async |()| Ok(()))
        .await?;
    Ok(start.elapsed().as_secs_f64())
}

async fn bare(api: Api<Tenant>, secrets: Api<Secret>, name: String, status: TenantStatus) -> anyhow::Result<()> {
    let made = api.create(&PostParams::default(), &tenant(&name)).await?;
    let id = made.uid().unwrap_or_default();
    let change = json!({"metadata": {"finalizers": ["tenant-operator.dev/cleanup"], "labels": {"tenant-operator.dev/email-hash": "x"}}, "spec": {"tenantId": id}});
    let mut tenant = api.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await?;
    let mut first = status.clone();
    first.phase = Some(Phase::Provisioning);
    tenant.status = Some(first);
    let mut tenant = api.replace_status(&name, &PostParams::default(), &tenant).await?;
    let secret = Secret {
        metadata: ObjectMeta { name: Some(format!("{name}-api-key")), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("api-key".to_owned(), ByteString(vec![b'x'; 300]))])),
        ..Secret::default()
    };
    secrets.create(&PostParams::default(), &secret).await?;
    tenant.status = Some(status);
    api.replace_status(&name, &PostParams::default(), &tenant).await?;
    Ok(())
}

async fn many(client: &Client, cluster: &Cluster) -> anyhow::Result<()> {
    let api = namespace(client, "bench-many").await?;
    let controller = Controller::start(cluster, "bench-many", 0)?;
    api.create(&PostParams::default(), &tenant("warm-up")).await?;
    until(&api, 1, welcomed).await?;
    let (etcd, apiserver) = cluster.pids();
    let me = ("this client", std::process::id());
    let servers = [("kube-apiserver", apiserver), ("etcd", etcd)];
    let ours = [("controller", controller.process.0.id()), ("sandbox", controller.providers.process.0.id()), me];
    let cpu = Cpu::read(&[&servers[..], &ours].concat());
    let before = controller.writes().await?;
    let start = Instant::now();
    let (made, active) = tokio::join!(create_all(&api, TENANTS), until(&api, TENANTS + 1, active));
    made?;
    active?;
    let seconds = start.elapsed().as_secs_f64();
    let (used, events) = (cpu.since(), controller.metric("kubernetes_events_total", |_| true).await?);
    until(&api, TENANTS + 1, welcomed).await?;
    let welcomed = start.elapsed().as_secs_f64();
    let (onboarding, after) = controller.writes().await?;
    let memory = controller.resident_mb()?;
    drop(controller);
    let sample = api.get("t0").await?;
    let cpu = Cpu::read(&[&servers[..], &[me]].concat());
    let floor = floor(client, &sample).await?;
    let n = TENANTS as f64;
    println!("{TENANTS} tenants, creation to Active: {:.0} per second; processor seconds: {used}", n / seconds);
    println!("the same API writes by a bare client: {:.0} tenants per second; {}", n / floor, cpu.since());
    println!("ratio: {:.2} (wanted: at least 0.6)", floor / seconds);
    println!(
        "API writes per tenant, its creation included: {:.2} until Active (wanted: at most 5), {:.2} for the welcome after it",
        (onboarding - before.0) as f64 / n + 1.0,
        (after - before.1) as f64 / n
    );
    println!(
        "Events by then: {events}; all welcome e-mails sent and noted {:.0} s after the last was Active",
        welcomed - seconds
    );
    println!("controller, resident with {TENANTS} tenants: {memory:.0} MB (wanted: under 60)");
    Ok(())
}

async fn single(client: &Client, cluster: &Cluster) -> anyhow::Result<()> {
    let api = namespace(client, "bench-single").await?;
    let _controller = Controller::start(cluster, "bench-single", 20)?;
    api.create(&PostParams::default(), &tenant("warm-up")).await?;
    until(&api, 1, active).await?;
    let mut times = Vec::new();
    for i in 0..SINGLES {
        let start = Instant::now();
        api.create(&PostParams::default(), &tenant(&format!("s{i}"))).await?;
        until(&api, i + 2, active).await?;
        times.push(start.elapsed().as_secs_f64());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    times.sort_by(f64::total_cmp);
    let at = |q: f64| times[((times.len() - 1) as f64 * q).round() as usize];
    println!(
        "one tenant, idle system, 20 ms provider latency: p50 {:.3} s, p99 {:.3} s (wanted: under 1)",
        at(0.5),
        at(0.99)
    );
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tenant_operator::cli::install_crypto();
    let folder = std::env::temp_dir().join(format!("tenant-operator-bench-{}", std::process::id()));
    let cluster = Cluster::start(&Binaries::find().await?, &folder).await?;
    let config = Kubeconfig::read_from(&cluster.kubeconfig)?;
    let client = Client::try_from(kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?)?;
    let outcome = async {
        apply_crds(&client).await?;
        apply_yaml(&client, include_str!("../examples/plans.yaml")).await?;
        single(&client, &cluster).await?;
        many(&client, &cluster).await
    };
    let outcome = outcome.await;
    cluster.stop().await;
    drop(std::fs::remove_dir_all(folder));
    outcome
}
