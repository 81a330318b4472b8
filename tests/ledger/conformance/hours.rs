//! The contract of closed hours: they hold every line once, and never change.

use std::sync::Arc;

use futures::future::join_all;
use tenant_operator::ledger::account::LineKind;
use tenant_operator::ledger::decision::{Action, Command, Refusal};
use tenant_operator::ledger::store::{ClosedHour, ClosedHours, Store, StoredLine};
use tenant_operator::ledger::units::{Amounts, Limits, Unit};

use super::{Client, DAY, NOON, Place, Verdict, at, period, posted, queries, reading, refusal, said, same};

const HOUR: i64 = 3600;

async fn hours(store: &Arc<dyn Store>, tenant: &str, from: i64, now: i64) -> Result<ClosedHours, String> {
    store.hours(tenant, at(from), 1000, at(now)).await.map_err(said)
}

fn row(hour: i64, number: i64, amounts: Amounts) -> ClosedHour {
    ClosedHour { hour: at(hour), period: period(number), amounts }
}

/// Hours are listed once they are over, with a row for each period; what comes later is in a later hour, whatever the
/// clock says, also after a restart.
pub async fn closed(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    let acme = Client::of(&store, "acme");
    let later = |client: &Client, seconds| Client { now: NOON + seconds, ..client.clone() };
    acme.settle("a", queries(1)).await?;
    later(&acme, HOUR - 1).settle("b", queries(2).with(Unit::PromptTokens, 7)).await?;
    Client::of(&store, "other").settle("o", queries(1000)).await?;
    let none = ClosedHours { closed_until: at(NOON), listed_until: at(NOON), hours: vec![] };
    same("an open hour", hours(&store, "acme", 0, NOON + HOUR - 1).await?, none)?;
    later(&acme, HOUR).settle("c", queries(4)).await?;
    let first = row(NOON, 0, queries(3).with(Unit::PromptTokens, 7));
    same("a closed hour", hours(&store, "acme", 0, NOON + HOUR).await?.hours, vec![first])?;

    // Its commit took longer than the hour, or the clock was put back.
    later(&acme, HOUR - 1).settle("d", queries(8)).await?;
    let event = |name: &str, number, amount| Command {
        operation: name.to_owned(),
        tenant: "acme".to_owned(),
        action: Action::Event { period: period(number), amounts: queries(amount) },
        at: Some(at(NOON - 20 * DAY)),
    };
    let events = vec![event("e", -1, 16), event("f", 0, 32), event("g", -1, 64), event("g", -1, 64)];
    store.count(events, at(NOON - HOUR)).await.map_err(said)?;
    same("it stays", hours(&store, "acme", 0, NOON + HOUR).await?.hours, vec![first])?;
    drop((store, acme));
    let store = place.open().await.map_err(said)?;
    Client::of(&store, "acme").settle("h", queries(128)).await?;
    let second = [row(NOON + HOUR, -1, queries(80)), row(NOON + HOUR, 0, queries(4 + 8 + 32 + 128))];
    let listed = hours(&store, "acme", 0, NOON + 2 * HOUR).await?;
    same("late ones", listed.hours, vec![first, second[0], second[1]])?;
    same("from then on", hours(&store, "acme", NOON + HOUR, NOON).await?.hours, second.to_vec())?;
    same("closed for good", hours(&store, "acme", NOON + HOUR + 1, NOON).await?.closed_until, at(NOON + 2 * HOUR))?;
    same("of another tenant", hours(&store, "other", 0, NOON).await?.hours, vec![row(NOON, 0, queries(1000))])?;
    same("of none", hours(&store, "nobody", 0, NOON).await?.hours, vec![])?;
    // Each line says which hour it is part of.
    for hour in [NOON, NOON + HOUR] {
        let lines = reading::all_lines(&store, 1000).await?;
        let of = |line: &&StoredLine| line.tenant == "acme" && line.hour == at(hour);
        let sum = lines.iter().filter(of).fold(Amounts::ZERO, |sum, line| sum.plus(line.amounts));
        let rows = [first, second[0], second[1]].into_iter().filter(|row| row.hour == at(hour));
        same("the lines of an hour", sum, rows.fold(Amounts::ZERO, |sum, row| sum.plus(row.amounts)))?;
    }
    reading::agree(&store, &["acme", "other"]).await
}

