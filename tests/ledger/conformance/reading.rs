//! The contracts of what is read: accounts, periods, days, lines and pending operations tell one story.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use tenant_operator::ledger::account::{Account, LineKind};
use tenant_operator::ledger::decision::Action;
use tenant_operator::ledger::store::{Day, Pending, Store, StoredLine};
use tenant_operator::ledger::units::{Amounts, Limits, Unit};

use super::{Client, DAY, NOON, Place, Verdict, granted, period, queries, said, same};

/// So much of each unit.
pub fn every_unit(amount: i64) -> Amounts {
    Amounts::ZERO.zip(Amounts::ZERO, |_, _| amount)
}

/// All lines, a few at a time.
pub async fn all_lines(store: &Arc<dyn Store>, page: u32) -> Result<Vec<StoredLine>, String> {
    let mut lines: Vec<StoredLine> = Vec::new();
    loop {
        let after = lines.last().map_or(0, |line| line.seq);
        let more = store.lines(after, page).await.map_err(said)?;
        if more.is_empty() {
            return Ok(lines);
        }
        same("a page is not longer than asked for", more.len() <= page as usize, true)?;
        lines.extend(more);
    }
}

fn sum(lines: impl Iterator<Item = Amounts>) -> Amounts {
    lines.fold(Amounts::ZERO, Amounts::plus)
}

/// Sums by a key.
fn sums<K: Ord>(lines: impl Iterator<Item = (K, Amounts)>) -> BTreeMap<K, Amounts> {
    let mut all: BTreeMap<K, Amounts> = BTreeMap::new();
    for (key, amounts) in lines {
        let sum = all.entry(key).or_default();
        *sum = sum.plus(amounts);
    }
    all
}

/// Breaks a contract unless the accounts, the periods and the days are the sums of the lines, and the site is the sum
/// of these tenants.
pub async fn agree(store: &Arc<dyn Store>, tenants: &[&str]) -> Verdict {
    let lines = all_lines(store, 1000).await?;
    let known: BTreeSet<_> = tenants.iter().copied().collect();
    same("a tenant that is not known", lines.iter().find(|line| !known.contains(line.tenant.as_str())), None)?;
    let (first, last) = (Day(0), Day(100_000));
    let mut site = Vec::new();
    for tenant in tenants {
        let own: Vec<_> = lines.iter().filter(|line| line.tenant == *tenant).collect();
        let usage = store.usage(tenant).await.map_err(said)?;
        let periods = store.periods(tenant, 1000).await.map_err(said)?;
        same("usage is there if a period is", usage.is_some(), !periods.is_empty())?;
        if let Some((present, account)) = usage {
            // Events close no period: only they count in one that is later than the tenant's own.
            let told = own.iter().any(|line| line.kind == LineKind::Event);
            let is_latest = periods.first().is_some_and(|(latest, _)| *latest == present);
            same("usage is that of the latest period", told || is_latest, true)?;
            let later = own.iter().find(|line| line.period_start > present.start && line.kind != LineKind::Event);
            same("only events are later", later, None)?;
            let listed = periods.iter().find(|(period, _)| *period == present).map(|(_, account)| *account);
            let flows = Account { used: account.used.only(false), reserved: account.reserved.only(false) };
            same("the flows of the present period", listed, Some(flows))?;
            same("levels", account.used.only(true), sum(own.iter().map(|line| line.amounts.only(true))))?;
        }
        let by_period = sums(own.iter().map(|line| (line.period_start, line.amounts.only(false))));
        let listed: BTreeMap<_, _> = periods.iter().map(|(period, account)| (period.start, account.used)).collect();
        same("each period is listed once", listed.len(), periods.len())?;
        let of_lines = periods.iter().map(|(period, _)| period.start);
        let of_lines = of_lines.map(|start| (start, by_period.get(&start).copied().unwrap_or_default())).collect();
        same("periods are the sums of lines", listed, of_lines)?;
        let unlisted = by_period.iter().filter(|(_, flows)| !flows.is_zero());
        let unlisted = unlisted.filter(|(start, _)| !periods.iter().any(|(period, _)| period.start == **start));
        same("periods that have lines and are not listed", unlisted.count(), 0)?;

        let days = store.days(Some(tenant), first, last).await.map_err(said)?;
        let by_day = sums(own.iter().map(|line| (Day::of(line.at), line.amounts)));
        same("days are the sums of lines", days.clone(), by_day.into_iter().collect())?;
        site.extend(days);
    }
    let whole = store.days(None, first, last).await.map_err(said)?;
    same("the site is the sum of its tenants", whole, sums(site.into_iter()).into_iter().collect())
}

