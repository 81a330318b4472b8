//! Counts again what tenants store, once a ledger began empty or with a snapshot: each document of the vector store
//! under the name that its upload has. So an upload or a deletion at the same time is counted once, whichever comes
//! first, and a retry, a crash or another controller counts nothing twice.
//!
//! The ledger keeps which tenants were counted since its beginning, so that one that the controller sees later, such as
//! one that a backup brings back, is counted then.

mod gone;
mod tenant;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use kube::ResourceExt;

use crate::api::{Phase, Tenant, Timestamp};
use crate::controller::context::Context;
use crate::controller::steps::data;
use crate::ledger::beginning::Beginning;
use crate::ledger::client::CallError;
use crate::ledger::wire::{Recounted, TenantId};
use crate::providers::{Party, Priority, ProviderError};

use tenant::{Account, Changed};

/// How often it is looked whether a ledger began again, and whether those that failed can be counted.
const LOOK: Duration = Duration::from_secs(10);
/// The same once all tenants of the moment are counted.
const CALM: Duration = Duration::from_secs(30);
/// The same after some could not be counted.
const AGAIN: Duration = Duration::from_mins(1);
/// Seconds after which the vector store lists what was stored before, and does not list what was deleted before.
const SETTLED: i64 = 20;
/// Tenants that are counted at the same time.
const AT_ONCE: usize = 4;

/// Why a tenant was not counted, or not to the end.
#[derive(Debug, thiserror::Error)]
enum RecountError {
    #[error(transparent)]
    Ledger(#[from] CallError),
    #[error("the vector store: {0}")]
    VectorStore(#[from] ProviderError),
    #[error("the tenant's id or period is not valid for the ledger: {0}")]
    Unusable(String),
    /// A person has to say where the data is. What another place holds is not gone.
    #[error("it is not clear where the tenant's data is: see the condition DataInOnePlace")]
    Unclear,
    /// An upload of before is neither settled nor voided.
    #[error("uploads from before the loss are still open; the ledger ends them within a day")]
    Pending,
    /// The vector store lists documents whose first part it does not return, or not whole.
    #[error(
        "the vector store lists documents whose first part cannot be read: {}. They stay counted as they are. The customer uploads each file \
         again, or you delete the vector d/ID of each",
        .0.join(", ")
    )]
    Unread(Vec<String>),
    /// One look at a store that lists late does not tell that a document is gone.
    #[error(
        "documents of the snapshot are not in the vector store: the controller looks once more before it removes them"
    )]
    Unsure,
}

impl RecountError {
    /// Whether the next look answers it.
    fn passes(&self) -> bool {
        matches!(self, Self::Unsure)
    }
}

/// What is known of a ledger that began.
struct Known {
    /// Names its beginning.
    beginning: String,
    /// The tenants that were counted since then, as the ledger keeps them.
    counted: HashSet<String>,
    unseen: Unseen,
}

/// Since when the vector store does not have documents that the ledger has, by their operations.
#[derive(Default)]
struct Unseen(Mutex<HashMap<String, Timestamp>>);

impl Unseen {
    /// Whether a document that is not there now was not there before either, so long ago that the store lists it if it
    /// has it.
    fn for_long(&self, operation: &str, now: Timestamp) -> bool {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.since(*since.entry(operation.to_owned()).or_insert(now)) >= SETTLED
    }

    /// The document is there, or released.
    fn forget(&self, operation: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(operation);
    }
}

/// Counts wherever a ledger began, until the lease is lost.
pub async fn run(context: Arc<Context>) {
    if !context.caches.filled().await {
        return;
    }
    let mut known = None;
    loop {
        let wait = look(&context, &mut known).await;
        tokio::time::sleep(wait).await;
    }
}

/// Counts the tenants that are not counted yet since the ledger began. Answers when to look again.
async fn look(context: &Context, known: &mut Option<Known>) -> Duration {
    let Some(beginning) = context.ledger.status().await.ok().and_then(|status| status.beginning) else { return LOOK };
    let now = context.clock.read().now;
    if now.since(beginning.began.at) < SETTLED {
        return LOOK;
    }
    // Nothing is counted again in a ledger that is this old.
    if !beginning.began.lacks(None, now) {
        conclude(context, &beginning, 0).await;
        return CALM;
    }
    let known = match known {
        Some(known) if known.beginning == beginning.id => known,
        known => match context.ledger.recounted_tenants(&beginning.id).await {
            Ok(counted) => known.insert(Known { beginning: beginning.id.clone(), counted, unseen: Unseen::default() }),
            Err(error) => {
                tracing::warn!(%error, "the ledger did not say which tenants are counted again");
                return LOOK;
            }
        },
    };
    match pass(context, &beginning, known, now).await {
        Passed::Failed => AGAIN,
        Passed::Unsure => LOOK,
        Passed::All => {
            conclude(context, &beginning, known.counted.len()).await;
            CALM
        }
    }
}

