//! What a gateway's question costs: `/authz`, checked and counted, beside an axum server that answers 204 to
//! everything. Each server is a process of its own, and all of it shares this machine's processors.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::http::StatusCode;
use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use tenant_operator_dev::cluster::Cluster;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::lab::{Process, quantile};
use crate::ledger::OneTenant;
use crate::targets::{Wanted, judge};
use crate::web::{accepted, start};

const NAMESPACE: &str = "bench-authz";
/// Set in the environment of a process that is one of the servers to compare with: which one.
pub const BARE: &str = "BENCH_BARE_SERVER";
/// Requests of one measurement, and how many at the same time.
const REQUESTS: usize = 20_000;
const COUNTED: usize = 5_000;
const IN_FLIGHT: usize = 16;
/// Requests of a second, and for how many seconds: the rate that Stigg states for its sidecar, on one core with a p95
/// of 10 ms.
const RATE: u64 = 1200;
const SECONDS: u64 = 10;

pub async fn run(client: &Client, cluster: &Cluster) -> anyhow::Result<()> {
    let one = OneTenant::start(client, cluster, NAMESPACE).await?;
    let arguments = ["--requests-per-second", "1000000", "--ledger-url", &one.url];
    let (web, url) = start(cluster, &one.controller, NAMESPACE, &arguments)?;
    let http = reqwest::Client::builder().pool_max_idle_per_host(256).build()?;
    let key = one.key.as_str();
    accepted(&http, &url, key).await?;
    let (bare, bare_url) = bare_server()?;
    let check = format!("{url}/authz");
    let consume = format!("{url}/authz?consume=queries");

    let bare_pace = closed(&http, &bare_url, key, REQUESTS, "an axum server that answers 204").await?;
    let check_pace = closed(&http, &check, key, REQUESTS, CHECK).await?;
    let consume_pace = closed(&http, &consume, key, COUNTED, "/authz, consume").await?;
    println!(
        "/authz beside the axum server: check {:.2} of its pace (wanted: at least 0.7), consume {:.2}",
        check_pace / bare_pace,
        consume_pace / bare_pace
    );
    judge("pace of checks beside a bare server", check_pace / bare_pace, Wanted::AtLeast(0.7));
    let mut bare_p95 = None;
    for (process, url, what) in [
        (&bare, &bare_url, "an axum server that answers 204"),
        (&web, &check, CHECK),
        (&web, &consume, "/authz, consume"),
    ] {
        one_core(process.0.id());
        let p95 = open(&http, url, key, what).await?;
        let beside = *bare_p95.get_or_insert(p95);
        if what.starts_with('/') {
            println!(
                "{what} at {RATE} requests a second on one core: p95 {:.2} ms (wanted of a check: under 10 ms), {:.1} times the \
                 axum server's",
                p95 * 1000.0,
                p95 / beside
            );
        }
        if what == CHECK {
            judge("p95 of checks in ms", p95 * 1000.0, Wanted::Under(10.0));
        }
    }
    Ok(())
}

/// A check, which is judged.
const CHECK: &str = "/authz, check";

/// The bare server, until it is killed.
pub async fn bare() -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, Router::new().fallback(async || StatusCode::NO_CONTENT)).await?)
}

/// A server that answers 204, in a process of its own.
pub fn bare_server() -> anyhow::Result<(Process, String)> {
    server("204")
}

/// One of the servers that this program can be.
pub fn server(which: &str) -> anyhow::Result<(Process, String)> {
    let mut child = Command::new(std::env::current_exe()?).env(BARE, which).stdout(Stdio::piped()).spawn()?;
    let out = child.stdout.take().context("piped")?;
    let process = Process(child);
    let url = BufReader::new(out).lines().next().context("the server says where it listens")??;
    Ok((process, url))
}

/// Leaves a process one core, where `taskset` is there to do it.
fn one_core(pid: u32) {
    let pinned = Command::new("taskset").args(["-a", "-p", "-c", "0", &pid.to_string()]).stdout(Stdio::null()).status();
    if !pinned.is_ok_and(|status| status.success()) {
        println!("taskset is missing: the server is not held to one core");
    }
}

async fn ask(http: &reqwest::Client, url: &str, key: &str) -> anyhow::Result<()> {
    let answer = http.get(url).bearer_auth(key).send().await?;
    ensure!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await?);
    answer.bytes().await?;
    Ok(())
}

/// Requests one after the other, so many at a time: how many are answered in a second.
async fn closed(http: &reqwest::Client, url: &str, key: &str, requests: usize, what: &str) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let each = stream::iter(0..requests).map(|_| async {
        let start = Instant::now();
        ask(http, url, key).await?;
        anyhow::Ok(start.elapsed().as_secs_f64())
    });
    let mut times: Vec<f64> = each.buffer_unordered(IN_FLIGHT).try_collect().await?;
    let pace = requests as f64 / begun.elapsed().as_secs_f64();
    println!(
        "{what}, {IN_FLIGHT} in flight: {pace:.0} requests/s, p50 {:.2} ms, p99 {:.2} ms",
        quantile(&mut times, 0.5) * 1000.0,
        quantile(&mut times, 0.99) * 1000.0
    );
    Ok(pace)
}

/// Requests at a rate, whether those before are answered or not: the p95 of the time since each was due.
async fn open(http: &reqwest::Client, url: &str, key: &str, what: &str) -> anyhow::Result<f64> {
    let mut due = interval(Duration::from_nanos(1_000_000_000 / RATE));
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = JoinSet::new();
    for _ in 0..RATE * SECONDS {
        let start = due.tick().await;
        let (http, url, key) = (http.clone(), url.to_owned(), key.to_owned());
        under_way.spawn(async move {
            ask(&http, &url, &key).await?;
            anyhow::Ok(start.elapsed().as_secs_f64())
        });
    }
    let mut times = Vec::new();
    while let Some(time) = under_way.join_next().await {
        times.push(time??);
    }
    let p95 = quantile(&mut times, 0.95);
    println!(
        "{what}, {RATE} requests a second on one core: p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms",
        quantile(&mut times, 0.5) * 1000.0,
        p95 * 1000.0,
        quantile(&mut times, 0.99) * 1000.0
    );
    Ok(p95)
}
