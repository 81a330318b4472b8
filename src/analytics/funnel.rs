//! How many of those who signed up in a span of time reached each milestone, where they stop, and how long it takes.

use std::collections::BTreeMap;

use serde::Serialize;
use strum::IntoEnumIterator;

use super::durations::{Durations, percentage};
use super::rates::{Interval, Verdict, compare};
use super::{Journey, Milestone};
use crate::api::Timestamp;
use crate::events::Variant;

/// Per cent of customers that a step may lose before it is named.
const HIGH_DROP_OFF: f64 = 40.0;

/// The signups that are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// The first moment.
    pub from: Timestamp,
    /// The first moment after it.
    pub until: Timestamp,
}

impl Span {
    /// So many times 24 hours before a moment.
    pub const fn days_before(now: Timestamp, days: i64) -> Self {
        Self { from: now.plus(days.saturating_mul(-24 * 3600)), until: now.plus(1) }
    }

    fn contains(&self, journey: &Journey) -> bool {
        (self.from..self.until).contains(&journey.signed_up)
    }

    /// Those of the customers who signed up in it and came by the pages.
    pub fn cohort<'a>(&self, all: &'a [Journey]) -> Vec<&'a Journey> {
        all.iter().filter(|journey| self.contains(journey) && journey.by_the_pages()).collect()
    }
}

/// The funnel. Customers who came by manifest may never use the pages, so they are only counted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Funnel {
    /// Which signups.
    #[serde(flatten)]
    pub span: Span,
    /// Customers who signed up or were invited.
    pub total_signups: usize,
    /// Tenants that were applied as manifests, which are in no other figure.
    pub by_manifest: usize,
    /// The milestones, in their order.
    pub steps: Vec<FunnelStep>,
    /// The rates of the whole way.
    pub conversion_rates: ConversionRates,
    /// From the signup to the first answer with a source.
    pub time_to_first_query: Option<Durations>,
    /// From the signup to the completed setup.
    pub time_to_activate: Option<Durations>,
    /// The two ways in which the pages guide customers.
    pub variants: Vec<Group>,
    /// Whether one of them does better.
    pub better_variant: Verdict,
    /// By the plan in force.
    pub plans: Vec<Group>,
    /// By the week of the signup (ISO 8601, UTC).
    pub weeks: Vec<Group>,
}

/// A milestone of the funnel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FunnelStep {
    /// Which one.
    pub milestone: Milestone,
    /// Customers who reached it.
    pub customers: usize,
    /// The milestone that it is compared with: the last one before it that any customer reached. A step that is turned
    /// off, such as the confirmation of the address, is passed over.
    pub previous: Option<Milestone>,
    /// Per cent of those who reached the previous one that reached this one too.
    pub conversion: Option<f64>,
    /// Per cent of those who reached the previous one that did not.
    pub drop_off: Option<f64>,
    /// Whether it loses more than 40 %.
    pub high_drop_off: bool,
    /// From the previous one to this one.
    pub time_from_previous: Option<Durations>,
}

/// Per cent. None where there is nothing to divide by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ConversionRates {
    /// Of the signups, those who paid.
    pub payment_rate: Option<f64>,
    /// Of those who paid, those who logged in.
    pub login_rate: Option<f64>,
    /// Of those who logged in, those who stored a document of their own.
    pub upload_rate: Option<f64>,
    /// Of the signups, those who completed the setup.
    pub activation_rate: Option<f64>,
}

/// Customers that have something in common.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// What: a plan, a week, a variant.
    pub group: String,
    /// How many signed up.
    pub signups: usize,
    /// How many paid.
    pub paid: usize,
    /// How many logged in.
    pub logged_in: usize,
    /// How many got an answer with a source.
    pub queried: usize,
    /// How many completed the setup.
    pub completed: usize,
    /// Per cent of the signups that completed the setup.
    pub activation_rate: Option<f64>,
    /// Between which the true rate lies, 19 times out of 20.
    pub activation_interval: Option<Interval>,
}

impl Funnel {
    /// Of all customers that are known.
    pub fn of(all: &[Journey], span: Span) -> Self {
        let cohort = span.cohort(all);
        let by_manifest = all.iter().filter(|journey| span.contains(journey) && !journey.by_the_pages()).count();
        let took = |to: &dyn Fn(&Journey) -> Option<Timestamp>| {
            Durations::of(cohort.iter().filter_map(|journey| Some(to(journey)?.since(journey.signed_up))))
        };
        let variants = groups(&cohort, |journey| variant(journey).to_owned());
        Self {
            span,
            total_signups: cohort.len(),
            by_manifest,
            steps: steps(&cohort),
            conversion_rates: ConversionRates::of(&cohort),
            time_to_first_query: took(&Journey::first_query),
            time_to_activate: took(&|journey| journey.reached(Milestone::Completed)),
            better_variant: better(&variants),
            variants,
            plans: groups(&cohort, |journey| journey.customer.plan.clone()),
            weeks: groups(&cohort, |journey| week(journey.signed_up)),
        }
    }
}

