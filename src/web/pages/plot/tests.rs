//! What is drawn for few, many, no and huge amounts.

use minijinja::value::Serde;
use minijinja::{Environment, context};

use super::*;
use crate::api::months;
use crate::ledger::units::{Amounts, LARGEST, Unit};
use crate::plots::columns::{Drawing, Shown};
use crate::plots::{Picture, TEMPLATE};

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// Periods before 2027-01-01, the latest first, with so many questions each.
fn past(queries: &[i64]) -> Vec<PastPeriod> {
    let mut end = at("2027-01-01T00:00:00Z");
    let period = |queries: &i64| {
        let (period_start, period_end) = months::around(end, end.plus(-1));
        end = period_start;
        PastPeriod { period_start, period_end, used: Amounts::of(Unit::Queries, *queries).into() }
    };
    queries.iter().map(period).collect()
}

fn plot(queries: &[i64], limit: Option<i64>) -> Plot {
    of_periods(&past(queries), None, limit).expect("a plot")
}

fn drawing(plot: &Plot) -> &Drawing {
    let Picture::Columns(drawing) = &plot.picture else { panic!("columns: {plot:?}") };
    drawing
}

fn limit_y(plot: &Plot) -> Option<&str> {
    drawing(plot).limit_y.as_deref()
}

fn heights(plot: &Plot) -> Vec<&str> {
    drawing(plot).bars.iter().map(|bar| bar.height.as_str()).collect()
}

fn ticks(plot: &Plot) -> Vec<&str> {
    drawing(plot).ticks.iter().map(|tick| tick.label.as_str()).collect()
}

#[test]
fn without_a_period_that_has_ended_there_is_no_plot() {
    assert!(of_periods(&[], None, Some(100)).is_none());
    let present = (at("2027-01-01T00:00:00Z"), at("2027-02-01T00:00:00Z"), 5);
    assert!(of_periods(&[], Some(present), Some(100)).is_none());
    assert!(of_days(&[]).is_none());
}

#[test]
fn the_earliest_bar_is_left_and_the_latest_row_is_first() {
    let present = (at("2027-01-01T08:30:00Z"), at("2027-02-01T08:30:00Z"), 100);
    let plot = of_periods(&past(&[50, 1000]), Some(present), Some(1000)).expect("a plot");
    assert_eq!(heights(&plot), ["148.0", "7.4", "14.8"]);
    assert_eq!(drawing(&plot).bars.iter().map(|bar| bar.open).collect::<Vec<_>>(), [false, false, true]);
    let names: Vec<_> = drawing(&plot).bars.iter().map(|bar| bar.name.clone().expect("a name")).collect();
    assert_eq!(names, [("1", "Nov"), ("1", "Dec"), ("1", "Jan")].map(|(day, month)| (day.into(), month.into())));
    let rows =
        [["1 Jan 2027", "now", "100"], ["1 Dec 2026", "1 Jan 2027", "50"], ["1 Nov 2026", "1 Dec 2026", "1,000"]];
    assert_eq!(plot.table.rows, rows);
    assert_eq!(ticks(&plot), ["0", "500", "1k"]);
    assert_eq!(limit_y(&plot), Some("12.0"));
    assert_eq!(plot.summary, "from 50 to 1,000. A table below has the numbers.");
}

#[test]
fn one_period_is_one_bar_that_is_not_as_wide_as_the_plot() {
    let plot = plot(&[7], None);
    assert_eq!((drawing(&plot).bars.len(), drawing(&plot).bars[0].width.as_str()), (1, "40.0"));
    assert_eq!((limit_y(&plot), plot.note.as_ref()), (None, None));
}

#[test]
fn bars_do_not_overlap_nor_leave_the_picture_and_names_have_room() {
    for count in [1, 2, 12, 13, 30, 93] {
        let plot = plot(&vec![1; count], None);
        let number = |text: &str| text.parse::<f64>().expect("a number");
        let mut end = 60.0;
        for bar in &drawing(&plot).bars {
            assert!(number(&bar.x) >= end, "{count}: {bar:?}");
            end = number(&bar.x) + number(&bar.width);
        }
        assert!(end <= 466.0, "{count}: {end}");
        let middles = |also: Shown| {
            let shown = drawing(&plot).bars.iter().filter(|bar| bar.name.is_some());
            let shown = shown.filter(|bar| bar.shown == Shown::Always || bar.shown == also);
            shown.map(|bar| number(&bar.middle)).collect::<Vec<_>>()
        };
        // "Nov" in 11 and in 20 px.
        for (also, room) in [(Shown::Wide, 24.0), (Shown::Always, 40.0)] {
            let middles = middles(also);
            assert!(middles.windows(2).all(|two| two[1] - two[0] >= room), "{count}: {middles:?}");
        }
        assert!(drawing(&plot).bars.last().is_some_and(|bar| bar.name.is_some() && bar.shown == Shown::Always));
    }
}

