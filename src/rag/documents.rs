//! A tenant's documents in its namespace of the vector store.
//!
//! The vector `d/<id>` is a document's head: its first passage, and in its metadata all that is known of the document.
//! The other passages are `c/<id>/<number>`. The head is written first, as `processing`, and again at the end, as
//! `ready`: what a crash leaves behind is listed, can be deleted, and is completed by uploading the same content again.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::api::Timestamp;
use crate::api::plan::Models;
use crate::providers::ProviderError;
use crate::providers::models::Embedder;
use crate::providers::vector_store::{Metadata, Values, Vector, VectorStore};

/// Passages that are embedded and stored at a time: memory stays the same for a document of any length.
const BATCH: usize = 96;
/// Documents of a page.
const PAGE: usize = 100;
/// How long an upload waits until queries find what it stored.
pub const LONGEST_LAG: Duration = Duration::from_secs(15);
/// How soon it looks again.
pub const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Vectors that such a look compares: documents that begin alike have equal first passages.
const NEAREST: usize = 10;
/// A document that is still `processing` after so many seconds will not become ready by itself.
const STUCK: i64 = 15 * 60;

/// The metadata of a head that tells an upload from others of the same content.
pub const UPLOAD: &str = "upload";
/// The metadata of a head with the time of that upload, where a later one has completed it.
pub const COUNTED_AT: &str = "counted_at";

/// How far a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(example = "ready")]
pub enum State {
    /// Its passages are being stored.
    Processing,
    /// Questions find it.
    Ready,
    /// It was never finished. Upload it again, or delete it.
    Failed,
}

/// A document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Document {
    /// Its id, which follows from its content.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015")]
    pub id: String,
    /// Its name.
    #[schema(example = "Vacation policy")]
    pub title: String,
    /// `application/pdf` or `text/plain`.
    #[schema(example = "application/pdf")]
    pub media_type: String,
    /// The size of the file in bytes.
    #[schema(example = 48213)]
    pub bytes: i64,
    /// Passages that it was cut into.
    #[schema(example = 14)]
    pub passages: usize,
    /// How far it is.
    pub state: State,
    /// When it was uploaded.
    #[schema(value_type = String, format = DateTime, example = "2026-12-09T17:31:36Z")]
    pub uploaded_at: Timestamp,
    /// Tells the upload that counted it from others of the same content, even in the same second: the ledger counts each
    /// once. It stays the same where a later upload completes the document. Documents of versions without the ledger, and
    /// imported ones, have none.
    #[serde(skip)]
    pub upload: Option<String>,
    /// When that upload was.
    #[serde(skip)]
    pub counted_at: Timestamp,
}

/// A page of documents.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page {
    /// The documents.
    pub documents: Vec<Document>,
    /// Where the next page begins, if there is one.
    #[schema(example = "eyJza2lwIjoxMDB9")]
    pub next: Option<String>,
    /// The ids of documents that the store lists, and whose head it does not return, or returns without what a head holds.
    /// They are damaged, or the store shows a change late.
    #[serde(skip)]
    pub unread: Vec<String>,
}

/// The id of a document with this content.
pub fn document_id(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..16])
}

fn head_id(id: &str) -> String {
    format!("d/{id}")
}

/// The id of the document whose head this is, if it is one.
fn document_of(head_id: &str) -> Option<&str> {
    head_id.strip_prefix("d/")
}

/// The id of a document's passage. The first one, 0, is the head.
pub fn passage_id(id: &str, number: usize) -> String {
    if number == 0 { head_id(id) } else { format!("c/{id}/{number}") }
}

/// The documents of one tenant.
pub struct Documents<'a> {
    /// Stores them.
    pub index: &'a dyn VectorStore,
    /// Embeds them.
    pub embedder: &'a dyn Embedder,
    /// The tenant's own namespace.
    pub namespace: &'a str,
    /// Its models.
    pub models: &'a Models,
}

