//! Many tenants from creation to Active beside a bare client that does the same writes, and one on an idle system.

use std::collections::BTreeMap;
use std::time::Instant;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tenant_operator::api::{Phase, Tenant, TenantStatus};
use tenant_operator_dev::cluster::Cluster;

use crate::lab::{self, Controller, Cpu, IN_FLIGHT, active, create_all, namespace, quantile, tenant, until, welcomed};
use crate::targets::{Wanted, judge};

const TENANTS: usize = 1000;

/// The writes of a bare client, watched in the same way: create, patch, Secret, status; or with a status for
/// Provisioning as well, as a controller makes them that writes each phase when it comes.
async fn floor(client: &Client, sample: &Tenant, each_phase: bool) -> anyhow::Result<f64> {
    let place = if each_phase { "bench-floor-of-five" } else { "bench-floor" };
    let api = namespace(client, place).await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), place);
    let status = sample.status.clone().unwrap_or_default();
    let first = each_phase.then(|| {
        let (phase, transitions) = (Some(Phase::Provisioning), status.transitions.iter().take(1).cloned().collect());
        TenantStatus { phase, transitions, ..status.clone() }
    });
    let start = Instant::now();
    let written = stream::iter(0..TENANTS)
        .map(|i| bare(api.clone(), secrets.clone(), format!("t{i}"), (first.clone(), status.clone())))
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(async |()| Ok(()));
    tokio::try_join!(written, until(&api, TENANTS, active))?;
    Ok(start.elapsed().as_secs_f64())
}

async fn bare(
    api: Api<Tenant>,
    secrets: Api<Secret>,
    name: String,
    (first, status): (Option<TenantStatus>, TenantStatus),
) -> anyhow::Result<()> {
    let made = api.create(&PostParams::default(), &tenant(&name)).await?;
    let id = made.uid().unwrap_or_default();
    let change = json!({"metadata": {"finalizers": ["tenant-operator.dev/cleanup"], "labels": {"tenant-operator.dev/email-hash": "x"}}, "spec": {"tenantId": id}});
    let mut tenant = api.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await?;
    if first.is_some() {
        tenant.status = first;
        tenant = api.replace_status(&name, &PostParams::default(), &tenant).await?;
    }
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

pub async fn many(client: &Client, cluster: &Cluster) -> anyhow::Result<()> {
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
    let bare = floor(client, &sample, false).await?;
    let used_by_bare = cpu.since();
    let of_five = floor(client, &sample, true).await?;
    let n = TENANTS as f64;
    println!("{TENANTS} tenants, creation to Active: {:.0} per second; processor seconds: {used}", n / seconds);
    println!("the same API writes by a bare client: {:.0} tenants per second; {used_by_bare}", n / bare);
    println!("the same with a write for Provisioning, which is held back here: {:.0} tenants per second", n / of_five);
    println!("ratios: {:.2} and {:.2} (wanted of the latter: at least 0.85)", bare / seconds, of_five / seconds);
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
    judge("pace beside a bare client with five writes", of_five / seconds, Wanted::AtLeast(0.85));
    judge("API writes of a tenant until Active", (onboarding - before.0) as f64 / n + 1.0, Wanted::AtMost(5.0));
    judge("resident MB of the controller with many tenants", memory, Wanted::Under(60.0));
    Ok(())
}

pub async fn single(client: &Client, cluster: &Cluster) -> anyhow::Result<()> {
    let api = namespace(client, "bench-single").await?;
    let _controller = Controller::start(cluster, "bench-single", 20)?;
    let mut times = lab::single(&api).await?;
    println!(
        "one tenant, idle system, 20 ms provider latency: p50 {:.3} s, p99 {:.3} s (wanted: under 1)",
        quantile(&mut times, 0.5),
        quantile(&mut times, 0.99)
    );
    judge("p99 of a single tenant in s", quantile(&mut times, 0.99), Wanted::Under(1.0));
    Ok(())
}
