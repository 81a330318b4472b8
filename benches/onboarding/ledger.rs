//! What counting costs: a reservation and its settlement over loopback, each durable before its answer, beside a server
//! that answers everything with 204 and keeps nothing.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::http::StatusCode;
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::Url;
use serde_json::{Value, json};
use tenant_operator::ledger::LedgerKey;
use tenant_operator::ledger::client::LedgerClient;
use tenant_operator::ledger::wire::{Counted, EVENTS, EventState, Events, Reserve};
use tenant_operator::operator_keys::ledger_key;

use crate::lab::{Process, quantile};
use crate::programs::program;
use crate::web::resident_mb;

/// Operations of one measurement.
const OPERATIONS: usize = 20_000;
/// Batches of events of one measurement.
const BATCHES: usize = 20;
/// Tenants that they are spread over.
const TENANTS: usize = 100;
/// Operations at the same time.
const IN_FLIGHT: [usize; 2] = [16, 256];

pub async fn run() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("tenant-operator-bench-ledger-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let outcome = measure(&folder).await;
    drop(std::fs::remove_dir_all(&folder));
    outcome
}

/// Starts a ledger for a web of this namespace, and answers where it listens. Its files are in the folder.
pub async fn beside_web(client: &kube::Client, namespace: &str) -> anyhow::Result<(Process, String)> {
    let folder = std::env::temp_dir().join(format!("tenant-operator-bench-{namespace}-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let key = ledger_key(client, namespace).await?.authorization();
    std::fs::write(folder.join("key"), key.trim_start_matches("Bearer "))?;
    let (process, url) = started(&folder)?;
    Ok((process, url.into()))
}

async fn measure(folder: &std::path::Path) -> anyhow::Result<()> {
    std::fs::write(folder.join("key"), [7; 32])?;
    let (process, url) = started(folder)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let bare: Url = format!("http://{}", listener.local_addr()?).parse()?;
    let nothing = Router::new().fallback(async || StatusCode::NO_CONTENT);
    let bare_server = tokio::spawn(async move { axum::serve(listener, nothing).await });
    let client = LedgerClient::new(url, &LedgerKey::read(&folder.join("key"))?, Duration::from_secs(10))?;
    for in_flight in IN_FLIGHT {
        let (mut counted, pace) = timed(in_flight, |n| pair(&client, in_flight, n)).await?;
        let http = reqwest::Client::new();
        let (mut idle, bare_pace) = timed(in_flight, |n| two_calls(&http, &bare, n)).await?;
        println!(
            "the ledger, {in_flight} in flight: reserve and settle p50 {:.2} ms, p99 {:.1} ms, {pace:.0} operations/s; \
             a server that keeps nothing: p50 {:.2} ms, p99 {:.1} ms, {bare_pace:.0}/s; {:.2} of its pace",
            quantile(&mut counted, 0.5) * 1000.0,
            quantile(&mut counted, 0.99) * 1000.0,
            quantile(&mut idle, 0.5) * 1000.0,
            quantile(&mut idle, 0.99) * 1000.0,
            pace / bare_pace
        );
    }
    events(&client).await?;
    println!(
        "memory of the ledger after {} operations: {:.0} MB",
        OPERATIONS * IN_FLIGHT.len(),
        resident_mb(process.0.id())?
    );
    bare_server.abort();
    Ok(())
}

/// A ledger in a folder that holds its key.
fn started(folder: &std::path::Path) -> anyhow::Result<(Process, Url)> {
    let mut command = Command::new(program("tenant-operator"));
    command
        .args(["ledger", "--own-clock", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--data"])
        .arg(folder.join("data"));
    let mut child =
        command.arg("--key-file").arg(folder.join("key")).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let out = child.stdout.take().context("piped")?;
    let process = Process(child);
    let mut lines = BufReader::new(out).lines();
    let line = lines.next().context("the ledger ended")??;
    // It says where its metrics are as well, and must be heard.
    lines.next().context("the ledger says where its metrics are")??;
    Ok((process, line.trim_start_matches("listening on ").parse()?))
}

/// Events by batch, each durable and counted once; and the same once more, when all of them are duplicates.
async fn events(client: &LedgerClient) -> anyhow::Result<()> {
    let now = tenant_operator::api::Timestamp::now();
    let batches: Vec<Events> = (0..BATCHES)
        .map(|batch| {
            let event = |n: usize| {
                let mut event = body(n);
                event["source"] = "bench".into();
                event["id"] = format!("{batch}-{n}").into();
                event["time"] = json!(now);
                event
            };
            serde_json::from_value(json!({"events": (0..EVENTS).map(event).collect::<Vec<_>>()}))
        })
        .collect::<Result<_, _>>()?;
    for (what, wanted) in [("new", EventState::Accepted), ("repeated", EventState::Duplicate)] {
        let start = Instant::now();
        let counted = stream::iter(&batches).map(|batch| client.events(batch)).buffer_unordered(2);
        let states: Vec<_> = counted.try_collect().await?;
        let pace = (BATCHES * EVENTS) as f64 / start.elapsed().as_secs_f64();
        let all = states.iter().all(|states| states.events.iter().all(|state| *state == wanted));
        anyhow::ensure!(all, "some events of {what} batches are not {wanted:?}");
        println!("the ledger, events in batches of {EVENTS}, {what}: {pace:.0} events/s");
    }
    Ok(())
}

/// Runs the operations, so many at a time: seconds of each, and how many were done in a second.
async fn timed<F: Future<Output = anyhow::Result<()>>>(
    in_flight: usize,
    operation: impl Fn(usize) -> F,
) -> anyhow::Result<(Vec<f64>, f64)> {
    let start = Instant::now();
    let each = stream::iter(0..OPERATIONS).map(|n| {
        let done = operation(n);
        async move {
            let start = Instant::now();
            done.await?;
            anyhow::Ok(start.elapsed().as_secs_f64())
        }
    });
    let seconds: Vec<f64> = each.buffer_unordered(in_flight).try_collect().await?;
    Ok((seconds, OPERATIONS as f64 / start.elapsed().as_secs_f64()))
}

fn body(n: usize) -> Value {
    json!({"tenant": format!("tenant-{}", n % TENANTS), "amounts": {"queries": 1, "prompt_tokens": 800, "completion_tokens": 200},
        "period": {"start": "2026-11-01T00:00:00Z", "end": "2026-12-01T00:00:00Z"}})
}

fn reservation(n: usize) -> Value {
    let mut body = body(n);
    body["limits"] = json!({"queries": 1_000_000});
    body["expires_after"] = 120.into();
    body
}

async fn pair(client: &LedgerClient, round: usize, n: usize) -> anyhow::Result<()> {
    let operation = format!("bench-{round}-{n}");
    let reserve: Reserve = serde_json::from_value(reservation(n))?;
    client.reserve(&operation, &reserve).await?;
    let used: Counted = serde_json::from_value(body(n))?;
    client.settle(&operation, &used).await?;
    Ok(())
}

async fn two_calls(http: &reqwest::Client, url: &Url, n: usize) -> anyhow::Result<()> {
    for body in [reservation(n), body(n)] {
        http.put(url.clone()).json(&body).send().await?.error_for_status()?.bytes().await?;
    }
    Ok(())
}
