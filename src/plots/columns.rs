//! Bars that stand beside each other, such as the questions of each day.

use serde::Serialize;

use super::{Picture, Plot, Table, tenths};
use crate::api::money::thousands;

/// Left of the bars, for the amounts. The template repeats these numbers.
const LEFT: i64 = 60;
/// Where the bars end. The whole picture has a width of 480, so that the last name has room.
const RIGHT: i64 = 466;
/// Where the highest bar may end.
const TOP: i64 = 12;
/// Where the bars stand. Below are their names.
const FLOOR: i64 = 160;
/// Names below the bars, at most. On a narrow screen, every other one.
const NAMES: usize = 13;
/// How many times higher than the highest bar a limit may be and still be drawn: beside a higher one, the bars are too
/// low to be compared.
const LIMIT_IN_SIGHT: i128 = 4;

/// One amount, before it is drawn.
#[derive(Clone, Debug)]
pub struct Column {
    /// The two lines below the bar.
    pub name: (String, String),
    /// Its first cells in the table.
    pub cells: Vec<String>,
    /// How high it is, which the next cell says.
    pub amount: i64,
    /// Its last cells.
    pub more: Vec<String>,
    /// Whether it still grows.
    pub open: bool,
}

/// A line across the bars.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Where it is.
    pub amount: i64,
    /// The note below the picture.
    pub drawn: String,
    /// The note if the limit is far above all bars and not drawn.
    pub far: String,
}

/// What is to be drawn.
#[derive(Debug)]
pub struct ColumnPlot<'a> {
    /// Begins the names of its parts: no other plot of the page has it.
    pub id: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// The heads of the table.
    pub heads: Vec<&'static str>,
    /// Opens the table.
    pub numbers: &'static str,
    /// The amounts, from left to right.
    pub all: &'a [Column],
    /// A line across them.
    pub limit: Option<Limit>,
    /// Whether the rightmost bar is the first row of the table, as the latest day is.
    pub last_first: bool,
}

/// The picture.
#[derive(Debug, Serialize)]
pub struct Drawing {
    pub bars: Vec<Drawn>,
    pub ticks: Vec<Tick>,
    /// Where the limit is drawn.
    pub limit_y: Option<String>,
}

/// A bar.
#[derive(Debug, Serialize)]
pub struct Drawn {
    pub x: String,
    pub y: String,
    pub width: String,
    pub height: String,
    /// Where its name stands.
    pub middle: String,
    /// The lines below it. Only some bars have them, so that they do not overlap.
    pub name: Option<(String, String)>,
    /// When that name is shown.
    pub shown: Shown,
    /// What a pointer shows.
    pub tip: String,
    pub open: bool,
}

/// On which screens a bar's name is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Shown {
    /// On all.
    Always,
    /// Where there is room.
    Wide,
}

/// An amount beside the bars.
#[derive(Debug, Serialize)]
pub struct Tick {
    pub y: String,
    pub label: String,
}

impl ColumnPlot<'_> {
    /// Draws it.
    pub fn plot(self) -> Plot {
        let Self { id, title, heads, numbers, all, limit, last_first } = self;
        let most = all.iter().map(|one| one.amount).max().unwrap_or_default().max(0);
        let near = |limit: &&Limit| most == 0 || i128::from(limit.amount) <= i128::from(most) * LIMIT_IN_SIGHT;
        let drawn = limit.as_ref().filter(near).map(|limit| limit.amount);
        let top = rounded_up(most.max(drawn.unwrap_or_default()));
        let halves = if top % 2 == 0 { vec![0, top / 2, top] } else { vec![0, top] };
        let ticks = halves.into_iter().map(|amount| Tick { y: tenths(height_of(amount, top)), label: short(amount) });
        let picture = Drawing {
            bars: bars(all, top),
            ticks: ticks.collect(),
            limit_y: drawn.map(|limit| tenths(height_of(limit, top))),
        };
        let least = all.iter().map(|one| one.amount).min().unwrap_or_default();
        let row =
            |one: &Column| one.cells.iter().cloned().chain([thousands(one.amount)]).chain(one.more.clone()).collect();
        let mut rows: Vec<_> = all.iter().map(row).collect();
        if last_first {
            rows.reverse();
        }
        Plot {
            id,
            title,
            summary: format!("from {} to {}. A table below has the numbers.", thousands(least), thousands(most)),
            picture: Picture::Columns(picture),
            note: limit.map(|limit| if drawn.is_some() { limit.drawn } else { limit.far }),
            table: Table { title: numbers, open: false, heads, rows },
        }
    }
}

fn bars(all: &[Column], top: i64) -> Vec<Drawn> {
    let count = i64::try_from(all.len()).unwrap_or(i64::MAX).max(1);
    let step = (RIGHT - LEFT) * 10 / count;
    // A few bars are not made as wide as the whole plot.
    let width = (step * 7 / 10).min(400);
    let every = all.len().div_ceil(NAMES).max(1);
    all.iter()
        .enumerate()
        .map(|(index, one)| {
            let middle = LEFT * 10 + step * i64::try_from(index).unwrap_or_default() + step / 2;
            let y = height_of(one.amount, top);
            // Named from the last bar on backwards.
            let back = all.len() - 1 - index;
            let named = back.is_multiple_of(every);
            Drawn {
                x: tenths(middle - width / 2),
                y: tenths(y),
                width: tenths(width),
                height: tenths(FLOOR * 10 - y),
                middle: tenths(middle),
                name: named.then(|| one.name.clone()),
                shown: if (back / every).is_multiple_of(2) { Shown::Always } else { Shown::Wide },
                tip: format!("{}: {}", one.cells.join(" to "), thousands(one.amount)),
                open: one.open,
            }
        })
        .collect()
}

/// Where a bar of this amount ends, in tenths. What is not nothing can be seen.
fn height_of(amount: i64, top: i64) -> i64 {
    let room = i128::from((FLOOR - TOP) * 10);
    let high = i128::from(amount.max(0)) * room / i128::from(top.max(1));
    let least = if amount > 0 { 10 } else { 0 };
    FLOOR * 10 - i64::try_from(high.clamp(least, room)).unwrap_or_default()
}

/// The next number that people read easily: 1, 2, 4, 6 or 8 and zeros.
fn rounded_up(most: i64) -> i64 {
    let mut power = 1_i64;
    loop {
        for digit in [1, 2, 4, 6, 8] {
            let rounded = power.saturating_mul(digit);
            if rounded >= most {
                return rounded;
            }
        }
        power = power.saturating_mul(10);
    }
}

/// A round number in few characters.
fn short(number: i64) -> String {
    for (zeros, letter) in [(1_000_000_000_000, 'T'), (1_000_000_000, 'B'), (1_000_000, 'M'), (1000, 'k')] {
        if number >= zeros && number % zeros == 0 {
            return format!("{}{letter}", thousands(number / zeros));
        }
    }
    thousands(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_rounded_up_and_shortened() {
        let rounded = [0, 1, 3, 5, 9, 11, 21, 801, 9_001].map(rounded_up);
        assert_eq!(rounded, [1, 1, 4, 6, 10, 20, 40, 1000, 10_000]);
        let shortened = [0, 500, 1000, 1500, 30_000, 2_000_000, 4_000_000_000, 1_000_000_000_000_000].map(short);
        assert_eq!(shortened, ["0", "500", "1k", "1,500", "30k", "2M", "4B", "1,000T"]);
    }
}
