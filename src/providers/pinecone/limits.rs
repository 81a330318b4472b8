//! How much one call may carry.

use crate::providers::vector_store::Vector;

/// Pinecone takes at most 1,000 vectors and 2 MB in one upsert
/// (<https://docs.pinecone.io/reference/api/database-limits>).
pub const BATCH_VECTORS: usize = 1000;
/// Ids of one fetch: they are part of the URL, which must stay short of 4 kB.
pub const FETCH_IDS: usize = 50;
/// Leaves room for what surrounds the vectors.
const BATCH_BYTES: usize = 1_900_000;

/// More than any vector of this shape takes in JSON; cheap to tell.
fn at_most(vector: &Vector) -> usize {
    let metadata: usize = vector.metadata.iter().map(|(key, v)| key.len() + v.as_str().map_or(64, str::len)).sum();
    // A character can become six (\u0000).
    200 + vector.values.json().len() + (vector.id.len() + metadata) * 6
}

/// The vectors, cut by count and by their size in JSON.
pub fn batches(vectors: &[Vector]) -> Vec<&[Vector]> {
    if vectors.len() <= BATCH_VECTORS && vectors.iter().map(at_most).sum::<usize>() <= BATCH_BYTES {
        return if vectors.is_empty() { Vec::new() } else { vec![vectors] };
    }
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (i, vector) in vectors.iter().enumerate() {
        let size = serde_json::to_vec(vector).map_or(0, |json| json.len() + 1);
        if i > start && (i - start == BATCH_VECTORS || bytes + size > BATCH_BYTES) {
            batches.push(&vectors[start..i]);
            (start, bytes) = (i, 0);
        }
        bytes += size;
    }
    if start < vectors.len() {
        batches.push(&vectors[start..]);
    }
    batches
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::providers::vector_store::Values;

    fn vectors(count: usize, text: usize) -> Vec<Vector> {
        let metadata = BTreeMap::from([("text".to_owned(), json!("x".repeat(text)))]);
        let values = Values::encode(&[0.5; 3]).expect("JSON");
        let vector = |i: usize| Vector { id: i.to_string(), values: values.clone(), metadata: metadata.clone() };
        (0..count).map(vector).collect()
    }

    #[test]
    fn upserts_are_cut_by_count_and_by_bytes_and_lose_nothing() {
        for (vectors, wanted) in [
            (vectors(0, 1), vec![]),
            (vectors(1000, 1), vec![1000]),
            (vectors(1001, 1), vec![1000, 1]),
            (vectors(5, 1_000_000), vec![1; 5]),
            (vectors(5, 900_000), vec![2, 2, 1]),
        ] {
            let cut = batches(&vectors);
            assert_eq!(cut.iter().map(|b| b.len()).collect::<Vec<_>>(), wanted);
            let ids: Vec<_> = cut.concat().iter().map(|v| v.id.clone()).collect();
            assert_eq!(ids, vectors.iter().map(|v| v.id.clone()).collect::<Vec<_>>());
            for batch in cut.iter().filter(|b| b.len() > 1) {
                assert!(serde_json::to_vec(batch).expect("JSON").len() < 2 << 20);
            }
        }
    }
}
