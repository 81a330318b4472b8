//! Documents that are counted. A document counts before the vector store is written, so that it does whatever happens
//! then; its text counts as embedded even if nothing of it stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::account::Account;
use super::journal::Entry;
use super::question::amount;
use super::{Metering, counted, pending, refusal, reserve, settled, void};
use crate::api::{Timestamp, Unit};
use crate::ledger::client::CallError;
use crate::ledger::names;
use crate::ledger::units::{Amounts, LARGEST};
use crate::ledger::wire::{Checkpoint, CommandOutcome, Counted, Dated, PENDING, PeriodUsage};
use crate::rag::Document;
use crate::web::serving::directory::Served;
use crate::web::serving::problem::Problem;
use crate::web::serving::standing::Standing;

/// A document that is to be counted.
#[derive(Clone, Copy, Debug)]
pub struct NewDocument<'a> {
    /// The document.
    pub document: &'a Document,
    /// Whether the document and its bytes count. They do not if it was begun before.
    pub counts: bool,
    /// Bytes of its text.
    pub text: i64,
    /// Tokens of its text, estimated.
    pub tokens: u64,
}

/// The name of what a document is counted as. None for a document of a version before the ledger, and for an imported
/// one.
fn operation_of(tenant: &Served, document: &Document) -> Option<String> {
    Some(name_of(tenant, document, document.upload.as_deref()?))
}

/// The name of an upload of a document.
fn name_of(tenant: &Served, document: &Document, upload: &str) -> String {
    names::document(&tenant.id, &document.id, upload)
}

/// A name that no other upload has.
pub fn new_upload() -> String {
    hex::encode(rand::random::<[u8; 8]>())
}

/// A document that is counted. Dropped before it has ended, it stays counted: it is not known what of it was stored.
pub struct Counting {
    metering: Arc<Metering>,
    account: Account,
    operation: String,
    /// What counts if it is stored.
    amounts: Amounts,
    /// Tokens that were embedded so far.
    tokens: AtomicU64,
    standing: Option<Standing>,
    state: State,
}

/// How far the ledger knows it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The ledger is being asked.
    Asking,
    /// It is set aside, and noted as stored.
    Noted,
    /// The ledger is away, and the journal has it as stored.
    Journaled,
    /// There is nothing left to tell.
    Ended,
}

impl Metering {
    /// Whether the plan holds a document of so many bytes, and at least some text, before its file is read. The file of
    /// a document that was begun before has been counted: no bytes. Where the ledger is away, the plan says whether the
    /// file is read.
    pub async fn has_room(
        self: &Arc<Self>,
        tenant: &Served,
        bytes: Option<i64>,
        now: Timestamp,
    ) -> Result<(), Problem> {
        let account = self.account(tenant, now).await?;
        let used = match self.usage_of(&tenant.id).await {
            Ok(used) => used,
            Err(CallError::Unavailable(_)) => return self.without_ledger(&account),
            Err(error) => return Err(refusal::of(&error, &account, now)),
        };
        let mut asked = Amounts::of(Unit::EmbeddedBytes, 1);
        if let Some(bytes) = bytes {
            asked = asked.with(Unit::Documents, 1).with(Unit::Bytes, bytes);
        }
        fits(&account, used, asked).map_err(|(unit, left)| refusal::beyond(&account, unit, left, now))
    }

    /// Counts a document before it is stored.
    pub async fn document(
        self: &Arc<Self>,
        tenant: &Served,
        new: NewDocument<'_>,
        now: Timestamp,
    ) -> Result<Counting, Problem> {
        let account = self.account(tenant, now).await?;
        let unnamed = || Problem::internal("a document", &"it has no name of its own");
        let operation = if new.counts {
            operation_of(tenant, new.document).ok_or_else(unnamed)?
        } else {
            // The document's own name is that of the upload that counted it.
            name_of(tenant, new.document, &new_upload())
        };
        let embedded = Amounts::of(Unit::EmbeddedBytes, new.text.clamp(0, LARGEST))
            .with(Unit::EmbeddingTokens, amount(new.tokens));
        let amounts = if new.counts { embedded.plus(Amounts::of_document(new.document.bytes)) } else { embedded };
        let mut counting = Counting {
            metering: self.clone(),
            account,
            operation,
            amounts,
            tokens: AtomicU64::new(0),
            standing: None,
            state: State::Asking,
        };
        counting.reserve(now).await?;
        Ok(counting)
    }

    /// Whether a document of the tenant could be forgotten, before it is deleted: once it is gone, nothing would tell
    /// the ledger.
    pub async fn can_forget(self: &Arc<Self>, tenant: &Served, now: Timestamp) -> Result<(), Problem> {
        self.can_count(&tenant.id)?;
        self.account(tenant, now).await.map(drop)
    }

