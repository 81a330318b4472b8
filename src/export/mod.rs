//! Everything that belongs to a tenant, as files that its customer takes along, and back again.
//!
//! An export is a folder in the export storage, a directory or a bucket: `<tenant id>/<request>/`. `manifest.json` is
//! written last and names every other file with its size and SHA-256, so that a folder with a manifest is complete.
//! Nothing in it depends on when the export ran: two exports of an unchanged tenant are equal, byte for byte. See
//! `docs/export.md`.

mod archive;
mod format;
mod import;
mod records;
mod store;
mod stores;
mod write;

pub use archive::Archive;
pub use format::{Document, FileEntry, MANIFEST, Manifest};
pub use import::{Import, Plan};
pub use store::Store;
pub use stores::Stores;
pub use write::{Export, ExportSize, Source};

use crate::providers::ProviderError;

/// Why an export or an import did not work.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The URL of the storage says nothing that we can open.
    #[error("{0} is not a storage: {1}. Use file:///a/folder or s3://bucket/folder")]
    Url(String, String),
    /// The storage does not answer, or refuses.
    #[error("Export storage: {0}")]
    Store(#[from] object_store::Error),
    /// A provider.
    #[error("{}: {}", .0.provider, .0.message)]
    Provider(#[from] ProviderError),
    /// The folder holds no export, or one that was changed after it was written.
    #[error("{0}")]
    Damaged(String),
    /// A file of this machine cannot be read or written.
    #[error("cannot use {}: {_1}", _0.display())]
    File(std::path::PathBuf, std::io::Error),
    /// The export was told to stop.
    #[error("the export was stopped")]
    Stopped,
}

impl ExportError {
    /// Whether the same again can work.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Url(..) | Self::Damaged(_) | Self::Stopped => false,
            // An admin can fix keys and rights, and the export then goes on.
            Self::Store(_) | Self::Provider(_) | Self::File(..) => true,
        }
    }
}
