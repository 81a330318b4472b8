//! What a customer saw: each call, when it began and ended, and what came of it; and what these calls prove about what
//! the ledger may have counted at any moment.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What a caller knows of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// The whole answer arrived: one query is counted.
    Answer,
    /// The plan leaves nothing: none is counted.
    Refusal,
    /// It was turned away for another reason before anything was done: none is counted.
    Nothing,
    /// No answer, or a part of one: a query may be counted, set aside, or neither.
    Unknown,
}

/// A call that may count one query.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub sent: Instant,
    pub done: Instant,
    pub came: Came,
}

/// A tenant with its limit of queries, and what its callers saw.
pub struct Customer {
    pub name: String,
    pub id: String,
    pub key: String,
    /// Stripe's id of it.
    pub stripe: String,
    pub limit: i64,
    pub calls: Mutex<Vec<Call>>,
    /// Idempotency keys with an answer that web keeps, and its body.
    pub kept: Mutex<Vec<(String, String)>>,
    /// Names under which a gateway had a query counted.
    pub consumed: Mutex<Vec<String>>,
    /// Embedded bytes that another service reported, each event once.
    pub reported: Mutex<i64>,
}

impl Customer {
    pub fn new(name: String, [id, key, stripe]: [String; 3], limit: i64) -> Self {
        Self {
            name,
            id,
            key,
            stripe,
            limit,
            calls: Mutex::default(),
            kept: Mutex::default(),
            consumed: Mutex::default(),
            reported: Mutex::default(),
        }
    }

    pub fn saw(&self, call: Call) {
        self.calls.lock().expect("not poisoned").push(call);
    }

    /// How many calls came to this.
    pub fn count(&self, came: Came) -> i64 {
        let calls = self.calls.lock().expect("not poisoned");
        i64::try_from(calls.iter().filter(|call| call.came == came).count()).expect("a few")
    }

    /// Calls that lasted so long that what they had set aside may have expired before they ended: each may count beyond
    /// the limit.
    pub fn late(&self, expiry: Duration) -> i64 {
        let calls = self.calls.lock().expect("not poisoned");
        let late = calls.iter().filter(|call| call.came != Came::Refusal && call.done - call.sent > expiry);
        i64::try_from(late.count()).expect("a few")
    }

    /// Refusals that nothing explains: when they were decided, less than the limit can have been used or set aside.
    ///
    /// What was used or set aside at a moment is at most the calls that were sent before it and were answered, or of
    /// which nothing is known: those that were killed, and those that the ledger could not count. A call that was
    /// refused or turned away sets nothing aside.
    pub fn unjust(&self) -> Vec<String> {
        let calls = self.calls.lock().expect("not poisoned");
        let mut taking: Vec<_> = calls
            .iter()
            .filter(|call| matches!(call.came, Came::Answer | Came::Unknown))
            .map(|call| call.sent)
            .collect();
        taking.sort_unstable();
        let refusals = calls.iter().filter(|call| call.came == Came::Refusal);
        let most = |refusal: &Call| i64::try_from(taking.partition_point(|sent| *sent < refusal.done)).expect("a few");
        refusals
            .filter(|refusal| most(refusal) < self.limit)
            .map(|refusal| {
                format!("{}: refused when at most {} of {} were taken", self.name, most(refusal), self.limit)
            })
            .collect()
    }
}
