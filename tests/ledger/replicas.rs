//! Two replicas of a ledger over one Postgres, at their worst: both are killed again and again, Postgres crashes and
//! recovers, connections end between a commit and its answer, and periods close meanwhile. Clients repeat each step at
//! the other replica until it is answered. No limit is passed, each operation counts once, a name gets the same answer
//! from either replica, nothing stays set aside, and the one events store has each line once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use secrecy::SecretString;
use serde_json::{Value, json};
use tenant_operator::api::Timestamp;
use tenant_operator::ledger::account::LineKind;
use tenant_operator::ledger::store::Store;
use tenant_operator::ledger::store::postgres::Postgres;
use tenant_operator::ledger::units::{Amounts, Unit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::conformance::postgres::Server;
use crate::conformance::{DAY, reading};
use crate::events_store::{agree, clickhouse, stored};
use crate::support::{Api, Folder, Known, LIMIT, Program, free_port};

/// How often something is killed.
const KILLS: usize = 24;
/// Kills after which the next period begins.
const KILLS_OF_PERIOD: usize = 6;
/// The queries that `acme` may ask in each period. `globex` has no limit.
const MOST: i64 = 40;
const TENANTS: [&str; 2] = ["acme", "globex"];
const CLIENTS: usize = 12;
/// Seconds after which an operation expires whose client is gone.
const ORPHANED: u32 = 3;

/// What stands between the replicas and Postgres. While it is armed, some connections end when the server has committed
/// and its client does not know it yet.
#[derive(Clone, Default)]
struct Cut {
    armed: Arc<AtomicBool>,
    cuts: Arc<AtomicUsize>,
}

impl Cut {
    /// Listens in front of a server.
    async fn listen(&self, server: u16) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let cut = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let cut = cut.clone();
                tokio::spawn(async move {
                    // A server that is down takes no connection, and neither does this.
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await {
                        drop(cut.between(client, server).await);
                    }
                });
            }
        });
        port
    }

    /// Passes bytes on until one side ends, or the connection is cut.
    async fn between(&self, client: TcpStream, server: TcpStream) -> std::io::Result<()> {
        let ((mut asked, mut told), (mut answered, mut asks)) = (client.into_split(), server.into_split());
        let answers = async {
            let mut buffer = vec![0; 16 << 10];
            loop {
                let read = answered.read(&mut buffer).await?;
                if read == 0 || (has_committed(&buffer[..read]) && self.strikes()) {
                    return Ok(());
                }
                told.write_all(&buffer[..read]).await?;
            }
        };
        tokio::select! {
            ended = answers => ended,
            ended = tokio::io::copy(&mut asked, &mut asks) => ended.map(drop),
        }
    }

    fn strikes(&self) -> bool {
        let strikes = self.armed.load(Ordering::SeqCst) && rand::random_bool(0.02);
        self.cuts.fetch_add(usize::from(strikes), Ordering::SeqCst);
        strikes
    }
}

/// Whether a server says that a transaction is committed: `CommandComplete` with the tag `COMMIT`
/// (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).
fn has_committed(bytes: &[u8]) -> bool {
    const COMMITTED: &[u8] = b"C\0\0\0\x0bCOMMIT\0";
    bytes.windows(COMMITTED.len()).any(|window| window == COMMITTED)
}

/// The clients of both replicas.
struct Clients {
    replicas: [Api; 2],
    /// The number of the present period.
    period: AtomicI64,
    /// When the first one began.
    began: i64,
    over: AtomicBool,
}

impl Clients {
    /// The present period: a day. Each begins before now, so the ledger takes all of them.
    fn period(&self) -> Value {
        let start = self.began + self.period.load(Ordering::SeqCst) * DAY;
        json!({"start": Timestamp::from_second(start), "end": Timestamp::from_second(start + DAY)})
    }

