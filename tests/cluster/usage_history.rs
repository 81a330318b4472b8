//! What a customer used before: the same numbers in the API, on the page and on the command line, and no wait for a
//! ledger that does not tell them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tenant_operator::api::Phase;

use crate::support::{Visitor, World, period_before, said, status_of_question};

/// A world with a customer who is logged in, and the name of their Tenant.
async fn customer(name: &str) -> (World, String, Vec<(String, String)>) {
    let mut world = World::without_controller(name).await;
    world.controller_args(&["--usage-interval=1"]);
    world.start_controller();
    world.start_web(&[]);
    let mut ada = Visitor::new(&world);
    let name = ada.sign_up("ada@example.com", "Ada Ltd").await;
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Active).await;
    let cookies = ada.cookies;
    (world, name, cookies)
}

async fn usage(world: &World, key: &str, query: &str) -> (u16, Value) {
    let request = world.http.get(format!("{}/v1/usage{query}", world.web)).bearer_auth(key);
    let answer = request.send().await.expect("it answers");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

/// `kubectl tenant usage` of the customer.
fn told(world: &World, args: &[&str]) -> std::process::Output {
    world.command("usage").args(["-n", &world.namespace]).args(args).output().expect("it runs")
}

/// A day as the page writes it.
fn day(second: i64) -> String {
    jiff::Timestamp::from_second(second).expect("a time").strftime("%-d %b %Y").to_string()
}

#[tokio::test]
async fn a_usage_history_is_the_same_in_the_api_on_the_page_and_on_the_command_line() {
    let (mut world, name, cookies) = customer("history").await;
    let key = world.api_key(&name).await;
    world.until("web knows the tenant", async || usage(&world, &key, "").await.0 == 200).await;
    let (_, first) = usage(&world, &key, "?days=1").await;
    assert_eq!(first["history"]["periods"], json!([]), "{first}");
    assert_eq!(first["history"]["days"][0]["used"]["queries"], 0, "{first}");
    let mut ada = Visitor::new(&world);
    ada.cookies.clone_from(&cookies);
    let (_, page) = ada.get("/account").await;
    assert!(page.contains("Once your first period has ended") && !page.contains("<svg viewBox"), "{page}");

    world.used_before(&name, &[1234, 0, 7]).await;
    assert_eq!(status_of_question(&world, &key).await, 200);
    world.until("the question counts", async || usage(&world, &key, "").await.1["queries"]["used"] == 1).await;

    // The API.
    let (status, told_by_api) = usage(&world, &key, "?days=2").await;
    assert_eq!(status, 200, "{told_by_api}");
    let (periods, days) = (&told_by_api["history"]["periods"], &told_by_api["history"]["days"]);
    let queries: Vec<_> = periods.as_array().expect("periods").iter().map(|p| p["used"]["queries"].clone()).collect();
    assert_eq!(queries, [1234, 0, 7], "{periods}");
    assert_eq!(periods[0]["used"]["prompt_tokens"], 12341, "{periods}");
    assert_eq!(periods[0]["period_end"], told_by_api["period_start"], "{periods}");
    // All of it was counted today; yesterday, where midnight has passed meanwhile.
    let on = |day: usize| days[day]["used"]["queries"].as_i64().expect("a number");
    assert_eq!((days.as_array().map(Vec::len), on(0) + on(1)), (Some(2), 1242), "{days}");
    assert_eq!(usage(&world, &key, "").await.1["history"].get("days"), None);
    for days in ["-1", "1e9", "0", "94", "", "1.5", "7%00", "99999999999999999999"] {
        let (status, refused) = usage(&world, &key, &format!("?days={days}")).await;
        assert_eq!((status, &refused["code"]), (400, &json!("invalid")), "{days}: {refused}");
        assert_eq!(refused["fields"]["days"], "must be a whole number from 1 to 93", "{days}: {refused}");
    }
    assert_eq!(usage(&world, &key, "?days=1&days=2").await.0, 400);

    // The page.
    let quota = world.status(&name).await.quota.expect("a quota");
    let (status, page) = ada.get("/account").await;
    assert_eq!(status, 200);
    for (before, queries) in [(1, "1,234"), (2, "0"), (3, "7")] {
        let period = period_before(&quota, before);
        let (from, until) = (day(period.start.as_second()), day(period.end.as_second()));
        let row = format!("<td>{from}</td><td>{until}</td><td>{queries}</td>");
        assert!(page.contains(&row), "{row} is missing: {page}");
    }
    assert!(page.contains("<td>now</td><td>1</td>"), "{page}");
    assert_eq!(page.matches("<figure class=\"plot\">").count(), 2, "{page}");

    // The command line.
    let line = async || {
        let output = told(&world, &[&name, "--history", "--days", "2", "-o", "json"]);
        serde_json::from_slice::<Value>(&output.stdout).ok()
    };
    let counted = async || line().await.is_some_and(|line| line["usage"]["queries"]["used"] == 1);
    world.until("the status shows the usage", counted).await;
    let told_by_command = line().await.expect("JSON");
    let history = &told_by_command["history"];
    for (i, period) in periods.as_array().expect("periods").iter().enumerate() {
        let there = &history["periods"][i];
        assert_eq!(
            (&there["periodStart"], &there["periodEnd"]),
            (&period["period_start"], &period["period_end"]),
            "{history}"
        );
        for (ours, theirs) in [("queries", "queries"), ("promptTokens", "prompt_tokens")] {
            assert_eq!(there["used"][ours], period["used"][theirs], "{history}");
        }
    }
    assert_eq!(history["periods"].as_array().map(Vec::len), Some(3));
    assert_eq!(history["days"][0]["used"]["queries"], days[0]["used"]["queries"]);
    let table = said(&told(&world, &[&name, "--history"]));
    assert!(table.contains("PERIOD") && table.contains(" 1234 ") && table.contains(" 12341 "), "{table}");
    assert!(!said(&told(&world, &[&name])).contains("PERIOD"));
    for wrong in [vec!["--history"], vec!["--days", "2"], vec![&name, "--history", "--days", "94"]] {
        assert_eq!(told(&world, &wrong).status.code(), Some(2), "{wrong:?}");
    }

    // Without the ledger, the page says so, and after the first one no page waits.
    let kept = ada.cookies.clone();
    world.kill_ledger();
    let mut ada = Visitor::new(&world);
    ada.cookies = kept;
    for limit in [5, 1] {
        let begun = Instant::now();
        let (status, page) = ada.get("/account").await;
        assert!(status == 200 && begun.elapsed() < Duration::from_secs(limit), "{status} {:?}", begun.elapsed());
        assert!(page.contains("What you used before cannot be shown at the moment."), "{page}");
        assert!(page.contains("What you have used is not known at the moment.") && !page.contains("<figure"), "{page}");
    }
    let (status, away) = usage(&world, &key, "?days=2").await;
    assert_eq!((status, &away["code"]), (503, &json!("ledger_unavailable")), "{away}");
    let output = told(&world, &[&name, "--history"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("no history from http://127.0.0.1:"), "{}", said(&output));
}

/// In front of a ledger: what it says of periods comes late, all else at once.
struct SlowHistory {
    ledger: String,
    http: reqwest::Client,
}

impl SlowHistory {
    /// Answers its address.
    async fn start(ledger: String) -> String {
        let state = Arc::new(Self { ledger, http: reqwest::Client::new() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(axum::serve(listener, Router::new().fallback(Self::forward).with_state(state)).into_future());
        url
    }

    async fn forward(State(there): State<Arc<Self>>, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        if parts.uri.path().ends_with("/periods") {
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        let body = axum::body::to_bytes(body, 1 << 24).await.expect("a body");
        let request = there.http.request(parts.method, format!("{}{}", there.ledger, parts.uri));
        let answer = request.headers(parts.headers).body(body).send().await.expect("the ledger answers");
        (answer.status(), answer.bytes().await.expect("a body")).into_response()
    }
}

#[tokio::test]
async fn a_usage_history_that_comes_late_is_left_out_and_nothing_waits_for_it() {
    let (mut world, name, cookies) = customer("history-late").await;
    let slow = SlowHistory::start(world.ledger_url()).await;
    world.environment("LEDGER_ENDPOINT", &slow);
    world.start_web(&[]);
    let key = world.api_key(&name).await;
    world.until("web knows the tenant", async || usage(&world, &key, "").await.0 == 200).await;
    let begun = Instant::now();
    let (status, told) = usage(&world, &key, "?days=7").await;
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
    assert_eq!((status, &told["queries"]["used"], told.get("history")), (200, &json!(0), None), "{told}");
    let why = told["history_unavailable"].as_str().expect("a reason");
    assert!(why.starts_with("Earlier usage is not known at the moment."), "{why}");
    let mut ada = Visitor::new(&world);
    ada.cookies = cookies;
    let begun = Instant::now();
    let (status, page) = ada.get("/account").await;
    assert!(status == 200 && begun.elapsed() < Duration::from_millis(2500), "{status} {:?}", begun.elapsed());
    assert!(page.contains("What you used before cannot be shown at the moment."), "{page}");
    assert!(page.contains("Questions this period"), "what is used now is there: {page}");
    assert_eq!(status_of_question(&world, &key).await, 200, "and the ledger is not taken to be away");
}
