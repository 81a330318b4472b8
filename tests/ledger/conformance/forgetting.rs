//! The contract of operations that are forgotten, and of ledgers of an earlier schema.

use std::sync::Arc;

use tenant_operator::ledger::account::{LineKind, State};
use tenant_operator::ledger::decision::{Answer, Refusal, forgotten_before};
use tenant_operator::ledger::store::{Store, StoredLine};
use tenant_operator::ledger::units::{Amounts, Limits, Unit};

use super::{Client, DAY, NOON, Place, Verdict, at, granted, period, posted, queries, reading, refusal, said, same};

/// What ended long ago is forgotten, a few at a time, those that ended first before the others. Lines and accounts
/// stay, what is pending stays, and what was forgotten is not counted again.
pub async fn forgotten(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    let acme = Client::of(&store, "acme");
    let on = |day: i64| Client { now: NOON + day * DAY, ..acme.clone() };
    let stored = queries(1).with(Unit::Documents, 2);
    for day in 0..4 {
        let client = on(day);
        client.settle(&format!("settled-{day}"), stored).await?;
        granted("pending", client.reserve(&format!("pending-{day}"), queries(1), Limits::default()).await?)?;
    }
    on(0).settle("more", queries(1)).await?;
    on(0).release("released", Amounts::of(Unit::Documents, 1)).await?;
    // It ends on the third day, whenever it was reserved.
    granted("late", on(0).reserve("late", queries(5), Limits::default()).await?)?;
    on(0).expire("late").await?;
    on(2).settle("late", queries(5)).await?;
    let lines = store.lines(0, 100).await.map_err(said)?;
    let account = acme.usage().await?;

    let forget = async |before: i64, most| store.forget(at(before), most).await.map_err(said);
    same("none is old", forget(NOON, 100).await?, 0)?;
    same("two at most", forget(NOON + 2 * DAY, 2).await?, 2)?;
    same("the others", forget(NOON + 2 * DAY, 100).await?, 2)?;
    same("no more", forget(NOON + 2 * DAY, 100).await?, 0)?;
    same("lines stay", store.lines(0, 100).await.map_err(said)?, lines.clone())?;
    same("accounts stay", acme.usage().await?, account)?;
    same("what is pending stays", store.pending().await.map_err(said)?.len(), 4)?;
    let again = on(3).settle("late", queries(5)).await?;
    same("what ended later is known", again, posted(queries(5), Amounts::ZERO))?;
    let earlier = on(3).checkpoint("more", queries(1)).await?;
    same("what ended earlier is not", refusal(earlier), Some(Refusal::Unknown))?;

    // What comes again after it was forgotten is refused, if it says when it happened.
    let late = Client { at: Some(NOON + DAY), now: NOON + 95 * DAY, ..acme.clone() };
    let (amounts, too_old) = (stored, Refusal::TooOld { at: at(NOON + DAY), days: 93 });
    same("settled again", refusal(late.settle("settled-1", amounts).await?), Some(too_old))?;
    same("released again", refusal(late.release("released", stored.only(true)).await?), Some(too_old))?;
    let known = Client { at: Some(NOON + 2 * DAY), ..late };
    same("one that is known", known.settle("settled-2", stored).await?, posted(stored, Amounts::ZERO))?;
    same("nothing more", store.lines(0, 100).await.map_err(said)?, lines)?;
    never_both(&acme, &store).await?;
    reading::agree(&store, &["acme"]).await
}

