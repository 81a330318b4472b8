//! Counts again what tenants store, once a ledger began empty or with a snapshot: each document of the vector store
//! under the name that its upload has. So an upload or a deletion at the same time is counted once, whichever comes
//! first, and a retry, a crash or another controller counts nothing twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use kube::ResourceExt;

use crate::api::usage::TakenOver;
use crate::api::{Phase, Tenant, TenantStatus, Timestamp, Unit};
use crate::controller::Key;
use crate::controller::context::Context;
use crate::ledger::account::Period;
use crate::ledger::beginning::Beginning;
use crate::ledger::client::CallError;
use crate::ledger::names;
use crate::ledger::units::Amounts;
use crate::ledger::wire::{CommandOutcome, Counted, Dated, Recounted, SomePeriod, TenantId};
use crate::providers::{Party, Priority, ProviderError};
use crate::rag::{self, Document};

/// How often it is looked whether a ledger began again, and whether those that failed can be counted.
const LOOK: Duration = Duration::from_secs(10);
/// The same after some could not be counted.
const AGAIN: Duration = Duration::from_mins(1);
/// Seconds after its beginning: the vector store lists by then what was stored before.
const SETTLED: i64 = 20;
/// Tenants that are counted at the same time, and documents of each that are reported to the ledger.
const AT_ONCE: usize = 4;
const DOCUMENTS: usize = 16;
/// Documents of one answer of the ledger.
const PAGE: u32 = 500;

/// Why a tenant was not counted.
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
}

/// Counts wherever a ledger began, until the lease is lost.
pub async fn run(context: Arc<Context>) {
    if !context.caches.filled().await {
        return;
    }
    let (mut counted, mut of) = (HashSet::new(), String::new());
    loop {
        let mut wait = LOOK;
        let beginning = context.ledger.status().await.ok().and_then(|status| status.beginning);
        if let Some(beginning) = beginning.filter(|beginning| beginning.recounted.is_none()) {
            if of != beginning.id {
                counted.clear();
                of.clone_from(&beginning.id);
            }
            let settled = context.clock.read().now.since(beginning.began.at) >= SETTLED;
            if settled && !pass(&context, &beginning, &mut counted).await {
                wait = AGAIN;
            }
        }
        tokio::time::sleep(wait).await;
    }
}

/// Counts the tenants that are not counted yet, and reports to the ledger once all are. Answers whether none failed.
async fn pass(context: &Context, beginning: &Beginning, counted: &mut HashSet<String>) -> bool {
    let open = |tenant: &Arc<Tenant>| {
        stores(tenant, beginning) && !counted.contains(tenant.tenant_id()) && context.claims.is_holder(tenant)
    };
    // Their keys: unpacked, ten thousand would take much memory.
    let tenants: Vec<_> = context.caches.each_tenant().filter(open).map(|tenant| Key::of(&tenant)).collect();
    let tenants = tenants.into_iter().filter_map(|key| context.caches.tenant(&key));
    let count = |tenant: Arc<Tenant>| async move {
        let id = tenant.tenant_id().to_owned();
        let count = Box::pin(recount(context, beginning, &tenant));
        let done = Priority::Resync.scope(Party::scope(&id, count)).await;
        (id, tenant, done)
    };
    let mut running = stream::iter(tenants).map(count).buffer_unordered(AT_ONCE);
    let mut failed = 0;
    while let Some((id, tenant, done)) = running.next().await {
        match done {
            Ok(changed) => {
                if !changed.is_zero() {
                    context.events.normal(&*tenant, "DocumentsRecounted", words(changed));
                    tracing::info!(tenant = tenant.name_any(), "{}", words(changed));
                }
                counted.insert(id);
            }
            Err(error) => {
                failed += 1;
                tracing::warn!(%error, tenant = tenant.name_any(), "documents are not counted again yet");
            }
        }
    }
    if failed == 0 {
        let body = Recounted { beginning: beginning.id.clone() };
        match context.ledger.recounted(&body).await {
            Ok(()) => tracing::info!(tenants = counted.len(), "what tenants store is counted again"),
            Err(error) => {
                tracing::warn!(%error, "the controller could not report that documents are counted again; it tries again");
            }
        }
    }
    failed == 0
}

/// What was counted again, and what was taken away that is no longer stored.
#[derive(Clone, Copy, Debug, Default)]
struct Changed {
    counted: Amounts,
    gone: Amounts,
}

impl Changed {
    fn is_zero(&self) -> bool {
        self.counted.is_zero() && self.gone.is_zero()
    }
}

fn words(Changed { counted, gone }: Changed) -> String {
    let said = |amounts: Amounts| format!("{} documents ({} bytes)", amounts[Unit::Documents], amounts[Unit::Bytes]);
    format!(
        "The ledger lost its data. The controller counted {} again that are stored, and removed {} that are no longer stored",
        said(counted),
        said(gone)
    )
}

/// Whether a tenant may have stored something before a ledger began.
fn stores(tenant: &Tenant, beginning: &Beginning) -> bool {
    let Some(status) = &tenant.status else { return false };
    let over = status.phase == Some(Phase::Deleted) || status.erasure.is_some();
    let created = tenant.creation_timestamp().map(|at| Timestamp::from(at.0));
    // An object that was restored is younger than its tenant.
    let older =
        created.is_none_or(|at| at <= beginning.began.at) || tenant.uid().as_deref() != Some(tenant.tenant_id());
    status.quota.is_some() && !over && older
}

