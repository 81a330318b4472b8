//! The real program: killed under load, stopped, started twice, and left alone by its clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use tenant_operator::ledger::account::LineKind;
use tenant_operator::ledger::store::Store;
use tenant_operator::ledger::store::sqlite::Sqlite;
use tenant_operator::ledger::units::{Amounts, Unit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::conformance::reading;
use crate::support::{Api, Folder, KEY, Known, Program, command, counted, free_port, period, refusal, reserve};

/// How often the ledger is killed.
const KILLS: usize = 20;
/// The queries that the tenant `hot` may ask.
const HOT: i64 = 400;
/// Seconds after which an operation expires whose client is gone.
const ORPHANED: u32 = 2;

/// One operation from its reservation to its end, each step repeated under the same name until it is answered.
async fn operation(api: &Api, tenant: &str, name: &str, number: usize) -> Known {
    let limits = if tenant == "hot" { json!({"queries": HOT}) } else { json!({}) };
    let amounts = json!({"queries": 1, "prompt_tokens": 100});
    let expires_after = if number.is_multiple_of(8) { ORPHANED } else { 3600 };
    let (status, answer) = api.insist(name, "reserve", reserve(tenant, &amounts, &limits, expires_after)).await;
    if status == 409 {
        assert_eq!(answer["code"], "limit_reached", "{answer}");
        return Known::Refused;
    }
    assert_eq!((status, &answer["state"]), (200, &json!("reserved")), "{answer}");
    let tokens = i64::try_from(number % 90).expect("small");
    match number % 8 {
        0 => {
            let body = json!({"tenant": tenant, "amounts": {"prompt_tokens": tokens}});
            let (status, answer) = api.insist(name, "checkpoint", body).await;
            // It can have expired before, if the ledger was busy.
            Known::Abandoned(if status == 200 {
                tokens
            } else {
                assert_eq!(answer["code"], "ended");
                0
            })
        }
        1 => {
            let (status, answer) = api.insist(name, "void", json!({"tenant": tenant, "period": period()})).await;
            assert_eq!(status, 200, "{answer}");
            Known::Voided
        }
        _ => {
            let used = json!({"queries": 1, "prompt_tokens": tokens});
            let (status, answer) = api.insist(name, "settle", counted(tenant, &used)).await;
            assert_eq!((status, answer["posted"]["queries"].as_i64()), (200, Some(1)), "{answer}");
            Known::Settled(tokens)
        }
    }
}

/// How far the clients have come.
#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    ended: AtomicUsize,
    refused: AtomicUsize,
}

impl Progress {
    /// Whether enough happened to say something: a slow machine takes longer for it.
    fn is_enough(&self) -> bool {
        self.ended.load(Ordering::SeqCst) > 500 && self.refused.load(Ordering::SeqCst) > 0
    }
}

