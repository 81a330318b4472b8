//! What Stripe's meters have of each customer, beside what the ledger counted in its closed hours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tenant_operator::api::{ConditionStatus, Timestamp, Unit};

use super::customer::Customer;
use super::settled;
use crate::support::{LIMIT, World, shows, stripe_objects};
use crate::usage_billing::{meter, price};

/// The units that have a price, as Plans name them.
const PRICED: [(Unit, &str); 3] =
    [(Unit::Queries, "queries"), (Unit::PromptTokens, "promptTokens"), (Unit::EmbeddedBytes, "embeddedBytes")];
/// Later than anything that is sent: a whole minute of the year 2100.
const LATER: i64 = 4_102_444_800;

/// A meter and a price for each unit that has one.
pub struct Meters(Vec<Meter>);

struct Meter {
    unit: Unit,
    name: &'static str,
    id: String,
    price: String,
}

/// By customer and unit.
type Sums<T> = BTreeMap<(String, Unit), T>;

impl Meters {
    pub async fn new(world: &World) -> Self {
        let mut meters = Vec::new();
        for (unit, name) in PRICED {
            let id = meter(world, unit.name()).await;
            let price = price(world, &id, &[("unit_amount", "1")]).await;
            meters.push(Meter { unit, name, id, price });
        }
        Self(meters)
    }

    /// The `usagePrices` of a plan.
    pub fn usage_prices(&self) -> Value {
        self.0.iter().map(|meter| json!({"unit": meter.name, "stripePriceId": meter.price})).collect()
    }

    /// What Stripe's summaries say.
    async fn summaries(&self, world: &World, customers: &[Arc<Customer>]) -> Sums<Option<i64>> {
        let mut sums = Sums::new();
        for (customer, Meter { unit, id, .. }) in
            customers.iter().flat_map(|one| self.0.iter().map(move |of| (one, of)))
        {
            let url = format!("{}/v1/billing/meters/{id}/event_summaries", world.sandbox.stripe_url);
            let span =
                [("customer", customer.stripe.clone()), ("start_time", "0".into()), ("end_time", LATER.to_string())];
            let answer = world.http.get(url).bearer_auth("sk_test").query(&span).send().await.expect("Stripe answers");
            let page: Value = answer.json().await.expect("JSON");
            // Stripe writes whole numbers as floating-point ones.
            let sum = page["data"][0]["aggregated_value"].to_string();
            sums.insert((customer.name.clone(), *unit), sum.trim_end_matches(".0").parse().ok());
        }
        sums
    }

    /// By how many events usage of each customer and unit is at Stripe.
    async fn counts(&self, world: &World, customers: &[Arc<Customer>]) -> Sums<usize> {
        let mut counts = Sums::new();
        for event in events(world).await {
            let customer = customers.iter().find(|customer| event["customer"] == *customer.stripe).expect("ours");
            let meter = self.0.iter().find(|meter| event["meter"] == *meter.id).expect("a meter of ours");
            *counts.entry((customer.name.clone(), meter.unit)).or_default() += 1;
        }
        counts
    }
}

/// All events that Stripe has taken.
pub async fn events(world: &World) -> Vec<Value> {
    stripe_objects(world, "billing.meter_event").await
}

/// Stripe takes an event at once and answers later: a controller that is killed meanwhile has not recorded it.
pub async fn slow_down(world: &World) {
    let fault = json!({"provider": "stripe", "method": "POST", "path": "/v1/billing/meter_events", "answer_delay_ms": 200,
        "times": 1_000_000});
    world.fault(fault).await;
}

/// What the ledger counted in all, and in how many closed hours and periods.
async fn counted(world: &World, customers: &[Arc<Customer>]) -> (Sums<Option<i64>>, Sums<usize>) {
    let (mut sums, mut rows) = (Sums::new(), Sums::new());
    for customer in customers {
        let page =
            world.ledger().hours(&customer.id, Timestamp::from_second(0), 1000).await.expect("the ledger answers");
        assert_eq!(page.listed_until, page.closed_until, "one page holds all hours");
        for (unit, _) in PRICED {
            let used: Vec<_> = page.hours.iter().map(|hour| hour.counted[unit]).filter(|amount| *amount > 0).collect();
            let all = settled(world, customer, unit).await;
            assert_eq!(
                used.iter().sum::<i64>(),
                all,
                "{} {unit}: closed hours, and all that was counted",
                customer.name
            );
            sums.insert((customer.name.clone(), unit), Some(all));
            rows.insert((customer.name.clone(), unit), used.len());
        }
    }
    rows.retain(|_, count| *count > 0);
    (sums, rows)
}

/// All that the ledger counted is at Stripe's meters, each closed hour of each period by one event.
pub async fn is_billed(world: &World, customers: &[Arc<Customer>], meters: &Meters) {
    let (ledger, rows) = counted(world, customers).await;
    let start = Instant::now();
    let mut stripe = meters.summaries(world, customers).await;
    while stripe != ledger && start.elapsed() < LIMIT {
        tokio::time::sleep(Duration::from_millis(500)).await;
        stripe = meters.summaries(world, customers).await;
    }
    assert_eq!(stripe, ledger, "Stripe's summaries, and what the ledger counted");
    for customer in customers {
        world.wait(&customer.name, "billed", shows("UsageBilled", ConditionStatus::True, "Sent")).await;
    }
    assert_eq!(meters.counts(world, customers).await, rows, "an event for each hour of each period");
    let hours: BTreeSet<_> = rows.values().collect();
    println!("Stripe has {} events of {} sums: {hours:?} each", rows.values().sum::<usize>(), rows.len());
}
