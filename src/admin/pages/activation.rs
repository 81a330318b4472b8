//! `GET /admin/activation`: how long the customers of the last days took to complete the setup.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use serde::Serialize;

use super::funnel::{Time, target_words};
use super::parameters::Parameters;
use super::{PageResult, Seen, page};
use crate::admin::{Admin, Owner};
use crate::analytics::{
    ActivationMetrics, Journey, Span, Target, TimeBucket, TimeRange, activation_histogram, minutes, percent,
};
use crate::plots::{Column, ColumnPlot, Plot};

/// The page.
#[derive(Debug, Serialize)]
pub struct Activation {
    days: i64,
    signups: usize,
    completed: usize,
    /// None where no customer completed the setup.
    plot: Option<Plot>,
    times: Vec<Time>,
    targets: Vec<[String; 3]>,
}

impl Activation {
    pub(super) fn of(seen: &Seen, days: i64) -> Self {
        let journeys: Vec<_> = seen.all().filter_map(Journey::of).collect();
        let span = Span::days_before(seen.now, days);
        let metrics = ActivationMetrics::of(&journeys, span);
        let targets = &metrics.targets;
        Self {
            days,
            signups: metrics.total_signups,
            completed: metrics.completed_activation,
            plot: (metrics.completed_activation > 0).then(|| histogram(&activation_histogram(&journeys, span))),
            times: vec![
                Time::of("First answer", metrics.time_to_first_query),
                Time::of("Completed setup", metrics.time_to_activate),
            ],
            targets: vec![
                [
                    "Of those who paid at least 24 hours ago: completed the setup within 24 hours of the payment"
                        .into(),
                    percent(targets.wizard_within_24h_rate.actual),
                    target_words(targets.wizard_within_24h_rate),
                ],
                [
                    "Median time to the first answer, of those who got one".into(),
                    targets.median_minutes_to_first_query.actual.map(minutes).unwrap_or_default(),
                    below(targets.median_minutes_to_first_query),
                ],
            ],
        }
    }
}

/// Such as `under 5 min: met`.
fn below(target: Target) -> String {
    let met = match target.met {
        Some(true) => ": met",
        Some(false) => ": missed",
        None => "",
    };
    format!("under {}{met}", minutes(target.target))
}

fn histogram(buckets: &[TimeBucket]) -> Plot {
    let column = |bucket: &TimeBucket| {
        let (first, second, written) = range(bucket.range);
        Column {
            name: (first.into(), second.into()),
            cells: vec![written.into()],
            amount: i64::try_from(bucket.customers).unwrap_or(i64::MAX),
            more: vec![percent(bucket.percentage)],
            open: false,
        }
    };
    let all: Vec<_> = buckets.iter().map(column).collect();
    let plot = ColumnPlot {
        id: "times",
        title: "Time from the signup to the completed setup",
        heads: vec!["Time", "Customers", "Share"],
        numbers: "Numbers of the times",
        all: &all,
        limit: None,
        last_first: false,
    };
    plot.plot()
}

/// Two lines below a bar, and the same in a table.
const fn range(range: TimeRange) -> (&'static str, &'static str, &'static str) {
    match range {
        TimeRange::Under30Minutes => ("under", "30 min", "under 30 min"),
        TimeRange::Under2Hours => ("30 min", "to 2 h", "30 min to 2 h"),
        TimeRange::Within24Hours => ("2 h to", "24 h", "2 h to 24 h"),
        TimeRange::Over24Hours => ("over", "24 h", "over 24 h"),
    }
}

/// `GET /admin/activation`
pub async fn show(State(admin): State<Arc<Admin>>, owner: Owner, RawQuery(query): RawQuery) -> PageResult {
    let days = Parameters::days(query.as_deref())?;
    let view = admin.view(move |seen| Activation::of(seen, days)).await?;
    page(&owner, "/admin/activation", "admin/activation.html", &view)
}
