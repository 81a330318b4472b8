//! What counting adds to a question: two replicas of web in turns, one with a ledger, the other with a server in its
//! place that answers at once and keeps nothing. The two calls themselves are timed against a bare server and added.

use std::time::Instant;

use anyhow::ensure;
use axum::extract::Path;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use serde_json::{Value, json};
use tenant_operator_dev::cluster::Cluster;

use crate::authz::{bare_server, server};
use crate::lab::quantile;
use crate::ledger::{self, OneTenant};
use crate::targets::{Wanted, judge};
use crate::web::{accepted, start};

const NAMESPACE: &str = "bench-counting";
/// The name of the server that stands in for a ledger.
pub const LEDGER: &str = "ledger";
/// Questions of one measurement; the two replicas take turns after so many.
const QUESTIONS: usize = 600;
const TURN: usize = 50;
const IN_FLIGHT: [usize; 2] = [1, 8];
/// Calls of the ledger that a question waits for: its reservation, its settlement, and that of the tokens beyond the
/// estimate, which the stand-in for `OpenAI` always has.
const CALLS: f64 = 3.0;
/// Web asks a provider no more often than its account allows by default, which would be all that is measured here.
const UNLIMITED: [&str; 6] =
    ["--requests-per-second", "1000000", "--openai-rate", "1000000", "--pinecone-rate", "1000000"];

pub async fn run(client: &Client, cluster: &Cluster) -> anyhow::Result<()> {
    let one = OneTenant::start(client, cluster, NAMESPACE).await?;
    let (_nothing, nothing_url) = server(LEDGER)?;
    let (_bare, bare_url) = bare_server()?;
    let http = reqwest::Client::builder().pool_max_idle_per_host(256).build()?;
    let key = one.key.as_str();
    let mut webs = Vec::new();
    for url in [&one.url, &nothing_url] {
        let arguments = [&UNLIMITED[..], &["--ledger-url", url]].concat();
        let (web, url) = start(cluster, &one.controller, NAMESPACE, &arguments)?;
        accepted(&http, &url, key).await?;
        webs.push((web, url));
    }
    for in_flight in IN_FLIGHT {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..QUESTIONS / TURN {
            for ((_, url), times) in webs.iter().zip(&mut times) {
                times.extend(questions(&http, url, key, in_flight).await?);
            }
        }
        let mut calls = calls(&http, &bare_url, in_flight).await?;
        let [counted, not] = times.map(|mut times| [0.5, 0.95].map(|q| quantile(&mut times, q) * 1000.0));
        let call = quantile(&mut calls, 0.5) * 1000.0;
        println!(
            "a question, {in_flight} in flight: p50 {:.2} ms, p95 {:.2} ms; with a ledger that keeps nothing: p50 {:.2} ms, p95 \
             {:.2} ms; a bare call: p50 {call:.2} ms; counting costs {:.2} ms (wanted: at most 3 ms), {:.2} of the question",
            counted[0],
            counted[1],
            not[0],
            not[1],
            counted[0] - not[0] + CALLS * call,
            counted[0] / (not[0] - CALLS * call)
        );
        judge(
            format!("ms of counting, {in_flight} in flight"),
            counted[0] - not[0] + CALLS * call,
            Wanted::AtMost(3.0),
        );
    }
    Ok(())
}

/// One turn of questions.
async fn questions(http: &reqwest::Client, url: &str, key: &str, in_flight: usize) -> anyhow::Result<Vec<f64>> {
    let each = stream::iter(0..TURN).map(|_| async {
        let start = Instant::now();
        let request = http.post(format!("{url}/v1/query")).bearer_auth(key);
        let answer = request.json(&json!({"question": "What is RAG?"})).send().await?;
        ensure!(answer.status().is_success(), "{}", answer.text().await?);
        answer.bytes().await?;
        anyhow::Ok(start.elapsed().as_secs_f64())
    });
    each.buffer_unordered(in_flight).try_collect().await
}

/// Calls of a server that answers 204, with a body as a reservation has.
async fn calls(http: &reqwest::Client, url: &str, in_flight: usize) -> anyhow::Result<Vec<f64>> {
    let each = stream::iter(0..2 * QUESTIONS).map(|n| async move {
        let start = Instant::now();
        http.put(url).json(&ledger::reservation(n)).send().await?.error_for_status()?.bytes().await?;
        anyhow::Ok(start.elapsed().as_secs_f64())
    });
    each.buffer_unordered(in_flight).try_collect().await
}

/// The server in a ledger's place, until it is killed: it answers as if it had counted.
pub async fn nothing() -> anyhow::Result<()> {
    let reserved = async |Json(body): Json<Value>| {
        Json(json!({"state": "reserved", "period": body["period"], "left": body["limits"]}))
    };
    let ended = async |Path((_, action)): Path<(String, String)>, Json(body): Json<Value>| {
        Json(match &*action {
            "settle" => json!({"state": "settled", "posted": body["amounts"]}),
            "void" => json!({"state": "voided"}),
            _ => json!({"state": "checkpointed"}),
        })
    };
    let used = async || {
        let period = json!({"start": "2026-11-01T00:00:00Z", "end": "2026-12-01T00:00:00Z"});
        Json(json!({"period": period, "used": {}, "reserved": {}}))
    };
    let routes = Router::new()
        .route("/v1/operations/{operation}", put(reserved))
        .route("/v1/operations/{operation}/{action}", post(ended))
        .route("/v1/tenants/{tenant}/usage", get(used));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, routes).await?)
}
