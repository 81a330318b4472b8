//! What counting costs: a reservation and its settlement over loopback, each durable before its answer, beside a server
//! that answers everything with 204 and keeps nothing.

use std::io::{BufRead, BufReader, Seek as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::PostParams;
use reqwest::Url;
use serde_json::{Value, json};
use tenant_operator::ledger::LedgerKey;
use tenant_operator::ledger::client::LedgerClient;
use tenant_operator::ledger::wire::{Counted, EVENTS, EventState, Events, Reserve};
use tenant_operator::operator_keys::ledger_key;
use tenant_operator_dev::cluster::Cluster;

use crate::authz::bare_server;
use crate::lab::{self, Controller, Process, active, quantile, tenant, until};
use crate::programs::program;
use crate::targets::{Wanted, judge};
use crate::web::{self, memory_mb, resident_mb};

/// Operations of one measurement.
const OPERATIONS: usize = 20_000;
/// Batches of events of one measurement.
const BATCHES: usize = 20;
/// Tenants that they are spread over.
pub const TENANTS: usize = 100;
/// Durable events a second, each counted once: what Lago states for Postgres, without telling duplicates apart.
const EVENTS_A_SECOND: f64 = 10_000.0;
/// Operations at the same time.
const IN_FLIGHT: [usize; 3] = [1, 16, 256];
/// Of them, that at which a call is to be answered within a millisecond.
const JUDGED: usize = 16;
/// What a commit writes at least, and how often the disk is asked to keep so much.
const PAGE: [u8; 4096] = [1; 4096];
const SYNCS: usize = 300;

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

/// A tenant that is served, with what web needs to count for it.
pub struct OneTenant {
    pub controller: Controller,
    pub key: String,
    /// The ledger's.
    pub url: String,
    _ledger: Process,
}

impl OneTenant {
    pub async fn start(client: &kube::Client, cluster: &Cluster, namespace: &str) -> anyhow::Result<Self> {
        let api = lab::namespace(client, namespace).await?;
        let controller = Controller::start(cluster, namespace, 0)?;
        api.create(&PostParams::default(), &tenant("t0")).await?;
        until(&api, 1, active).await?;
        let (ledger, url) = beside_web(client, namespace).await?;
        let key = web::key(client, namespace, "t0").await?;
        Ok(Self { controller, key, url, _ledger: ledger })
    }
}

async fn measure(folder: &std::path::Path) -> anyhow::Result<()> {
    std::fs::write(folder.join("key"), [7; 32])?;
    let (process, url) = started(folder)?;
    let (_bare, bare_url) = bare_server()?;
    let bare_url: Url = bare_url.parse()?;
    let client = LedgerClient::new(url, &LedgerKey::read(&folder.join("key"))?, Duration::from_secs(10))?;
    let idle_mb = resident_mb(process.0.id())?;
    let all_mb = || memory_mb(process.0.id(), "VmHWM");
    for in_flight in IN_FLIGHT {
        let disk = synced(folder)?;
        let operations = if in_flight == 1 { OPERATIONS / 10 } else { OPERATIONS };
        let mut counted = pairs(&client, &in_flight.to_string(), operations, in_flight).await?;
        let http = reqwest::Client::new();
        let mut bare = timed(operations, in_flight, |n| two_calls(&http, &bare_url, n)).await?;
        let wanted = if in_flight == JUDGED { " (wanted of a call: p50 under 1 ms, p99 under 15 ms)" } else { "" };
        println!("the ledger, {in_flight} in flight: {}{wanted}", counted.told());
        println!("  a server that keeps nothing: {}", bare.told());
        let [reserve, settle] = counted.calls.each_mut().map(|times| quantile(times, 0.5) * 1000.0);
        if in_flight == JUDGED {
            let [late, later] = counted.calls.each_mut().map(|times| quantile(times, 0.99) * 1000.0);
            judge("p50 of the ledger's slower call in ms", reserve.max(settle), Wanted::Under(1.0));
            judge("p99 of the ledger's slower call in ms", late.max(later), Wanted::Under(15.0));
        }
        println!(
            "  {:.2} of its pace; the disk keeps 4 KiB in p50 {disk:.2} ms: a reservation takes {:.1} times, a settlement {:.1} times \
             as long",
            counted.pace / bare.pace,
            reserve / disk,
            settle / disk
        );
    }
    events(&client).await?;
    println!(
        "memory of the ledger: {idle_mb:.0} MB idle, {:.0} MB at most under this load, {:.1} times as much; {:.0} MB after {} \
         operations and {} events",
        all_mb()?,
        all_mb()? / idle_mb,
        resident_mb(process.0.id())?,
        OPERATIONS / 10 + 2 * OPERATIONS,
        BATCHES * EVENTS
    );
    Ok(())
}

/// A ledger in a folder that holds its key.
pub fn started(folder: &std::path::Path) -> anyhow::Result<(Process, Url)> {
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
        println!(
            "the ledger, events in batches of {EVENTS}, {what}: {pace:.0} events/s (wanted: at least {EVENTS_A_SECOND:.0}), {:.1} \
             times as many",
            pace / EVENTS_A_SECOND
        );
        judge(format!("events a second, {what}"), pace, Wanted::AtLeast(EVENTS_A_SECOND));
    }
    Ok(())
}

