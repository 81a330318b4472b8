//! The contracts of events of other systems.

use std::sync::Arc;

use futures::future::join_all;
use tenant_operator::ledger::account::{Account, LineKind, Period};
use tenant_operator::ledger::decision::{Action, Answer, Command, Refusal};
use tenant_operator::ledger::store::Store;
use tenant_operator::ledger::units::{Amounts, Limits, Unit};

use super::{Client, DAY, NOON, Place, Verdict, at, at_most, granted, period, queries, reading, refusal, said, same};

/// An event of a tenant in a period, so many seconds before noon.
fn event(name: &str, tenant: &str, number: i64, amounts: Amounts, ago: i64) -> Command {
    let action = Action::Event { period: period(number), amounts };
    Command { operation: name.to_owned(), tenant: tenant.to_owned(), action, at: Some(at(NOON - ago)) }
}

async fn count(store: &Arc<dyn Store>, events: &[Command]) -> Result<Vec<Answer>, String> {
    let answers = store.count(events.to_vec(), at(NOON)).await.map_err(said)?;
    same("an answer for each", answers.len(), events.len())?;
    Ok(answers)
}

/// Each event counts once, in the period that it names, and is answered in order; those that cannot be counted spoil no
/// others.
pub async fn counted(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    let tenants = ["acme", "other", "third"];
    let acme = Client::of(&store, "acme");
    granted("reserved", acme.reserve("pending", queries(4), Limits::default()).await?)?;
    same("none", count(&store, &[]).await?, Vec::new())?;

    let (mut events, mut wanted) = (Vec::new(), Vec::new());
    for number in 0..1300_i64 {
        let tenant = tenants[usize::try_from(number % 3).unwrap_or_default()];
        let used = queries(number).with(Unit::PromptTokens, 1).with(Unit::Documents, number % 2);
        let ago = if number % 50 == 7 { 36 * DAY } else { 34 * DAY };
        events.push(event(&format!("e-{number}"), tenant, -(number % 2), used, ago));
        wanted.push(match ago {
            _ if number % 50 != 7 => Answer::Accepted,
            _ => Answer::Refused(Refusal::TooOld { at: at(NOON - 36 * DAY), days: 35 }),
        });
        if number % 100 == 9 {
            // Once more in the same batch, with another amount.
            events.push(event(&format!("e-{number}"), tenant, 0, queries(5), 0));
            wanted.push(Answer::Duplicate);
        }
    }
    let most = 999_999_999_999_999;
    for (name, tenant, amounts, ago, answer) in [
        ("ahead", "acme", queries(1), -301, Answer::Refused(Refusal::Ahead { at: at(NOON + 301), now: at(NOON) })),
        ("much", "acme", queries(most), 0, Answer::Refused(Refusal::TooMuch(Unit::Queries))),
    ] {
        events.push(event(name, tenant, 0, amounts, ago));
        wanted.push(answer);
    }
    same("answers", count(&store, &events).await?, wanted.clone())?;
    let lines = store.lines(0, 5000).await.map_err(said)?;
    same("lines", lines.len(), 1300 - 26)?;
    same("kinds", lines.iter().all(|line| line.kind == LineKind::Event && line.at == at(NOON)), true)?;
    reading::agree(&store, &tenants).await?;
    let of_acme = lines.iter().filter(|line| line.tenant == "acme" && line.period_start == period(0).start);
    let flows = of_acme.fold(Amounts::ZERO, |sum, line| sum.plus(line.amounts)).only(false);
    let (_, account) = acme.usage().await?.ok_or("a tenant is missing")?;
    same("beside what is reserved", (account.used.only(false), account.reserved), (flows, queries(4)))?;

    // All of it is there after a crash, and comes again.
    let left = place.left_by_a_crash().await;
    let found = left.open().await.map_err(said)?;
    for (answer, again) in wanted.iter_mut().zip(count(&found, &events).await?) {
        if *answer == Answer::Accepted {
            *answer = Answer::Duplicate;
        }
        same("again", again, *answer)?;
    }
    drop(found);
    // A name that is taken by a command of the ledger's own clients is another operation.
    let answer = count(&store, &[event("pending", "other", 0, queries(1), 0)]).await?;
    same("another tenant's", refusal(answer[0]), Some(Refusal::OtherParameters))?;
    acme.settle("pending", queries(4)).await?;
    reading::agree(&store, &tenants).await
}

