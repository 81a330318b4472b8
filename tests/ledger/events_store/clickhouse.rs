//! An events store on `ClickHouse`'s engine, behind tests/clickhouse/bridge.py.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tenant_operator::ledger::events::EventsStore;
use tenant_operator::ledger::events::clickhouse::ClickHouse;

use super::feeding::{agree, count, open};
use super::{OURS, Place, Spoil, feed, feed_all, judge};
use crate::conformance::NOON;
use crate::support::{Folder, LIMIT, free_port};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The engine, which ends with the test. Its data stay in the folder.
pub struct Engine {
    child: Child,
    pub port: u16,
    http: reqwest::Client,
}

/// The Python that has the engine, which is installed once, and not by two tests at the same time.
fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let found = Command::new(format!("{ROOT}/tests/clickhouse/python")).output().expect("it runs");
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        String::from_utf8(found.stdout).expect("a path").trim().to_owned()
    })
}

impl Engine {
    pub fn start(folder: &Folder, port: u16) -> Self {
        let mut child = Command::new(python())
            .arg(format!("{ROOT}/tests/clickhouse/bridge.py"))
            .arg(port.to_string())
            .arg(folder.path().join("engine"))
            .args(["ledger", "p@ss"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        assert_eq!(lines.next().and_then(Result::ok).as_deref(), Some("listening"));
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().timeout(LIMIT).build().expect("a client");
        Self { child, port, http }
    }

    /// What the engine answers to a statement.
    pub async fn sql(&self, sql: &str) -> String {
        let request = self.http.post(format!("http://127.0.0.1:{}/", self.port)).body(sql.to_owned());
        let request = request.header("x-clickhouse-user", "ledger").header("x-clickhouse-key", "p@ss");
        let answer = request.send().await.expect("it answers");
        let (status, text) = (answer.status(), answer.text().await.expect("text"));
        assert!(status.is_success(), "{sql}: {text}");
        text
    }

    /// Lets one of the next requests fail.
    async fn arm(&self, skip: u32, what: &str) {
        let fault = json!({"skip": skip, "do": what});
        let armed = self.http.post(format!("http://127.0.0.1:{}/-/fault", self.port)).json(&fault).send().await;
        assert!(armed.is_ok_and(|armed| armed.status().is_success()));
    }

    pub fn url(&self, database: &str) -> String {
        format!("clickhouse://ledger:p%40ss@127.0.0.1:{}/{database}", self.port)
    }

    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A database of the engine.
pub struct Database {
    pub engine: Arc<Engine>,
    pub name: String,
}

impl Database {
    pub async fn new(engine: &Arc<Engine>) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("events_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        engine.sql(&format!("CREATE DATABASE {name}")).await;
        Self { engine: engine.clone(), name }
    }
}

#[async_trait]
impl Place for Database {
    fn open(&self) -> Arc<dyn EventsStore> {
        Arc::new(ClickHouse::new(&self.engine.url(&self.name).into()).expect("a URL"))
    }

    async fn spoil(&self, how: Spoil) {
        let name = &self.name;
        let sql = match how {
            Spoil::StrayLine => format!(
                "INSERT INTO {name}.line SELECT max(generation), 'acme', {NOON}, 999999, {NOON}, 'stray', {NOON}, 'settled',
                 1, 0, 0, 0, 0, 0, 0 FROM {name}.fed"
            ),
            Spoil::Newer => format!("INSERT INTO {name}.tenant_operator_events VALUES (9)"),
            Spoil::SomethingElse => format!("CREATE TABLE {name}.customers (name String) ENGINE = MergeTree ORDER BY name"),
        };
        self.engine.sql(&sql).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_store_in_clickhouse_keeps_every_contract() {
    let folder = Folder::new("clickhouse");
    let engine = Arc::new(Engine::start(&folder, free_port()));
    let mut databases = Vec::new();
    for _ in 0..20 {
        databases.push(Database::new(&engine).await);
    }
    let databases = std::sync::Mutex::new(databases);
    let places = || -> Box<dyn Place> { Box::new(databases.lock().expect("not poisoned").pop().expect("enough")) };
    assert_eq!(judge(places).await, Vec::<String>::new());
}

/// Every request of the feed is refused once, and answered into the void once: in the end each line is there once.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_lost_anywhere_loses_and_doubles_nothing() {
    let (folder, data) = (Folder::new("clickhouse"), Folder::new("ledger"));
    let engine = Arc::new(Engine::start(&folder, free_port()));
    let ledger = open(&data).await.expect("a ledger");
    count(&ledger, "a", 30, NOON).await.expect("counted");
    for fault in ["lose", "refuse"] {
        for skip in 0..20 {
            let database = Database::new(&engine).await;
            engine.arm(skip, fault).await;
            for round in 0..2 {
                // Each attempt is that of a process that has just started.
                let mut tries = 0;
                while let Err(error) = feed(&ledger, database.open()).await.round().await {
                    tries += 1;
                    assert!(tries < 3, "{fault} {skip}: {error}");
                    // What the ledger counts meanwhile is no part of the batch that is repeated.
                    count(&ledger, &format!("{fault}-{skip}-{round}-{tries}"), 3, NOON + 90).await.expect("counted");
                }
                count(&ledger, &format!("{fault}-{skip}-{round}"), 2, NOON + 99).await.expect("counted");
            }
            let last = feed(&ledger, database.open()).await;
            feed_all(&last).await.expect("fed");
            // One that was not reached.
            engine.arm(1_000_000, fault).await;
            agree(&format!("{fault} {skip}"), &ledger, &database.open()).await.expect("the same");
            let rows = engine.sql(&format!("SELECT count(), uniqExact(seq) FROM {}.line", database.name)).await;
            let (rows, lines) = rows.trim().split_once('\t').expect("two numbers");
            assert_eq!(rows, lines, "{fault} {skip}: a batch that is repeated is recognised");
        }
    }
}

/// What a person can do about it is in the sentence, and the password is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_used_is_refused_with_the_reason() {
    let folder = Folder::new("clickhouse");
    let engine = Engine::start(&folder, free_port());
    let refused = async |url: String| {
        let store = ClickHouse::new(&url.into()).expect("a URL");
        let said = store.position(OURS).await.expect_err("it cannot be used").to_string();
        assert!(!said.contains("hunter2") && !format!("{store:?}").contains("hunter2"), "{said}");
        said
    };
    let url = |user: &str, database: &str| format!("clickhouse://{user}@127.0.0.1:{}/{database}", engine.port);
    let said = refused(url("ledger:hunter2", "default")).await;
    assert!(said.contains("refuses the user of EVENTS_URL") && said.contains("AUTHENTICATION_FAILED"), "{said}");
    let said = refused(url("ledger:p%40ss", "nowhere")).await;
    assert!(said.contains("has no database of this name: create it"), "{said}");
    let said = refused(format!("clickhouse://ledger:hunter2@127.0.0.1:{}/events", free_port())).await;
    assert!(said.contains("does not answer") && said.contains("Connection refused"), "{said}");
    let said = refused(format!("clickhouses://ledger:hunter2@127.0.0.1:{}/events", engine.port)).await;
    assert!(said.contains("does not answer"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_deletes_lines_that_are_too_old() {
    let folder = Folder::new("clickhouse");
    let engine = Arc::new(Engine::start(&folder, free_port()));
    let database = Database::new(&engine).await;
    let store = database.open();
    store.position(OURS).await.expect("a new store");
    for days in [30, 30, 40] {
        let retention = Duration::from_hours(days * 24);
        store.keep(retention, super::at(NOON)).await.expect("set");
        let table = engine.sql(&format!("SHOW CREATE TABLE {}.line FORMAT TSVRaw", database.name)).await;
        assert!(
            table.contains(&format!("TTL toDateTime(hour) + toIntervalSecond({})", retention.as_secs())),
            "{table}"
        );
    }
}
