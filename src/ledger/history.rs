//! What of the ledger's reports is a tenant's history: the periods that have ended, and its latest days.

use jiff::ToSpan;
use jiff::civil::Date;

use super::units::Amounts;
use super::wire::{DayUsage, PeriodUsage};
use crate::api::Timestamp;

/// Periods of a history, at most.
pub const PERIODS: usize = 12;

/// The latest closed periods, the latest first: those that began before the present one. What other systems report may
/// name a later period, which is not closed.
pub fn closed(mut periods: Vec<PeriodUsage>, present: Timestamp) -> Vec<PeriodUsage> {
    periods.retain(|usage| usage.period.start < present);
    periods.sort_by_key(|usage| std::cmp::Reverse(usage.period.start));
    periods.truncate(PERIODS);
    periods
}

/// The day of UTC that a moment is in.
pub fn day_of(moment: Timestamp) -> Date {
    jiff::Timestamp::from_second(moment.as_second()).unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// The first of so many days, of which the last one is given.
pub fn first_of(days: u16, last: Date) -> Date {
    last.saturating_sub(i64::from(days.saturating_sub(1)).days())
}

/// So many days up to the last one, the latest first, each with what was counted on it. The ledger leaves out days on
/// which it counted nothing.
pub fn each_day(counted: &[DayUsage], days: u16, last: Date) -> Vec<DayUsage> {
    let of = |day: Date| {
        let found = counted.iter().find(|usage| usage.day == day);
        DayUsage { day, counted: found.map_or(Amounts::ZERO, |usage| usage.counted) }
    };
    (0..i64::from(days)).map(|before| of(last.saturating_sub(before.days()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::account::Period;
    use crate::ledger::units::Unit;

    fn period(start: i64) -> PeriodUsage {
        let period = Period { start: Timestamp::from_second(start), end: Timestamp::from_second(start + 100) };
        PeriodUsage { period, used: Amounts::of(Unit::Queries, start), reserved: Amounts::ZERO }
    }

    #[test]
    fn the_latest_twelve_periods_before_the_present_one_are_the_history() {
        let starts = |present: i64, all: &[i64]| {
            let all = all.iter().copied().map(period).collect();
            closed(all, Timestamp::from_second(present)).iter().map(|p| p.period.start.as_second()).collect::<Vec<_>>()
        };
        assert!(starts(100, &[]).is_empty());
        assert!(starts(100, &[100, 200]).is_empty(), "the present one, and one that an event named");
        assert_eq!(starts(300, &[200, 400, 300, 100]), [200, 100]);
        let many: Vec<_> = (1..=36).map(|n| n * 100).collect();
        assert_eq!(starts(3600, &many), (24..=35).rev().map(|n| n * 100).collect::<Vec<_>>());
    }

    #[test]
    fn each_day_is_there_also_over_a_leap_day_and_a_change_of_year() {
        let date = |text: &str| text.parse::<Date>().expect("a date");
        let counted = [DayUsage { day: date("2028-02-29"), counted: Amounts::of(Unit::Queries, 5) }];
        let days = each_day(&counted, 3, date("2028-03-01"));
        let told: Vec<_> = days.iter().map(|d| (d.day.to_string(), d.counted[Unit::Queries])).collect();
        assert_eq!(told, [("2028-03-01".into(), 0), ("2028-02-29".into(), 5), ("2028-02-28".into(), 0)]);
        assert_eq!(first_of(3, date("2028-03-01")), date("2028-02-28"));
        assert_eq!(first_of(1, date("2027-01-01")), date("2027-01-01"));
        assert_eq!(first_of(93, date("2027-01-01")), date("2026-10-01"));
        assert_eq!(day_of("2026-12-31T23:59:59Z".parse().expect("a time")), date("2026-12-31"));
    }

    #[test]
    fn a_day_on_which_more_was_deleted_than_stored_is_read() {
        let day = r#"{"day":"2026-11-29","counted":{"queries":3,"documents":-2,"bytes":-2000000000000000}}"#;
        let day: DayUsage = serde_json::from_str(day).expect("a day");
        assert_eq!([Unit::Queries, Unit::Documents].map(|unit| day.counted[unit]), [3, -2]);
        assert!(serde_json::from_str::<DayUsage>(r#"{"day":"2026-02-30","counted":{}}"#).is_err());
    }
}
