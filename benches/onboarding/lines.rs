//! A ledger that has counted for a year: how long it takes to tell a tenant's usage and the site's with 1, 3 and 10
//! million lines, beside adding the lines up, and what counting costs then.
//!
//! The product makes the file and answers from it; the lines are written into it by SQL, as counting ten million
//! operations takes an hour. `BENCH_LINES` makes it smaller.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use jiff::ToSpan as _;
use rusqlite::{Connection, params};
use serde_json::Value;
use tenant_operator::api::{Timestamp, Unit};
use tenant_operator::ledger::LedgerKey;
use tenant_operator::ledger::client::LedgerClient;

use crate::lab::quantile;
use crate::ledger::{TENANTS, pairs, started};
use crate::targets::{Wanted, judge};

/// Lines of the largest measurement.
const LINES: i64 = 10_000_000;
/// Lines of one transaction: its log is as large again on the disk.
const AT_ONCE: i64 = 500_000;
pub const YEAR: i64 = 365 * 24 * 3600;
/// How often each thing is asked.
const ASKED: usize = 60;
/// Operations at each size, and how many at the same time.
const OPERATIONS: usize = 3000;
const IN_FLIGHT: usize = 16;

/// Lines of the largest measurement, unless `BENCH_LINES` says how many.
pub fn most_lines() -> i64 {
    std::env::var("BENCH_LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or(LINES)
}

pub async fn run() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("tenant-operator-bench-lines-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let outcome = measure(&folder).await;
    drop(std::fs::remove_dir_all(&folder));
    outcome
}

async fn measure(folder: &Path) -> anyhow::Result<()> {
    let most = most_lines();
    std::fs::write(folder.join("key"), [7; 32])?;
    // The product makes the tables and the tenants.
    let (process, url) = started(folder)?;
    let client = LedgerClient::new(url, &LedgerKey::read(&folder.join("key"))?, Duration::from_secs(10))?;
    pairs(&client, "first", TENANTS, IN_FLIGHT).await?;
    drop(process);
    let year = Year::until_now();
    let mut there = 0;
    let mut first: Option<Vec<(&str, f64)>> = None;
    for lines in [most / 10, most * 3 / 10, most] {
        let begun = Instant::now();
        year.grow(folder, there, lines)?;
        let written = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let (process, url) = started(folder)?;
        let starts = begun.elapsed().as_secs_f64() * 1000.0;
        println!(
            "{lines} lines: {:.0} MB, written in {written:.0} s, the ledger starts in {starts:.0} ms",
            size_mb(folder)?
        );
        let told = told(folder, &url).await?;
        for (n, (what, ms)) in told.iter().enumerate() {
            let growth = first.as_ref().map_or(1.0, |first| ms / first[n].1);
            println!("  {what}: {ms:.2} ms (wanted: under 300 ms), {growth:.2} of the first size");
            judge(format!("ms of {what}, {lines} lines"), *ms, Wanted::Under(300.0));
        }
        let client = LedgerClient::new(url, &LedgerKey::read(&folder.join("key"))?, Duration::from_secs(10))?;
        let mut counted = pairs(&client, &format!("at-{lines}"), OPERATIONS, IN_FLIGHT).await?;
        println!("  reserve and settle, {IN_FLIGHT} in flight: {}", counted.told());
        drop(process);
        let site = told.last().context("the site's days")?.1;
        let added = year.added_up(folder)?;
        println!("  adding up the lines of the site by day instead: {added:.0} ms, {:.0} times as long", added / site);
        first.get_or_insert(told);
        there = lines;
    }
    Ok(())
}

/// Asks for each thing, of another tenant each time: the longest that one took, in milliseconds.
async fn told(folder: &Path, url: &reqwest::Url) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let key = LedgerKey::read(&folder.join("key"))?.authorization();
    let http = reqwest::Client::new();
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let (from, to) = (today.checked_sub(364.days())?, today);
    let site = format!("v1/days?from={from}&to={to}");
    let mut all = Vec::new();
    for (what, path) in [
        ("a tenant's usage", "v1/tenants/{}/usage"),
        ("a tenant's periods", "v1/tenants/{}/periods"),
        ("a tenant's days of a year", &*format!("v1/tenants/{{}}/days?from={from}&to={to}")),
        ("a tenant's hours, a page of 1,000", "v1/tenants/{}/hours?from=2000-01-01T00:00:00Z&most=1000"),
        ("tenants that changed, all", "v1/usage?after=0&most=1000"),
        ("the site's days of a year", &*site),
    ] {
        let mut times = Vec::new();
        for n in 0..ASKED {
            let url = url.join(&path.replace("{}", &format!("tenant-{}", n * 37 % TENANTS)))?;
            let start = Instant::now();
            let answer = http.get(url).header("authorization", &key).send().await?;
            let (status, body) = (answer.status(), answer.bytes().await?);
            times.push(start.elapsed().as_secs_f64() * 1000.0);
            ensure!(status.is_success(), "{what}: {status}");
            let body: Value = serde_json::from_slice(&body)?;
            ensure!(!body.is_null() && body != Value::Array(Vec::new()), "{what}: it is empty");
        }
        all.push((what, quantile(&mut times, 1.0)));
    }
    Ok(all)
}

/// The database and its log.
fn size_mb(folder: &Path) -> anyhow::Result<f64> {
    let mut bytes = 0;
    for file in std::fs::read_dir(folder.join("data"))? {
        bytes += file?.metadata()?.len();
    }
    Ok(bytes as f64 / 1e6)
}

