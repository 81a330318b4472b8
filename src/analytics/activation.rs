//! The activation metrics: how many of those who signed up in a span of time came to use what they pay for, how fast,
//! and whether that meets the targets.

use serde::Serialize;

use super::durations::{Durations, mean_minutes, percentage};
use super::funnel::{ConversionRates, Funnel, Span, reached};
use super::{Journey, Milestone};
use crate::api::{Phase, Timestamp};

const DAY: i64 = 24 * 3600;

/// Per cent of the signups that complete the setup.
const ACTIVATION: f64 = 70.0;
/// Per cent of those who paid that complete the setup within 24 hours.
const WIZARD: f64 = 50.0;
/// Per cent of the tenants that were set up or failed which were set up.
const PROVISIONING: f64 = 95.0;
/// Minutes until half of those who ask have their first answer: fewer than these.
const FIRST_QUERY_MINUTES: f64 = 5.0;

/// The figures. Rates are per cent; None where there is nothing to divide by. Customers who came by manifest are only
/// counted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ActivationMetrics {
    /// Which signups.
    #[serde(flatten)]
    pub span: Span,
    /// Customers who signed up or were invited.
    pub total_signups: usize,
    /// Tenants that were applied as manifests, which are in no other figure.
    pub by_manifest: usize,
    /// Customers who paid.
    pub completed_payment: usize,
    /// Customers whose tenant was Active once.
    pub provisioned: usize,
    /// Customers whose tenant is Failed and was never Active.
    pub provisioning_failed: usize,
    /// Customers who logged in.
    pub logged_in: usize,
    /// Customers who reached the milestone `sample_query`.
    pub ran_sample_query: usize,
    /// Customers who got an answer with a source.
    pub succeeded_first_query: usize,
    /// Customers who stored a document of their own.
    pub uploaded_document: usize,
    /// Customers who completed the setup.
    pub completed_activation: usize,
    /// Of the signups, those who completed the setup.
    pub activation_rate: Option<f64>,
    /// The rates of the whole way.
    pub conversion_rates: ConversionRates,
    /// Of the tenants that were Active once or failed before, those that were Active.
    pub provisioning_success_rate: Option<f64>,
    /// Of those who paid at least 24 hours ago, those who completed the setup within 24 hours of the payment.
    pub wizard_within_24h_rate: Option<f64>,
    /// Of those who signed up at least 24 hours ago, those who got an answer with a source within 24 hours.
    pub first_query_within_24h_rate: Option<f64>,
    /// Of those who signed up at least 48 hours ago, those who got an answer with a source within 48 hours.
    pub first_query_within_48h_rate: Option<f64>,
    /// From the payment to the first moment in service.
    pub time_to_provision: Option<Durations>,
    /// From the signup to the first answer with a source.
    pub time_to_first_query: Option<Durations>,
    /// The mean of the same. A few customers who come back late raise it; the median says what is usual.
    pub mean_minutes_to_first_query: Option<f64>,
    /// From the signup to the completed setup.
    pub time_to_activate: Option<Durations>,
    /// What the figures should be, and whether they are.
    pub targets: Targets,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Target {
    /// The limit.
    pub target: f64,
    /// The figure.
    pub actual: Option<f64>,
    /// Whether the figure is on the right side of the limit. None where nothing was measured yet.
    pub met: Option<bool>,
}

/// The targets, by the names of their figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Targets {
    /// At least 70 %.
    pub activation_rate: Target,
    /// At least 50 %.
    pub wizard_within_24h_rate: Target,
    /// At least 95 %.
    pub provisioning_success_rate: Target,
    /// Less than 5 minutes.
    pub median_minutes_to_first_query: Target,
}

impl Target {
    fn at_least(target: f64, actual: Option<f64>) -> Self {
        Self { target, actual, met: actual.map(|actual| actual >= target) }
    }

    fn below(target: f64, actual: Option<f64>) -> Self {
        Self { target, actual, met: actual.map(|actual| actual < target) }
    }
}

impl Targets {
    /// The target of a figure, if it has one.
    pub fn of(&self, figure: &str) -> Option<Target> {
        match figure {
            "activation_rate" => Some(self.activation_rate),
            "wizard_within_24h_rate" => Some(self.wizard_within_24h_rate),
            "provisioning_success_rate" => Some(self.provisioning_success_rate),
            "median_minutes_to_first_query" => Some(self.median_minutes_to_first_query),
            _ => None,
        }
    }
}

