//! An export as one tar file, made while it is sent: nothing of it is held in memory or on a disk.

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use tar::{EntryType, Header};

use super::{ExportError, FileEntry, MANIFEST, Manifest, Store};

/// The size of a block of a tar file; everything in it fills whole blocks.
const BLOCK: u64 = 512;

/// An export to send.
pub struct Archive {
    store: Store,
    tenant_id: String,
    request: String,
    files: Vec<FileEntry>,
    manifest: Bytes,
}

impl Archive {
    /// The complete export of that name. None if there is none.
    pub async fn open(store: &Store, tenant_id: &str, request: &str) -> Result<Option<Self>, ExportError> {
        let Some(manifest) = store.read(&store.path(tenant_id, request, MANIFEST)).await? else { return Ok(None) };
        let read: Manifest = serde_json::from_slice(&manifest)
            .map_err(|e| ExportError::Damaged(format!("{MANIFEST} of the export cannot be read: {e}")))?;
        Ok(Some(Self {
            store: store.clone(),
            tenant_id: tenant_id.to_owned(),
            request: request.to_owned(),
            files: read.files,
            manifest,
        }))
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        let file = |bytes: u64| BLOCK + bytes.next_multiple_of(BLOCK);
        self.files.iter().map(|f| file(f.bytes)).sum::<u64>() + file(self.manifest.len() as u64) + 2 * BLOCK
    }

    /// The tar file. Stops with an error if a file differs from the manifest.
    pub fn stream(self) -> BoxStream<'static, Result<Bytes, ExportError>> {
        let Self { store, tenant_id, request, files, manifest } = self;
        let size = manifest.len() as u64;
        let first = [header(MANIFEST, size), Ok(manifest), Ok(padding(size))];
        let rest = files.into_iter().map(move |file| {
            let path = store.path(&tenant_id, &request, &file.path);
            let store = store.clone();
            let content = async move { Ok::<_, ExportError>(checked(store.stream(&path).await?, file.bytes)) };
            let head = stream::once(std::future::ready(header(&file.path, file.bytes)));
            head.chain(stream::once(content).try_flatten())
                .chain(stream::once(std::future::ready(Ok(padding(file.bytes)))))
        });
        let end = Bytes::from(vec![0; 2 * 512]);
        stream::iter(first).chain(stream::iter(rest).flatten()).chain(stream::once(std::future::ready(Ok(end)))).boxed()
    }
}

/// Fails if the stream holds more or fewer bytes than this.
fn checked(
    pieces: impl stream::Stream<Item = Result<Bytes, object_store::Error>>,
    bytes: u64,
) -> impl stream::Stream<Item = Result<Bytes, ExportError>> {
    let end = stream::once(std::future::ready(Ok(Bytes::new())));
    let pieces = pieces.map_err(ExportError::from).map_ok(Some).chain(end.map_ok(|_: Bytes| None));
    pieces
        .scan(0, move |seen, piece| {
            let piece = piece.and_then(|piece| {
                *seen += piece.as_ref().map_or(0, |piece| piece.len() as u64);
                let wrong = *seen > bytes || (piece.is_none() && *seen != bytes);
                let damaged =
                    || ExportError::Damaged("a file of the export has another size than it was written with".into());
                if wrong { Err(damaged()) } else { Ok(piece) }
            });
            std::future::ready(Some(piece))
        })
        .try_filter_map(|piece| std::future::ready(Ok(piece)))
}

/// The header of a file. Ids fit into the names of this format.
fn header(path: &str, bytes: u64) -> Result<Bytes, ExportError> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
        .set_path(format!("export/{path}"))
        .map_err(|e| ExportError::Damaged(format!("a file of the export has a path that no archive can hold: {e}")))?;
    header.set_cksum();
    Ok(Bytes::copy_from_slice(header.as_bytes()))
}

/// Fills the last block.
fn padding(bytes: u64) -> Bytes {
    let missing = bytes.next_multiple_of(BLOCK) - bytes;
    Bytes::from(vec![0; usize::try_from(missing).unwrap_or(0)])
}
