//! Cuts a text into passages: between paragraphs, otherwise between sentences, otherwise between words.
//!
//! `text-splitter` looks through the whole rest of the text for each passage. This takes time quadratic in the text's
//! length if the text has no sentences, or millions of lines. So it sees one window at a time here. A window is so much
//! longer than a passage that the text behind it does not change where the passages in its first half end.

use std::ops::Range;

use text_splitter::{ChunkConfig, ChunkSizer, TextSplitter};

use crate::api::tenant::Chunking;

/// The length of a window, in passages of the longest kind.
const WINDOW: usize = 6;
/// The longest passage in bytes. No text has more tokens than bytes, and `OpenAI` embeds 8,192 tokens at most
/// (<https://platform.openai.com/docs/api-reference/embeddings/create#embeddings-create-input>).
const LONGEST_BYTES: usize = 8000;

/// Measures passages in bytes.
struct Bytes;

impl ChunkSizer for Bytes {
    fn size(&self, chunk: &str) -> usize {
        chunk.len()
    }
}

/// Where the passages of a tidy text are, in their order; None for more than `most`.
pub fn cut(text: &str, chunking: Chunking, most: usize) -> Option<Vec<Range<usize>>> {
    let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    // What Kubernetes would not have taken, from before it was checked.
    let longest = size(chunking.max_characters).clamp(1, LONGEST_BYTES);
    let shared = size(chunking.overlap_characters).min(longest / 2);
    let splitter = TextSplitter::new(ChunkConfig::new(longest).with_overlap(shared).ok()?);
    let mut passages = Vec::new();
    let (mut at, mut end) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        let window = &rest[..after(rest, longest * WINDOW)];
        let is_last = window.len() == rest.len();
        let sure = if is_last { window.len() } else { after(window, longest * WINDOW / 2) };
        let mut next = text.len().min(at + window.len());
        for (start, passage) in splitter.chunk_indices(window) {
            let start = at + start;
            if start >= at + sure {
                // It is the first passage of the next window.
                next = start;
                break;
            }
            if start + passage.len() > end {
                end = start + passage.len();
                passages.extend(small_enough(start, passage));
            }
        }
        if passages.len() > most {
            return None;
        }
        at = next;
    }
    Some(passages)
}

/// Where so many characters end.
fn after(text: &str, characters: usize) -> usize {
    text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at)
}