/// What was voided and what counted nothing is forgotten a day after it ended, so that no tenant fills the ledger with
/// it. All else is known for longer.
pub async fn soon(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    let acme = Client::of(&store, "acme");
    for name in ["voided", "nothing", "counted", "expired", "pending"] {
        granted(name, acme.reserve(name, queries(1), Limits::default()).await?)?;
    }
    acme.void("voided").await?;
    acme.void("overtaken").await?;
    acme.settle("nothing", Amounts::ZERO).await?;
    acme.settle("never reserved", Amounts::ZERO).await?;
    acme.settle("counted", queries(1)).await?;
    acme.release("released", Amounts::of(Unit::Documents, 1)).await?;
    acme.expire("expired").await?;
    let (account, lines) = (acme.usage().await?, store.lines(0, 100).await.map_err(said)?);

    let forget = async |now: i64| store.forget(forgotten_before(at(now)), 100).await.map_err(said);
    let day = NOON + DAY + 300;
    same("within a day", forget(day).await?, 0)?;
    let reserved = acme.reserve("overtaken", queries(1), Limits::default()).await?;
    same("it takes the name for a day", refusal(reserved), Some(Refusal::Ended(State::Voided)))?;
    same("after a day", forget(day + 1).await?, 4)?;
    same("nothing else", forget(NOON + 93 * DAY).await?, 0)?;
    same("accounts stay", acme.usage().await?, account)?;
    same("lines stay", store.lines(0, 100).await.map_err(said)?, lines.clone())?;
    same("what is pending stays", store.pending().await.map_err(said)?.len(), 1)?;

    let late = Client { at: Some(NOON), now: NOON + 2 * DAY, ..acme.clone() };
    same("nothing again", late.settle("nothing", Amounts::ZERO).await?, posted(Amounts::ZERO, Amounts::ZERO))?;
    same("it counts nothing", store.lines(0, 100).await.map_err(said)?.len(), lines.len())?;
    same("what expired is known", late.settle("expired", queries(1)).await?, posted(queries(1), Amounts::ZERO))?;
    // A client that settles what it voided is counted once.
    for _ in 0..2 {
        same("settled after all", late.settle("voided", queries(1)).await?, posted(queries(1), Amounts::ZERO))?;
    }
    acme.has("counted once each", queries(3), queries(1)).await?;
    reading::agree(&store, &["acme"]).await
}

/// Whatever the moment, what can be forgotten by then is refused by then, even if the client's clock was ahead when it
/// served.
async fn never_both(acme: &Client, store: &Arc<dyn Store>) -> Verdict {
    let ahead = Client { at: Some(NOON + 300), ..acme.clone() };
    same("a clock that is ahead", ahead.settle("ahead", queries(1)).await?, posted(queries(1), Amounts::ZERO))?;
    let too_far = Client { at: Some(NOON + 301), ..acme.clone() };
    let wanted = Refusal::Ahead { at: at(NOON + 301), now: at(NOON) };
    same("one that is too far ahead", refusal(too_far.settle("too-far", queries(1)).await?), Some(wanted))?;
    let lines = store.lines(0, 100).await.map_err(said)?.len();
    let day_93 = NOON + 93 * DAY;
    for now in [day_93, day_93 + 1, day_93 + 299, day_93 + 300, day_93 + 301, day_93 + 302, day_93 + DAY] {
        while store.forget(forgotten_before(at(now)), 100).await.map_err(said)? > 0 {}
        ahead_again(&Client { now, ..ahead.clone() }).await?;
        same("counted once", store.lines(0, 100).await.map_err(said)?.len(), lines)?;
    }
    let gone = Client { now: day_93 + DAY, at: None, ..ahead }.checkpoint("ahead", queries(1)).await?;
    same("it is forgotten at last", refusal(gone), Some(Refusal::Unknown))
}