/// What many clients do at once, in several periods and on several days, adds up, and every list agrees.
pub async fn all_agree(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    let tenants: Vec<_> = (0..5).map(|number| format!("tenant-{number}")).collect();
    let tasks = (0..150).map(|number: i64| {
        let tenant = &tenants[usize::try_from(number % 5).unwrap_or_default()];
        let mut client = Client::of(&store, tenant).in_period(number % 3);
        client.now += number % 4 * DAY;
        tokio::spawn(async move { one_of_many(&client, number).await })
    });
    let mut wanted = BTreeMap::new();
    for done in join_all(tasks.collect::<Vec<_>>()).await {
        let (tenant, used, reserved) = done.map_err(|error| error.to_string())??;
        let account: &mut Account = wanted.entry(tenant).or_default();
        *account = Account { used: account.used.plus(used), reserved: account.reserved.plus(reserved) };
    }
    for (tenant, wanted) in &wanted {
        // Periods hold the flows, and usage holds the levels.
        let (_, now) = store.usage(tenant).await.map_err(said)?.ok_or("a tenant is missing")?;
        let periods = store.periods(tenant, 100).await.map_err(said)?;
        let used = sum(periods.iter().map(|(_, account)| account.used)).plus(now.used.only(true));
        let reserved = sum(periods.iter().map(|(_, account)| account.reserved)).plus(now.reserved.only(true));
        same(tenant, Account { used, reserved }, *wanted)?;
    }
    agree(&store, &tenants.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// One operation of many, and what its tenant has used and reserved more after it.
async fn one_of_many(client: &Client, number: i64) -> Result<(String, Amounts, Amounts), String> {
    let name = format!("{}-{number}", client.tenant);
    let asked = every_unit(number + 1);
    let half = every_unit(number / 2);
    if number % 7 != 0 {
        granted(&name, client.reserve(&name, asked, Limits::default()).await?)?;
    }
    let (used, reserved) = match number % 7 {
        // Unreserved.
        0 => {
            client.settle(&name, half).await?;
            (half, Amounts::ZERO)
        }
        1 => {
            client.void(&name).await?;
            (Amounts::ZERO, Amounts::ZERO)
        }
        2 => (Amounts::ZERO, asked),
        3 => {
            client.checkpoint(&name, half).await?;
            client.expire(&name).await?;
            (half, Amounts::ZERO)
        }
        4 => {
            client.expire(&name).await?;
            client.settle(&name, half).await?;
            (half, Amounts::ZERO)
        }
        // More than was reserved.
        5 => {
            client.settle(&name, asked.plus(half)).await?;
            (asked, Amounts::ZERO)
        }
        _ => {
            client.settle(&name, asked).await?;
            let stored = asked.only(true);
            client.release(&format!("{name}-gone"), stored).await?;
            (asked.minus(stored), Amounts::ZERO)
        }
    };
    Ok((client.tenant.clone(), used, reserved))
}

/// Days begin at midnight UTC, come in order, and both ends of what is asked for are included. A day without a line is
/// left out.
pub async fn days(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    let midnight = NOON - 12 * 3600;
    let today = Day(midnight / DAY);
    let moments =
        [(midnight + DAY, 16), (midnight - 1, 1), (midnight, 2), (midnight + DAY - 1, 4), (midnight + 3 * DAY, 64)];
    for (tenant, moment, number) in moments.iter().flat_map(|(m, n)| [("acme", *m, *n), ("other", *m, *n * 100)]) {
        let client = Client { now: moment, ..Client::of(&store, tenant) };
        client.settle(&format!("{tenant}-{moment}"), queries(number)).await?;
    }
    let later = |days| Day(today.0 + days);
    let found = store.days(Some("acme"), later(-5), later(5)).await.map_err(said)?;
    let all = [(-1, 1), (0, 6), (1, 16), (3, 64)].map(|(day, number)| (later(day), queries(number)));
    same("days", found, all.to_vec())?;
    let found = store.days(Some("acme"), later(0), later(1)).await.map_err(said)?;
    same("two days", found, all[1..3].to_vec())?;
    let found = store.days(None, later(1), later(3)).await.map_err(said)?;
    same("of the site", found, vec![(later(1), queries(1616)), (later(3), queries(6464))])?;
    same("none", store.days(Some("nobody"), later(-5), later(5)).await.map_err(said)?, Vec::new())?;
    agree(&store, &["acme", "other"]).await
}

/// Lines are read a few at a time, each once, in the order of their numbers, with all that they are about; no number
/// comes twice.
pub async fn pages(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    let tasks = (0..100).map(|number| {
        let client = Client::of(&store, if number % 2 == 0 { "acme" } else { "other" });
        tokio::spawn(async move { client.settle(&format!("q-{number}"), queries(number + 1)).await })
    });
    for done in join_all(tasks.collect::<Vec<_>>()).await {
        done.map_err(|error| error.to_string())??;
    }
    let whole = store.lines(0, 1000).await.map_err(said)?;
    same("lines", whole.len(), 100)?;
    same("numbers that grow", whole.windows(2).all(|two| two[0].seq < two[1].seq) && whole[0].seq > 0, true)?;
    for page in [1, 7, 99, 100, 101] {
        same("the same lines by pages", all_lines(&store, page).await?, whole.clone())?;
    }
    let names: BTreeSet<_> = whole.iter().map(|line| line.operation.clone()).collect();
    same("each once", names, (0..100).map(|number| format!("q-{number}")).collect())?;
    for line in &whole {
        let number: i64 = line.operation[2..].parse().map_err(|_| "another name")?;
        let tenant = if number % 2 == 0 { "acme" } else { "other" };
        let told = (line.tenant.as_str(), line.amounts, line.period_start, line.at.as_second(), line.kind);
        same("a line", told, (tenant, queries(number + 1), period(0).start, NOON, LineKind::Unreserved))?;
    }
    let last = whole[99].seq;
    same("after the last", store.lines(last, 10).await.map_err(said)?, Vec::new())?;
    same("after all", store.lines(i64::MAX - 1, 10).await.map_err(said)?, Vec::new())?;
    drop(store);
    let store = place.open().await.map_err(said)?;
    Client::of(&store, "acme").settle("q-100", queries(1)).await?;
    let more = store.lines(last, 10).await.map_err(said)?;
    same("a greater number after it was opened again", more.len() == 1 && more[0].seq > last, true)
}

/// What is pending is listed with its tenant and interval, until it ends.
pub async fn pending(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    let acme = Client::of(&store, "acme");
    let names = ["settled", "voided", "expired", "checked", "left"];
    for (name, expires_after) in names.into_iter().zip([1, 60, 3600, 86_399, 86_400]) {
        let action =
            Action::Reserve { period: acme.period, amounts: queries(1), limits: Limits::default(), expires_after };
        granted(name, acme.apply(name, action).await?)?;
    }
    acme.settle("unreserved", queries(1)).await?;
    acme.settle("settled", queries(1)).await?;
    acme.void("voided").await?;
    acme.expire("expired").await?;
    acme.checkpoint("checked", queries(1)).await?;
    let listed = |operation: &str, expires_after| Pending {
        operation: operation.to_owned(),
        tenant: "acme".to_owned(),
        expires_after,
    };
    let wanted = vec![listed("checked", 86_399), listed("left", 86_400)];
    let left = place.left_by_a_crash().await;
    for (when, store) in [("at once", store.clone()), ("after a crash", left.open().await.map_err(said)?)] {
        let mut found = store.pending().await.map_err(said)?;
        found.sort_unstable_by(|a, b| a.operation.cmp(&b.operation));
        same(when, found, wanted.clone())?;
    }
    acme.has("all", queries(2), queries(2)).await
}

/// The tenants for which something was counted are told in the order of their latest lines, each once, with what usage
/// says.
pub async fn changed(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    same("nothing yet", store.changed(0, 100).await.map_err(said)?, Vec::new())?;
    let clients: Vec<_> = (0..6).map(|number| Client::of(&store, &format!("tenant-{number}"))).collect();
    let counted = async |number: usize, name: &str| {
        let used = queries(1).with(Unit::Documents, 2);
        clients[number].settle(&format!("{name}-{number}"), used).await.map(drop)
    };
    for number in 0..5 {
        counted(number, "first").await?;
    }
    granted("reserved", clients[1].reserve("reserved", queries(3), Limits::default()).await?)?;
    clients[5].void("voided").await?;
    counted(0, "second").await?;
    clients[2].in_period(1).settle("next", queries(7)).await?;
    let all = store.changed(0, 100).await.map_err(said)?;
    let order: Vec<_> = all.iter().map(|one| one.tenant.as_str()).collect();
    same("in order", order, vec!["tenant-1", "tenant-3", "tenant-4", "tenant-0", "tenant-2"])?;
    let lines = all_lines(&store, 100).await?;
    for one in &all {
        let usage = store.usage(&one.tenant).await.map_err(said)?;
        same("what usage says", usage, Some((one.period, one.account)))?;
        let latest = lines.iter().rev().find(|line| line.tenant == one.tenant).map(|line| line.seq);
        same("its latest line", latest, Some(one.seq))?;
    }
    for after in &all {
        let later: Vec<_> = all.iter().filter(|one| one.seq > after.seq).cloned().collect();
        same("after a line", store.changed(after.seq, 100).await.map_err(said)?, later)?;
    }
    same("two", store.changed(0, 2).await.map_err(said)?, all[..2].to_vec())?;
    // Tenants that are counted meanwhile come later, and none is passed over.
    let mut known = BTreeMap::new();
    let mut after = 0;
    let load = (0..120).map(|number: i64| {
        let client = clients[usize::try_from(number % 6).unwrap_or_default()].clone();
        tokio::spawn(async move { client.settle(&format!("load-{number}"), queries(1)).await })
    });
    let load: Vec<_> = load.collect();
    let mut last = load.iter().all(tokio::task::JoinHandle::is_finished);
    loop {
        let found = store.changed(after, 3).await.map_err(said)?;
        if found.is_empty() && last {
            break;
        }
        last = load.iter().all(tokio::task::JoinHandle::is_finished);
        for one in found {
            after = one.seq;
            known.insert(one.tenant.clone(), one.account.used);
        }
    }
    for client in &clients {
        let used = client.usage().await?.map(|(_, account)| account.used);
        same(&client.tenant, known.get(&client.tenant).copied(), used)?;
    }
    Ok(())
}
