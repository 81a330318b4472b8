//! The contracts of answers that are kept for idempotency keys.

use std::sync::Arc;

use futures::future::join_all;
use tenant_operator::ledger::answers::{KEYS, Key, ROW};
use tenant_operator::ledger::store::Store;
use tenant_operator::ledger::wire::{AnswerState, KeptAnswer};

use super::{NOON, Place, Verdict, at, said, same};

/// An answer of so many bytes.
fn answer(length: usize) -> KeptAnswer {
    let headers = vec![("content-type".into(), "application/json".into()), ("set-cookie".into(), "a=\"é\"".into())];
    KeptAnswer { status: 201, headers, body: "a".repeat(length) }
}

fn key(tenant: &str, key: &str, request: &str) -> Key {
    let [tenant, key, request, attempt] = [tenant, key, request, "1"].map(str::to_owned);
    Key { tenant, key, request, attempt }
}

/// The same, by another attempt.
fn by(attempt: usize, key: Key) -> Key {
    Key { attempt: attempt.to_string(), ..key }
}

/// Begins a key for a minute.
async fn begin(store: &Arc<dyn Store>, key: Key, now: i64) -> Result<AnswerState, String> {
    store.answers().begin(key, at(now + 60), at(now)).await.map_err(said)
}

async fn finish(store: &Arc<dyn Store>, key: Key, answer: Option<KeptAnswer>, now: i64) -> Result<bool, String> {
    finish_within(i64::MAX, store, key, answer, now).await
}

async fn finish_within(
    most: i64,
    store: &Arc<dyn Store>,
    key: Key,
    answer: Option<KeptAnswer>,
    now: i64,
) -> Result<bool, String> {
    store.answers().finish(key, answer, most, at(now)).await.map_err(said)
}

/// The first that begins a key serves it, the others wait for its answer, and it is kept for a day.
pub async fn kept(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    let begun = (0..20).map(|attempt| {
        let store = store.clone();
        tokio::spawn(async move { begin(&store, by(attempt, key("acme", "k", "r")), NOON).await })
    });
    let mut states = Vec::new();
    for done in join_all(begun.collect::<Vec<_>>()).await {
        states.push(done.map_err(|error| error.to_string())??);
    }
    same("one is new", states.iter().filter(|state| **state == AnswerState::New).count(), 1)?;
    same("others wait", states.iter().filter(|state| **state == AnswerState::InProgress).count(), 19)?;
    let first = states.iter().position(|state| *state == AnswerState::New).unwrap_or_default();
    let first = || by(first, key("acme", "k", "r"));
    same("its answer was lost", begin(&store, first(), NOON).await?, AnswerState::New)?;
    same("another tenant", begin(&store, key("other", "k", "s"), NOON).await?, AnswerState::New)?;
    same("another request", begin(&store, key("acme", "k", "s"), NOON).await?, AnswerState::OtherRequest)?;
    for other in [key("acme", "k", "s"), by(99, first())] {
        same("not by it", finish(&store, other, Some(answer(5)), NOON).await?, false)?;
    }
    for length in [5, 6] {
        same("finished, once", finish(&store, first(), Some(answer(length)), NOON + 1).await?, true)?;
    }
    let (done, left) = (AnswerState::Done(answer(5)), place.left_by_a_crash().await);
    let found = left.open().await.map_err(said)?;
    same("after a crash", begin(&found, key("acme", "k", "r"), NOON + 70).await?, done.clone())?;
    drop(found);
    let day = NOON + 1 + 24 * 3600;
    same("for a day", begin(&store, key("acme", "k", "r"), day - 1).await?, done)?;
    same("not longer", begin(&store, key("acme", "k", "s"), day).await?, AnswerState::New)?;

    // Its client died.
    same("it died", begin(&store, key("acme", "dead", "r"), NOON).await?, AnswerState::New)?;
    let other = by(2, key("acme", "dead", "r"));
    same("it has a minute", begin(&store, other, NOON + 59).await?, AnswerState::InProgress)?;
    same("free", begin(&store, key("acme", "dead", "s"), NOON + 60).await?, AnswerState::New)?;
    same("too late", finish(&store, key("acme", "dead", "r"), Some(answer(1)), NOON + 61).await?, false)?;
    // There is nothing to keep.
    same("freed", finish(&store, key("acme", "dead", "s"), None, NOON + 61).await?, false)?;
    same("new again", begin(&store, key("acme", "dead", "r"), NOON + 62).await?, AnswerState::New)
}