/// A passage, cut again if it has too many bytes.
fn small_enough(at: usize, passage: &str) -> Vec<Range<usize>> {
    if passage.len() <= LONGEST_BYTES {
        return std::iter::once(at..at + passage.len()).collect();
    }
    let pieces = TextSplitter::new(ChunkConfig::new(LONGEST_BYTES).with_sizer(Bytes));
    pieces.chunk_indices(passage).map(|(start, piece)| at + start..at + start + piece.len()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::rag::text::{decode, tidy};

    const LONGEST: usize = 1200;

    fn passages_of(text: &str, chunking: Chunking) -> Vec<&str> {
        let cut = cut(text, chunking, usize::MAX).expect("any number");
        cut.into_iter().map(|range| &text[range]).collect()
    }

    fn passages(text: &str) -> Vec<&str> {
        passages_of(text, Chunking::default())
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
        let cut =
            |max_characters, overlap_characters| passages_of(&text, Chunking { max_characters, overlap_characters });
        assert!(cut(200, 0).iter().all(|p| p.chars().count() <= 200) && cut(200, 0).len() > cut(4000, 0).len());
        assert!(cut(400, 200).len() > cut(400, 0).len(), "neighbours share what they overlap");
        assert!(!cut(0, 5000).is_empty(), "nonsense ends no upload");
    }

    /// Numbers that look random and are the same in each run (xorshift).
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % sides as u64).expect("small")
        }
    }

    /// A document as people write them: paragraphs, lists, tables, headings, long lines, in several scripts.
    fn document(dice: &mut Dice) -> String {
        const WORDS: [&str; 18] = [
            "policy",
            "vacation",
            "the",
            "of",
            "Mr.",
            "3.14",
            "e.g.",
            "Übertrag",
            "größer",
            "отпуск",
            "休暇",
            "規定は",
            "a",
            "(see",
            "below)",
            "\u{5d0}\u{5d1}",
            "\"quoted\"",
            "x=1;",
        ];
        let mut text = String::new();
        for _ in 0..40 + dice.roll(60) {
            let kind = dice.roll(8);
            for _ in 0..=dice.roll(9) {
                for _ in 0..=dice.roll(if kind == 7 { 400 } else { 24 }) {
                    text.push_str(WORDS[dice.roll(WORDS.len())]);
                    text.push_str([" ", " ", " ", " ", ", ", "; ", " | "][dice.roll(7)]);
                }
                text.push_str(match kind {
                    0 | 1 | 7 => ". ",
                    2 => "\n- ",
                    3 => " |\n| ",
                    4 => "!\n",
                    5 => "? ",
                    _ => " ",
                });
            }
            text.push_str(["\n\n", "\n", "\n\n", "\n\n\n# "][dice.roll(4)]);
        }
        tidy(&text)
    }

    #[test]
    fn windows_change_no_passage_of_an_ordinary_document() {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        for round in 0..60 {
            let text = document(&mut dice);
            let (longest, shared) = [(1200, 150), (200, 0), (400, 200), (4000, 1000), (700, 60)][round % 5];
            let chunking = Chunking { max_characters: longest, overlap_characters: shared };
            let (longest, shared) = (longest as usize, shared as usize);
            let whole = TextSplitter::new(ChunkConfig::new(longest).with_overlap(shared).expect("less"));
            let whole: Vec<_> = whole.chunks(&text).collect();
            assert_eq!(passages_of(&text, chunking), whole, "round {round} of {} bytes", text.len());
        }
    }

    #[test]
    fn a_passage_has_no_more_bytes_than_can_be_embedded() {
        let chunking = Chunking { max_characters: 4000, overlap_characters: 500 };
        let text = "😀 규정은 ".repeat(3000);
        let cut = passages_of(&text, chunking);
        assert!(cut.iter().all(|passage| passage.len() <= LONGEST_BYTES));
        let kept: usize = cut.iter().map(|passage| passage.len()).sum();
        assert!(kept >= text.len() * 9 / 10, "{kept} of {}", text.len());
    }

    /// Files that take a splitter without windows minutes or gigabytes, a tenth as large as they may be. Twice the size
    /// must not take much more than twice the time.
    #[test]
    fn hostile_files_are_cut_in_linear_time() {
        type Piece = (&'static str, fn(usize) -> Vec<u8>);
        let files: [Piece; 12] = [
            ("words without an end", |n| b"word ".repeat(n / 5)),
            ("one word", |n| vec![b'x'; n]),
            ("lines of one letter", |n| b"a\n".repeat(n / 2)),
            ("paragraphs of one letter", |n| b"a\n\n".repeat(n / 3)),
            ("newlines only", |n| vec![b'\n'; n]),
            ("combining characters only", |n| "\u{301}".repeat(n / 2).into_bytes()),
            ("one letter with all of them", |n| format!("a{}", "\u{301}".repeat(n / 2)).into_bytes()),
            ("joined emoji", |n| "👩\u{200d}".repeat(n / 7).into_bytes()),
            ("byte order marks", |n| "\u{feff}x".repeat(n / 4).into_bytes()),
            ("NULs between letters", |n| b"abcdefghijklmnopqrstuvwxyz\0".repeat(n / 27)),
            ("numbers after full stops", |n| b"3. 1 ".repeat(n / 5)),
            ("a table", |n| b"| a | b | c |\n".repeat(n / 14)),
        ];
        let chunking = Chunking { max_characters: 200, overlap_characters: 100 };
        for (name, file) in files {
            let seconds = |bytes: usize| {
                let file = file(bytes);
                let start = Instant::now();
                if let Some(text) = decode(&file) {
                    let count = passages_of(&text, chunking).len();
                    assert!(count <= 2 + bytes / 20, "{name}: {count} passages of {bytes} bytes");
                }
                start.elapsed().as_secs_f64()
            };
            // Four times the text: sixteen times the time would be the square. Another process may take the processor
            // once.
            let mut times = (0..3).map(|_| (seconds(125_000), seconds(500_000)));
            assert!(times.any(|(small, large)| large < 0.2 + 9.0 * small), "{name} takes more than linear time");
        }
    }
}