#[test]
fn nothing_is_a_flat_plot_and_a_single_question_can_be_seen() {
    let none = plot(&[0; 12], Some(100));
    assert!(heights(&none).iter().all(|height| *height == "0.0"));
    assert_eq!((ticks(&none), limit_y(&none)), (vec!["0", "50", "100"], Some("12.0")));
    let none = plot(&[0], None);
    assert_eq!(ticks(&none), ["0", "1"]);
    assert_eq!(heights(&plot(&[1, LARGEST], None)), ["147.9", "1.0"]);
}

#[test]
fn huge_numbers_are_drawn_and_written() {
    let plot = plot(&[LARGEST, LARGEST / 2], Some(LARGEST));
    assert_eq!(heights(&plot), ["73.9", "147.9"]);
    assert_eq!(ticks(&plot), ["0", "500T", "1,000T"]);
    assert_eq!(plot.table.rows[0][2], "999,999,999,999,999");
    for most in [i64::MAX, i64::MIN, -1] {
        assert_eq!(drawing(&self::plot(&[most], Some(i64::MAX))).bars.len(), 1);
    }
}

#[test]
fn a_limit_that_is_far_away_is_told_and_not_drawn() {
    let far = plot(&[10, 20], Some(10_000));
    assert_eq!((ticks(&far), limit_y(&far)), (vec!["0", "10", "20"], None));
    let said = far.note.expect("a sentence");
    assert_eq!(said, "Your plan's limit now is far above the plot: 10,000 questions a period.");
    // In sight, it is part of the scale. Far below the bars, it is drawn where it is.
    let near = plot(&[10, 20], Some(80));
    assert_eq!((ticks(&near), limit_y(&near)), (vec!["0", "40", "80"], Some("12.0")));
    let passed = plot(&[1_000_000], Some(10));
    assert_eq!((limit_y(&passed), heights(&passed)), (Some("159.0"), vec!["148.0"]));
    assert_eq!(limit_y(&plot(&[5], Some(0))), Some("160.0"));
}

#[test]
fn days_have_a_plot_if_there_was_a_question() {
    let day = |date: &str, queries| PastDay {
        date: date.parse().expect("a date"),
        used: Amounts::of(Unit::Queries, queries).into(),
    };
    assert!(of_days(&[day("2026-11-29", 0), day("2026-11-28", 0)]).is_none());
    let plot = of_days(&[day("2026-12-01", 3), day("2026-11-30", 0)]).expect("a plot");
    assert_eq!(plot.table.rows, [["1 Dec 2026", "3"], ["30 Nov 2026", "0"]]);
    assert_eq!((heights(&plot), ticks(&plot)), (vec!["0.0", "111.0"], vec!["0", "2", "4"]));
}

/// The template repeats the sizes, has a name for readers who see no picture, and no style or script of its own.
#[test]
fn the_template_shows_it_with_its_numbers() {
    let mut env = Environment::new();
    env.add_template("plot.html", TEMPLATE).expect("a template");
    let plot = plot(&[12, 34], Some(100));
    let page = env.get_template("plot.html").expect("there").render(context! { plot => Serde(plot) });
    let page = page.expect("rendered");
    for part in [
        "<svg viewBox=\"0 0 480 208\" role=\"img\" aria-labelledby=\"plot-periods\">",
        "<title id=\"plot-periods\">Questions in each period: from 12 to 34. A table below",
        "<th scope=\"col\">Questions</th>",
        "<td>1 Dec 2026</td><td>1 Jan 2027</td><td>12</td>",
        "<line class=\"limit\" x1=\"60\" x2=\"466\" y1=\"12.0\" y2=\"12.0\"/>",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert_eq!(page.matches("<rect ").count(), 2);
    assert!(!page.contains("style=") && !page.contains("<script"), "{page}");
}