/// The oldest keys of a tenant make room, those that are over are swept, and all of a tenant's are erased.
pub async fn bounded(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    begin(&store, key("other", "0", "r"), NOON).await?;
    for number in 0..=KEYS {
        begin(&store, key("acme", &number.to_string(), "r"), NOON).await?;
    }
    same("the second", begin(&store, by(2, key("acme", "1", "r")), NOON).await?, AnswerState::InProgress)?;
    same("the oldest is gone", begin(&store, key("acme", "0", "s"), NOON).await?, AnswerState::New)?;
    same("of others", begin(&store, by(2, key("other", "0", "r")), NOON).await?, AnswerState::InProgress)?;
    // The bytes of the answers: 200 of 256 KiB are 50 MiB.
    for number in 500..702 {
        let key = key("acme", &number.to_string(), "r");
        same("kept", finish(&store, key, Some(answer(256 << 10)), NOON).await?, true)?;
    }
    let state = begin(&store, key("acme", "701", "r"), NOON).await?;
    same("the newest", matches!(state, AnswerState::Done(_)), true)?;
    same("made room", begin(&store, key("acme", "501", "s"), NOON).await?, AnswerState::New)?;

    let sweep = async |now: i64, most| store.answers().sweep(at(now), most).await.map_err(said);
    same("nothing is over", sweep(NOON + 59, 100).await?, 0)?;
    same("a few at a time", sweep(NOON + 60, 100).await?, 100)?;
    while sweep(NOON + 60, 1000).await? > 0 {}
    let state = begin(&store, key("acme", "701", "r"), NOON).await?;
    same("what is kept stays", matches!(state, AnswerState::Done(_)), true)?;
    begin(&store, key("other", "0", "r"), NOON).await?;
    same("erased", store.answers().erase("acme").await.map_err(said)? > 100, true)?;
    same("all", begin(&store, key("acme", "701", "s"), NOON).await?, AnswerState::New)?;
    same("of others", begin(&store, by(2, key("other", "0", "r")), NOON).await?, AnswerState::InProgress)
}

/// All tenants together have a bound: their oldest answers make room, and a request that is being served keeps its key.
pub async fn bounded_in_all(place: &dyn Place) -> Verdict {
    let store = place.open().await.map_err(said)?;
    let bytes = async |store: &Arc<dyn Store>| store.answers().bytes().await.map_err(said);
    let one = ROW + answer(1000).size();
    let most = ROW + 10 * one;
    same("nothing", bytes(&store).await?, 0)?;
    begin(&store, key("waits", "0", "r"), NOON).await?;
    same("a key", bytes(&store).await?, ROW)?;
    let tenants = ["a", "b", "c", "d"];
    for number in 0..3 {
        for tenant in tenants {
            let key = key(tenant, &number.to_string(), "r");
            begin(&store, key.clone(), NOON).await?;
            same("kept", finish_within(most, &store, key, Some(answer(1000)), NOON).await?, true)?;
        }
    }
    same("full", bytes(&store).await?, most)?;
    let is_there = async |tenant: &str, number: i64| {
        let state = begin(&store, key(tenant, &number.to_string(), "another"), NOON).await?;
        Ok::<_, String>(state == AnswerState::OtherRequest)
    };
    same("the one that waits", is_there("waits", 0).await?, true)?;
    for (at, tenant) in tenants.into_iter().enumerate() {
        same("the oldest", is_there(tenant, 0).await?, at > 1)?;
        same("the newest", is_there(tenant, 2).await?, true)?;
    }
    // Two keys were begun anew, one of them a second time, and one is given back.
    begin(&store, key("a", "0", "third"), NOON + 61).await?;
    same("not twice", bytes(&store).await?, most + 2 * ROW)?;
    finish(&store, by(1, key("a", "0", "third")), None, NOON + 62).await?;
    same("given back", bytes(&store).await?, most + ROW)?;
    let found = place.left_by_a_crash().await.open().await.map_err(said)?;
    same("after a crash", bytes(&found).await?, most + ROW)?;
    drop(found);
    // A bound that is lowered, and many at once.
    let many = (0..20).map(|number| {
        let (store, key) = (store.clone(), key("e", &number.to_string(), "r"));
        tokio::spawn(async move {
            begin(&store, key.clone(), NOON).await?;
            finish_within(5 * one, &store, key, Some(answer(1000)), NOON).await
        })
    });
    for done in join_all(many.collect::<Vec<_>>()).await {
        same("kept at once", done.map_err(|error| error.to_string())??, true)?;
    }
    begin(&store, key("f", "0", "r"), NOON).await?;
    finish_within(5 * one, &store, key("f", "0", "r"), Some(answer(1000)), NOON).await?;
    same("within the bound", bytes(&store).await? <= 5 * one, true)?;
    same("all of them are over", store.answers().sweep(at(NOON + 2 * 24 * 3600), 1000).await.map_err(said)? > 0, true)?;
    same("nothing is left", bytes(&store).await?, 0)?;
    begin(&store, key("g", "0", "r"), NOON).await?;
    store.answers().erase("g").await.map_err(said)?;
    same("erased", bytes(&store).await?, 0)
}
