//! Plots of bars, drawn here: SVG that needs no script and no style of its own. `templates/plot.html` shows one as a
//! figure with its numbers as a table. Sizes are in the units of the SVG's `viewBox`.

use jiff::civil::Date;
use serde::Serialize;

use crate::api::Timestamp;
use crate::api::money::thousands;
use crate::ledger::history::day_of;
use crate::web::api::usage::{PastDay, PastPeriod};

/// Left of the bars, for the amounts. The template repeats these numbers.
const LEFT: i64 = 60;
/// Where the bars end. The whole picture has a width of 480, so that the last name has room.
const RIGHT: i64 = 466;
/// Where the highest bar may end.
const TOP: i64 = 12;
/// Where the bars stand. Below are the names of the days.
const FLOOR: i64 = 160;
/// Names below the bars, at most. On a narrow screen, every other one.
const NAMES: usize = 13;
/// How many times higher than the highest bar a limit may be and still be drawn: beside a higher one, the bars are too
/// low to be compared.
const LIMIT_IN_SIGHT: i128 = 4;

/// One amount, before it is drawn.
#[derive(Clone, Debug)]
struct Measured {
    /// The day below the bar.
    day: Date,
    /// Its first cells in the table.
    cells: Vec<String>,
    amount: i64,
    /// Whether it still grows.
    open: bool,
}

/// A plot as its template takes it.
#[derive(Debug, Serialize)]
pub struct Plot {
    /// Begins the names of its parts: no other plot of the page has it.
    id: &'static str,
    title: &'static str,
    /// What a reader learns who does not see it.
    summary: String,
    bars: Vec<Bar>,
    ticks: Vec<Tick>,
    /// Where the limit is drawn.
    limit_y: Option<String>,
    /// What there is to say of the limit.
    limit: Option<String>,
    /// The heads of the table.
    heads: Vec<&'static str>,
    /// Its rows, the latest first.
    rows: Vec<Vec<String>>,
    /// Opens the table.
    numbers: &'static str,
}

/// A bar.
#[derive(Debug, Serialize)]
struct Bar {
    x: String,
    y: String,
    width: String,
    height: String,
    /// Where its name stands.
    middle: String,
    /// Day and month below it. Only some bars have one, so that they do not overlap.
    name: Option<(String, String)>,
    /// When that name is shown.
    shown: Shown,
    /// What a pointer shows.
    tip: String,
    open: bool,
}

/// On which screens a bar's name is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Shown {
    /// On all.
    Always,
    /// Where there is room.
    Wide,
}

/// An amount beside the bars.
#[derive(Debug, Serialize)]
struct Tick {
    y: String,
    label: String,
}

/// Questions in each period that has ended, and in the present one so far. None before the first one has ended.
pub fn of_periods(
    past: &[PastPeriod],
    present: Option<(Timestamp, Timestamp, i64)>,
    limit: Option<i64>,
) -> Option<Plot> {
    let measured = |start: Timestamp, end: Timestamp, amount: i64, open: bool| {
        let until = if open { "now".to_owned() } else { written(day_of(end)) };
        Measured { day: day_of(start), cells: vec![written(day_of(start)), until], amount, open }
    };
    let ended = past.iter().rev().map(|past| measured(past.period_start, past.period_end, past.used.queries, false));
    let now = present.map(|(start, end, queries)| measured(start, end, queries, true));
    if past.is_empty() {
        return None;
    }
    let all: Vec<_> = ended.chain(now).collect();
    Some(Plot::of(
        "periods",
        "Questions in each period",
        vec!["From", "To", "Questions"],
        "Numbers of the periods",
        &all,
        limit,
    ))
}

/// Questions on each of the last days. None if there were none.
pub fn of_days(days: &[PastDay]) -> Option<Plot> {
    let measured = |day: &PastDay| Measured {
        day: day.date,
        cells: vec![written(day.date)],
        amount: day.used.queries,
        open: false,
    };
    let all: Vec<_> = days.iter().rev().map(measured).collect();
    let any = all.iter().any(|day| day.amount > 0);
    any.then(|| {
        Plot::of("days", "Questions on each day", vec!["Day (UTC)", "Questions"], "Numbers of the days", &all, None)
    })
}

/// A day in words.
fn written(day: Date) -> String {
    day.strftime("%-d %b %Y").to_string()
}

impl Plot {
    /// Draws amounts, the earliest first.
    fn of(
        id: &'static str,
        title: &'static str,
        heads: Vec<&'static str>,
        numbers: &'static str,
        all: &[Measured],
        limit: Option<i64>,
    ) -> Self {
        let most = all.iter().map(|one| one.amount).max().unwrap_or_default().max(0);
        let near = |limit: &i64| most == 0 || i128::from(*limit) <= i128::from(most) * LIMIT_IN_SIGHT;
        let drawn = limit.filter(near);
        let top = rounded_up(most.max(drawn.unwrap_or_default()));
        let halves = if top % 2 == 0 { vec![0, top / 2, top] } else { vec![0, top] };
        let ticks = halves.into_iter().map(|amount| Tick { y: tenths(height_of(amount, top)), label: short(amount) });
        let least = all.iter().map(|one| one.amount).min().unwrap_or_default();
        let row = |one: &Measured| one.cells.iter().cloned().chain([thousands(one.amount)]).collect();
        Self {
            id,
            title,
            summary: format!("from {} to {}. A table below has the numbers.", thousands(least), thousands(most)),
            bars: bars(all, top),
            ticks: ticks.collect(),
            limit_y: drawn.map(|limit| tenths(height_of(limit, top))),
            limit: limit.map(|limit| match drawn {
                Some(_) => {
                    format!("The dashed line is your plan's limit now: {} questions a period.", thousands(limit))
                }
                None => {
                    format!("Your plan's limit now is far above the plot: {} questions a period.", thousands(limit))
                }
            }),
            heads,
            rows: all.iter().rev().map(row).collect(),
            numbers,
        }
    }
}

fn bars(all: &[Measured], top: i64) -> Vec<Bar> {
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
            Bar {
                x: tenths(middle - width / 2),
                y: tenths(y),
                width: tenths(width),
                height: tenths(FLOOR * 10 - y),
                middle: tenths(middle),
                name: named.then(|| (one.day.strftime("%-d").to_string(), one.day.strftime("%b").to_string())),
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

/// Tenths as SVG writes them.
fn tenths(tenths: i64) -> String {
    format!("{}.{}", tenths / 10, tenths % 10)
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
mod tests;
