//! The sample documents: embedded, upserted, and seen by a query.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{Plan, SampleDocument, Tenant};
use crate::controller::context::Context;
use crate::lifecycle::{Outcome, View};
use crate::providers::ProviderError;
use crate::providers::pinecone::Vector;

/// Texts whose embeddings are kept.
const KEPT: usize = 2_000;

/// The embeddings of sample documents, which all tenants of a plan share: computed once.
#[derive(Default)]
pub struct Embeddings(Mutex<HashMap<ModelAndText, Arc<Vec<f32>>>>);

type ModelAndText = (String, String);

impl Embeddings {
    async fn of(
        &self,
        context: &Context,
        model: &str,
        documents: &[SampleDocument],
    ) -> Result<Vec<Arc<Vec<f32>>>, ProviderError> {
        let key = |text: &str| (model.to_owned(), text.to_owned());
        let missing: Vec<&str> = {
            let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            documents.iter().map(|d| d.text.as_str()).filter(|t| !kept.contains_key(&key(t))).collect()
        };
        let fresh =
            if missing.is_empty() { Vec::new() } else { context.providers.openai.embed(model, &missing).await? };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() + fresh.len() > KEPT {
            kept.clear();
        }
        let fresh: HashMap<_, _> = missing.iter().map(|t| key(t)).zip(fresh.into_iter().map(Arc::new)).collect();
        let found = documents.iter().map(|d| fresh.get(&key(&d.text)).or_else(|| kept.get(&key(&d.text))).cloned());
        let found: Option<Vec<_>> = found.collect();
        kept.extend(fresh);
        found.ok_or_else(|| ProviderError::garbage("OpenAI", "an embedding is missing"))
    }
}

async fn vectors(
    context: &Context,
    plan: Option<&Plan>,
) -> Result<Vec<(SampleDocument, Arc<Vec<f32>>)>, ProviderError> {
    let Some(plan) = plan else { return Ok(Vec::new()) };
    let documents = &plan.spec.sample_documents;
    let vectors = context.embeddings.of(context, &plan.spec.models.embedding, documents).await?;
    Ok(documents.iter().cloned().zip(vectors).collect())
}

/// Embeds and upserts them.
pub async fn store(context: &Context, tenant: &Tenant, plan: Option<&Plan>) -> Result<Outcome, ProviderError> {
    let vectors: Vec<_> = vectors(context, plan)
        .await?
        .into_iter()
        .map(|(document, values)| {
            let mut metadata: BTreeMap<String, Value> =
                document.metadata.into_iter().map(|(k, v)| (k, json!(v))).collect();
            metadata.insert("text".into(), json!(document.text));
            Vector { id: document.id, values: values.to_vec(), metadata }
        })
        .collect();
    context.providers.pinecone.upsert(&View::of(tenant).pinecone_namespace(), &vectors).await?;
    Ok(Outcome::Done)
}

/// Queries until every document was seen. The attempt's limit ends the wait.
pub async fn verify(context: &Context, tenant: &Tenant, plan: Option<&Plan>) -> Result<Outcome, ProviderError> {
    let vectors = vectors(context, plan).await?;
    let namespace = View::of(tenant).pinecone_namespace();
    let pinecone = &context.providers.pinecone;
    let mut unseen: HashSet<&str> = vectors.iter().map(|(d, _)| d.id.as_str()).collect();
    let mut wait = Duration::from_millis(50);
    loop {
        // One query sees all of them in a new namespace; among other documents each is asked for by its own vector.
        for (document, vector) in &vectors {
            if unseen.contains(document.id.as_str()) {
                for found in pinecone.query(&namespace, vector, vectors.len()).await? {
                    unseen.remove(found.id.as_str());
                }
            }
        }
        if unseen.is_empty() {
            return Ok(Outcome::Done);
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(2));
    }
}
