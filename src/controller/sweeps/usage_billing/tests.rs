use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;

use super::super::meters::{Read, holds};
use super::super::send::{Of, compare, send};
use super::super::trouble::Trouble;
use super::*;
use crate::ledger::units::Amounts;
use crate::lifecycle::Provider;
use crate::providers::ProviderError;
use crate::providers::biller::{Biller, Delivery, Meter, Report};
use crate::providers::stripe::UsagePriceError;

const NOON: i64 = 1_800_014_400;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second)
}

fn period(number: i64) -> Period {
    let start = NOON - 10 * 24 * HOUR + number * 30 * 24 * HOUR;
    Period { start: at(start), end: at(start + 30 * 24 * HOUR) }
}

fn hour(number: i64, of: i64, queries: i64) -> HourUsage {
    let counted = Amounts::of(Unit::Queries, queries).with(Unit::Documents, 3);
    HourUsage { hour: at(NOON + number * HOUR), period: period(of), counted }
}

fn row(number: i64, of: i64, amount: i64) -> Row {
    Row { hour: at(NOON + number * HOUR), period: period(of), amount }
}

fn usage() -> MeteredUsage {
    let (price, meter) = ("price_1".into(), "mtr_1".into());
    MeteredUsage { unit: Unit::Queries, price, meter, since: at(NOON), through: at(NOON), sent: 0, unpriced: None }
}

