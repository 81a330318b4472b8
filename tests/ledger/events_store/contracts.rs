//! What an events store does with batches and questions.

use std::collections::BTreeMap;

use tenant_operator::ledger::account::LineKind;
use tenant_operator::ledger::events::{Asked, Batch, EventsError, Mark, Page, Position, Span, Sum};
use tenant_operator::ledger::store::StoredLine;
use tenant_operator::ledger::units::{Amounts, Unit};

use super::{OURS, Place, Spoil, at, line, said, used};
use crate::conformance::{DAY, NOON, Verdict, same};

const EVER: Span = Span { from: at_const(0), to: at_const(NOON * 2) };

const fn at_const(second: i64) -> tenant_operator::api::Timestamp {
    tenant_operator::api::Timestamp::from_second(second)
}

fn batch(position: &Position, lines: &[StoredLine]) -> Batch {
    Batch { generation: position.generation, after: position.mark.clone(), lines: lines.to_vec() }
}

/// A batch that is repeated, by this process or the next one, is there once; one that does not follow is refused.
pub async fn repeated(place: &dyn Place) -> Verdict {
    let store = place.open();
    let begun = store.position(OURS).await.map_err(said)?;
    same("new", (begun.mark.clone(), begun.begun.clone()), (Mark::default(), None))?;
    let lines: Vec<_> = (1..=40).map(|seq| line(seq, "acme", seq, used(1))).collect();
    let first = batch(&begun, &lines[..25]);
    store.append(OURS, &first).await.map_err(said)?;
    store.append(OURS, &first).await.map_err(said)?;
    let store = place.open();
    store.append(OURS, &first).await.map_err(said)?;
    let position = store.position(OURS).await.map_err(said)?;
    same("the mark", (position.mark.clone(), position.begun.clone()), (Mark::of(&lines[24]), None))?;
    let gap = Batch { after: Mark::of(&lines[29]), ..batch(&position, &lines[30..]) };
    same("a gap", matches!(store.append(OURS, &gap).await, Err(EventsError::Superseded)), true)?;
    store.append(OURS, &batch(&position, &lines[25..])).await.map_err(said)?;
    let all = store.lines(OURS, "acme", EVER, Page { after: 0, most: 1000 }).await.map_err(said)?;
    same("each line once, as it was", all, lines.clone())?;
    let days = store.sums(OURS, Asked::SiteDays, EVER).await.map_err(said)?;
    same("the sum", days.iter().map(|sum| sum.amounts).collect(), vec![used(40)])
}

/// Sums by hour, day and period, of a tenant and of the site, are those of the lines.
pub async fn sums(place: &dyn Place) -> Verdict {
    let store = place.open();
    let mut lines = Vec::new();
    for number in 0..200_i64 {
        let tenant = ["acme", "globex", "initech"][usize::try_from(number % 3).unwrap_or(0)];
        let mut one = line(number + 1, tenant, number * 1700, used(number));
        one.period_start = at(NOON - (number % 4) * 30 * DAY);
        match number % 10 {
            3 => (one.kind, one.amounts) = (LineKind::Released, Amounts::of(Unit::Bytes, -5 * number)),
            5 => one.kind = LineKind::Moved,
            // The hour of its moment was closed.
            7 => one.hour = one.hour.plus(3600),
            _ => {}
        }
        lines.push(one);
    }
    let position = store.position(OURS).await.map_err(said)?;
    store.append(OURS, &batch(&position, &lines)).await.map_err(said)?;
    let spans = [EVER, Span { from: at(NOON + 3600 * 5), to: at(NOON + 3600 * 50) }];
    for (span, tenant) in spans.into_iter().flat_map(|span| ["acme", "globex", "nobody"].map(|tenant| (span, tenant))) {
        for asked in [
            Asked::TenantHours(tenant),
            Asked::TenantDays(tenant),
            Asked::TenantPeriods(tenant),
            Asked::SiteDays,
            Asked::EveryTenantsHours,
            Asked::EveryTenantsDays,
        ] {
            let found = store.sums(OURS, asked, span).await.map_err(said)?;
            same(&format!("{asked:?} in {span:?}"), found, expected(&lines, asked, span))?;
        }
    }
    Ok(())
}

