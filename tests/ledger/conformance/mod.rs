//! What any store of the ledger must do. A second store is judged by the same functions: add a [`Place`] for it, and a
//! test like [`the_ledger_in_sqlite_keeps_every_contract`].

mod answers;
mod counting;
mod events;
pub mod forgetting;
mod hours;
pub mod postgres;
pub mod reading;
mod seeded;
mod settling;
mod sqlite;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use tenant_operator::api::Timestamp;
use tenant_operator::ledger::account::{Account, Period};
use tenant_operator::ledger::decision::{Action, Answer, Command, Refusal};
use tenant_operator::ledger::store::{Store, StoreError};
use tenant_operator::ledger::units::{Amounts, Limits, Unit};

/// Where one ledger is kept: a folder, or a database.
#[async_trait]
pub trait Place: Send + Sync {
    /// Opens the ledger that is kept here, as a process does that starts. It closes when it is dropped.
    async fn open(&self) -> Result<Arc<dyn Store>, StoreError>;

    /// What would be there if the process that has it open died now, with what it holds in memory.
    async fn left_by_a_crash(&self) -> Box<dyn Place>;
}

/// Makes places without a ledger.
type Places<'a> = &'a (dyn Fn() -> Box<dyn Place> + Sync);

/// Whether a contract is kept, or what breaks it.
pub type Verdict = Result<(), String>;

type Contract = for<'a> fn(&'a dyn Place) -> BoxFuture<'a, Verdict>;

const CONTRACTS: [(&str, Contract); 31] = [
    ("limit", |place| Box::pin(counting::limit(place))),
    ("one name", |place| Box::pin(counting::one_name(place))),
    ("all or nothing", |place| Box::pin(counting::all_or_nothing(place))),
    ("refused", |place| Box::pin(counting::refused(place))),
    ("committed", |place| Box::pin(counting::committed(place))),
    ("reopened", |place| Box::pin(counting::reopened(place))),
    ("largest", |place| Box::pin(counting::largest(place))),
    ("isolated", |place| Box::pin(counting::isolated(place))),
    ("settled", |place| Box::pin(settling::settled(place))),
    ("voided", |place| Box::pin(settling::voided(place))),
    ("expired", |place| Box::pin(settling::expired(place))),
    ("levels", |place| Box::pin(settling::levels(place))),
    ("periods", |place| Box::pin(settling::periods(place))),
    ("one period", |place| Box::pin(settling::one_period(place))),
    ("forgotten", |place| Box::pin(forgetting::forgotten(place))),
    ("forgotten soon", |place| Box::pin(forgetting::soon(place))),
    ("events", |place| Box::pin(events::counted(place))),
    ("events of months", |place| Box::pin(events::months(place))),
    ("events at once", |place| Box::pin(events::at_once(place))),
    ("answers", |place| Box::pin(answers::kept(place))),
    ("answers of a tenant", |place| Box::pin(answers::bounded(place))),
    ("answers of all", |place| Box::pin(answers::bounded_in_all(place))),
    ("agree", |place| Box::pin(reading::all_agree(place))),
    ("days", |place| Box::pin(reading::days(place))),
    ("hours", |place| Box::pin(hours::closed(place))),
    ("hours of a move", |place| Box::pin(hours::moved(place))),
    ("pages of hours", |place| Box::pin(hours::pages(place))),
    ("hours while it counts", |place| Box::pin(hours::busy(place))),
    ("changed", |place| Box::pin(reading::changed(place))),
    ("pages", |place| Box::pin(reading::pages(place))),
    ("pending", |place| Box::pin(reading::pending(place))),
];

/// Judges the stores of fresh places by the contracts of these names. The names of those that are broken, the reasons
/// on stderr.
async fn judge(places: Places<'_>, wanted: impl Fn(&str) -> bool) -> BTreeSet<&'static str> {
    let mut broken = BTreeSet::new();
    for (name, contract) in CONTRACTS.into_iter().filter(|(name, _)| wanted(name)) {
        if let Err(why) = contract(&*places()).await {
            eprintln!("{name}: {why}");
            broken.insert(name);
        }
    }
    broken
}

/// Breaks a contract unless both are the same.
#[expect(clippy::needless_pass_by_value, reason = "callers give what they have just made")]
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Verdict {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found:?} instead of {wanted:?}")) }
}