#[test]
fn stripes_sum_tells_which_rows_it_has() {
    let rows = [row(0, 0, 5), row(1, -1, 1), row(1, 0, 7)];
    let known = |theirs| delivered(10, theirs, &rows);
    assert_eq!([10, 15, 16, 23].map(known), [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!([0, 9, 11, 22, 24].map(known), [None; 5], "no number of them comes to that");
}

#[test]
fn an_hour_is_recorded_once_all_its_rows_are_there() {
    let rows = [row(0, 0, 5), row(3, -1, 1), row(3, 0, 7)];
    let recorded = |number| {
        let mut usage = usage();
        record(&mut usage, &rows, number);
        (usage.sent, usage.through.since(at(NOON)) / HOUR)
    };
    assert_eq!([0, 1, 2, 3].map(recorded), [(0, 0), (5, 1), (5, 1), (13, 4)]);
}

#[test]
fn rows_that_stripes_number_covers_are_not_sent_once_it_stands() {
    let rows = [row(0, 0, 5), row(3, -1, 1), row(3, 0, 7)];
    // What is recorded then, and what is still sent.
    let stands = |sent, theirs| {
        let mut usage = MeteredUsage { sent, ..usage() };
        stand(&mut usage, &rows, theirs);
        let rest: Vec<_> = rows.iter().filter(|row| row.hour >= usage.through).map(|row| row.amount).collect();
        let unsent: Vec<_> = rows.iter().filter(|row| row.hour >= usage.through).copied().collect();
        let known = delivered(usage.sent, theirs, &unsent).expect("it agrees");
        (usage.sent, rest[known..].iter().sum::<i64>())
    };
    assert_eq!(stands(0, 20), (20, 0), "the status was lost: Stripe has all of it, and 7 more");
    assert_eq!(stands(0, 8), (7, 7), "one of two rows of an hour");
    assert_eq!(stands(9, 5), (5, 13), "Stripe has less than was sent");
}

#[test]
fn what_was_recorded_and_what_was_before_the_price_is_not_sent() {
    let hours = [hour(-1, 0, 9), hour(0, 0, 5), hour(1, -1, 0), hour(1, 0, 7), hour(2, 0, 1)];
    assert_eq!(unsent(&hours, &usage()), [row(0, 0, 5), row(1, 0, 7), row(2, 0, 1)]);
    assert_eq!(unsent(&hours, &MeteredUsage { through: at(NOON + 2 * HOUR), ..usage() }), [row(2, 0, 1)]);
}

#[test]
fn identifiers_are_of_tenant_meter_hour_and_period() {
    let name = |tenant, meter, hour, of| identifier(tenant, meter, &row(hour, of, 5));
    let all = BTreeSet::from([
        name("acme", "mtr_1", 0, 0),
        name("acme", "mtr_1", 0, -1),
        name("acme", "mtr_1", 1, 0),
        name("acme", "mtr_2", 0, 0),
        name("other", "mtr_1", 0, 0),
    ]);
    assert_eq!(all.len(), 5);
    assert!(all.iter().all(|name| name.len() <= 100));
    assert_eq!(identifier("acme", "mtr_1", &row(0, 0, 6)), name("acme", "mtr_1", 0, 0), "whatever the amount");
}

fn dates() -> Dates {
    let (now, created, period_start) = (at(NOON + 5 * HOUR), at(NOON - 400 * HOUR), at(NOON - 100 * HOUR));
    Dates { now, created, period_start, drafts: vec![], ended_at: None }
}

#[test]
fn events_are_dated_where_they_are_billed() {
    let dated = |dates: &Dates, row: &Row| dates.of(row).map(|at| at.as_second() - NOON);
    let (now, late) = (row(0, 0, 1), row(0, -1, 1));
    assert_eq!(dated(&dates(), &now), Some(HOUR - 1), "the last second of its hour");
    let ended = period(-1).end.as_second() - NOON - 1;
    assert_eq!(dated(&dates(), &late), Some(-100 * HOUR), "the invoice of its period is final: the next one");
    assert!(dates().depends(&late) && !dates().depends(&now));
    let open = Dates { drafts: vec![(at(NOON - 900 * HOUR), at(NOON - 100 * HOUR))], ..dates() };
    assert_eq!(dated(&open, &late), Some(ended), "the last second of its period, whose invoice is a draft");
    let new = Dates { created: at(NOON + 4 * HOUR), ..dates() };
    assert_eq!(dated(&new, &now), Some(4 * HOUR), "not before its price");
    let over = Dates { ended_at: Some(at(NOON + 60)), ..dates() };
    assert_eq!(dated(&over, &now), None, "the last invoice is final");
    let over = Dates { drafts: vec![(at(NOON - HOUR), at(NOON + 60))], ..over };
    assert_eq!(dated(&over, &now), Some(59), "on the last invoice");
    let old = Dates { now: at(NOON + 60 * 24 * HOUR), ..dates() };
    assert_eq!(dated(&old, &now), Some(26 * 24 * HOUR), "Stripe refuses what is older");
}

#[test]
fn prices_are_replaced_after_a_full_hour_and_not_at_its_edge() {
    let noticed = replace_at(None, at(NOON));
    assert_eq!((noticed, replace_at(Some(noticed), at(NOON + HOUR))), (at(NOON + HOUR), noticed));
    let may = |closed, now| may_replace(noticed, at(NOON + closed), at(NOON + now));
    assert!(!may(0, HOUR + 70), "the hour of the change is not sent yet");
    assert!(may(HOUR, HOUR + 60) && may(HOUR, HOUR + 54 * 60));
    assert!(!may(HOUR, HOUR + 59) && !may(HOUR, HOUR + 55 * 60));
    assert!(!may(HOUR, HOUR - 1) && !may(HOUR, HOUR - 60), "the ledger's clock is a little ahead");
    assert!(may(HOUR, HOUR - 61) && may(2 * HOUR, HOUR), "its hours are ahead for good");
}

#[test]
fn another_price_begins_anew_and_the_same_one_goes_on() {
    let recorded = [MeteredUsage { sent: 9, through: at(NOON + HOUR), ..usage() }];
    let (same, other) = (item("price_1", "mtr_1", NOON + 100), item("price_2", "mtr_1", NOON + 2 * HOUR + 5));
    assert_eq!(usage_of(&recorded, Unit::Queries, &same), recorded[0]);
    let new = usage_of(&recorded, Unit::Queries, &other);
    assert_eq!((new.since, new.through, new.sent), (at(NOON + 2 * HOUR), at(NOON + 2 * HOUR), 0));
    let wanted = [UsagePrice { unit: Unit::Queries, stripe_price_id: "price_2".into(), included: 0 }];
    let (gone, added) = changes(&wanted, &[&same]);
    assert_eq!((gone, added), (vec![&same], vec![&wanted[0]]));
    assert_eq!(changes(&wanted, &[&other]), (vec![], vec![]));
}

fn item(price: &str, meter: &str, created: i64) -> MeteredItem {
    MeteredItem { id: "si_1".into(), price: price.into(), meter: meter.into(), created: at(created) }
}

#[test]
fn an_item_with_a_meter_of_a_price_that_is_wanted_or_recorded_is_ours() {
    let of_plan = UsagePrice { unit: Unit::Queries, stripe_price_id: "price_2".into(), included: 0 };
    let wanted = || [(Unit::Queries, "mtr_1")].into_iter();
    // Bought before the admin replaced the price in the Plan.
    let (bought, other) = (item("price_old", "mtr_1", NOON), item("price_else", "mtr_else", NOON));
    let ours = Ours::new(&[], [&of_plan].into_iter()).with_meters(&[], wanted());
    assert_eq!((ours.unit(&bought), ours.unit(&other)), (Some(Unit::Queries), None));
    let items = [&bought];
    let (gone, new) = changes(std::slice::from_ref(&of_plan), &items);
    assert_eq!((gone, new), (vec![&bought], vec![&of_plan]), "it goes as its successor comes");
    let recorded = [MeteredUsage { price: "price_1".into(), ..usage() }];
    let ours = Ours::new(&recorded, [].into_iter()).with_meters(&[], [].into_iter());
    assert_eq!(ours.unit(&bought), Some(Unit::Queries), "by the record");
    let (known, beside) = (item("price_2", "mtr_2", NOON), item("price_old", "mtr_2", NOON));
    let ours = Ours::new(&[], [&of_plan].into_iter()).with_meters(&[known, beside.clone()], [].into_iter());
    assert_eq!(ours.unit(&beside), Some(Unit::Queries), "both bill one meter");
    assert_eq!(twice(["mtr_1", "mtr_2", "mtr_1"].into_iter()), Some("mtr_1"));
    assert_eq!(twice(["mtr_1", "mtr_2"].into_iter()), None);
}

#[test]
fn what_was_not_sent_goes_with_the_tenant_to_its_next_subscription() {
    let hours = [hour(0, 0, 5), hour(1, 0, 7), hour(3, 0, 2), hour(5, 0, 4)];
    let before = MeteredUsage { sent: 5, through: at(NOON + HOUR), ..usage() };
    let next = item("price_2", "mtr_2", NOON + 5 * HOUR + 90);
    let usage = taking_over(Unit::Queries, &next, before.through, 0);
    assert_eq!((usage.since, &*usage.meter, &*usage.price), (at(NOON + 5 * HOUR), "mtr_2", "price_2"));
    let rows = unsent(&hours, &usage);
    assert_eq!(rows, [row(1, 0, 7), row(3, 0, 2), row(5, 0, 4)], "and nothing that was sent");
    let dates = Dates { now: at(NOON + 6 * HOUR), created: next.created, period_start: next.created, ..dates() };
    let seconds: Vec<_> = rows.iter().filter_map(|row| dates.of(row)).map(|at| at.as_second() - NOON).collect();
    assert_eq!(seconds, [5 * HOUR + 90, 5 * HOUR + 90, 6 * HOUR - 1], "so that the next subscription bills it");
    // Stripe's sum of the meter holds what was sent for the one before.
    assert_eq!(taking_over(Unit::Queries, &next, before.through, 9).sent, 9);
    assert_eq!(usage_of(std::slice::from_ref(&usage), Unit::Queries, &next), usage, "it is found again");

    let other =
        |through| of_another_customer(&MeteredUsage { through: at(through), ..before.clone() }, Unit::Queries, &next);
    assert_eq!(other(NOON + HOUR).through, at(NOON + 5 * HOUR), "another customer does not pay for it");
    assert_eq!(other(NOON + 6 * HOUR).through, at(NOON + 6 * HOUR), "nor for what the one before has paid for");
}

#[test]
fn a_price_that_comes_late_bills_the_hour_that_nothing_has_billed() {
    let begun = |created, theirs| {
        let usage = taking_over(Unit::Queries, &item("price_2", "mtr_1", NOON + created), at(NOON), theirs);
        (usage.since.since(at(NOON)) / HOUR, usage.through.since(at(NOON)) / HOUR, usage.sent)
    };
    assert_eq!(begun(300, 0), (0, 0, 0));
    assert_eq!(begun(HOUR + 5, 0), (1, 0, 0), "Stripe took long");
    assert_eq!(begun(-5, 9), (-1, 0, 9), "the hour before was sent, and is not over by Stripe's clock");
}

/// A biller that loses calls and answers, shows its sums late, and forgets identifiers.
#[derive(Debug, Default)]
struct Unsteady {
    events: Mutex<BTreeMap<String, (i64, i64)>>,
    calls: Mutex<u64>,
    /// The next number of a stream that is the same in each run.
    seed: Mutex<u64>,
    now: Mutex<i64>,
}

impl Unsteady {
    fn chance(&self, of: u64) -> bool {
        let mut seed = self.seed.lock().expect("not poisoned");
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33).is_multiple_of(of)
    }

    fn sum(&self, until: i64) -> i64 {
        let events = self.events.lock().expect("not poisoned");
        events.values().filter(|(received, _)| *received <= until).map(|(_, amount)| amount).sum()
    }

    fn lost() -> ProviderError {
        ProviderError::garbage(Provider::Stripe, "lost")
    }
}

#[async_trait]
impl Biller for Unsteady {
    async fn report(&self, report: &Report<'_>) -> Result<Delivery, ProviderError> {
        *self.calls.lock().expect("not poisoned") += 1;
        if self.chance(5) {
            return Err(Self::lost());
        }
        let now = *self.now.lock().expect("not poisoned");
        let mut events = self.events.lock().expect("not poisoned");
        // After a day, an identifier is taken again, as another event.
        let there = events.get(report.identifier).is_some_and(|(received, _)| now - received < 24 * HOUR);
        if !there {
            let older = format!("{}-{now}", report.identifier);
            if let Some(before) = events.insert(report.identifier.to_owned(), (now, report.amount)) {
                events.insert(older, before);
            }
        }
        drop(events);
        if self.chance(4) {
            return Err(Self::lost());
        }
        Ok(if there { Delivery::Before } else { Delivery::New })
    }

    async fn reported(&self, _: &str, _: &str, _: Timestamp, _: Timestamp) -> Result<i64, ProviderError> {
        let now = *self.now.lock().expect("not poisoned");
        // Ten minutes late.
        if self.chance(6) { Err(Self::lost()) } else { Ok(self.sum(now - 600)) }
    }
}

fn meter() -> Meter {
    Meter {
        id: "mtr_1".into(),
        event_name: "queries".into(),
        customer_key: "customer".into(),
        value_key: "value".into(),
    }
}

/// A biller that takes so many reports, and then fails.
#[derive(Debug)]
struct FailsAfter(Mutex<usize>);

#[async_trait]
impl Biller for FailsAfter {
    async fn report(&self, _: &Report<'_>) -> Result<Delivery, ProviderError> {
        let mut left = self.0.lock().expect("not poisoned");
        *left = left.checked_sub(1).ok_or_else(Unsteady::lost)?;
        Ok(Delivery::New)
    }

    async fn reported(&self, _: &str, _: &str, _: Timestamp, _: Timestamp) -> Result<i64, ProviderError> {
        Ok(0)
    }
}

#[tokio::test]
async fn stripes_sums_may_lag_after_a_catch_up_that_failed_halfway() {
    let meter = meter();
    let of = Of { tenant: "acme", customer: "cus_1", subscription: "sub_1", meter: &meter };
    let rows = [row(0, 0, 5), row(1, 0, 7)];
    let sent = async |takes: usize, there: usize, dates: &Dates| {
        let mut usage = usage();
        let biller = FailsAfter(Mutex::new(takes));
        let (lag, done) = send(&biller, of, &mut usage, (&rows, there), dates, |_| {}).await;
        (lag, done.is_ok(), usage.sent)
    };
    assert_eq!(sent(2, 0, &dates()).await, (true, true, 12));
    assert_eq!(sent(1, 0, &dates()).await, (true, false, 5), "the first one is there");
    assert_eq!(sent(0, 0, &dates()).await, (true, false, 0), "an answer may be lost");
    assert_eq!(sent(0, 2, &dates()).await, (true, true, 12), "one before has sent them");
    let over = Dates { ended_at: Some(at(NOON + 60)), ..dates() };
    assert_eq!(sent(0, 0, &over).await, (false, false, 0), "nothing was sent");
}

#[test]
fn usage_that_nothing_bills_is_told_of_all_units() {
    let over = |unit, amount| Trouble::Over { amounts: vec![(unit, amount)], subscription: "sub_1".into() };
    let both = Trouble::both(Some(over(Unit::Queries, 12)), over(Unit::PromptTokens, 300));
    let said = both.to_string();
    assert!(said.starts_with("12 queries and 300 promptTokens were not billed"), "{said}");
    let first = Trouble::both(Some(Trouble::Unknown("sub_1".into())), both);
    assert_eq!(first.reason(), "SubscriptionUnknown");
}

#[test]
fn what_could_not_be_read_is_remembered_for_a_shorter_time() {
    let (fit, unfit): (Read<u8>, Read<u8>) = (Ok(1), Err(UsagePriceError::Unfit("not metered".into())));
    let lost: Read<u8> = Err(UsagePriceError::Provider(Unsteady::lost()));
    assert!(holds(&fit, Duration::from_mins(14)) && !holds(&fit, Duration::from_mins(15)));
    assert!(holds(&unfit, Duration::from_secs(119)) && !holds(&unfit, Duration::from_mins(2)));
    assert!(!holds(&lost, Duration::ZERO), "it goes by itself");
    let refused = ProviderError { status: Some(404), ..Unsteady::lost() };
    assert!(holds(&Err::<u8, _>(UsagePriceError::Provider(refused)), Duration::ZERO), "no such price");
}

/// Hours of a month with answers that are lost, a controller that is killed before it records, statuses of days ago
/// that come back, and pauses of days: in the end Stripe has what the ledger counted, to the unit.
#[tokio::test]
async fn whatever_fails_stripe_has_each_row_once() {
    let meter = meter();
    let of = Of { tenant: "acme", customer: "cus_1", subscription: "sub_1", meter: &meter };
    for seed in 0..60 {
        let biller = Unsteady { seed: Mutex::new(seed), ..Unsteady::default() };
        let (mut ledger, mut recorded, mut older) = (Vec::new(), usage(), usage());
        let (mut minute, end) = (0, 30 * 24 * 60);
        let mut settled = false;
        while minute < end + 24 * 60 || !settled {
            assert!(minute < 2 * end, "{seed}: it never comes to its end");
            minute += if biller.chance(500) { 3 * 24 * 60 } else { 20 };
            let (now, closed) = (NOON + minute * 60, minute / 60);
            *biller.now.lock().expect("not poisoned") = now;
            for number in ledger.last().map_or(0, |row: &HourUsage| (row.hour.as_second() - NOON) / HOUR + 1)..closed {
                if minute < end && biller.chance(3) {
                    if biller.chance(4) {
                        ledger.push(hour(number, -1, number % 5 + 1));
                    }
                    ledger.push(hour(number, 0, number % 7 + 1));
                }
            }
            if biller.chance(300) {
                recorded = older.clone();
            } else if biller.chance(50) {
                older = recorded.clone();
            }
            let mut next = recorded.clone();
            let rows = unsent(&ledger, &next);
            let Ok(known) = compare(&biller, of, &next, (&rows, at(now))).await else { continue };
            let when = Dates { now: at(now), ..dates() };
            let (_, done) = send(&biller, of, &mut next, (&rows, known), &when, |_| {}).await;
            settled = done.is_ok();
            assert!(!matches!(done, Err(Trouble::Over { .. } | Trouble::Differs { .. })), "{done:?}");
            // Killed before it is recorded.
            if !biller.chance(4) {
                recorded = next;
            }
        }
        let counted: i64 = ledger.iter().map(|row| row.counted[Unit::Queries]).sum();
        assert!(counted > 100, "{seed}");
        assert_eq!(biller.sum(i64::MAX), counted, "{seed}: {} calls", biller.calls.lock().expect("not poisoned"));
    }
}
