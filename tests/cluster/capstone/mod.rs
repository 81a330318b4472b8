//! The capstone: many tenants for an hour. No answer rests on another tenant's document, quotas are exact, and so is the
//! bill: what was answered, the ledger, Stripe's meters and the invoices say the same of each tenant.
//!
//! `REQUESTS` says how many: 2,500 by default, and `REQUESTS=100000` for the whole hour. Each hundred requests have a tenant, up
//! to a hundred.

mod bill;
mod shape;
mod traffic;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use serde_json::json;
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, Unit};

use crate::support::{Replicas, World};
use crate::usage_billing::{hour_passes, meter, offer, plan, price};
use bill::{Prices, billed, invoices_are_final, month_ends};
use traffic::{TOKEN, Tenant, Traffic};

/// Requests, unless `REQUESTS` says how many.
const REQUESTS: usize = 2500;
/// Queries that each price includes, and cents of each more.
const INCLUDED: i64 = 20;
const CENTS: i64 = 10;
/// The plan whose limit is hard, and the plan that charges for more.
const PLANS: [&str; 2] = ["capstone-hard", "capstone-soft"];

/// A world whose plans charge for queries and prompt tokens. One has a hard limit of queries.
async fn world(limit: i64) -> (World, Prices) {
    let mut world = World::without_controller("capstone").await;
    // So much work at once is not to cost the lease on a slow machine.
    world.controller_args(&["--concurrency=32", "--lease-duration=15", "--resync=5", "--full-resync=60"]);
    world.environment("USAGE_EVENTS_TOKEN", TOKEN);
    // A hundred thousand requests are noted by hundreds of thousands of lines.
    world.environment("RUST_LOG", "warn");
    // The pace is the product's, not that of an account at a provider.
    for rate in ["OPENAI_RATE", "PINECONE_RATE"] {
        world.environment(rate, "100000");
    }
    let [queries, tokens] = [meter(&world, "queries").await, meter(&world, "prompt_tokens").await];
    let (included, cents) = (INCLUDED.to_string(), CENTS.to_string());
    let tiers = [
        ("billing_scheme", "tiered"),
        ("tiers_mode", "graduated"),
        ("tiers[0][up_to]", &*included),
        ("tiers[0][unit_amount]", "0"),
        ("tiers[1][up_to]", "inf"),
        ("tiers[1][unit_amount]", &*cents),
    ];
    let prices = Prices {
        queries: price(&world, &queries, &tiers).await,
        tokens: price(&world, &tokens, &[("unit_amount", "1")]).await,
        meters: [queries, tokens],
    };
    let usage = json!([
        {"unit": "queries", "stripePriceId": prices.queries, "included": INCLUDED},
        {"unit": "promptTokens", "stripePriceId": prices.tokens},
    ]);
    for name in PLANS {
        let mut plan = plan(name, 2000, &usage);
        plan.spec.limits.queries_per_month = limit;
        plan.spec.sample_documents.clear();
        plan.spec.sample_data = tenant_operator::api::plan::SampleData::None;
        if name.ends_with("soft") {
            plan.spec.quota.soft = vec![Unit::Queries];
        }
        offer(&world, &plan).await;
    }
    (world, prices)
}

/// So many tenants that pay by Stripe, half of them on each plan, each with one document of its own.
async fn tenants(world: &World, count: usize) -> Vec<Tenant> {
    let names: Vec<_> = (0..count).map(|n| format!("tenant-{n:03}")).collect();
    let each = async |work: fn(&World, usize, String) -> futures::future::BoxFuture<'_, ()>| {
        let all = names.iter().cloned().enumerate().map(|(n, name)| work(world, n, name));
        stream::iter(all).buffer_unordered(16).collect::<()>().await;
    };
    each(|world, n, name| {
        Box::pin(async move {
            world.create(&name, PLANS[n % 2], BillingMode::Stripe).await;
        })
    })
    .await;
    world.all_are(count, "waiting for payment", |s| s.checkout.is_some()).await;
    each(|world, _, name| Box::pin(async move { world.pay(&name).await })).await;
    world.all_are(count, "Active", |s| s.phase == Some(Phase::Active)).await;
    let mut tenants = Vec::new();
    for name in names {
        let spec = world.tenants().get(&name).await.expect("it is there").spec;
        let customer = spec.billing.stripe.and_then(|stripe| stripe.customer_id).expect("a customer");
        let key = world.api_key(&name).await;
        tenants.push(Tenant::new(name, spec.tenant_id.expect("an id"), key, customer));
    }
    tenants
}

