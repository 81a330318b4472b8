//! How web counts what tenants use: through the ledger, which sets amounts aside before the providers are asked and
//! counts what was used afterwards, each under a name of its own.
//!
//! While the ledger is away, the plan says whether questions are served. What they used is then kept in the journal,
//! and the ledger counts it once it is back.

mod account;
mod answers;
mod documents;
mod events;
mod gateway;
mod history;
pub mod journal;
mod question;
mod refusal;
mod takeover;
mod unavailable;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::Future;
use kube::Client;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use reqwest::Url;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinError;

use crate::api::{Timestamp, Unit};
use crate::ledger::LedgerKey;
use crate::ledger::client::{CallError, LedgerClient};
use crate::ledger::units::Amounts;
use crate::ledger::wire::{Counted, PENDING, PeriodUsage, Reserve, Void};
use crate::telemetry::{Metrics, OutcomeLabel};
use crate::web::serving::directory::Served;
use crate::web::serving::limits::Allowance;
use crate::web::serving::problem::Problem;

use account::Account;
use events::BegunPeriods;
use journal::{Entry, Journal, JournalError};
use takeover::TakeOvers;

pub use account::given_back;
pub use answers::{Attempt, Begun, KeyedRequest};
pub use documents::{Counting, NewDocument, new_upload};
pub use events::{UsedElsewhere, unavailable as events_unavailable};
pub use gateway::Queries;
pub use history::Days;
pub use question::{Expected, Question};

/// The size of the journal, at most. An entry has some hundred bytes.
const JOURNAL: u64 = 64 << 20;
/// How often what could not be kept is told to the ledger again.
const AGAIN: Duration = Duration::from_secs(1);

/// Where the ledger is, and what to do without it.
#[derive(Clone, Debug)]
pub struct MeteringConfig {
    /// The ledger's address.
    pub url: Url,
    /// The folder of the journal. Without it, questions wait for the ledger, whatever the plan says.
    pub journal: Option<PathBuf>,
    /// How long a call waits for the ledger.
    pub patience: Duration,
    /// How long web, while it stops, waits for a ledger that is away to take what the journal holds.
    pub drain: Duration,
    /// How long a question may be open until the ledger counts what is known of it.
    pub question_expiry: Duration,
    /// The same for a document.
    pub document_expiry: Duration,
}

