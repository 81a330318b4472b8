//! What the benchmarks run: a sandbox and a controller in processes of their own, and a bare client.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tenant_operator::api::conditions::{WELCOME_EMAIL_SENT, is_true};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, Tenant, TenantStatus};
use tenant_operator_dev::cluster::Cluster;

use crate::programs::program;

/// Requests of the bare client at the same time.
pub const IN_FLIGHT: usize = 32;
/// Tenants that come one by one.
const SINGLES: usize = 40;
/// What `tenant-operator-sandbox` prints at its start.
const SANDBOX_LINES: usize = 5;

/// A Tenant that is billed by hand.
pub fn tenant(name: &str) -> Tenant {
    crate::tenant::tenant(name, "enterprise", BillingMode::Manual)
}

/// A process that ends with the scope.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The providers' stand-ins, in a process of their own.
pub struct Providers {
    pub process: Process,
    pub url: String,
    env: Vec<(String, String)>,
}

impl Providers {
    pub fn start(latency_ms: u64) -> anyhow::Result<Self> {
        let mut child = Command::new(program("tenant-operator-sandbox"))
            .args(["--latency-ms", &latency_ms.to_string()])
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
        let url = env.iter().find(|(name, _)| name == "SANDBOX_URL").map(|(_, url)| url.clone()).unwrap_or_default();
        Ok(Self { process, url, env })
    }

    /// How others find them.
    pub fn env(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.env.iter().cloned()
    }

    /// Tells the sandbox something.
    pub async fn post(&self, path: &str, body: &serde_json::Value) -> anyhow::Result<()> {
        reqwest::Client::new().post(format!("{}{path}", self.url)).json(body).send().await?.error_for_status()?;
        Ok(())
    }

    /// Ends all faults.
    pub async fn clear_faults(&self) -> anyhow::Result<()> {
        reqwest::Client::new().delete(format!("{}/_sandbox/faults", self.url)).send().await?.error_for_status()?;
        Ok(())
    }

    /// Calls to Stripe, Pinecone and `OpenAI` so far.
    pub async fn calls(&self) -> anyhow::Result<[u64; 3]> {
        let calls: serde_json::Value = reqwest::get(format!("{}/_sandbox/calls", self.url)).await?.json().await?;
        Ok(["stripe", "pinecone", "openai"].map(|provider| calls[provider].as_u64().unwrap_or(0)))
    }
}

/// A controller of its own for one namespace, with providers of its own.
pub struct Controller {
    pub process: Process,
    pub providers: Providers,
    port: u16,
}

impl Controller {
    pub fn start(cluster: &Cluster, namespace: &str, latency_ms: u64) -> anyhow::Result<Self> {
        Self::with(cluster, namespace, Providers::start(latency_ms)?, &[])
    }