impl ActivationMetrics {
    /// Of all customers that are known.
    pub fn of(all: &[Journey], span: Span) -> Self {
        let Funnel { total_signups, by_manifest, conversion_rates, time_to_first_query, time_to_activate, .. } =
            Funnel::of(all, span);
        let cohort = span.cohort(all);
        let provisioned = reached(&cohort, Milestone::Provisioned);
        let provisioning_failed = cohort.iter().filter(|journey| failed(journey)).count();
        let provisioning_success_rate = percentage(provisioned, provisioned + provisioning_failed);
        let within =
            |from: &Moment<'_>, to: &Moment<'_>, limit| rate_within(&cohort, from, to, limit, span.until.plus(-1));
        let signup = |journey: &Journey| Some(journey.signed_up);
        let payment = |journey: &Journey| journey.reached(Milestone::Payment);
        let completed = |journey: &Journey| journey.reached(Milestone::Completed);
        let wizard_within_24h_rate = within(&payment, &completed, DAY);
        let activation_rate = conversion_rates.activation_rate;
        Self {
            span,
            total_signups,
            by_manifest,
            completed_payment: reached(&cohort, Milestone::Payment),
            provisioned,
            provisioning_failed,
            logged_in: reached(&cohort, Milestone::FirstLogin),
            ran_sample_query: reached(&cohort, Milestone::SampleQuery),
            succeeded_first_query: cohort.iter().filter(|journey| journey.first_query().is_some()).count(),
            uploaded_document: reached(&cohort, Milestone::FirstDocument),
            completed_activation: reached(&cohort, Milestone::Completed),
            activation_rate,
            conversion_rates,
            provisioning_success_rate,
            wizard_within_24h_rate,
            first_query_within_24h_rate: within(&signup, &Journey::first_query, DAY),
            first_query_within_48h_rate: within(&signup, &Journey::first_query, 2 * DAY),
            time_to_provision: Durations::of(seconds(&cohort, &payment, &|j| j.reached(Milestone::Provisioned))),
            time_to_first_query,
            mean_minutes_to_first_query: mean_minutes(seconds(&cohort, &signup, &Journey::first_query)),
            time_to_activate,
            targets: Targets {
                activation_rate: Target::at_least(ACTIVATION, activation_rate),
                wizard_within_24h_rate: Target::at_least(WIZARD, wizard_within_24h_rate),
                provisioning_success_rate: Target::at_least(PROVISIONING, provisioning_success_rate),
                median_minutes_to_first_query: Target::below(
                    FIRST_QUERY_MINUTES,
                    time_to_first_query.map(|times| times.median_minutes),
                ),
            },
        }
    }

