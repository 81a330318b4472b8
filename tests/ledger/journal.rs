//! Web's journal against the real ledger: replicas that are killed while they keep and deliver, a ledger that is away,
//! that refuses, and volumes that are full or cannot be written.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{join_all, select};
use serde_json::{Value, json};
use tenant_operator::ledger::LedgerKey;
use tenant_operator::ledger::client::LedgerClient;
use tenant_operator::ledger::store::Store;
use tenant_operator::ledger::store::sqlite::Sqlite;
use tenant_operator::ledger::units::Unit;
use tenant_operator::web::metering::journal::{Entry, Journal, JournalError};

use crate::conformance::reading;
use crate::files::Volume;
use crate::support::{Api, Folder, LIMIT, Program, as_nobody, counted, free_port, period, reserve};

/// How often the replica is killed.
const KILLS: usize = 20;
/// What the replica does at once.
const TASKS: usize = 8;
/// The bytes of a large journal.
const LARGE: u64 = 16 << 20;

fn entry(action: &str, operation: &str, body: &Value) -> Entry {
    let entry = json!({"action": action, "operation": operation, "body": body});
    serde_json::from_value(entry).expect("an entry")
}

fn settle(operation: &str, tenant: &str, amounts: &Value) -> Entry {
    entry("settle", operation, &counted(tenant, amounts))
}

fn open(folder: &Folder) -> Journal {
    open_in(&folder.path().join("journal"))
}

fn open_in(folder: &Path) -> Journal {
    let start = Instant::now();
    loop {
        match Journal::open(folder, LARGE) {
            // A child that another test starts has all open files, and so the lock, until its own program runs.
            Err(JournalError::InUse(_)) if start.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(10)),
            journal => return journal.expect("a journal"),
        }
    }
}

/// A client that shows a key of a ledger's folder.
fn client(url: &str, folder: &Path) -> LedgerClient {
    // The client of the tests sets what both need.
    drop(Api::at(url, url));
    let key = LedgerKey::read(&folder.join("key")).expect("a key");
    LedgerClient::new(url.parse().expect("a URL"), &key, Duration::from_millis(300)).expect("a client")
}

