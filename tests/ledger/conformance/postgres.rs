//! The ledger in Postgres.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use async_trait::async_trait;
use secrecy::SecretString;
use tenant_operator::ledger::store::postgres::Postgres;
use tenant_operator::ledger::store::{Store, StoreError};

use super::{Client, DAY, NOON, Place, forgetting, judge, queries};
use crate::support::{Folder, LIMIT, as_nobody, free_port};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A server of Postgres that ends with the test.
pub struct Server {
    child: Child,
    pub port: u16,
    programs: String,
    folder: Folder,
}

/// The folder of its programs, which are installed once, and not by two tests at the same time.
fn programs() -> &'static str {
    static PROGRAMS: OnceLock<String> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let found = Command::new(format!("{ROOT}/tests/postgres")).output().expect("it runs");
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        String::from_utf8(found.stdout).expect("a path").trim().to_owned()
    })
}

/// One of its programs. Postgres refuses to run as root.
fn program(programs: &str, name: &str) -> Command {
    let path = format!("{programs}/{name}");
    if !rustix::process::geteuid().is_root() {
        return Command::new(path);
    }
    as_nobody(&Command::new(path))
}

impl Server {
    pub fn start() -> Self {
        let programs = programs().to_owned();
        let folder = Folder::new("postgres");
        if rustix::process::geteuid().is_root() {
            let owned = Command::new("chown").arg("65534").arg(folder.path()).status().expect("chown runs");
            assert!(owned.success());
        }
        let data = folder.path().join("data");
        let made = program(&programs, "initdb")
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--pgdata"])
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let child = Self::run(&programs, &folder, port);
        let server = Self { child, port, programs, folder };
        server.answers();
        server
    }

