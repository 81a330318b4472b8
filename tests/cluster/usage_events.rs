//! `POST /v1/usage/events`: what other services report, honest, wrong, twice, too much, and while the ledger is away.

use std::time::{Duration, Instant};

use futures::future;
use reqwest::Response;
use serde_json::{Value, json};
use tenant_operator::api::{Timestamp, Unit};
use tokio::io::AsyncReadExt;

use crate::support::{Lab, begin, said};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const ONE: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const LINES: &str = "application/x-ndjson";
const DAY: i64 = 24 * 3600;

/// A lab whose second replica of web takes events, and the first one's address.
async fn lab(name: &str, plan: &str) -> (Lab, String) {
    let mut lab = Lab::start(name, &[("acme", plan)]).await;
    let without = lab.world.web.clone();
    lab.world.environment("USAGE_EVENTS_TOKEN", &format!("{},{TOKEN}", "old-".repeat(8)));
    lab.world.start_web(&["--requests-per-second", "1000"]);
    lab.client("acme").await;
    (lab, without)
}

async fn id_of(lab: &Lab, tenant: &str) -> String {
    lab.world.tenants().get(tenant).await.expect("it is there").spec.tenant_id.expect("an id")
}

async fn send(lab: &Lab, token: &str, kind: &str, body: impl Into<reqwest::Body>) -> Response {
    let request = lab.world.http.post(lab.url("/v1/usage/events")).bearer_auth(token);
    request.header("content-type", kind).body(body).send().await.expect("it answers")
}

/// The states of the events of a call that was processed, each with its code, and the whole answer.
async fn told(answer: Response) -> (Vec<String>, Value) {
    let code = answer.status();
    let answer: Value = answer.json().await.expect("JSON");
    assert_eq!(code, 200, "{answer}");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = answer["events"].as_array().expect("events");
    let states: Vec<_> =
        events.iter().map(|e| format!("{} {}", text(&e["state"]), text(&e["code"])).trim_end().to_owned()).collect();
    let count = |state: &str| states.iter().filter(|s| s.starts_with(state)).count();
    let counts = [&answer["accepted"], &answer["duplicates"], &answer["refused"]];
    assert_eq!(counts, [&json!(count("accepted")), &json!(count("duplicate")), &json!(count("refused"))]);
    (states, answer)
}

async fn one(lab: &Lab, event: &Value) -> String {
    told(send(lab, TOKEN, ONE, event.to_string()).await).await.0.remove(0)
}

fn event(tenant: &str, id: &str, time: Timestamp, data: &Value) -> Value {
    json!({
        "specversion": "1.0", "type": "dev.tenant-operator.usage.v1", "source": "/services/chat", "id": id,
        "subject": tenant, "time": time, "data": data,
    })
}

/// An event with another value of an attribute.
fn with(event: &Value, attribute: &str, value: impl Into<Value>) -> Value {
    let mut event = event.clone();
    event[attribute] = value.into();
    event
}

/// Queries of the tenant in the period that a moment is in, as the ledger has them.
async fn queries_at(lab: &Lab, tenant: &str, time: Timestamp) -> i64 {
    let periods = lab.world.ledger().periods(tenant).await.expect("the ledger answers");
    let there = |p: &&tenant_operator::ledger::wire::PeriodUsage| p.period.start <= time && time < p.period.end;
    periods.iter().find(there).map_or(0, |period| period.used[Unit::Queries])
}

/// Neither strangers nor tenants may send events, nor anyone where no token is set.
async fn strangers_and_tenants_are_refused(lab: &Lab, without: &str, key: &str, event: &Value) {
    for (token, wanted) in [("", "Send the token"), ("wrong", "Send the token"), (key, "API key of a tenant")] {
        let refused = send(lab, token, ONE, event.to_string()).await;
        assert_eq!(refused.status(), 401, "{token}");
        let problem: Value = refused.json().await.expect("JSON");
        assert_eq!(problem["code"], "unauthorized");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(wanted)), "{problem}");
    }
    let none = lab.world.http.post(format!("{without}/v1/usage/events")).bearer_auth(TOKEN);
    let none = none.header("content-type", ONE).body(event.to_string()).send().await.expect("it answers");
    assert_eq!(none.status(), 404);
    let problem: Value = none.json().await.expect("JSON");
    assert!(problem["code"] == "no_usage_events" && problem.to_string().contains("USAGE_EVENTS_TOKEN"), "{problem}");
}

