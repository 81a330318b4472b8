//! Names that people write: what in them cannot be seen.

/// What cannot be seen in a name: control characters, and such as join, turn or hide others. Letters of every script can.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}
