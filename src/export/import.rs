//! Brings the documents of an export into another tenant. Everything is checked before the first vector is stored.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use futures::StreamExt;
use sha2::{Digest, Sha256};

use super::format::{DOCUMENTS, FORMAT, OTHERS};
use super::{Document, ExportError, FileEntry, MANIFEST, Manifest, Store};
use crate::api::Timestamp;
use crate::providers::vector_store::{Vector, VectorStore};
use crate::rag::{self, is_passage};

/// Vectors that are stored at a time.
const BATCH: usize = 100;
/// The longest line that is read: a vector with 8,192 dimensions and a long passage is far below.
const LONGEST_LINE: usize = 4 << 20;

/// What an import would do.
pub struct Plan {
    /// What the folder holds.
    pub manifest: Manifest,
    /// Its documents that are not there yet.
    pub missing: Vec<Document>,
}

impl Plan {
    /// The bytes of the documents that are not there yet.
    pub fn bytes(&self) -> i64 {
        self.missing.iter().map(|document| document.bytes).sum()
    }
}

/// An export to bring in.
pub struct Import<'a> {
    /// The folder of the export.
    pub from: &'a Store,
    /// Takes the vectors.
    pub index: &'a dyn VectorStore,
    /// The namespace to store them in.
    pub namespace: &'a str,
}

impl Import<'_> {
    /// Checks every file against the manifest, and finds out what is missing.
    pub async fn plan(&self) -> Result<Plan, ExportError> {
        let bytes = self.from.read(&self.from.file(MANIFEST)).await?;
        let bytes = bytes.ok_or_else(|| {
            ExportError::Damaged(format!("there is no {MANIFEST}: name the folder of an export that is complete"))
        })?;
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|e| ExportError::Damaged(format!("{MANIFEST} cannot be read: {e}")))?;
        if manifest.format != FORMAT {
            let message = format!("the export has format {}, and this version reads {FORMAT}", manifest.format);
            return Err(ExportError::Damaged(message));
        }
        for file in &manifest.files {
            self.verify(file).await?;
        }
        let listed: HashSet<&str> = manifest.files.iter().map(|file| file.path.as_str()).collect();
        let there = self.present().await?;
        let mut missing = Vec::new();
        let mut lines = Lines::open(self.from, DOCUMENTS).await?;
        while let Some(line) = lines.next().await? {
            let document: Document = read(DOCUMENTS, &line)?;
            if !listed.contains(document.file.as_str()) {
                return Err(ExportError::Damaged(format!("{} is not in the manifest", document.file)));
            }
            if !there.contains(&document.id) {
                missing.push(document);
            }
        }
        Ok(Plan { manifest, missing })
    }

    /// Stores a document's vectors: the head last, so that an interrupted document is imported again.
    pub async fn document(&self, document: &Document) -> Result<(), ExportError> {
        let head_id = rag::passage_id(&document.id, 0);
        let mut head = None;
        let keep_head = |vector: Vector| {
            if !rag::is_passage_of(&vector.id, &document.id) {
                return Err(ExportError::Damaged(format!("{} holds a vector of something else", document.file)));
            }
            if vector.id == head_id {
                head = Some(vector);
                return Ok(None);
            }
            Ok(Some(vector))
        };
        self.store(&document.file, keep_head).await?;
        let mut head = head.ok_or_else(|| ExportError::Damaged(format!("{} has no first passage", document.file)))?;
        // It names the upload that another tenant's use was counted for.
        head.metadata.remove(rag::UPLOAD);
        head.metadata.remove(rag::COUNTED_AT);
        Ok(self.index.upsert(self.namespace, &[head]).await?)
    }

    /// Stores the vectors that belong to no document, and answers how many there are.
    pub async fn others(&self) -> Result<u64, ExportError> {
        let others = |vector: Vector| {
            if is_passage(&vector.id) {
                return Err(ExportError::Damaged(format!("{OTHERS} holds a vector of a document")));
            }
            Ok(Some(vector))
        };
        self.store(OTHERS, others).await
    }

    /// Stores the vectors of a file that `take` answers, and answers how many there are.
    async fn store(
        &self,
        file: &str,
        mut take: impl FnMut(Vector) -> Result<Option<Vector>, ExportError>,
    ) -> Result<u64, ExportError> {
        let mut lines = Lines::open(self.from, file).await?;
        let (mut count, mut batch) = (0, Vec::with_capacity(BATCH));
        while let Some(line) = lines.next().await? {
            let Some(vector) = take(read(file, &line)?)? else { continue };
            batch.push(vector);
            count += 1;
            if batch.len() == BATCH {
                self.index.upsert(self.namespace, &batch).await?;
                batch.clear();
            }
        }
        self.index.upsert(self.namespace, &batch).await?;
        Ok(count)
    }

    async fn verify(&self, file: &FileEntry) -> Result<(), ExportError> {
        let outside = file.path.split('/').any(|part| part.is_empty() || part == ".." || part == ".");
        if outside {
            return Err(ExportError::Damaged(format!(
                "the manifest names {:?}, which is outside the folder",
                file.path
            )));
        }
        let mut pieces = std::pin::pin!(self.from.stream(&self.from.file(&file.path)).await?);
        let (mut sum, mut bytes) = (Sha256::new(), 0);
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            sum.update(&piece);
            bytes += piece.len() as u64;
        }
        if bytes != file.bytes || hex::encode(sum.finalize()) != file.sha256 {
            return Err(ExportError::Damaged(format!(
                "{} was changed: its SHA-256 is not the manifest's. Nothing was imported",
                file.path
            )));
        }
        Ok(())
    }

    /// The documents that the namespace holds.
    async fn present(&self) -> Result<BTreeSet<String>, ExportError> {
        let (mut there, mut after) = (BTreeSet::new(), None);
        loop {
            let page = rag::page(self.index, self.namespace, after.as_deref(), Timestamp::now()).await?;
            let ready = page.documents.into_iter().filter(|d| d.state == rag::State::Ready);
            there.extend(ready.map(|document| document.id));
            after = page.next;
            if after.is_none() {
                return Ok(there);
            }
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(file: &str, line: &[u8]) -> Result<T, ExportError> {
    serde_json::from_slice(line).map_err(|e| ExportError::Damaged(format!("a line of {file} cannot be read: {e}")))
}

/// The lines of a file.
struct Lines {
    pieces: futures::stream::BoxStream<'static, Result<Bytes, object_store::Error>>,
    left: Vec<u8>,
}

impl Lines {
    async fn open(store: &Store, file: &str) -> Result<Self, ExportError> {
        Ok(Self { pieces: store.stream(&store.file(file)).await?.boxed(), left: Vec::new() })
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, ExportError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.left[searched..].iter().position(|b| *b == b'\n') {
                let rest = self.left.split_off(searched + at + 1);
                let mut line = std::mem::replace(&mut self.left, rest);
                line.pop();
                return Ok(Some(line));
            }
            searched = self.left.len();
            if searched > LONGEST_LINE {
                return Err(ExportError::Damaged("a line is too long for a vector".into()));
            }
            match self.pieces.next().await {
                Some(piece) => self.left.extend_from_slice(&piece?),
                None if self.left.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.left))),
            }
        }
    }
}