impl Documents<'_> {
    /// Stores a document's passages, and answers the document as it is then. Storing it again changes nothing. Tells
    /// the tokens of each batch as soon as they are spent.
    pub async fn store(
        &self,
        document: &Document,
        passages: &[&str],
        on_tokens: &(dyn Fn(u64) + Sync),
    ) -> Result<Document, ProviderError> {
        let mut head = None;
        for (at, batch) in passages.chunks(BATCH).enumerate() {
            let first = at * BATCH;
            let embedded = self.embedder.embed(&self.models.embedding, self.index.dimension(), batch).await?;
            on_tokens(embedded.tokens);
            let mut stored = Vec::with_capacity(batch.len());
            for (i, (values, passage)) in embedded.vectors.iter().zip(batch).enumerate() {
                let values = Values::encode(values)?;
                head.get_or_insert_with(|| (*passage, values.clone()));
                stored.push(vector(document, first + i, passage, values));
            }
            self.index.upsert(self.namespace, &stored).await?;
        }
        let ready = Document { state: State::Ready, ..document.clone() };
        if let Some((passage, values)) = head {
            self.index.upsert(self.namespace, &[vector(&ready, 0, passage, values.clone())]).await?;
            self.until_found(&head_id(&document.id), &values).await;
        }
        Ok(ready)
    }

    /// Waits until a query finds a head that is `ready`: the store shows what it took a moment later. It was taken, so
    /// neither a long moment nor a query that fails is an error.
    async fn until_found(&self, id: &str, values: &Values) {
        let start = Instant::now();
        while start.elapsed() < LONGEST_LAG {
            match self.index.query(self.namespace, values, NEAREST).await {
                // An older version of the head is served meanwhile: it is found, and is not the one that was stored.
                Ok(found) if found.iter().any(|found| found.id == id && is_ready(&found.metadata)) => return,
                Ok(_) => tokio::time::sleep(LOOK_AGAIN).await,
                Err(error) => {
                    tracing::warn!(%error, "could not check whether queries find a stored document");
                    return;
                }
            }
        }
        tracing::warn!(id, "a stored document is not found by queries yet");
    }

    /// The document of that id, as it is now.
    pub async fn get(&self, id: &str, now: Timestamp) -> Result<Option<Document>, ProviderError> {
        // The id comes from the customer's request, so its form is checked.
        if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let found = self.index.fetch(self.namespace, &[head_id(id)]).await?;
        Ok(found.values().find_map(|head| document(head, now)))
    }

    /// A page of documents, in the order of their ids.
    pub async fn list(&self, after: Option<&str>, now: Timestamp) -> Result<Page, ProviderError> {
        page(self.index, self.namespace, after, now).await
    }

    /// Deletes a document: the head last, so that a deletion that breaks off can be repeated.
    pub async fn delete(&self, document: &Document) -> Result<(), ProviderError> {
        let passages: Vec<_> = (1..document.passages).map(|n| passage_id(&document.id, n)).collect();
        self.index.delete(self.namespace, &passages).await?;
        self.index.delete(self.namespace, &[head_id(&document.id)]).await?;
        self.until_gone(&head_id(&document.id)).await;
        Ok(())
    }

    /// Waits until a deleted head is no longer read. Until then, the same file uploaded again would be taken for
    /// stored, and a second deletion would be counted again.
    async fn until_gone(&self, id: &str) {
        let start = Instant::now();
        while start.elapsed() < LONGEST_LAG {
            match self.index.fetch(self.namespace, &[id.to_owned()]).await {
                Ok(found) if found.is_empty() => return,
                Ok(_) => tokio::time::sleep(LOOK_AGAIN).await,
                Err(error) => {
                    tracing::warn!(%error, "could not check whether a deleted document is gone");
                    return;
                }
            }
        }
        tracing::warn!(id, "a deleted document is still read");
    }
}

fn is_ready(metadata: &Metadata) -> bool {
    metadata.get("state").and_then(Value::as_str) == Some("ready")
}

/// A page of the documents in a namespace, in the order of their ids.
pub async fn page(
    index: &dyn VectorStore,
    namespace: &str,
    after: Option<&str>,
    now: Timestamp,
) -> Result<Page, ProviderError> {
    let (ids, next) = index.list(namespace, "d/", PAGE, after).await?;
    let found = if ids.is_empty() { BTreeMap::new() } else { index.fetch(namespace, &ids).await? };
    let documents: Vec<_> = found.values().filter_map(|head| document(head, now)).collect();
    let read: HashSet<_> = documents.iter().map(|document| head_id(&document.id)).collect();
    let unread = ids.iter().filter(|id| !read.contains(*id));
    let unread: Vec<_> = unread.filter_map(|id| document_of(id)).map(str::to_owned).collect();
    if !unread.is_empty() {
        tracing::warn!(namespace, ?unread, "documents are listed whose first part cannot be read");
    }
    Ok(Page { documents, next, unread })
}

