//! Where a tenant's data is.

use std::collections::{BTreeMap, HashSet};

use kube::ResourceExt;
use serde_json::json;

use super::{StepError, namespace};
use crate::api::migration::MigrationState;
use crate::api::{CHOOSE_DATA_ANNOTATION, Plan, Tenant, Timestamp, data_namespace, data_of};
use crate::controller::kubernetes::Kubernetes;
use crate::lifecycle::{Found, Observed, Outcome, chosen_generation};
use crate::providers::ProviderError;
use crate::providers::indexes::Indexes;
use crate::providers::models::Embedder;
use crate::providers::vector_store::{Vector, VectorStore};
use crate::rag::embedding_of;

/// Ids to list when checking whether a namespace holds anything but samples: one page.
const LOOK: usize = 100;

/// Lists the namespaces of all generations of the tenant's data, in all indexes, and counts what each holds.
pub async fn find(indexes: &Indexes, plans: &[&Plan], tenant: &Tenant) -> Result<Outcome, ProviderError> {
    let samples = samples(plans);
    let mut all: BTreeMap<u32, Found> = BTreeMap::new();
    for index in indexes.all() {
        for (name, generation, vectors) in generations(index, tenant).await? {
            let documents = holds_documents(index, &name, vectors, &samples).await?;
            let there = all.entry(generation).or_insert(Found { generation, vectors: 0, documents: false });
            (there.vectors, there.documents) = (there.vectors + vectors, there.documents || documents);
        }
    }
    Ok(Outcome::Found(all.into_values().collect()))
}

/// Whether the tenant's object is older than its data: there is a namespace of a later generation, which no move of data
/// explains.
pub async fn is_ahead_of(indexes: &Indexes, tenant: &Tenant) -> Result<bool, ProviderError> {
    let moves_to = tenant.status.as_ref().and_then(|status| status.migration.as_ref()).map(|moved| moved.generation);
    let own = tenant.spec.data_generation();
    for index in indexes.all() {
        let later = |(_, generation, _): &(String, u32, u64)| *generation > own && Some(*generation) != moves_to;
        if generations(index, tenant).await?.iter().any(later) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The ids of the sample documents of all Plans: the tenant may have had another one.
fn samples<'a>(plans: &[&'a Plan]) -> HashSet<&'a str> {
    plans.iter().flat_map(|plan| &plan.spec.sample_documents).map(|sample| sample.id.as_str()).collect()
}

/// The tenant's namespaces in an index: their names, generations and counts.
async fn generations(index: &dyn VectorStore, tenant: &Tenant) -> Result<Vec<(String, u32, u64)>, ProviderError> {
    let id = tenant.tenant_id();
    let listed = index.namespaces(&data_namespace(id, 1)).await?;
    let own = |(name, vectors): (String, u64)| {
        let generation = data_of(&name).filter(|(of, _)| *of == id)?.1;
        Some((name, generation, vectors))
    };
    Ok(listed.into_iter().filter_map(own).collect())
}

/// Whether a namespace holds anything but sample documents. Counts lag behind what was stored, so the ids decide.
async fn holds_documents(
    index: &dyn VectorStore,
    name: &str,
    vectors: u64,
    samples: &HashSet<&str>,
) -> Result<bool, ProviderError> {
    if vectors > samples.len() as u64 {
        return Ok(true);
    }
    let (ids, next) = index.list(name, "", LOOK, None).await?;
    Ok(next.is_some() || ids.iter().any(|id| !samples.contains(&**id)))
}

/// Deletes the namespace of another generation of the tenant's data. Before that, reads the object anew, because it may
/// have changed since the decision, and counts once more what the namespace holds.
pub async fn drop(
    kubernetes: &Kubernetes,
    indexes: &Indexes,
    tenant: &Tenant,
    observed: &Observed,
    generation: u32,
) -> Result<Outcome, StepError> {
    let now = kubernetes.tenants(tenant).get(&tenant.name_any()).await?;
    if now.uid() != tenant.uid() || now.data_generation() == generation {
        tracing::error!(
            tenant = tenant.name_any(),
            generation,
            "the data in use is not deleted; this is a bug in the operator"
        );
        return Ok(Outcome::Done);
    }
    let name = data_namespace(tenant.tenant_id(), generation);
    let seen = observed.found.iter().flatten().find(|f| f.generation == generation).map_or(0, |f| f.vectors);
    let mut there = 0;
    for index in indexes.all() {
        there += index.count(&name).await?.unwrap_or(0);
    }
    if there > seen {
        return Err(StepError::MoreData { name, seen, there });
    }
    // Counts can be equal where documents differ. A namespace that was served from while another object was in force
    // may hold some of its own, and goes only where a person has chosen the other one.
    let documents = observed.found.iter().flatten().any(|f| f.generation == generation && f.documents);
    if documents && chosen_generation(&now).is_none() {
        let since = superseded_at(&now).filter(|_| generation < now.data_generation());
        let only = only_in(indexes, &now, &name, since).await?;
        if only > 0 {
            tracing::warn!(tenant = tenant.name_any(), name, only, "a namespace with vectors of its own is kept");
            return Ok(Outcome::OnlyThere(generation));
        }
    }
    Ok(namespace::delete(indexes, &name).await?)
}

