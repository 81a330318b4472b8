//! Folders, the product's program as a ledger, and a client of it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The product's program.
pub const BINARY: &str = env!("CARGO_BIN_EXE_tenant-operator");
/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(20);
/// The key of the tests.
pub const KEY: &str = "5ec2e7be57a1c0ffee5ec2e7be57a1c0ffee5ec2e7be57a1c0ffee5ec2e7be57";

/// What a client knows of its operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    Refused,
    Settled(i64),
    Voided,
    /// The client stopped after a checkpoint of so many tokens. The operation may have expired before that.
    Abandoned(i64),
}

/// A folder that goes with the test.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(topic: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ledger-{topic}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port()
}

/// The command of a ledger in a folder. Its key is beside the folder of its data.
pub fn command(folder: &Path, port: u16) -> Command {
    let mut command = without_place(folder, port);
    command.arg("--data").arg(folder.join("data"));
    command
}

/// The command of a ledger that is not told where its data are. Its key is in the folder.
fn without_place(folder: &Path, port: u16) -> Command {
    let key = folder.join("key");
    if !key.exists() {
        std::fs::write(&key, KEY).expect("a key");
    }
    let mut command = Command::new(BINARY);
    for variable in ["RUST_LOG", "LOG_FORMAT", "LEDGER_LISTEN", "LEDGER_DATA", "LEDGER_KEY_FILE", "LEDGER_OWN_CLOCK"] {
        command.env_remove(variable);
    }
    command.args(["ledger", "--own-clock", "--listen", &format!("127.0.0.1:{port}")]);
    command.args(["--metrics-listen", "127.0.0.1:0"]).arg("--key-file").arg(key);
    command.stdin(Stdio::null());
    command
}

