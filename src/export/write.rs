//! Writes an export. After a crash, it finds the files that are complete and writes the rest.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::format::{DOCUMENTS, FORMAT, OTHERS, PROGRESS, Written, document_file};
use super::{Document, ExportError, FileEntry, MANIFEST, Manifest, Store, records};
use crate::api::{Tenant, Timestamp};
use crate::providers::stripe::{Payer, Stripe};
use crate::providers::vector_store::{Vector, VectorStore};
use crate::rag::{self, is_passage, passage_id};

/// Vectors that are held in memory at a time.
const BATCH: usize = 100;
/// How often the progress is saved.
const NOTED_EACH: Duration = Duration::from_secs(5);

/// Where the data comes from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The tenant.
    pub tenant: &'a Tenant,
    /// Holds the documents.
    pub index: &'a dyn VectorStore,
    /// Holds the invoices, of a customer who pays by Stripe.
    pub stripe: Option<(&'a Stripe, Payer<'a>)>,
    /// When it is read.
    pub now: Timestamp,
}

/// How much of an export is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportSize {
    /// Files that are written.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// An export to write.
pub struct Export<'a> {
    /// Where to.
    pub store: &'a Store,
    /// Where from.
    pub source: Source<'a>,
    /// Its name.
    pub request: &'a str,
    /// Hears of every file; false ends it.
    pub on_file: &'a (dyn Fn(ExportSize) -> bool + Sync),
}

/// What a run has written.
#[derive(Default)]
struct Run {
    files: Vec<FileEntry>,
    documents: u64,
    vectors: u64,
    /// Of the documents, by their files: also those of an earlier run.
    written: BTreeMap<String, Written>,
    noted: Option<Instant>,
}

