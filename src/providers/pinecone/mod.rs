//! Pinecone, API version 2026-04: namespaces and vectors of one serverless index.

mod limits;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::RequestBuilder;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use limits::{BATCH_VECTORS, FETCH_IDS, batches};

use super::gate::Gate;
use super::vector_store::{IndexIdentity, Match, Metadata, Values, Vector, VectorStore};
use super::{CallLimits, Caller, ProviderError};
use crate::lifecycle::{Blame, Fault, Provider};

const PROVIDER: Provider = Provider::VectorStore;
const API_VERSION: &str = "2026-04";

/// Where Pinecone is and which index is ours.
#[derive(Clone, Debug)]
pub struct PineconeConfig {
    /// The control plane.
    pub url: String,
    /// The API key.
    pub api_key: SecretString,
    /// The index.
    pub index: String,
    /// How it may be called.
    pub calls: CallLimits,
}

/// A client of one index. Pinecone shows what it took a moment later
/// (<https://docs.pinecone.io/guides/index-data/check-data-freshness>).
#[derive(Debug)]
pub struct Pinecone {
    config: PineconeConfig,
    caller: Caller,
    gate: Gate,
    data_plane: RwLock<Option<Arc<DataPlane>>>,
    /// Held by the caller that asks for the host.
    asking: Mutex<()>,
}

/// Where the data plane of the index is.
#[derive(Debug, PartialEq, Eq)]
struct DataPlane {
    /// Its base URL.
    url: String,
    /// The length of its vectors.
    dimension: u64,
}

impl DataPlane {
    fn new(host: &str, dimension: u64) -> Self {
        let url = if host.contains("://") { host.to_owned() } else { format!("https://{host}") };
        Self { url, dimension }
    }
}

/// An index, as the control plane describes it.
#[derive(Deserialize)]
struct Described {
    #[serde(default)]
    name: String,
    host: String,
    #[serde(default)]
    dimension: u64,
}

/// A vector, as a read shows it.
#[derive(Deserialize)]
struct Kept {
    values: Values,
    metadata: Option<Metadata>,
}

/// A namespace. Its name is absent where it was asked for by its name.
#[derive(Deserialize)]
struct Namespace {
    #[serde(default)]
    name: String,
    #[serde(default)]
    record_count: Value,
}

#[derive(Deserialize)]
struct Pagination {
    next: Option<String>,
}

/// Where the next page begins, if there is one.
fn next(pagination: Option<Pagination>) -> Option<String> {
    pagination?.next.filter(|next| !next.is_empty())
}

#[derive(Deserialize)]
struct QueryAnswer {
    #[serde(default)]
    matches: Vec<Match>,
}

impl Pinecone {
    /// A client; nothing is called yet.
    pub fn new(config: PineconeConfig) -> Self {
        let caller = Caller::new(PROVIDER, config.calls);
        Self { config, caller, gate: Gate::new(PROVIDER), data_plane: RwLock::default(), asking: Mutex::default() }
    }

    fn request(&self, request: RequestBuilder) -> RequestBuilder {
        request.header("Api-Key", self.config.api_key.expose_secret()).header("X-Pinecone-Api-Version", API_VERSION)
    }