    /// The counts, by name.
    pub fn counts(&self) -> [(&'static str, usize); 10] {
        [
            ("total_signups", self.total_signups),
            ("by_manifest", self.by_manifest),
            ("completed_payment", self.completed_payment),
            ("provisioned", self.provisioned),
            ("provisioning_failed", self.provisioning_failed),
            ("logged_in", self.logged_in),
            ("ran_sample_query", self.ran_sample_query),
            ("succeeded_first_query", self.succeeded_first_query),
            ("uploaded_document", self.uploaded_document),
            ("completed_activation", self.completed_activation),
        ]
    }

    /// The rates and times, by name.
    pub fn rates(&self) -> Vec<(&'static str, Option<f64>)> {
        let ConversionRates { payment_rate, login_rate, upload_rate, activation_rate } = self.conversion_rates;
        let first_query = |of: fn(Durations) -> f64| self.time_to_first_query.map(of);
        let activate = |of: fn(Durations) -> f64| self.time_to_activate.map(of);
        vec![
            ("activation_rate", activation_rate),
            ("payment_rate", payment_rate),
            ("login_rate", login_rate),
            ("upload_rate", upload_rate),
            ("provisioning_success_rate", self.provisioning_success_rate),
            ("wizard_within_24h_rate", self.wizard_within_24h_rate),
            ("first_query_within_24h_rate", self.first_query_within_24h_rate),
            ("first_query_within_48h_rate", self.first_query_within_48h_rate),
            ("median_minutes_to_provision", self.time_to_provision.map(|times| times.median_minutes)),
            ("median_minutes_to_first_query", first_query(|times| times.median_minutes)),
            ("p75_minutes_to_first_query", first_query(|times| times.p75_minutes)),
            ("p90_minutes_to_first_query", first_query(|times| times.p90_minutes)),
            ("mean_minutes_to_first_query", self.mean_minutes_to_first_query),
            ("median_minutes_to_activate", activate(|times| times.median_minutes)),
            ("p75_minutes_to_activate", activate(|times| times.p75_minutes)),
            ("p90_minutes_to_activate", activate(|times| times.p90_minutes)),
            ("activated_within_24h_percentage", activate(|times| times.within_24h_percentage)),
            ("activated_within_48h_percentage", activate(|times| times.within_48h_percentage)),
        ]
    }
}

/// When something happened to a customer, if it did.
type Moment<'a> = dyn Fn(&Journey) -> Option<Timestamp> + 'a;

/// How long each customer took from one moment to another, for those who reached both.
fn seconds(cohort: &[&Journey], from: &Moment<'_>, to: &Moment<'_>) -> Vec<i64> {
    cohort.iter().filter_map(|journey| Some(to(journey)?.since(from(journey)?))).collect()
}

/// Per cent of those who reached the first moment and have had the time since, that reached the second one in time.
fn rate_within(cohort: &[&Journey], from: &Moment<'_>, to: &Moment<'_>, limit: i64, now: Timestamp) -> Option<f64> {
    let had_the_time: Vec<_> = cohort
        .iter()
        .filter_map(|journey| Some((journey, from(journey)?)))
        .filter(|(_, start)| now.since(*start) >= limit)
        .collect();
    let in_time =
        had_the_time.iter().filter(|(journey, start)| to(journey).is_some_and(|end| end.since(*start) <= limit));
    percentage(in_time.count(), had_the_time.len())
}

/// Whether the customer's tenant was given up before it was ever in service.
fn failed(journey: &Journey) -> bool {
    journey.phase == Some(Phase::Failed) && journey.reached(Milestone::Provisioned).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Origin;
    use Milestone::{Completed, FirstDocument, FirstLogin, OwnQuery, Payment, Provisioned, SampleQuery};

    const HOUR: i64 = 3600;

    fn at(now: i64, all: &[Journey]) -> ActivationMetrics {
        ActivationMetrics::of(all, Span::days_before(Timestamp::from_second(now), 30))
    }

    fn whole_way(name: &str, signed_up: i64, completed: i64) -> Journey {
        let way = [
            (Payment, 60),
            (Provisioned, 63),
            (FirstLogin, 90),
            (SampleQuery, 120),
            (FirstDocument, 300),
            (OwnQuery, 400),
        ];
        Journey::example(name, signed_up, &[&way[..], &[(Completed, completed)]].concat())
    }

    #[test]
    fn without_customers_nothing_is_measured_and_no_target_is_met_or_missed() {
        let none = at(0, &[]);
        assert_eq!((none.total_signups, none.activation_rate, none.time_to_first_query), (0, None, None));
        assert_eq!((none.mean_minutes_to_first_query, none.provisioning_success_rate), (None, None));
        assert_eq!(none.targets.activation_rate, Target { target: 70.0, actual: None, met: None });
    }

    #[test]
    fn each_figure_counts_whom_it_names() {
        let now = 10 * DAY;
        let mut given_up = Journey::example("failed", DAY, &[(Payment, 60)]);
        given_up.phase = Some(Phase::Failed);
        let mut manifest = whole_way("manifest", DAY, HOUR);
        manifest.origin = Origin::Manifest;
        let all = [
            whole_way("fast", DAY, HOUR),
            whole_way("slow", DAY, 2 * DAY),
            Journey::example("left", DAY, &[]),
            given_up,
            manifest,
            // Of an earlier time than the span.
            whole_way("old", -40 * DAY, HOUR),
        ];
        let figures = at(now, &all);
        assert_eq!(figures.counts().map(|(_, count)| count), [4, 1, 3, 2, 1, 2, 2, 2, 2, 2], "{figures:?}");
        assert_eq!(figures.activation_rate, Some(50.0));
        assert_eq!(figures.activation_rate, figures.conversion_rates.activation_rate);
        let provisioning = figures.provisioning_success_rate.expect("some were set up");
        assert!((provisioning - 200.0 / 3.0).abs() < 1e-9, "{provisioning}");
        let wizard = figures.wizard_within_24h_rate.expect("some paid");
        assert!((wizard - 100.0 / 3.0).abs() < 1e-9, "one of the three who paid: {wizard}");
        assert_eq!(figures.first_query_within_24h_rate, Some(50.0));
        assert_eq!(figures.time_to_provision.map(|times| times.median_minutes), Some(0.05));
        assert_eq!(figures.mean_minutes_to_first_query, Some(2.0));
        assert_eq!(figures.targets.activation_rate.met, Some(false));
        assert_eq!(figures.targets.median_minutes_to_first_query.met, Some(true));
    }

    #[test]
    fn those_who_have_not_had_the_time_yet_count_neither_for_nor_against() {
        let new = Journey::example("new", 0, &[(Payment, 60)]);
        assert_eq!(at(DAY, std::slice::from_ref(&new)).first_query_within_24h_rate, Some(0.0));
        assert_eq!(at(DAY - 2, std::slice::from_ref(&new)).first_query_within_24h_rate, None);
        assert_eq!(at(DAY, &[new]).wizard_within_24h_rate, None, "the payment came a minute later");
        // Who was fast is not counted before the others of the same day.
        assert_eq!(at(HOUR, &[whole_way("fast", 0, 600)]).wizard_within_24h_rate, None);
    }

    #[test]
    fn a_target_is_met_at_its_limit_and_a_time_only_below_it() {
        assert_eq!(Target::at_least(70.0, Some(70.0)).met, Some(true));
        assert_eq!(Target::at_least(70.0, Some(69.9)).met, Some(false));
        assert_eq!(Target::below(5.0, Some(5.0)).met, Some(false));
        assert_eq!(Target::below(5.0, Some(4.9)).met, Some(true));
    }

    #[test]
    fn a_tenant_that_fails_after_it_was_in_service_was_set_up() {
        let mut journey = whole_way("acme", 0, HOUR);
        journey.phase = Some(Phase::Failed);
        let figures = at(DAY, &[journey]);
        assert_eq!((figures.provisioned, figures.provisioning_failed), (1, 0));
        assert_eq!(figures.provisioning_success_rate, Some(100.0));
    }
}
