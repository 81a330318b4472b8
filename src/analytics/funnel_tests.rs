use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

use super::*;
use crate::events::Origin;
use Milestone::{
    Completed, EmailVerified, FirstDocument, FirstLogin, OwnQuery, Payment, Provisioned, SampleQuery, Signup,
};

const DAY: i64 = 24 * 3600;

fn span(from: i64, until: i64) -> Span {
    Span { from: Timestamp::from_second(from), until: Timestamp::from_second(until) }
}

fn step(funnel: &Funnel, milestone: Milestone) -> &FunnelStep {
    funnel.steps.iter().find(|step| step.milestone == milestone).expect("every milestone")
}

/// The example of a hundred signups: 85 pay, 70 log in, 45 store a document, 40 complete the setup.
#[test]
fn a_hundred_signups_give_the_figures_of_the_definitions() {
    let reached = |n: usize| {
        let limits = [(85, Payment), (85, Provisioned), (70, FirstLogin), (45, FirstDocument), (40, Completed)];
        let all = limits.iter().zip(1_i64..).filter(|((limit, _), _)| n < *limit);
        all.map(|((_, milestone), minutes)| (*milestone, minutes * 60)).collect::<Vec<_>>()
    };
    let all: Vec<_> = (0..100).map(|n| Journey::example(&n.to_string(), 1000, &reached(n))).collect();
    let funnel = Funnel::of(&all, span(0, 2000));
    assert_eq!(funnel.total_signups, 100);
    assert_eq!(funnel.conversion_rates.payment_rate, Some(85.0));
    assert_eq!(funnel.conversion_rates.login_rate.map(|rate| (rate * 10.0).round() / 10.0), Some(82.4));
    assert_eq!(funnel.conversion_rates.upload_rate.map(|rate| (rate * 10.0).round() / 10.0), Some(64.3));
    assert_eq!(funnel.conversion_rates.activation_rate, Some(40.0));
    let times = funnel.time_to_activate.expect("forty");
    assert_eq!((times.measured, times.median_minutes, times.within_24h_percentage), (40, 5.0, 100.0));
    assert_eq!(funnel.time_to_first_query, None);
}

#[test]
fn a_step_that_is_turned_off_is_passed_over_and_one_that_no_customer_reaches_is_not() {
    let all = [
        Journey::example("a", 0, &[(Payment, 60), (Provisioned, 120)]),
        Journey::example("b", 0, &[]),
        Journey::example("c", 0, &[]),
    ];
    let funnel = Funnel::of(&all, span(0, 1));
    let verified = step(&funnel, EmailVerified);
    assert_eq!((verified.customers, verified.previous, verified.conversion), (0, None, None));
    let paid = step(&funnel, Payment);
    assert_eq!((paid.customers, paid.previous), (1, Some(Signup)));
    assert!(paid.high_drop_off && paid.drop_off.is_some_and(|lost| (66.6..66.7).contains(&lost)));
    let login = step(&funnel, FirstLogin);
    assert_eq!((login.previous, login.conversion, login.high_drop_off), (Some(Provisioned), Some(0.0), true));
}

#[test]
fn forty_per_cent_are_not_named() {
    let all: Vec<_> =
        (0..5).map(|n| Journey::example(&n.to_string(), 0, if n < 3 { &[(Payment, 60)] } else { &[] })).collect();
    let paid = step(&Funnel::of(&all, span(0, 1)), Payment).clone();
    assert_eq!((paid.drop_off, paid.high_drop_off), (Some(40.0), false));
}

#[test]
fn a_span_has_its_first_moment_and_not_its_last() {
    let all = [99, 100, 199, 200].map(|at| Journey::example(&at.to_string(), at, &[]));
    assert_eq!(Funnel::of(&all, span(100, 200)).total_signups, 2);
    let now = Timestamp::from_second(40 * DAY);
    let thirty = Span::days_before(now, 30);
    assert_eq!((thirty.from, thirty.until), (Timestamp::from_second(10 * DAY), now.plus(1)));
}

#[test]
fn tenants_by_manifest_are_apart() {
    let mut manifest = Journey::example("m", 0, &[(Completed, 5)]);
    manifest.origin = Origin::Manifest;
    let mut invited = Journey::example("i", 0, &[]);
    invited.origin = Origin::Invitation;
    let funnel = Funnel::of(&[manifest, invited], span(0, 1));
    assert_eq!((funnel.total_signups, funnel.by_manifest, step(&funnel, Completed).customers), (1, 1, 0));
}

