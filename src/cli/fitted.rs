//! Tables as wide as the terminal.

use comfy_table::{ContentArrangement, Table};

/// An empty table, whose lines break where the terminal ends. Elsewhere, such as in a pipe, no line breaks.
pub fn fitted_table() -> Table {
    let mut table = Table::new();
    table.set_content_arrangement(ContentArrangement::Dynamic);
    let out = std::io::stdout();
    if rustix::termios::isatty(&out)
        && let Ok(size) = rustix::termios::tcgetwinsize(&out)
    {
        table.set_width(size.ws_col);
    }
    table
}
