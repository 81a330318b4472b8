//! `tenant-operator ledger rebuild` while the feed runs, twice at once, and broken off in the middle: nothing is lost and
//! nothing is there twice.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use tenant_operator::api::Timestamp;
use tenant_operator::ledger::account::{Account, Period};
use tenant_operator::ledger::decision::{Answer, Command as LedgerCommand};
use tenant_operator::ledger::store::{
    Answers, Changed, ClosedHours, Day, Pending, Store, StoreError, StoredLine, Waiting,
};
use tenant_operator::ledger::units::Amounts;
use tenant_operator::telemetry::Metrics;
use tokio::sync::Notify;

use super::clickhouse::Engine;
use super::feed;
use super::feeding::{count, open};
use super::sqlite::File;
use crate::conformance::NOON;
use crate::support::{Api, BINARY, Folder, LIMIT, Program, command, counted, free_port};

fn rebuild(folder: &Path, api: &Api) -> Child {
    let mut command = Command::new(BINARY);
    command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.args(["ledger", "rebuild", "--ledger-url", &api.url, "--key-file"]).arg(folder.join("key"));
    command.spawn().expect("it starts")
}

/// How it ends: its exit code and what it says.
async fn ended(child: Child) -> (Option<i32>, String) {
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().expect("it ends")).await.expect("it ends");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The operations of all lines of `acme` that the store has, and how many lines there are.
async fn stored(api: &Api) -> (BTreeSet<String>, usize) {
    let (mut names, mut number, mut after) = (BTreeSet::new(), 0, 0);
    loop {
        let path =
            format!("/v1/tenants/acme/lines?from=2026-01-01T00:00:00Z&to=2100-01-01T00:00:00Z&most=1000&after={after}");
        let (status, answer) = api.get(&path).await;
        let lines = answer["lines"].as_array().cloned().unwrap_or_default();
        let Some(last) = lines.last().filter(|_| status == 200) else { return (names, number) };
        after = last["seq"].as_i64().expect("a number");
        number += lines.len();
        names.extend(lines.iter().map(|line| line["operation"].as_str().expect("a name").to_owned()));
    }
}