    fn run(programs: &str, folder: &Folder, port: u16) -> Child {
        program(programs, "postgres")
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=400"])
            .args(["-p", &port.to_string(), "-D"])
            .arg(folder.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("postgres starts")
    }

    fn answers(&self) {
        let start = Instant::now();
        while !self.sql("SELECT 1") {
            assert!(start.elapsed() < LIMIT, "postgres does not answer");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    /// The server drops all that it is doing, as in a crash, and starts again: it recovers what was committed.
    pub fn crash_and_recover(&mut self) {
        let told = Command::new("kill").args(["-s", "QUIT", &self.child.id().to_string()]).status();
        assert!(told.is_ok_and(|status| status.success()), "postgres is not there");
        self.child.wait().expect("it ends");
        self.child = Self::run(&self.programs, &self.folder, self.port);
        self.answers();
    }

    /// Whether the server did this, as its own client asks for it.
    pub fn sql(&self, sql: &str) -> bool {
        self.sql_in("postgres", sql)
    }

    fn sql_in(&self, database: &str, sql: &str) -> bool {
        let mut psql = program(&self.programs, "psql");
        psql.args(["--no-psqlrc", "--host=127.0.0.1", "--username=postgres", "--port", &self.port.to_string()]);
        psql.args(["--dbname", database, "--set", "ON_ERROR_STOP=1"]);
        psql.args(["--command", sql]).output().expect("psql runs").status.success()
    }

    pub fn url(&self, database: &str) -> SecretString {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port).into()
    }

    /// A new database.
    fn database(&self) -> Box<dyn Place> {
        Box::new(Database(self.url(&self.new_database())))
    }

    /// The name of a new database.
    pub fn new_database(&self) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("ledger_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        assert!(self.sql(&format!("CREATE DATABASE {name}")));
        name
    }

    /// A session of its own, which keeps a transaction open. It answers `OK` lines on its output.
    pub fn session(&self, database: &str) -> Session {
        let mut psql = program(&self.programs, "psql");
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--host=127.0.0.1", "--username=postgres"]);
        psql.args(["--port", &self.port.to_string(), "--dbname", database, "--set", "ON_ERROR_STOP=1"]);
        let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql runs");
        let said = BufReader::new(child.stdout.take().expect("piped"));
        Session { ask: child.stdin.take().expect("piped"), said, child }
    }
}

/// A client of a server, with one connection.
pub struct Session {
    ask: std::process::ChildStdin,
    said: BufReader<std::process::ChildStdout>,
    child: Child,
}

impl Session {
    /// Does this, and returns once it is done.
    pub fn sql(&mut self, sql: &str) {
        writeln!(self.ask, "{sql}; SELECT 'done';").expect("asked");
        let mut line = String::new();
        while !line.contains("done") {
            line.clear();
            assert!(self.said.read_line(&mut line).expect("text") > 0, "psql ended: {sql}");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A database of the server.
#[derive(Clone)]
struct Database(SecretString);

#[async_trait]
impl Place for Database {
    async fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(Postgres::connect(&self.0).await?))
    }

    /// The server holds what was committed, and another client of it sees nothing else.
    async fn left_by_a_crash(&self) -> Box<dyn Place> {
        Box::new(self.clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_in_postgres_keeps_every_contract() {
    let server = Server::start();
    assert!(judge(&|| server.database(), |_| true).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_used_is_refused_with_the_reason_and_without_its_password() {
    let server = Server::start();
    let refused = async |url: &str| {
        let said = Postgres::connect(&url.to_owned().into()).await.expect_err("no ledger").to_string();
        assert!(!said.contains("hunter2"), "{said}");
        said
    };
    let port = server.port;
    for (url, wanted) in [
        (format!("postgres://postgres:hunter2@127.0.0.1:{}/postgres", free_port()), "Connection refused"),
        (format!("postgres://postgres:hunter2@127.0.0.1:{port}/nowhere"), "database \"nowhere\" does not exist"),
        (
            format!("postgres://postgres:hunter2@127.0.0.1:{port}/postgres?sslmode=require"),
            "server does not support TLS",
        ),
        ("mysql://root:hunter2@127.0.0.1/x".to_owned(), "LEDGER_URL: invalid connection string: use postgres://"),
    ] {
        let said = refused(&url).await;
        assert!(said.contains(wanted), "{url}: {said}");
    }
    // A later version has migrated it.
    let database = server.database();
    drop(database.open().await.expect("a ledger"));
    drop(database.open().await.expect("the same ledger again"));
    let name = "ledger_newer";
    assert!(server.sql(&format!("CREATE DATABASE {name}")));
    let url = server.url(name);
    drop(Postgres::connect(&url).await.expect("a ledger"));
    let mut psql = program(&server.programs, "psql");
    psql.args(["--host=127.0.0.1", "--username=postgres", "--port", &port.to_string(), "--dbname", name]);
    let raised = psql.args(["--command", "UPDATE ledger SET version = 99"]).output().expect("psql runs");
    assert!(raised.status.success());
    let said = Postgres::connect(&url).await.expect_err("a later schema").to_string();
    assert!(said.contains("schema 99") && said.contains("knows 4"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_the_first_schema_is_brought_up_to_this_one() {
    let server = Server::start();
    let units = forgetting::units("BIGINT");
    let sql = format!(
        "{} CREATE TABLE site_day (day BIGINT NOT NULL, part BIGINT NOT NULL, {units}, PRIMARY KEY (day, part));
         INSERT INTO site_day VALUES ({today}, 3, 3,0,0,0,0,2,70), ({today}, 4, 5,0,0,0,0,0,0);
         CREATE TABLE ledger (version BIGINT NOT NULL); INSERT INTO ledger VALUES (1);",
        forgetting::schema_1("BIGINT", "BIGSERIAL PRIMARY KEY", ""),
        today = NOON / DAY,
    );
    assert!(server.sql("CREATE DATABASE first") && server.sql_in("first", &sql));
    let url = server.url("first");
    // Replicas that start at the same moment.
    let opened = futures::future::join_all((0..4).map(|_| Postgres::connect(&url))).await;
    let mut stores = opened.into_iter().map(|store| store.expect("it is migrated once"));
    let store: Arc<dyn Store> = Arc::new(stores.next().expect("four"));
    forgetting::migrated(&store).await.expect("all that it counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_writes_is_not_ready_until_it_does() {
    let server = Server::start();
    let store = Postgres::connect(&server.url("postgres")).await.expect("a ledger");
    store.ready().await.expect("ready");
    for (setting, wanted) in [("on", false), ("off", true)] {
        assert!(server.sql(&format!("ALTER SYSTEM SET default_transaction_read_only = {setting}")));
        assert!(server.sql("SELECT pg_reload_conf()"));
        let start = Instant::now();
        while store.ready().await.is_ok() != wanted {
            assert!(start.elapsed() < LIMIT, "read only: {setting}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

/// Passes bytes on between a client and the server, until it is told to go silent on the connections that are open.
async fn proxy(port: u16, silent: tokio::sync::watch::Receiver<bool>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let own = listener.local_addr().expect("its address").port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut silent = silent.clone();
            silent.mark_unchanged();
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("the server");
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    // It stays open, and says nothing any more.
                    _ = silent.changed() => std::future::pending().await,
                }
            });
        }
    });
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_go_silent_are_given_up_and_new_ones_serve() {
    let server = Server::start();
    let (go_silent, silent) = tokio::sync::watch::channel(false);
    let port = proxy(server.port, silent).await;
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres").into();
    let store: Arc<dyn Store> = Arc::new(Postgres::connect(&url).await.expect("a ledger"));
    let client = Client::of(&store, "acme");
    client.settle("before", queries(1)).await.expect("settled");
    go_silent.send_replace(true);
    let start = Instant::now();
    let said = client.settle("meanwhile", queries(1)).await.expect_err("no answer");
    assert!(said.contains("does not answer"), "{said}");
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    // The client repeats it under the same name.
    client.settle("meanwhile", queries(1)).await.expect("settled");
    client.has("afterwards", queries(2), queries(0)).await.expect("counted once");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_wait_for_one_tenant_hold_up_no_other_and_a_reader_of_lines_holds_up_no_probe() {
    let server = Server::start();
    let url = server.url("postgres");
    let store: Arc<dyn Store> = Arc::new(Postgres::connect(&url).await.expect("a ledger"));
    let (busy, idle) = (Client::of(&store, "busy"), Client::of(&store, "idle"));
    for client in [&busy, &idle] {
        client.settle(&format!("first of {}", client.tenant), queries(1)).await.expect("settled");
    }
    // Another session holds the row of one tenant, and the lock of lines.
    let mut psql = program(&server.programs, "psql");
    psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--host=127.0.0.1", "--username=postgres"]);
    psql.args(["--port", &server.port.to_string()]);
    let mut holder = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql runs");
    let mut ask = holder.stdin.take().expect("piped");
    let lock = "BEGIN; SELECT pg_advisory_xact_lock_shared(92832755875842); \
                SELECT 'held' FROM tenant WHERE id = 'busy' FOR UPDATE;";
    writeln!(ask, "{lock}").expect("asked");
    let mut said = BufReader::new(holder.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("held")), "psql ended");
    let waiting: Vec<_> = (0..40)
        .map(|n| {
            let busy = busy.clone();
            // A command that waits for too long is refused, and its client repeats it under the same name.
            tokio::spawn(async move { while busy.settle(&format!("busy {n}"), queries(1)).await.is_err() {} })
        })
        .collect();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let others = async {
        idle.settle("second of idle", queries(1)).await.expect("settled");
        store.ready().await.expect("ready");
        idle.settle("third of idle", queries(1)).await.expect("settled");
    };
    tokio::time::timeout(LIMIT, others).await.expect("they do not wait for the row");
    assert!(waiting.iter().all(|command| !command.is_finished()), "the row was not held");
    writeln!(ask, "COMMIT;").expect("asked");
    drop(ask);
    assert!(holder.wait().expect("it ends").success());
    for command in waiting {
        tokio::time::timeout(LIMIT, command).await.expect("in time").expect("settled once the row is free");
    }
    busy.has("all of them", queries(41), queries(0)).await.expect("counted");
}
