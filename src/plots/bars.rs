//! Bars that lie below each other, each with a name, such as the steps of a funnel.

use serde::Serialize;

use super::{Picture, Plot, Table, tenths};

/// Where the bars begin. The names are left of them. The template repeats it.
const LEFT: i64 = 150;
/// Where the longest bar ends. Right of it is room for what is written beside it, also in the larger letters of a
/// narrow screen.
const RIGHT: i64 = 320;
/// From one bar to the next.
const PITCH: i64 = 30;
/// How thick a bar is. The template repeats it.
const THICK: i64 = 20;
/// How far a target reaches beyond its bar.
const BEYOND: i64 = 4;
/// Between a bar and what is written beside it.
const GAP: i64 = 60;
/// How much room that takes, in tenths: a target is not drawn through it.
const WRITTEN: i64 = 900;

/// One amount, before it is drawn.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Left of it.
    pub name: String,
    /// How long it is.
    pub amount: usize,
    /// Right of it.
    pub written: String,
    /// How long it should be.
    pub target: Option<usize>,
}

/// What is to be drawn.
#[derive(Debug)]
pub struct BarPlot<'a> {
    /// Begins the names of its parts: no other plot of the page has it.
    pub id: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// What a reader learns who does not see it.
    pub summary: String,
    /// The amounts, from top to bottom.
    pub all: &'a [Bar],
    /// The note below the picture.
    pub note: Option<String>,
    /// The numbers.
    pub table: Table,
}

/// The picture.
#[derive(Debug, Serialize)]
pub struct Drawing {
    pub height: i64,
    pub bars: Vec<Drawn>,
}

/// A bar.
#[derive(Debug, Serialize)]
pub struct Drawn {
    pub y: i64,
    pub middle: i64,
    pub width: String,
    pub name: String,
    pub written: String,
    /// Where that stands.
    pub written_x: String,
    /// Where the target is drawn: beyond the bar above and below, so that it is seen across a bar too.
    pub target_x: Option<String>,
    pub target_y: i64,
    pub target_end: i64,
}

impl BarPlot<'_> {
    /// Draws it.
    pub fn plot(self) -> Plot {
        let Self { id, title, summary, all, note, table } = self;
        let longest = all.iter().map(|bar| bar.amount.max(bar.target.unwrap_or_default())).max().unwrap_or_default();
        let bars: Vec<_> = (0..).zip(all).map(|(index, bar)| Drawn::of(bar, index, longest)).collect();
        let height = PITCH * i64::try_from(all.len()).unwrap_or_default();
        Plot { id, title, summary, picture: Picture::Bars(Drawing { height, bars }), note, table }
    }
}

impl Drawn {
    fn of(bar: &Bar, index: i64, longest: usize) -> Self {
        let y = index * PITCH + (PITCH - THICK) / 2;
        let width = length(bar.amount, longest);
        let end = LEFT * 10 + width;
        let target = bar.target.map(|target| LEFT * 10 + length(target, longest));
        let beside = target.filter(|at| (end..end + WRITTEN).contains(at)).unwrap_or(end);
        Self {
            y,
            middle: y + THICK / 2,
            width: tenths(width),
            name: bar.name.clone(),
            written: bar.written.clone(),
            written_x: tenths(beside + GAP),
            target_x: target.map(tenths),
            target_y: y - BEYOND,
            target_end: y + THICK + BEYOND,
        }
    }
}

/// How long a bar of this amount is, in tenths. What is not nothing can be seen.
fn length(amount: usize, longest: usize) -> i64 {
    let room = (RIGHT - LEFT) * 10;
    let long = (amount as u128) * u128::from(room.unsigned_abs()) / (longest.max(1) as u128);
    let least = if amount > 0 { 10 } else { 0 };
    i64::try_from(long).unwrap_or(room).clamp(least, room)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(all: &[(usize, Option<usize>)]) -> Vec<Drawn> {
        let bar = |(amount, target): &(usize, Option<usize>)| Bar {
            name: "Paid".into(),
            amount: *amount,
            written: amount.to_string(),
            target: *target,
        };
        let all: Vec<_> = all.iter().map(bar).collect();
        let table = Table { title: "Numbers", open: true, heads: vec![], rows: vec![] };
        let plot =
            BarPlot { id: "funnel", title: "Funnel", summary: String::new(), all: &all, note: None, table }.plot();
        let Picture::Bars(drawing) = plot.picture else { panic!("bars: {plot:?}") };
        assert_eq!(drawing.height, 30 * i64::try_from(all.len()).expect("few"));
        drawing.bars
    }

    #[test]
    fn the_longest_bar_takes_the_room_and_one_customer_can_be_seen() {
        let widths = |all: &[usize]| {
            let all: Vec<_> = all.iter().map(|amount| (*amount, None)).collect();
            drawn(&all).into_iter().map(|bar| bar.width).collect::<Vec<_>>()
        };
        assert_eq!(widths(&[100, 50, 0]), ["170.0", "85.0", "0.0"]);
        assert_eq!(widths(&[0, 0]), ["0.0", "0.0"]);
        assert_eq!(widths(&[usize::MAX, 1]), ["170.0", "1.0"]);
        assert!(widths(&[]).is_empty());
    }

    #[test]
    fn a_target_has_a_place_and_what_is_written_stands_beside_it() {
        let bars = drawn(&[(100, None), (50, Some(70)), (50, Some(10))]);
        assert_eq!(bars[1].target_x.as_deref(), Some("269.0"));
        assert_eq!(bars[1].written_x, "275.0", "right of the target");
        assert_eq!((bars[2].target_x.as_deref(), bars[2].written_x.as_str()), (Some("167.0"), "241.0"));
        let above = drawn(&[(10, Some(20))]);
        assert_eq!((above[0].width.as_str(), above[0].target_x.as_deref()), ("85.0", Some("320.0")));
    }
}
