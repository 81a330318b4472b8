//! Events stores with a seeded fault: each breaks the contract that is about it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tenant_operator::api::Timestamp;
use tenant_operator::ledger::events::{Asked, Batch, EventsError, EventsStore, Mark, Page, Position, Span, Sum};
use tenant_operator::ledger::store::StoredLine;
use tenant_operator::ledger::units::Unit;

use super::sqlite::File;
use super::{Place, Spoil, broken_by};

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seeded {
    /// A batch that is there already is appended again.
    DoublesARepetition,
    /// A line of a batch is lost.
    LosesALine,
    /// Hours are those of the moment, whatever a line says.
    HoursOfMoments,
    /// The end of a span is part of it.
    IncludesTheEnd,
    /// A page begins with the line before it.
    RepeatsALine,
    /// `ACME` is `acme`.
    FoldsNames,
    /// Every ledger is the owner.
    AnyOwner,
    /// A batch is taken for the generation that is current.
    AnyGeneration,
    /// Levels are not summed.
    LosesLevels,
    /// It does not know what its last line was.
    ForgetsTheMark,
}

use Seeded::{
    AnyGeneration, AnyOwner, DoublesARepetition, FoldsNames, ForgetsTheMark, HoursOfMoments, IncludesTheEnd,
    LosesALine, LosesLevels, RepeatsALine,
};

/// Each fault, and the contract that is broken by it.
const CAUGHT: [(Seeded, &str); 11] = [
    (DoublesARepetition, "repeated"),
    (LosesALine, "repeated"),
    (LosesALine, "fed"),
    (HoursOfMoments, "compared"),
    (LosesLevels, "sums"),
    (IncludesTheEnd, "pages"),
    (RepeatsALine, "pages"),
    (FoldsNames, "names"),
    (AnyOwner, "foreign"),
    (AnyGeneration, "generations"),
    (ForgetsTheMark, "restored"),
];

/// A real store with a fault.
#[derive(Debug)]
struct Faulty {
    store: Arc<dyn EventsStore>,
    has: Seeded,
}

impl Faulty {
    fn owner<'a>(&self, ledger: &'a str) -> &'a str {
        if self.has == AnyOwner { "anyone" } else { ledger }
    }

    fn tenant(&self, tenant: &str) -> String {
        if self.has == FoldsNames { tenant.to_lowercase() } else { tenant.to_owned() }
    }
}

#[async_trait]
impl EventsStore for Faulty {
    fn kind(&self) -> &'static str {
        self.store.kind()
    }

    async fn position(&self, ledger: &str) -> Result<Position, EventsError> {
        let mut position = self.store.position(self.owner(ledger)).await?;
        if self.has == ForgetsTheMark && position.mark.seq > 0 {
            // It goes on after its number, whichever line that is.
            position.mark = Mark::default();
        }
        Ok(position)
    }

    async fn append(&self, ledger: &str, batch: &Batch) -> Result<(), EventsError> {
        let ledger = self.owner(ledger);
        let mut batch = batch.clone();
        let position = self.store.position(ledger).await?;
        match self.has {
            DoublesARepetition if position.mark == batch.last() => {
                batch.after = position.mark;
                batch.lines.iter_mut().for_each(|line| line.seq += 1000);
            }
            LosesALine => {
                let at = batch.lines.len().saturating_sub(2);
                if batch.lines.len() > 1 {
                    batch.lines.remove(at);
                }
            }
            HoursOfMoments => {
                batch.lines.iter_mut().for_each(|line| line.hour = line.at.hour());
            }
            FoldsNames => batch.lines.iter_mut().for_each(|line| line.tenant = line.tenant.to_lowercase()),
            AnyGeneration => (batch.generation, batch.after) = (position.generation, position.mark),
            LosesLevels => batch.lines.iter_mut().for_each(|line| line.amounts[Unit::Bytes] = 0),
            ForgetsTheMark => batch.after = position.mark,
            _ => {}
        }
        self.store.append(ledger, &batch).await
    }

    async fn wipe(&self, ledger: &str, take_over: bool) -> Result<i64, EventsError> {
        self.store.wipe(self.owner(ledger), take_over).await
    }

    async fn sums(&self, ledger: &str, asked: Asked<'_>, span: Span) -> Result<Vec<Sum>, EventsError> {
        self.store.sums(self.owner(ledger), asked, span).await
    }

    async fn lines(&self, ledger: &str, tenant: &str, span: Span, page: Page) -> Result<Vec<StoredLine>, EventsError> {
        let to = span.to.plus(i64::from(self.has == IncludesTheEnd));
        let after = page.after - i64::from(self.has == RepeatsALine && page.after > 0);
        let (span, page) = (Span { to, ..span }, Page { after, ..page });
        self.store.lines(self.owner(ledger), &self.tenant(tenant), span, page).await
    }

    async fn keep(&self, retention: Duration, now: Timestamp) -> Result<(), EventsError> {
        self.store.keep(retention, now).await
    }
}

/// A place whose stores have a fault.
struct FaultyPlace(Box<dyn Place>, Seeded);

#[async_trait]
impl Place for FaultyPlace {
    fn open(&self) -> Arc<dyn EventsStore> {
        Arc::new(Faulty { store: self.0.open(), has: self.1 })
    }

    async fn spoil(&self, how: Spoil) {
        self.0.spoil(how).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_events_store_with_a_seeded_fault_breaks_the_contract_that_is_about_it() {
    for (has, contract) in CAUGHT {
        let broken = broken_by(&FaultyPlace(File::place(), has), contract).await;
        assert!(broken.is_err(), "{has:?} is not caught by {contract}");
    }
}
