//! What customers used: the meter events that were taken, and what they come to.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A meter event that was taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reported {
    pub identifier: String,
    /// When the usage was, in seconds since 1970.
    pub timestamp: i64,
    pub value: i64,
    /// When Stripe received it, by the customer's time.
    pub received: i64,
    /// From when on summaries and previews show it, in real milliseconds since 1970.
    pub shown_ms: i64,
    #[serde(default)]
    pub cancelled: bool,
}

/// Who sees usage: Stripe aggregates asynchronously, so summaries and previews may lack what an invoice will hold
/// (<https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// An invoice that is finalized counts everything.
    All,
    /// What is shown at this moment, in real milliseconds since 1970.
    At(i64),
}

impl Seen {
    /// What is shown now.
    pub fn now() -> Self {
        Self::At(jiff::Timestamp::now().as_millisecond())
    }
}

/// The events of all customers, and the identifiers that were used.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// By meter and customer, in the order of their receipt.
    events: BTreeMap<String, Vec<Reported>>,
    /// Whose event has an identifier, and when it was received.
    identifiers: HashMap<String, (String, i64)>,
}

impl Usage {
    pub fn add(&mut self, meter: &str, customer: &str, event: Reported) {
        self.identify(&event.identifier, customer, event.received);
        self.events.entry(format!("{meter} {customer}")).or_default().push(event);
    }

    /// Notes that an identifier is used.
    pub fn identify(&mut self, identifier: &str, customer: &str, received: i64) {
        self.identifiers.insert(identifier.to_owned(), (customer.to_owned(), received));
    }

    /// Whose event has this identifier, and when it was received.
    pub fn identified(&self, identifier: &str) -> Option<&(String, i64)> {
        self.identifiers.get(identifier)
    }

    /// The newest event of a meter with this identifier.
    pub fn find(&mut self, meter: &str, identifier: &str) -> Option<&mut Reported> {
        let (customer, _) = self.identifiers.get(identifier)?;
        let events = self.events.get_mut(&format!("{meter} {customer}"))?;
        events.iter_mut().rev().find(|event| event.identifier == identifier)
    }

    /// What a customer's events from `span.0` until before `span.1` come to, and how many they are.
    pub fn total(&self, meter: &Value, customer: &str, span: (i64, i64), seen: Seen) -> (i64, usize) {
        let id = meter["id"].as_str().unwrap_or_default();
        let there = self.events.get(&format!("{id} {customer}")).map_or(&[][..], Vec::as_slice);
        let counts = |event: &&Reported| {
            !event.cancelled
                && (span.0..span.1).contains(&event.timestamp)
                && match seen {
                    Seen::All => true,
                    Seen::At(now) => event.shown_ms <= now,
                }
        };
        let counted = newest_of_each_window(meter, there.iter().filter(counts));
        let total = match meter["default_aggregation"]["formula"].as_str() {
            Some("count") => i64::try_from(counted.len()).unwrap_or(i64::MAX),
            // The later receipt decides between events of the same second.
            Some("last") => counted.iter().max_by_key(|event| event.timestamp).map_or(0, |event| event.value),
            _ => counted.iter().fold(0_i64, |sum, event| sum.saturating_add(event.value)),
        };
        (total, counted.len())
    }

    /// Everything, as the sandbox shows its state.
    pub fn shown(&self) -> Value {
        let all = self.events.iter().flat_map(|(of, events)| {
            let (meter, customer) = of.split_once(' ').unwrap_or_default();
            events.iter().map(move |event| json!({"meter": meter, "customer": customer, "event": event}))
        });
        all.collect()
    }
}

/// Events that were aggregated by the hour or the day before they were sent: the newest of each such window counts
/// alone (<https://docs.stripe.com/billing/subscriptions/usage-based/meters/configure>).
fn newest_of_each_window<'a>(meter: &Value, events: impl Iterator<Item = &'a Reported>) -> Vec<&'a Reported> {
    let length = match meter["event_time_window"].as_str() {
        Some("hour") => 3600,
        Some("day") => 24 * 3600,
        _ => return events.collect(),
    };
    let newest: BTreeMap<i64, &Reported> = events.map(|event| (event.timestamp.div_euclid(length), event)).collect();
    newest.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(events: &[(i64, i64)]) -> Usage {
        let mut usage = Usage::default();
        for (i, (timestamp, value)) in events.iter().enumerate() {
            let event = Reported {
                identifier: i.to_string(),
                timestamp: *timestamp,
                value: *value,
                received: 0,
                shown_ms: 1000 * *timestamp,
                cancelled: false,
            };
            usage.add("mtr", "cus", event);
        }
        usage
    }

    #[test]
    fn usage_is_aggregated_by_the_meters_formula() {
        let usage = usage(&[(10, 5), (30, 7), (20, -2), (30, 1), (60, 100)]);
        for (formula, total) in [("sum", 11), ("count", 4), ("last", 1)] {
            let meter = json!({"id": "mtr", "default_aggregation": {"formula": formula}});
            assert_eq!(usage.total(&meter, "cus", (0, 60), Seen::All), (total, 4), "{formula}");
            assert_eq!(usage.total(&meter, "other", (0, 60), Seen::All), (0, 0), "{formula}");
        }
    }

    #[test]
    fn events_are_shown_late_and_overwrite_those_of_their_window() {
        let usage = usage(&[(10, 5), (30, 7), (4000, 3)]);
        let meter = json!({"id": "mtr", "default_aggregation": {"formula": "sum"}});
        assert_eq!(usage.total(&meter, "cus", (0, 9999), Seen::At(29_999)).0, 5);
        let hourly = json!({"id": "mtr", "default_aggregation": {"formula": "sum"}, "event_time_window": "hour"});
        assert_eq!(usage.total(&hourly, "cus", (0, 9999), Seen::All), (10, 2));
    }
}
