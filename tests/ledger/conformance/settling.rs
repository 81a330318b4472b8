//! The contracts of an operation's end, of levels and of periods.

use tenant_operator::ledger::account::{LineKind, State};
use tenant_operator::ledger::decision::{Answer, Refusal};
use tenant_operator::ledger::units::{Amounts, Limits, Unit};

use super::{Client, DAY, Place, Verdict, at_most, granted, period, posted, queries, reading, refusal, said, same};

fn tokens(number: i64) -> Amounts {
    Amounts::of(Unit::PromptTokens, number)
}

/// The kinds and the amounts of all lines.
async fn lines(client: &Client) -> Result<Vec<(LineKind, Amounts)>, String> {
    let lines = client.store.lines(0, 1000).await.map_err(said)?;
    Ok(lines.into_iter().map(|line| (line.kind, line.amounts)).collect())
}

/// What was used is counted, at most what was reserved, and the rest is given back.
pub async fn settled(place: &dyn Place) -> Verdict {
    let acme = Client::of(&place.open().await.map_err(said)?, "acme");
    let limits = at_most(Unit::PromptTokens, 100);
    granted("a", acme.reserve("a", tokens(90).with(Unit::Queries, 1), limits).await?)?;
    let used = tokens(40).with(Unit::Queries, 1);
    same("less than was reserved", acme.settle("a", used).await?, posted(used, Amounts::ZERO))?;
    acme.has("less", used, Amounts::ZERO).await?;
    granted("b", acme.reserve("b", tokens(60), limits).await?)?;
    same("more than was reserved", acme.settle("b", tokens(75)).await?, posted(tokens(60), tokens(15)))?;
    acme.has("never more", used.plus(tokens(60)), Amounts::ZERO).await?;
    for _ in 0..2 {
        same("again", acme.settle("b", tokens(75)).await?, posted(tokens(60), tokens(15)))?;
        same("a void that is late", refusal(acme.void("b").await?), Some(Refusal::Ended(State::Settled)))?;
        same("an expiry that is late", refusal(acme.expire("b").await?), Some(Refusal::Ended(State::Settled)))?;
    }
    // It was served while the ledger was away: it counts, beyond the limit.
    same("unreserved", acme.settle("c", tokens(30)).await?, posted(tokens(30), Amounts::ZERO))?;
    same("unreserved, again", acme.settle("c", tokens(30)).await?, posted(tokens(30), Amounts::ZERO))?;
    granted("nothing", acme.reserve("d", queries(1), limits).await?)?;
    same("nothing was used", acme.settle("d", Amounts::ZERO).await?, posted(Amounts::ZERO, Amounts::ZERO))?;
    let wanted = vec![(LineKind::Settled, used), (LineKind::Settled, tokens(60)), (LineKind::Unreserved, tokens(30))];
    same("lines", lines(&acme).await?, wanted)?;
    acme.has("all", used.plus(tokens(90)), Amounts::ZERO).await
}

/// What was voided is not counted, and a reservation that comes after its void sets nothing aside.
pub async fn voided(place: &dyn Place) -> Verdict {
    let acme = Client::of(&place.open().await.map_err(said)?, "acme");
    let limits = at_most(Unit::Queries, 1);
    for name in ["a", "b"] {
        granted(name, acme.reserve(name, queries(1), limits).await?)?;
        for _ in 0..2 {
            same("voided", acme.void(name).await?, Answer::Voided)?;
        }
    }
    same("void first", acme.void("c").await?, Answer::Voided)?;
    for name in ["a", "c"] {
        let late = acme.reserve(name, queries(1), limits).await?;
        same("reserved after the void", refusal(late), Some(Refusal::Ended(State::Voided)))?;
        let late = acme.settle(name, queries(1)).await?;
        same("settled after the void", refusal(late), Some(Refusal::Ended(State::Voided)))?;
    }
    same("lines", lines(&acme).await?, Vec::new())?;
    same("pending", acme.store.pending().await.map_err(said)?.len(), 0)?;
    acme.has("nothing", Amounts::ZERO, Amounts::ZERO).await
}