    /// A step of an operation, at each replica in turn until one answers.
    async fn insist(&self, first: usize, name: &str, action: &str, body: &Value) -> (u16, Value) {
        let start = Instant::now();
        for attempt in first.. {
            match self.replicas[attempt % 2].command(name, action, body.clone()).await {
                Ok((status, answer)) if status != 503 => return (status, answer),
                said => assert!(start.elapsed() < 3 * LIMIT, "{name} {action}: {said:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        unreachable!("it is answered or fails")
    }

    /// The same, and then once more at the other replica: it says the same.
    async fn twice(&self, first: usize, name: &str, action: &str, body: &Value) -> (u16, Value) {
        let said = self.insist(first, name, action, body).await;
        let again = self.insist(first + 1, name, action, body).await;
        assert_eq!(again, said, "{name} {action}: another answer from the other replica");
        said
    }

    async fn reserve(&self, first: usize, tenant: &str, name: &str, expires_after: u32) -> Option<Value> {
        let limits = if tenant == "acme" { json!({"queries": MOST}) } else { json!({}) };
        let body = json!({"tenant": tenant, "period": self.period(), "amounts": {"queries": 1, "prompt_tokens": 100},
            "limits": limits, "expires_after": expires_after});
        let (status, answer) = self.insist(first, name, "reserve", &body).await;
        if status == 409 {
            assert_eq!(answer["code"], "limit_reached", "{answer}");
            return None;
        }
        assert_eq!((status, &answer["state"]), (200, &json!("reserved")), "{answer}");
        // What is left changes with each command of others.
        let (status, again) = self.insist(first + 1, name, "reserve", &body).await;
        assert_eq!((status, &again["state"], &again["period"]), (200, &answer["state"], &answer["period"]), "{name}");
        Some(answer["period"].clone())
    }

    async fn settle(&self, first: usize, tenant: &str, name: &str, (period, tokens): (&Value, i64)) -> Known {
        let used = json!({"queries": 1, "prompt_tokens": tokens});
        let body = json!({"tenant": tenant, "period": period, "amounts": used});
        let (status, answer) = self.twice(first, name, "settle", &body).await;
        assert_eq!((status, answer["posted"]["queries"].as_i64()), (200, Some(1)), "{answer}");
        Known::Settled(tokens)
    }

    /// One operation from its reservation to its end.
    async fn operation(&self, tenant: &str, name: &str, number: usize) -> Known {
        let expires_after = if number.is_multiple_of(8) { ORPHANED } else { 3600 };
        let Some(period) = self.reserve(number, tenant, name, expires_after).await else { return Known::Refused };
        let tokens = i64::try_from(1 + number % 90).expect("small");
        match number % 8 {
            0 => {
                let body = json!({"tenant": tenant, "amounts": {"prompt_tokens": tokens}});
                let (status, answer) = self.insist(number, name, "checkpoint", &body).await;
                assert!(status == 200 || answer["code"] == "ended", "{answer}");
                Known::Abandoned(tokens)
            }
            1 => {
                let body = json!({"tenant": tenant, "period": period});
                assert_eq!(self.twice(number, name, "void", &body).await, (200, json!({"state": "voided"})));
                Known::Voided
            }
            _ => self.settle(number / 2, tenant, name, (&period, tokens)).await,
        }
    }

    /// Runs until it is over. Answers what the client knows of each operation.
    async fn run(self: Arc<Self>, client: usize) -> Vec<(String, Known)> {
        let mut known = Vec::new();
        for number in client.. {
            if self.over.load(Ordering::SeqCst) {
                break;
            }
            let name = format!("client-{client}-{number}");
            let heard = self.operation(TENANTS[client % 2], &name, number).await;
            if heard == Known::Refused {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            known.push((name, heard));
        }
        known
    }
}

/// The two replicas.
struct Replicas {
    folders: [Folder; 2],
    ports: [u16; 2],
    url: String,
    events: String,
    running: [Option<Program>; 2],
    cut: Cut,
}

impl Replicas {
    fn begin(&mut self, replica: usize) {
        // A replica that cannot connect as it starts ends, and the kubelet starts it again.
        let armed = self.cut.armed.swap(false, Ordering::SeqCst);
        let folder = self.folders[replica].path();
        self.running[replica] = Some(Program::replica(folder, &self.url, &self.events, self.ports[replica]));
        self.cut.armed.store(armed, Ordering::SeqCst);
    }

    fn kill(&mut self, replica: usize) {
        self.running[replica].take().expect("it runs").kill();
    }

    fn client(&self, replica: usize) -> Api {
        self.running[replica].as_ref().expect("it runs").client()
    }
}

/// Kills one of the replicas or both, and Postgres once. Periods close meanwhile.
async fn kill(server: &mut Server, replicas: &mut Replicas, clients: &Clients, rng: &mut StdRng) {
    for number in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(rng.random_range(100..700))).await;
        let one = rng.random_range(0..2);
        tokio::task::block_in_place(|| match number {
            _ if number == KILLS / 2 => server.crash_and_recover(),
            _ if number % 5 == 4 => {
                (0..2).for_each(|replica| replicas.kill(replica));
                (0..2).for_each(|replica| replicas.begin(replica));
            }
            _ => {
                replicas.kill(one);
                replicas.begin(one);
            }
        });
        if number % KILLS_OF_PERIOD == KILLS_OF_PERIOD - 1 {
            clients.period.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Each settled operation has one line, and each refused or voided one none. Answers how many were settled.
async fn each_once(ledger: &Arc<dyn Store>, known: &BTreeMap<String, Known>) -> usize {
    let lines = reading::all_lines(ledger, 1000).await.expect("lines");
    let mut by_operation = BTreeMap::new();
    for line in &lines {
        let before = by_operation.insert(&*line.operation, (line.kind, line.amounts));
        assert_eq!(before, None, "{} has two lines", line.operation);
    }
    let tokens = |tokens| Amounts::of(Unit::PromptTokens, tokens);
    for (name, known) in known {
        let found = by_operation.remove(&**name);
        match known {
            Known::Refused | Known::Voided => assert_eq!(found, None, "{name}: {known:?}"),
            Known::Settled(used) => {
                let wanted = (LineKind::Settled, tokens(*used).with(Unit::Queries, 1));
                assert_eq!(found, Some(wanted), "{name}");
            }
            Known::Abandoned(used) => {
                let expired = (LineKind::Expired, tokens(*used));
                assert!(found.is_none_or(|found| found == expired), "{name}: {found:?}");
            }
        }
    }
    assert!(by_operation.is_empty(), "no client asked for {by_operation:?}");
    known.values().filter(|known| matches!(known, Known::Settled(_))).count()
}

/// Takes what the limit leaves in the present period, by both replicas in turn: exactly that is granted.
async fn exhaust(clients: &Clients, ledger: &Arc<dyn Store>, known: &mut BTreeMap<String, Known>) {
    let present = clients.period()["start"].clone();
    let periods = ledger.periods("acme", 100).await.expect("periods");
    let used = periods.iter().find(|(period, _)| json!(period.start) == present).map(|(_, account)| account.used);
    let left = MOST - used.unwrap_or_default()[Unit::Queries];
    let mut granted = 0;
    for number in 0.. {
        let name = format!("last-{number}");
        let Some(period) = clients.reserve(number, "acme", &name, 3600).await else { break };
        known.insert(name.clone(), clients.settle(number, "acme", &name, (&period, 1)).await);
        granted += 1;
    }
    assert_eq!(granted, left, "{left} were left of {MOST}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_that_are_killed_with_their_postgres_count_each_operation_once_and_pass_no_limit() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    eprintln!("SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut server, data) = (Server::start(), Folder::new("clickhouse"));
    let engine = Arc::new(clickhouse::Engine::start(&data, free_port()));
    let events = clickhouse::Database::new(&engine).await;
    let (cut, database) = (Cut::default(), server.new_database());
    let url = format!("postgres://postgres@127.0.0.1:{}/{database}", cut.listen(server.port).await);
    let mut replicas = Replicas {
        folders: [Folder::new("replica"), Folder::new("replica")],
        ports: [free_port(), free_port()],
        url,
        events: engine.url(&events.name),
        running: [None, None],
        cut: cut.clone(),
    };
    tokio::task::block_in_place(|| (0..2).for_each(|replica| replicas.begin(replica)));
    cut.armed.store(true, Ordering::SeqCst);
    let apis = [replicas.client(0), replicas.client(1)];
    let began = Timestamp::now().as_second() - 40 * DAY;
    let clients = Arc::new(Clients { replicas: apis, period: AtomicI64::new(0), began, over: AtomicBool::new(false) });
    let tasks: Vec<_> = (0..CLIENTS).map(|client| tokio::spawn(clients.clone().run(client))).collect();
    kill(&mut server, &mut replicas, &clients, &mut rng).await;
    clients.over.store(true, Ordering::SeqCst);
    let known = join_all(tasks).await.into_iter().flat_map(|known| known.expect("a client"));
    let mut known: BTreeMap<_, _> = known.collect();
    cut.armed.store(false, Ordering::SeqCst);
    let cuts = cut.cuts.load(Ordering::SeqCst);

    let url: SecretString = server.url(&database);
    let ledger: Arc<dyn Store> = Arc::new(Postgres::connect(&url).await.expect("a ledger"));
    for (tenant, unit) in TENANTS.into_iter().flat_map(|tenant| [(tenant, "queries"), (tenant, "prompt_tokens")]) {
        replicas.client(0).nothing_reserved(tenant, unit, LIMIT).await;
    }
    exhaust(&clients, &ledger, &mut known).await;
    let settled = each_once(&ledger, &known).await;
    let refused = known.values().filter(|known| **known == Known::Refused).count();
    eprintln!(
        "{} operations, {settled} settled, {refused} refused, {cuts} connections cut after a commit",
        known.len()
    );
    assert!(settled > 150 && refused > 0 && cuts > 3, "too little happened to say anything");
    let periods = ledger.periods("acme", 100).await.expect("periods");
    assert!(periods.len() > KILLS / KILLS_OF_PERIOD, "{} periods", periods.len());
    for (period, account) in periods {
        assert!(account.used[Unit::Queries] <= MOST && account.reserved.is_zero(), "{}: {account:?}", period.start);
    }
    reading::agree(&ledger, &TENANTS).await.expect("accounts, days and lines agree");

    // Both feed one events store.
    let (id, store) = (ledger.id().await.expect("an id"), crate::events_store::Place::open(&events));
    let number = reading::all_lines(&ledger, 1000).await.expect("lines").len();
    let start = Instant::now();
    while stored(&id, &store).await.expect("lines").len() < number {
        assert!(start.elapsed() < 2 * LIMIT, "the store lacks lines");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    agree("two replicas", &ledger, &store).await.expect("each line once");
    let logs = [0, 1].map(|replica| replicas.running[replica].as_ref().expect("it runs").logs());
    assert!(logs.iter().all(|logs| !logs.contains("made anew")), "{logs:?}");
}
