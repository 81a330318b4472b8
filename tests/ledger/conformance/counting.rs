//! The contracts of counting: exact limits, one name counted once, and answers after the commit.

use futures::future::join_all;
use tenant_operator::ledger::decision::{Answer, Refusal};
use tenant_operator::ledger::units::{Amounts, LARGEST, Unit};

use super::{Client, Place, Verdict, at_most, granted, posted, queries, reading, refusal, said, same};

/// What many tasks ask at the same moment.
async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    count: usize,
    ask: impl Fn(usize) -> F,
) -> Vec<T> {
    let tasks: Vec<_> = (0..count).map(|number| tokio::spawn(ask(number))).collect();
    join_all(tasks).await.into_iter().map(|done| done.expect("no panic")).collect()
}

/// Two hundred ask for one each at a limit of a hundred: a hundred are granted, and the others are told why not.
pub async fn limit(place: &dyn Place) -> Verdict {
    let acme = Client::of(&place.open().await.map_err(said)?, "acme");
    let client = acme.clone();
    let answers = at_once(200, move |number| {
        let client = client.clone();
        async move { client.reserve(&format!("q-{number}"), queries(1), at_most(Unit::Queries, 100)).await }
    })
    .await;
    let answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
    let full = Answer::Refused(Refusal::LimitReached { unit: Unit::Queries, limit: 100, left: 0, asked: 1 });
    same("granted", answers.iter().filter(|answer| matches!(answer, Answer::Reserved { .. })).count(), 100)?;
    same("refused", answers.iter().filter(|answer| **answer == full).count(), 100)?;
    acme.has("reserved", Amounts::ZERO, queries(100)).await?;
    // What is left after each grant is another number.
    let mut left: Vec<_> = answers.iter().filter_map(left_of).collect();
    left.sort_unstable();
    same("what was left", left, (0..100).collect())?;

    let granted = answers.iter().enumerate().filter(|(_, answer)| matches!(answer, Answer::Reserved { .. }));
    let names: Vec<_> = granted.map(|(number, _)| format!("q-{number}")).collect();
    let client = acme.clone();
    let settled = at_once(100, move |number| {
        let (client, name) = (client.clone(), names[number].clone());
        async move { client.settle(&name, queries(1)).await }
    });
    for answer in settled.await {
        same("settled", answer?, posted(queries(1), Amounts::ZERO))?;
    }
    acme.has("used", queries(100), Amounts::ZERO).await?;
    let more = acme.reserve("one-more", queries(1), at_most(Unit::Queries, 100)).await?;
    same("one more", more, full)
}

fn left_of(answer: &Answer) -> Option<i64> {
    if let Answer::Reserved { left, .. } = answer { left.of(Unit::Queries) } else { None }
}

/// The same name from many tasks at once is one operation: reserved once, and settled once.
pub async fn one_name(place: &dyn Place) -> Verdict {
    let acme = Client::of(&place.open().await.map_err(said)?, "acme");
    let client = acme.clone();
    let reserved = at_once(50, move |_| {
        let client = client.clone();
        async move { client.reserve("q", queries(3), at_most(Unit::Queries, 4)).await }
    });
    for answer in reserved.await {
        granted("the same name", answer?)?;
    }
    acme.has("reserved once", Amounts::ZERO, queries(3)).await?;
    let client = acme.clone();
    let settled = at_once(50, move |_| {
        let client = client.clone();
        async move { client.settle("q", queries(2)).await }
    });
    for answer in settled.await {
        same("settled", answer?, posted(queries(2), Amounts::ZERO))?;
    }
    acme.has("counted once", queries(2), Amounts::ZERO).await?;
    same("lines", acme.store.lines(0, 10).await.map_err(said)?.len(), 1)?;
    // The answer to a reservation that was lost comes again after all.
    granted("the same name after all", acme.reserve("q", queries(3), at_most(Unit::Queries, 4)).await?)?;
    acme.has("nothing more", queries(2), Amounts::ZERO).await?;
    let other = acme.reserve("q", queries(1), at_most(Unit::Queries, 4)).await?;
    same("other amounts", refusal(other), Some(Refusal::OtherParameters))?;
    let foreign = Client { tenant: "other".into(), ..acme.clone() };
    for answer in [foreign.settle("q", queries(2)).await?, foreign.void("q").await?, foreign.expire("q").await?] {
        same("another tenant", refusal(answer), Some(Refusal::OtherParameters))?;
    }
    acme.has("still", queries(2), Amounts::ZERO).await
}

