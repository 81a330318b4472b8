//! `GET /admin/funnel`: how many of the customers of the last days reached each milestone, and where they stop.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use serde::Serialize;

use super::parameters::Parameters;
use super::tenant::milestone_words;
use super::{PageResult, Seen, page};
use crate::admin::{Admin, Owner};
use crate::analytics::{
    ActivationMetrics, Durations, ENOUGH, Funnel, FunnelStep, Group, Journey, Milestone, Span, Target, Verdict,
    minutes, percent,
};
use crate::api::money::thousands;
use crate::plain::plain;
use crate::plots::{Bar, BarPlot, Plot, Table};

/// The page.
#[derive(Debug, Serialize)]
pub struct FunnelPage {
    days: i64,
    signups: usize,
    by_manifest: usize,
    plot: Plot,
    rates: Vec<Rate>,
    times: Vec<Time>,
    groups: Vec<Groups>,
    verdict: String,
    /// The steps that lose more than 40 %.
    losing: Vec<String>,
}

/// A rate of the whole way.
#[derive(Debug, Serialize)]
struct Rate {
    name: &'static str,
    meaning: &'static str,
    value: String,
    target: Option<String>,
}

/// How long customers took from the signup.
#[derive(Debug, Serialize)]
pub struct Time {
    pub name: &'static str,
    pub measured: usize,
    pub median: String,
    pub p75: String,
    pub p90: String,
    pub within_24h: String,
    pub within_48h: String,
}

/// Customers by what they have in common.
#[derive(Debug, Serialize)]
struct Groups {
    id: &'static str,
    title: &'static str,
    head: &'static str,
    rows: Vec<[String; 8]>,
}

impl FunnelPage {
    pub(super) fn of(seen: &Seen, days: i64) -> Self {
        let journeys: Vec<_> = seen.all().filter_map(Journey::of).collect();
        let span = Span::days_before(seen.now, days);
        let (funnel, metrics) = (Funnel::of(&journeys, span), ActivationMetrics::of(&journeys, span));
        Self {
            days,
            signups: funnel.total_signups,
            by_manifest: funnel.by_manifest,
            plot: plot(&funnel, &metrics),
            rates: rates(&metrics),
            times: vec![
                Time::of("First answer", funnel.time_to_first_query),
                Time::of("Completed setup", funnel.time_to_activate),
            ],
            groups: vec![
                Groups::of("variants", "Variants of the pages", "Variant", &funnel.variants),
                Groups::of("plans", "Plans", "Plan", &funnel.plans),
                Groups::of("weeks", "Weeks of the signup", "Week (UTC)", &funnel.weeks),
            ],
            verdict: verdict(&funnel),
            losing: losing(&funnel.steps),
        }
    }
}

/// The steps that lose more than 40 %. After the first one that no customer reached, the others say nothing more.
fn losing(steps: &[FunnelStep]) -> Vec<String> {
    let empty = steps.iter().position(|step| step.high_drop_off && step.customers == 0);
    let told = empty.map_or(steps.len(), |first| first + 1);
    steps[..told].iter().filter(|step| step.high_drop_off).map(loses).collect()
}

/// Such as `Logged in: 45.0 % of those who reached "Set up" did not reach this step`.
fn loses(step: &FunnelStep) -> String {
    let before = step.previous.map(milestone_words).unwrap_or_default();
    let (here, lost) = (milestone_words(step.milestone), percent(step.drop_off));
    format!("{here}: {lost} of those who reached \u{201c}{before}\u{201d} did not reach this step")
}

fn plot(funnel: &Funnel, metrics: &ActivationMetrics) -> Plot {
    let of = |milestone| funnel.steps.iter().find(|step| step.milestone == milestone).map_or(0, |step| step.customers);
    let target = |milestone| match milestone {
        Milestone::Provisioned => {
            let tried = metrics.provisioned + metrics.provisioning_failed;
            Some(share(metrics.targets.provisioning_success_rate, tried))
        }
        Milestone::Completed => Some(share(metrics.targets.activation_rate, funnel.total_signups)),
        _ => None,
    };
    let bar = |step: &FunnelStep| {
        let lost = if step.high_drop_off { format!(" (\u{2212}{})", percent(step.drop_off)) } else { String::new() };
        Bar {
            name: milestone_words(step.milestone).to_owned(),
            amount: step.customers,
            written: count(step.customers) + &lost,
            target: target(step.milestone).filter(|_| funnel.total_signups > 0),
        }
    };
    let bars: Vec<_> = funnel.steps.iter().map(bar).collect();
    let plot = BarPlot {
        id: "funnel",
        title: "Customers who reached each milestone",
        summary: format!(
            "{} signed up, {} completed the setup. A table below has the numbers.",
            count(funnel.total_signups),
            count(of(Milestone::Completed))
        ),
        all: &bars,
        note: Some(note(metrics)),
        table: Table {
            title: "Numbers of the milestones",
            open: true,
            heads: vec![
                "Milestone",
                "Customers",
                "Compared with",
                "Conversion",
                "Drop-off",
                "Target",
                "Median",
                "P75",
                "P90",
            ],
            rows: funnel.steps.iter().map(|step| row(step, target(step.milestone))).collect(),
        },
    };
    plot.plot()
}