/// Each tenant stores its document, once all replicas know it.
async fn store(world: &World, traffic: &Traffic) {
    let addresses = traffic.ready.addresses();
    let each = stream::iter(&traffic.tenants).map(async |tenant| {
        for address in &addresses {
            let known = async || {
                let request = world.http.get(format!("{address}/v1/usage")).bearer_auth(&tenant.key);
                request.send().await.is_ok_and(|answer| answer.status() == 200)
            };
            world.until("each replica knows each tenant", known).await;
        }
        let url = format!("{}/v1/documents?title={}", addresses[0], tenant.name);
        let request = world.http.post(url).bearer_auth(&tenant.key).header("content-type", "text/plain");
        let answer = request.body(tenant.document()).send().await.expect("it answers");
        assert_eq!(answer.status(), 201, "{}", answer.text().await.expect("text"));
    });
    each.buffer_unordered(8).collect::<()>().await;
}

/// What was answered is what was counted, and is all that the plan leaves.
async fn quotas_are_exact(world: &World, tenants: &[Tenant], limit: i64) {
    let (mut refused, mut sums) = (0, Vec::new());
    for (n, tenant) in tenants.iter().enumerate() {
        let of = |number: &std::sync::atomic::AtomicI64| number.load(Ordering::Relaxed);
        let (wanted, answered, tokens) = (of(&tenant.wanted), of(&tenant.answered), of(&tenant.tokens));
        let due = if n % 2 == 0 { wanted.min(limit) } else { wanted };
        refused += wanted - answered;
        assert_eq!(answered, due, "{}: of {wanted} queries, at most {limit}", tenant.name);
        let counted =
            [world.settled(&tenant.name, Unit::Queries).await, world.settled(&tenant.name, Unit::PromptTokens).await];
        assert_eq!(counted, [answered, tokens], "{}", tenant.name);
        sums.push((tenant, counted));
    }
    assert!(refused > 0, "no limit was reached");
    for (unit, n) in [(Unit::Queries, 0), (Unit::PromptTokens, 1)] {
        let kept = world.sums(unit);
        let all: i64 = sums.iter().map(|(_, counted)| counted[n]).sum();
        assert_eq!((kept.site, kept.pending), (all, 0), "{unit}");
        for (tenant, counted) in &sums {
            assert_eq!(kept.of(&tenant.id), [counted[n]; 3], "{}: lines, days, hours", tenant.name);
        }
    }
    println!("{refused} queries were refused, {} counted", world.sums(Unit::Queries).site);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_of_many_tenants_mixes_no_sources_and_its_quotas_and_bills_are_exact() {
    let requests = std::env::var("REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(REQUESTS);
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    let (count, begun) = ((requests / 100).clamp(4, 100), Instant::now());
    println!("SEED={seed} REQUESTS={requests}: {count} tenants");
    // More than most tenants ask, and less than the first ones.
    let limit = i64::try_from(requests / 40).expect("a number");
    let (mut world, prices) = world(limit).await;
    world.start_controller();
    let arguments = ["--requests-per-second", "100000", "--client-requests-per-second", "100000"];
    let replicas = Replicas::start(&mut world, 2, &arguments);
    replicas.all_ready(&world).await;
    world.sandbox.send_webhooks_to(&format!("{}/webhooks/stripe", replicas.ready().one(0).await));
    let traffic = Traffic::new(world.http.clone(), replicas.ready(), tenants(&world, count).await);
    store(&world, &traffic).await;
    println!("{:.0?}: {count} tenants are served", begun.elapsed());

    let asked = Instant::now();
    for (number, minute) in shape::hour(seed, requests, count).into_iter().enumerate() {
        if minute.requests.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let all = stream::iter(minute.requests).map(|request| traffic.request(request));
        all.buffer_unordered(minute.at_once).collect::<()>().await;
        // Usage of one billing period in several hours of the ledger.
        if [24, 44, 59].contains(&number) {
            hour_passes(&world).await;
        }
    }
    let seconds = asked.elapsed().as_secs_f64();
    println!("{requests} requests in {seconds:.1} s");

    quotas_are_exact(&world, &traffic.tenants, limit).await;
    // An hour of the ledger ended in seconds: the controller looks for it as often from now on.
    world.controller_args(&["--usage-interval=5", "--usage-billing-interval=5"]);
    world.replace_controller();
    billed(&world, &traffic.tenants, &prices).await;
    println!("{:.0?}: Stripe has all of it", begun.elapsed());
    month_ends(&world).await;
    invoices_are_final(&world, &traffic.tenants, &prices).await;
    println!("{:.0?}: the invoices are right", begun.elapsed());
}