/// What expires counts its largest checkpoint. A settlement that comes later adds what is missing, once.
pub async fn expired(place: &dyn Place) -> Verdict {
    let acme = Client::of(&place.open().await.map_err(said)?, "acme");
    let limits = at_most(Unit::PromptTokens, 100);
    for name in ["silent", "heard", "late"] {
        granted(name, acme.reserve(name, tokens(30), limits).await?)?;
    }
    for (name, amount) in [("heard", 10), ("heard", 25), ("heard", 20), ("late", 99), ("late", 5)] {
        same("checkpoint", acme.checkpoint(name, tokens(amount)).await?, Answer::Checkpointed)?;
    }
    acme.has("checkpoints count nothing yet", Amounts::ZERO, tokens(90)).await?;
    for name in ["silent", "heard"] {
        same("expired", acme.expire(name).await?, Answer::Expired)?;
        same("again", refusal(acme.expire(name).await?), Some(Refusal::Ended(State::Expired)))?;
        let checkpoint = acme.checkpoint(name, tokens(30)).await?;
        same("a checkpoint that is late", refusal(checkpoint), Some(Refusal::Ended(State::Expired)))?;
    }
    acme.has("the largest checkpoint", tokens(25), tokens(30)).await?;
    for _ in 0..2 {
        same("settled late", acme.settle("heard", tokens(28)).await?, posted(tokens(28), Amounts::ZERO))?;
        same("settled late", acme.settle("silent", tokens(40)).await?, posted(tokens(30), tokens(10)))?;
    }
    same("expired with all of it", acme.expire("late").await?, Answer::Expired)?;
    same("settled with less", acme.settle("late", tokens(1)).await?, posted(tokens(30), Amounts::ZERO))?;
    let wanted = vec![
        (LineKind::Expired, tokens(25)),
        (LineKind::Late, tokens(3)),
        (LineKind::Late, tokens(30)),
        (LineKind::Expired, tokens(30)),
    ];
    same("lines", lines(&acme).await?, wanted)?;
    acme.has("all", tokens(88), Amounts::ZERO).await?;
    granted("idle", acme.reserve("idle", tokens(5), limits).await?)?;
    same("expired with nothing", acme.expire("idle").await?, Answer::Expired)?;
    for _ in 0..2 {
        same("voided late", acme.void("idle").await?, Answer::Voided)?;
    }
    let late = acme.settle("idle", tokens(5)).await?;
    same("settled after the void", refusal(late), Some(Refusal::Ended(State::Voided)))?;
    same("what counted", refusal(acme.void("late").await?), Some(Refusal::Ended(State::Settled)))?;
    acme.has("nothing more", tokens(88), Amounts::ZERO).await?;
    reading::agree(&acme.store, &["acme"]).await
}