/// What the lines add up to.
fn expected(lines: &[StoredLine], asked: Asked, span: Span) -> Vec<Sum> {
    let mut sums: BTreeMap<_, Amounts> = BTreeMap::new();
    for line in lines {
        let day = at(line.at.as_second().div_euclid(DAY) * DAY);
        let (whose, start, moment, counts) = match asked {
            Asked::TenantHours(tenant) => {
                (tenant, line.hour, line.hour, line.tenant == tenant && line.kind != LineKind::Moved)
            }
            Asked::EveryTenantsHours => (&*line.tenant, line.hour, line.hour, line.kind != LineKind::Moved),
            Asked::EveryTenantsDays => (
                &*line.tenant,
                line.hour.plus(-(line.hour.as_second().rem_euclid(DAY))),
                line.hour,
                line.kind != LineKind::Moved,
            ),
            Asked::TenantDays(tenant) => (tenant, day, line.at, line.tenant == tenant),
            Asked::TenantPeriods(tenant) => (tenant, line.period_start, line.at, line.tenant == tenant),
            Asked::SiteDays => ("", day, line.at, true),
        };
        if counts && span.from <= moment && moment < span.to {
            let sum = sums.entry((whose.to_owned(), start)).or_default();
            *sum = sum.plus(line.amounts);
        }
    }
    sums.into_iter().map(|((tenant, start), amounts)| Sum { tenant, start, amounts }).collect()
}

/// Lines of a tenant come in pages, each line once, within the span.
pub async fn pages(place: &dyn Place) -> Verdict {
    let store = place.open();
    let tenant = |seq: i64| if seq % 2 == 0 { "acme" } else { "globex" };
    let lines: Vec<_> = (1..=100).map(|seq| line(seq, tenant(seq), seq * 60, used(seq))).collect();
    let position = store.position(OURS).await.map_err(said)?;
    store.append(OURS, &batch(&position, &lines)).await.map_err(said)?;
    let span = Span { from: at(NOON + 20 * 60), to: at(NOON + 80 * 60) };
    let wanted: Vec<_> = (20..80).filter(|seq| seq % 2 == 0).collect();
    for most in [1, 7, 29, 30, 31] {
        let (mut after, mut found) = (0, Vec::new());
        loop {
            let page = store.lines(OURS, "acme", span, Page { after, most }).await.map_err(said)?;
            let Some(last) = page.last() else { break };
            same("the page", (page.len() <= most as usize, last.seq > after), (true, true))?;
            after = last.seq;
            found.extend(page.into_iter().map(|line| line.seq));
        }
        same("each once", found, wanted.clone())?;
    }
    same("of nobody", store.lines(OURS, "nobody", span, Page { after: 0, most: 10 }).await.map_err(said)?, vec![])
}

/// Whatever a name looks like, it is only itself.
pub async fn names(place: &dyn Place) -> Verdict {
    let names = ["acme", "ACME", "a'b", "a\\'b", "a\"b", "?", "{a:String}", "';DROP", "%61", "a`b", "--", "\\"];
    let store = place.open();
    let numbered = || (1..).zip(names);
    let lines: Vec<_> = numbered()
        .map(|(seq, name)| StoredLine { operation: format!("o{name}"), ..line(seq, name, 0, used(seq)) })
        .collect();
    let position = store.position(OURS).await.map_err(said)?;
    store.append(OURS, &batch(&position, &lines)).await.map_err(said)?;
    for (seq, name) in numbered() {
        let found = store.lines(OURS, name, EVER, Page { after: 0, most: 10 }).await.map_err(said)?;
        same(name, found, vec![lines[usize::try_from(seq - 1).unwrap_or(0)].clone()])?;
        let days = store.sums(OURS, Asked::TenantDays(name), EVER).await.map_err(said)?;
        same(name, days.iter().map(|sum| sum.amounts).collect(), vec![used(seq)])?;
    }
    Ok(())
}

