//! The events store with a year of lines, in `SQLite` and in `ClickHouse`'s own engine, side by side: how fast it is fed,
//! and how long it takes to add up a tenant's usage and the site's with 1, 3 and 10 million lines.
//!
//! The product feeds both and asks both. The engine is `chdb-core` behind the bridge of the tests, so a question costs
//! an HTTP request, as with a server. `BENCH_LINES` makes it smaller.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tenant_operator::api::{Timestamp, Unit};
use tenant_operator::ledger::account::LineKind;
use tenant_operator::ledger::events::{Asked, Batch, EventsPlace, EventsStore, Mark, Page, Span};
use tenant_operator::ledger::store::StoredLine;
use tenant_operator::ledger::units::Amounts;

use crate::lab::{Process, quantile};
use crate::ledger::TENANTS;
use crate::lines::{YEAR, most_lines};
use crate::targets::{Wanted, judge};

/// The ledger that the lines are of.
const LEDGER: &str = "bench";
/// Lines of a batch, as the ledger's feed sends them at most.
const BATCH: i64 = 20_000;
/// How often each thing is asked, and for how long at most: adding up ten million lines takes `SQLite` seconds.
const ASKED: usize = 12;
const PATIENCE: Duration = Duration::from_secs(8);
const DAY: i64 = 24 * 3600;
/// The user of the engine, and the password as a URL has it.
const USER: [&str; 2] = ["ledger", "bench"];

pub async fn run() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("tenant-operator-bench-events-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let outcome = measure(&folder).await;
    drop(std::fs::remove_dir_all(&folder));
    outcome
}

async fn measure(folder: &Path) -> anyhow::Result<()> {
    let engine = Engine::start(folder)?;
    engine.sql("CREATE DATABASE events").await?;
    let file = EventsPlace::File(folder.join("events.db")).open()?;
    let engines = EventsPlace::ClickHouse(engine.url("events").into()).open()?;
    let year = Year { from: Timestamp::now().plus(-YEAR), most: most_lines() };
    let (mut fed, mut first): (_, Option<Vec<Told>>) = ([Fed::new(file).await?, Fed::new(engines).await?], None);
    for lines in [year.most / 10, year.most * 3 / 10, year.most] {
        println!("{lines} lines in the events store:");
        for fed in &mut fed {
            let kind = fed.store.kind();
            let (there, begun) = (fed.mark.seq, Instant::now());
            fed.grow(&year, lines).await?;
            let seconds = begun.elapsed().as_secs_f64();
            println!("  {kind} is fed in {seconds:.0} s, {:.0} lines/s", (lines - there) as f64 / seconds);
        }
        let span = year.until(lines);
        let [file, engines] = &fed;
        let in_file = told(&*file.store, span).await?;
        let as_fed = told(&*engines.store, span).await?;
        // Servers merge what arrived in batches in their own time: what is asked meanwhile, and what after it.
        let begun = Instant::now();
        engine.sql("OPTIMIZE TABLE events.line FINAL").await?;
        let merging = begun.elapsed().as_secs_f64();
        let merged = told(&*engines.store, span).await?;
        let growth = first.get_or_insert_with(|| merged.clone());
        for ((file, as_fed), (merged, small)) in in_file.iter().zip(&as_fed).zip(merged.iter().zip(growth.iter())) {
            println!(
                "  {}: ClickHouse {} as fed, {} merged (wanted: under 300 ms), {:.2} of the first size; SQLite {}, {:.1} times as \
                 long as merged",
                file.what,
                as_fed.times(),
                merged.times(),
                merged.half / small.half,
                file.times(),
                file.half / merged.half
            );
            judge(
                format!("ms of {} in ClickHouse, merged, {lines} lines", file.what),
                merged.most,
                Wanted::Under(300.0),
            );
        }
        println!("  merging took {merging:.1} s");
    }
    Ok(())
}

/// What was asked, and the milliseconds that it took.
#[derive(Clone)]
struct Told {
    what: &'static str,
    half: f64,
    most: f64,
}

impl Told {
    fn times(&self) -> String {
        format!("p50 {:.0} ms, at most {:.0} ms", self.half, self.most)
    }
}