fn steps(cohort: &[&Journey]) -> Vec<FunnelStep> {
    let mut previous: Option<Milestone> = None;
    let mut steps = Vec::new();
    for milestone in Milestone::iter() {
        let step = FunnelStep::of(cohort, milestone, previous);
        previous = if step.customers > 0 { Some(milestone) } else { previous };
        steps.push(step);
    }
    steps
}

impl FunnelStep {
    fn of(cohort: &[&Journey], milestone: Milestone, previous: Option<Milestone>) -> Self {
        let customers = reached(cohort, milestone);
        // A later milestone shows that customers pass a step without it: it is turned off.
        let turned_off = customers == 0 && Milestone::iter().any(|m| m > milestone && reached(cohort, m) > 0);
        let before = previous.filter(|_| !turned_off);
        let both: Vec<_> = before
            .into_iter()
            .flat_map(|before| cohort.iter().map(move |journey| (journey, before)))
            .filter_map(|(journey, before)| Some(journey.reached(milestone)?.since(journey.reached(before)?)))
            .collect();
        let conversion = before.and_then(|before| percentage(both.len(), reached(cohort, before)));
        let drop_off = conversion.map(|converted| 100.0 - converted);
        Self {
            milestone,
            customers,
            previous: before,
            conversion,
            drop_off,
            high_drop_off: drop_off.is_some_and(|lost| lost > HIGH_DROP_OFF),
            time_from_previous: Durations::of(both),
        }
    }
}

impl ConversionRates {
    fn of(cohort: &[&Journey]) -> Self {
        let both =
            |one, other| cohort.iter().filter(|j| j.reached(one).is_some() && j.reached(other).is_some()).count();
        let of_those = |before, after| percentage(both(before, after), reached(cohort, before));
        Self {
            payment_rate: of_those(Milestone::Signup, Milestone::Payment),
            login_rate: of_those(Milestone::Payment, Milestone::FirstLogin),
            upload_rate: of_those(Milestone::FirstLogin, Milestone::FirstDocument),
            activation_rate: of_those(Milestone::Signup, Milestone::Completed),
        }
    }
}

/// How many of them reached it.
pub fn reached(cohort: &[&Journey], milestone: Milestone) -> usize {
    cohort.iter().filter(|journey| journey.reached(milestone).is_some()).count()
}

fn groups(cohort: &[&Journey], name: impl Fn(&Journey) -> String) -> Vec<Group> {
    let mut members: BTreeMap<String, Vec<&Journey>> = BTreeMap::new();
    for journey in cohort {
        members.entry(name(journey)).or_default().push(journey);
    }
    members.into_iter().map(|(group, members)| Group::of(group, &members)).collect()
}

impl Group {
    fn of(group: String, members: &[&Journey]) -> Self {
        let (signups, completed) = (members.len(), reached(members, Milestone::Completed));
        Self {
            group,
            signups,
            paid: reached(members, Milestone::Payment),
            logged_in: reached(members, Milestone::FirstLogin),
            queried: members.iter().filter(|journey| journey.first_query().is_some()).count(),
            completed,
            activation_rate: percentage(completed, signups),
            activation_interval: Interval::of(completed, signups),
        }
    }
}

const fn variant(journey: &Journey) -> &'static str {
    match journey.variant {
        Variant::Simple => "simple",
        Variant::Detailed => "detailed",
    }
}

fn better(variants: &[Group]) -> Verdict {
    let trials = |group: &'_ Group| (group.completed, group.signups);
    match variants {
        [one, other] => {
            let ((won, of), (their_won, their_of)) = (trials(one), trials(other));
            compare((&one.group, won, of), (&other.group, their_won, their_of))
        }
        _ => Verdict::MayBeLuck,
    }
}

/// Such as `2026-W48`.
fn week(moment: Timestamp) -> String {
    let time = jiff::Timestamp::from_second(moment.as_second()).unwrap_or_default();
    let week = time.to_zoned(jiff::tz::TimeZone::UTC).date().iso_week_date();
    format!("{:04}-W{:02}", week.year(), week.week())
}

#[cfg(test)]
#[path = "funnel_tests.rs"]
mod tests;
