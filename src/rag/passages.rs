//! Cuts a text into passages where it can be cut: between paragraphs, else sentences, else words.

use text_splitter::{ChunkConfig, TextSplitter};

/// Characters of a passage, at most: some 300 tokens, so that four of them leave a model room to answer.
const LONGEST: usize = 1200;
/// Characters that two neighbours share, so that a sentence at the border is found by either.
const SHARED: usize = 150;

/// The passages of a text, in their order.
pub fn passages(text: &str) -> Vec<&str> {
    let config = ChunkConfig::new(LONGEST).with_overlap(SHARED);
    // The overlap is shorter than a passage, which is all that can be wrong with it.
    let Ok(config) = config else { return Vec::new() };
    TextSplitter::new(config).chunks(text).filter(|passage| !passage.trim().is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
