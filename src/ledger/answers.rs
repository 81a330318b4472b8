//! Answers that are kept for a day, so that a request with the same `Idempotency-Key` gets the same answer.
//!
//! A client begins a key before it serves the request, and finishes it with the answer. A key whose client died is free
//! again after its time. Keys are counted by tenant, and the oldest make room for new ones. All tenants together have a
//! bound as well, so that answers never fill the ledger's volume: there too, the oldest answers make room.

use super::wire::{AnswerState, KeptAnswer};
use crate::api::Timestamp;

/// Seconds for which an answer is kept.
pub const KEPT: i64 = 24 * 3600;
/// Keys of a tenant.
pub const KEYS: usize = 1000;
/// Bytes of the answers of a tenant.
pub const BYTES: i64 = 50 << 20;
/// The longest body that is kept, in bytes.
pub const LARGEST: usize = 256 << 10;
/// Bytes that a key takes beside its answer: names, hashes and places in indexes.
pub const ROW: i64 = 512;
/// Answers that make room for one. If they are not enough, the next answer goes on.
pub const ROOM: i64 = 1000;

/// A key that a client begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Whose it is.
    pub tenant: String,
    /// The key.
    pub key: String,
    /// What tells one request from another one.
    pub request: String,
    /// What tells one attempt at the request from another one: a client that repeats a call for a lost answer gets the
    /// same answer.
    pub attempt: String,
}

/// What is kept for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its request.
    pub request: String,
    /// The attempt that began it.
    pub attempt: String,
    /// When it is free again.
    pub until: Timestamp,
    /// The answer. None while the request is served.
    pub answer: Option<KeptAnswer>,
}

/// The ledger's answer to a client that begins a key. If the key is new, the client serves the request.
pub fn begin(kept: Option<Kept>, key: &Key, now: Timestamp) -> AnswerState {
    match kept.filter(|kept| kept.until > now) {
        None => AnswerState::New,
        Some(kept) if kept.request != key.request => AnswerState::OtherRequest,
        Some(Kept { answer: Some(answer), .. }) => AnswerState::Done(answer),
        Some(kept) if kept.attempt == key.attempt => AnswerState::New,
        Some(_) => AnswerState::InProgress,
    }
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It is kept now.
    Keep,
    /// It was kept before.
    KeptBefore,
    /// The key belongs to another attempt by now, or is free.
    NotTheirs,
}

/// What becomes of the answer that a client has for a key.
pub fn finish(kept: Option<Kept>, key: &Key, now: Timestamp) -> Finish {
    match kept.filter(|kept| kept.until > now && kept.request == key.request && kept.attempt == key.attempt) {
        None => Finish::NotTheirs,
        Some(Kept { answer: Some(_), .. }) => Finish::KeptBefore,
        Some(_) => Finish::Keep,
    }
}

/// Of a tenant's keys, the newest first, with the bytes of their answers: the first one that is too much. It and those
/// before it go.
pub fn too_many(keys: impl IntoIterator<Item = (i64, i64)>) -> Option<i64> {
    let (mut count, mut bytes) = (0, 0_i64);
    keys.into_iter().find_map(|(id, size)| {
        count += 1;
        bytes = bytes.saturating_add(size);
        (count > KEYS || bytes > BYTES).then_some(id)
    })
}

/// Of all answers, the oldest first, with the bytes that each takes beside its key: those that make room for so many
/// bytes.
pub fn make_room(oldest: impl IntoIterator<Item = (i64, i64)>, mut bytes: i64) -> Vec<i64> {
    let needed = oldest.into_iter().take_while(|(_, size)| {
        let needs = bytes > 0;
        bytes = bytes.saturating_sub(size.saturating_add(ROW));
        needs
    });
    needed.map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(request: &str, attempt: &str) -> Key {
        let [tenant, key, request, attempt] = ["acme", "k", request, attempt].map(str::to_owned);
        Key { tenant, key, request, attempt }
    }

    fn kept(answer: Option<&KeptAnswer>) -> Kept {
        let Key { request, attempt, .. } = key("r", "1");
        Kept { request, attempt, until: Timestamp::from_second(100), answer: answer.cloned() }
    }

    fn answer() -> KeptAnswer {
        KeptAnswer { status: 200, headers: vec![("a".into(), "b".into())], body: "e30=".into() }
    }

    #[test]
    fn a_key_is_new_in_progress_or_done_and_another_request_does_not_get_it() {
        let told = |kept, request, now| begin(kept, &key(request, "2"), Timestamp::from_second(now));
        assert_eq!(told(None, "r", 1), AnswerState::New);
        assert_eq!(told(Some(kept(None)), "r", 99), AnswerState::InProgress);
        assert_eq!(told(Some(kept(None)), "r", 100), AnswerState::New, "its client died");
        assert_eq!(told(Some(kept(Some(&answer()))), "r", 99), AnswerState::Done(answer()));
        assert_eq!(told(Some(kept(Some(&answer()))), "r", 100), AnswerState::New, "it was kept for long enough");
        assert_eq!(told(Some(kept(Some(&answer()))), "s", 99), AnswerState::OtherRequest);
        assert_eq!(told(Some(kept(None)), "s", 99), AnswerState::OtherRequest);
        let again = begin(Some(kept(None)), &key("r", "1"), Timestamp::from_second(99));
        assert_eq!(again, AnswerState::New, "the answer to the same attempt was lost");
    }

    #[test]
    fn only_the_attempt_that_began_a_key_finishes_it() {
        let told = |kept, key, now| finish(kept, &key, Timestamp::from_second(now));
        assert_eq!(told(Some(kept(None)), key("r", "1"), 99), Finish::Keep);
        assert_eq!(told(Some(kept(Some(&answer()))), key("r", "1"), 99), Finish::KeptBefore);
        for (kept, key, now) in [
            (None, key("r", "1"), 99),
            (Some(kept(None)), key("s", "1"), 99),
            (Some(kept(None)), key("r", "2"), 99),
            (Some(kept(None)), key("r", "1"), 100),
        ] {
            assert_eq!(told(kept, key, now), Finish::NotTheirs);
        }
    }

    #[test]
    fn no_more_answers_go_than_others_need_room() {
        let oldest = || [(3, 100), (5, 0), (8, 1 << 20)];
        assert!(make_room(oldest(), 0).is_empty() && make_room(oldest(), -1).is_empty());
        assert_eq!(make_room(oldest(), 100 + ROW), [3]);
        assert_eq!(make_room(oldest(), 101 + ROW), [3, 5]);
        assert_eq!(make_room(oldest(), i64::MAX), [3, 5, 8]);
    }

    #[test]
    fn the_oldest_keys_make_room() {
        let newest_first = |count: i64, size| (0..count).rev().map(move |id| (id, size));
        assert_eq!(too_many(newest_first(1000, 1)), None);
        assert_eq!(too_many(newest_first(1001, 1)), Some(0));
        assert_eq!(too_many(newest_first(50, 1 << 20)), None);
        assert_eq!(too_many(newest_first(53, 1 << 20)), Some(2));
    }
}
