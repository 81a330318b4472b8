//! The ledger of a world: one process, which begins with the first controller or web, and what it has counted.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tenant_operator::api::usage::Quota;
use tenant_operator::api::{Timestamp, Unit, months};
use tenant_operator::ledger::LedgerKey;
use tenant_operator::ledger::account::Period;
use tenant_operator::ledger::client::LedgerClient;
use tenant_operator::ledger::units::Amounts;
use tenant_operator::ledger::wire::{Event, EventState, Events, PeriodUsage, TenantId};
use tenant_operator::operator_keys::ledger_key;

use super::{Process, World, folder};

/// A ledger's place, and its process while it runs.
pub struct LedgerOfWorld {
    key: LedgerKey,
    folder: PathBuf,
    /// Chosen by the first start, and kept.
    port: Option<u16>,
    /// How many replicas of web have begun.
    journals: u32,
    process: Option<Process>,
    /// Whether it takes snapshots, one with each start.
    snapshots: bool,
}

impl LedgerOfWorld {
    /// Of a world with this key. Nothing runs yet.
    pub fn of(name: &str, key: LedgerKey) -> Self {
        Self {
            key,
            folder: folder(&format!("{name}-ledger")),
            port: None,
            journals: 0,
            process: None,
            snapshots: false,
        }
    }

    /// Its address; before its first start, one where nothing listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.unwrap_or(9))
    }

    /// A folder for the journal of a replica of web.
    pub fn next_journal(&mut self) -> PathBuf {
        self.journals += 1;
        self.folder.join(format!("journal-{}", self.journals))
    }
}

/// The sums of a unit, by the tenants' ids.
#[derive(Debug)]
pub struct Sums {
    pub lines: BTreeMap<String, i64>,
    pub days: BTreeMap<String, i64>,
    pub hours: BTreeMap<String, i64>,
    /// Over the site's days.
    pub site: i64,
    /// Operations that are neither settled nor voided.
    pub pending: i64,
}

impl Sums {
    /// What was counted for a tenant: by its lines, by its days and by its hours.
    pub fn of(&self, tenant: &str) -> [i64; 3] {
        [&self.lines, &self.days, &self.hours].map(|sums| sums.get(tenant).copied().unwrap_or_default())
    }
}

/// The period of a tenant so many periods before the present one.
pub fn period_before(quota: &Quota, count: usize) -> Period {
    let before = |period: Period, _| {
        let last = period.start.plus(-1);
        let (start, end) = match quota.anchor {
            Some(anchor) => months::around(anchor, last),
            None => Quota::days_from(quota.period_start, last),
        };
        // A trial begins in the middle of a month.
        Period { start, end: end.min(period.start) }
    };
    (0..count).fold(Period { start: quota.period_start, end: quota.period_end }, before)
}

