//! Embeds all vectors of one namespace again into a second one, with another model or in another index. Compares them
//! by their metadata, so it can stop anywhere and resume.

use std::time::Instant;

use super::documents::{Document, LONGEST_LAG, LOOK_AGAIN, passage_id};
use crate::providers::ProviderError;
use crate::providers::models::Embedder;
use crate::providers::vector_store::{PROVIDER, Values, Vector, VectorStore};

/// Vectors that are compared and embedded at a time: memory stays the same for any number of them.
const BATCH: usize = 100;

/// Why it stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReembedError {
    /// A provider.
    #[error("{}: {}", .0.provider, .0.message)]
    Provider(#[from] ProviderError),
    /// It is unknown what it was made from.
    #[error("Vector {0} has no text in its metadata, so it cannot be embedded again")]
    NoText(String),
    /// The namespace to copy from is gone, or holds nothing, while the other one holds something: as after the restore
    /// of an older object. A copy would empty the other one.
    #[error(
        "{store} namespace {0} is to be copied and is empty, while the namespace of the copy is not. Nothing was changed",
        store = PROVIDER
    )]
    SourceEmpty(String),
    /// The namespace of the copy holds what the one to copy from does not: it was served from, and the object is older
    /// than that, as after the restore of etcd during a move. A copy would delete what is there alone.
    #[error(
        "{store} namespace {to} holds {only} vectors that {from} does not, so it is no copy of it, as after the restore of an older object. \
         Nothing was changed. The condition DataInOnePlace names both, and `kubectl tenant data choose` chooses one",
        store = PROVIDER
    )]
    TargetAhead {
        /// The namespace to copy from.
        from: String,
        /// The namespace of the copy.
        to: String,
        /// The vectors that are there alone.
        only: u64,
    },
    /// It is not wanted any more.
    #[error("it was stopped")]
    Stopped,
}

impl ReembedError {
    /// Whether trying again can help.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Provider(error) => error.retryable,
            Self::NoText(_) | Self::SourceEmpty(_) | Self::TargetAhead { .. } | Self::Stopped => false,
        }
    }
}

/// What to embed, and where to.
pub struct Reembed<'a> {
    /// Embeds them.
    pub embedder: &'a dyn Embedder,
    /// The index and the namespace to read from.
    pub from: (&'a dyn VectorStore, &'a str),
    /// The index and the namespace to write to.
    pub to: (&'a dyn VectorStore, &'a str),
    /// The model of the new ones.
    pub model: &'a str,
    /// Told of every batch how many vectors were compared so far; false ends it.
    pub on_batch: &'a (dyn Fn(u64) -> bool + Sync),
}

/// What one pass over everything found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Vectors that were compared.
    pub vectors: u64,
    /// Those that were missing, different, or too many.
    pub changed: u64,
}