/// The store of another ledger is refused, and stays as it is, unless it is taken over.
pub async fn foreign(place: &dyn Place) -> Verdict {
    let store = place.open();
    let position = store.position(OURS).await.map_err(said)?;
    let lines = [line(1, "acme", 0, used(1))];
    store.append(OURS, &batch(&position, &lines)).await.map_err(said)?;
    let refused = |error: EventsError| match error {
        EventsError::Foreign { found, own } => Ok((found, own)),
        other => Err(said(other)),
    };
    let both = ("ours".to_owned(), "theirs".to_owned());
    let other = place.open();
    same("to ask", other.position("theirs").await.err().map(refused).transpose()?, Some(both.clone()))?;
    same(
        "to append",
        other.append("theirs", &batch(&position, &lines)).await.err().map(refused).transpose()?,
        Some(both.clone()),
    )?;
    same("to empty", other.wipe("theirs", false).await.err().map(refused).transpose()?, Some(both))?;
    same(
        "it stays",
        store.lines(OURS, "acme", EVER, Page { after: 0, most: 10 }).await.map_err(said)?,
        lines.to_vec(),
    )?;
    other.wipe("theirs", true).await.map_err(said)?;
    same("taken over", other.position("theirs").await.map_err(said)?.mark, Mark::default())?;
    same("and empty", other.lines("theirs", "acme", EVER, Page { after: 0, most: 10 }).await.map_err(said)?, vec![])?;
    same("from the first", store.position(OURS).await.is_err(), true)?;
    let page = Page { after: 0, most: 1 };
    same("to read", matches!(store.lines(OURS, "acme", EVER, page).await, Err(EventsError::Foreign { .. })), true)?;
    same("to add up", matches!(store.sums(OURS, Asked::SiteDays, EVER).await, Err(EventsError::Foreign { .. })), true)
}

/// What was meant for the store as it was before it was emptied is not in it afterwards.
pub async fn generations(place: &dyn Place) -> Verdict {
    let store = place.open();
    let before = store.position(OURS).await.map_err(said)?;
    let lines: Vec<_> = (1..=20).map(|seq| line(seq, "acme", seq, used(1))).collect();
    store.append(OURS, &batch(&before, &lines[..10])).await.map_err(said)?;
    let generation = place.open().wipe(OURS, false).await.map_err(said)?;
    same("a later one", generation > before.generation, true)?;
    let late = Batch { generation: before.generation, after: Mark::of(&lines[9]), lines: lines[10..].to_vec() };
    same("late", matches!(store.append(OURS, &late).await, Err(EventsError::Superseded)), true)?;
    let position = store.position(OURS).await.map_err(said)?;
    same("empty", (position.generation, position.mark.clone()), (generation, Mark::default()))?;
    store.append(OURS, &batch(&position, &lines[..5])).await.map_err(said)?;
    same(
        "only that",
        store.lines(OURS, "acme", EVER, Page { after: 0, most: 100 }).await.map_err(said)?,
        lines[..5].to_vec(),
    )
}

/// What a later version wrote is refused with both numbers, and stays.
pub async fn newer(place: &dyn Place) -> Verdict {
    place.open().position(OURS).await.map_err(said)?;
    place.spoil(Spoil::Newer).await;
    let store = place.open();
    let found = store.position(OURS).await.err().map(said).unwrap_or_default();
    same(&found, found.contains("has schema 9, and this version of tenant-operator knows 1"), true)?;
    same("to empty", matches!(place.open().wipe(OURS, true).await, Err(EventsError::Newer { .. })), true)
}

/// What is no events store is refused, and stays.
pub async fn something_else(place: &dyn Place) -> Verdict {
    place.spoil(Spoil::SomethingElse).await;
    for _ in 0..2 {
        let refused = place.open().position(OURS).await;
        same(&format!("{refused:?}"), matches!(refused, Err(EventsError::NotOurs(_))), true)?;
        let refused = place.open().wipe(OURS, true).await;
        same(&format!("{refused:?}"), matches!(refused, Err(EventsError::NotOurs(_))), true)?;
    }
    Ok(())
}
