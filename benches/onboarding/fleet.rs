//! A large fleet: created during an outage of Pinecone, then steady, then through a restart, then signed up to while
//! Pinecone hangs and everything is compared.

use std::time::{Duration, Instant};

use anyhow::bail;
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, Tenant};
use tenant_operator_dev::cluster::Cluster;

use crate::lab::{
    Controller, Cpu, IN_FLIGHT, Providers, active, create_all, namespace, quantile, tenant, until, welcomed,
};
use crate::targets::{Wanted, judge};

const OUTAGE: Duration = Duration::from_mins(1);
const SIGNUPS: usize = 40;
const NAMESPACE: &str = "bench-fleet";
/// Hangs for longer than the benchmark takes.
const HANG_MS: u64 = 3_600_000;

fn size() -> usize {
    std::env::var("BENCH_TENANTS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000)
}

pub async fn run(client: &Client, cluster: &Cluster) -> anyhow::Result<()> {
    let (api, count) = (namespace(client, NAMESPACE).await?, size());
    let providers = Providers::start(0)?;
    providers
        .post("/_sandbox/prices", &json!([{"id": "price_starter_monthly", "amount": 4900, "currency": "usd"}]))
        .await?;
    let controller = Controller::with(cluster, NAMESPACE, providers, &[])?;
    outage(&api, &controller, count).await?;
    steady(&controller, count).await?;
    let controller = restart(controller, cluster, count).await?;
    let idle = signups(&api, "idle", SIGNUPS).await?;
    let controller = controller.restart(cluster, NAMESPACE, &["--full-resync", "1", "--resync", "1"])?;
    controller
        .providers
        .post("/_sandbox/faults", &json!({"provider": "pinecone", "delay_ms": HANG_MS, "times": 1_000_000}))
        .await?;
    create_all_named(&api, "stuck", 1000).await?;
    // From when the new controller leads and each of them has met the outage.
    until(&api, 1000, |s| s.provisioning.as_ref().is_some_and(|p| p.held_since.is_some())).await?;
    let pressed = signups(&api, "pressed", SIGNUPS).await?;
    println!(
        "signup to payment link, {count} tenants: p50 {:.3} s, p99 {:.3} s; while Pinecone hangs, 1,000 tenants wait for it and all \
         are compared: p50 {:.3} s, p99 {:.3} s; ratio of p99 {:.2} (wanted: at most 2)",
        idle.0,
        idle.1,
        pressed.0,
        pressed.1,
        pressed.1 / idle.1
    );
    judge("p99 of signups under load beside an idle system", pressed.1 / idle.1, Wanted::AtMost(2.0));
    Ok(())
}

/// All are created while Pinecone is away.
async fn outage(api: &Api<Tenant>, controller: &Controller, count: usize) -> anyhow::Result<()> {
    let fault = json!({"provider": "pinecone", "status": 503, "times": 100_000_000});
    controller.providers.post("/_sandbox/faults", &fault).await?;
    let start = Instant::now();
    create_all(api, count).await?;
    let created = start.elapsed();
    // Each waits for Pinecone now; the outage goes on for a while.
    until(api, count, |s| s.phase == Some(Phase::Provisioning)).await?;
    tokio::time::sleep(OUTAGE.saturating_sub(start.elapsed())).await;
    let calls = controller.providers.calls().await?[1];
    let lasted = start.elapsed().as_secs_f64();
    let before = controller.metric("kubernetes_writes_total", |_| true).await?;
    controller.providers.clear_faults().await?;
    let start = Instant::now();
    until(api, count, active).await?;
    let seconds = start.elapsed().as_secs_f64();
    let writes = (controller.metric("kubernetes_writes_total", |_| true).await? - before) as f64 / count as f64;
    let floor = floor(api, count.min(2000)).await?;
    let n = count as f64;
    println!(
        "{count} tenants created in {:.0} s during an outage of Pinecone of {lasted:.0} s: {calls} calls to it (one for each at least, without a breaker)",
        created.as_secs_f64()
    );
    println!(
        "after it, all Active within {seconds:.0} s: {:.0} per second, {writes:.2} API writes each; a bare client writes {floor:.0} statuses per second; ratio by writes {:.2} (wanted: at least 0.7)",
        n / seconds,
        n / seconds * writes / floor
    );
    judge("pace by writes after an outage beside a bare client", n / seconds * writes / floor, Wanted::AtLeast(0.7));
    until(api, count, welcomed).await
}

/// Statuses that a bare client writes per second.
async fn floor(api: &Api<Tenant>, count: usize) -> anyhow::Result<f64> {
    let list = api.list(&kube::api::ListParams::default().limit(u32::try_from(count)?)).await?;
    let start = Instant::now();
    stream::iter(list.items)
        .map(async |mut tenant| {
            let status = tenant.status.get_or_insert_default();
            status.message = Some(format!("{}.", status.message.clone().unwrap_or_default()).into());
            api.replace_status(&tenant.name_any(), &PostParams::default(), &tenant).await.map(drop).or_else(|error| {
                match error {
                    // The controller was faster; it is a write all the same.
                    kube::Error::Api(e) if e.code == 409 => Ok(()),
                    other => Err(other),
                }
            })
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<_>>()
        .await?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

async fn steady(controller: &Controller, count: usize) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs(5)).await;
    let cpu = Cpu::read(&[("controller", controller.pid())]);
    tokio::time::sleep(Duration::from_secs(20)).await;
    println!(
        "{count} tenants, steady: processor seconds in 20 s: {}; resident {:.0} MB, {:.0} of them its own (wanted: under 100)",
        cpu.since(),
        controller.resident_mb()?,
        controller.own_mb()?
    );
    judge("own MB of the steady controller", controller.own_mb()?, Wanted::Under(100.0));
    Ok(())
}

/// Kills the controller and starts another: until it has looked at every tenant and compared all with the providers.
async fn restart(controller: Controller, cluster: &Cluster, count: usize) -> anyhow::Result<Controller> {
    let before = controller.providers.calls().await?;
    // The killed leader did not give up its lease. The rest of the lease is waited for, and not counted.
    let controller = controller.restart(cluster, NAMESPACE, &[])?;
    while !controller.leads().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let start = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if start.elapsed() > Duration::from_mins(3) {
            bail!("not synced after three minutes");
        }
        let reconciles = controller.metric("reconciles_total", |_| true).await.unwrap_or(0);
        let resynced = controller.metric("resyncs_total", |l| l.contains("namespaces_ok")).await.unwrap_or(0);
        if reconciles >= count as u64 && resynced > 0 {
            break;
        }
    }
    let synced = start.elapsed().as_secs_f64();
    let writes = controller.metric("kubernetes_writes_total", |_| true).await?;
    let after = controller.providers.calls().await?;
    let calls: Vec<_> = after.iter().zip(before).map(|(a, b)| a - b).collect();
    println!(
        "restart with {count} tenants: synced {synced:.1} s after it got the lease (wanted: under 5), {writes} API writes, resident {:.0} MB",
        controller.resident_mb()?
    );
    judge("s until a restarted controller is synced", synced, Wanted::Under(5.0));
    // One full comparison an hour, and a look at the events and the disputes each ten minutes.
    println!(
        "calls of one full comparison: {} to Stripe, {} to Pinecone; an hour costs {} and {}",
        calls[0],
        calls[1],
        calls[0] + 12,
        calls[1]
    );
    Ok(controller)
}

async fn create_all_named(api: &Api<Tenant>, prefix: &str, count: usize) -> anyhow::Result<()> {
    stream::iter(0..count)
        .map(async |i| api.create(&PostParams::default(), &tenant(&format!("{prefix}{i}"))).await)
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(async |_| Ok(()))
        .await?;
    Ok(())
}

/// Seconds from a Tenant's creation to its payment link: p50 and p99.
async fn signups(api: &Api<Tenant>, prefix: &str, count: usize) -> anyhow::Result<(f64, f64)> {
    let mut times = Vec::new();
    for i in 0..count {
        let name = format!("{prefix}{i}");
        let paying = crate::tenant::tenant(&name, "starter", BillingMode::Stripe);
        let start = Instant::now();
        api.create(&PostParams::default(), &paying).await?;
        while api.get(&name).await?.status.is_none_or(|s| s.checkout.is_none()) {
            if start.elapsed() > Duration::from_mins(1) {
                bail!("{name} has no link after a minute");
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        times.push(start.elapsed().as_secs_f64());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok((quantile(&mut times, 0.5), quantile(&mut times, 0.99)))
}
