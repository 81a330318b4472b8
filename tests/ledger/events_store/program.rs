//! The program: it serves whatever becomes of its events store, and makes it anew when it is asked to.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::clickhouse::Engine;
use crate::support::{Api, BINARY, Folder, LIMIT, Program, command, counted, free_port, refusal};

/// A ledger with an events store elsewhere.
fn with_events(folder: &Path, url: &str) -> Program {
    let mut command = command(folder, free_port());
    command.env("EVENTS_URL", url);
    Program::of(command, folder)
}

async fn count(api: &Api, name: &str, number: usize) {
    for question in 0..number {
        api.must(&format!("{name}-{question}"), "settle", counted("acme", &json!({"queries": 1}))).await;
    }
}

async fn lines(api: &Api) -> (u16, Value) {
    api.get("/v1/tenants/acme/lines?from=2026-01-01T00:00:00Z&to=2100-01-01T00:00:00Z&most=1000").await
}

/// Waits until the store has so many lines of `acme`.
async fn has(api: &Api, number: usize) -> Value {
    let start = Instant::now();
    loop {
        let (status, answer) = lines(api).await;
        let found = answer["lines"].as_array().map_or(0, Vec::len);
        if status == 200 && found == number {
            return answer;
        }
        assert!(start.elapsed() < 2 * LIMIT, "{found} of {number}: {status} {answer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn metric(api: &Api, name: &str) -> i64 {
    let (_, metrics) = api.probe("/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{name}: {metrics}"))
}

/// `tenant-operator ledger rebuild`: its exit code and what it says.
fn rebuild(folder: &Path, api: &Api, more: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(BINARY);
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command.args(["ledger", "rebuild", "--ledger-url", &api.url, "--key-file"]).arg(folder.join("key")).args(more);
    refusal(&mut command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_has_an_events_store_without_any_setting_and_makes_it_anew_while_it_counts() {
    let folder = Folder::new("events-program");
    let program = Program::start(folder.path(), free_port());
    let api = program.client();
    count(&api, "a", 30).await;
    let answer = has(&api, 30).await;
    let first = &answer["lines"][0];
    assert_eq!((&first["kind"], &first["counted"]), (&json!("unreserved"), &json!({"queries": 1})), "{answer}");
    let (status, answer) =
        api.get("/v1/tenants/acme/lines?from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z&most=1").await;
    assert_eq!((status, &answer["code"]), (400, &json!("malformed")), "{answer}");
    // Somebody changes the file.
    let file = rusqlite::Connection::open(folder.path().join("data/events.db")).expect("the file");
    file.execute_batch("DELETE FROM line WHERE seq % 2 = 0").expect("changed");
    drop(file);
    has(&api, 15).await;
    let counting = tokio::spawn({
        let api = api.clone();
        async move { count(&api, "b", 60).await }
    });
    let (path, other) = (folder.path().to_owned(), api.clone());
    let (code, said) = tokio::task::spawn_blocking(move || rebuild(&path, &other, &[])).await.expect("it ends");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("holds every line of the ledger"), "{said}");
    counting.await.expect("counted");
    has(&api, 90).await;
    let (status, store) = api.get("/v1/events/store").await;
    assert_eq!((status, &store["store"], &store["generation"]), (200, &json!("SQLite"), &json!(2)), "{store}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_serves_while_its_events_store_is_away_and_feeds_it_later() {
    let (folder, data) = (Folder::new("events-away"), Folder::new("clickhouse"));
    let port = free_port();
    let url = format!("clickhouse://ledger:p%40ss@127.0.0.1:{port}/default");
    let program = with_events(folder.path(), &url);
    let api = program.client();
    count(&api, "a", 20).await;
    let (status, answer) = lines(&api).await;
    assert_eq!((status, &answer["code"]), (503, &json!("events_unavailable")), "{answer}");
    assert_eq!(api.probe("/readyz").await.0, 200);
    assert!(metric(&api, "ledger_events_failures_total").await > 0);
    assert!(!program.logs().contains("p@ss") && !program.logs().contains("p%40ss"), "{}", program.logs());
    let engine = Engine::start(&data, port);
    has(&api, 20).await;
    let start = Instant::now();
    while metric(&api, "ledger_events_lag_lines").await != 0 {
        assert!(start.elapsed() < LIMIT, "the store has all lines, and the metric says that some are missing");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    engine.kill();
    count(&api, "b", 20).await;
    let engine = Engine::start(&data, port);
    has(&api, 40).await;
    // The next process goes on where this one ended.
    program.kill();
    let program = with_events(folder.path(), &url);
    let api = program.client();
    count(&api, "c", 5).await;
    has(&api, 45).await;
    // Another ledger with the same store.
    let other = Folder::new("events-foreign");
    let second = with_events(other.path(), &url);
    let second_api = second.client();
    count(&second_api, "z", 1).await;
    let start = Instant::now();
    while !second.logs().contains("the events store belongs to the ledger") {
        assert!(start.elapsed() < LIMIT, "{}", second.logs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (code, said) = rebuild(other.path(), &second_api, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--take-over"), "{said}");
    assert_eq!(engine.sql("SELECT uniqExact(ledger) FROM fed").await.trim(), "1");
    has(&api, 45).await;
    drop(program);
    let (code, said) = rebuild(other.path(), &second_api, &["--take-over"]);
    assert_eq!(code, Some(0), "{said}");
    has(&second_api, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_does_not_wait_for_an_events_store_that_hangs() {
    let folder = Folder::new("events-hangs");
    // It takes connections, and says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let mut program = with_events(folder.path(), &format!("clickhouse://ledger:x@127.0.0.1:{port}/events"));
    let api = program.client();
    let start = Instant::now();
    count(&api, "a", 50).await;
    assert_eq!(api.probe("/readyz").await.0, 200);
    assert!(start.elapsed() < LIMIT / 2, "{:?}", start.elapsed());
    let (status, _) = lines(&api).await;
    assert_eq!(status, 503);
    let (code, took) = program.stop().await;
    assert_eq!(code, Some(0));
    assert!(took < LIMIT / 2, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_with_a_retention_deletes_old_lines_of_its_events_store_by_itself() {
    let folder = Folder::new("events-retention");
    let mut program = Program::start(folder.path(), free_port());
    count(&program.client(), "a", 10).await;
    has(&program.client(), 10).await;
    assert_eq!(program.stop().await.0, Some(0));
    let file = rusqlite::Connection::open(folder.path().join("data/events.db")).expect("the file");
    file.execute_batch("UPDATE line SET hour = hour - 3 * 86400 WHERE seq <= 8").expect("eight are old");
    drop(file);
    let mut command = command(folder.path(), free_port());
    command.env("EVENTS_RETENTION", "2d");
    let program = Program::of(command, folder.path());
    has(&program.client(), 2).await;
    count(&program.client(), "b", 1).await;
    has(&program.client(), 3).await;
}

#[test]
fn a_url_that_is_none_is_refused_at_the_start() {
    let folder = Folder::new("events-url");
    let mut command = command(folder.path(), free_port());
    let (code, said) = refusal(command.env("EVENTS_URL", "http://ledger:hunter2@host/events"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("EVENTS_URL") && said.contains("clickhouse://") && !said.contains("hunter2"), "{said}");
}
