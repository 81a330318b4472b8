//! How long a tenant waits for answers beside another one that takes all it can, with the limits that web has by
//! default.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::{StreamExt, stream};
use kube::Client;
use kube::api::PostParams;
use reqwest::StatusCode;
use serde_json::json;
use tenant_operator_dev::cluster::Cluster;

use crate::lab::{Controller, active, namespace, quantile, tenant, until};
use crate::ledger;
use crate::targets::{Wanted, judge};
use crate::web::{accepted, key, start};

const NAMESPACE: &str = "bench-neighbours";
/// What a call to a provider takes, in milliseconds.
const LATENCY: u64 = 20;
/// Questions of the tenant that is measured, ten a second: half of what it may ask.
const QUESTIONS: usize = 150;
const PAUSE: Duration = Duration::from_millis(100);
/// What the other one sends: questions at ten times its limit, or this many uploads at the same time. More would
/// measure how the client, the stand-ins and web share this machine's processors.
const FLOOD: Duration = Duration::from_millis(5);
const UPLOADS: usize = 8;

pub async fn run(client: &Client, cluster: &Cluster) -> anyhow::Result<()> {
    let api = namespace(client, NAMESPACE).await?;
    let controller = Controller::start(cluster, NAMESPACE, LATENCY)?;
    for name in ["good", "hostile"] {
        api.create(&PostParams::default(), &tenant(name)).await?;
    }
    until(&api, 2, active).await?;
    // Both are one client here, and the limit of a client is not what is measured.
    let (_ledger, ledger_url) = ledger::beside_web(client, NAMESPACE).await?;
    let arguments = ["--client-requests-per-second", "100000", "--ledger-url", &ledger_url];
    let (_web, url) = start(cluster, &controller, NAMESPACE, &arguments)?;
    let http = reqwest::Client::new();
    let (good, hostile) = (key(client, NAMESPACE, "good").await?, key(client, NAMESPACE, "hostile").await?);
    for key in [&good, &hostile] {
        accepted(&http, &url, key).await?;
    }
    let mut idle = questions(&http, &url, &good).await?;
    let alone = quantile(&mut idle, 0.99);
    println!(
        "a tenant's answers, alone: p50 {:.0} ms, p99 {:.0} ms",
        quantile(&mut idle, 0.5) * 1000.0,
        alone * 1000.0
    );
    // Words without an end of a sentence take the longest to cut.
    let words = "word ".repeat((5 << 20) / 5);
    for (what, body) in [("asks 200 times a second", None), ("sends eight files of 5 MB at once", Some(words.as_str()))]
    {
        let flood = async {
            let at_once = if body.is_some() { UPLOADS } else { 256 };
            let paced = stream::iter(0..).then(async |n| {
                if body.is_none() {
                    tokio::time::sleep(FLOOD).await;
                }
                n
            });
            let sent = paced.map(|n| send(&http, &url, &hostile, body, n)).buffer_unordered(at_once);
            let mut counts = [0_usize; 2];
            let mut sent = std::pin::pin!(sent);
            while let Some(refused) = sent.next().await {
                counts[usize::from(refused?)] += 1;
            }
            anyhow::Ok(counts)
        };
        let mut times = tokio::select! {
            times = questions(&http, &url, &good) => times?,
            flood = flood => anyhow::bail!("the flood ended: {flood:?}"),
        };
        let beside = quantile(&mut times, 0.99);
        println!(
            "beside a tenant that {what}: p50 {:.0} ms, p99 {:.0} ms; ratio of the p99 {:.2} (wanted: at most 2)",
            quantile(&mut times, 0.5) * 1000.0,
            beside * 1000.0,
            beside / alone
        );
        judge(format!("p99 beside a tenant that {what}"), beside / alone, Wanted::AtMost(2.0));
    }
    Ok(())
}

/// How long each answer took, in seconds.
async fn questions(http: &reqwest::Client, url: &str, key: &str) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..QUESTIONS {
        let start = Instant::now();
        let request = http.post(format!("{url}/v1/query")).bearer_auth(key);
        let answer = request.json(&json!({"question": "What is RAG?"})).send().await?;
        ensure!(answer.status().is_success(), "{}", answer.text().await?);
        answer.bytes().await?;
        times.push(start.elapsed().as_secs_f64());
        tokio::time::sleep(PAUSE).await;
    }
    Ok(times)
}

/// A question, or an upload. Whether it was refused.
async fn send(http: &reqwest::Client, url: &str, key: &str, body: Option<&str>, n: usize) -> anyhow::Result<bool> {
    let request = match body {
        Some(words) => http.post(format!("{url}/v1/documents?title=d{n}")).body(format!("{n} {words}")),
        None => http.post(format!("{url}/v1/query")).json(&json!({"question": "What is RAG?"})),
    };
    let answer = request.bearer_auth(key).send().await?;
    let status = answer.status();
    answer.bytes().await?;
    ensure!(
        status.is_success()
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::FORBIDDEN | StatusCode::UNPROCESSABLE_ENTITY
            ),
        "the flood was answered {status}"
    );
    Ok(!status.is_success())
}