/// Amounts of several units are set aside all or none, and the refusal names the unit that leaves too little.
pub async fn all_or_nothing(place: &dyn Place) -> Verdict {
    let acme = Client::of(&place.open().await.map_err(said)?, "acme");
    let limits = at_most(Unit::Queries, 10).with(Unit::PromptTokens, 100).with(Unit::Bytes, 7);
    let asked = queries(1).with(Unit::PromptTokens, 101).with(Unit::CompletionTokens, 5);
    let answer = acme.reserve("a", asked, limits).await?;
    let wanted = Refusal::LimitReached { unit: Unit::PromptTokens, limit: 100, left: 100, asked: 101 };
    same("too many tokens", refusal(answer), Some(wanted))?;
    acme.has("nothing", Amounts::ZERO, Amounts::ZERO).await?;
    let all = queries(10).with(Unit::PromptTokens, 100).with(Unit::CompletionTokens, 5).with(Unit::Bytes, 7);
    granted("all that is left", acme.reserve("b", all, limits).await?)?;
    acme.has("all", Amounts::ZERO, all).await
}

/// What is refused changes nothing, and its name is free: it is granted once there is room.
pub async fn refused(place: &dyn Place) -> Verdict {
    let acme = Client::of(&place.open().await.map_err(said)?, "acme");
    let limits = at_most(Unit::Queries, 1);
    granted("the first", acme.reserve("first", queries(1), limits).await?)?;
    for _ in 0..3 {
        let answer = acme.reserve("second", queries(1), limits).await?;
        same("the second", refusal(answer).is_some(), true)?;
    }
    same("pending", acme.store.pending().await.map_err(said)?.len(), 1)?;
    for answer in [acme.checkpoint("second", queries(1)).await?, acme.expire("second").await?] {
        same("a name that was refused", refusal(answer), Some(Refusal::Unknown))?;
    }
    same("given back", acme.void("first").await?, Answer::Voided)?;
    granted("the second, with room", acme.reserve("second", queries(1), limits).await?)?;
    let unlimited = acme.reserve("third", queries(1), at_most(Unit::Queries, 0)).await?;
    let wanted = Refusal::LimitReached { unit: Unit::Queries, limit: 0, left: 0, asked: 1 };
    same("a limit that was lowered", refusal(unlimited), Some(wanted))?;
    acme.has("one", Amounts::ZERO, queries(1)).await
}

/// Each answer leaves after the commit: what was answered is there after a crash in the next moment.
pub async fn committed(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    let acme = Client::of(&store, "acme");
    for number in 1..=8 {
        let name = format!("q-{number}");
        granted("a question", acme.reserve(&name, queries(2), at_most(Unit::Queries, 100)).await?)?;
        let (_left, found) = after_a_crash(place).await?;
        found.has("reserved, after a crash", queries(number - 1), queries(2)).await?;
        match number % 4 {
            0 => same("voided", acme.void(&name).await?, Answer::Voided)?,
            _ => same("settled", acme.settle(&name, queries(1)).await?, posted(queries(1), Amounts::ZERO))?,
        }
        let (_left, found) = after_a_crash(place).await?;
        if number % 4 == 0 {
            same("again", found.void(&name).await?, Answer::Voided)?;
            // The sum of the questions goes on as if this one had been counted.
            acme.settle(&format!("more-{number}"), queries(1)).await?;
        } else {
            found.has("used, after a crash", queries(number), Amounts::ZERO).await?;
            let lines = found.store.lines(0, 100).await.map_err(said)?;
            same("its line", lines.last().map(|line| line.operation.clone()), Some(name))?;
        }
        reading::agree(&found.store, &["acme"]).await?;
    }
    Ok(())
}

/// The ledger that a crash in this moment leaves, and where it is kept.
async fn after_a_crash(place: &dyn Place) -> Result<(Box<dyn Place>, Client), String> {
    let left = place.left_by_a_crash().await;
    let client = Client::of(&left.open().await.map_err(said)?, "acme");
    Ok((left, client))
}

/// A ledger that is closed and opened again is the same. A command that was on its way is there as a whole or not at
/// all.
pub async fn reopened(place: &dyn Place) -> Verdict {
    for round in 1..=5 {
        let acme = Client::of(&place.open().await.map_err(said)?, "acme");
        acme.has("what was there", queries(round - 1), queries(round - 1)).await?;
        acme.settle(&format!("settled-{round}"), queries(1)).await?;
        acme.reserve(&format!("pending-{round}"), queries(1), at_most(Unit::Queries, 100)).await?;
    }
    let store = place.open().await.map_err(said)?;
    let acme = Client::of(&store, "acme");
    let on_their_way = (0..500).map(|number| {
        let client = acme.clone();
        tokio::spawn(async move { client.settle(&format!("late-{number}"), queries(1)).await })
    });
    let on_their_way: Vec<_> = on_their_way.collect();
    tokio::task::yield_now().await;
    for task in &on_their_way {
        task.abort();
    }
    join_all(on_their_way).await;
    drop((acme, store));
    let acme = Client::of(&place.open().await.map_err(said)?, "acme");
    let found = acme.usage().await?;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    same("nothing is written after the ledger is closed", acme.usage().await?, found)?;
    reading::agree(&acme.store, &["acme"]).await
}