impl Export<'_> {
    /// Writes what is not written yet, and the manifest; then deletes what is left of other exports.
    pub async fn run(&self) -> Result<Manifest, ExportError> {
        if let Some(done) = self.done().await? {
            return Ok(done);
        }
        let mut run = Run { written: self.noted().await?, ..Run::default() };
        let written = self.write(&mut run).await;
        if written.is_err() {
            // What was done is not done again.
            self.note(&run).await?;
        }
        written?;
        let manifest = Manifest {
            format: FORMAT,
            tenant_id: self.id().into(),
            embedding_model: self.source.tenant.embedding().map(ToString::to_string).unwrap_or_default(),
            documents: run.documents,
            vectors: run.vectors,
            files: run.files,
        };
        let bytes = encoded(&manifest)?;
        self.store.inner().put(&self.path(MANIFEST), bytes.into()).await?;
        let mut kept: HashSet<_> = manifest.files.iter().map(|file| self.path(&file.path)).collect();
        kept.insert(self.path(MANIFEST));
        self.store.delete_all(self.id(), &|path| kept.contains(path)).await?;
        Ok(manifest)
    }

    fn id(&self) -> &str {
        self.source.tenant.tenant_id()
    }

    fn path(&self, file: &str) -> object_store::path::Path {
        self.store.path(self.id(), self.request, file)
    }

    /// The files that are complete already, such as those of a controller that was killed before it recorded them.
    async fn done(&self) -> Result<Option<Manifest>, ExportError> {
        let there = self.store.read(&self.path(MANIFEST)).await?;
        Ok(there.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    async fn noted(&self) -> Result<BTreeMap<String, Written>, ExportError> {
        let there = self.store.read(&self.path(PROGRESS)).await?;
        Ok(there.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }

    async fn note(&self, run: &Run) -> Result<(), ExportError> {
        self.store.inner().put(&self.path(PROGRESS), encoded(&run.written)?.into()).await?;
        Ok(())
    }

    async fn write(&self, run: &mut Run) -> Result<(), ExportError> {
        let tenant = self.source.tenant;
        self.whole(run, "profile.json", encoded(&records::profile(tenant))?).await?;
        self.whole(run, "consent.json", encoded(&records::consent(tenant))?).await?;
        self.whole(run, "usage.json", encoded(&records::usage(tenant))?).await?;
        let transitions = records::transitions(tenant).map_err(not_json)?;
        self.whole(run, "transitions.jsonl", transitions.into_bytes()).await?;
        let invoices = match &self.source.stripe {
            Some((stripe, payer)) => stripe.invoices(payer).await?,
            None => Vec::new(),
        };
        self.whole(run, "invoices.json", encoded(&json!(invoices))?).await?;
        self.documents(run).await?;
        self.others(run).await
    }

    /// Each document's passages in a file of their own, and a list of the documents.
    async fn documents(&self, run: &mut Run) -> Result<(), ExportError> {
        let namespace = self.source.tenant.data_namespace();
        let mut list = File::create(self.store, self.path(DOCUMENTS));
        let mut after = None;
        loop {
            let page = rag::page(self.source.index, &namespace, after.as_deref(), self.source.now).await?;
            for document in page.documents {
                let file = document_file(&document.id);
                let there = run.written.get(&file).filter(|written| written.of == document.uploaded_at).cloned();
                let written = match there {
                    Some(written) => written,
                    None => self.passages(&namespace, &document, &file).await?,
                };
                let line = Document {
                    id: document.id,
                    title: document.title,
                    media_type: document.media_type,
                    bytes: document.bytes,
                    passages: document.passages,
                    uploaded_at: document.uploaded_at,
                    file: file.clone(),
                };
                list.line(&line).await?;
                (run.documents, run.vectors) = (run.documents + 1, run.vectors + written.vectors);
                run.files.push(written.entry.clone());
                run.written.insert(file, written);
                self.tell(run)?;
                if run.noted.get_or_insert_with(Instant::now).elapsed() >= NOTED_EACH {
                    self.note(run).await?;
                    run.noted = Some(Instant::now());
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        run.files.push(list.close(DOCUMENTS).await?);
        self.tell(run)
    }

    async fn passages(&self, namespace: &str, of: &rag::Document, file: &str) -> Result<Written, ExportError> {
        let mut to = File::create(self.store, self.path(file));
        let ids: Vec<_> = (0..of.passages).map(|number| passage_id(&of.id, number)).collect();
        let vectors = self.copy(namespace, &ids, &mut to).await?;
        Ok(Written { entry: to.close(file).await?, vectors, of: of.uploaded_at })
    }

    /// The vectors that belong to no document.
    async fn others(&self, run: &mut Run) -> Result<(), ExportError> {
        let namespace = self.source.tenant.data_namespace();
        let mut to = File::create(self.store, self.path(OTHERS));
        let mut after = None;
        loop {
            let (ids, next) = self.source.index.list(&namespace, "", BATCH, after.as_deref()).await?;
            let ids: Vec<_> = ids.into_iter().filter(|id| !is_passage(id)).collect();
            run.vectors += self.copy(&namespace, &ids, &mut to).await?;
            after = next;
            if after.is_none() {
                break;
            }
        }
        run.files.push(to.close(OTHERS).await?);
        self.tell(run)
    }

    /// Vectors in the order of `ids`; those that are gone meanwhile are left out.
    async fn copy(&self, namespace: &str, ids: &[String], to: &mut File) -> Result<u64, ExportError> {
        let mut count = 0;
        for ids in ids.chunks(BATCH) {
            let mut vectors: BTreeMap<String, Vector> = self.source.index.fetch(namespace, ids).await?;
            for vector in ids.iter().filter_map(|id| vectors.remove(id)) {
                to.line(&vector).await?;
                count += 1;
            }
        }
        Ok(count)
    }

    async fn whole(&self, run: &mut Run, path: &str, bytes: Vec<u8>) -> Result<(), ExportError> {
        let entry =
            FileEntry { path: path.into(), bytes: bytes.len() as u64, sha256: hex::encode(Sha256::digest(&bytes)) };
        self.store.inner().put(&self.path(path), bytes.into()).await?;
        run.files.push(entry);
        self.tell(run)
    }

    fn tell(&self, run: &Run) -> Result<(), ExportError> {
        let bytes = run.files.iter().map(|file| file.bytes).sum();
        let go_on = (self.on_file)(ExportSize { files: run.files.len() as u64, bytes });
        if go_on { Ok(()) } else { Err(ExportError::Stopped) }
    }
}

/// A file that is written piece by piece, and appears in the storage once it is complete.
struct File {
    writer: BufWriter,
    sum: Sha256,
    bytes: u64,
}

impl File {
    fn create(store: &Store, path: object_store::path::Path) -> Self {
        Self { writer: BufWriter::new(store.inner().clone(), path), sum: Sha256::new(), bytes: 0 }
    }

    async fn line(&mut self, record: &impl Serialize) -> Result<(), ExportError> {
        let mut line = serde_json::to_vec(record).map_err(not_json)?;
        line.push(b'\n');
        self.sum.update(&line);
        self.bytes += line.len() as u64;
        Ok(self.writer.put(Bytes::from(line)).await?)
    }

    async fn close(mut self, path: &str) -> Result<FileEntry, ExportError> {
        self.writer.shutdown().await.map_err(|error| {
            let source = Box::new(error);
            object_store::Error::Generic { store: "export", source }
        })?;
        Ok(FileEntry { path: path.into(), bytes: self.bytes, sha256: hex::encode(self.sum.finalize()) })
    }
}

/// JSON for people: indented, and with a line end.
fn encoded(value: &impl Serialize) -> Result<Vec<u8>, ExportError> {
    let value: Value = serde_json::to_value(value).map_err(not_json)?;
    let mut bytes = serde_json::to_vec_pretty(&value).map_err(not_json)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[allow(clippy::needless_pass_by_value)]
fn not_json(error: serde_json::Error) -> ExportError {
    ExportError::Damaged(format!("a record cannot be written as JSON: {error}"))
}