/// Why web cannot count.
#[derive(Debug, thiserror::Error)]
pub enum MeteringError {
    /// The client cannot be made.
    #[error("a client of the ledger: {0}")]
    Client(#[from] reqwest::Error),
    /// The journal cannot be used.
    #[error("the ledger's journal: {0}")]
    Journal(#[from] JournalError),
}

/// Counts for all handlers.
pub struct Metering {
    ledger: LedgerClient,
    client: Client,
    journal: Option<Journal>,
    question_expiry: Duration,
    document_expiry: Duration,
    /// Whether the ledger did not answer lately.
    away: AtomicBool,
    takeovers: TakeOvers,
    begun: BegunPeriods,
    /// Work that goes on after its request.
    working: watch::Sender<usize>,
    unavailable: Family<OutcomeLabel, Counter>,
    /// Questions that took tokens and count as none.
    vain: Allowance,
}

impl Metering {
    /// Opens the journal. The ledger is not called yet.
    pub fn new(
        config: &MeteringConfig,
        client: Client,
        key: &LedgerKey,
        metrics: &Metrics,
    ) -> Result<Self, MeteringError> {
        let journal = config.journal.as_deref().map(|folder| Journal::open(folder, JOURNAL)).transpose()?;
        if journal.is_none() {
            tracing::warn!(
                "LEDGER_JOURNAL is not set: while the ledger is away, questions are refused, also on plans that would serve them"
            );
        }
        Ok(Self {
            ledger: LedgerClient::new(config.url.clone(), key, config.patience)?,
            client,
            journal,
            question_expiry: config.question_expiry,
            document_expiry: config.document_expiry,
            away: AtomicBool::new(false),
            takeovers: TakeOvers::default(),
            begun: BegunPeriods::default(),
            working: watch::Sender::new(0),
            unavailable: metrics.ledger_unavailable.clone(),
            vain: Allowance::of_vain_questions(),
        })
    }

    /// Tells the ledger what the journal holds, for as long as web lives.
    pub async fn deliver(&self) {
        match &self.journal {
            Some(journal) => journal.deliver(&self.ledger).await,
            None => std::future::pending().await,
        }
    }

    /// Waits until the ledger has what the journal holds, for so long at most. In Kubernetes the journal ends with the
    /// pod, so what is left then is never counted. A folder that stays is delivered by the next web that opens it.
    pub async fn drained(&self, wait: Duration) {
        let Some(journal) = &self.journal else { return };
        if journal.entries() > 0 {
            tracing::info!(waiting = journal.entries(), "web waits for the ledger to take what its journal holds");
        }
        if tokio::time::timeout(wait, journal.emptied()).await.is_err() {
            tracing::error!(
                left = journal.entries(),
                "the ledger did not take all that web's journal holds. Entries are lost if the folder ends with this pod"
            );
        }
    }

    /// Entries that wait in the journal, and those that the ledger refused for good.
    pub fn journal_entries(&self) -> (u64, u64) {
        self.journal.as_ref().map_or((0, 0), |journal| (journal.entries(), journal.refused()))
    }

    /// What a tenant has used. None if the ledger does not know it yet.
    pub async fn usage(self: &Arc<Self>, tenant: &Served, now: Timestamp) -> Result<Option<PeriodUsage>, Problem> {
        self.account(tenant, now).await?;
        self.usage_of(&tenant.id).await.map_err(|error| refusal::unreadable(&error))
    }

    /// Queries of the periods that the ledger still tells.
    pub async fn queries_of_all_periods(self: &Arc<Self>, tenant: &Served) -> Result<i64, Problem> {
        let periods = self.ask(self.ledger.periods(&tenant.id)).await.map_err(|error| refusal::unreadable(&error))?;
        Ok(periods.iter().map(|period| period.used[Unit::Queries]).sum())
    }

    /// Waits for the work that goes on after its request.
    pub async fn finished(&self) {
        // The sender is here, so waiting does not fail.
        drop(self.working.subscribe().wait_for(|count| *count == 0).await);
    }

    async fn usage_of(self: &Arc<Self>, tenant: &str) -> Result<Option<PeriodUsage>, CallError> {
        self.ask(self.ledger.usage(tenant)).await
    }

    /// Whose use is counted, with what versions before the ledger have counted.
    async fn account(self: &Arc<Self>, tenant: &Served, now: Timestamp) -> Result<Account, Problem> {
        let account = Account::of(tenant, now)?;
        self.take_over(tenant, &account).await?;
        Ok(account)
    }

    /// Work that goes on after its request, until this is dropped.
    pub fn under_way(self: &Arc<Self>) -> UnderWay {
        self.working.send_modify(|count| *count += 1);
        UnderWay(self.clone())
    }

    /// Works to the end, and answers, even if the client hangs up meanwhile.
    pub async fn to_its_end<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, JoinError> {
        let under_way = self.under_way();
        tokio::spawn(async move {
            let done = work.await;
            drop(under_way);
            done
        })
        .await
    }

    /// Works on where the client hangs up.
    fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        // None where the runtime has ended.
        let Ok(runtime) = Handle::try_current() else { return };
        let under_way = self.under_way();
        runtime.spawn(async move {
            work.await;
            drop(under_way);
        });
    }

    /// Ends operations: at the ledger, or in the journal where the ledger does not answer.
    async fn end(self: &Arc<Self>, entries: Vec<Entry>) {
        for entry in &entries {
            match self.tell(entry).await {
                Ok(()) => {}
                // Those that come after it would overtake it. Those before it are sent again, which counts nothing twice: a
                // ledger that lost its volume meanwhile does not know them.
                Err(CallError::Unavailable(why)) => return self.keep(entries, &why).await,
                Err(error) => tracing::warn!(%error, operation = entry.operation(), "the ledger does not count this"),
            }
        }
    }

    /// Tells the ledger how an operation ended.
    async fn tell(self: &Arc<Self>, entry: &Entry) -> Result<(), CallError> {
        self.ask(journal::tell(&self.ledger, entry)).await
    }

    /// Whether the journal keeps an entry. False without one.
    async fn journaled(&self, entry: &Entry) -> bool {
        let Some(journal) = &self.journal else { return false };
        let kept = journal.keep(entry).await;
        kept.inspect_err(|error| tracing::error!(%error, "the ledger's journal takes no entry")).is_ok()
    }

    /// Keeps what the ledger could not be told: in the journal, or in memory if there is none or it is full.
    async fn keep(self: &Arc<Self>, entries: Vec<Entry>, why: &str) {
        let mut unkept = Vec::new();
        for entry in entries {
            // What comes after one in memory would overtake it.
            if unkept.is_empty() && self.journaled(&entry).await {
                self.count_unavailable("kept");
            } else {
                self.count_unavailable("unkept");
                tracing::warn!(
                    why,
                    operation = entry.operation(),
                    "the ledger is away and this is kept in memory: it is lost if web ends before the ledger is back"
                );
                unkept.push(entry);
            }
        }
        if unkept.is_empty() {
            return;
        }
        let metering = self.clone();
        self.spawn(async move {
            for entry in unkept {
                while let Err(CallError::Unavailable(_)) = metering.tell(&entry).await {
                    tokio::time::sleep(AGAIN).await;
                }
            }
        });
    }
}

/// One piece of work that goes on after its request.
pub struct UnderWay(Arc<Metering>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.working.send_modify(|count| *count -= 1);
    }
}

/// What counts what was used. An operation counts at most what was set aside, so what is beyond it is one of its own.
fn settled(account: &Account, operation: &str, used: Amounts, reserved: Amounts) -> Vec<Entry> {
    let within = used.at_most(reserved);
    let beyond = used.minus(within);
    let settle = |operation: String, amounts| Entry::Settle { operation, body: counted(account, amounts) };
    let more = (!beyond.is_zero()).then(|| settle(format!("{operation}-beyond"), beyond));
    std::iter::once(settle(operation.to_owned(), within)).chain(more).collect()
}

/// A time in which an operation may be pending, as the ledger takes it.
fn pending(expiry: Duration) -> u32 {
    let seconds = u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX);
    seconds.clamp(*PENDING.start(), *PENDING.end())
}

/// Sets amounts aside, within the limits of the account.
fn reserve(account: &Account, amounts: Amounts, expires_after: u32) -> Reserve {
    Reserve { tenant: account.tenant.clone(), period: account.period, amounts, limits: account.limits, expires_after }
}

/// Gives back everything.
fn void(account: &Account, operation: &str) -> Entry {
    let body = Void { tenant: account.tenant.clone(), period: account.period };
    Entry::Void { operation: operation.to_owned(), body }
}

/// What was used, or is gone.
fn counted(account: &Account, amounts: Amounts) -> Counted {
    Counted { tenant: account.tenant.clone(), period: account.period, amounts }
}
