//! Usage that is billed, as three books have it: the ledger, the events store and Stripe. What is not known is no zero,
//! and differs from nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::api::usage_prices::MeteredUsage;
use crate::api::{Timestamp, Unit};
use crate::ledger::units::Amounts;
use crate::ledger::wire::{EventsHour, HourUsage};

const HOUR: i64 = 3600;

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Book {
    /// The ledger's hours.
    Ledger,
    /// The sums of the events store's lines.
    EventsStore,
    /// Stripe's summaries.
    Stripe,
}

impl Book {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ledger => "the ledger",
            Self::EventsStore => "the events store",
            Self::Stripe => "Stripe",
        }
    }
}

/// What the three have. None is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Numbers {
    pub ledger: Option<i64>,
    pub events_store: Option<i64>,
    pub stripe: Option<i64>,
}

impl Numbers {
    /// Those that differ: the one that stands against two, or all that are known where no two agree.
    pub fn differing(&self) -> Vec<Book> {
        let all = [(Book::Ledger, self.ledger), (Book::EventsStore, self.events_store), (Book::Stripe, self.stripe)];
        let known: Vec<_> = all.into_iter().filter_map(|(book, number)| Some((book, number?))).collect();
        let others = |of: usize| {
            let others = known.iter().enumerate().filter(|(at, _)| *at != of).map(|(_, (_, number))| *number);
            others.collect::<Vec<_>>()
        };
        let alone = known
            .iter()
            .enumerate()
            .find(|(at, (_, number))| matches!(others(*at)[..], [one, other] if one == other && one != *number));
        match alone {
            Some((_, (book, _))) => vec![*book],
            None if known.windows(2).all(|two| two[0].1 == two[1].1) => Vec::new(),
            None => known.into_iter().map(|(book, _)| book).collect(),
        }
    }

    /// The same, where Stripe has what was sent, and that is not what the ledger counted: a person decided so, or a price
    /// took over what another one had sent. Stripe is then as it should be.
    fn settled(self, sent: i64) -> Self {
        let as_sent = self.stripe == Some(sent) && self.ledger.is_some();
        // Where both have what was sent, the ledger is the one that lost or gained something.
        let ledger_is_alone = self.events_store.is_none_or(|events| events == sent);
        if as_sent && !ledger_is_alone { Self { stripe: self.ledger, ..self } } else { self }
    }
}

/// A unit over all hours that were sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitRow {
    pub unit: Unit,
    pub since: Timestamp,
    pub through: Timestamp,
    /// What was sent of them.
    pub sent: i64,
    #[serde(flatten)]
    pub numbers: Numbers,
    pub differing: Vec<Book>,
}

impl UnitRow {
    /// Of a unit.
    pub fn of(usage: &MeteredUsage, numbers: Numbers) -> Self {
        let differing = numbers.settled(usage.sent).differing();
        let MeteredUsage { unit, since, through, sent, .. } = *usage;
        Self { unit, since, through, sent, numbers, differing }
    }
}

/// A unit in a closed hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HourRow {
    pub hour: Timestamp,
    pub unit: Unit,
    #[serde(flatten)]
    pub numbers: Numbers,
    /// Whether it was sent.
    pub sent: bool,
    /// Whether Stripe has it, or a part of it, in another hour: what arrived late is dated in its own period.
    pub elsewhere: bool,
    pub differing: Vec<Book>,
}

/// What each of the three has, hour by hour. None is not known.
#[derive(Clone, Debug, Default)]
pub struct Hours {
    pub ledger: Option<Vec<HourUsage>>,
    pub events_store: Option<Vec<EventsHour>>,
}

impl Hours {
    /// What the two have of a unit within a span.
    pub fn sums(&self, unit: Unit, (from, until): (Timestamp, Timestamp)) -> Numbers {
        let within = |hour, counted: &Amounts| if (from..until).contains(&hour) { counted[unit] } else { 0 };
        let ledger = self.ledger.as_ref().map(|rows| rows.iter().map(|row| within(row.hour, &row.counted)).sum());
        let events_store =
            self.events_store.as_ref().map(|rows| rows.iter().map(|row| within(row.hour, &row.counted)).sum());
        Numbers { ledger, events_store, stripe: None }
    }

