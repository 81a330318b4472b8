//! Cuts a text into passages where it can be cut: between paragraphs, else sentences, else words.

use text_splitter::{ChunkConfig, TextSplitter};

use crate::api::tenant::Chunking;

/// The passages of a text, in their order.
pub fn passages(text: &str, chunking: Chunking) -> Vec<&str> {
    let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let longest = size(chunking.max_characters).max(1);
    // What Kubernetes would not have taken, from before it was checked.
    let shared = size(chunking.overlap_characters).min(longest / 2);
    let config = ChunkConfig::new(longest).with_overlap(shared);
    let Ok(config) = config else { return Vec::new() };
    TextSplitter::new(config).chunks(text).filter(|passage| !passage.trim().is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: usize = 1200;

    fn passages(text: &str) -> Vec<&str> {
        super::passages(text, Chunking::default())
    }

    #[test]
    fn a_text_is_cut_at_its_paragraphs_and_nothing_is_lost() {
        let paragraph = |i: usize| format!("Paragraph {i} says that {} matters. ", "policy ".repeat(90));
        let text = (0..20).map(paragraph).collect::<Vec<_>>().join("\n\n");
        let cut = passages(&text);
        assert!(cut.len() >= 20 && cut.iter().all(|p| p.chars().count() <= LONGEST), "{}", cut.len());
        for i in 0..20 {
            assert!(cut.iter().any(|p| p.contains(&format!("Paragraph {i} says"))), "{i}");
        }
        assert_eq!(passages("short"), ["short"]);
        assert!(passages("").is_empty() && passages(" \n ").is_empty());
    }

    #[test]
    fn a_text_without_a_place_to_cut_is_cut_all_the_same() {
        let text = "ü".repeat(5000);
        let cut = passages(&text);
        assert!(cut.len() > 3 && cut.iter().all(|p| p.chars().count() <= LONGEST));
    }

    #[test]
    fn a_customer_chooses_how_long_passages_are() {
        let text = "word ".repeat(1000);
        let cut = |max_characters, overlap_characters| {
            super::passages(&text, Chunking { max_characters, overlap_characters })
        };
        assert!(cut(200, 0).iter().all(|p| p.chars().count() <= 200) && cut(200, 0).len() > cut(4000, 0).len());
        assert!(cut(400, 200).len() > cut(400, 0).len(), "neighbours share what they overlap");
        assert!(!cut(0, 5000).is_empty(), "nonsense ends no upload");
    }
}