/// Events that name other periods than the tenant's own, such as calendar months, close none and give no second quota,
/// whether they come alone or in a batch.
pub async fn months(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    let (acme, ten) = (Client::of(&store, "acme"), at_most(Unit::Queries, 10));
    granted("reserved", acme.reserve("a", queries(8), ten).await?)?;
    let month = Period { start: at(NOON - DAY), end: at(NOON + 29 * DAY) };
    let told = |name: &str, tenant: &str| {
        let action = Action::Event { period: month, amounts: queries(3) };
        Command { operation: name.to_owned(), tenant: tenant.to_owned(), action, at: Some(at(NOON)) }
    };
    let batch = [told("one", "acme"), told("two", "acme"), told("first", "new")];
    same("a batch", count(&store, &batch).await?, vec![Answer::Accepted; 3])?;
    let alone = store.apply(told("three", "acme"), at(NOON)).await.map_err(said)?;
    same("alone", alone, Answer::Accepted)?;

    same("the period stays", acme.usage().await?.map(|(found, _)| found), Some(period(0)))?;
    let wanted = Refusal::LimitReached { unit: Unit::Queries, limit: 10, left: 2, asked: 3 };
    same("no second quota", refusal(acme.reserve("b", queries(3), ten).await?), Some(wanted))?;
    let account = |used, reserved| Account { used: queries(used), reserved: queries(reserved) };
    let listed = store.periods("acme", 9).await.map_err(said)?;
    same("each in its period", listed, vec![(month, account(9, 0)), (period(0), account(0, 8))])?;
    let new = Client::of(&store, "new").usage().await?;
    same("the first period of a tenant", new, Some((month, account(3, 0))))?;
    reading::agree(&store, &["acme", "new"]).await?;

    // The tenant itself comes to a period with that start, and ends it on another day.
    let own = Client { period: Period { end: at(NOON + 20 * DAY), ..month }, ..acme.clone() };
    granted("its own", own.reserve("c", queries(1), ten).await?)?;
    same("what was told of is in it", own.usage().await?, Some((own.period, account(9, 1))))?;
    reading::agree(&store, &["acme", "new"]).await
}

/// The same events in batches at the same moment, beside commands of the same tenants: each counts once.
pub async fn at_once(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    let events: Vec<_> =
        (0..120).map(|number| event(&format!("e-{number}"), ["acme", "other"][number % 2], 0, queries(1), 0)).collect();
    let batches = (0..8).map(|turn| {
        let (store, mut events) = (store.clone(), events.clone());
        events.rotate_left(turn * 17);
        tokio::spawn(async move { store.count(events, at(NOON)).await.map_err(said) })
    });
    let commands = (0..60).map(|number: usize| {
        let client = Client::of(&store, ["acme", "other"][number % 2]);
        tokio::spawn(async move { client.settle(&format!("q-{number}"), queries(1)).await })
    });
    let (batches, commands) = (batches.collect::<Vec<_>>(), commands.collect::<Vec<_>>());
    let mut accepted = 0;
    for done in join_all(batches).await {
        let answers = done.map_err(|error| error.to_string())??;
        accepted += answers.iter().filter(|answer| **answer == Answer::Accepted).count();
    }
    for done in join_all(commands).await {
        done.map_err(|error| error.to_string())??;
    }
    same("each accepted once", accepted, 120)?;
    for tenant in ["acme", "other"] {
        Client::of(&store, tenant).has(tenant, queries(90), Amounts::ZERO).await?;
    }
    reading::agree(&store, &["acme", "other"]).await
}
