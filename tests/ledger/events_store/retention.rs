//! What is forgotten, and what stays, over 130 days: operations and late events at the ledger, lines in the events store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tenant_operator::api::Timestamp;
use tenant_operator::ledger::account::{Account, LineKind, Period};
use tenant_operator::ledger::decision::{Action, Answer, Command, Refusal, forgotten_before};
use tenant_operator::ledger::events::EventsStore;
use tenant_operator::ledger::store::{ClosedHours, Day, Store, StoredLine};
use tenant_operator::ledger::units::Amounts;

use super::clickhouse::{Database, Engine};
use super::feeding::{open, stored};
use super::sqlite::File;
use super::{Place, at, feed, feed_all};
use crate::conformance::reading::all_lines;
use crate::conformance::{Client, DAY, queries};
use crate::support::{Folder, LIMIT, free_port};

/// Days that the events store keeps.
const KEPT: i64 = 62;

/// A ledger with usage on every fifth day since 130 days ago.
struct Old {
    store: Arc<dyn Store>,
    /// The present hour.
    now: i64,
}

/// What is invoiced and shown of the past.
type History = (Vec<(Period, Account)>, ClosedHours, Vec<(Day, Amounts)>);

impl Old {
    async fn new(folder: &Folder) -> Self {
        let store = open(folder).await.expect("a ledger");
        let now = Timestamp::now().as_second().div_euclid(3600) * 3600;
        let old = Self { store, now };
        for days in (0..=130).rev().step_by(5) {
            for tenant in ["acme", "globex"] {
                let client = old.client(tenant, days);
                client.settle(&format!("{tenant}-{days}"), queries(days + 1)).await.expect("settled");
            }
        }
        old
    }

    /// A tenant so many days ago.
    fn client(&self, tenant: &str, days: i64) -> Client {
        let now = self.now - days * DAY;
        Client { now, period: self.period(days), ..Client::of(&self.store, tenant) }
    }

    /// The period of 30 days that a day is in.
    fn period(&self, days: i64) -> Period {
        let start = self.now - 150 * DAY + (150 - days) / 30 * 30 * DAY;
        Period { start: at(start), end: at(start + 30 * DAY) }
    }

    async fn history(&self, tenant: &str) -> History {
        let (first, last) = (Day::of(at(self.now - 140 * DAY)), Day::of(at(self.now - DAY)));
        let hours = self.store.hours(tenant, at(0), 1000, at(self.now)).await.expect("hours");
        let days = self.store.days(Some(tenant), first, last).await.expect("days");
        (self.store.periods(tenant, 36).await.expect("periods"), hours, days)
    }

    async fn lines(&self) -> Vec<StoredLine> {
        all_lines(&self.store, 1000).await.expect("lines")
    }

    async fn event(&self, name: &str, days: i64) -> Answer {
        let action = Action::Event { period: self.period(days), amounts: queries(1) };
        let happened = Some(at(self.now - days * DAY));
        let event = Command { operation: name.into(), tenant: "acme".into(), action, at: happened };
        self.store.count(vec![event], at(self.now)).await.expect("counted").remove(0)
    }