    /// With these providers and more arguments.
    pub fn with(cluster: &Cluster, namespace: &str, providers: Providers, args: &[&str]) -> anyhow::Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenant-operator"));
        command.args(["controller", "--namespace", namespace, "--listen", &format!("127.0.0.1:{port}")]).args(args);
        Ok(Self { port, ..Self::run(command, cluster, namespace, providers)? })
    }

    /// An operator that this command starts. It listens nowhere.
    pub fn run(mut command: Command, cluster: &Cluster, namespace: &str, providers: Providers) -> anyhow::Result<Self> {
        let child = command
            .arg("--kubeconfig")
            .arg(&cluster.kubeconfig)
            .envs([("POD_NAMESPACE", namespace), ("PINECONE_API_KEY", "x"), ("STRIPE_SECRET_KEY", "sk_test_x")])
            .envs(providers.env.iter().cloned())
            .envs([("PINECONE_RATE", "100000"), ("STRIPE_RATE", "100"), ("RUST_LOG", "error")])
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { process: Process(child), providers, port: 0 })
    }

    /// Kills it, and starts another with the same providers.
    pub fn restart(self, cluster: &Cluster, namespace: &str, args: &[&str]) -> anyhow::Result<Self> {
        let Self { process, providers, .. } = self;
        drop(process);
        // No standby controller waits for the lease, so the new one may take it at once.
        Self::with(cluster, namespace, providers, args)
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    pub fn resident_mb(&self) -> anyhow::Result<f64> {
        self.memory_mb("VmRSS")
    }

    /// What it has asked for itself, without the pages of its program file, which the kernel takes back when it needs
    /// them.
    pub fn own_mb(&self) -> anyhow::Result<f64> {
        self.memory_mb("RssAnon")
    }

    fn memory_mb(&self, kind: &str) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.0.id()))?;
        let line = status.lines().find(|l| l.starts_with(kind)).context(kind.to_owned())?;
        Ok(line.split_whitespace().nth(1).unwrap_or("0").parse::<f64>()? / 1024.0)
    }

    /// What it says of its role, once it listens: "standing by", "syncing" or "leading".
    pub async fn role(&self) -> Option<String> {
        let answer = reqwest::get(format!("http://127.0.0.1:{}/readyz", self.port)).await.ok()?;
        answer.text().await.ok()
    }

    /// Whether it holds the lease.
    pub async fn leads(&self) -> bool {
        self.role().await.is_some_and(|role| role != "standing by")
    }

    /// The sum of a counter over the labels that `counts` takes.
    pub async fn metric(&self, name: &str, counts: impl Fn(&str) -> bool) -> anyhow::Result<u64> {
        // A controller that has just started may not listen yet.
        let text = reqwest::get(format!("http://127.0.0.1:{}/metrics", self.port)).await?.text().await?;
        let lines = text.lines().filter(|l| l.starts_with(name) && counts(l));
        Ok(lines.filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }

    /// Kubernetes writes that take a tenant to Active, and those after it.
    pub async fn writes(&self) -> anyhow::Result<(u64, u64)> {
        let after = |line: &str| line.contains("\"notice\"") || line.contains("\"condition\"");
        let name = "kubernetes_writes_total";
        Ok((self.metric(name, |l| !after(l)).await?, self.metric(name, after).await?))
    }
}

pub async fn namespace(client: &Client, name: &str) -> anyhow::Result<Api<Tenant>> {
    let object =
        Namespace { metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() }, ..Namespace::default() };
    Api::all(client.clone()).create(&PostParams::default(), &object).await?;
    Ok(Api::namespaced(client.clone(), name))
}

pub async fn create_all(api: &Api<Tenant>, count: usize) -> anyhow::Result<()> {
    stream::iter(0..count)
        .map(|i| async move { api.create(&PostParams::default(), &tenant(&format!("t{i}"))).await })
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(async |_| Ok(()))
        .await?;
    Ok(())
}

/// Waits until so many tenants are as wanted.
pub async fn until(api: &Api<Tenant>, count: usize, wanted: impl Fn(&TenantStatus) -> bool) -> anyhow::Result<()> {
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

/// Seconds from creation to Active, of tenants that come one by one.
pub async fn single(api: &Api<Tenant>) -> anyhow::Result<Vec<f64>> {
    api.create(&PostParams::default(), &tenant("warm-up")).await?;
    until(api, 1, active).await?;
    let mut times = Vec::new();
    for i in 0..SINGLES {
        let start = Instant::now();
        api.create(&PostParams::default(), &tenant(&format!("s{i}"))).await?;
        until(api, i + 2, active).await?;
        times.push(start.elapsed().as_secs_f64());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Ok(times)
}

/// The value that this part of all does not exceed.
pub fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * q).round() as usize]
}

pub fn active(status: &TenantStatus) -> bool {
    status.phase == Some(Phase::Active)
}

pub fn welcomed(status: &TenantStatus) -> bool {
    is_true(&status.conditions, WELCOME_EMAIL_SENT)
}

/// Seconds of processor time that processes have used so far.
#[derive(Clone)]
pub struct Cpu(Vec<(&'static str, u32, f64)>);

impl Cpu {
    pub fn read(processes: &[(&'static str, u32)]) -> Self {
        Self(processes.iter().map(|(name, pid)| (*name, *pid, Self::seconds(*pid).unwrap_or(0.0))).collect())
    }

    fn seconds(pid: u32) -> Option<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Fields 14 and 15, counted behind the name; 100 ticks a second on every Linux.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some((fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?) / 100.0)
    }

    /// What all have used since, in seconds.
    pub fn total(&self) -> f64 {
        self.0.iter().map(|(_, pid, at)| Self::seconds(*pid).unwrap_or(0.0) - at).sum()
    }

    /// What each has used since.
    pub fn since(&self) -> String {
        let used =
            self.0.iter().map(|(name, pid, at)| format!("{name} {:.1}", Self::seconds(*pid).unwrap_or(0.0) - at));
        used.collect::<Vec<_>>().join(", ")
    }
}
