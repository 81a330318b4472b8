//! Finds out which model made the vectors of a namespace, when the Tenant does not say.

use crate::providers::ProviderError;
use crate::providers::models::Embedder;
use crate::providers::vector_store::{Values, VectorStore};

/// A vector that was made from the same text by the same model is this similar; providers do not promise equal numbers.
const SAME: f32 = 0.98;
/// Vectors that are looked at: some may have come without their text.
const LOOKED_AT: usize = 20;

/// Which of these models made the vectors of a namespace. None if the namespace does not tell.
pub async fn embedding_of(
    index: &dyn VectorStore,
    embedder: &dyn Embedder,
    namespace: &str,
    models: &[String],
) -> Result<Option<String>, ProviderError> {
    let (ids, _) = index.list(namespace, "", LOOKED_AT, None).await?;
    if ids.is_empty() {
        return Ok(None);
    }
    let found = index.fetch(namespace, &ids).await?;
    let told = found.values().find_map(|kept| Some((&kept.id, kept.text("text").filter(|text| !text.is_empty())?)));
    let Some((id, text)) = told else { return Ok(None) };
    for model in models {
        let vectors = embedder.embed(model, index.dimension(), &[text]).await?.vectors;
        let vector = Values::encode(vectors.first().map(Vec::as_slice).unwrap_or_default())?;
        let nearest = index.query(namespace, &vector, LOOKED_AT).await?;
        if nearest.iter().any(|near| near.id == *id && near.score >= SAME) {
            return Ok(Some(model.clone()));
        }
    }
    Ok(None)
}