    /// A document that was begun before is stored again. Its own operation ends first: pending, it would count once
    /// more when the document is gone. The upload that counted it stays the document's, so that another replica and a
    /// ledger that lost its data count it under the same name.
    pub async fn begun_before(
        self: &Arc<Self>,
        tenant: &Served,
        document: &Document,
        now: Timestamp,
    ) -> Result<(), Problem> {
        let account = self.account(tenant, now).await?;
        if let Some(operation) = operation_of(tenant, document) {
            let recounted = recounted(&account, &operation, document);
            let concluded = may_be_pending(document, now)
                .then(|| conclude(&account, operation, Amounts::of_document(document.bytes)));
            self.end([recounted].into_iter().chain(concluded).collect()).await;
        }
        Ok(())
    }

    /// A document is gone. Its own operation ends first, so that one that is still pending does not count later. The
    /// caller goes on to the end of it where its client hangs up.
    pub async fn forget(self: &Arc<Self>, tenant: &Served, document: &Document, now: Timestamp) -> Result<(), Problem> {
        let account = self.account(tenant, now).await?;
        let levels = Amounts::of_document(document.bytes);
        let operation = operation_of(tenant, document);
        // Versions before the ledger did not name their uploads. No two of the same content are in one second.
        let before = || name_of(tenant, document, &document.counted_at.as_second().to_string());
        let gone = names::gone(&operation.clone().unwrap_or_else(before));
        let mut entries = Vec::new();
        if let Some(operation) = operation {
            // A ledger that began after the upload may not have it yet, and would take the release from another document.
            entries.push(recounted(&account, &operation, document));
            entries.extend(may_be_pending(document, now).then(|| conclude(&account, operation, levels)));
        }
        entries.push(Entry::Release { operation: gone, body: counted(&account, levels) });
        self.end(entries).await;
        Ok(())
    }
}

/// Ends the operation of a document that is about to be released, unless it has ended.
fn conclude(account: &Account, operation: String, levels: Amounts) -> Entry {
    Entry::Conclude { operation, body: counted(account, levels) }
}

/// What counts a document again in a ledger that lost it.
fn recounted(account: &Account, operation: &str, document: &Document) -> Entry {
    let Counted { tenant, period, amounts } = counted(account, Amounts::of_document(document.bytes));
    let body = Dated { tenant, period, amounts, at: Some(document.counted_at) };
    Entry::Recount { operation: operation.to_owned(), body }
}

/// Whether the operation of a document can still be pending, or wait in a journal. The ledger forgets operations some
/// time after they ended: a settlement of one that is forgotten would count it again.
fn may_be_pending(document: &Document, now: Timestamp) -> bool {
    now.since(document.counted_at) < i64::from(*PENDING.end())
}

/// The first unit that leaves too little, with what it leaves.
fn fits(account: &Account, used: Option<PeriodUsage>, asked: Amounts) -> Result<(), (Unit, i64)> {
    let left = account.left(used);
    let short = asked.each().find_map(|(unit, amount)| Some((unit, left.of(unit)?)).filter(|(_, left)| amount > *left));
    short.map_or(Ok(()), Err)
}

impl Counting {
    async fn reserve(&mut self, now: Timestamp) -> Result<(), Problem> {
        let metering = self.metering.clone();
        let body = reserve(&self.account, self.amounts, pending(metering.document_expiry));
        let known_away = metering.is_away();
        match metering.ask(metering.ledger.reserve(&self.operation, &body)).await {
            Ok(CommandOutcome::Reserved { period, left }) => {
                self.standing = Some(self.account.standing(&left, period));
                self.note().await
            }
            Err(CallError::Unavailable(_)) => {
                let served = metering.without_ledger(&self.account);
                if served.is_err() && known_away {
                    self.state = State::Ended;
                }
                served?;
                self.journal().await
            }
            Ok(other) => Err(Problem::internal("a reservation", &format!("{other:?}"))),
            Err(error) => {
                self.state = State::Ended;
                Err(refusal::of(&error, &self.account, now))
            }
        }
    }

    /// Notes the document as stored: it counts if this process is killed.
    async fn note(&mut self) -> Result<(), Problem> {
        let body = Checkpoint { tenant: self.account.tenant.clone(), amounts: self.amounts };
        match self.metering.ask(self.metering.ledger.checkpoint(&self.operation, &body)).await {
            Ok(_) => {
                self.state = State::Noted;
                Ok(())
            }
            Err(CallError::Unavailable(_)) => {
                self.metering.without_ledger(&self.account)?;
                self.journal().await
            }
            Err(error) => Err(Problem::internal("a document's reservation", &error)),
        }
    }

