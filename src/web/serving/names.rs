//! Names that people write: what in them cannot be seen.

use crate::plain::is_hidden;

/// Whether a name holds nothing hidden. The joiners U+200C and U+200D are part of the spelling after a letter of a
/// script that is not Latin, as in Persian, Malayalam and Sinhala, and in composed pictures:
/// <https://www.unicode.org/reports/tr31/#Layout_and_Format_Control_Characters>
pub fn is_visible(name: &str) -> bool {
    let mut before = None;
    name.chars().all(|c| {
        let after: Option<char> = before.replace(c);
        let joins = |before: char| !before.is_ascii() && !before.is_whitespace() && !is_hidden(before);
        !is_hidden(c) || (matches!(c, '\u{200c}' | '\u{200d}') && after.is_some_and(joins))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joiners_that_spell_a_name_are_seen_and_others_are_hidden() {
        for name in [
            "\u{6a9}\u{62a}\u{627}\u{628}\u{200c}\u{62e}\u{627}\u{646}\u{647}",
            "\u{d28}\u{d4d}\u{200d}",
            "Acme & S\u{f6}hne",
        ] {
            assert!(is_visible(name), "{name}");
        }
        for name in ["Ac\u{200c}me", "\u{200d}", "\u{628}\u{200c}\u{200c}\u{62e}", "a\u{202e}b", "a\u{200b}b", "a\nb"] {
            assert!(!is_visible(name), "{name:?}");
        }
    }
}