/// So many of the customers would meet the target.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
fn share(target: Target, of: usize) -> usize {
    (of as f64 * target.target / 100.0).ceil() as usize
}

fn note(metrics: &ActivationMetrics) -> String {
    let targets = &metrics.targets;
    format!(
        "The dashed lines are the targets: {:.0} % of the tenants that were set up or failed are set up, and {:.0} % of the signups complete the setup. A loss of \
         more than 40 % is written beside its bar.",
        targets.provisioning_success_rate.target, targets.activation_rate.target
    )
}

fn row(step: &FunnelStep, target: Option<usize>) -> Vec<String> {
    let time =
        |of: fn(&Durations) -> f64| step.time_from_previous.as_ref().map_or_else(String::new, |time| minutes(of(time)));
    let lost = percent(step.drop_off) + if step.high_drop_off { " (over 40 %)" } else { "" };
    vec![
        milestone_words(step.milestone).to_owned(),
        count(step.customers),
        step.previous.map(milestone_words).unwrap_or_default().to_owned(),
        percent(step.conversion),
        lost,
        target.map_or_else(String::new, count),
        time(|time| time.median_minutes),
        time(|time| time.p75_minutes),
        time(|time| time.p90_minutes),
    ]
}

/// A number of customers, with commas.
pub fn count(customers: usize) -> String {
    thousands(i64::try_from(customers).unwrap_or(i64::MAX))
}

fn rates(metrics: &ActivationMetrics) -> Vec<Rate> {
    let rates = &metrics.conversion_rates;
    let targets = &metrics.targets;
    let rate = |name, meaning, value: Option<f64>, target: Option<Target>| Rate {
        name,
        meaning,
        value: percent(value),
        target: target.map(target_words),
    };
    vec![
        rate("Payment", "of the signups, those who paid", rates.payment_rate, None),
        rate(
            "Set up",
            "of the tenants that were set up or failed, those that were set up",
            metrics.provisioning_success_rate,
            Some(targets.provisioning_success_rate),
        ),
        rate("Login", "of those who paid, those who logged in", rates.login_rate, None),
        rate("Upload", "of those who logged in, those who stored a document", rates.upload_rate, None),
        rate(
            "Activation",
            "of the signups, those who completed the setup",
            rates.activation_rate,
            Some(targets.activation_rate),
        ),
    ]
}

/// Such as `at least 70 %: missed`.
pub fn target_words(target: Target) -> String {
    let met = match target.met {
        Some(true) => ": met",
        Some(false) => ": missed",
        None => "",
    };
    format!("at least {:.0} %{met}", target.target)
}

impl Time {
    pub fn of(name: &'static str, times: Option<Durations>) -> Self {
        let time = |of: fn(&Durations) -> f64| times.as_ref().map_or_else(String::new, |times| minutes(of(times)));
        Self {
            name,
            measured: times.map_or(0, |times| times.measured),
            median: time(|times| times.median_minutes),
            p75: time(|times| times.p75_minutes),
            p90: time(|times| times.p90_minutes),
            within_24h: percent(times.map(|times| times.within_24h_percentage)),
            within_48h: percent(times.map(|times| times.within_48h_percentage)),
        }
    }
}

impl Groups {
    fn of(id: &'static str, title: &'static str, head: &'static str, groups: &[Group]) -> Self {
        let row = |group: &Group| {
            let within = group.activation_interval;
            [
                plain(&group.group),
                count(group.signups),
                count(group.paid),
                count(group.logged_in),
                count(group.queried),
                count(group.completed),
                percent(group.activation_rate),
                within.map_or_else(String::new, |within| format!("{:.0} to {:.0} %", within.low, within.high)),
            ]
        };
        Self { id, title, head, rows: groups.iter().map(row).collect() }
    }
}

fn verdict(funnel: &Funnel) -> String {
    let few = funnel.variants.len() < 2 || funnel.variants.iter().any(|group| group.signups < ENOUGH);
    match &funnel.better_variant {
        _ if few => format!("There are too few customers to compare the variants: each needs {ENOUGH}."),
        Verdict::Better(variant) => {
            format!(
                "More customers complete the setup with the variant {variant}. Luck alone shows as much less than once in 20 times."
            )
        }
        Verdict::MayBeLuck => "The difference between the variants may be luck.".into(),
    }
}

/// `GET /admin/funnel`
pub async fn show(State(admin): State<Arc<Admin>>, owner: Owner, RawQuery(query): RawQuery) -> PageResult {
    let days = Parameters::days(query.as_deref())?;
    let view = admin.view(move |seen| FunnelPage::of(seen, days)).await?;
    page(&owner, "/admin/funnel", "admin/funnel.html", &view)
}
