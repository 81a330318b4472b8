//! Text that a stranger wrote, such as a company's name, for an admin's terminal or spreadsheet.

/// The text without control characters, which could move the cursor, recolor the screen or pretend another line.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_controls_no_terminal() {
        assert_eq!(plain("Acme\u{1b}[2J\r\n\u{9b}1mÄ GmbH"), "Acme [2J   1mÄ GmbH");
    }
}