    /// Those that the events store keeps.
    async fn kept(&self) -> Vec<StoredLine> {
        let before = at(self.now - KEPT * DAY);
        self.lines().await.into_iter().filter(|line| line.hour >= before).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_forgotten_and_invoices_and_history_of_closed_periods_stay() {
    let folder = Folder::new("retention");
    let old = Old::new(&folder).await;
    let (before, lines) = (old.history("acme").await, old.lines().await);
    assert_eq!(before.0.len(), 6, "{:?}", before.0);
    // From 130 to 95 days ago, of two tenants.
    let forget = async || old.store.forget(forgotten_before(at(old.now)), 1000).await.expect("forgotten");
    assert_eq!((forget().await, forget().await), (16, 0));
    assert_eq!(old.history("acme").await, before);
    assert_eq!(old.lines().await, lines);

    // One that is known is the same again; one that is forgotten is too old to be counted again.
    let again = async |days: i64| {
        let client = Client { now: old.now, at: Some(old.now - days * DAY), ..old.client("acme", days) };
        client.settle(&format!("acme-{days}"), queries(days + 1)).await.expect("answered")
    };
    assert!(matches!(again(90).await, Answer::Settled { excess: Amounts::ZERO, .. }));
    assert!(matches!(again(95).await, Answer::Refused(Refusal::TooOld { days: 93, .. })));
    assert_eq!(old.history("acme").await, before);

    assert!(matches!(old.event("late", 36).await, Answer::Refused(Refusal::TooOld { days: 35, .. })));
    assert_eq!(old.lines().await, lines);
    // One that is late counts in its own period, in the present hour: what was invoiced stays.
    assert_eq!(old.event("in time", 34).await, Answer::Accepted);
    assert_eq!(old.event("in time", 34).await, Answer::Duplicate);
    let (periods, hours, days) = old.history("acme").await;
    assert_eq!((&hours, &days), (&before.1, &before.2));
    let changed: Vec<_> = periods.iter().zip(&before.0).filter(|(now, before)| now != before).collect();
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert_eq!(changed[0].0.0, old.period(34));
    assert_eq!(old.lines().await.last().map(|line| (line.kind, line.at)), Some((LineKind::Event, at(old.now))));
}

/// Lines that are too old go, those within stay, and a store that is made anew is the same.
async fn lines_are_kept(place: &dyn Place, merged: impl AsyncFn()) {
    let folder = Folder::new("retention");
    let old = Old::new(&folder).await;
    let events = place.open();
    let retention = Duration::from_hours(u64::try_from(KEPT * 24).expect("days"));
    let id = old.store.id().await.expect("an id");
    let all = async || stored(&id, &events).await.expect("lines");
    let forgotten = async |events: &Arc<dyn EventsStore>, wanted: &[StoredLine]| {
        let start = Instant::now();
        loop {
            events.keep(retention, at(old.now)).await.expect("kept");
            merged().await;
            let found = all().await;
            if found == wanted {
                return;
            }
            assert!(start.elapsed() < LIMIT, "{} lines instead of {}", found.len(), wanted.len());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    // It kept all of them before it was told for how long.
    feed_all(&feed(&old.store, events.clone()).await).await.expect("fed");
    assert_eq!(all().await, old.lines().await);
    let kept = old.kept().await;
    assert_eq!(kept.len(), 26);
    forgotten(&events, &kept).await;

    let mut feed = feed(&old.store, events.clone()).await;
    feed.retention = Some(retention);
    feed_all(&feed).await.expect("fed");
    assert_eq!(all().await, kept, "nothing comes back");
    feed.begin_anew(false).await.expect("emptied");
    assert_eq!(all().await, vec![]);
    feed_all(&feed).await.expect("fed");
    assert_eq!(all().await, kept, "made anew, without what it had forgotten");
    forgotten(&events, &kept).await;

    // The last line of a batch may be too old: it says how far the store is fed, and goes with the next look.
    let silent = Client { now: old.now - 100 * DAY, ..old.client("acme", 100) };
    silent.settle("silent", queries(7)).await.expect("settled");
    old.client("globex", 0).settle("new", queries(3)).await.expect("settled");
    feed_all(&feed).await.expect("fed");
    forgotten(&events, &old.kept().await).await;
    silent.settle("last", queries(7)).await.expect("settled");
    feed_all(&feed).await.expect("fed");
    assert_eq!(feed.fed.read().seq, old.lines().await.last().map_or(0, |line| line.seq));
    forgotten(&events, &old.kept().await).await;
    // The ledger has lines that the store has forgotten. None of the days whose turn comes within a day is one of theirs.
    for hour in 1..=23 {
        assert_eq!(feed.compare(at(old.now + hour * 3600)).await.expect("compared"), Some(vec![]), "hour {hour}");
    }
    assert_eq!(feed.fed.read().generation, Some(events.position(&id).await.expect("a position").generation));
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_forgets_old_lines_and_gets_none_back_when_it_is_made_anew() {
    lines_are_kept(&*File::place(), async || {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clickhouse_forgets_old_lines_and_gets_none_back_when_it_is_made_anew() {
    let folder = Folder::new("clickhouse");
    let engine = Arc::new(Engine::start(&folder, free_port()));
    let database = Database::new(&engine).await;
    // A server merges by itself, some time later.
    let merge = format!("OPTIMIZE TABLE {}.line FINAL", database.name);
    lines_are_kept(&database, async || drop(engine.sql(&merge).await)).await;
}
