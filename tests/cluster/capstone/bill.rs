//! What the ledger, Stripe's meters and the invoices say of each tenant.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;
use tenant_operator::api::{ConditionStatus, Timestamp, Unit};

use super::traffic::Tenant;
use super::{CENTS, INCLUDED};
use crate::support::{LIMIT, World, period_ends, shows, stripe_objects};

/// The metered prices, and the meters of queries and prompt tokens.
pub struct Prices {
    pub queries: String,
    pub tokens: String,
    pub meters: [String; 2],
}

/// Queries and prompt tokens, by Stripe's customer.
type Sums = BTreeMap<String, [i64; 2]>;

/// What was answered. A customer that used nothing is left out.
fn answered(tenants: &[Tenant]) -> Sums {
    let of = |tenant: &Tenant| [&tenant.answered, &tenant.tokens].map(|number| number.load(Ordering::Relaxed));
    tenants.iter().map(|tenant| (tenant.customer.clone(), of(tenant))).filter(|(_, used)| *used != [0, 0]).collect()
}

/// The closed hours of the ledger.
async fn closed_hours(world: &World, tenants: &[Tenant]) -> Sums {
    let mut sums = Sums::new();
    for tenant in tenants {
        let page = world.ledger().hours(&tenant.id, Timestamp::from_second(0), 1000).await.expect("the ledger answers");
        assert_eq!(page.listed_until, page.closed_until, "one page holds all hours");
        let sum = |unit| page.hours.iter().map(|hour| hour.counted[unit]).sum();
        sums.insert(tenant.customer.clone(), [sum(Unit::Queries), sum(Unit::PromptTokens)]);
    }
    sums.retain(|_, used| *used != [0, 0]);
    sums
}

/// What Stripe's meters have.
async fn metered(world: &World, prices: &Prices) -> Sums {
    let mut sums = Sums::new();
    for event in stripe_objects(world, "billing.meter_event").await {
        let customer = event["customer"].as_str().expect("a customer").to_owned();
        let unit = prices.meters.iter().position(|meter| event["meter"] == **meter).expect("a meter of ours");
        sums.entry(customer).or_default()[unit] += event["event"]["value"].as_i64().expect("a number");
    }
    sums
}

/// Quantities of the lines of usage on all invoices that are final, and what they cost in cents.
async fn invoiced(world: &World, prices: &Prices) -> (Sums, Sums) {
    let (mut quantities, mut cents) = (Sums::new(), Sums::new());
    for invoice in stripe_objects(world, "invoice").await {
        if invoice["status"] == "draft" {
            continue;
        }
        let customer = invoice["customer"].as_str().expect("a customer").to_owned();
        for line in invoice["lines"]["data"].as_array().into_iter().flatten() {
            let price = &line["pricing"]["price_details"]["price"];
            let Some(unit) = [&prices.queries, &prices.tokens].iter().position(|of| *price == ***of) else { continue };
            quantities.entry(customer.clone()).or_default()[unit] += line["quantity"].as_i64().unwrap_or_default();
            cents.entry(customer.clone()).or_default()[unit] += line["amount"].as_i64().unwrap_or_default();
        }
    }
    quantities.retain(|_, used| *used != [0, 0]);
    (quantities, cents)
}

/// Waits until sums are as wanted, for as long as they change.
async fn become_these(what: &str, wanted: &Sums, sums: impl AsyncFn() -> Sums) {
    let (mut before, mut changed) = (Sums::new(), Instant::now());
    loop {
        let now = sums().await;
        if now == *wanted {
            return;
        }
        if now != before {
            (before, changed) = (now, Instant::now());
        }
        let wrong = || wanted.iter().filter(|(customer, used)| before.get(*customer) != Some(used)).collect::<Vec<_>>();
        assert!(changed.elapsed() < LIMIT, "{what}: {before:?}, and not {:?}", wrong());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// All of it is in closed hours of the ledger and at Stripe's meters.
pub async fn billed(world: &World, tenants: &[Tenant], prices: &Prices) {
    let answered = answered(tenants);
    assert_eq!(closed_hours(world, tenants).await, answered, "the ledger's closed hours");
    become_these("Stripe's meters", &answered, async || metered(world, prices).await).await;
    for tenant in tenants {
        world.wait(&tenant.name, "billed", shows("UsageBilled", ConditionStatus::True, "Sent")).await;
    }
}

/// Stripe's month ends, and with it the time in which invoices are drafts.
pub async fn month_ends(world: &World) {
    period_ends(world).await;
    world.sandbox_post("/_sandbox/clock", serde_json::json!({"advance_seconds": 2 * 3600})).await;
}

/// The invoices have all of it, at its price.
pub async fn invoices_are_final(world: &World, tenants: &[Tenant], prices: &Prices) {
    let answered = answered(tenants);
    become_these("the invoices", &answered, async || invoiced(world, prices).await.0).await;
    let (_, cents) = invoiced(world, prices).await;
    for (customer, [queries, tokens]) in &answered {
        let due = [(queries - INCLUDED).max(0) * CENTS, *tokens];
        assert_eq!(cents.get(customer), Some(&due), "{customer}: {queries} queries, {tokens} tokens");
    }
    assert_eq!(metered(world, prices).await, answered, "nothing is sent twice");
    let paid = stripe_objects(world, "invoice").await;
    let open = |invoice: &&Value| invoice["status"] == "open";
    println!("{} invoices, {} of them open", paid.len(), paid.iter().filter(open).count());
}