    fn data_plane(&self) -> Option<Arc<DataPlane>> {
        self.data_plane.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_data_plane(&self, data_plane: DataPlane) -> Arc<DataPlane> {
        let data_plane = Arc::new(data_plane);
        *self.data_plane.write().unwrap_or_else(PoisonError::into_inner) = Some(data_plane.clone());
        data_plane
    }

    /// The data plane's base URL. One caller asks the control plane for it; until it knows the answer, other callers
    /// get a retryable error instead of waiting.
    async fn host(&self) -> Result<String, ProviderError> {
        self.gate.pass().await?;
        if let Some(data_plane) = self.data_plane() {
            return Ok(data_plane.url.clone());
        }
        let Ok(_asking) = self.asking.try_lock() else {
            return Err(ProviderError {
                provider: PROVIDER,
                status: None,
                reason: Fault::Unavailable,
                message: "has not told the index's address yet".into(),
                blame: Blame::Outage,
                retryable: true,
                retry_after: Some(Duration::from_secs(1)),
                tokens: None,
            });
        };
        Ok(self.ask_host().await?.url.clone())
    }

    /// To be called with the right to ask.
    async fn ask_host(&self) -> Result<Arc<DataPlane>, ProviderError> {
        if let Some(data_plane) = self.data_plane() {
            return Ok(data_plane);
        }
        let there = self.identity().await?;
        Ok(self.set_data_plane(DataPlane::new(&there.host, there.dimension)))
    }

    async fn post<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ProviderError> {
        let url = format!("{}{path}", self.host().await?);
        let body = serde_json::to_vec(body).map_err(|e| ProviderError::garbage(PROVIDER, e))?;
        self.caller
            .repeatable_json(|c| {
                self.request(c.post(&url)).header("content-type", "application/json").body(body.clone())
            })
            .await
    }
}

#[async_trait]
impl VectorStore for Pinecone {
    fn caller(&self) -> &Caller {
        &self.caller
    }

    fn gate(&self) -> &Gate {
        &self.gate
    }

    /// What the control plane says of the index.
    async fn identity(&self) -> Result<IndexIdentity, ProviderError> {
        let url = format!("{}/indexes/{}", self.config.url, self.config.index);
        let described = self.caller.json(|c| self.request(c.get(&url))).await;
        let Described { name, host, dimension } = described.map_err(|e: ProviderError| {
            if !e.is_not_found() {
                return e;
            }
            let message = format!("has no index named {}: create it, or correct PINECONE_INDEX", self.config.index);
            ProviderError { reason: Fault::IndexMissing, message, blame: Blame::Admin, ..e }
        })?;
        Ok(IndexIdentity { index: name, host, dimension })
    }

    fn admit(&self, index: &IndexIdentity) -> bool {
        let data_plane = DataPlane::new(&index.host, index.dimension);
        if self.data_plane().is_none_or(|there| *there != data_plane) {
            self.set_data_plane(data_plane);
        }
        self.gate.open()
    }

    /// Asks for the data plane's address once, or waits for the caller that does.
    async fn prepare(&self) -> Result<(), ProviderError> {
        self.gate.checked().await;
        self.gate.check()?;
        if self.data_plane().is_some() {
            return Ok(());
        }
        let _asking = self.asking.lock().await;
        self.ask_host().await.map(drop)
    }

    fn dimension(&self) -> Option<u64> {
        self.data_plane().map(|data_plane| data_plane.dimension).filter(|dimension| *dimension > 0)
    }

    async fn create_namespace(&self, name: &str) -> Result<(), ProviderError> {
        let url = format!("{}/namespaces", self.host().await?);
        let made = self.caller.repeatable(|c| self.request(c.post(&url)).json(&json!({"name": name}))).await;
        match made {
            Ok(_) => Ok(()),
            Err(e) if e.status == Some(409) => Ok(()),
            Err(e) => Err(e),
        }
    }

