//! Text that a stranger wrote, such as a company's name, for an admin's terminal or spreadsheet.

mod csv_lines;

pub use csv_lines::{CsvError, CsvLines};

/// What cannot be seen in a name: control characters, and such as join, turn or hide others. Letters of every script
/// can.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
        // Soft hyphen, the mark of Arabic letters, the separator of Mongolian vowels, fillers of Hangul, and tags.
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{e0000}'..='\u{e007f}')
}

/// The text without control characters, which could move the cursor, recolor the screen or pretend another line, and
/// without those that turn the order of what follows. The joiners U+200C and U+200D stay: they are part of the spelling
/// in several scripts.
pub fn plain(text: &str) -> String {
    let joins = |c| matches!(c, '\u{200c}' | '\u{200d}');
    text.chars().map(|c| if is_hidden(c) && !joins(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_controls_no_terminal() {
        assert_eq!(plain("Acme\u{1b}[2J\r\n\u{9b}1mÄ GmbH"), "Acme [2J   1mÄ GmbH");
        assert_eq!(plain("\u{3164}A\u{ad}c\u{61c}me\u{e0041}").trim(), "A c me");
        assert_eq!(plain("Acme\u{202e}moc \u{645}\u{200c}\u{6cc}"), "Acme moc \u{645}\u{200c}\u{6cc}");
    }
}
