//! CSV (RFC 4180) for spreadsheets. A cell that a stranger wrote, such as a company's name, must not become a formula.

use super::plain;

/// Why there are no lines. Cells are text and every line has the columns of the header, so it does not happen.
#[derive(Debug, thiserror::Error)]
pub enum CsvError {
    /// A line was not written.
    #[error("a line of CSV was not written: {0}")]
    Line(#[from] csv::Error),
    /// The lines are no text.
    #[error("the CSV is no text: {0}")]
    Text(#[from] std::string::FromUtf8Error),
}

/// Lines of CSV.
pub struct CsvLines(csv::Writer<Vec<u8>>);

impl CsvLines {
    /// Begins with the names of the columns.
    pub fn new(header: &[&str]) -> Result<Self, CsvError> {
        let mut lines = Self(csv::Writer::from_writer(Vec::new()));
        lines.0.write_record(header)?;
        Ok(lines)
    }

    /// Adds a line.
    pub fn push<const COLUMNS: usize>(&mut self, cells: [String; COLUMNS]) -> Result<(), CsvError> {
        Ok(self.0.write_record(cells.map(|cell| harmless(&cell)))?)
    }

    /// All lines.
    pub fn text(self) -> Result<String, CsvError> {
        let lines = self.0.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
        Ok(String::from_utf8(lines)?)
    }
}

/// Spreadsheets take what begins so for a formula: an apostrophe makes it text. In many countries, Excel separates cells
/// by semicolons, so what follows one would begin a cell: it becomes a comma.
/// <https://owasp.org/www-community/attacks/CSV_Injection>
fn harmless(cell: &str) -> String {
    let plain = plain(cell).replace(';', ",");
    let begins_a_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    if begins_a_formula && cell.parse::<f64>().is_err() { format!("'{plain}") } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula_where_semicolons_separate() {
        let mut lines = CsvLines::new(&["company", "count"]).expect("a header");
        lines.push(["Acme;=cmd|' /C calc'!A0".to_owned(), "1".to_owned()]).expect("a line");
        assert_eq!(lines.text().expect("text"), "company,count\n\"Acme,=cmd|' /C calc'!A0\",1\n");
    }

    #[test]
    fn no_cell_is_a_formula_and_quotes_stay() {
        let mut lines = CsvLines::new(&["company", "count"]).expect("a header");
        for company in ["=cmd|' /C calc'!A0", "+1 Ltd", "-1", "@sum", "Smith, \"Sons\"", "\t=1", "＝1", "a=b"] {
            lines.push([company.to_owned(), "1".to_owned()]).expect("a line");
        }
        assert_eq!(
            lines.text().expect("text"),
            "company,count\n'=cmd|' /C calc'!A0,1\n'+1 Ltd,1\n-1,1\n'@sum,1\n\"Smith, \"\"Sons\"\"\",1\n' =1,1\n'＝1,1\na=b,1\n"
        );
    }
}
