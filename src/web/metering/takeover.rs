//! What versions before the ledger have counted. They kept it in an annotation of the Tenant, and go on to do so while
//! a rollout replaces them one by one.
//!
//! Before web counts for a tenant, it sends the ledger what the ledger lacks of the annotation. Web first writes a second
//! annotation that says what the ledger will have, and then sends the difference under a name that follows from the
//! second annotation alone. The ledger therefore counts the difference once, whichever replica sends it,
//! and wherever a replica breaks off.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::{Api, ResourceExt};
use serde_json::json;

use super::Metering;
use super::account::Account;
use super::counted;
use crate::api::usage::Quota;
use crate::api::{TAKEN_OVER_ANNOTATION, TakenOver, Tenant, Timestamp, Unit, Usage};
use crate::ledger::account::Period;
use crate::ledger::client::CallError;
use crate::ledger::units::{Amounts, LARGEST};
use crate::ledger::wire::{Counted, SomePeriod};
use crate::web::serving::directory::Served;
use crate::web::serving::optimistic::patch;
use crate::web::serving::problem::Problem;
use crate::web::serving::turns::Turns;

/// Writes that are tried while others write the same object.
const TRIES: u32 = 12;
const MANAGER: &str = "tenant-operator-usage";

/// What this replica has taken over.
#[derive(Default)]
pub struct TakeOvers {
    /// The marks that it wrote or read last, by the objects' uids: its watch may not show them yet.
    marks: Mutex<HashMap<String, TakenOver>>,
    /// One request at a time takes over for a tenant.
    turns: Turns,
}

impl TakeOvers {
    fn covers(&self, tenant: &Served) -> bool {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.get(&tenant.uid).is_some_and(|mark| mark.covers(&tenant.counted_before))
    }

    fn remember(&self, uid: &str, mark: TakenOver) {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), mark);
    }
}

impl Metering {
    /// Tells the ledger what it lacks of a tenant's annotation. While the ledger is away, that waits.
    pub(super) async fn take_over(self: &Arc<Self>, tenant: &Served, account: &Account) -> Result<(), Problem> {
        let known = || tenant.taken_over.covers(&tenant.counted_before) || self.takeovers.covers(tenant);
        if known() || self.is_away() {
            return Ok(());
        }
        let _turn = self.takeovers.turns.take(&tenant.uid).await;
        if known() {
            return Ok(());
        }
        let api: Api<Tenant> = Api::namespaced(self.client.clone(), &tenant.namespace);
        for attempt in 0..TRIES {
            match self.step(&api, tenant, account).await {
                // While the ledger is away, it waits for the next request that finds the ledger.
                Ok(true) | Err(StepError::Ledger(CallError::Unavailable(_))) => return Ok(()),
                Ok(false) => {}
                Err(StepError::Ledger(error)) => return Err(Problem::internal("usage of a version before", &error)),
                Err(StepError::Kube(kube::Error::Api(error))) if is_passing(error.code) => {
                    tokio::time::sleep(wait_after(attempt)).await;
                }
                Err(StepError::Kube(error)) => return Err(error.into()),
            }
        }
        Err(Problem::unavailable())
    }

    /// One write of the mark, or the end: true.
    async fn step(self: &Arc<Self>, api: &Api<Tenant>, tenant: &Served, account: &Account) -> Result<bool, StepError> {
        let there = api.get_opt(&tenant.name).await?.filter(|there| there.uid().as_ref() == Some(&tenant.uid));
        // Without an object there is no annotation.
        let Some(object) = there else { return Ok(true) };
        let (mark, usage) = (TakenOver::of(&object), Usage::of(&object));
        if mark.covers(&usage) {
            self.takeovers.remember(&tenant.uid, mark);
            return Ok(true);
        }
        let next = if let Some(from) = mark.from {
            self.tell_difference(tenant, account, mark, from).await?;
            TakenOver { from: None, ..mark }
        } else {
            let (usage, nonce) = (mark.with(&usage), Some(rand::random()));
            TakenOver { usage, times: mark.times + 1, nonce, from: Some(mark.usage) }
        };
        let text = serde_json::to_string(&next).unwrap_or_default();
        patch(api, &object, MANAGER, json!({"metadata": {"annotations": {TAKEN_OVER_ANNOTATION: text}}})).await?;
        Ok(false)
    }

