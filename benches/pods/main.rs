//! `make bench`: what a release takes on a node with real pods: from a pod's creation to ready, and what idle pods use
//! beside what the chart requests.

// What the tests of the pods need beyond this.
#[allow(dead_code)]
#[path = "../../tests/pods/binaries.rs"]
mod binaries;
#[allow(dead_code)]
#[path = "../../tests/pods/node.rs"]
mod node;
#[allow(dead_code)]
#[path = "../../tests/pods/release.rs"]
mod release;
#[path = "../onboarding/targets.rs"]
mod targets;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use node::Node;
use release::{NAMESPACE, documented, environment, image, providers, settings};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const COMPONENTS: [&str; 2] = ["controller", "web"];
const ROUNDS: usize = 5;
/// Nothing happens in it.
const IDLE: Duration = Duration::from_mins(1);

/// Says what is going on: some of it takes a while.
fn step(what: &str) {
    eprintln!("pods: {what}");
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Some(why) = node::why_not() {
        println!("pods: not measured: {why}");
        return Ok(());
    }
    tenant_operator::cli::install_crypto();
    let folder = std::path::Path::new("/tmp").join(format!("tenant-operator-pods-{}", std::process::id()));
    let node = Node::start(&binaries::build(), &folder).await;
    let outcome = measure(&node).await;
    node.stop().await;
    drop(std::fs::remove_dir_all(folder));
    outcome?;
    targets::summary()
}

async fn measure(node: &Node) -> anyhow::Result<()> {
    let providers = providers().await;
    image(node);
    settings(node, &providers);
    node.shell(&documented("sh install"), &environment(&providers));
    let config = Kubeconfig::read_from(&node.kubeconfig)?;
    let client = Client::try_from(kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?)?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    for component in COMPONENTS {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            times.push(replaced(&pods, component).await?);
        }
        let sorted = |which: usize| {
            let mut seconds: Vec<f64> = times.iter().map(|both| both[which]).collect();
            seconds.sort_by(f64::total_cmp);
            (seconds[ROUNDS / 2], seconds[ROUNDS - 1])
        };
        let (started, created) = (sorted(0), sorted(1));
        println!(
            "{component}, start to ready: {:.1} s, at worst {:.1} s (wanted: under 2); from the pod's creation: {:.1} s, at worst \
             {:.1} s",
            started.0, started.1, created.0, created.1
        );
        let what = format!("s from start to ready of {component}");
        targets::judge(what, started.1, targets::Wanted::Under(2.0));
    }
    idle(&client, &pods).await
}

/// Deletes a pod, and answers how many seconds its successor takes until it is ready: from the start of its process,
/// and from its own creation.
async fn replaced(pods: &Api<Pod>, component: &str) -> anyhow::Result<[f64; 2]> {
    let selector = format!("app.kubernetes.io/component={component}");
    let before = pods.list(&ListParams::default().labels(&selector)).await?.items;
    let known: Vec<_> = before.iter().map(ResourceExt::uid).collect();
    let gone = before.first().context("a pod")?.name_any();
    let config = watcher::Config::default().labels(&selector);
    let mut changes = std::pin::pin!(watcher(pods.clone(), config).default_backoff().applied_objects());
    pods.delete(&gone, &DeleteParams::default()).await?;
    let mut created = None;
    while let Some(pod) = changes.try_next().await? {
        if known.contains(&pod.uid()) {
            continue;
        }
        let created = created.get_or_insert_with(Instant::now);
        let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
        if conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True") {
            let ready = [uptime()? - started(component)?, created.elapsed().as_secs_f64()];
            // The one that was replaced ends before the next is.
            while pods.get_opt(&gone).await?.is_some() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            return Ok(ready);
        }
    }
    anyhow::bail!("the watch ended")
}

/// Memory and processor time of pods that have nothing to do, as the kubelet counts them.
async fn idle(client: &Client, pods: &Api<Pod>) -> anyhow::Result<()> {
    step(&format!("nothing happens for {IDLE:?}"));
    let before = usage(client).await?;
    tokio::time::sleep(IDLE).await;
    let after = usage(client).await?;
    for pod in pods.list(&ListParams::default()).await? {
        let name = pod.name_any();
        let (Some((cpu, _)), Some((later, memory))) = (before.get(&name), after.get(&name)) else { continue };
        let containers = pod.spec.context("a spec")?.containers;
        let requests = containers[0].resources.as_ref().and_then(|r| r.requests.clone()).unwrap_or_default();
        let requested = |what: &str| requests.get(what).map_or("nothing", |q| &q.0).to_owned();
        println!(
            "{name}, idle: {:.0} MiB of {} requested, {:.1}m processor time of {}",
            memory / f64::from(1 << 20),
            requested("memory"),
            (later - cpu) / IDLE.as_secs_f64() * 1000.0,
            requested("cpu"),
        );
    }
    Ok(())
}

/// Seconds of processor time so far, and bytes of the working set, by pod.
async fn usage(client: &Client) -> anyhow::Result<BTreeMap<String, (f64, f64)>> {
    let request = axum::http::Request::get("/api/v1/nodes/node/proxy/metrics/resource").body(Vec::new())?;
    let text = client.request_text(request).await?;
    let of = |metric: &str| -> BTreeMap<String, f64> {
        let lines = text.lines().filter(|line| line.starts_with(&format!("{metric}{{")));
        let sample = |line: &str| {
            let pod = line.split("pod=\"").nth(1)?.split('"').next()?;
            Some((pod.to_owned(), line.split_whitespace().nth(1)?.parse().ok()?))
        };
        lines.filter_map(sample).collect()
    };
    let (cpu, mut memory) = (of("pod_cpu_usage_seconds_total"), of("pod_memory_working_set_bytes"));
    Ok(cpu.into_iter().filter_map(|(pod, seconds)| Some((pod.clone(), (seconds, memory.remove(&pod)?)))).collect())
}

/// When the newest process of a component was started, in seconds since the boot.
fn started(component: &str) -> anyhow::Result<f64> {
    let mut newest: f64 = 0.0;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = command.split(|byte| *byte == 0);
        if words.next() != Some(b"/tenant-operator") || words.next() != Some(component.as_bytes()) {
            continue;
        }
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // Field 22, counted behind the name; 100 ticks a second on every Linux.
        let field = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19));
        newest = newest.max(field.and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0) / 100.0);
    }
    anyhow::ensure!(newest > 0.0, "no process of {component}");
    Ok(newest)
}

/// Seconds since the boot.
fn uptime() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/uptime")?;
    Ok(text.split_whitespace().next().context("a number")?.parse()?)
}