/// What another ledger counted is in the account and in a line, and in no hour: it was billed from there. A repetition
/// counts nothing, and no period is closed by it.
pub async fn moved(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    let acme = Client::of(&store, "acme");
    let all = queries(40).with(Unit::Documents, 3);
    let moved = |number, amounts| Action::Move { period: period(number), amounts };
    same("moved", acme.apply("own", moved(0, all)).await?, posted(all, Amounts::ZERO))?;
    same("before", acme.apply("before", moved(-1, queries(500))).await?, posted(queries(500), Amounts::ZERO))?;
    acme.settle("a", queries(2)).await?;
    same("again", acme.apply("own", moved(0, all)).await?, posted(all, Amounts::ZERO))?;
    acme.reserve("r", queries(1), Limits::default()).await?;
    let refused = acme.apply("r", moved(0, queries(1))).await?;
    same("another operation", refusal(refused), Some(Refusal::OtherParameters))?;
    acme.void("r").await?;
    acme.has("counted", queries(42).with(Unit::Documents, 3), Amounts::ZERO).await?;
    same("the period", acme.usage().await?.map(|(present, _)| present), Some(period(0)))?;
    let other = Client::of(&store, "other");
    same("first", other.apply("first", moved(-1, queries(1))).await?, posted(queries(1), Amounts::ZERO))?;
    same("later", other.apply("later", moved(0, queries(1))).await?, posted(queries(1), Amounts::ZERO))?;
    same("its own period", other.usage().await?.map(|(present, _)| present), Some(period(-1)))?;
    let told = store.lines(0, 1).await.map_err(said)?;
    same("its line", told.first().map(|line| (line.kind, line.amounts)), Some((LineKind::Moved, all)))?;
    same("hours", hours(&store, "acme", 0, NOON + HOUR).await?.hours, vec![row(NOON, 0, queries(2))])?;
    same("of the other", hours(&store, "other", 0, NOON + HOUR).await?.hours, vec![])
}

/// A page holds whole hours, and says up to where it is complete.
pub async fn pages(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    for hour in 0..7 {
        for number in [0, 1] {
            let client = Client { now: NOON + 40 * DAY + hour * HOUR, ..Client::of(&store, "acme").in_period(number) };
            client.settle(&format!("{hour}-{number}"), queries(hour + 1)).await?;
        }
    }
    let (end, now) = (NOON + 40 * DAY + 9 * HOUR, NOON + 40 * DAY + 9 * HOUR + 5);
    for most in [1, 2, 3, 7, 8] {
        let (mut from, mut all) = (at(0), Vec::new());
        loop {
            let page = store.hours("acme", from, most, at(now)).await.map_err(said)?;
            same("rows", page.hours.len() <= 2 * most as usize, true)?;
            same("closed", page.closed_until, at(end))?;
            all.extend(page.hours);
            if page.listed_until == page.closed_until {
                break;
            }
            same("goes on", page.listed_until > from, true)?;
            from = page.listed_until;
        }
        let each = all.iter().map(|row| row.amounts[Unit::Queries]).collect::<Vec<_>>();
        same("each once", each, (1..=7).flat_map(|hour| [hour, hour]).collect())?;
    }
    Ok(())
}

/// While clients count, hours that were listed stay as they are, and all of them together are what was counted.
pub async fn busy(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    let tasks = (0..120_i64).map(|number| {
        let client = Client { now: NOON + number % 5 * HOUR, ..Client::of(&store, "acme") };
        tokio::spawn(async move { client.settle(&format!("q-{number}"), queries(1)).await.map(drop) })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut seen: Vec<ClosedHour> = Vec::new();
    for now in (0..=5).map(|hour| NOON + hour * HOUR) {
        let listed = hours(&store, "acme", 0, now).await?.hours;
        same("what was listed", listed.get(..seen.len()).map(<[_]>::to_vec), Some(seen))?;
        seen = listed;
        tokio::task::yield_now().await;
    }
    for done in join_all(tasks).await {
        done.map_err(|error| error.to_string())??;
    }
    let listed = hours(&store, "acme", 0, NOON + 9 * HOUR).await?.hours;
    same("what was listed", listed.get(..seen.len()).map(<[_]>::to_vec), Some(seen))?;
    same("all", listed.iter().map(|row| row.amounts[Unit::Queries]).sum::<i64>(), 120)
}
