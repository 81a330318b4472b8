//! The feed, from a ledger in `SQLite`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tenant_operator::api::Timestamp;
use tenant_operator::ledger::events::{
    Asked, Batch, Difference, EventsError, EventsStore, Feed, Page, Position, Span, Sum,
};
use tenant_operator::ledger::store::sqlite::Sqlite;
use tenant_operator::ledger::store::{Store, StoreError, StoredLine};
use tenant_operator::ledger::units::Unit;

use super::{Place, Spoil, at, feed, feed_all, said};
use crate::conformance::reading::all_lines;
use crate::conformance::{Client, NOON, Verdict, queries, same};
use crate::support::{Folder, LIMIT};

pub async fn open(folder: &Folder) -> Result<Arc<dyn Store>, String> {
    let mut tries = 0;
    loop {
        match Sqlite::open(folder.path()) {
            // A process that another test starts has this one's open files until it runs its own program.
            Err(StoreError::InUse(_)) if tries < 100 => tries += 1,
            opened => return Ok(Arc::new(opened.map_err(|error| error.to_string())?)),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Counts so many questions of some tenants, from a moment on.
pub async fn count(store: &Arc<dyn Store>, name: &str, number: i64, from: i64) -> Verdict {
    for question in 0..number {
        let tenant = ["acme", "globex"][usize::from(question % 3 == 0)];
        let client = Client { now: from + question * 40, ..Client::of(store, tenant) };
        client.settle(&format!("{name}-{question}"), queries(1 + question % 4)).await?;
    }
    Ok(())
}

/// All lines that a store has, in order.
pub async fn stored(id: &str, events: &Arc<dyn EventsStore>) -> Result<Vec<StoredLine>, String> {
    let mut all = Vec::new();
    for tenant in ["acme", "globex"] {
        let (ever, page) = (Span { from: at(0), to: at(NOON * 2) }, Page { after: 0, most: 100_000 });
        all.extend(events.lines(id, tenant, ever, page).await.map_err(said)?);
    }
    all.sort_unstable_by_key(|line| line.seq);
    Ok(all)
}

pub async fn agree(what: &str, ledger: &Arc<dyn Store>, events: &Arc<dyn EventsStore>) -> Verdict {
    let id = ledger.id().await.map_err(|error| error.to_string())?;
    same(what, stored(&id, events).await?, all_lines(ledger, 1000).await?)
}

/// The store has the ledger's lines, however they arrive and whoever feeds it.
pub async fn fed(place: &dyn Place) -> Verdict {
    let folder = Folder::new("fed");
    let ledger = open(&folder).await?;
    let events = place.open();
    let one = feed(&ledger, events.clone()).await;
    feed_all(&one).await?;
    agree("nothing", &ledger, &events).await?;
    count(&ledger, "a", 1200, NOON).await?;
    feed_all(&one).await?;
    agree("more than a page", &ledger, &events).await?;
    // Another replica, which knows nothing of the first one.
    let other = feed(&ledger, place.open()).await;
    for round in 0..5 {
        count(&ledger, &format!("b{round}"), 20, NOON + 86_400).await?;
        let (a, b) = tokio::join!(feed_all(&one), feed_all(&other));
        a.and(b)?;
        agree("two feeds", &ledger, &events).await?;
    }
    let progress = one.fed.read();
    same("complete until", progress.complete_until.is_some(), true)?;
    same("its last line", progress.seq, all_lines(&ledger, 1000).await?.last().map_or(0, |line| line.seq))
}

/// A ledger that was restored to an earlier state, and gives numbers to other lines, is noticed, and the store is made
/// anew.
pub async fn restored(place: &dyn Place) -> Verdict {
    let (folder, copy) = (Folder::new("restored"), Folder::new("copy"));
    let copied = |from: &Folder, to: &Folder| {
        let file = |folder: &Folder| folder.path().join("ledger.db");
        for suffix in ["-wal", "-shm"] {
            drop(std::fs::remove_file(to.path().join(format!("ledger.db{suffix}"))));
        }
        std::fs::copy(file(from), file(to)).map_err(|error| error.to_string())
    };
    let events = place.open();
    let ledger = open(&folder).await?;
    count(&ledger, "a", 30, NOON).await?;
    let feed_one = feed(&ledger, events.clone()).await;
    feed_all(&feed_one).await?;
    drop((ledger, feed_one));
    copied(&folder, &copy)?;
    // What the copy lacks: fewer lines than it gets later, as many, and more.
    for (lost, again) in [(5, 9), (7, 7), (9, 5), (3, 0)] {
        let ledger = open(&folder).await?;
        count(&ledger, &format!("lost-{lost}"), lost, NOON + 5000).await?;
        feed_all(&feed(&ledger, events.clone()).await).await?;
        agree("before", &ledger, &events).await?;
        drop(ledger);
        copied(&copy, &folder)?;
        let ledger = open(&folder).await?;
        count(&ledger, &format!("again-{again}"), again, NOON + 7000).await?;
        feed_all(&feed(&ledger, place.open()).await).await?;
        agree(&format!("{lost} lost, {again} since"), &ledger, &events).await?;
    }
    Ok(())
}

/// What the ledger counted in closed hours is what the store's lines add up to; what differs is named with both
/// numbers, and is gone once the store was made anew.
pub async fn compared(place: &dyn Place) -> Verdict {
    let folder = Folder::new("compared");
    let ledger = open(&folder).await?;
    let events = place.open();
    let feed = feed(&ledger, events.clone()).await;
    let compare = async |feed: &Feed, now: i64| {
        let found = feed.compare(Timestamp::from_second(now)).await.map_err(|error| error.to_string())?;
        found.ok_or_else(|| "it was not compared".to_owned())
    };
    count(&ledger, "a", 50, NOON).await?;
    same("the same", compare(&feed, NOON + 2 * 3600).await?, vec![])?;
    // It arrives when its hour is closed, and is part of a later one.
    count(&ledger, "late", 5, NOON + 60).await?;
    same("late", compare(&feed, NOON + 3 * 3600).await?, vec![])?;
    same("late, once its hour is closed", compare(&feed, NOON + 4 * 3600).await?, vec![])?;
    place.spoil(Spoil::StrayLine).await;
    let counted: i64 = all_lines(&ledger, 1000)
        .await?
        .iter()
        .filter(|line| line.tenant == "acme" && line.hour == at(NOON))
        .map(|line| line.amounts[Unit::Queries])
        .sum();
    let (tenant, hour, unit) = ("acme".to_owned(), at(NOON), Unit::Queries);
    let difference = Difference { tenant, hour, unit, ledger: counted, events: counted + 1 };
    same("a stray line", compare(&feed, NOON + 4 * 3600).await?, vec![difference])?;
    same("the differences that the ledger reports", feed.fed.read().differences, Some(1))?;
    feed.begin_anew(false).await.map_err(said)?;
    same("made anew", compare(&feed, NOON + 4 * 3600).await?, vec![])?;
    agree("and it has all lines", &ledger, &events).await
}

/// Counts how often sums are asked for.
#[derive(Debug)]
struct Counting(Arc<dyn EventsStore>, AtomicUsize);

#[async_trait]
impl EventsStore for Counting {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    async fn position(&self, ledger: &str) -> Result<Position, EventsError> {
        self.0.position(ledger).await
    }

    async fn append(&self, ledger: &str, batch: &Batch) -> Result<(), EventsError> {
        self.0.append(ledger, batch).await
    }

    async fn wipe(&self, ledger: &str, take_over: bool) -> Result<i64, EventsError> {
        self.0.wipe(ledger, take_over).await
    }

    async fn sums(&self, ledger: &str, asked: Asked<'_>, span: Span) -> Result<Vec<Sum>, EventsError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.sums(ledger, asked, span).await
    }

    async fn lines(&self, ledger: &str, tenant: &str, span: Span, page: Page) -> Result<Vec<StoredLine>, EventsError> {
        self.0.lines(ledger, tenant, span, page).await
    }

    async fn keep(&self, retention: Duration, now: Timestamp) -> Result<(), EventsError> {
        self.0.keep(retention, now).await
    }
}

/// What differs in hours that are no longer among the latest ones is found within a day, by few calls.
pub async fn compared_later(place: &dyn Place) -> Verdict {
    const DAY: i64 = 86_400;
    let folder = Folder::new("compared-later");
    let ledger = open(&folder).await?;
    let events = Arc::new(Counting(place.open(), AtomicUsize::new(0)));
    count(&ledger, "first", 40, NOON).await?;
    let all = async |age: i64, feed: &Feed| {
        let (calls, mut found) = (events.1.load(Ordering::SeqCst), Vec::new());
        for hour in 0..23 {
            let now = NOON + age * DAY + 2 * 3600 + hour * 3600;
            let compared = feed.compare(Timestamp::from_second(now)).await.map_err(|error| error.to_string())?;
            found = compared.ok_or_else(|| "it was not compared".to_owned())?;
        }
        Ok::<_, String>((found, events.1.load(Ordering::SeqCst) - calls))
    };
    same("the same", all(5, &feed(&ledger, events.clone()).await).await?, (vec![], 2 * 23))?;
    place.spoil(Spoil::StrayLine).await;
    // 69 days is what `docs/events-store.md` promises.
    for age in [10, 34, 61, 69] {
        count(&ledger, &format!("later-{age}"), 40, NOON + (age - 1) * DAY).await?;
        // The process has started anew, and knows nothing.
        let feed = feed(&ledger, events.clone()).await;
        let (found, calls) = all(age, &feed).await?;
        let [one] = &found[..] else { return Err(format!("{age} days later: {found:?}")) };
        same("where", (&*one.tenant, one.hour, one.unit), ("acme", at(NOON), Unit::Queries))?;
        same("by how much", one.events - one.ledger, 1)?;
        same("calls: two an hour, and one for the day", calls, 2 * 23 + 1)?;
        same("the differences that the ledger reports", feed.fed.read().differences, Some(1))?;
    }
    Ok(())
}

/// What is counted while closed hours are compared is part of later ones, and changes nothing of the comparison.
pub async fn compared_under_load(place: &dyn Place) -> Verdict {
    let folder = Folder::new("compared-under-load");
    let ledger = open(&folder).await?;
    let feed = feed(&ledger, place.open()).await;
    count(&ledger, "a", 50, NOON).await?;
    let compared = async {
        for _ in 0..5 {
            let found =
                feed.compare(Timestamp::from_second(NOON + 2 * 3600)).await.map_err(|error| error.to_string())?;
            same("under load", found, Some(vec![]))?;
        }
        Ok(())
    };
    let load = async {
        let mut round = 0;
        loop {
            count(&ledger, &format!("b{round}"), 3, NOON + 3 * 3600).await?;
            round += 1;
        }
    };
    let ended = async {
        tokio::select! { compared = compared => compared, failed = load => failed }
    };
    tokio::time::timeout(LIMIT, ended).await.map_err(|_| "the comparison does not end")?
}