/// ISO 8601: 2026 has 53 weeks, and the first of January 2027 belongs to its last one.
#[test]
fn weeks_are_those_of_the_standard() {
    let week_of = |text: &str| week(text.parse().expect("a time"));
    assert_eq!(week_of("2026-11-30T00:00:00Z"), "2026-W49");
    assert_eq!(week_of("2026-11-29T23:59:59Z"), "2026-W48");
    assert_eq!(week_of("2027-01-01T12:00:00Z"), "2026-W53");
    assert_eq!(week_of("2027-01-04T00:00:00Z"), "2027-W01");
}

fn random(random: &mut StdRng, n: usize) -> Journey {
    let mut reached = Vec::new();
    for milestone in Milestone::iter().skip(1) {
        // Out of order, at the same moment and years later as well.
        if random.random_bool(0.6) {
            let longest = [1, 3600, 3 * DAY, 700 * DAY][random.random_range(0..4)];
            reached.push((milestone, random.random_range(0..longest)));
        }
    }
    let mut journey = Journey::example(&n.to_string(), random.random_range(0..60 * DAY), &reached);
    journey.customer.plan = ["starter", "pro"][random.random_range(0..2)].into();
    journey.origin = [Origin::Signup, Origin::Invitation, Origin::Manifest][random.random_range(0..3)];
    journey.variant = [Variant::Simple, Variant::Detailed][random.random_range(0..2)];
    journey
}

/// Counts by going through all customers for each figure, with no regard to speed.
fn judge(all: &[Journey], span: Span, funnel: &Funnel) {
    let mut cohort = Vec::new();
    for journey in all {
        if journey.signed_up >= span.from && journey.signed_up < span.until && journey.origin != Origin::Manifest {
            cohort.push(journey);
        }
    }
    assert_eq!(funnel.total_signups, cohort.len());
    for step in &funnel.steps {
        let (mut customers, mut before, mut both, mut times) = (0, 0, 0, Vec::new());
        for journey in &cohort {
            let there = journey.reached(step.milestone);
            let previous = step.previous.and_then(|previous| journey.reached(previous));
            customers += usize::from(there.is_some());
            before += usize::from(previous.is_some());
            if let (Some(there), Some(previous)) = (there, previous) {
                both += 1;
                times.push((there.as_second() - previous.as_second()).max(0));
            }
        }
        assert_eq!(step.customers, customers);
        let wanted = (both * 1000_usize).checked_div(before);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let tenths = step.conversion.map(|rate| (rate * 10.0 + 1e-9) as usize);
        assert_eq!(tenths, wanted);
        assert!(step.conversion.is_none_or(|rate| (0.0..=100.0).contains(&rate)));
        // Half of the times are at most the median, and it is the smallest such time.
        if let Some(measured) = step.time_from_previous {
            #[allow(clippy::cast_possible_truncation)]
            let median = (measured.median_minutes * 60.0).round() as i64;
            assert_eq!(measured.measured, times.len());
            assert!(times.contains(&median));
            let at_most = times.iter().filter(|time| **time <= median).count();
            let below = times.iter().filter(|time| **time < median).count();
            assert!(at_most * 2 >= times.len() && below * 2 < times.len(), "{median} of {times:?}");
        } else {
            assert!(times.is_empty());
        }
    }
    for groups in [&funnel.plans, &funnel.weeks, &funnel.variants] {
        assert_eq!(groups.iter().map(|group| group.signups).sum::<usize>(), cohort.len());
        let completed = cohort.iter().filter(|journey| journey.reached(Completed).is_some()).count();
        assert_eq!(groups.iter().map(|group| group.completed).sum::<usize>(), completed);
        let queried = cohort.iter().filter(|j| j.reached(SampleQuery).is_some() || j.reached(OwnQuery).is_some());
        assert_eq!(groups.iter().map(|group| group.queried).sum::<usize>(), queried.count());
    }
}

#[test]
fn figures_are_those_of_a_count_by_hand() {
    for seed in 0..300 {
        let mut source = StdRng::seed_from_u64(seed);
        let customers = source.random_range(0..60);
        let all: Vec<_> = (0..customers).map(|n| random(&mut source, n)).collect();
        let from = source.random_range(0..50 * DAY);
        let span = span(from, from + source.random_range(0..30 * DAY));
        judge(&all, span, &Funnel::of(&all, span));
    }
}