/// Clients that go on until they are stopped. What each was told, by tenant and operation.
async fn clients(api: Api, progress: Arc<Progress>) -> BTreeMap<(String, String), Known> {
    let tasks = (0..12).map(|client| {
        let (api, progress) = (api.clone(), progress.clone());
        tokio::spawn(async move {
            let mut told = Vec::new();
            for number in 0.. {
                if progress.stop.load(Ordering::SeqCst) {
                    break;
                }
                let (tenant, name) = (["hot", "wide"][client % 2], format!("client-{client}-{number}"));
                let heard = operation(&api, tenant, &name, number).await;
                progress.ended.fetch_add(1, Ordering::SeqCst);
                if heard == Known::Refused {
                    progress.refused.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                told.push(((tenant.to_owned(), name), heard));
            }
            told
        })
    });
    let all = join_all(tasks.collect::<Vec<_>>()).await;
    all.into_iter().flat_map(|told| told.expect("no panic")).collect()
}

/// The queries and tokens of a tenant that its clients were told of, and those that expired with their checkpoint.
fn wanted(told: &BTreeMap<(String, String), Known>, tenant: &str) -> (i64, i64) {
    let own = told.iter().filter(|((owner, _), _)| owner == tenant);
    own.fold((0, 0), |(queries, tokens), (_, told)| match told {
        Known::Settled(used) => (queries + 1, tokens + used),
        Known::Abandoned(checkpoint) => (queries, tokens + checkpoint),
        Known::Refused | Known::Voided => (queries, tokens),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_killed_twenty_times_has_counted_what_its_clients_were_told() {
    let folder = Folder::new("kill");
    let port = free_port();
    let mut program = Program::start(folder.path(), port);
    let api = program.client();
    let progress = Arc::new(Progress::default());
    let clients = tokio::spawn(clients(api.clone(), progress.clone()));
    for kill in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(100 + 17 * kill as u64)).await;
        program.kill();
        program = Program::start(folder.path(), port);
    }
    let start = Instant::now();
    while !progress.is_enough() && start.elapsed() < Duration::from_mins(1) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    progress.stop.store(true, Ordering::SeqCst);
    let told = clients.await.expect("no panic");
    for tenant in ["hot", "wide"] {
        api.nothing_reserved(tenant, "queries", Duration::from_secs(10)).await;
        api.nothing_reserved(tenant, "prompt_tokens", Duration::from_secs(1)).await;
    }

    for tenant in ["hot", "wide"] {
        let used = (api.account(tenant, "queries").await[0], api.account(tenant, "prompt_tokens").await[0]);
        assert_eq!(used, wanted(&told, tenant), "{tenant}");
    }
    let (hot, refused) = (wanted(&told, "hot").0, told.values().filter(|told| **told == Known::Refused).count());
    assert!(hot <= HOT, "{hot} of {HOT}");
    eprintln!("{} operations, {hot} of {HOT} at the limit, {refused} refused", told.len());
    assert!(
        told.len() > 500 && refused > 0,
        "{} operations, {refused} refused: too little to say anything",
        told.len()
    );

    // The last answers of clients that never heard them come again, and nothing is counted twice.
    let settled = told.iter().filter_map(|((tenant, name), told)| match told {
        Known::Settled(tokens) => Some((tenant, name, *tokens)),
        _ => None,
    });
    for (tenant, name, tokens) in settled.clone().step_by(10) {
        let used = json!({"queries": 1, "prompt_tokens": tokens});
        assert_eq!(api.must(name, "settle", counted(tenant, &used)).await["posted"]["queries"], 1, "{name}");
    }
    assert_eq!(program.stop().await.0, Some(0));

    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&folder.path().join("data")).expect("a ledger"));
    reading::agree(&store, &["hot", "wide"]).await.expect("accounts, days and lines agree");
    let lines = reading::all_lines(&store, 1000).await.expect("lines");
    let counted: BTreeMap<_, _> = lines.iter().map(|line| (line.operation.clone(), line)).collect();
    assert_eq!(counted.len(), lines.len(), "an operation has two lines");
    for (_, name, tokens) in settled {
        let line = counted.get(name).unwrap_or_else(|| panic!("{name} is lost"));
        assert_eq!(line.amounts, Amounts::of(Unit::Queries, 1).with(Unit::PromptTokens, tokens), "{name}");
    }
    assert!(lines.iter().all(|line| [LineKind::Settled, LineKind::Expired].contains(&line.kind)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pending_when_the_ledger_died_expires_after_its_whole_interval() {
    let folder = Folder::new("orphans");
    let program = Program::start(folder.path(), 0);
    let api = program.client();
    let amounts = json!({"queries": 1, "completion_tokens": 50});
    for name in ["silent", "heard"] {
        api.must(name, "reserve", reserve("acme", &amounts, &json!({"queries": 2}), 3)).await;
    }
    api.must("heard", "checkpoint", json!({"tenant": "acme", "amounts": {"completion_tokens": 20}})).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    program.kill();
    let program = Program::start(folder.path(), 0);
    let api = program.client();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(api.account("acme", "queries").await, [0, 2], "their interval has begun again");
    let (status, refused) =
        api.command("third", "reserve", reserve("acme", &amounts, &json!({"queries": 2}), 3)).await.expect("an answer");
    assert_eq!((status, &refused["code"]), (409, &json!("limit_reached")));
    api.nothing_reserved("acme", "queries", Duration::from_secs(5)).await;
    assert_eq!(api.account("acme", "completion_tokens").await, [20, 0]);
    let late = api.must("heard", "settle", counted("acme", &json!({"queries": 1, "completion_tokens": 30}))).await;
    assert_eq!(late["posted"], json!({"queries": 1, "completion_tokens": 30}));
    assert_eq!(api.account("acme", "completion_tokens").await, [30, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_before_the_answer_leaves_nothing_reserved_for_ever() {
    let folder = Folder::new("hangup");
    let program = Program::start(folder.path(), 0);
    let api = program.client();
    api.must("known", "settle", counted("acme", &json!({"queries": 1}))).await;
    let addr = program.url.trim_start_matches("http://").to_owned();
    let hang_up = (0..200).map(|number| {
        let body = reserve("acme", &json!({"queries": 1}), &json!({}), 1).to_string();
        let request = format!(
            "PUT /v1/operations/gone-{number} HTTP/1.1\r\nhost: ledger\r\nauthorization: Bearer {KEY}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let addr = addr.clone();
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(addr).await.expect("a connection");
            stream.write_all(request.as_bytes()).await.expect("written");
            // Some are gone before the command is read, some while it waits for the commit, some after it.
            tokio::time::sleep(Duration::from_micros(number * 30)).await;
        })
    });
    join_all(hang_up.collect::<Vec<_>>()).await;
    api.nothing_reserved("acme", "queries", Duration::from_secs(6)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(api.pending().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_stopped_answers_what_it_has_begun_and_ends_in_time_even_if_a_client_is_slow() {
    let folder = Folder::new("stop");
    let mut program = Program::start(folder.path(), 0);
    let api = program.client();
    let addr = program.url.trim_start_matches("http://").to_owned();
    // Each of these has begun a request and goes on with none.
    let mut slow = Vec::new();
    for part in [
        "GET /hea",
        "GET /healthz HTTP/1.1\r\nhost: x\r\n",
        "PUT /v1/operations/x HTTP/1.1\r\ncontent-length: 9\r\n\r\n{",
    ] {
        let mut stream = TcpStream::connect(&addr).await.expect("a connection");
        stream.write_all(part.as_bytes()).await.expect("written");
        slow.push(stream);
    }
    let load = (0..8).map(|client| {
        let api = api.clone();
        tokio::spawn(async move {
            let mut told = BTreeSet::new();
            for number in 0..10_000 {
                let name = format!("client-{client}-{number}");
                match api.command(&name, "settle", counted("acme", &json!({"queries": 1}))).await {
                    Ok((200, _)) => told.insert(name),
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => break,
                };
            }
            told
        })
    });
    let load: Vec<_> = load.collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (code, took) = program.stop().await;
    assert_eq!(code, Some(0), "{}", program.logs());
    assert!(took < Duration::from_secs(6), "it took {took:?}");
    drop(slow);
    let mut told = BTreeSet::new();
    for task in load {
        told.extend(task.await.expect("no panic"));
    }
    assert!(told.len() > 50, "{} are too few to say anything", told.len());
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&folder.path().join("data")).expect("a ledger"));
    reading::agree(&store, &["acme"]).await.expect("accounts, days and lines agree");
    let lines = reading::all_lines(&store, 1000).await.expect("lines");
    let counted: BTreeSet<_> = lines.into_iter().map(|line| line.operation).collect();
    assert!(told.is_subset(&counted), "lost: {:?}", told.difference(&counted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_on_a_port_in_use_says_so_and_leaves_the_other_one_alone() {
    let (first, second) = (Folder::new("port-1"), Folder::new("port-2"));
    let port = free_port();
    let program = Program::start(first.path(), port);
    let (code, said) = refusal(&mut command(second.path(), port));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("error: cannot listen on 127.0.0.1:{port}: ")), "{said}");
    program.client().must("a", "settle", counted("acme", &json!({"queries": 1}))).await;
    // Its files are free for a ledger on another port.
    let other = Program::start(second.path(), 0);
    let (status, answer) = other.client().get("/v1/tenants/acme/usage").await;
    assert_eq!((status, &answer["code"]), (404, &json!("unknown_tenant")));
    assert_eq!(other.client().get("/readyz").await, (200, Value::Null));
}