/// When the namespace in use replaced the one before it, as far as the status says so.
fn superseded_at(tenant: &Tenant) -> Option<Timestamp> {
    let migration = tenant.status.as_ref()?.migration.as_deref()?;
    let switched = migration.state == MigrationState::Switched && migration.generation == tenant.spec.data_generation();
    switched.then_some(migration.since)
}

/// Counts the vectors of a namespace that the one in use does not have. Where it is known since when that one is in
/// use, counts the documents that were stored later: the customer may have deleted earlier ones.
async fn only_in(
    indexes: &Indexes,
    tenant: &Tenant,
    name: &str,
    since: Option<Timestamp>,
) -> Result<u64, ProviderError> {
    let (here, in_use) = (indexes.of(tenant.region())?, tenant.data_namespace());
    let mut only = 0;
    // The head of a document says when it was stored.
    let prefix = if since.is_some() { "d/" } else { "" };
    for index in indexes.all() {
        if index.count(name).await?.is_none() {
            continue;
        }
        let mut after: Option<String> = None;
        loop {
            let (ids, next) = index.list(name, prefix, LOOK, after.as_deref()).await?;
            let missing = here.missing(&in_use, ids).await?;
            only += match since {
                Some(since) if !missing.is_empty() => {
                    index.fetch(name, &missing).await?.values().filter(|kept| !stored_before(kept, since)).count()
                }
                _ => missing.len(),
            } as u64;
            after = next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(only)
}

/// Whether a document was stored before a moment. One that does not say when may have been stored later.
fn stored_before(kept: &Vector, moment: Timestamp) -> bool {
    kept.text("uploaded_at").and_then(|at| at.parse::<Timestamp>().ok()).is_some_and(|at| at < moment)
}

/// Writes where the tenant's data is. The API server refuses the patch if the object has changed meanwhile, because the
/// decision rests on the earlier version.
pub async fn record(
    kubernetes: &Kubernetes,
    tenant: &Tenant,
    generation: u32,
    embedding: &str,
    region: Option<&str>,
) -> Result<Tenant, kube::Error> {
    let data = json!({"generation": generation, "embedding": embedding, "region": region});
    kubernetes.patch(tenant, json!({"spec": {"data": data}})).await
}

/// Writes that the tenant's data is in the namespace of this generation: with the region of the index that holds it,
/// and the model that its vectors were made with.
pub async fn serve_from(
    kubernetes: &Kubernetes,
    indexes: &Indexes,
    embedder: &dyn Embedder,
    plans: &[&Plan],
    tenant: &Tenant,
    generation: u32,
) -> Result<Tenant, StepError> {
    let mut best: Option<(u64, Option<&str>, &dyn VectorStore)> = None;
    for (region, index) in indexes.each() {
        let there = generations(index, tenant).await?.into_iter().find(|(_, of, _)| *of == generation);
        if let Some((_, _, vectors)) = there.filter(|(_, _, vectors)| best.is_none_or(|(most, ..)| *vectors > most)) {
            best = Some((vectors, region, index));
        }
    }
    let name = data_namespace(tenant.tenant_id(), generation);
    let Some((_, region, index)) = best else { return Err(StepError::NoSuchData(name)) };
    let mut models: Vec<_> =
        plans.iter().flat_map(|plan| plan.spec.models.embeddings()).map(ToString::to_string).collect();
    models.sort();
    models.dedup();
    let model = match &models[..] {
        [only] => only.clone(),
        models => {
            let model = embedding_of(index, embedder, &name, models).await?;
            model.ok_or(StepError::UnknownModel(name))?
        }
    };
    Ok(record(kubernetes, tenant, generation, &model, region).await?)
}

/// Removes a choice that was carried out.
pub async fn forget_choice(kubernetes: &Kubernetes, tenant: &Tenant) -> Result<Tenant, kube::Error> {
    let none = json!({"metadata": {"annotations": {CHOOSE_DATA_ANNOTATION: null}}});
    kubernetes.patch(tenant, none).await
}

/// Deletes the namespaces of all generations of the tenant's data.
pub async fn delete_all(indexes: &Indexes, tenant: &Tenant) -> Result<Outcome, StepError> {
    for name in names(indexes, tenant).await? {
        namespace::delete(indexes, &name).await?;
    }
    Ok(Outcome::Done)
}

/// The names of all namespaces that hold data of the tenant or may do so: a list may lag behind.
pub async fn names(indexes: &Indexes, tenant: &Tenant) -> Result<Vec<String>, ProviderError> {
    let mut names: Vec<String> = tenant.data_namespaces();
    for index in indexes.all() {
        names.extend(generations(index, tenant).await?.into_iter().map(|(name, ..)| name));
    }
    names.sort();
    names.dedup();
    Ok(names)
}
