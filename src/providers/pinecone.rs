//! Pinecone, API version 2026-04: namespaces and vectors of one serverless index.

use std::collections::{BTreeMap, HashMap};

use reqwest::RequestBuilder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{CallLimits, Caller, ProviderError};

const PROVIDER: &str = "Pinecone";
const API_VERSION: &str = "2026-04";

/// Where Pinecone is and which index is ours.
#[derive(Clone, Debug)]
pub struct PineconeConfig {
    /// The control plane.
    pub url: String,
    /// The API key.
    pub api_key: String,
    /// The index.
    pub index: String,
    /// How it may be called.
    pub calls: CallLimits,
}

/// A client of one index.
#[derive(Debug)]
pub struct Pinecone {
    config: PineconeConfig,
    caller: Caller,
    host: OnceCell<String>,
}

/// A vector to store.
#[derive(Clone, Debug, Serialize)]
pub struct Vector {
    /// Its id in the namespace.
    pub id: String,
    /// Its values.
    pub values: Vec<f32>,
    /// What is kept beside it.
    pub metadata: BTreeMap<String, Value>,
}

/// A vector that a query found.
#[derive(Clone, Debug, Deserialize)]
pub struct Match {
    /// Its id.
    pub id: String,
    /// Cosine similarity.
    #[serde(default)]
    pub score: f32,
    /// What is kept beside it.
    #[serde(default)]
    pub metadata: HashMap<String, Value>,
}

#[derive(Deserialize)]
struct IndexDescription {
    host: String,
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
        Self { config, caller, host: OnceCell::new() }
    }

    fn request(&self, request: RequestBuilder) -> RequestBuilder {
        request.header("Api-Key", &self.config.api_key).header("X-Pinecone-Api-Version", API_VERSION)
    }

    /// The data plane's base URL, asked of the control plane once.
    async fn host(&self) -> Result<&str, ProviderError> {
        let url = format!("{}/indexes/{}", self.config.url, self.config.index);
        let host = self.host.get_or_try_init(|| async {
            let description: IndexDescription = self.caller.json(|c| self.request(c.get(&url))).await.map_err(|e| {
                if e.is_not_found() {
                    ProviderError { message: format!("there is no index named {}", self.config.index), ..e }
                } else {
                    e
                }
            })?;
            let host = description.host;
            Ok(if host.contains("://") { host } else { format!("https://{host}") })
        });
        host.await.map(String::as_str)
    }

    async fn post<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ProviderError> {
        let url = format!("{}{path}", self.host().await?);
        let body = serde_json::to_vec(body).map_err(|e| ProviderError::garbage(PROVIDER, e))?;
        self.caller
            .json(|c| self.request(c.post(&url)).header("content-type", "application/json").body(body.clone()))
            .await
    }

    /// Makes a namespace; one that is there already is as good.
    pub async fn create_namespace(&self, name: &str) -> Result<(), ProviderError> {
        let url = format!("{}/namespaces", self.host().await?);
        let made = self.caller.bytes(|c| self.request(c.post(&url)).json(&json!({"name": name}))).await;
        match made {
            Ok(_) => Ok(()),
            Err(e) if e.status == Some(409) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Whether the namespace is there.
    pub async fn namespace_exists(&self, name: &str) -> Result<bool, ProviderError> {
        let url = format!("{}/namespaces/{name}", self.host().await?);
        match self.caller.bytes(|c| self.request(c.get(&url))).await {
            Ok(_) => Ok(true),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Deletes a namespace with its vectors; one that is not there is as good.
    pub async fn delete_namespace(&self, name: &str) -> Result<(), ProviderError> {
        let url = format!("{}/namespaces/{name}", self.host().await?);
        match self.caller.bytes(|c| self.request(c.delete(&url))).await {
            Ok(_) => Ok(()),
            Err(e) if e.is_not_found() => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Stores vectors, at most 1000 in one call; the same id again replaces.
    pub async fn upsert(&self, namespace: &str, vectors: &[Vector]) -> Result<(), ProviderError> {
        #[derive(Serialize)]
        struct Body<'a> {
            vectors: &'a [Vector],
            namespace: &'a str,
        }
        let _: Value = self.post("/vectors/upsert", &Body { vectors, namespace }).await?;
        Ok(())
    }

    /// The `top_k` nearest vectors of a namespace.
    pub async fn query(&self, namespace: &str, vector: &[f32], top_k: usize) -> Result<Vec<Match>, ProviderError> {
        let body = json!({"namespace": namespace, "vector": vector, "topK": top_k, "includeMetadata": true, "includeValues": false});
        let answer: QueryAnswer = self.post("/query", &body).await?;
        Ok(answer.matches)
    }
}
