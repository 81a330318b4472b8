//! The export storage: a directory or an S3-compatible bucket.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::AsyncWriteExt;
use url::Url;

use super::ExportError;

fn failed(local: &std::path::Path, error: std::io::Error) -> ExportError {
    ExportError::File(local.to_owned(), error)
}

/// Where exports are kept.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    /// The folder in it.
    prefix: Path,
    /// The directory, if the storage is one.
    directory: Option<PathBuf>,
    url: String,
}

impl Store {
    /// Opens `file:///a/folder` or `s3://bucket/folder`. A directory is made if it is not there. Keys, region and
    /// endpoint of S3 are those of the AWS tools, such as `AWS_ACCESS_KEY_ID` and `AWS_ENDPOINT_URL`; a region that is
    /// named here counts instead of `AWS_REGION`.
    pub fn open(text: &str, region: Option<&str>) -> Result<Self, ExportError> {
        let wrong = |why: &dyn std::fmt::Display| ExportError::Url(text.to_owned(), why.to_string());
        let url = Url::parse(text).map_err(|e| wrong(&e))?;
        let text = text.trim_end_matches('/').to_owned();
        match url.scheme() {
            "file" => {
                let path = url.to_file_path().map_err(|()| wrong(&"it has no absolute path"))?;
                std::fs::create_dir_all(&path).map_err(|e| wrong(&e))?;
                let inner =
                    LocalFileSystem::new_with_prefix(&path).map_err(|e| wrong(&e))?.with_automatic_cleanup(true);
                Ok(Self { inner: Arc::new(inner), prefix: Path::default(), directory: Some(path), url: text })
            }
            "s3" => {
                let builder = AmazonS3Builder::from_env().with_url(url.as_str());
                let builder = match region {
                    Some(region) => builder.with_region(region),
                    None => builder,
                };
                let inner = builder.build().map_err(|e| wrong(&e))?;
                let prefix = Path::from_url_path(url.path()).map_err(|e| wrong(&e))?;
                Ok(Self { inner: Arc::new(inner), prefix, directory: None, url: text })
            }
            other => Err(wrong(&format!("{other}: is not supported"))),
        }
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether an export's folder is in it.
    pub fn holds(&self, folder: &str) -> bool {
        folder.strip_prefix(&self.url).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The folder of an export, as people write it.
    pub fn folder(&self, tenant_id: &str, request: &str) -> String {
        format!("{}/{tenant_id}/{request}", self.url)
    }

    /// A file of an export. Ids and requests hold neither slash nor dot.
    pub fn path(&self, tenant_id: &str, request: &str, file: &str) -> Path {
        self.file(&format!("{tenant_id}/{request}/{file}"))
    }

    /// A file of the folder that was opened.
    pub fn file(&self, file: &str) -> Path {
        file.split('/').fold(self.prefix.clone(), Path::join)
    }

    pub(super) fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    /// A small file. None if it does not exist.
    pub async fn read(&self, path: &Path) -> Result<Option<Bytes>, ExportError> {
        match self.inner.get(path).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A file piece by piece.
    pub async fn stream(
        &self,
        path: &Path,
    ) -> Result<impl futures::Stream<Item = Result<Bytes, object_store::Error>> + use<>, ExportError> {
        Ok(self.inner.get(path).await?.into_stream())
    }

    /// Writes a local file to a name in the folder that was opened.
    pub async fn upload(&self, local: &std::path::Path, name: &str) -> Result<(), ExportError> {
        let mut file = tokio::fs::File::open(local).await.map_err(|error| failed(local, error))?;
        let mut writer = BufWriter::new(self.inner.clone(), self.file(name));
        let copied = tokio::io::copy(&mut file, &mut writer).await;
        if let Err(error) = copied {
            writer.abort().await?;
            return Err(failed(local, error));
        }
        writer.shutdown().await.map_err(|error| failed(local, error))
    }

    /// Reads a name of the folder that was opened into a local file, which is made.
    pub async fn download(&self, name: &str, local: &std::path::Path) -> Result<(), ExportError> {
        let mut file = tokio::fs::File::create(local).await.map_err(|error| failed(local, error))?;
        let mut pieces = self.stream(&self.file(name)).await?;
        while let Some(piece) = pieces.next().await {
            file.write_all(&piece?).await.map_err(|error| failed(local, error))?;
        }
        file.sync_all().await.map_err(|error| failed(local, error))
    }

    /// The names in the folder that was opened, of files in folders that begin so.
    pub async fn names(&self, begin: &str) -> Result<Vec<String>, ExportError> {
        let found: Vec<_> = self.inner.list(Some(&self.prefix)).try_collect().await?;
        let below = |path: &Path| {
            let parts: Vec<_> = path.prefix_match(&self.prefix)?.map(|part| part.as_ref().to_owned()).collect();
            Some(parts.join("/"))
        };
        Ok(found.iter().filter_map(|found| below(&found.location)).filter(|name| name.starts_with(begin)).collect())
    }

    /// Deletes a name of the folder that was opened. Succeeds if it is not there.
    pub async fn remove(&self, name: &str) -> Result<(), ExportError> {
        match self.inner.delete(&self.file(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// How many files there are of a tenant.
    pub async fn count(&self, tenant_id: &str) -> Result<u64, ExportError> {
        let folder = self.prefix.clone().join(tenant_id);
        let all = self.inner.list(Some(&folder)).try_fold(0, |count, _| std::future::ready(Ok(count + 1)));
        Ok(all.await?)
    }

    /// Deletes all files of a tenant but those that `keep` holds.
    pub async fn delete_all(&self, tenant_id: &str, keep: &(dyn Fn(&Path) -> bool + Sync)) -> Result<(), ExportError> {
        let folder = self.prefix.clone().join(tenant_id);
        let mut paths = Vec::new();
        let mut found = self.inner.list(Some(&folder));
        while let Some(object) = found.next().await {
            let path = object?.location;
            if !keep(&path) {
                paths.push(Ok(path));
            }
        }
        let deleted = self.inner.delete_stream(futures::stream::iter(paths).boxed());
        deleted.try_for_each(|_| std::future::ready(Ok(()))).await?;
        Ok(())
    }

    /// Deletes everything of a tenant, including the remains of interrupted writes.
    pub async fn erase(&self, tenant_id: &str) -> Result<(), ExportError> {
        self.delete_all(tenant_id, &|_| false).await?;
        if let Some(directory) = &self.directory {
            match tokio::fs::remove_dir_all(directory.join(tenant_id)).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    let source = Box::new(error);
                    return Err(object_store::Error::Generic { store: "directory", source }.into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}
