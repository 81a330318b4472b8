//! The plots of the account page: what a tenant used in each period and on each day.

use jiff::civil::Date;

use crate::api::Timestamp;
use crate::api::money::thousands;
use crate::ledger::history::day_of;
use crate::plots::{Column, ColumnPlot, Limit, Plot};
use crate::web::api::usage::{PastDay, PastPeriod};

/// Questions in each period that has ended, and in the present one so far. None before the first one has ended.
pub fn of_periods(
    past: &[PastPeriod],
    present: Option<(Timestamp, Timestamp, i64)>,
    limit: Option<i64>,
) -> Option<Plot> {
    let measured = |start: Timestamp, end: Timestamp, amount: i64, open: bool| {
        let until = if open { "now".to_owned() } else { written(day_of(end)) };
        Column { open, ..column(day_of(start), vec![written(day_of(start)), until], amount) }
    };
    let ended = past.iter().rev().map(|past| measured(past.period_start, past.period_end, past.used.queries, false));
    let now = present.map(|(start, end, queries)| measured(start, end, queries, true));
    if past.is_empty() {
        return None;
    }
    let all: Vec<_> = ended.chain(now).collect();
    let plot = ColumnPlot {
        id: "periods",
        title: "Questions in each period",
        heads: vec!["From", "To", "Questions"],
        numbers: "Numbers of the periods",
        all: &all,
        limit: limit.map(limit_of_plan),
        last_first: true,
    };
    Some(plot.plot())
}

fn limit_of_plan(amount: i64) -> Limit {
    let questions = thousands(amount);
    Limit {
        amount,
        drawn: format!("The dashed line is your plan's limit now: {questions} questions a period."),
        far: format!("Your plan's limit now is far above the plot: {questions} questions a period."),
    }
}

/// Questions on each of the last days. None if there were none.
pub fn of_days(days: &[PastDay]) -> Option<Plot> {
    let measured = |day: &PastDay| column(day.date, vec![written(day.date)], day.used.queries);
    let all: Vec<_> = days.iter().rev().map(measured).collect();
    let any = all.iter().any(|day| day.amount > 0);
    let plot = ColumnPlot {
        id: "days",
        title: "Questions on each day",
        heads: vec!["Day (UTC)", "Questions"],
        numbers: "Numbers of the days",
        all: &all,
        limit: None,
        last_first: true,
    };
    any.then(|| plot.plot())
}

/// A bar with day and month below it.
fn column(day: Date, cells: Vec<String>, amount: i64) -> Column {
    let name = (day.strftime("%-d").to_string(), day.strftime("%b").to_string());
    Column { name, cells, amount, more: Vec::new(), open: false }
}

/// A day in words.
fn written(day: Date) -> String {
    day.strftime("%-d %b %Y").to_string()
}

#[cfg(test)]
mod tests;