    async fn namespaces(&self, prefix: &str) -> Result<BTreeMap<String, u64>, ProviderError> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            namespaces: Vec<Namespace>,
            pagination: Option<Pagination>,
        }
        let url = format!("{}/namespaces", self.host().await?);
        let mut all = BTreeMap::new();
        let mut token: Option<String> = None;
        loop {
            let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
            let query = [("limit", Some("100")), ("prefix", prefix), ("paginationToken", token.as_deref())];
            let query: Vec<_> = query.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
            let page: Page = self.caller.json(|c| self.request(c.get(&url)).query(&query)).await?;
            let known = all.len();
            all.extend(page.namespaces.into_iter().map(|n| (n.name, number(&n.record_count))));
            token = next(page.pagination);
            // A page that brings nothing new would go on for ever.
            if token.is_none() || all.len() == known {
                return Ok(all);
            }
        }
    }

    async fn count(&self, namespace: &str) -> Result<Option<u64>, ProviderError> {
        let url = format!("{}/namespaces/{namespace}", self.host().await?);
        match self.caller.json::<Namespace>(|c| self.request(c.get(&url))).await {
            Ok(there) => Ok(Some(number(&there.record_count))),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn delete_namespace(&self, name: &str) -> Result<(), ProviderError> {
        let url = format!("{}/namespaces/{name}", self.host().await?);
        match self.caller.bytes(|c| self.request(c.delete(&url))).await {
            Ok(_) => Ok(()),
            Err(e) if e.is_not_found() => Ok(()),
            Err(e) => Err(e),
        }
    }

    async fn upsert(&self, namespace: &str, vectors: &[Vector]) -> Result<(), ProviderError> {
        #[derive(Serialize)]
        struct Body<'a> {
            vectors: &'a [Vector],
            namespace: &'a str,
        }
        for vectors in batches(vectors) {
            let _: Value = self.post("/vectors/upsert", &Body { vectors, namespace }).await?;
        }
        Ok(())
    }

    async fn fetch(&self, namespace: &str, ids: &[String]) -> Result<BTreeMap<String, Vector>, ProviderError> {
        #[derive(Deserialize)]
        struct Fetched {
            #[serde(default)]
            vectors: BTreeMap<String, Kept>,
        }
        let url = format!("{}/vectors/fetch", self.host().await?);
        let mut all = BTreeMap::new();
        for ids in ids.chunks(FETCH_IDS) {
            let mut query: Vec<_> = ids.iter().map(|id| ("ids", id.as_str())).collect();
            query.push(("namespace", namespace));
            let fetched: Fetched = self.caller.json(|c| self.request(c.get(&url)).query(&query)).await?;
            all.extend(fetched.vectors.into_iter().map(|(id, Kept { values, metadata })| {
                (id.clone(), Vector { id, values, metadata: metadata.unwrap_or_default() })
            }));
        }
        Ok(all)
    }

    async fn list(
        &self,
        namespace: &str,
        prefix: &str,
        limit: usize,
        after: Option<&str>,
    ) -> Result<(Vec<String>, Option<String>), ProviderError> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            vectors: Vec<Listed>,
            pagination: Option<Pagination>,
        }
        #[derive(Deserialize)]
        struct Listed {
            id: String,
        }
        let url = format!("{}/vectors/list", self.host().await?);
        let limit = limit.clamp(1, 100).to_string();
        let mut query = vec![("namespace", namespace), ("limit", &limit)];
        query.extend(Some(("prefix", prefix)).filter(|_| !prefix.is_empty()));
        query.extend(after.map(|token| ("paginationToken", token)));
        let page: Page = self.caller.json(|c| self.request(c.get(&url)).query(&query)).await?;
        Ok((page.vectors.into_iter().map(|v| v.id).collect(), next(page.pagination)))
    }

    async fn delete(&self, namespace: &str, ids: &[String]) -> Result<(), ProviderError> {
        for ids in ids.chunks(BATCH_VECTORS) {
            match self.post::<Value>("/vectors/delete", &json!({"ids": ids, "namespace": namespace})).await {
                Ok(_) => {}
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    async fn query(&self, namespace: &str, vector: &Values, top_k: usize) -> Result<Vec<Match>, ProviderError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Query<'a> {
            namespace: &'a str,
            vector: &'a Values,
            top_k: usize,
            include_metadata: bool,
            include_values: bool,
        }
        let query = Query { namespace, vector, top_k, include_metadata: true, include_values: false };
        let answer: QueryAnswer = self.post("/query", &query).await?;
        Ok(answer.matches)
    }
}

/// A 64-bit number, which JSON made from protobuf writes as text.
fn number(record_count: &Value) -> u64 {
    record_count.as_u64().or_else(|| record_count.as_str()?.parse().ok()).unwrap_or(0)
}
