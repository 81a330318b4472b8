//! The life after the first day: another plan, suspensions, an export and an erasure of many vectors, and a recovery.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tenant_operator::api::status::ExportState;
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, Tenant, TenantStatus, data_namespace};
use tenant_operator_dev::cluster::Cluster;

use crate::lab::{Controller, IN_FLIGHT, Providers, active, namespace, quantile, tenant, until, welcomed};
use crate::targets::{Wanted, judge};

const NAMESPACE: &str = "bench-life";
/// Documents of the tenant that is exported, and the passages of each.
const DOCUMENTS: usize = 100;
const PASSAGES: usize = 100;
const DIMENSION: usize = 1536;
/// Passages of one request to store them.
const BATCH: usize = 50;
const CHANGES: usize = 40;

fn size() -> usize {
    std::env::var("BENCH_CUSTOMERS").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

pub async fn run(client: &Client, cluster: &Cluster) -> anyhow::Result<()> {
    let (api, count) = (namespace(client, NAMESPACE).await?, size());
    let folder = std::env::temp_dir().join(format!("tenant-operator-bench-exports-{}", std::process::id()));
    let providers = Providers::start(0)?;
    let price = |id: &str, amount: u32| json!({"id": id, "amount": amount, "currency": "usd"});
    let prices = json!([price("price_starter_monthly", 4900), price("price_pro_monthly", 19_900)]);
    providers.post("/_sandbox/prices", &prices).await?;
    let exports = format!("--exports-url=file://{}", folder.display());
    let controller = Controller::with(cluster, NAMESPACE, providers, &[&exports])?;
    customers(&api, count).await?;
    plans(&api).await?;
    suspensions(&api, count).await?;
    vectors(&api, &controller).await?;
    recovery(&api, cluster, &controller, count).await?;
    drop(std::fs::remove_dir_all(folder));
    Ok(())
}

/// Customers who pay by Stripe, all Active.
async fn customers(api: &Api<Tenant>, count: usize) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let one = |name: String| {
        let http = http.clone();
        async move {
            let object = crate::tenant::tenant(&name, "starter", BillingMode::Stripe);
            api.create(&PostParams::default(), &object).await?;
            let url = loop {
                if let Some(link) = api.get(&name).await?.status.and_then(|s| s.checkout) {
                    break link.url;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            };
            http.post(url).form(&[("card", "4242424242424242")]).send().await?.error_for_status()?;
            anyhow::Ok(())
        }
    };
    let all = stream::iter((0..count).map(|i| one(format!("c{i}"))));
    all.buffer_unordered(IN_FLIGHT).try_for_each(async |()| Ok(())).await?;
    // No webhook reports the payments here: the comparison with Stripe finds them.
    for name in (0..count).map(|i| format!("c{i}")) {
        let hint = json!({"metadata": {"annotations": {"tenant-operator.dev/stripe-event": "evt_bench"}}});
        api.patch(&name, &PatchParams::default(), &Patch::Merge(hint)).await?;
    }
    // Until their first day is over: what comes after is not to wait for what is left of it.
    until(api, count, welcomed).await
}

async fn wish(api: &Api<Tenant>, name: &str, spec: Value) -> anyhow::Result<()> {
    api.patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await?;
    Ok(())
}

/// Waits for one tenant.
async fn wait(api: &Api<Tenant>, name: &str, wanted: impl Fn(&TenantStatus) -> bool) -> anyhow::Result<TenantStatus> {
    loop {
        let status = api.get(name).await?.status.unwrap_or_default();
        if wanted(&status) {
            return Ok(status);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn plans(api: &Api<Tenant>) -> anyhow::Result<()> {
    let mut seconds = Vec::new();
    for name in (0..CHANGES).map(|i| format!("c{i}")) {
        let start = Instant::now();
        wish(api, &name, json!({"plan": "pro"})).await?;
        wait(api, &name, |s| s.config.as_ref().is_some_and(|c| &*c.plan == "pro")).await?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    println!(
        "another plan, from the write to its limits: p50 {:.3} s, p99 {:.3} s (wanted: within 1 s)",
        quantile(&mut seconds, 0.5),
        quantile(&mut seconds, 0.99)
    );
    judge("p99 of another plan in s", quantile(&mut seconds, 0.99), Wanted::AtMost(1.0));
    Ok(())
}

async fn suspensions(api: &Api<Tenant>, count: usize) -> anyhow::Result<()> {
    let mut rates = Vec::new();
    for (desired, phase) in [("Suspended", Phase::Suspended), ("Active", Phase::Active)] {
        let start = Instant::now();
        let all = stream::iter((0..count).map(|i| format!("c{i}")))
            .map(|name| async move { wish(api, &name, json!({"desired": desired})).await });
        all.buffer_unordered(IN_FLIGHT).try_for_each(async |()| Ok(())).await?;
        until(api, count, |s| s.phase == Some(phase)).await?;
        rates.push(count as f64 / start.elapsed().as_secs_f64() * 60.0);
    }
    println!(
        "{count} customers suspended at {:.0} and resumed at {:.0} a minute, with 100 calls to Stripe a second allowed (wanted: 1,000 a minute)",
        rates[0], rates[1]
    );
    judge("suspensions and resumptions a minute", rates[0].min(rates[1]), Wanted::AtLeast(1000.0));
    Ok(())
}

/// An export and an erasure of a tenant with many vectors.
async fn vectors(api: &Api<Tenant>, controller: &Controller) -> anyhow::Result<()> {
    let name = "large";
    api.create(&PostParams::default(), &tenant(name)).await?;
    wait(api, name, active).await?;
    let id = api.get(name).await?.tenant_id().to_owned();
    fill(controller, &data_namespace(&id, 1)).await?;
    let before = controller.resident_mb()?;
    let start = Instant::now();
    wish(api, name, json!({"exportRequest": "bench"})).await?;
    let mut most = before;
    let status = loop {
        most = most.max(controller.resident_mb()?);
        let status = api.get(name).await?.status.unwrap_or_default();
        match status.export.as_ref().map(|export| export.state) {
            Some(ExportState::Ready) => break status,
            Some(ExportState::Failed) => anyhow::bail!("the export failed: {status:?}"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    let mb = status.export.map_or(0, |export| export.bytes) as f64 / 1e6;
    println!(
        "export of {} vectors: {mb:.0} MB in {seconds:.1} s; the controller grew from {before:.0} to {most:.0} MB",
        DOCUMENTS * PASSAGES
    );
    let start = Instant::now();
    let meant = json!({"metadata": {"annotations": {"tenant-operator.dev/erase": id}}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(meant)).await?;
    api.delete(name, &DeleteParams::default()).await?;
    while api.get_opt(name).await?.is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("erasure of it, the export included: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Documents as the product stores them.
async fn fill(controller: &Controller, namespace: &str) -> anyhow::Result<()> {
    let env: std::collections::HashMap<String, String> = controller.providers.env().collect();
    let url = env.get("PINECONE_URL").context("PINECONE_URL")?;
    let http = reqwest::Client::new();
    let index: Value =
        http.get(format!("{url}/indexes/multi-tenant-rag")).header("Api-Key", "x").send().await?.json().await?;
    let host = index["host"].as_str().context("a host")?;
    let host = if host.contains("://") { host.to_owned() } else { format!("https://{host}") };
    for document in 0..DOCUMENTS {
        let id = format!("{document:032x}");
        for first in (0..PASSAGES).step_by(BATCH) {
            let vectors: Vec<_> = (first..first + BATCH).map(|number| passage(&id, number)).collect();
            let body = json!({"namespace": namespace, "vectors": vectors});
            let stored = http.post(format!("{host}/vectors/upsert")).header("Api-Key", "x").json(&body).send().await?;
            stored.error_for_status()?;
        }
    }
    Ok(())
}

fn passage(id: &str, number: usize) -> Value {
    let values: Vec<f32> = (0..DIMENSION).map(|i| ((i * 31 + number * 17) % 997) as f32 / 997.0).collect();
    let mut metadata = json!({
        "text": format!("Passage {number} of {id}. ").repeat(30), "document_id": id, "title": id, "passage": number,
    });
    let mut vector_id = format!("c/{id}/{number}");
    if number == 0 {
        vector_id = format!("d/{id}");
        for (key, value) in [
            ("media_type", json!("text/plain")),
            ("bytes", json!(100_000)),
            ("passages", json!(PASSAGES)),
            ("state", json!("ready")),
            ("uploaded_at", json!("2026-11-01T00:00:00Z")),
        ] {
            metadata[key] = value;
        }
    }
    json!({"id": vector_id, "values": values, "metadata": metadata})
}

/// All objects are lost, and made again from Stripe and Pinecone.
async fn recovery(api: &Api<Tenant>, cluster: &Cluster, controller: &Controller, count: usize) -> anyhow::Result<()> {
    api.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    while !api.list(&ListParams::default()).await?.items.is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let start = Instant::now();
    let made = Command::new(env!("CARGO_BIN_EXE_tenant-operator"))
        .args(["recover", "--apply", "--kubeconfig"])
        .arg(&cluster.kubeconfig)
        .envs([("POD_NAMESPACE", NAMESPACE), ("PINECONE_API_KEY", "x"), ("STRIPE_SECRET_KEY", "sk_test_x")])
        .envs(controller.providers.env())
        .env("STRIPE_RATE", "100")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    ensure!(made.success(), "recover failed");
    until(api, count, active).await?;
    let names = api.list(&ListParams::default()).await?.items.iter().map(ResourceExt::name_any).count();
    println!("{names} lost customers recovered and Active in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
