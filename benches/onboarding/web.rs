//! Pages, signups and the tenant API: server time under load, page weight, what an answer adds to the providers' time,
//! and the memory that many documents take.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};
use reqwest::StatusCode;
use serde_json::json;
use tenant_operator_dev::cluster::Cluster;

use crate::lab::{Controller, Process, active, namespace, quantile, tenant, until};
use crate::ledger;

const NAMESPACE: &str = "bench-web";
/// Users at the same time, and what each page is asked in all.
const USERS: usize = 50;
const REQUESTS: usize = 2000;
/// What a call to a provider takes, in milliseconds; a question makes three, one after the other.
const LATENCY: u64 = 20;
const CALLS: f64 = 3.0;
/// Signups of each round.
const SIGNUPS: usize = 200;

pub async fn run(client: &Client, cluster: &Cluster) -> anyhow::Result<()> {
    let api = namespace(client, NAMESPACE).await?;
    let controller = Controller::start(cluster, NAMESPACE, LATENCY)?;
    let price = json!([{"id": "price_starter_monthly", "amount": 4900, "currency": "usd"}]);
    controller.providers.post("/_sandbox/prices", &price).await?;
    api.create(&PostParams::default(), &tenant("t0")).await?;
    until(&api, 1, active).await?;
    let unlimited = ["--requests-per-second", "100000", "--client-requests-per-second", "100000"];
    let unlimited = [&unlimited[..], &["--signups-per-minute", "1000000"]].concat();
    let (_ledger, ledger_url) = ledger::beside_web(client, NAMESPACE).await?;
    let arguments = [&unlimited[..], &["--ledger-url", &ledger_url]].concat();
    let (web, url) = start(cluster, &controller, NAMESPACE, &arguments)?;
    let http = reqwest::Client::builder().pool_max_idle_per_host(USERS).build()?;
    let key = key(client, NAMESPACE, "t0").await?;
    accepted(&http, &url, &key).await?;
    pages(&http, &url).await?;
    signups(&http, &url).await?;
    answers(&http, &url, &key).await?;
    documents(&http, &url, &key, web.0.id()).await
}

/// The API key of a tenant.
pub async fn key(client: &Client, namespace: &str, tenant: &str) -> anyhow::Result<String> {
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    let secret = secrets.get(&format!("{tenant}-api-key")).await?;
    let key = secret.data.context("data")?.remove("api-key").context("a key")?;
    Ok(String::from_utf8(key.0)?)
}