async fn ahead_again(client: &Client) -> Verdict {
    match client.settle("ahead", queries(1)).await? {
        Answer::Settled { .. } | Answer::Refused(Refusal::TooOld { .. }) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// Schema 1 as the version that had it made it, with what it counted. `$` stands for whole numbers, `#` for a growing
/// one, and `!` for what follows the columns.
const SCHEMA_1: &str = "
    CREATE TABLE tenant (id TEXT PRIMARY KEY, period_start $, period_end $)!;
    CREATE TABLE account (tenant TEXT NOT NULL, period_start $, period_end $, @used_, @reserved_,
        PRIMARY KEY (tenant, period_start))!;
    CREATE TABLE operation (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, period_start $, period_end $, state TEXT NOT NULL,
        expires_after $, at $, @reserved_, @posted_)!;
    CREATE INDEX pending ON operation (id) WHERE state = 'pending';
    CREATE TABLE line (seq #, operation TEXT NOT NULL, tenant TEXT NOT NULL, period_start $, at $, kind TEXT NOT NULL, @);
    CREATE TABLE tenant_day (tenant TEXT NOT NULL, day $, @, PRIMARY KEY (tenant, day))!;
    INSERT INTO tenant VALUES ('acme', START, END), ('other', START, END);
    INSERT INTO account VALUES ('acme', START, END, 3,0,0,0,0,0,0, 1,0,0,0,0,0,0),
        ('acme', 0, 0, 0,0,0,0,0,2,70, 0,0,0,0,0,0,0), ('other', START, END, 5,0,0,0,0,0,0, 0,0,0,0,0,0,0);
    INSERT INTO operation VALUES ('a', 'acme', START, END, 'settled', 60, NOON, 4,0,0,0,0,2,70, 3,0,0,0,0,2,70),
        ('p', 'acme', START, END, 'pending', 60, NOON, 1,0,0,0,0,0,0, 0,0,0,0,0,0,0),
        ('v', 'acme', START, END, 'voided', 0, NOON, 0,0,0,0,0,0,0, 0,0,0,0,0,0,0),
        ('b', 'other', START, END, 'settled', 0, NOON + 500, 5,0,0,0,0,0,0, 5,0,0,0,0,0,0);
    INSERT INTO line (operation, tenant, period_start, at, kind, queries, prompt_tokens, completion_tokens, embedding_tokens,
        embedded_bytes, documents, bytes) VALUES ('a', 'acme', START, NOON + 600, 'settled', 3,0,0,0,0,2,70),
        ('b', 'other', START, NOON + 500, 'unreserved', 5,0,0,0,0,0,0);
    INSERT INTO tenant_day VALUES ('acme', TODAY, 3,0,0,0,0,2,70), ('other', TODAY, 5,0,0,0,0,0,0);";

fn columns(prefix: &str, integer: &str) -> String {
    let units = reading::every_unit(1).each().map(|(unit, _)| format!("{prefix}{unit} {integer} NOT NULL"));
    units.collect::<Vec<_>>().join(", ")
}

/// The columns of a table of days.
pub fn units(integer: &str) -> String {
    columns("", integer)
}

/// A ledger of schema 1, but for what the databases do not share.
pub fn schema_1(integer: &str, growing: &str, options: &str) -> String {
    let first = period(0);
    let mut sql = SCHEMA_1.replace('$', &format!("{integer} NOT NULL")).replace('#', growing).replace('!', options);
    for prefix in ["used_", "reserved_", "posted_", ""] {
        sql = sql.replace(&format!("@{prefix}"), &columns(prefix, integer));
    }
    for (name, number) in
        [("START", first.start.as_second()), ("END", first.end.as_second()), ("NOON", NOON), ("TODAY", NOON / DAY)]
    {
        sql = sql.replace(name, &number.to_string());
    }
    sql
}

/// What a ledger of schema 1 counted is there, and it forgets what ended, not before it is old by the latest that the
/// ledger knew.
pub async fn migrated(store: &Arc<dyn Store>) -> Verdict {
    reading::agree(store, &["acme", "other"]).await?;
    let acme = Client::of(store, "acme");
    acme.has("used", queries(3).with(Unit::Documents, 2).with(Unit::Bytes, 70), queries(1)).await?;
    let latest = NOON + 600;
    same("not yet", store.forget(at(latest), 100).await.map_err(said)?, 0)?;
    let again = acme.settle("a", queries(3)).await?;
    let posted_before = queries(3).with(Unit::Documents, 2).with(Unit::Bytes, 70);
    same("known", again, posted(posted_before, Amounts::ZERO))?;
    same("forgotten", store.forget(at(latest + 1), 100).await.map_err(said)?, 3)?;
    same("settled", acme.settle("p", queries(1)).await?, posted(queries(1), Amounts::ZERO))?;
    let lines = store.lines(0, 10).await.map_err(said)?;
    let kinds: Vec<_> = lines.iter().map(|StoredLine { kind, .. }| *kind).collect();
    same("lines", kinds, vec![LineKind::Settled, LineKind::Unreserved, LineKind::Settled])?;
    let gone = refusal(acme.void("p").await?);
    same("ended", gone, Some(Refusal::Ended(State::Settled)))?;
    reading::agree(store, &["acme", "other"]).await
}