/// Whose documents are counted, and in which period.
struct Account<'a> {
    context: &'a Context,
    id: &'a str,
    tenant: TenantId,
    period: SomePeriod,
}

/// Counts the documents of a tenant.
async fn recount(context: &Context, beginning: &Beginning, tenant: &Tenant) -> Result<Changed, RecountError> {
    let id = tenant.tenant_id();
    let Some(quota) = tenant.status.as_ref().and_then(|status| status.quota.as_ref()) else {
        return Ok(Changed::default());
    };
    let unclear = |status: &TenantStatus| status.data_unclear_since.or(status.namespace_missing_since).is_some();
    if tenant.status.as_ref().is_some_and(unclear) {
        return Err(RecountError::Unclear);
    }
    let (start, end) = quota.period_at(context.clock.read().now);
    let account = Account {
        context,
        id,
        tenant: id.to_owned().try_into().map_err(RecountError::Unusable)?,
        period: Period { start, end }.try_into().map_err(RecountError::Unusable)?,
    };
    let unnamed = beginning.began.snapshot.is_none() && account.lacks_unnamed(tenant).await?;
    let (mut changed, mut heads, mut after) = (Changed::default(), HashMap::new(), None);
    let index = context.providers.indexes.of(tenant.region())?;
    let namespace = tenant.data_namespace();
    loop {
        let now = context.clock.read().now;
        let page = rag::page(index, &namespace, after.as_deref(), now).await?;
        let counted = |document: Document| account.count(document, unnamed);
        let counts: Vec<_> =
            stream::iter(page.documents).map(counted).buffer_unordered(DOCUMENTS).try_collect().await?;
        for Head { id, upload, posted, counted } in counts {
            changed.counted = changed.counted.plus(counted);
            heads.insert(id, (upload, posted));
        }
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    if beginning.began.snapshot.is_some() {
        changed.gone = account.take_away(&heads).await?;
    }
    Ok(changed)
}

/// A document in the store, and what the ledger has of it.
struct Head {
    id: String,
    upload: Option<String>,
    /// What the ledger has of levels.
    posted: Amounts,
    /// What of that it has since now.
    counted: Amounts,
}

impl Account<'_> {
    /// Whether documents without an upload's name are missing: an earlier ledger had them from the annotation that
    /// versions before the ledger wrote, and imports write.
    async fn lacks_unnamed(&self, tenant: &Tenant) -> Result<bool, RecountError> {
        let mark = TakenOver::of(tenant);
        if mark.times == 0 || mark.from.is_some() {
            return Ok(false);
        }
        let name = mark.name("before", self.id, tenant.uid().as_deref().unwrap_or_default());
        // Nothing is counted by this. It tells whether this ledger knows the name.
        Ok(self.tell(&name, Amounts::ZERO, None).await?.is_zero())
    }

    /// Tells the ledger what it may lack, and answers what it has under that name.
    async fn tell(&self, operation: &str, amounts: Amounts, at: Option<Timestamp>) -> Result<Amounts, CallError> {
        let body = Dated { tenant: self.tenant.clone(), period: self.period, amounts, at };
        match self.context.ledger.recount(operation, &body).await? {
            CommandOutcome::Settled { posted, .. } => Ok(posted),
            _ => Ok(Amounts::ZERO),
        }
    }

    /// Counts a document, unless the ledger has it.
    async fn count(&self, document: Document, unnamed: bool) -> Result<Head, RecountError> {
        let amounts = Amounts::of_document(document.bytes);
        let Document { id, upload, uploaded_at, .. } = document;
        let Some(name) = upload.clone().or_else(|| unnamed.then(|| uploaded_at.as_second().to_string())) else {
            return Ok(Head { id, upload, posted: amounts, counted: Amounts::ZERO });
        };
        let name = names::document(self.id, &id, &name);
        let before = self.tell(&name, Amounts::ZERO, Some(uploaded_at)).await?.only(true);
        let posted = self.tell(&name, amounts, Some(uploaded_at)).await?.only(true);
        Ok(Head { id, upload, posted, counted: posted.minus(before) })
    }

    /// Takes away the documents that the ledger has from its snapshot and that the store does not hold: they were
    /// deleted after it was taken.
    async fn take_away(&self, heads: &HashMap<String, (Option<String>, Amounts)>) -> Result<Amounts, RecountError> {
        let (mut gone, mut after, mut pending) = (Amounts::ZERO, String::from("d"), false);
        loop {
            let page = self.context.ledger.old_documents(self.id, &after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.operation);
            for old in page {
                let Some((id, upload)) = names::parts(self.id, &old.operation) else { continue };
                let stored = heads.get(id).is_some_and(|(there, posted)| {
                    // An upload that another one completed: the first one has its place, also where it was too old to be named
                    // in the store.
                    there.as_deref().is_none_or(|there| there == upload) || posted[Unit::Documents] == 0
                });
                pending |= old.pending && !stored;
                if !stored && !old.pending {
                    let body = Counted { tenant: self.tenant.clone(), period: self.period, amounts: old.amounts };
                    self.context.ledger.release(&names::gone(&old.operation), &body).await?;
                    gone = gone.plus(old.amounts);
                }
            }
        }
        if pending { Err(RecountError::Pending) } else { Ok(gone) }
    }
}