/// Waits until web knows a key.
pub async fn accepted(http: &reqwest::Client, url: &str, key: &str) -> anyhow::Result<()> {
    while !http.get(format!("{url}/v1/usage")).bearer_auth(key).send().await?.status().is_success() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Starts web for one namespace, and answers where it listens.
pub fn start(
    cluster: &Cluster,
    controller: &Controller,
    namespace: &str,
    args: &[&str],
) -> anyhow::Result<(Process, String)> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tenant-operator"))
        .args(["web", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--namespace", namespace])
        .args(["--served-namespaces", namespace])
        .args(args)
        .arg("--kubeconfig")
        .arg(&cluster.kubeconfig)
        .envs([
            ("POD_NAMESPACE", namespace),
            ("SHARED_SIGNUP_NAMESPACE", "true"),
            ("PINECONE_API_KEY", "x"),
            ("STRIPE_WEBHOOK_SECRET", "whsec_x"),
        ])
        .envs(controller.providers.env())
        .env("RUST_LOG", "error")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
    let line = lines.next().context("web says where it listens")??;
    let url = line.strip_prefix("listening on ").context("an address")?.to_owned();
    // It says where its metrics are as well, and must be heard.
    lines.next().context("web says where its metrics are")??;
    Ok((Process(child), url))
}

async fn pages(http: &reqwest::Client, url: &str) -> anyhow::Result<()> {
    for path in ["/pricing", "/signup", "/login"] {
        let page = http.get(format!("{url}{path}")).send().await?.error_for_status()?.text().await?;
        let page = page.replace("&#x2f;", "/");
        let mut weight = page.len();
        for asset in page.split('"').filter(|part| part.starts_with("/assets/")) {
            weight += http.get(format!("{url}{asset}")).send().await?.error_for_status()?.bytes().await?.len();
        }
        let mut times: Vec<f64> = stream::iter(0..REQUESTS)
            .map(|_| async {
                let start = Instant::now();
                let answer = http.get(format!("{url}{path}")).send().await;
                let ok = match answer {
                    Ok(answer) => answer.status().is_success() && answer.bytes().await.is_ok(),
                    Err(_) => false,
                };
                (ok, start.elapsed().as_secs_f64())
            })
            .buffer_unordered(USERS)
            .map(|(ok, time)| if ok { time } else { f64::INFINITY })
            .collect()
            .await;
        println!(
            "page {path}: {:.1} kB with style and script, {USERS} users at once: p50 {:.1} ms, p99 {:.1} ms",
            weight as f64 / 1000.0,
            quantile(&mut times, 0.5) * 1000.0,
            quantile(&mut times, 0.99) * 1000.0
        );
    }
    Ok(())
}

/// Signups with their password hashed, at the rate that a burst has: those beyond what may wait are turned away at
/// once.
async fn signups(http: &reqwest::Client, url: &str) -> anyhow::Result<()> {
    for at_once in [1, 10, USERS] {
        let (mut times, mut shed) = (Vec::new(), Vec::new());
        let mut answers = stream::iter(0..SIGNUPS)
            .map(|i| {
                let body = json!({"email": format!("s{i}-{at_once}@example.com"), "company_name": "Analytical Engines",
                    "password": "correct horse battery", "accept_terms": true});
                async move {
                    let start = Instant::now();
                    let answer = http.post(format!("{url}/signup")).json(&body).send().await?;
                    anyhow::Ok((answer.status(), start.elapsed().as_secs_f64()))
                }
            })
            .buffer_unordered(at_once);
        while let Some(answer) = answers.next().await {
            match answer? {
                (status, time) if status.is_success() => times.push(time),
                (StatusCode::TOO_MANY_REQUESTS, time) => shed.push(time),
                (status, _) => bail!("a signup was answered {status}"),
            }
        }
        let refused = if shed.is_empty() {
            "none turned away".into()
        } else {
            format!("{} of {SIGNUPS} turned away, p99 {:.0} ms", shed.len(), quantile(&mut shed, 0.99) * 1000.0)
        };
        println!(
            "signup with argon2, {at_once} at once: p50 {:.0} ms, p99 {:.0} ms; {refused}",
            quantile(&mut times, 0.5) * 1000.0,
            quantile(&mut times, 0.99) * 1000.0
        );
    }
    Ok(())
}

async fn answers(http: &reqwest::Client, url: &str, key: &str) -> anyhow::Result<()> {
    let body = json!({"question": "What is RAG?"});
    let mut times = Vec::new();
    for _ in 0..100 {
        let start = Instant::now();
        let answer = http.post(format!("{url}/v1/query")).bearer_auth(key).json(&body).send().await?;
        ensure!(answer.status().is_success(), "{}", answer.text().await?);
        answer.bytes().await?;
        times.push(start.elapsed().as_secs_f64());
    }
    let providers = CALLS * LATENCY as f64;
    println!(
        "answer: p50 {:.1} ms, of which the providers' stand-ins wait {providers} ms; {:.1} ms are added",
        quantile(&mut times, 0.5) * 1000.0,
        quantile(&mut times, 0.5) * 1000.0 - providers
    );
    Ok(())
}

pub fn resident_mb(pid: u32) -> anyhow::Result<f64> {
    memory_mb(pid, "VmRSS")
}

/// Memory of a kind, such as what was resident at most (`VmHWM`).
pub fn memory_mb(pid: u32, kind: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|l| l.starts_with(kind)).context(kind.to_owned())?;
    Ok(line.split_whitespace().nth(1).unwrap_or("0").parse::<f64>()? / 1024.0)
}

async fn documents(http: &reqwest::Client, url: &str, key: &str, pid: u32) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut memory = vec![resident_mb(pid)?];
    for i in 0..100 {
        let text = format!("Document {i}. Its sentences are about subject{i} and little else. ").repeat(20_000);
        let text = text[..1 << 20].to_owned();
        let answer = http.post(format!("{url}/v1/documents?title=d{i}")).bearer_auth(key).body(text).send().await?;
        ensure!(answer.status().is_success(), "{}", answer.text().await?);
        if i % 10 == 9 {
            memory.push(resident_mb(pid)?);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let shown: Vec<_> = memory.iter().map(|mb| format!("{mb:.0}")).collect();
    println!("100 documents of 1 MB: {seconds:.1} s, web's memory in MB after each ten: {}", shown.join(" "));
    Ok(())
}