/// Reports to the ledger that all tenants of the moment are counted.
async fn conclude(context: &Context, beginning: &Beginning, tenants: usize) {
    if beginning.recounted.is_some() {
        return;
    }
    match context.ledger.recounted(&Recounted { beginning: beginning.id.clone(), tenant: None }).await {
        Ok(()) => tracing::info!(tenants, "what tenants store is counted again"),
        Err(error) => {
            tracing::warn!(%error, "the controller could not report that documents are counted again; it tries again");
        }
    }
}

/// What became of the tenants that were to be counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passed {
    All,
    /// Some are looked at once more.
    Unsure,
    Failed,
}

/// Counts the tenants that are not counted yet.
async fn pass(context: &Context, beginning: &Beginning, known: &mut Known, now: Timestamp) -> Passed {
    let (counted, unseen) = (&known.counted, &known.unseen);
    let keys = context.caches.keys_where(|tenant| {
        stores(tenant, beginning, now) && !counted.contains(tenant.tenant_id()) && context.claims.is_holder(tenant)
    });
    let count = |tenant: Arc<Tenant>| async move {
        let id = tenant.tenant_id().to_owned();
        let count = Box::pin(count(context, beginning, &tenant, unseen));
        let done = Priority::Resync.scope(Party::scope(&id, count)).await;
        (id, tenant, done)
    };
    let mut running = stream::iter(context.caches.each_of(keys)).map(count).buffer_unordered(AT_ONCE);
    let (mut passed, mut done) = (Passed::All, Vec::new());
    while let Some((id, tenant, counted)) = running.next().await {
        match counted {
            Ok(()) => done.push(id),
            Err(error) if error.passes() => {
                tracing::info!(tenant = tenant.name_any(), "{error}");
                passed = if passed == Passed::All { Passed::Unsure } else { passed };
            }
            Err(error) => {
                passed = Passed::Failed;
                if matches!(error, RecountError::Unread(_)) {
                    context.events.warn(&*tenant, "DocumentsUnreadable", error.to_string());
                }
                tracing::warn!(%error, tenant = tenant.name_any(), "documents are not counted again yet");
            }
        }
    }
    drop(running);
    known.counted.extend(done);
    passed
}

/// Counts a tenant, and reports it to the ledger.
async fn count(context: &Context, beginning: &Beginning, tenant: &Tenant, unseen: &Unseen) -> Result<(), RecountError> {
    let (changed, counted) = recount(context, beginning, tenant, unseen).await;
    if !changed.is_zero() {
        let said = changed.words();
        tracing::info!(tenant = tenant.name_any(), "{said}");
        context.events.normal(tenant, "DocumentsRecounted", said);
    }
    counted?;
    let id = TenantId::try_from(tenant.tenant_id().to_owned()).map_err(RecountError::Unusable)?;
    let body = Recounted { beginning: beginning.id.clone(), tenant: Some(id) };
    Ok(context.ledger.recounted(&body).await?)
}

/// Counts the documents of a tenant. Says what it changed, also where it could not come to the end.
async fn recount(
    context: &Context,
    beginning: &Beginning,
    tenant: &Tenant,
    unseen: &Unseen,
) -> (Changed, Result<(), RecountError>) {
    let mut changed = Changed::default();
    let done = async {
        let Some(account) = Account::of(context, tenant)? else { return Ok(()) };
        // An object from a backup may name the namespace of before a move. The reconcile finds the other one later.
        if data::is_ahead_of(&context.providers.indexes, tenant).await? {
            return Err(RecountError::Unclear);
        }
        let unnamed = beginning.began.snapshot.is_none() && account.lacks_unnamed(tenant).await?;
        let listed = account.count_listed(unnamed, &mut changed.counted).await?;
        if beginning.began.snapshot.is_some() {
            gone::take_away(&account, &listed, unseen, &mut changed.gone).await?;
        }
        if listed.unread.is_empty() { Ok(()) } else { Err(RecountError::Unread(listed.unread)) }
    }
    .await;
    (changed, done)
}

/// Whether a tenant may have stored something before a ledger began.
fn stores(tenant: &Tenant, beginning: &Beginning, now: Timestamp) -> bool {
    let Some(status) = &tenant.status else { return false };
    let over = status.phase == Some(Phase::Deleted) || status.erasure.is_some();
    let created = tenant.creation_timestamp().map(|at| Timestamp::from(at.0));
    // An object that was restored is younger than its tenant. It may be older than the tenant's data, and the reconcile
    // compares both first.
    let older =
        created.is_none_or(|at| at <= beginning.began.at) || tenant.uid().as_deref() != Some(tenant.tenant_id());
    let compared = created.is_none_or(|at| now.since(at) >= SETTLED);
    status.quota.is_some() && !over && older && compared
}
