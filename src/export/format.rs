//! The files of an export.

use serde::{Deserialize, Serialize};

use crate::api::Timestamp;

/// The number of this format. A reader refuses those that it does not know.
pub const FORMAT: u32 = 1;
/// Names every other file.
pub const MANIFEST: &str = "manifest.json";
/// Which files are written already, of an export that runs.
pub const PROGRESS: &str = "progress.json";
/// A line for each document.
pub const DOCUMENTS: &str = "documents.jsonl";
/// The vectors that belong to no document, such as the samples.
pub const OTHERS: &str = "other-vectors.jsonl";

/// The list of the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The number of the format.
    pub format: u32,
    /// Whose data it is.
    pub tenant_id: String,
    /// The model that made the vectors. They fit no other.
    pub embedding_model: String,
    /// How many documents there are.
    pub documents: u64,
    /// How many vectors there are, those of documents included.
    pub vectors: u64,
    /// Every file but this one.
    pub files: Vec<FileEntry>,
}

impl Manifest {
    /// The size of all files in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// A file of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its path in the folder.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// A line of `documents.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Its id, which follows from the content of the file that was uploaded.
    pub id: String,
    /// Its name.
    pub title: String,
    /// `application/pdf` or `text/plain`.
    pub media_type: String,
    /// The size of the file that was uploaded.
    pub bytes: i64,
    /// The passages that it was cut into.
    pub passages: usize,
    /// When it was uploaded.
    pub uploaded_at: Timestamp,
    /// The file with its passages and their vectors, a line each.
    pub file: String,
}

/// A file that is written, as an export that runs remembers it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Written {
    /// The file.
    pub entry: FileEntry,
    /// The vectors in it.
    pub vectors: u64,
    /// What it was made from: the time of the upload. The same document may be uploaded again with other passages.
    pub of: Timestamp,
}

/// The file of a document.
pub fn document_file(id: &str) -> String {
    format!("documents/{id}.jsonl")
}