impl World {
    /// Starts the ledger, unless it runs. It keeps its files and its address.
    pub fn start_ledger(&mut self) {
        if self.ledger.process.is_some() {
            return;
        }
        let LedgerOfWorld { key, folder, port, snapshots, .. } = &self.ledger;
        let port = port.unwrap_or(0);
        std::fs::create_dir_all(folder).expect("a folder");
        let key_file = folder.join("key");
        std::fs::write(&key_file, key.authorization().trim_start_matches("Bearer ")).expect("written");
        let mut command = self.command("ledger");
        command
            .arg(format!("--listen=127.0.0.1:{port}"))
            .arg("--metrics-listen=127.0.0.1:0")
            .arg("--data")
            .arg(folder.join("data"));
        if *snapshots {
            command.arg(format!("--snapshots=file://{}", folder.join("snapshots").display()));
        }
        let mut child =
            command.arg("--key-file").arg(&key_file).stdout(Stdio::piped()).spawn().expect("the ledger starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines.next().expect("the ledger says where it listens").expect("text");
        // It says where its metrics are as well, and must be heard.
        lines.next().expect("the ledger says where its metrics are").expect("text");
        let port = line.rsplit(':').next().and_then(|port| port.parse().ok());
        self.ledger.port = Some(port.unwrap_or_else(|| panic!("{line}")));
        self.ledger.process = Some(Process::of(child));
    }

    /// The ledger that starts from now on takes the key of an operator in another namespace.
    pub async fn use_ledger_key_of(&mut self, namespace: &str) {
        self.ledger.key = ledger_key(&self.client, namespace).await.expect("a ledger's key");
    }

    /// Kills the ledger with SIGKILL.
    pub fn kill_ledger(&mut self) {
        self.ledger.process.take().expect("it runs").kill();
    }

    /// The ledger takes a snapshot with each start from now on.
    pub fn take_snapshots(&mut self) {
        self.ledger.snapshots = true;
    }

    /// The snapshots that the ledger has taken.
    pub fn snapshots(&self) -> usize {
        let below = |folder: &std::path::Path| {
            let entries = std::fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()));
            entries.map_or_else(|_| Vec::new(), Iterator::collect::<Vec<_>>)
        };
        below(&self.ledger.folder.join("snapshots")).iter().map(|folder| below(folder).len()).sum()
    }

    /// Kills the ledger and deletes its volume. It does not start again by itself.
    pub fn lose_ledger(&mut self) {
        self.kill_ledger();
        std::fs::remove_dir_all(self.ledger.folder.join("data")).expect("removed");
    }

    /// Where the ledger is.
    pub fn ledger_url(&self) -> String {
        self.ledger.url()
    }

    /// Lets the present hour of the ledger end: what comes from now on is in the next one.
    pub fn end_ledgers_hour(&self) {
        let path = self.ledger.folder.join("data/ledger.db");
        let connection = rusqlite::Connection::open(path).expect("the ledger's file");
        let now = tenant_operator::api::Timestamp::now().as_second();
        let sql = "UPDATE closed SET until = max(until, ?1) + 3600";
        connection.execute(sql, [now.div_euclid(3600) * 3600]).expect("written");
    }

    /// The folder of the ledger's databases.
    pub fn ledgers_data(&self) -> std::path::PathBuf {
        self.ledger.folder.join("data")
    }

    /// The sums of a unit over all that the ledger keeps.
    pub fn sums(&self, unit: Unit) -> Sums {
        let path = self.ledger.folder.join("data/ledger.db");
        let connection = rusqlite::Connection::open(path).expect("the ledger's file");
        let by_tenant = |table: &str| {
            let sql = format!("SELECT tenant, sum({unit}) FROM {table} GROUP BY tenant");
            let mut statement = connection.prepare(&sql).expect("SQL");
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
            rows.collect::<Result<_, _>>().expect("sums")
        };
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get(0)).expect("a number");
        Sums {
            lines: by_tenant("line"),
            days: by_tenant("tenant_day"),
            hours: by_tenant("tenant_hour"),
            site: number(&format!("SELECT sum({unit}) FROM site_day")),
            pending: number("SELECT count(*) FROM operation WHERE state = 'pending'"),
        }
    }

    /// The events store is away from now on: a folder is in the place of its file. The ledger is killed and starts again.
    pub fn take_events_store_away(&mut self) {
        self.kill_ledger();
        let file = self.ledger.folder.join("data/events.db");
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", file.display()));
        }
        std::fs::create_dir(file).expect("a folder");
        self.start_ledger();
    }

    /// The events store is there again, and empty.
    pub fn bring_events_store_back(&mut self) {
        self.kill_ledger();
        std::fs::remove_dir(self.ledger.folder.join("data/events.db")).expect("the folder is empty");
        self.start_ledger();
    }

    /// The sums of a unit over the lines in the events store, by the tenants' ids.
    pub fn sums_of_events(&self, unit: Unit) -> BTreeMap<String, i64> {
        let connection = rusqlite::Connection::open(self.ledger.folder.join("data/events.db")).expect("a file");
        let mut statement =
            connection.prepare(&format!("SELECT tenant, sum({unit}) FROM line GROUP BY tenant")).expect("SQL");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
        rows.collect::<Result<_, _>>().expect("sums")
    }

    /// All operations ended so many days earlier. The ledger forgets what is over for long enough within a minute.
    pub fn age_operations(&self, days: i64) {
        let path = self.ledger.folder.join("data/ledger.db");
        let connection = rusqlite::Connection::open(path).expect("the ledger's file");
        connection.busy_timeout(Duration::from_secs(10)).expect("set");
        connection.execute("UPDATE operation SET ended_at = ended_at - ?1 * 86400", [days]).expect("written");
    }

    /// Operations that are known and were voided.
    pub fn voided_operations(&self) -> i64 {
        let path = self.ledger.folder.join("data/ledger.db");
        let connection = rusqlite::Connection::open(path).expect("the ledger's file");
        let sql = "SELECT count(*) FROM operation WHERE state = 'voided'";
        connection.query_row(sql, [], |row| row.get(0)).expect("a number")
    }

    /// A client of the ledger.
    pub fn ledger(&self) -> LedgerClient {
        let url = self.ledger.url().parse().expect("a URL");
        LedgerClient::new(url, &self.ledger.key, Duration::from_secs(10)).expect("a client")
    }

    /// What the ledger says of a tenant, by its name. None if it knows nothing of it.
    pub async fn counted(&self, name: &str) -> Option<PeriodUsage> {
        let tenant = self.tenants().get(name).await.expect("it is there");
        let id = tenant.spec.tenant_id.expect("an id");
        self.ledger().usage(&id).await.expect("the ledger answers")
    }

    /// What was counted of a unit, once nothing is set aside any more.
    pub async fn settled(&self, name: &str, unit: Unit) -> i64 {
        self.until("nothing is set aside", async || {
            self.counted(name).await.is_none_or(|usage| usage.reserved.is_zero())
        })
        .await;
        self.counted(name).await.map_or(0, |usage| usage.used[unit])
    }

    /// Has so many queries, ten prompt tokens for each and one token more counted in the periods before the present
    /// one, the latest first, as another system reports them.
    pub async fn used_before(&self, name: &str, queries: &[i64]) {
        let tenant = self.tenants().get(name).await.expect("it is there");
        let quota = tenant.status.and_then(|status| status.quota).expect("a quota");
        let id: TenantId = tenant.spec.tenant_id.expect("an id").try_into().expect("a name");
        let event = |(before, queries): (usize, &i64)| {
            let period = period_before(&quota, before);
            Event {
                source: "history".into(),
                id: format!("{name} {before}"),
                tenant: id.clone(),
                period: period.try_into().expect("a period"),
                amounts: Amounts::of(Unit::Queries, *queries).with(Unit::PromptTokens, 10 * queries + 1),
                time: Timestamp::now().plus(-60),
            }
        };
        let events: Vec<_> = (1..).zip(queries).map(event).collect();
        let states = self.ledger().events(&Events { events }).await.expect("the ledger answers").events;
        assert!(states.iter().all(|state| *state == EventState::Accepted), "{states:?}");
    }
}
