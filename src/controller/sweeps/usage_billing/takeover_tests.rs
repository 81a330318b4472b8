use super::super::fixtures::{HOUR, NOON, at, hour, usage};
use super::*;
use crate::ledger::account::Period;
use crate::ledger::units::Amounts;

fn item(created: i64) -> MeteredItem {
    let (price, meter) = ("price_2".into(), "mtr_2".into());
    MeteredItem { id: "si_1".into(), price, meter, created: at(created) }
}

fn waiting(until: i64) -> WaitingUsage {
    WaitingUsage { subscription: "sub_1".into(), until: at(until), amount: 0, usage: usage() }
}

fn take_over(waiting: &WaitingUsage, item: &MeteredItem, rows: (&[Row], usize), theirs: i64) -> MeteredUsage {
    taking_over_what_waited(waiting, (Unit::Queries, item), rows, theirs)
}

#[test]
fn a_price_that_comes_at_last_bills_what_waited_and_what_is_used_from_its_hour_on() {
    let hours = [hour(0, 5), hour(1, 7), hour(3, 2), hour(6, 4), hour(9, 8)];
    let amounts = |usage: &MeteredUsage| unsent(&hours, usage).iter().map(|row| row.amount).collect::<Vec<_>>();
    let now = waiting(NOON + 4 * HOUR);
    let mut usage = take_over(&now, &item(NOON + 8 * HOUR + 90), (&[], 0), 0);
    let rows = unsent(&hours, &usage);
    assert_eq!(amounts(&usage), [7, 2, 8], "hour 6 had no price");
    record(&mut usage, &rows, 1);
    assert_eq!(unsent(&hours, &usage), rows[1..], "also halfway");
    record(&mut usage, &rows[1..], 2);
    assert_eq!((usage.sent, usage.unpriced), (17, None));
    assert_eq!(take_over(&now, &item(NOON + 4 * HOUR + 90), (&[], 0), 0).unpriced, None);
}

#[test]
fn hours_without_a_price_are_no_part_of_the_comparison_with_stripe() {
    let hours = [hour(0, 5), hour(1, 7), hour(3, 2), hour(6, 4), hour(9, 8)];
    let until = NOON + 4 * HOUR;
    let rows = rows_to_take_over(&waiting(until), &hours, at(NOON + 8 * HOUR));
    assert_eq!(rows.iter().map(|row| row.amount).collect::<Vec<_>>(), [7, 2, 8]);
    assert_eq!(decide::delivered(5, 22, &rows), Some(3), "all of it was sent, and not recorded");
    assert_eq!(rows_to_take_over(&waiting(until), &hours, at(until)).len(), 4, "no gap");
}

#[test]
fn what_waits_for_a_decision_begins_where_it_would_have_begun() {
    let (begins, closed) = (NOON + 4 * HOUR, NOON + 10 * HOUR);
    let until = |until| held(waiting(until), 17, at(begins), at(closed)).until.as_second();
    assert_eq!(until(begins), closed, "its later usage is not lost if yet another item takes over");
    assert_eq!(until(NOON + 2 * HOUR), NOON + 2 * HOUR, "the gap stays");
    let (now, later) = (held(waiting(begins), 17, at(begins), at(closed)), item(begins + 90));
    let usage = take_over(&now, &later, (&[], 0), 3);
    assert_eq!((usage.through, usage.sent, usage.unpriced), (at(NOON + HOUR), 3, None));
}

/// Rows after the five that were recorded: 4 on the meter before, 7 and 2 on one in between, 3 on that of the item.
fn rows() -> Vec<Row> {
    unsent(&[hour(1, 4), hour(2, 7), hour(3, 2), hour(4, 3)], &usage())
}

#[test]
fn rows_that_any_meter_has_are_not_taken_over() {
    let known = |before, elsewhere, since, same| known_rows(5, &rows(), &Had { before, elsewhere, since, same });
    let unclear = |known, sent, theirs| Err(Unclear { known, sent, theirs });
    assert_eq!(known(5, 0, 0, false), Ok(0), "nothing was sent since");
    assert_eq!(known(9, 9, 0, false), Ok(3), "back from before the first of two changes, to a third meter");
    assert_eq!(known(9, 12, 3, false), Ok(4), "and the third one has its own");
    assert_eq!(known(9, 9, 0, true), Ok(3), "back to the first meter");
    assert_eq!(known(12, 9, 3, true), Ok(4), "and it has its own");
    assert_eq!(known(9, 8, 0, false), unclear(1, 0, 8), "something else reports to a meter");
    assert_eq!(known(9, 8, 0, true), unclear(0, 5, 17));
    assert_eq!(known(3, 0, 0, false), unclear(0, 5, 3), "events were canceled");
    assert_eq!(known(3, 2, 2, false), Ok(0), "and a person had the difference sent to the meter of the item");
}

#[test]
fn an_hour_of_which_a_part_was_sent_comes_once_more_as_a_whole_and_is_not_counted_twice() {
    let earlier = Period { start: at(NOON - 820 * HOUR), end: at(NOON - 100 * HOUR) };
    let late = HourUsage { hour: at(NOON + 2 * HOUR), period: earlier, counted: Amounts::of(Unit::Queries, 6) };
    let hours = [hour(1, 4), late, hour(2, 7), hour(3, 2)];
    let rows = unsent(&hours, &usage());
    let usage = take_over(&waiting(NOON + 4 * HOUR), &item(NOON + 4 * HOUR), (&rows, 2), 0);
    assert_eq!(usage.through, at(NOON + 2 * HOUR));
    let left = unsent(&hours, &usage);
    assert_eq!(
        decide::delivered(usage.sent, 0, &left),
        Some(1),
        "the meter has nothing, and six of these are elsewhere"
    );
}