/// Delivers until a condition holds.
async fn deliver_until(journal: &Journal, ledger: &LedgerClient, done: impl Fn(&Journal) -> bool) {
    let wait = async {
        let start = Instant::now();
        while !done(journal) {
            assert!(start.elapsed() < LIMIT, "{} entries wait", journal.entries());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    select(Box::pin(journal.deliver(ledger)), Box::pin(wait)).await;
}

async fn deliver_all(journal: &Journal, ledger: &LedgerClient) {
    deliver_until(journal, ledger, |journal| journal.entries() == 0).await;
}

/// What is in the file of refused entries: the operation and the reason.
fn refused(folder: &Folder) -> BTreeMap<String, String> {
    let text = fs::read_to_string(folder.path().join("journal/refused.jsonl")).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    lines.map(|line| (text(&line["entry"]["operation"]), text(&line["reason"]))).collect()
}

/// A replica of web that keeps entries and delivers them until it is killed, in a process of its own. It says what it
/// has kept.
#[test]
#[ignore = "other tests start it"]
fn replica() {
    let Ok(folder) = std::env::var("JOURNAL_FOLDER") else { return };
    let folder = Path::new(&folder);
    let [url, round] = ["JOURNAL_LEDGER", "JOURNAL_ROUND"].map(|name| std::env::var(name).expect("a variable"));
    let journal = match Journal::open(&folder.join("journal"), LARGE) {
        Ok(journal) => journal,
        Err(error) => return say(&format!("error: {error}")),
    };
    say("open");
    let ledger = client(&url, folder);
    let keep = async |task: usize| {
        for number in 0.. {
            let name = format!("{round}-{task}-{number}");
            let amounts = json!({"queries": 1, "prompt_tokens": number % 90});
            journal.keep(&settle(&name, "acme", &amounts)).await.expect("kept");
            say(&format!("kept {name}"));
            // As much as a ledger counts beside it.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::join!(join_all((0..TASKS).map(keep)), journal.deliver(&ledger)) });
}

/// Writes a line at once, past the test's own output.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "replica: {line}").and_then(|()| out.flush()).expect("a pipe");
}

struct Replica {
    child: Child,
    said: std::thread::JoinHandle<Vec<String>>,
}

impl Replica {
    /// Starts a replica, and waits until it has opened its journal or failed.
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let own = |line: String| line.strip_prefix("replica: ").map(str::to_owned);
        let first = lines.by_ref().find_map(own).expect("it says something");
        let said = std::thread::spawn(move || std::iter::once(first).chain(lines.filter_map(own)).collect());
        Self { child, said }
    }

    fn command(folder: &Path, url: &str, round: usize) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command.args(["--exact", "journal::replica", "--ignored", "--nocapture"]);
        command.env("JOURNAL_FOLDER", folder).env("JOURNAL_LEDGER", url).env("JOURNAL_ROUND", round.to_string());
        command
    }

    /// SIGKILL: what it said until then.
    fn kill(mut self) -> Vec<String> {
        drop(self.child.kill());
        self.child.wait().expect("it ends");
        self.said.join().expect("text")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_has_kept_is_counted_once_however_often_it_is_killed() {
    let folder = Folder::new("journal-kill");
    let port = free_port();
    let mut program = Program::start(folder.path(), port);
    let nothing = format!("http://127.0.0.1:{}", free_port());
    let mut kept = BTreeMap::new();
    for round in 0..KILLS {
        // In a third of the rounds the ledger is away, and in a third it is killed and comes back.
        let url = if round % 3 == 0 { &nothing } else { &program.url };
        let replica = Replica::start(Replica::command(folder.path(), url, round));
        tokio::time::sleep(Duration::from_millis(60 + 23 * round as u64)).await;
        if round % 3 == 1 {
            program.kill();
            program = Program::start(folder.path(), port);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for line in replica.kill() {
            if let Some(name) = line.strip_prefix("kept ") {
                let number: i64 = name.rsplit('-').next().and_then(|number| number.parse().ok()).expect("a number");
                assert_eq!(kept.insert(name.to_owned(), number % 90), None);
            }
        }
    }
    let journal = open(&folder);
    eprintln!("{} kept, {} of them left", kept.len(), journal.entries());
    assert!(kept.len() > KILLS * TASKS, "{} kept", kept.len());
    deliver_all(&journal, &client(&program.url, folder.path())).await;
    assert_eq!((journal.refused(), journal.set_aside()), (0, 0));

    assert_eq!(program.stop().await.0, Some(0));
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&folder.path().join("data")).expect("a ledger"));
    let mut counted = BTreeMap::new();
    for line in reading::all_lines(&store, 500).await.expect("lines") {
        let amounts = [Unit::Queries, Unit::PromptTokens].map(|unit| line.amounts[unit]);
        assert_eq!(counted.insert(line.operation.clone(), amounts), None, "{} is counted twice", line.operation);
    }
    for (name, tokens) in &kept {
        assert_eq!(counted.remove(name), Some([1, *tokens]), "{name}");
    }
    // Those that were kept when the kill came, and not said.
    assert!(counted.len() <= KILLS * TASKS, "{} were never kept: {counted:?}", counted.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_comes_back_gets_what_was_kept_and_what_comes_then() {
    let folder = Folder::new("journal-away");
    let port = free_port();
    let program = Program::start(folder.path(), port);
    let api = program.client();
    let ledger = client(&program.url, folder.path());
    api.must("q-0", "reserve", reserve("acme", &json!({"queries": 1}), &json!({"queries": 5}), 3600)).await;
    program.kill();

    let journal = Arc::new(open(&folder));
    let delivery = tokio::spawn({
        let (journal, ledger) = (journal.clone(), ledger.clone());
        async move { journal.deliver(&ledger).await }
    });
    // Beyond the limit of 5, and the last of each twice.
    for number in (0..20).chain([19]) {
        journal.keep(&settle(&format!("q-{number}"), "acme", &json!({"queries": 1}))).await.expect("kept");
    }
    let void = entry("void", "v-1", &json!({"tenant": "acme", "period": period()}));
    journal.keep(&void).await.expect("kept");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(journal.entries(), 22);
    let program = Program::start(folder.path(), port);
    let wait = async || {
        let start = Instant::now();
        while journal.entries() > 0 {
            assert!(start.elapsed() < LIMIT, "{} entries wait", journal.entries());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    wait().await;
    assert_eq!(api.account("acme", "queries").await, [20, 0]);
    // The name of the one that was voided is taken.
    let (status, answer) = api
        .command("v-1", "reserve", reserve("acme", &json!({"queries": 1}), &json!({}), 3600))
        .await
        .expect("an answer");
    assert_eq!((status, answer["code"].as_str()), (409, Some("ended")), "{answer}");
    // What is kept from now on is delivered at once.
    journal.keep(&settle("q-new", "acme", &json!({"queries": 1}))).await.expect("kept");
    wait().await;
    assert_eq!(api.account("acme", "queries").await, [21, 0]);
    assert_eq!(journal.refused(), 0);
    delivery.abort();
    drop(program);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_never_overtakes_what_it_takes_away() {
    let folder = Folder::new("journal-order");
    let program = Program::start(folder.path(), 0);
    let journal = open(&folder);
    let one = json!({"documents": 1, "bytes": 100});
    for number in 0..200 {
        let tenant = format!("tenant-{}", number % 40);
        journal.keep(&settle(&format!("d-{number}"), &tenant, &one)).await.expect("kept");
        let gone = entry("release", &format!("gone-{number}"), &counted(&tenant, &one));
        journal.keep(&gone).await.expect("kept");
    }
    deliver_all(&journal, &client(&program.url, folder.path())).await;
    assert_eq!(journal.refused(), 0);
    for number in 0..40 {
        assert_eq!(program.client().account(&format!("tenant-{number}"), "documents").await, [0, 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_ledger_refuses_for_good_is_set_apart_and_holds_nothing_up() {
    let folder = Folder::new("journal-refused");
    let program = Program::start(folder.path(), 0);
    let api = program.client();
    let one = json!({"queries": 1});
    api.must("done", "settle", counted("acme", &one)).await;
    api.must("void", "void", json!({"tenant": "acme", "period": period()})).await;
    let journal = open(&folder);
    let entries = [
        entry("void", "done", &json!({"tenant": "acme", "period": period()})),
        settle("void", "acme", &one),
        settle("done", "another", &one),
        entry("release", "flow", &counted("acme", &one)),
        settle("much", "acme", &json!({"queries": 999_999_999_999_999_i64})),
        settle("good", "acme", &one),
        settle("later", "later", &json!({"queries": 2})),
    ];
    for entry in &entries {
        journal.keep(entry).await.expect("kept");
    }
    // A period of tomorrow is refused until it is tomorrow.
    let tomorrow = jiff::Timestamp::now() + Duration::from_hours(24);
    let ahead = json!({"start": tomorrow.to_string(), "end": "2040-01-01T00:00:00Z"});
    let early = json!({"tenant": "early", "period": ahead, "amounts": one});
    journal.keep(&entry("settle", "early", &early)).await.expect("kept");
    journal.keep(&entry("release", "gone", &counted("early", &json!({"documents": 1})))).await.expect("kept");
    journal.keep(&settle("last", "acme", &one)).await.expect("kept");
    let ledger = client(&program.url, folder.path());
    deliver_until(&journal, &ledger, |journal| journal.entries() == 2).await;

    assert_eq!(journal.refused(), 5);
    let refused = refused(&folder);
    for (operation, reason) in
        [("done", "other_parameters"), ("void", "ended"), ("flow", "malformed"), ("much", "too_much")]
    {
        assert!(refused.get(operation).is_some_and(|said| said.contains(reason)), "{operation}: {refused:?}");
    }
    assert_eq!(api.account("acme", "queries").await, [3, 0]);
    assert_eq!(api.account("later", "queries").await, [2, 0]);
    drop(journal);
    // Nor are they tried again by the next process.
    let journal = open(&folder);
    assert_eq!((journal.entries(), journal.refused()), (2, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_or_another_service_costs_no_entry() {
    let folder = Folder::new("journal-key");
    let program = Program::start(folder.path(), 0);
    let journal = open(&folder);
    for number in 0..10 {
        journal.keep(&settle(&format!("q-{number}"), "acme", &json!({"queries": 1}))).await.expect("kept");
    }
    let other = Folder::new("journal-other-key");
    fs::write(other.path().join("key"), "07".repeat(32)).expect("a key");
    let a_while = async |ledger: LedgerClient| {
        drop(tokio::time::timeout(Duration::from_millis(700), journal.deliver(&ledger)).await);
        assert_eq!((journal.entries(), journal.refused()), (10, 0));
    };
    a_while(client(&program.url, other.path())).await;
    // A path that the ledger does not have.
    a_while(client(&format!("{}/elsewhere", program.url), folder.path())).await;
    // What is not a ledger: it says 404 in plain text.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let service = tokio::spawn(async move { axum::serve(listener, axum::Router::new()).await });
    a_while(client(&url, folder.path())).await;
    service.abort();
    deliver_all(&journal, &client(&program.url, folder.path())).await;
    assert_eq!(program.client().account("acme", "queries").await, [10, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_no_entry_is_set_apart() {
    let folder = Folder::new("journal-line");
    let program = Program::start(folder.path(), 0);
    let journal = open(&folder);
    journal.keep(&settle("q-1", "acme", &json!({"queries": 1}))).await.expect("kept");
    drop(journal);
    let connection = rusqlite::Connection::open(folder.path().join("journal/journal.db")).expect("it opens");
    for line in [r#"{"action":"transfer","operation":"t-1"}"#, "queries,7"] {
        connection.execute("INSERT INTO entry (line) VALUES (?)", [line]).expect("a line");
    }
    drop(connection);
    let journal = open(&folder);
    journal.keep(&settle("q-2", "acme", &json!({"queries": 1}))).await.expect("kept");
    deliver_all(&journal, &client(&program.url, folder.path())).await;
    assert_eq!(journal.refused(), 2);
    assert!(refused(&folder)["t-1"].contains("unknown variant `transfer`"), "{:?}", refused(&folder));
    assert_eq!(program.client().account("acme", "queries").await, [2, 0]);
}

/// A replica stores a document and another one deletes it, both while the ledger is away. Both journals end the
/// document's operation under its own name, so it counts once and is released once, whichever is delivered first. What
/// was embedded counts, although the one that deletes does not know it. Earlier versions settled where this one
/// concludes.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_in_two_journals_counts_once_in_any_order() {
    for (tenant, storing_first, ends) in [
        ("first", true, "conclude"),
        ("second", false, "conclude"),
        ("third", true, "settle"),
        ("fourth", false, "settle"),
    ] {
        let ([of_the_one, of_the_other], folder) = (["one", "other"].map(Folder::new), Folder::new("two-journals"));
        let [one, other] = [&of_the_one, &of_the_other].map(open);
        let levels = json!({"documents": 1, "bytes": 70});
        let stored = json!({"documents": 1, "bytes": 70, "embedded_bytes": 60});
        // The rest of what the tenant has: a release that finds nothing of its own would take it away.
        let kept = settle("d-kept", tenant, &levels);
        one.keep(&kept).await.expect("kept");
        one.keep(&settle("d-1", tenant, &stored)).await.expect("kept");
        other.keep(&entry(ends, "d-1", &counted(tenant, &levels))).await.expect("kept");
        for journal in [&other, &one] {
            // Nothing of it stayed, says the one; it was deleted, says the other.
            journal.keep(&entry("release", "gone-d-1", &counted(tenant, &levels))).await.expect("kept");
        }
        let program = Program::start(folder.path(), 0);
        let ledger = client(&program.url, folder.path());
        let order = if storing_first { [&one, &other] } else { [&other, &one] };
        for journal in order {
            deliver_all(journal, &ledger).await;
            assert_eq!(journal.refused(), 0);
        }
        // Delivered again, by a journal that did not learn that it was.
        for entry in [&kept, &settle("d-1", tenant, &stored)] {
            one.keep(entry).await.expect("kept");
        }
        deliver_all(&one, &ledger).await;
        for (unit, used) in [("documents", 1), ("bytes", 70)] {
            assert_eq!(program.client().account(tenant, unit).await, [used, 0], "{unit}, {tenant}");
        }
        assert_eq!(program.client().account(tenant, "embedded_bytes").await, [60, 0], "{tenant}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_refuses_and_has_room_again_once_all_is_delivered() {
    let volume_of = Folder::new("journal-full");
    let Some(volume) = Volume::new(&volume_of, "64k") else {
        eprintln!("Not tested: a small volume needs root.");
        return;
    };
    let journal = Journal::open(&volume_of.path().join("data"), LARGE).expect("a journal");
    assert!(journal.has_room());
    let folder = Folder::new("journal-full-ledger");
    let program = Program::start(folder.path(), 0);
    let ledger = client(&program.url, folder.path());
    let (mut kept, mut number) = (0, 0);
    for _ in 0..3 {
        let mut with_room = 0;
        loop {
            let has_room = journal.has_room();
            number += 1;
            match journal.keep(&settle(&format!("q-{number}"), "acme", &json!({"queries": 1}))).await {
                Ok(()) => (kept, with_room) = (kept + 1, with_room + usize::from(has_room)),
                Err(JournalError::Full) => break assert!(!has_room, "there was room"),
                Err(error) => panic!("{error}"),
            }
        }
        assert!(with_room > 0);
        // A crash now loses nothing: the files are read from their copy.
        let copy = Folder::new("journal-full-copy");
        for name in ["journal.db", "journal.db-wal"] {
            fs::copy(volume_of.path().join("data").join(name), copy.path().join(name)).expect("a copy");
        }
        let entries = journal.entries();
        assert_eq!(Journal::open(copy.path(), LARGE).expect("a journal").entries(), entries);
        deliver_all(&journal, &ledger).await;
        assert!(journal.has_room());
        assert_eq!(program.client().account("acme", "queries").await, [kept, 0]);
    }
    eprintln!("{kept} kept");
    // Filled by others: what is delivered is not delivered again and again, and goes when there is room.
    for number in 0..5 {
        journal.keep(&settle(&format!("o-{number}"), "acme", &json!({"queries": 1}))).await.expect("kept");
    }
    let ballast = volume_of.path().join("data/others");
    drop(fs::write(&ballast, vec![1; 65536]));
    assert!(!journal.has_room());
    deliver_all(&journal, &ledger).await;
    fs::remove_file(ballast).expect("removed");
    assert!(journal.has_room());
    journal.keep(&settle("o-5", "acme", &json!({"queries": 1}))).await.expect("kept");
    deliver_all(&journal, &ledger).await;
    assert_eq!(program.client().account("acme", "queries").await, [kept + 6, 0]);
    drop(journal);
    drop(volume);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_written_is_told_by_its_name() {
    let folder = Folder::new("journal-read-only");
    if let Some(volume) = Volume::new(&folder, "10m") {
        let data = folder.path().join("data");
        let entry = settle("q-1", "acme", &json!({"queries": 1}));
        open_in(&data).keep(&entry).await.expect("kept");
        volume.again("ro");
        let error = Journal::open(&data, LARGE).expect_err("read-only").to_string();
        assert!(error.starts_with(&format!("cannot use {}", data.join("journal.lock").display())), "{error}");
        volume.again("rw");
        assert_eq!(open_in(&data).entries(), 1);
    }
    // By another user, who may write the lock and not the database.
    let folder = Folder::new("journal-permissions");
    drop(open(&folder));
    fs::write(folder.path().join("key"), crate::support::KEY).expect("a key");
    let set = |path: &Path, mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(path, permissions).expect("permissions");
    };
    let journal = folder.path().join("journal");
    let said = || {
        let mut command = Replica::command(folder.path(), "http://127.0.0.1:9", 0);
        if rustix::process::geteuid().is_root() {
            command = as_nobody(&command);
        }
        Replica::start(command).kill().join("\n")
    };
    for (lock, database, wanted) in
        [(0o444, 0o444, "journal.lock"), (0o666, 0o444, "journal.db"), (0o666, 0o000, "journal.db")]
    {
        set(&journal.join("journal.lock"), lock);
        set(&journal.join("journal.db"), database);
        let said = said();
        assert!(said.starts_with("error: ") && said.contains(wanted), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_replica_on_the_same_folder_is_refused_in_another_process() {
    let folder = Folder::new("journal-two");
    fs::write(folder.path().join("key"), crate::support::KEY).expect("a key");
    let journal = open(&folder);
    let second = Replica::start(Replica::command(folder.path(), "http://127.0.0.1:9", 0)).kill();
    assert_eq!(second.len(), 1, "{second:?}");
    assert!(second[0].starts_with("error: another replica of web uses the journal in "), "{second:?}");
    drop(journal);
    // The lock goes with a process that is killed.
    let start = Instant::now();
    while Replica::start(Replica::command(folder.path(), "http://127.0.0.1:9", 0)).kill()[0] != "open" {
        assert!(start.elapsed() < LIMIT, "the folder stays in use");
    }
    drop(open(&folder));
}