    /// Keeps the document as stored while the ledger is away: it counts if this process is killed.
    async fn journal(&mut self) -> Result<(), Problem> {
        let body = counted(&self.account, self.amounts);
        if !self.metering.journaled(&Entry::Settle { operation: self.operation.clone(), body }).await {
            return Err(refusal::unavailable());
        }
        self.metering.count_unavailable("kept");
        self.state = State::Journaled;
        Ok(())
    }

    /// How much of the plan is left. None if the ledger was away.
    pub fn standing(&self) -> Option<Standing> {
        self.standing
    }

    /// So many tokens more were embedded.
    pub fn embedded(&self, tokens: u64) {
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
    }

    /// It is stored.
    pub async fn stored(mut self) {
        if self.state == State::Noted {
            self.metering.end(self.settled(self.all())).await;
        }
        self.state = State::Ended;
    }

    /// Nothing of it stays. What was embedded counts.
    pub async fn nothing_stays(mut self) {
        let levels = self.amounts.only(true);
        match self.state {
            State::Noted => self.end_without_levels().await,
            // The journal settles all of it first.
            State::Journaled if !levels.is_zero() => {
                let body = counted(&self.account, levels);
                let operation = names::gone(&self.operation);
                let gone = Entry::Release { operation, body };
                if !self.metering.journaled(&gone).await {
                    self.metering.end(vec![gone]).await;
                }
            }
            _ => {}
        }
        self.state = State::Ended;
    }

    /// Counts what was embedded. A ledger that began meanwhile may have counted the document before it was deleted again.
    async fn end_without_levels(&self) {
        let mut entries = self.settled(self.all().only(false));
        let asked = match &entries[0] {
            Entry::Settle { operation, body } => {
                self.metering.ask(self.metering.ledger.settle(operation, body)).await.ok()
            }
            _ => None,
        };
        if let Some(CommandOutcome::Settled { posted, .. }) = asked
            && !posted.only(true).is_zero()
        {
            let body = counted(&self.account, posted.only(true));
            entries.push(Entry::Release { operation: names::gone(&self.operation), body });
        }
        // The settlement is sent once more: a repetition counts nothing twice.
        self.metering.end(entries).await;
    }

    /// What counts, with the tokens that the provider named.
    fn all(&self) -> Amounts {
        self.amounts.with(Unit::EmbeddingTokens, amount(self.tokens.load(Ordering::Relaxed)))
    }

    fn settled(&self, used: Amounts) -> Vec<Entry> {
        settled(&self.account, &self.operation, used, self.amounts)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let ending = match self.state {
            State::Asking => vec![void(&self.account, &self.operation)],
            State::Noted => self.settled(self.all()),
            State::Journaled | State::Ended => return,
        };
        let metering = self.metering.clone();
        self.metering.spawn(async move { metering.end(ending).await });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::quota::WhenUnavailable;
    use crate::ledger::account::Period;
    use crate::ledger::units::Limits;

    #[test]
    fn a_plan_has_room_beside_what_is_stored_and_what_is_set_aside() {
        let period =
            |start: i64| Period { start: Timestamp::from_second(start), end: Timestamp::from_second(start + 100) };
        let account = Account {
            tenant: "acme".to_owned().try_into().expect("a name"),
            period: period(1000).try_into().expect("a period"),
            limits: Limits::default().with(Unit::Documents, 3).with(Unit::Bytes, 100).with(Unit::EmbeddedBytes, 50),
            given_back: 0,
            when_unavailable: WhenUnavailable::Serve,
        };
        let used = |start: i64, embedded: i64| PeriodUsage {
            period: period(start),
            used: Amounts::of(Unit::Documents, 1).with(Unit::Bytes, 60).with(Unit::EmbeddedBytes, embedded),
            reserved: Amounts::of(Unit::Documents, 1).with(Unit::Bytes, 10),
        };
        let asked = |bytes: i64| Amounts::of(Unit::Documents, 1).with(Unit::Bytes, bytes).with(Unit::EmbeddedBytes, 1);
        assert_eq!(fits(&account, None, asked(100)), Ok(()), "nothing is known of the tenant");
        assert_eq!(fits(&account, Some(used(1000, 49)), asked(30)), Ok(()));
        assert_eq!(fits(&account, Some(used(1000, 49)), asked(31)), Err((Unit::Bytes, 30)));
        assert_eq!(fits(&account, Some(used(1000, 50)), asked(1)), Err((Unit::EmbeddedBytes, 0)));
        assert_eq!(fits(&account, Some(used(900, 50)), asked(30)), Ok(()), "text of an earlier period");
        assert_eq!(fits(&account, Some(used(900, 50)), asked(31)), Err((Unit::Bytes, 30)), "documents stay");
    }
}