/// The time that the lines are spread over, and what a line adds.
struct Year {
    from: i64,
    amounts: Vec<(String, i64)>,
}

impl Year {
    fn until_now() -> Self {
        let amounts = [(Unit::Queries, 1), (Unit::PromptTokens, 800), (Unit::CompletionTokens, 200)];
        let amount = |unit: Unit| amounts.iter().find(|(of, _)| *of == unit).map_or(0, |(_, amount)| *amount);
        let all = tenant_operator::ledger::units::Amounts::ZERO.each();
        let amounts = all.map(|(unit, _)| (unit.to_string(), amount(unit))).collect();
        Self { from: Timestamp::now().as_second() - YEAR, amounts }
    }

    fn columns(&self, each: impl Fn(&str, i64) -> String) -> String {
        self.amounts.iter().map(|(unit, amount)| each(unit, *amount)).collect::<Vec<_>>().join(", ")
    }

    fn open(folder: &Path) -> anyhow::Result<Connection> {
        let path: PathBuf = folder.join("data/ledger.db");
        let connection = Connection::open(path)?;
        // It is thrown away, and need not outlive a power cut while it is made.
        connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY")?;
        Ok(connection)
    }

    /// Lines from one number to another, with the sums that the ledger keeps of them.
    fn grow(&self, folder: &Path, there: i64, lines: i64) -> anyhow::Result<()> {
        let connection = Self::open(folder)?;
        let mut begin = there;
        while begin < lines {
            let end = (begin + AT_ONCE).min(lines);
            let transaction = connection.unchecked_transaction()?;
            self.put(&transaction, begin, end)?;
            transaction.commit()?;
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            print!(".");
            std::io::stdout().flush()?;
            begin = end;
        }
        println!();
        Ok(())
    }

    fn put(&self, connection: &Connection, begin: i64, end: i64) -> anyhow::Result<()> {
        let names = self.columns(|unit, _| unit.to_owned());
        let values = self.columns(|_, amount| amount.to_string());
        let month = 30 * 24 * 3600;
        // A large prime spreads the lines over the year and the tenants.
        let lines = format!(
            "INSERT INTO line (operation, tenant, period_start, at, kind, {names})
             WITH RECURSIVE n (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2),
             spread (i, t, at) AS (SELECT i, i * 7919 % {TENANTS}, ?3 + i * 104729 % {YEAR} FROM n)
             SELECT printf('q-%032x', i), 'tenant-' || t, ?3 + (at - ?3) / {month} * {month}, at, 'settled', {values} FROM spread"
        );
        let before: i64 = connection.query_row("SELECT coalesce(max(seq), 0) FROM line", [], |row| row.get(0))?;
        connection.execute(&lines, params![begin, end, self.from])?;
        let sums = self.columns(|unit, _| format!("sum({unit}) AS {unit}"));
        let added = |table: &str| self.columns(|unit, _| format!("{unit} = {table}.{unit} + excluded.{unit}"));
        let used = self.columns(|unit, _| format!("used_{unit}"));
        let reserved = self.columns(|unit, _| format!("reserved_{unit}"));
        let nothing = self.columns(|_, _| "0".into());
        let more = self.columns(|unit, _| format!("used_{unit} = account.used_{unit} + excluded.used_{unit}"));
        connection.execute_batch(&format!(
            "CREATE TEMP TABLE added AS SELECT tenant, at - at % 3600 AS hour, period_start, {sums} FROM line
                 WHERE seq > {before} GROUP BY 1, 2, 3;
             INSERT INTO tenant_hour (tenant, hour, period_start, {names})
                 SELECT tenant, hour, period_start, {names} FROM added WHERE true
                 ON CONFLICT (tenant, hour, period_start) DO UPDATE SET {};
             INSERT INTO tenant_day (tenant, day, {names})
                 SELECT tenant, hour / 86400, {sums} FROM added WHERE true GROUP BY 1, 2
                 ON CONFLICT (tenant, day) DO UPDATE SET {};
             INSERT INTO site_day (day, {names}) SELECT hour / 86400, {sums} FROM added WHERE true GROUP BY 1
                 ON CONFLICT (day) DO UPDATE SET {};
             INSERT INTO account (tenant, period_start, period_end, {used}, {reserved})
                 SELECT tenant, period_start, period_start + {month}, {sums}, {nothing} FROM added WHERE true GROUP BY 1, 2
                 ON CONFLICT (tenant, period_start) DO UPDATE SET {more};
             UPDATE tenant SET seq = latest.seq FROM
                 (SELECT tenant, max(seq) AS seq FROM line WHERE seq > {before} GROUP BY 1) AS latest WHERE latest.tenant = id;
             DROP TABLE added;",
            added("tenant_hour"),
            added("tenant_day"),
            added("site_day")
        ))?;
        Ok(())
    }

    /// Milliseconds to add up the lines of the site by day.
    fn added_up(&self, folder: &Path) -> anyhow::Result<f64> {
        let connection = Self::open(folder)?;
        let sums = self.columns(|unit, _| format!("sum({unit})"));
        let start = Instant::now();
        let mut statement = connection.prepare(&format!("SELECT at / 86400, {sums} FROM line GROUP BY 1"))?;
        let days = statement.query_map([], |row| row.get::<_, i64>(1))?.collect::<Result<Vec<_>, _>>()?;
        ensure!(days.len() > 300, "{} days", days.len());
        Ok(start.elapsed().as_secs_f64() * 1000.0)
    }
}