impl Reembed<'_> {
    /// Makes the second namespace like the first one, as that is when each of its pages is read.
    pub async fn pass(&self) -> Result<Pass, ReembedError> {
        let ((here, from), (there, to)) = (self.from, self.to);
        here.prepare().await?;
        there.prepare().await?;
        there.create_namespace(to).await?;
        let mut pass = Pass::default();
        let mut after = None;
        loop {
            let (ids, next) = here.list(from, "", BATCH, after.as_deref()).await?;
            pass.changed += self.copy(&ids).await?;
            pass.vectors += ids.len() as u64;
            self.tell(&pass)?;
            after = next;
            if after.is_none() {
                break;
            }
        }
        if pass.vectors == 0 && !there.list(to, "", 1, None).await?.0.is_empty() {
            return Err(ReembedError::SourceEmpty(from.to_owned()));
        }
        loop {
            let (ids, next) = there.list(to, "", BATCH, after.as_deref()).await?;
            pass.changed += self.remove(ids).await?;
            self.tell(&pass)?;
            after = next;
            if after.is_none() {
                return Ok(pass);
            }
        }
    }

    /// Refuses a second namespace that holds what the first one does not. The store shows what it took a moment later,
    /// so what is missing is looked for once more.
    pub async fn refuse_target_ahead(&self) -> Result<(), ReembedError> {
        let mut only = self.only_there().await?;
        if only > 0 {
            tokio::time::sleep(LOOK_AGAIN * 4).await;
            only = self.only_there().await?;
        }
        let (from, to) = (self.from.1.to_owned(), self.to.1.to_owned());
        if only > 0 { Err(ReembedError::TargetAhead { from, to, only }) } else { Ok(()) }
    }

    async fn only_there(&self) -> Result<u64, ReembedError> {
        let ((here, from), (there, to)) = (self.from, self.to);
        here.prepare().await?;
        there.prepare().await?;
        there.create_namespace(to).await?;
        let (mut only, mut after) = (0, None);
        loop {
            let (ids, next) = there.list(to, "", BATCH, after.as_deref()).await?;
            only += here.missing(from, ids).await?.len() as u64;
            self.tell(&Pass::default())?;
            after = next;
            if after.is_none() {
                return Ok(only);
            }
        }
    }

    /// Copies one document.
    pub async fn document(&self, document: &Document) -> Result<(), ReembedError> {
        let ids: Vec<_> = (0..document.passages).map(|number| passage_id(&document.id, number)).collect();
        for ids in ids.chunks(BATCH) {
            self.until_shown(ids).await?;
            self.copy(ids).await?;
        }
        Ok(())
    }

    /// Waits until all of these vectors can be read. The store shows a write a moment later, and a vector that it does
    /// not show yet is not copied. A document that is deleted meanwhile never shows again, so the wait is limited.
    async fn until_shown(&self, ids: &[String]) -> Result<(), ReembedError> {
        let start = Instant::now();
        while self.from.0.fetch(self.from.1, ids).await?.len() < ids.len() && start.elapsed() < LONGEST_LAG {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    fn tell(&self, pass: &Pass) -> Result<(), ReembedError> {
        if (self.on_batch)(pass.vectors) { Ok(()) } else { Err(ReembedError::Stopped) }
    }

    /// Embeds those that the second namespace does not have like this.
    async fn copy(&self, ids: &[String]) -> Result<u64, ReembedError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let ((source, from), (target, to)) = (self.from, self.to);
        let there = target.fetch(to, ids).await?;
        let here = source.fetch(from, ids).await?;
        let same = |kept: &Vector| there.get(&kept.id).is_some_and(|copy| copy.metadata == kept.metadata);
        let differ: Vec<_> = here.into_values().filter(|kept| !same(kept)).collect();
        if differ.is_empty() {
            return Ok(0);
        }
        let texts: Result<Vec<_>, _> = differ.iter().map(text).collect();
        // The operator moves the data, so the tokens are the operator's cost: they are not counted against the tenant.
        let embedded = self.embedder.embed(self.model, target.dimension(), &texts?).await?;
        let mut vectors = Vec::with_capacity(differ.len());
        for (kept, values) in differ.into_iter().zip(&embedded.vectors) {
            vectors.push(Vector { values: Values::encode(values)?, ..kept });
        }
        target.upsert(to, &vectors).await?;
        Ok(vectors.len() as u64)
    }

    /// Deletes those that the first namespace does not have any more.
    async fn remove(&self, ids: Vec<String>) -> Result<u64, ReembedError> {
        let gone = self.from.0.missing(self.from.1, ids).await?;
        if !gone.is_empty() {
            self.to.0.delete(self.to.1, &gone).await?;
        }
        Ok(gone.len() as u64)
    }
}

fn text(kept: &Vector) -> Result<&str, ReembedError> {
    kept.text("text").filter(|text| !text.is_empty()).ok_or_else(|| ReembedError::NoText(kept.id.clone()))
}
