//! What any events store must do, and the feed with it: on a file of `SQLite` and on `ClickHouse`'s engine by the same
//! contracts.

pub mod clickhouse;
mod contracts;
mod feeding;
mod program;
mod rebuilding;
mod retention;
mod seeded;
mod sqlite;
mod two_feeds;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use tenant_operator::api::Timestamp;
use tenant_operator::ledger::account::LineKind;
use tenant_operator::ledger::events::{EventsError, EventsStore, Feed};
use tenant_operator::ledger::store::{Store, StoredLine};
use tenant_operator::ledger::units::{Amounts, Unit};

use crate::conformance::{NOON, Verdict};

pub use feeding::{agree, stored};

/// Where one events store is.
#[async_trait]
pub trait Place: Send + Sync {
    /// The store that is here, as a process finds it that starts.
    fn open(&self) -> Arc<dyn EventsStore>;

    /// Does something to the store that only a person or another program does.
    async fn spoil(&self, how: Spoil);
}

/// What is done to a store behind its back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoil {
    /// A line of `acme` that no ledger has, with a query in the hour of [`NOON`].
    StrayLine,
    /// A later version wrote it.
    Newer,
    /// Something else is here. Only before the first call.
    SomethingElse,
}

type Contract = for<'a> fn(&'a dyn Place) -> BoxFuture<'a, Verdict>;

const CONTRACTS: [(&str, Contract); 13] = [
    ("repeated", |place| Box::pin(contracts::repeated(place))),
    ("sums", |place| Box::pin(contracts::sums(place))),
    ("pages", |place| Box::pin(contracts::pages(place))),
    ("names", |place| Box::pin(contracts::names(place))),
    ("foreign", |place| Box::pin(contracts::foreign(place))),
    ("generations", |place| Box::pin(contracts::generations(place))),
    ("newer", |place| Box::pin(contracts::newer(place))),
    ("something else", |place| Box::pin(contracts::something_else(place))),
    ("fed", |place| Box::pin(feeding::fed(place))),
    ("restored", |place| Box::pin(feeding::restored(place))),
    ("compared", |place| Box::pin(feeding::compared(place))),
    ("compared later", |place| Box::pin(feeding::compared_later(place))),
    ("compared under load", |place| Box::pin(feeding::compared_under_load(place))),
];

/// Judges the stores of fresh places. What breaks a contract, by its name.
async fn judge(places: impl Fn() -> Box<dyn Place>) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, contract) in CONTRACTS {
        if let Err(why) = contract(&*places()).await {
            broken.push(format!("{name}: {why}"));
        }
    }
    broken
}

/// Judges one place by one contract.
async fn broken_by(place: &dyn Place, name: &str) -> Verdict {
    let (_, contract) = CONTRACTS.into_iter().find(|(of, _)| *of == name).expect("a contract");
    contract(place).await
}

#[expect(clippy::needless_pass_by_value, reason = "the form that `map_err` takes")]
fn said(error: EventsError) -> String {
    error.to_string()
}

/// The id of the ledger of the contracts.
const OURS: &str = "ours";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second)
}

/// A line of a tenant, so many seconds after [`NOON`].
fn line(seq: i64, tenant: &str, after: i64, amounts: Amounts) -> StoredLine {
    let moment = NOON + after;
    StoredLine {
        seq,
        operation: format!("o-{seq}"),
        tenant: tenant.into(),
        period_start: at(NOON - 86_400),
        at: at(moment),
        hour: at(moment - moment.rem_euclid(3600)),
        kind: LineKind::Settled,
        amounts,
    }
}

/// So many queries, and twice as many tokens.
fn used(queries: i64) -> Amounts {
    Amounts::of(Unit::Queries, queries).with(Unit::PromptTokens, 2 * queries)
}

/// A feed from a ledger to a store.
async fn feed(ledger: &Arc<dyn Store>, events: Arc<dyn EventsStore>) -> Feed {
    Feed::by_own_clock(ledger.clone(), ledger.id().await.expect("an id"), events)
}

/// Feeds until the store has all, through failures that pass.
async fn feed_all(feed: &Feed) -> Verdict {
    let mut failures = 0;
    loop {
        match feed.round().await {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(_) if failures < 20 => {
                failures += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}