/// A level is what is stored at the moment: it goes on in a new period, shrinks when something is released, and never
/// below zero.
pub async fn levels(place: &dyn Place) -> Verdict {
    let acme = Client::of(&place.open().await.map_err(said)?, "acme");
    let documents = |number| Amounts::of(Unit::Documents, number).with(Unit::Bytes, number * 100);
    let limits = at_most(Unit::Documents, 5);
    granted("documents", acme.reserve("a", documents(3).with(Unit::Queries, 7), limits).await?)?;
    acme.settle("a", documents(3).with(Unit::Queries, 7)).await?;
    granted("on its way", acme.reserve("b", documents(1), limits).await?)?;

    let next = acme.in_period(1);
    let many = next.reserve("c", documents(2), limits).await?;
    let wanted = Refusal::LimitReached { unit: Unit::Documents, limit: 5, left: 1, asked: 2 };
    same("the level goes on", refusal(many), Some(wanted))?;
    granted("one", next.reserve("d", documents(1), limits).await?)?;
    next.has("flows begin at zero, levels do not", documents(3), documents(2)).await?;
    // It was reserved in the period before, and its level is that of now.
    next.settle("b", documents(1)).await?;
    next.has("settled", documents(4), documents(1)).await?;

    for _ in 0..2 {
        same("released", next.release("r", documents(2)).await?, Answer::Released)?;
        next.has("released once", documents(2), documents(1)).await?;
    }
    let other = next.release("r", documents(1)).await?;
    same("other amounts", refusal(other), Some(Refusal::OtherParameters))?;
    same("more than there is", next.release("s", documents(9)).await?, Answer::Released)?;
    next.has("never below zero", Amounts::ZERO, documents(1)).await?;
    same(
        "a name of a release",
        refusal(next.reserve("s", documents(9), limits).await?),
        Some(Refusal::OtherParameters),
    )?;
    next.settle("d", documents(1)).await?;
    let gone = |number| (LineKind::Released, Amounts::ZERO.minus(documents(number)));
    same("lines of releases", lines(&acme).await?[2..4].to_vec(), vec![gone(2), gone(2)])?;
    reading::agree(&acme.store, &["acme"]).await
}

/// A closed period never opens again for new operations, and what was reserved in it is counted in it.
pub async fn periods(place: &dyn Place) -> Verdict {
    let acme = Client::of(&place.open().await.map_err(said)?, "acme");
    let next = acme.in_period(1);
    let limits = at_most(Unit::Queries, 10);
    granted("before", acme.reserve("before", queries(4), limits).await?)?;
    granted("after", next.reserve("after", queries(10), limits).await?)?;
    next.has("a new period begins at zero", Amounts::ZERO, queries(10)).await?;
    // The clock of this client is behind.
    let behind = acme.reserve("behind", queries(1), limits).await?;
    let wanted = Refusal::LimitReached { unit: Unit::Queries, limit: 10, left: 0, asked: 1 };
    same("the later period is judged", refusal(behind), Some(wanted))?;
    granted("again", acme.reserve("before", queries(4), limits).await?)?;
    next.settle("before", queries(4)).await?;
    acme.settle("after", queries(9)).await?;
    // What was served while the ledger was away is counted in the period in which it was served.
    acme.settle("unreserved", queries(2)).await?;
    next.has("the later one", queries(9), Amounts::ZERO).await?;
    for number in 2..=5 {
        next.in_period(number).settle(&format!("q-{number}"), queries(number)).await?;
    }
    let found = acme.store.periods("acme", 36).await.map_err(said)?;
    let used: Vec<_> = found.iter().map(|(period, account)| (*period, account.used)).collect();
    let wanted = [5, 4, 3, 2]
        .into_iter()
        .map(|number| (period(number), queries(number)))
        .chain([(period(1), queries(9)), (period(0), queries(6))]);
    same("periods, the latest first", used, wanted.collect())?;
    let two = acme.store.periods("acme", 2).await.map_err(said)?;
    same("the latest two", two, found[..2].to_vec())?;
    same("none", acme.store.periods("other", 36).await.map_err(said)?, Vec::new())?;
    reading::agree(&acme.store, &["acme"]).await
}

/// Usage and the list of periods say the same of each period, whatever end a client gives it, and whichever command
/// begins it.
pub async fn one_period(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    let acme = Client::of(&store, "acme");
    acme.settle("a", queries(1)).await?;
    let mut other_end = acme.clone();
    other_end.period.end = other_end.period.end.plus(DAY);
    other_end.settle("b", queries(1)).await?;
    granted("c", other_end.reserve("c", queries(1), Limits::default()).await?)?;
    reading::agree(&store, &["acme"]).await?;
    same("the end of the period", acme.usage().await?.map(|(found, _)| found), Some(period(0)))?;
    acme.in_period(1).release("r", Amounts::of(Unit::Documents, 1)).await?;
    Client::of(&store, "new").release("n", Amounts::of(Unit::Documents, 1)).await?;
    reading::agree(&store, &["acme", "new"]).await
}