#[expect(clippy::needless_pass_by_value, reason = "the form that `map_err` takes")]
pub fn said(error: StoreError) -> String {
    error.to_string()
}

/// Noon of 2027-01-15.
pub const NOON: i64 = 1_800_014_400;
pub const DAY: i64 = 24 * 3600;

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second)
}

/// A period of 30 days; the first one holds [`NOON`].
pub fn period(number: i64) -> Period {
    let start = NOON - 10 * DAY + number * 30 * DAY;
    Period { start: at(start), end: at(start + 30 * DAY) }
}

pub fn queries(number: i64) -> Amounts {
    Amounts::of(Unit::Queries, number)
}

pub fn at_most(unit: Unit, limit: i64) -> Limits {
    Limits::default().with(unit, limit)
}

/// A tenant at a store, and the moment.
#[derive(Clone)]
pub struct Client {
    pub store: Arc<dyn Store>,
    pub tenant: String,
    pub now: i64,
    pub period: Period,
    /// When what it says happened; None: now.
    pub at: Option<i64>,
}

impl Client {
    pub fn of(store: &Arc<dyn Store>, tenant: &str) -> Self {
        Self { store: store.clone(), tenant: tenant.to_owned(), now: NOON, period: period(0), at: None }
    }

    /// The same in another period, a day into it.
    pub fn in_period(&self, number: i64) -> Self {
        let period = period(number);
        Self { now: period.start.as_second() + DAY, period, ..self.clone() }
    }

    pub async fn apply(&self, operation: &str, action: Action) -> Result<Answer, String> {
        let command =
            Command { operation: operation.to_owned(), tenant: self.tenant.clone(), action, at: self.at.map(at) };
        self.store.apply(command, at(self.now)).await.map_err(said)
    }

    pub async fn reserve(&self, operation: &str, amounts: Amounts, limits: Limits) -> Result<Answer, String> {
        self.apply(operation, Action::Reserve { period: self.period, amounts, limits, expires_after: 60 }).await
    }

    pub async fn settle(&self, operation: &str, amounts: Amounts) -> Result<Answer, String> {
        self.apply(operation, Action::Settle { period: self.period, amounts }).await
    }

    pub async fn void(&self, operation: &str) -> Result<Answer, String> {
        self.apply(operation, Action::Void { period: self.period }).await
    }

    pub async fn checkpoint(&self, operation: &str, amounts: Amounts) -> Result<Answer, String> {
        self.apply(operation, Action::Checkpoint { amounts }).await
    }

    pub async fn expire(&self, operation: &str) -> Result<Answer, String> {
        self.apply(operation, Action::Expire).await
    }

    pub async fn release(&self, operation: &str, amounts: Amounts) -> Result<Answer, String> {
        self.apply(operation, Action::Release { period: self.period, amounts }).await
    }

    pub async fn usage(&self) -> Result<Option<(Period, Account)>, String> {
        self.store.usage(&self.tenant).await.map_err(said)
    }

    /// Breaks a contract unless so much is used and reserved.
    pub async fn has(&self, what: &str, used: Amounts, reserved: Amounts) -> Verdict {
        let account = self.usage().await?.map(|(_, account)| account).unwrap_or_default();
        same(what, account, Account { used, reserved })
    }
}

/// Breaks a contract unless amounts were set aside.
pub fn granted(what: &str, answer: Answer) -> Verdict {
    if matches!(answer, Answer::Reserved { .. }) { Ok(()) } else { Err(format!("{what} is not granted: {answer:?}")) }
}

fn refusal(answer: Answer) -> Option<Refusal> {
    if let Answer::Refused(refusal) = answer { Some(refusal) } else { None }
}

fn posted(posted: Amounts, excess: Amounts) -> Answer {
    Answer::Settled { posted, excess }
}