/// One bad event spoils none of the others, and what ids hold is never more than text. Four events are counted.
async fn bad_events_are_refused_one_by_one(lab: &Lab, good: &Value) {
    let query = |name: &str| with(good, "id", name);
    let data = |name: &str, data: Value| with(&query(name), "data", data);
    let hostile = "'); DROP TABLE operations; --";
    let (malformed, unknown) = ("refused malformed", "refused unknown_tenant");
    let (events, wanted): (Vec<_>, Vec<_>) = [
        (query("first"), "accepted"),
        (data("negative", json!({"queries": -1})), malformed),
        (data("half", json!({"queries": 0.5})), malformed),
        (data("huge", json!({"queries": 1e15})), malformed),
        (data("unit", json!({"questions": 1})), malformed),
        (data("level", json!({"queries": 1, "documents": 1})), malformed),
        (with(&query("stranger"), "subject", "5c9b3a0e-0000-0000-0000-000000000000"), unknown),
        (with(&query("name"), "subject", "acme"), unknown),
        (with(&query("type"), "type", "com.example.usage"), "refused unknown_type"),
        (query("line\r\nX-Injected: 1"), malformed),
        (query(&"x".repeat(513)), malformed),
        (json!(7), malformed),
        (query(hostile), "accepted"),
        (query("first"), "duplicate"),
        (with(&query(hostile), "source", "\" OR 1=1; --"), "accepted"),
    ]
    .into_iter()
    .unzip();
    let (states, answer) = told(send(lab, TOKEN, BATCH, json!(events).to_string()).await).await;
    assert_eq!(states, wanted, "{answer}");
    assert_eq!((&answer["events"][1]["id"], &answer["events"][9]["id"]), (&json!("negative"), &Value::Null));
    assert_eq!(answer["events"][12]["id"], hostile);
    let lines = format!("{}\n\n{{\"specversion\": \n", query("line"));
    assert_eq!(told(send(lab, TOKEN, LINES, lines).await).await.0, ["accepted", malformed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_service_count_once_in_their_period_and_bad_ones_are_refused_one_by_one() {
    let (lab, without) = lab("events", "few").await;
    let acme = lab.client("acme").await;
    let (id, now) = (id_of(&lab, "acme").await, Timestamp::now());
    let query = |name: &str| event(&id, name, now, &json!({"queries": 1}));
    strangers_and_tenants_are_refused(&lab, &without, &acme.key, &query("stranger")).await;
    assert_eq!(acme.usage().await["queries"]["used"], 0);

    // Each way to write an event names the same one.
    assert_eq!(one(&lab, &query("a b€")).await, "accepted");
    assert_eq!(one(&lab, &query("a b€")).await, "duplicate");
    let binary = lab.world.http.post(lab.url("/v1/usage/events")).bearer_auth(TOKEN);
    let binary = binary.header("content-type", "application/json").body(r#"{"queries": 1}"#);
    let binary = binary.header("ce-specversion", "1.0").header("ce-type", "dev.tenant-operator.usage.v1");
    let binary = binary.header("ce-source", "/services/chat").header("ce-id", "a%20b%E2%82%AC");
    let binary = binary.header("ce-subject", &id).header("ce-time", now.to_string());
    assert_eq!(told(binary.send().await.expect("it answers")).await.0, ["duplicate"]);
    assert_eq!(one(&lab, &with(&query("a b€"), "source", "/services/other")).await, "accepted");
    bad_events_are_refused_one_by_one(&lab, &query("")).await;
    let used = json!({"used": 6, "limit": 7});
    assert_eq!(acme.usage().await["queries"], used, "two, and four of those between bad ones");

    // An event counts in the period of its time, and beyond the limit; the next question is refused.
    let ago = |days: i64| now.plus(-days * DAY);
    let at = |name: &str, time: Timestamp| with(&query(name), "time", json!(time));
    assert_eq!(one(&lab, &at("yesterday", ago(1))).await, "accepted");
    assert_eq!(one(&lab, &at("34 days", ago(34))).await, "accepted");
    assert_eq!(one(&lab, &at("36 days", ago(36))).await, "refused too_old");
    assert_eq!(one(&lab, &at("before 1970", Timestamp::from_second(-DAY))).await, "refused too_old");
    assert_eq!(one(&lab, &at("ahead", now.plus(600))).await, "refused time_ahead");
    assert_eq!((queries_at(&lab, &id, ago(1)).await, queries_at(&lab, &id, ago(34)).await), (1, 1));
    assert_eq!(acme.usage().await["queries"], used, "the tenant's period has just begun");
    assert_eq!(one(&lab, &with(&query("beyond"), "data", json!({"queries": 2}))).await, "accepted");
    assert_eq!(acme.usage().await["queries"]["used"], 8);
    assert_eq!(acme.ask("What is RAG?").await.status(), 429);
}

/// What a connection answers, up to the end of its headers.
async fn head_of(mut stream: tokio::net::TcpStream) -> String {
    let mut read = Vec::new();
    while !read.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).await.expect("an answer");
        assert!(count > 0, "{}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&piece[..count]);
    }
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_events_are_one_call_and_what_is_beyond_the_bounds_is_refused_before_it_is_counted() {
    let (lab, _) = lab("events-bounds", "enterprise").await;
    let (id, now) = (id_of(&lab, "acme").await, Timestamp::now());
    let many = |count: usize| (0..count).map(|i| event(&id, &format!("e{i}"), now, &json!({"queries": 1})));
    let counted = async || lab.world.counted("acme").await.map_or(0, |usage| usage.used[Unit::Queries]);

    for (kind, body) in [
        (BATCH, json!(many(10_001).collect::<Vec<_>>()).to_string()),
        (LINES, many(10_001).map(|event| event.to_string() + "\n").collect()),
        (BATCH, " ".repeat((8 << 20) + 1)),
    ] {
        let refused = send(&lab, TOKEN, kind, body).await;
        assert_eq!(refused.status(), 413, "{kind}");
        assert_eq!(refused.json::<Value>().await.expect("JSON")["code"], "too_large");
    }
    for (kind, body, status) in [(BATCH, "[", 400), (ONE, "no JSON", 400), ("text/plain", "x", 415), ("", "x", 415)] {
        assert_eq!(send(&lab, TOKEN, kind, body).await.status().as_u16(), status, "{kind}: {body}");
    }
    // Refused by its headers, before any of the body.
    let head = |token: &str, length: u64| {
        format!(
            "POST /v1/usage/events HTTP/1.1\r\nAuthorization: Bearer {token}\r\nContent-Type: {LINES}\r\nContent-Length: {length}"
        )
    };
    let start = Instant::now();
    for (token, length, status) in [(TOKEN, 1 << 30, 413), ("wrong", 1 << 20, 401)] {
        let answer = head_of(begin(&lab.world.web, &head(token, length), b"{").await).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(counted().await, 0);

    // Bodies that never arrive hold the places for 10 seconds; an honest one waits and is counted.
    let head = head(TOKEN, 1000);
    let slow = future::join_all((0..2).map(|_| begin(&lab.world.web, &head, b"{"))).await;
    let body = json!(many(10_000).collect::<Vec<_>>()).to_string();
    let answer = send(&lab, TOKEN, BATCH, body.clone()).await;
    let (status, text) = (answer.status(), answer.text().await.expect("text"));
    assert!(matches!(status.as_u16(), 200 | 429), "{text}");
    for stream in slow {
        assert!(head_of(stream).await.starts_with("HTTP/1.1 408 "));
    }
    let (_, answer) = told(send(&lab, TOKEN, BATCH, body).await).await;
    let all = [&answer["accepted"], &answer["duplicates"]];
    assert!([[&json!(10_000), &json!(0)], [&json!(0), &json!(10_000)]].contains(&all), "{all:?}");
    assert_eq!(counted().await, 10_000);

    // A token that could be guessed is not taken.
    let mut web = lab.world.command("web");
    web.args(["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--namespace", &lab.world.namespace]);
    let output = tokio::task::block_in_place(|| web.env("USAGE_EVENTS_TOKEN", format!("{TOKEN},short")).output());
    let output = output.expect("it runs");
    assert!(!output.status.success());
    assert!(
        said(&output).contains("number 2 of USAGE_EVENTS_TOKEN is shorter than 32 characters"),
        "{}",
        said(&output)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_ledger_is_away_nothing_is_kept_and_events_that_are_sent_again_count_once() {
    let (mut lab, _) = lab("events-away", "enterprise").await;
    let (id, now) = (id_of(&lab, "acme").await, Timestamp::now());
    let batch: Vec<_> = (0..9_000).map(|i| event(&id, &format!("e{i}"), now, &json!({"promptTokens": 3}))).collect();
    let body = json!(batch).to_string();
    let probe = event(&id, "probe", now, &json!({"queries": 1})).to_string();
    lab.world.kill_ledger();
    let away = send(&lab, TOKEN, BATCH, body.clone()).await;
    assert_eq!(away.status(), 503);
    assert!(away.headers().contains_key("retry-after"));
    assert_eq!(away.json::<Value>().await.expect("JSON")["code"], "ledger_unavailable");
    lab.world.start_ledger();
    lab.world.until("web finds the ledger", async || send(&lab, TOKEN, ONE, probe.clone()).await.status() == 200).await;
    assert_eq!(lab.world.settled("acme", Unit::PromptTokens).await, 0, "nothing was kept");

    // Killed in the middle of a call, three times; the sender sends again until it has an answer.
    for wait in [20, 60, 150] {
        let sending = {
            let (http, url, body) = (lab.world.http.clone(), lab.url("/v1/usage/events"), body.clone());
            tokio::spawn(async move {
                let request = http.post(url).bearer_auth(TOKEN).header("content-type", BATCH).body(body);
                request.send().await.expect("it answers").status().as_u16()
            })
        };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        lab.world.kill_ledger();
        lab.world.start_ledger();
        let status = sending.await.expect("it ends");
        assert!(matches!(status, 200 | 503), "{status}");
    }
    let start = Instant::now();
    let answer = loop {
        let answers = [send(&lab, TOKEN, BATCH, body.clone()), send(&lab, TOKEN, BATCH, body.clone())];
        let [first, second] = <[Response; 2]>::try_from(future::join_all(answers).await).expect("two");
        if first.status() == 200 && second.status() == 200 {
            break (told(first).await.1, told(second).await.1);
        }
        assert!(start.elapsed() < Duration::from_mins(1), "the ledger is not back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    for answer in [&answer.0, &answer.1] {
        assert_eq!(answer["refused"], 0, "{}", answer["accepted"]);
    }
    assert_eq!(lab.world.settled("acme", Unit::PromptTokens).await, 27_000, "each event once");
}
