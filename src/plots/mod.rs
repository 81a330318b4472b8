//! Plots, drawn here: SVG that needs no script and no style of its own. `plot.html` shows one as a figure with its
//! numbers as a table. Sizes are in the units of the SVG's `viewBox`, which is 480 wide.

pub mod bars;
pub mod columns;

use serde::Serialize;

pub use bars::{Bar, BarPlot};
pub use columns::{Column, ColumnPlot, Limit};

/// The template, which takes a plot as `plot`.
pub const TEMPLATE: &str = include_str!("plot.html");

/// A plot as its template takes it.
#[derive(Debug, Serialize)]
pub struct Plot {
    /// Begins the names of its parts: no other plot of the page has it.
    pub id: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// What a reader learns who does not see it.
    pub summary: String,
    /// What is drawn.
    pub picture: Picture,
    /// The note below the picture.
    pub note: Option<String>,
    /// Its numbers.
    pub table: Table,
}

/// The numbers of a plot.
#[derive(Debug, Serialize)]
pub struct Table {
    /// Opens the table.
    pub title: &'static str,
    /// Whether it is open from the beginning.
    pub open: bool,
    /// The heads of the columns.
    pub heads: Vec<&'static str>,
    /// The rows, as many cells each.
    pub rows: Vec<Vec<String>>,
}

/// What is drawn.
#[derive(Debug, Serialize)]
#[serde(tag = "shape", rename_all = "lowercase")]
pub enum Picture {
    /// Bars that stand beside each other.
    Columns(columns::Drawing),
    /// Bars that lie below each other, each with a name.
    Bars(bars::Drawing),
}

/// Tenths as SVG writes them.
fn tenths(tenths: i64) -> String {
    format!("{}.{}", tenths / 10, tenths % 10)
}