/// The same command as a user who may do nothing but enter and read folders that are root's alone, as the checkout and
/// the temporary folder can be.
pub fn as_nobody(command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--pdeathsig=KILL"]);
    wrapped
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

/// How a ledger ends that cannot start: its exit code and what it says.
pub fn refusal(command: &mut Command) -> (Option<i32>, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let start = Instant::now();
    while child.try_wait().expect("a child of ours").is_none() {
        if start.elapsed() > LIMIT {
            drop(child.kill());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

/// A ledger that runs. It is killed with the test.
pub struct Program {
    child: Child,
    pub url: String,
    /// Where its metrics and probes are.
    pub metrics: String,
    logs: PathBuf,
}

impl Program {
    /// Starts a ledger, and waits until it listens. Its logs go to a file in the folder, after those of the one before.
    pub fn start(folder: &Path, port: u16) -> Self {
        Self::of(command(folder, port), folder)
    }

    /// A replica of a ledger in Postgres, with its events in `ClickHouse`. The folder has its key and its logs.
    pub fn replica(folder: &Path, url: &str, events: &str, port: u16) -> Self {
        let mut command = without_place(folder, port);
        command.env("LEDGER_URL", url).env("EVENTS_URL", events);
        Self::of(command, folder)
    }

    pub fn of(mut command: Command, folder: &Path) -> Self {
        let logs = folder.join("logs");
        let file = std::fs::File::options().create(true).append(true).open(&logs).expect("a file");
        let mut child = command.stdout(Stdio::piped()).stderr(file).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let mut said = |before: &str| {
            let line = lines.next().unwrap_or_default();
            let logs = || std::fs::read_to_string(&logs).unwrap_or_default();
            line.strip_prefix(before).unwrap_or_else(|| panic!("{line}{}", logs())).to_owned()
        };
        let (url, metrics) = (said("listening on "), said("metrics on "));
        let metrics = metrics.trim_end_matches("/metrics").to_owned();
        Self { child, url, metrics, logs }
    }

    pub fn logs(&self) -> String {
        std::fs::read_to_string(&self.logs).unwrap_or_default()
    }

    /// SIGKILL: nothing of it gets to clean up.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// SIGTERM: its exit code, and how long it took to end.
    pub async fn stop(&mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        let sent = Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the ledger is not there");
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return (status.code(), start.elapsed());
            }
            assert!(start.elapsed() < LIMIT, "the ledger does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn client(&self) -> Api {
        Api::at(&self.url, &self.metrics)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A client that shows the key.
#[derive(Clone)]
pub struct Api {
    pub http: reqwest::Client,
    pub url: String,
    pub metrics: String,
}

impl Api {
    pub fn at(url: &str, metrics: &str) -> Self {
        // The first one wins, whichever test it is.
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().timeout(LIMIT).build().expect("a client");
        Self { http, url: url.to_owned(), metrics: metrics.to_owned() }
    }

    /// The status and the JSON of an answer; null where it is none.
    pub async fn ask(&self, method: &str, path: &str, body: Value) -> reqwest::Result<(u16, Value)> {
        let method = method.parse().expect("a method");
        let request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(KEY);
        let request = if body.is_null() { request } else { request.json(&body) };
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        Ok((status, serde_json::from_str(&answer.text().await?).unwrap_or_default()))
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, Value::Null).await.expect("it answers")
    }

    /// A command: `reserve`, `settle` and so on.
    pub async fn command(&self, operation: &str, action: &str, body: Value) -> reqwest::Result<(u16, Value)> {
        match action {
            "reserve" => self.ask("PUT", &format!("/v1/operations/{operation}"), body).await,
            _ => self.ask("POST", &format!("/v1/operations/{operation}/{action}"), body).await,
        }
    }

    /// A command that is repeated until it is answered, by this ledger or by the next one.
    pub async fn insist(&self, operation: &str, action: &str, body: Value) -> (u16, Value) {
        let start = Instant::now();
        loop {
            match self.command(operation, action, body.clone()).await {
                Ok((status, answer)) if status != 503 => return (status, answer),
                said => assert!(start.elapsed() < 2 * LIMIT, "{operation} {action}: {said:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A command that must be done.
    pub async fn must(&self, operation: &str, action: &str, body: Value) -> Value {
        let (status, answer) = self.command(operation, action, body).await.expect("it answers");
        assert_eq!(status, 200, "{operation} {action}: {answer}");
        answer
    }

    /// What a tenant has used and reserved of a unit.
    pub async fn account(&self, tenant: &str, unit: &str) -> [i64; 2] {
        let (status, usage) = self.get(&format!("/v1/tenants/{tenant}/usage")).await;
        assert_eq!(status, 200, "{usage}");
        ["used", "reserved"].map(|side| usage[side][unit].as_i64().unwrap_or_default())
    }

    /// What the ledger answers beside its API: its metrics and probes.
    pub async fn probe(&self, path: &str) -> (u16, String) {
        let answer = self.http.get(format!("{}{path}", self.metrics)).send().await.expect("it answers");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    /// How many operations the ledger awaits, by its metrics.
    pub async fn pending(&self) -> i64 {
        let (_, metrics) = self.probe("/metrics").await;
        let line = metrics.lines().find_map(|line| line.strip_prefix("ledger_pending_operations "));
        line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{metrics}"))
    }

    /// Waits until a tenant has nothing reserved.
    pub async fn nothing_reserved(&self, tenant: &str, unit: &str, most: Duration) {
        let start = Instant::now();
        while self.account(tenant, unit).await[1] != 0 {
            assert!(start.elapsed() < most, "{tenant} has reserved {:?}", self.account(tenant, unit).await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// A period that is open for years.
pub fn period() -> Value {
    json!({"start": "2026-01-01T00:00:00Z", "end": "2036-01-01T00:00:00Z"})
}

/// The body of a reservation.
pub fn reserve(tenant: &str, amounts: &Value, limits: &Value, expires_after: u32) -> Value {
    json!({"tenant": tenant, "period": period(), "amounts": amounts, "limits": limits, "expires_after": expires_after})
}

/// The body of a settlement or a release.
pub fn counted(tenant: &str, amounts: &Value) -> Value {
    json!({"tenant": tenant, "period": period(), "amounts": amounts})
}
