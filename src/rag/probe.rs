//! Finds out which model made the vectors of a namespace, when the Tenant does not say.

use crate::providers::ProviderError;
use crate::providers::openai::OpenAi;
use crate::providers::pinecone::{Pinecone, Values};

/// A vector that was made from the same text by the same model is this similar; providers do not promise equal numbers.
const SAME: f32 = 0.98;
/// Vectors that are looked at: some may have come without their text.
const LOOKED_AT: usize = 20;

/// Which of these models made the vectors of a namespace. None if the namespace does not tell.
pub async fn embedding_of(
    pinecone: &Pinecone,
    openai: &OpenAi,
    namespace: &str,
    models: &[String],
) -> Result<Option<String>, ProviderError> {
    let (ids, _) = pinecone.list(namespace, "", LOOKED_AT, None).await?;
    if ids.is_empty() {
        return Ok(None);
    }
    let found = pinecone.fetch(namespace, &ids).await?;
    let told = found.iter().find_map(|(id, kept)| Some((id, kept["text"].as_str().filter(|text| !text.is_empty())?)));
    let Some((id, text)) = told else { return Ok(None) };
    for model in models {
        let vectors = openai.embed(model, pinecone.dimension(), &[text]).await?;
        let vector = Values::encode(vectors.first().map(Vec::as_slice).unwrap_or_default())?;
        let nearest = pinecone.query(namespace, &vector, LOOKED_AT).await?;
        if nearest.iter().any(|near| near.id == *id && near.score >= SAME) {
            return Ok(Some(model.clone()));
        }
    }
    Ok(None)
}
