//! Counts again what one tenant stores.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt, stream};
use kube::ResourceExt;

use super::RecountError;
use crate::api::usage::TakenOver;
use crate::api::{Tenant, TenantStatus, Timestamp, Unit};
use crate::controller::context::Context;
use crate::ledger::account::Period;
use crate::ledger::client::CallError;
use crate::ledger::names;
use crate::ledger::units::Amounts;
use crate::ledger::wire::{CommandOutcome, Dated, SomePeriod, TenantId};
use crate::providers::vector_store::VectorStore;
use crate::rag::{self, Document};

/// Documents that are reported to the ledger at the same time.
const DOCUMENTS: usize = 16;

/// What was counted again, and what was taken away that is no longer stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changed {
    pub counted: Amounts,
    pub gone: Amounts,
}

impl Changed {
    pub fn is_zero(&self) -> bool {
        self.counted.is_zero() && self.gone.is_zero()
    }

    pub fn words(&self) -> String {
        let said =
            |amounts: Amounts| format!("{} documents ({} bytes)", amounts[Unit::Documents], amounts[Unit::Bytes]);
        format!(
            "The ledger lost its data. The controller counted {} that are stored, and removed {} that are no longer stored",
            said(self.counted),
            said(self.gone)
        )
    }
}

/// Whose documents are counted, where they are, and in which period.
pub struct Account<'a> {
    pub context: &'a Context,
    pub id: &'a str,
    pub tenant: TenantId,
    pub period: SomePeriod,
    pub index: &'a dyn VectorStore,
    pub namespace: String,
}

/// The documents that the store lists.
#[derive(Default)]
pub struct Listed {
    /// What the ledger has of them, by their ids.
    pub heads: HashMap<String, Head>,
    /// The ids of those whose head cannot be read.
    pub unread: Vec<String>,
}

/// A document in the store.
pub struct Head {
    /// The upload that counted it.
    pub upload: Option<String>,
    /// What the ledger has of levels under its name.
    pub posted: Amounts,
}

impl<'a> Account<'a> {
    /// Of a tenant. None for one that has no quota, and nothing to count.
    pub fn of(context: &'a Context, tenant: &'a Tenant) -> Result<Option<Self>, RecountError> {
        let Some(status) = &tenant.status else { return Ok(None) };
        let Some(quota) = &status.quota else { return Ok(None) };
        let unclear = |status: &TenantStatus| status.data_unclear_since.or(status.namespace_missing_since).is_some();
        if unclear(status) {
            return Err(RecountError::Unclear);
        }
        let (start, end) = quota.period_at(context.clock.read().now);
        let id = tenant.tenant_id();
        Ok(Some(Self {
            context,
            id,
            tenant: id.to_owned().try_into().map_err(RecountError::Unusable)?,
            period: Period { start, end }.try_into().map_err(RecountError::Unusable)?,
            index: context.providers.indexes.of(tenant.region())?,
            namespace: tenant.data_namespace(),
        }))
    }

    /// Counts every document that the store lists, and adds up what the ledger lacked.
    pub async fn count_listed(&self, unnamed: bool, counted: &mut Amounts) -> Result<Listed, RecountError> {
        let (mut listed, mut after) = (Listed::default(), None);
        loop {
            let now = self.context.clock.read().now;
            let page = rag::page(self.index, &self.namespace, after.as_deref(), now).await?;
            let count = |document: Document| self.count(document, unnamed);
            let mut counts = stream::iter(page.documents).map(count).buffer_unordered(DOCUMENTS);
            while let Some((id, head, new)) = counts.try_next().await? {
                *counted = counted.plus(new);
                listed.heads.insert(id, head);
            }
            drop(counts);
            listed.unread.extend(page.unread);
            let Some(next) = page.next else { return Ok(listed) };
            after = Some(next);
        }
    }

    /// Whether documents without an upload's name are missing: an earlier ledger had them from the annotation that
    /// versions before the ledger wrote, and imports write.
    pub async fn lacks_unnamed(&self, tenant: &Tenant) -> Result<bool, RecountError> {
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

    /// Counts a document, unless the ledger has it. Answers its id, and what of it the ledger has since now.
    async fn count(&self, document: Document, unnamed: bool) -> Result<(String, Head, Amounts), RecountError> {
        let amounts = Amounts::of_document(document.bytes);
        let Document { id, upload, counted_at, .. } = document;
        let Some(name) = upload.clone().or_else(|| unnamed.then(|| counted_at.as_second().to_string())) else {
            return Ok((id, Head { upload, posted: amounts }, Amounts::ZERO));
        };
        let name = names::document(self.id, &id, &name);
        let before = self.tell(&name, Amounts::ZERO, Some(counted_at)).await?.only(true);
        let posted = self.tell(&name, amounts, Some(counted_at)).await?.only(true);
        Ok((id, Head { upload, posted }, posted.minus(before)))
    }
}
