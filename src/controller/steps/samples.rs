//! The sample documents: embedded, upserted, and seen by a query.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::namespace::LOOKS;
use crate::api::{Plan, SampleDocument};
use crate::lifecycle::{Outcome, Provider};
use crate::providers::ProviderError;
use crate::providers::models::Embedder;
use crate::providers::vector_store::{Values, Vector, VectorStore};

/// Texts whose embeddings are kept.
const KEPT: usize = 2_000;

/// The embeddings of sample documents, which all tenants of a plan share: computed once.
#[derive(Default)]
pub struct Embeddings(Mutex<HashMap<ModelAndText, Values>>);

type ModelAndText = (String, String);

impl Embeddings {
    async fn of(
        &self,
        (embedder, dimension): (&dyn Embedder, Option<u64>),
        model: &str,
        documents: &[SampleDocument],
    ) -> Result<Vec<Values>, ProviderError> {
        let model_of_length = format!("{model}/{dimension:?}");
        let key = |text: &str| (model_of_length.clone(), text.to_owned());
        let missing: Vec<&str> = {
            let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            documents.iter().map(|d| d.text.as_str()).filter(|t| !kept.contains_key(&key(t))).collect()
        };
        // The samples are the operator's, so the tenant is not charged for their tokens.
        let fresh =
            if missing.is_empty() { Vec::new() } else { embedder.embed(model, dimension, &missing).await?.vectors };
        let fresh = fresh.iter().map(|v| Values::encode(v)).collect::<Result<Vec<_>, _>>()?;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() + fresh.len() > KEPT {
            kept.clear();
        }
        let fresh: HashMap<_, _> = missing.iter().map(|t| key(t)).zip(fresh).collect();
        let found = documents.iter().map(|d| fresh.get(&key(&d.text)).or_else(|| kept.get(&key(&d.text))).cloned());
        let found: Option<Vec<_>> = found.collect();
        kept.extend(fresh);
        found.ok_or_else(|| ProviderError::garbage(Provider::Models, "an embedding is missing"))
    }
}

/// What the samples of a plan need.
#[derive(Clone, Copy)]
pub struct Samples<'a> {
    pub embedder: &'a dyn Embedder,
    pub index: &'a dyn VectorStore,
    pub embeddings: &'a Embeddings,
    pub plan: Option<&'a Plan>,
    /// What the tenant's data is embedded with, where that is known.
    pub embedding: Option<&'a str>,
}

impl Samples<'_> {
    async fn vectors(&self) -> Result<Vec<(SampleDocument, Values)>, ProviderError> {
        let Some(plan) = self.plan else { return Ok(Vec::new()) };
        let documents = &plan.spec.sample_documents;
        let model = self.embedding.unwrap_or(&plan.spec.models.embedding);
        let vectors = self.embeddings.of((self.embedder, self.index.dimension()), model, documents).await?;
        Ok(documents.iter().cloned().zip(vectors).collect())
    }

    /// Embeds and upserts them.
    pub async fn store(&self, namespace: &str) -> Result<Outcome, ProviderError> {
        let vectors: Vec<_> = self
            .vectors()
            .await?
            .into_iter()
            .map(|(document, values)| {
                let mut metadata: BTreeMap<String, Value> =
                    document.metadata.into_iter().map(|(k, v)| (k, json!(v))).collect();
                metadata.insert("text".into(), json!(document.text));
                Vector { id: document.id, values, metadata }
            })
            .collect();
        self.index.upsert(namespace, &vectors).await?;
        Ok(Outcome::Done)
    }

    /// Queries for each document that was not seen yet, a few times; more looks are for reconciles to come.
    pub async fn verify(&self, namespace: &str) -> Result<Outcome, ProviderError> {
        let vectors = self.vectors().await?;
        let mut unseen: HashSet<&str> = vectors.iter().map(|(d, _)| d.id.as_str()).collect();
        let mut waits = LOOKS.iter();
        loop {
            // One query sees all of them in a new namespace; among other documents each is asked for by its own vector.
            for (document, vector) in &vectors {
                if unseen.contains(document.id.as_str()) {
                    for found in self.index.query(namespace, vector, vectors.len()).await? {
                        unseen.remove(found.id.as_str());
                    }
                }
            }
            if unseen.is_empty() {
                return Ok(Outcome::Done);
            }
            let Some(wait) = waits.next() else { return Ok(Outcome::NotYet) };
            tokio::time::sleep(*wait).await;
        }
    }
}