/// The median of what the disk takes to keep a page, in milliseconds: each commit waits for that at least. It is written
/// in its old place, as the log is, which begins anew every few commits.
fn synced(folder: &std::path::Path) -> anyhow::Result<f64> {
    let mut file = std::fs::File::create(folder.join("synced"))?;
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        file.rewind()?;
        file.write_all(&PAGE)?;
        let start = Instant::now();
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(quantile(&mut times, 0.5))
}

/// What operations of two calls took.
pub struct Timed {
    /// Seconds of each first and each second call.
    pub calls: [Vec<f64>; 2],
    /// Seconds of both calls of an operation.
    pub operations: Vec<f64>,
    /// Operations a second.
    pub pace: f64,
}

impl Timed {
    /// Milliseconds of the calls and of the operations.
    pub fn told(&mut self) -> String {
        let of = |times: &mut [f64]| {
            let [half, most] = [0.5, 0.99].map(|q| quantile(times, q) * 1000.0);
            format!("p50 {half:.2} ms, p99 {most:.1} ms")
        };
        let [reserve, settle] = self.calls.each_mut().map(|times| of(times));
        let both = of(&mut self.operations);
        format!("reserve {reserve}; settle {settle}; both {both}; {:.0} operations/s", self.pace)
    }
}

/// Runs operations of two calls, so many at a time.
async fn timed<F: Future<Output = anyhow::Result<[f64; 2]>>>(
    operations: usize,
    in_flight: usize,
    operation: impl Fn(usize) -> F,
) -> anyhow::Result<Timed> {
    let start = Instant::now();
    let each: Vec<[f64; 2]> =
        stream::iter(0..operations).map(operation).buffer_unordered(in_flight).try_collect().await?;
    let pace = operations as f64 / start.elapsed().as_secs_f64();
    let operations = each.iter().map(|[first, second]| first + second).collect();
    let calls = [0, 1].map(|call| each.iter().map(|seconds| seconds[call]).collect());
    Ok(Timed { calls, operations, pace })
}

fn body(n: usize) -> Value {
    json!({"tenant": format!("tenant-{}", n % TENANTS), "amounts": {"queries": 1, "prompt_tokens": 800, "completion_tokens": 200},
        "period": {"start": "2026-11-01T00:00:00Z", "end": "2026-12-01T00:00:00Z"}})
}

pub fn reservation(n: usize) -> Value {
    let mut body = body(n);
    body["limits"] = json!({"queries": 1_000_000});
    body["expires_after"] = 120.into();
    body
}

/// Reserves and settles so many operations of a round, so many at a time.
pub async fn pairs(client: &LedgerClient, round: &str, operations: usize, in_flight: usize) -> anyhow::Result<Timed> {
    timed(operations, in_flight, |n| pair(client, round, n)).await
}

async fn pair(client: &LedgerClient, round: &str, n: usize) -> anyhow::Result<[f64; 2]> {
    let operation = format!("bench-{round}-{n}");
    let reserve: Reserve = serde_json::from_value(reservation(n))?;
    let used: Counted = serde_json::from_value(body(n))?;
    let start = Instant::now();
    client.reserve(&operation, &reserve).await?;
    let reserved = start.elapsed().as_secs_f64();
    client.settle(&operation, &used).await?;
    Ok([reserved, start.elapsed().as_secs_f64() - reserved])
}

async fn two_calls(http: &reqwest::Client, url: &Url, n: usize) -> anyhow::Result<[f64; 2]> {
    let mut seconds = [0.0; 2];
    for (body, seconds) in [reservation(n), body(n)].iter().zip(&mut seconds) {
        let start = Instant::now();
        http.put(url.clone()).json(body).send().await?.error_for_status()?.bytes().await?;
        *seconds = start.elapsed().as_secs_f64();
    }
    Ok(seconds)
}