    async fn tell_difference(
        self: &Arc<Self>,
        tenant: &Served,
        account: &Account,
        mark: TakenOver,
        from: Usage,
    ) -> Result<(), StepError> {
        let (more, less) = difference(mark.usage, from);
        let period = period_of(mark.usage, account.period);
        let told = |amounts| Counted { period, ..counted(account, amounts) };
        let name = |kind: &str| mark.name(kind, &tenant.id, &tenant.uid);
        if !more.is_zero() {
            self.ask(self.ledger.settle(&name("before"), &told(more))).await?;
        }
        if !less.is_zero() {
            // Levels are not of a period, and an earlier one is closed.
            self.ask(self.ledger.release(&name("gone-before"), &counted(account, less))).await?;
        }
        tracing::info!(tenant = tenant.name, times = mark.times, "the ledger has what was counted before it");
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("Kubernetes: {0}")]
    Kube(#[from] kube::Error),
    #[error(transparent)]
    Ledger(#[from] CallError),
}

/// The period of the annotation, which has 30 days in those versions; the tenant's present one where the annotation
/// names none.
fn period_of(usage: Usage, present: SomePeriod) -> SomePeriod {
    let start = Timestamp::from_second(usage.period);
    if start == Period::from(present).start {
        return present;
    }
    Period { start, end: start.plus(Quota::PERIOD) }.try_into().unwrap_or(present)
}

/// What the ledger has to add, and what it has to take away from levels.
fn difference(to: Usage, from: Usage) -> (Amounts, Amounts) {
    // In a new period, flows begin at zero.
    let flows_from = if to.period == from.period { from } else { Usage::default() };
    let positive = |amount: i64| amount.clamp(0, LARGEST);
    let levels = |more: Usage, less: Usage| {
        Amounts::of(Unit::Documents, positive(more.documents - less.documents))
            .with(Unit::Bytes, positive(more.bytes - less.bytes))
    };
    let more = levels(to, from)
        .with(Unit::Queries, positive(to.queries - flows_from.queries))
        .with(Unit::EmbeddedBytes, positive(to.embedded - flows_from.embedded));
    (more, levels(from, to))
}

/// Whether the API server's answer passes: another writer changed the object, or it was deleted after it was read.
const fn is_passing(code: u16) -> bool {
    matches!(code, 404 | 405 | 409 | 429 | 503)
}

fn wait_after(attempt: u32) -> Duration {
    Duration::from_millis(rand::random_range(5..(20u64 << attempt.min(5))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: Usage = Usage { period: 7, queries: 50, earlier_queries: 9, documents: 5, bytes: 500, embedded: 80 };

    /// What the ledger is told when the annotation changes from one to the next, and the last mark.
    fn told(annotations: &[Usage]) -> (i64, i64, TakenOver) {
        let (mut queries, mut documents, mut mark) = (0, 0, TakenOver::default());
        for usage in annotations {
            if mark.covers(usage) {
                continue;
            }
            let (more, less) = difference(mark.with(usage), mark.usage);
            queries += more[Unit::Queries];
            documents += more[Unit::Documents] - less[Unit::Documents];
            mark = TakenOver { usage: mark.with(usage), times: mark.times + 1, ..TakenOver::default() };
        }
        (queries, documents, mark)
    }

    #[test]
    fn what_was_counted_before_is_told_once() {
        let (queries, documents, mark) = told(&[BEFORE, BEFORE]);
        assert_eq!((queries, documents, mark.times), (50, 5, 1));
        assert!(!TakenOver { from: Some(Usage::default()), ..mark }.covers(&BEFORE), "it is not told yet");
        assert!(TakenOver::default().covers(&Usage::default()), "a tenant that is new");
    }

    #[test]
    fn a_replica_of_the_version_before_goes_on_and_gives_back_what_it_did_not_use() {
        let more = Usage { queries: 60, documents: 4, bytes: 400, ..BEFORE };
        let given_back = Usage { queries: 43, ..more };
        let (queries, documents, mark) = told(&[BEFORE, more, given_back]);
        assert_eq!((queries, documents, mark.times), (60, 4, 2));
        assert_eq!(mark.given_back(&given_back, 7), 17);
        assert_eq!((mark.given_back(&given_back, 8), mark.given_back(&more, 7)), (0, 0));
        let again = Usage { queries: 58, ..given_back };
        assert_eq!(told(&[BEFORE, more, given_back, again]).0, 60, "it takes again what it gave back");
    }

    #[test]
    fn a_new_period_begins_at_zero_and_documents_stay() {
        let next = Usage { period: 8, queries: 3, embedded: 0, earlier_queries: 59, ..BEFORE };
        let (queries, documents, mark) = told(&[BEFORE, next]);
        assert_eq!((queries, documents, mark.usage.queries), (53, 5, 3));
    }

    #[test]
    fn the_mark_is_the_annotation_with_how_often_it_was_written() {
        let mark = TakenOver { usage: BEFORE, times: 2, nonce: Some(u64::MAX), from: Some(Usage::default()) };
        let text = serde_json::to_string(&mark).expect("JSON");
        assert_eq!(serde_json::from_str::<TakenOver>(&text).expect("a mark"), mark);
        assert_eq!(serde_json::from_str::<Usage>(&text).expect("an annotation"), BEFORE);
    }

    /// What the ledger counts of documents that are told under names: once under each.
    fn counted_once(told: &[(String, i64)]) -> i64 {
        let mut names = std::collections::HashSet::new();
        told.iter().filter(|(name, _)| names.insert(name)).map(|(_, documents)| documents).sum()
    }

    /// A mark as web writes it before it tells the ledger.
    fn next(mark: TakenOver, usage: &Usage) -> TakenOver {
        let times = mark.times + 1;
        TakenOver { usage: mark.with(usage), times, nonce: Some(rand::random()), from: Some(mark.usage) }
    }

    #[test]
    fn a_tenant_whose_object_was_lost_counts_what_is_imported_and_nothing_twice() {
        let with = |documents| Usage { documents, ..Usage::default() };
        let tell = |mark: TakenOver, uid: &str| {
            let (more, _) = difference(mark.usage, mark.from.expect("it is to be told"));
            (mark.name("before", "acme", uid), more[Unit::Documents])
        };
        let first = next(TakenOver::default(), &with(5));
        // The object is lost, and recovered without annotations. Then 3 documents are imported.
        let recovered = next(TakenOver::by_another_object(), &with(3));
        assert!(TakenOver::by_another_object().covers(&Usage::default()), "nothing is told before");
        let told = [tell(first, "old"), tell(recovered, "new")];
        assert_eq!(counted_once(&told), 8, "{told:?}");
        // Backups of both, from before web noted that the ledger has it.
        let backups = [tell(first, "restored"), tell(recovered, "restored again")];
        assert_eq!(counted_once(&[told, backups].concat()), 8);
        // A backup of the time before the ledger has no mark.
        let restored = next(TakenOver::default(), &with(5));
        assert_eq!(tell(restored, "restored").0, tell(first, "old").0);
        // It and what it was restored from go on in their own ways.
        let told = ["old", "restored"].map(|uid| tell(next(TakenOver { from: None, ..first }, &with(7)), uid));
        assert_eq!(counted_once(&told), 4, "{told:?}");
    }
}
