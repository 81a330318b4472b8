//! What strangers, and tenants that flood, cost: the API server next to nothing, and others no wait.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::json;
use tenant_operator::api::Phase;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Lab, World, name, signed_up, text};

/// What the API server says of itself: the sum of a metric's samples that have these labels.
fn counted(world: &World, metric: &str, labels: &[&str]) -> f64 {
    let output = world.kubectl(&["get", "--raw", "/metrics"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter(|line| line.starts_with(metric) && labels.iter().all(|label| line.contains(label)));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_open_pages_cost_the_api_server_next_to_nothing() {
    let mut world = World::apart("cost").await;
    world.start_controller();
    world.start_web(&["--requests-per-second", "1000", "--client-requests-per-second", "10000"]);
    let body = signed_up(&world, "ada@example.com").await;
    world.pay(&name(&body)).await;
    world.wait_phase(&name(&body), Phase::Active).await;
    let url = format!("{}/tenant/{}", world.web, text(&body, "tenant_id"));

    let reads = || counted(&world, "apiserver_request_total", &["resource=\"configmaps\"", "verb=\"GET\""]);
    let before = reads();
    for _ in 0..300 {
        let answer = world.http.get(format!("{}/.well-known/jwks.json", world.web)).send().await.expect("it answers");
        assert_eq!(answer.status(), 200);
    }
    assert!(reads() - before < 30.0, "{} reads for 300 requests", reads() - before);

    let watches = || counted(&world, "apiserver_longrunning_requests", &["resource=\"tenants\"", "verb=\"WATCH\""]);
    let before = watches();
    let mut streams = Vec::new();
    for _ in 0..8 {
        let stream = world.http.get(format!("{url}/events")).bearer_auth(text(&body, "token")).send().await;
        let mut stream = stream.expect("it answers").bytes_stream();
        let first = stream.next().await.expect("an event").expect("bytes");
        assert!(String::from_utf8_lossy(&first).contains("event: tenant"));
        streams.push(stream);
    }
    // A watch of the controller or of web may have been between its end and its next beginning before.
    assert!(watches() < before + 4.0, "{} watches before, {} with eight streams", before, watches());
    // They see what changes.
    world.annotate(&name(&body), "example.com/note", "x").await;
    for stream in &mut streams {
        let next = tokio::time::timeout(Duration::from_secs(30), stream.next()).await.expect("an event in time");
        assert!(next.is_some_and(|bytes| bytes.is_ok()));
    }

    let writes = || counted(&world, "apiserver_request_total", &["resource=\"tenants\"", "verb=\"PATCH\""]);
    let before = writes();
    let (mut done, mut refused) = (0, 0);
    for i in 0..80 {
        let skip = world.http.post(format!("{url}/setup/skip")).bearer_auth(text(&body, "token"));
        match skip.json(&json!({"skipped": i % 2 == 0})).send().await.expect("it answers").status().as_u16() {
            200 => done += 1,
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!(done >= 20 && refused >= 20, "{done} done, {refused} refused");
    assert!(writes() - before < 60.0, "{} writes", writes() - before);
}

fn middle(times: &mut [u128]) -> u128 {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
async fn a_tenant_that_floods_is_slowed_down_and_others_wait_for_one_of_its_calls_at_a_time() {
    let mut lab = Lab::start("flood", &[("acme", "enterprise"), ("other", "enterprise")]).await;
    lab.world.environment("OPENAI_RATE", "10");
    // More than OpenAI takes, and so few that the flood is larger on a slow machine too.
    lab.world.start_web(&["--requests-per-second", "12"]);
    let (acme, other) = (lab.client("acme").await, lab.client("other").await);
    let (over, longest) = (AtomicBool::new(false), AtomicU64::new(0));
    let flood = futures::future::join_all((0..120).map(|_| async {
        let (mut times, mut refused) = (Vec::new(), 0);
        while !over.load(Ordering::Relaxed) {
            let start = Instant::now();
            match acme.ask("What is RAG?").await.status().as_u16() {
                200 => {
                    let took = start.elapsed().as_millis();
                    longest.fetch_max(u64::try_from(took).expect("not for ever"), Ordering::Relaxed);
                    times.push(took);
                }
                429 => {
                    refused += 1;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                other => panic!("{other}"),
            }
        }
        (times, refused)
    }));
    let calm = async {
        let mut times = Vec::new();
        let is_long = async || longest.load(Ordering::Relaxed) >= 2000;
        lab.world.until("the line of the other one is long", is_long).await;
        for _ in 0..15 {
            let start = Instant::now();
            assert_eq!(other.ask("What is RAG?").await.status(), 200);
            times.push(start.elapsed().as_millis());
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        over.store(true, Ordering::Relaxed);
        times
    };
    let (flood, mut calm) = tokio::join!(flood, calm);
    let refused: u32 = flood.iter().map(|(_, refused)| refused).sum();
    let mut slow: Vec<_> = flood.into_iter().flat_map(|(times, _)| times).collect();
    assert!(refused > 0, "nothing was refused");
    let (slow, calm_middle) = (middle(&mut slow), middle(&mut calm));
    // Both wait in the same line for ten calls a second.
    assert!(calm_middle * 2 < slow, "{calm_middle} ms beside {slow} ms: {calm:?}");
}

#[tokio::test]
async fn a_client_that_reads_nothing_gives_its_place_to_others() {
    let mut world = World::without_controller("reader").await;
    world.start_web(&["--write-timeout", "1", "--max-connections", "1", "--client-requests-per-second", "100000"]);
    let addr = world.web.trim_start_matches("http://").to_owned();
    let mut slow = tokio::net::TcpStream::connect(&addr).await.expect("connected");
    // Far more than the buffers of the connection hold.
    let requests = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2000);
    let sent = tokio::time::timeout(Duration::from_secs(5), slow.write_all(requests.as_bytes())).await;
    drop(sent);
    let probe = format!("{}/healthz", world.web_metrics.trim_end_matches("/metrics"));
    assert_eq!(
        world.http.get(probe).send().await.expect("it answers").status(),
        200,
        "probes have a port of their own"
    );
    let answer = world.http.get(format!("{}/healthz", world.web)).send().await.expect("in the end there is a place");
    assert_eq!(answer.status(), 200);
    // What was written until then arrives, and no more.
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(30), slow.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection is still open");
}

#[tokio::test]
async fn a_client_has_so_many_connections() {
    let mut world = World::without_controller("connections").await;
    world.start_web(&["--max-connections-per-client", "2"]);
    let addr = world.web.trim_start_matches("http://").to_owned();
    let connect = async || tokio::net::TcpStream::connect(&addr).await.expect("connected");
    let held = (connect().await, connect().await);
    let mut third = connect().await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), third.read_to_end(&mut rest)).await;
    assert!(ended.is_ok() && rest.is_empty(), "the third is open");
    drop(held);
    let start = Instant::now();
    while world.http.get(format!("{}/healthz", world.web)).send().await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(30), "closed connections still count");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn web_says_when_a_proxy_hides_its_clients() {
    let mut world = World::without_controller("hidden").await;
    world.start_web(&[]);
    let hidden = async || {
        let text = world.http.get(&world.web_metrics).send().await.expect("it answers").text().await.expect("text");
        text.lines().any(|line| line == "web_clients_hidden 1")
    };
    let ask = async |forwarded: bool| {
        let request = world.http.get(format!("{}/pricing", world.web));
        let request = if forwarded { request.header("x-forwarded-for", "192.0.2.7") } else { request };
        request.send().await.expect("it answers");
    };
    for _ in 0..120 {
        ask(true).await;
    }
    assert!(hidden().await);
    ask(false).await;
    assert!(!hidden().await, "a client comes directly");
}

/// A question that finds nothing takes tokens and no query, so its line in the ledger stays, and the plan limits none.
#[tokio::test]
async fn questions_that_find_nothing_are_limited() {
    let lab = Lab::start("vain", &[("acme", "enterprise"), ("other", "enterprise")]).await;
    let (acme, other) = (lab.client("acme").await, lab.client("other").await);
    let mut answered = 0;
    // A minute allows 20 again.
    let refused = loop {
        let answer = acme.ask("Zxqv wklm pfft?").await;
        if answer.status() != 200 || answered == 200 {
            break answer;
        }
        answered += 1;
    };
    assert!(answered >= 60 && refused.status() == 429, "{answered} answered, then {}", refused.status());
    assert!(refused.headers().contains_key("retry-after"));
    let body: serde_json::Value = refused.json().await.expect("JSON");
    assert_eq!(body["code"], "too_many_requests");
    assert!(body["detail"].as_str().is_some_and(|why| why.contains("found nothing")), "{body}");
    assert_eq!(other.ask("Zxqv wklm pfft?").await.status(), 200, "another tenant asks");
    lab.world.until("it asks again", async || acme.ask("What is RAG?").await.status() == 200).await;
}