/// Which of these documents have a head in the store, whether or not it lists them.
pub async fn heads_of(
    index: &dyn VectorStore,
    namespace: &str,
    documents: &[&str],
) -> Result<Vec<String>, ProviderError> {
    if documents.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<_> = documents.iter().map(|id| head_id(id)).collect();
    let found = index.fetch(namespace, &ids).await?;
    Ok(found.keys().filter_map(|id| document_of(id)).map(str::to_owned).collect())
}

/// Whether a vector of this id is part of that document.
pub fn is_passage_of(id: &str, document: &str) -> bool {
    document_of(id) == Some(document)
        || id.strip_prefix("c/").and_then(|rest| rest.split_once('/')).is_some_and(|(of, _)| of == document)
}

/// Whether a vector of this id is part of a document.
pub fn is_passage(id: &str) -> bool {
    id.starts_with("d/") || id.starts_with("c/")
}

/// A passage as it is stored. The head of a document knows all of it.
fn vector(document: &Document, number: usize, passage: &str, values: Values) -> Vector {
    let mut metadata = BTreeMap::from([
        ("text".to_owned(), json!(passage)),
        ("document_id".to_owned(), json!(document.id)),
        ("title".to_owned(), json!(document.title)),
        ("passage".to_owned(), json!(number)),
    ]);
    if number == 0 {
        metadata.extend([
            ("media_type".to_owned(), json!(document.media_type)),
            ("bytes".to_owned(), json!(document.bytes)),
            ("passages".to_owned(), json!(document.passages)),
            ("state".to_owned(), json!(document.state)),
            ("uploaded_at".to_owned(), json!(document.uploaded_at)),
        ]);
        // The store takes no null.
        metadata.extend(document.upload.as_ref().map(|upload| (UPLOAD.to_owned(), json!(upload))));
        let completed = document.counted_at != document.uploaded_at;
        metadata.extend(completed.then(|| (COUNTED_AT.to_owned(), json!(document.counted_at))));
    }
    Vector { id: passage_id(&document.id, number), values, metadata }
}

/// Reads a head. A store may keep numbers as floating point.
fn document(head: &Vector, now: Timestamp) -> Option<Document> {
    #[allow(clippy::cast_possible_truncation)]
    let whole = |name: &str| head.metadata.get(name)?.as_f64().map(|n| n as i64);
    let text = |name: &str| head.text(name).map(str::to_owned);
    let uploaded_at: Timestamp = head.text("uploaded_at")?.parse().ok()?;
    let state = match head.text("state") {
        Some("ready") => State::Ready,
        _ if now.since(uploaded_at) > STUCK => State::Failed,
        _ => State::Processing,
    };
    Some(Document {
        id: document_of(&head.id)?.to_owned(),
        title: text("title")?,
        media_type: text("media_type")?,
        bytes: whole("bytes")?,
        passages: usize::try_from(whole("passages")?).ok()?,
        state,
        uploaded_at,
        upload: text(UPLOAD),
        counted_at: head.text(COUNTED_AT).map_or(Some(uploaded_at), |at| at.parse().ok())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let now = Timestamp::now();
        let written = Document {
            id: document_id(b"text"),
            title: "Policy".into(),
            media_type: "text/plain".into(),
            bytes: 4,
            passages: 3,
            state: State::Ready,
            uploaded_at: Timestamp::from_second(now.as_second()),
            upload: Some("0123".into()),
            counted_at: Timestamp::from_second(now.as_second() - 9),
        };
        let values = Values::encode(&[0.5]).expect("JSON");
        let mut head = vector(&written, 0, "text", values.clone());
        head.metadata.insert("bytes".into(), json!(4.0));
        assert_eq!(document(&head, now), Some(written.clone()));
        let other = vector(&written, 2, "more", values);
        assert!(other.id.starts_with("c/") && document(&other, now).is_none());
        let mut first = head.clone();
        first.metadata.remove(COUNTED_AT);
        assert_eq!(document(&first, now).map(|read| read.counted_at), Some(written.uploaded_at), "no later upload");

        head.metadata.insert("state".into(), json!("processing"));
        assert_eq!(document(&head, now).expect("a head").state, State::Processing);
        assert_eq!(document(&head, now.plus(STUCK + 1)).expect("a head").state, State::Failed);
    }
}
