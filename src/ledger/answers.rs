//! Answers that are kept for a day, so that a request with the same `Idempotency-Key` gets the same answer.
//!
//! A client begins a key before it serves the request, and finishes it with the answer. A key whose client died is free again after its
//! time. Keys are counted by tenant, and the oldest make room for new ones.

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

/// A key that a client begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Whose it is.
    pub tenant: String,
    /// The key.
    pub key: String,
    /// What tells one request from another one.
    pub request: String,
}

/// What is kept for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its request.
    pub request: String,
    /// When it is free again.
    pub until: Timestamp,
    /// The answer. None while the request is served.
    pub answer: Option<KeptAnswer>,
}

/// What a client that begins a key is told. If it is new, the client serves the request.
pub fn begin(kept: Option<Kept>, request: &str, now: Timestamp) -> AnswerState {
    match kept.filter(|kept| kept.until > now) {
        None => AnswerState::New,
        Some(kept) if kept.request != request => AnswerState::OtherRequest,
        Some(Kept { answer: Some(answer), .. }) => AnswerState::Done(answer),
        Some(_) => AnswerState::InProgress,
    }
}

/// Whether the answer of a key is kept: its client began it, and no other request took it.
pub fn may_finish(kept: Option<&Kept>, request: &str, now: Timestamp) -> bool {
    kept.is_some_and(|kept| kept.until > now && kept.request == request && kept.answer.is_none())
}

/// Of a tenant's keys, the newest first, with the bytes of their answers: the first one that is too much. It and those before it go.
pub fn too_many(keys: impl IntoIterator<Item = (i64, i64)>) -> Option<i64> {
    let (mut count, mut bytes) = (0, 0_i64);
    keys.into_iter().find_map(|(id, size)| {
        count += 1;
        bytes = bytes.saturating_add(size);
        (count > KEYS || bytes > BYTES).then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(answer: Option<KeptAnswer>) -> Option<Kept> {
        Some(Kept { request: "r".into(), until: Timestamp::from_second(100), answer })
    }

    #[test]
    fn a_key_is_new_in_progress_or_done_and_another_request_does_not_get_it() {
        let answer = KeptAnswer { status: 200, headers: vec![("a".into(), "b".into())], body: "e30=".into() };
        let told = |kept, request, now| begin(kept, request, Timestamp::from_second(now));
        assert_eq!(told(None, "r", 1), AnswerState::New);
        assert_eq!(told(kept(None), "r", 99), AnswerState::InProgress);
        assert_eq!(told(kept(None), "r", 100), AnswerState::New, "its client died");
        assert_eq!(told(kept(Some(answer.clone())), "r", 99), AnswerState::Done(answer.clone()));
        assert_eq!(told(kept(Some(answer.clone())), "r", 100), AnswerState::New, "it was kept for long enough");
        assert_eq!(told(kept(Some(answer)), "s", 99), AnswerState::OtherRequest);
        assert_eq!(told(kept(None), "s", 99), AnswerState::OtherRequest);
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