/// Asks a store for sums and lines, of another tenant each time.
async fn told(store: &dyn EventsStore, span: Span) -> anyhow::Result<Vec<Told>> {
    let latest = |days: i64| Span { from: span.to.plus(-days * DAY), ..span };
    let mut all = Vec::new();
    for (what, asked, span) in [
        ("a tenant's days since the beginning", Some(Asked::TenantDays("")), span),
        ("a tenant's periods since the beginning", Some(Asked::TenantPeriods("")), span),
        ("a tenant's lines of a day, a page of 1,000", None, latest(1)),
        ("the site's days of the latest month", Some(Asked::SiteDays), latest(30)),
        ("the site's days since the beginning", Some(Asked::SiteDays), span),
        ("every tenant's hours of the latest three days", Some(Asked::EveryTenantsHours), latest(3)),
    ] {
        let (mut times, begun) = (Vec::new(), Instant::now());
        while times.len() < ASKED && begun.elapsed() < PATIENCE {
            let tenant = tenant(times.len() * 37);
            let start = Instant::now();
            let rows = match asked {
                None => store.lines(LEDGER, &tenant, span, Page { after: 0, most: 1000 }).await?.len(),
                Some(asked) => store.sums(LEDGER, of(asked, &tenant), span).await?.len(),
            };
            times.push(start.elapsed().as_secs_f64() * 1000.0);
            ensure!(rows > 0, "{}, {what}: nothing", store.kind());
        }
        let [half, most] = [0.5, 1.0].map(|q| quantile(&mut times, q));
        all.push(Told { what, half, most });
    }
    Ok(all)
}

fn of<'a>(asked: Asked<'a>, tenant: &'a str) -> Asked<'a> {
    match asked {
        Asked::TenantDays(_) => Asked::TenantDays(tenant),
        Asked::TenantPeriods(_) => Asked::TenantPeriods(tenant),
        other => other,
    }
}

fn tenant(n: usize) -> String {
    format!("tenant-{}", n % TENANTS)
}

/// The lines, spread evenly over a year that ends now.
struct Year {
    from: Timestamp,
    most: i64,
}

impl Year {
    fn at(&self, seq: i64) -> Timestamp {
        self.from.plus(seq * YEAR / self.most)
    }

    /// The time that the first so many lines are in.
    fn until(&self, lines: i64) -> Span {
        Span { from: self.from, to: self.at(lines).plus(1) }
    }

    fn line(&self, seq: i64) -> StoredLine {
        let at = self.at(seq);
        let begins = |seconds: i64| at.plus(-at.as_second().rem_euclid(seconds));
        let amounts = Amounts::of(Unit::Queries, 1).with(Unit::PromptTokens, 800).with(Unit::CompletionTokens, 200);
        StoredLine {
            seq,
            operation: format!("q-{:032x}", seq.wrapping_mul(0x1e37_79b9_7f4a_7c15)),
            // A prime spreads them over the tenants.
            tenant: tenant(seq as usize * 7919),
            period_start: begins(30 * DAY),
            at,
            hour: begins(3600),
            kind: LineKind::Settled,
            amounts,
        }
    }
}

/// A store, and how far it is fed.
struct Fed {
    store: Arc<dyn EventsStore>,
    generation: i64,
    mark: Mark,
}

impl Fed {
    async fn new(store: Arc<dyn EventsStore>) -> anyhow::Result<Self> {
        let position = store.position(LEDGER).await?;
        Ok(Self { store, generation: position.generation, mark: position.mark })
    }

    async fn grow(&mut self, year: &Year, until: i64) -> anyhow::Result<()> {
        while self.mark.seq < until {
            let from = self.mark.seq + 1;
            let lines = (from..=until.min(self.mark.seq + BATCH)).map(|seq| year.line(seq)).collect();
            let batch = Batch { generation: self.generation, after: self.mark.clone(), lines };
            self.store.append(LEDGER, &batch).await?;
            self.mark = batch.last();
        }
        Ok(())
    }
}

/// `ClickHouse`'s engine behind the bridge of the tests.
struct Engine {
    _process: Process,
    port: u16,
    http: reqwest::Client,
}

impl Engine {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clickhouse");
        let python = Command::new(tests.join("python")).stderr(Stdio::inherit()).output()?;
        ensure!(python.status.success(), "the engine cannot be installed");
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut child = Command::new(String::from_utf8(python.stdout)?.trim())
            .arg(tests.join("bridge.py"))
            .arg(port.to_string())
            .arg(folder.join("engine"))
            .args(USER)
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("piped")?;
        let process = Process(child);
        let line = BufReader::new(out).lines().next().context("the engine ended")??;
        ensure!(line == "listening", "{line}");
        Ok(Self { _process: process, port, http: reqwest::Client::new() })
    }

    fn url(&self, database: &str) -> String {
        format!("clickhouse://{}@127.0.0.1:{}/{database}", USER.join(":"), self.port)
    }

    async fn sql(&self, sql: &str) -> anyhow::Result<()> {
        let request = self.http.post(format!("http://127.0.0.1:{}/", self.port)).body(sql.to_owned());
        let request = request.header("x-clickhouse-user", USER[0]).header("x-clickhouse-key", USER[1]);
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{sql}: {text}");
        Ok(())
    }
}