    /// The hours of a unit, in a span. `total` is the unit's own row: as long as Stripe has the right sum there, an hour
    /// in which it has another number is one whose usage is dated elsewhere.
    pub fn rows(
        &self,
        (usage, total): (&MeteredUsage, &UnitRow),
        (from, until): (Timestamp, Timestamp),
        stripe: Option<&[(Timestamp, i64)]>,
    ) -> Vec<HourRow> {
        let unit = usage.unit;
        let counted = self.ledger.iter().flatten().filter(|row| row.counted[unit] != 0).map(|row| row.hour);
        let copied = self.events_store.iter().flatten().filter(|row| row.counted[unit] != 0).map(|row| row.hour);
        let told = stripe.into_iter().flatten().map(|(hour, _)| *hour);
        let hours: BTreeSet<_> =
            counted.chain(copied).chain(told).filter(|hour| (from..until).contains(hour)).collect();
        let mut by_hour = BTreeMap::new();
        for (hour, amount) in stripe.into_iter().flatten() {
            *by_hour.entry(*hour).or_insert(0_i64) += amount;
        }
        let total_is_right = !total.differing.contains(&Book::Stripe);
        let row = |hour: Timestamp| {
            let sent = hour < usage.through;
            let at_stripe = by_hour.get(&hour).copied().or_else(|| stripe.filter(|_| sent).map(|_| 0));
            let numbers = Numbers { stripe: at_stripe, ..self.sums(unit, (hour, hour.plus(HOUR))) };
            let others = Numbers { stripe: None, ..numbers };
            let elsewhere = total_is_right
                && others.differing().is_empty()
                && at_stripe.is_some_and(|number| numbers.ledger.or(numbers.events_store).is_some_and(|n| n != number));
            let judged = if elsewhere { others } else { numbers };
            HourRow { hour, unit, numbers, sent, elsewhere, differing: judged.differing() }
        };
        hours.into_iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::account::Period;

    fn numbers(ledger: Option<i64>, events_store: Option<i64>, stripe: Option<i64>) -> Numbers {
        Numbers { ledger, events_store, stripe }
    }

    #[test]
    fn the_one_that_stands_against_two_differs_and_what_is_not_known_differs_from_nothing() {
        let differing = |ledger, events, stripe| numbers(ledger, events, stripe).differing();
        assert_eq!(differing(Some(5), Some(5), Some(5)), []);
        assert_eq!(differing(Some(4), Some(5), Some(5)), [Book::Ledger]);
        assert_eq!(differing(Some(5), Some(4), Some(5)), [Book::EventsStore]);
        assert_eq!(differing(Some(5), Some(5), Some(4)), [Book::Stripe]);
        assert_eq!(differing(Some(3), Some(4), Some(5)), [Book::Ledger, Book::EventsStore, Book::Stripe]);
        assert_eq!(differing(Some(5), None, Some(4)), [Book::Ledger, Book::Stripe]);
        assert_eq!(differing(Some(5), None, Some(5)), []);
        for known in [(Some(5), None, None), (None, Some(5), None), (None, None, Some(5)), (None, None, None)] {
            assert_eq!(differing(known.0, known.1, known.2), [], "{known:?}");
        }
    }

    fn usage(sent: i64) -> MeteredUsage {
        let at = |hour: i64| Timestamp::from_second(1_800_014_400 + hour * HOUR);
        MeteredUsage {
            unit: Unit::Queries,
            price: "price_1".into(),
            meter: "mtr_1".into(),
            since: at(0),
            through: at(3),
            sent,
            unpriced: None,
        }
    }

    #[test]
    fn what_a_person_decided_differs_no_more_and_what_the_ledger_lost_does() {
        let differing = |sent, ledger, events, stripe| {
            UnitRow::of(&usage(sent), numbers(Some(ledger), Some(events), Some(stripe))).differing
        };
        assert_eq!(differing(8, 5, 5, 8), [], "a person let Stripe's number stand");
        assert_eq!(differing(8, 5, 5, 9), [Book::Stripe]);
        assert_eq!(differing(8, 5, 6, 8), [Book::EventsStore]);
        assert_eq!(differing(5, 4, 5, 5), [Book::Ledger], "the ledger has another number than the two");
    }

    #[test]
    fn an_hour_that_stripe_has_elsewhere_differs_only_if_its_sum_does() {
        let usage = usage(12);
        let at = |hour: i64| usage.since.plus(hour * HOUR);
        let counted = |hour, queries| HourUsage {
            hour: at(hour),
            period: Period { start: at(-9), end: at(99) },
            counted: Amounts::of(Unit::Queries, queries),
        };
        let copied = |hour, queries| EventsHour { hour: at(hour), counted: Amounts::of(Unit::Queries, queries) };
        let hours = Hours {
            ledger: Some(vec![counted(0, 5), counted(1, 7), counted(4, 2)]),
            events_store: Some(vec![copied(0, 5), copied(1, 7), copied(4, 2)]),
        };
        let rows = |stripe: &[(Timestamp, i64)]| {
            let sum = stripe.iter().map(|(_, amount)| amount).sum();
            let total = UnitRow::of(&usage, Numbers { stripe: Some(sum), ..hours.sums(Unit::Queries, (at(0), at(3))) });
            hours.rows((&usage, &total), (at(0), at(9)), Some(stripe))
        };
        let late = rows(&[(at(0), 12)]);
        assert_eq!(
            late.iter().map(|row| (row.elsewhere, row.differing.len())).collect::<Vec<_>>(),
            [(true, 0), (true, 0), (false, 0)]
        );
        assert_eq!(late[2].numbers, numbers(Some(2), Some(2), None), "it was not sent yet");
        let less = rows(&[(at(0), 5), (at(1), 6)]);
        let differing: Vec<_> = less.iter().map(|row| row.differing.clone()).collect();
        assert_eq!(differing, [vec![], vec![Book::Stripe], vec![]]);
        let more = rows(&[(at(0), 5), (at(1), 7), (at(2), 3)]);
        assert_eq!((more[2].hour, &more[2].differing), (at(2), &vec![Book::Stripe]), "an hour that Stripe alone has");
    }
}