/// The store holds every line of these operations once, as its status says.
async fn holds(api: &Api, wanted: usize) {
    let start = Instant::now();
    loop {
        let (_, status): (u16, Value) = api.get("/v1/events/store").await;
        let (names, lines) = stored(api).await;
        if (names.len(), lines) == (wanted, wanted) {
            return;
        }
        assert!(start.elapsed() < 2 * LIMIT, "{} names, {lines} lines of {wanted}: {status}", names.len());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn rebuilt_again_and_again(folder: &Folder, start: impl Fn() -> Program) {
    const EACH: usize = 500;
    let mut program = start();
    let api = program.client();
    let counting = async |name: &str| {
        for number in 0..EACH {
            let body = counted("acme", &json!({"queries": 1}));
            let (status, said) = api.insist(&format!("{name}-{number}"), "settle", body).await;
            assert_eq!(status, 200, "{said}");
        }
    };
    counting("before").await;
    holds(&api, EACH).await;

    // Two at once, while it counts.
    let both = async {
        let pair = [rebuild(folder.path(), &api), rebuild(folder.path(), &api)];
        for one in pair.map(ended) {
            let (code, said) = one.await;
            assert_eq!(code, Some(0), "{said}");
        }
        let (names, _) = stored(&api).await;
        assert!(names.len() >= EACH, "they said that the store is complete: {} lines", names.len());
    };
    tokio::join!(counting("two"), both);
    holds(&api, 2 * EACH).await;

    // The command is killed, at once and later; the ledger goes on.
    let broken_off = async {
        for wait in [5, 30, 90] {
            let mut one = rebuild(folder.path(), &api);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            one.kill().expect("it runs");
            one.wait().expect("it ends");
        }
    };
    tokio::join!(counting("killed"), broken_off);
    holds(&api, 3 * EACH).await;

    // The ledger itself is killed while it makes the store anew.
    for wait in [0, 15, 60] {
        let asked = tokio::spawn({
            let api = api.clone();
            async move { drop(api.ask("POST", "/v1/events/rebuild", json!({"take_over": false})).await) }
        });
        tokio::time::sleep(Duration::from_millis(wait)).await;
        program.kill();
        asked.await.expect("it ends");
        program = start();
        holds(&api, 3 * EACH).await;
    }
    counting("after").await;
    holds(&api, 4 * EACH).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_sqlite_is_rebuilt_twice_at_once_and_in_part_without_a_loss() {
    let (folder, port) = (Folder::new("rebuilt"), free_port());
    rebuilt_again_and_again(&folder, || Program::of(command(folder.path(), port), folder.path())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_clickhouse_is_rebuilt_twice_at_once_and_in_part_without_a_loss() {
    let (folder, data, port) = (Folder::new("rebuilt"), Folder::new("clickhouse"), free_port());
    let engine = Engine::start(&data, free_port());
    let start = || {
        let mut command = command(folder.path(), port);
        command.env("EVENTS_URL", engine.url("default"));
        Program::of(command, folder.path())
    };
    rebuilt_again_and_again(&folder, start).await;
}

/// A ledger that answers slowly how many lines wait.
#[derive(Debug)]
struct Slow {
    ledger: Arc<dyn Store>,
    asked: Notify,
    answers: Notify,
    noted: Notify,
}

#[async_trait]
impl Store for Slow {
    async fn waiting(&self, after: i64, most: u32) -> Result<Waiting, StoreError> {
        let waiting = self.ledger.waiting(after, most).await;
        self.asked.notify_one();
        self.answers.notified().await;
        waiting
    }

    /// The feed asks this next.
    async fn hours(&self, _: &str, _: Timestamp, _: u32, _: Timestamp) -> Result<ClosedHours, StoreError> {
        self.noted.notify_one();
        std::future::pending().await
    }

    async fn apply(&self, command: LedgerCommand, now: Timestamp) -> Result<Answer, StoreError> {
        self.ledger.apply(command, now).await
    }

    async fn count(&self, events: Vec<LedgerCommand>, now: Timestamp) -> Result<Vec<Answer>, StoreError> {
        self.ledger.count(events, now).await
    }

    async fn usage(&self, tenant: &str) -> Result<Option<(Period, Account)>, StoreError> {
        self.ledger.usage(tenant).await
    }

    async fn periods(&self, tenant: &str, most: u32) -> Result<Vec<(Period, Account)>, StoreError> {
        self.ledger.periods(tenant, most).await
    }

    async fn days(&self, tenant: Option<&str>, first: Day, last: Day) -> Result<Vec<(Day, Amounts)>, StoreError> {
        self.ledger.days(tenant, first, last).await
    }

    async fn lines(&self, after: i64, most: u32) -> Result<Vec<StoredLine>, StoreError> {
        self.ledger.lines(after, most).await
    }

    async fn id(&self) -> Result<String, StoreError> {
        self.ledger.id().await
    }

    async fn changed(&self, after: i64, most: u32) -> Result<Vec<Changed>, StoreError> {
        self.ledger.changed(after, most).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.ledger.ready().await
    }

    async fn forget(&self, before: Timestamp, most: u32) -> Result<u32, StoreError> {
        self.ledger.forget(before, most).await
    }

    async fn pending(&self) -> Result<Vec<Pending>, StoreError> {
        self.ledger.pending().await
    }

    fn answers(&self) -> &dyn Answers {
        self.ledger.answers()
    }
}

/// The feed counts what waits, and meanwhile the store is emptied: nobody is told that it is complete.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_emptied_while_its_feed_looks_is_not_called_complete() {
    let folder = Folder::new("emptied");
    let ledger = open(&folder).await.expect("a ledger");
    count(&ledger, "a", 30, NOON).await.expect("counted");
    let [asked, answers, noted] = [(); 3].map(|()| Notify::new());
    let slow = Arc::new(Slow { ledger, asked, answers, noted });
    let store: Arc<dyn Store> = slow.clone();
    let file = File::place();
    let feed = Arc::new(feed(&store, file.open()).await);
    let running = tokio::spawn({
        let feed = feed.clone();
        async move { feed.run(&Metrics::default()).await }
    });
    slow.asked.notified().await;
    assert_eq!(feed.fed.read().seq, 30, "it was fed");
    let generation = feed.begin_anew(false).await.expect("emptied");
    slow.answers.notify_one();
    slow.noted.notified().await;
    let progress = feed.fed.read();
    let found = (progress.generation, progress.seq, progress.is_complete());
    assert_eq!(found, (Some(generation), 0, false), "{progress:?}");
    running.abort();
}