/// The largest amounts are counted exactly, and one more is refused.
pub async fn largest(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    let all = reading::every_unit(LARGEST);
    for tenant in ["one", "two", "three"] {
        let client = Client::of(&store, tenant);
        let limits = at_most(Unit::Queries, LARGEST).with(Unit::Bytes, LARGEST);
        granted("the largest", client.reserve(&format!("{tenant}-1"), all, limits).await?)?;
        for unit in [Unit::Queries, Unit::Bytes] {
            let more = client.reserve(&format!("{tenant}-2"), Amounts::of(unit, 1), limits).await?;
            let wanted = Refusal::LimitReached { unit, limit: LARGEST, left: 0, asked: 1 };
            same("one more", refusal(more), Some(wanted))?;
        }
        let more = client.reserve(&format!("{tenant}-2"), Amounts::of(Unit::PromptTokens, LARGEST), limits).await?;
        same("without a limit", refusal(more), Some(Refusal::TooMuch(Unit::PromptTokens)))?;
        same("settled", client.settle(&format!("{tenant}-1"), all).await?, posted(all, Amounts::ZERO))?;
        let more = client.settle(&format!("{tenant}-3"), queries(1)).await?;
        same("served while it was away", refusal(more), Some(Refusal::TooMuch(Unit::Queries)))?;
        client.has("all", all, Amounts::ZERO).await?;
        same(
            "a new period",
            client.in_period(1).settle(&format!("{tenant}-4"), queries(1)).await?,
            posted(queries(1), Amounts::ZERO),
        )?;
    }
    reading::agree(&store, &["one", "two", "three"]).await
}

/// Names that a store could take for others, or for something else than names.
pub fn hostile() -> Vec<String> {
    let mut names: Vec<String> = [
        "acme",
        "ACME",
        "acme ",
        " acme",
        "acm",
        "acme%",
        "acm_",
        "acme*",
        "acme?",
        "'",
        "''",
        "\"",
        "`",
        "\\",
        "\\'",
        "'; DROP TABLE line; --",
        "' OR '1'='1",
        "$1",
        "?1",
        ":tenant",
        "{0}",
        "%s",
        "%00",
        "%27",
        "acme/..",
        "NULL",
        "null",
        "0",
        "-1",
        "1e3",
        "true",
        "é",
        "e\u{301}",
        "ß",
        "ss",
        "İ",
        "日本",
        "😀",
        "\u{202e}acme",
        "\t",
        "\n",
    ]
    .map(str::to_owned)
    .into();
    names.extend([127, 128].map(|length| "x".repeat(length)));
    names
}

/// No tenant sees or moves another one's numbers, and no name is anything but a name.
pub async fn isolated(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    let names = hostile();
    for (number, name) in (1..).zip(&names) {
        let client = Client::of(&store, name);
        same("a tenant that is not there", client.usage().await?, None)?;
        // The operation is named as the tenant.
        granted("a reservation", client.reserve(name, queries(number), at_most(Unit::Queries, 100)).await?)?;
        same("settled", client.settle(name, queries(number)).await?, posted(queries(number), Amounts::ZERO))?;
        granted("another", client.reserve(&format!("{name}#2"), queries(1), at_most(Unit::Queries, 100)).await?)?;
    }
    for (number, name) in (1..).zip(&names) {
        Client::of(&store, name).has(name, queries(number), queries(1)).await?;
    }
    let lines = store.lines(0, 1000).await.map_err(said)?;
    let found: Vec<_> = lines.into_iter().map(|line| (line.tenant, line.operation)).collect();
    same("names in lines", found, names.iter().map(|name| (name.clone(), name.clone())).collect())?;
    let mut pending: Vec<_> = store.pending().await.map_err(said)?.into_iter().map(|one| one.tenant).collect();
    pending.sort_unstable();
    let mut wanted = names.clone();
    wanted.sort_unstable();
    same("names of what is pending", pending, wanted)?;
    reading::agree(&store, &names.iter().map(String::as_str).collect::<Vec<_>>()).await
}
