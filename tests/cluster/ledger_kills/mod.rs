//! The ledger's promise under the worst that can happen to processes: whichever of them is killed, and however often a
//! request comes, each unit counts once, no limit is passed, and nothing is refused that a limit leaves. Stripe's meters
//! get each hour once, although the controller is killed while it sends.

mod bill;
mod customer;
mod load;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tenant_operator::api::quota::WhenUnavailable;
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, Unit};
use tenant_operator::ledger::account::Period;
use tenant_operator::ledger::wire::Void;

use crate::support::{Replicas, World};
use crate::usage_billing::{hour_passes, offer, plan};
use bill::{Meters, is_billed};
use customer::{Came, Customer};
use load::{Load, TOKEN};

const REPLICAS: usize = 4;
const KILLS: u32 = 40;
/// Kills after which an hour of the ledger and of Stripe ends.
const KILLS_OF_HOUR: u32 = 5;
/// The hard limits of the customers: some are reached at once, others while processes die, the last one after it.
const LIMITS: [i64; 5] = [20, 60, 200, 600, 2000];
/// Callers of each customer.
const CALLERS: u64 = 4;
/// After it, a question that was left open by a process that died is no longer set aside. Longer than a journal may wait
/// for its next delivery.
const EXPIRY: Duration = Duration::from_secs(12);
/// How long web waits for the ledger: some of its restarts take longer, and web's journal is needed.
const PATIENCE: &str = "250ms";
/// Calls of each kind that are repeated in the end, for each customer.
const REPEATED: usize = 40;

/// Customers that pay by Stripe, for what they use as well. Their plans refuse what cannot be counted, so that no limit may
/// be passed at any time.
async fn customers(world: &World, meters: &Meters) -> Vec<Arc<Customer>> {
    let names = LIMITS.map(|limit| (format!("kills-{limit}"), limit));
    for (name, limit) in &names {
        let mut plan = plan(name, 2000, &meters.usage_prices());
        let limits = &mut plan.spec.limits;
        (limits.documents, limits.queries_per_month, limits.bytes) = (100, *limit, 1_000_000);
        plan.spec.quota.when_unavailable = WhenUnavailable::Refuse;
        offer(world, &plan).await;
        world.create(name, name, BillingMode::Stripe).await;
    }
    for (name, _) in &names {
        world.pay(name).await;
    }
    let mut customers = Vec::new();
    for (name, limit) in names {
        world.wait_phase(&name, Phase::Active).await;
        let spec = world.tenants().get(&name).await.expect("it is there").spec;
        let stripe = spec.billing.stripe.and_then(|stripe| stripe.customer_id).expect("a customer");
        let key = world.api_key(&name).await;
        customers.push(Arc::new(Customer::new(name, [spec.tenant_id.expect("an id"), key, stripe], limit)));
    }
    customers
}

/// Waits until each replica knows each customer.
async fn known(world: &World, load: &Load) {
    for address in load.ready.addresses() {
        for customer in &load.customers {
            let known = async || {
                let request = world.http.get(format!("{address}/v1/usage")).bearer_auth(&customer.key);
                request.send().await.is_ok_and(|answer| answer.status() == 200)
            };
            world.until("each replica knows each customer", known).await;
        }
    }
}

/// How often each was killed beside the replicas.
#[derive(Debug, Default)]
struct Killed {
    ledger: u32,
    controllers: u32,
}

/// Kills replicas and the ledger, and starts each again at once. Hours end meanwhile, and a controller is killed as well
/// once it has sent something to Stripe.
async fn kill(world: &mut World, replicas: &mut Replicas, rng: &mut StdRng) -> Killed {
    let (mut killed, mut sent) = (Killed::default(), bill::events(world).await.len());
    for number in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(rng.random_range(100..1200))).await;
        if rng.random_bool(0.35) {
            tokio::task::block_in_place(|| {
                world.kill_ledger();
                world.start_ledger();
            });
            killed.ledger += 1;
        } else {
            let replica = rng.random_range(0..REPLICAS);
            tokio::task::block_in_place(|| replicas.kill(world, replica));
        }
        if number % KILLS_OF_HOUR == 0 {
            hour_passes(world).await;
        }
        if bill::events(world).await.len() > sent {
            tokio::task::block_in_place(|| world.replace_controller());
            sent = bill::events(world).await.len();
            killed.controllers += 1;
        }
    }
    killed
}

/// What was counted of a unit in all periods, once nothing is set aside.
async fn settled(world: &World, customer: &Customer, unit: Unit) -> i64 {
    world.settled(&customer.name, unit).await;
    let periods = world.ledger().periods(&customer.id).await.expect("the ledger answers");
    periods.iter().map(|period| period.used[unit]).sum()
}

/// The answers of a customer, what was counted, and its limit agree. Answers what was counted.
async fn judge(world: &World, customer: &Customer) -> i64 {
    let counted = settled(world, customer, Unit::Queries).await;
    let (answers, unknown) = (customer.count(Came::Answer), customer.count(Came::Unknown));
    let refusals = customer.count(Came::Refusal);
    let Customer { name, limit, .. } = customer;
    println!("{name}: {counted} counted, {answers} answered, {unknown} unknown, {refusals} refused");
    assert!(answers <= counted, "{name}: {answers} answers, and {counted} counted");
    assert!(counted <= answers + unknown, "{name}: {counted} counted, {answers} answers and {unknown} unknown");
    let late = customer.late(EXPIRY);
    assert!(counted <= limit + late, "{name}: {counted} counted of {limit}, {late} late");
    assert_eq!(customer.unjust(), Vec::<String>::new());
    counted
}

/// Takes what the limit leaves, and a little more, through all replicas at once: exactly what is left passes.
async fn exhaust(load: &Load, customer: &Customer, counted: i64) {
    let left = customer.limit - counted;
    let asked = usize::try_from(left.max(0)).expect("a number") + 12;
    let passed = stream::iter(0..asked)
        .map(|number| async move {
            load.decided(customer, number, &format!("last-{}-{number}", customer.name)).await.status == 200
        })
        .buffer_unordered(16)
        .filter(|passed| std::future::ready(*passed))
        .count()
        .await;
    let passed = i64::try_from(passed).expect("a number");
    assert_eq!(passed, left.max(0), "{}: {counted} were counted of {}", customer.name, customer.limit);
}

/// What the ledger keeps in several places is the same everywhere, and nothing is pending.
async fn kept_alike(world: &World, customers: &[Arc<Customer>]) {
    for unit in [Unit::Queries, Unit::EmbeddedBytes, Unit::PromptTokens, Unit::CompletionTokens] {
        let mut all = 0;
        for customer in customers {
            let counted = settled(world, customer, unit).await;
            all += counted;
            assert_eq!(world.sums(unit).of(&customer.id), [counted; 3], "{}: lines, days, hours", customer.name);
        }
        let sums = world.sums(unit);
        assert_eq!((sums.site, sums.lines.values().sum::<i64>(), sums.pending), (all, all, 0), "{unit}");
    }
}

/// An operation of a customer that counts nothing.
async fn void(world: &World, customer: &Customer) {
    let quota = world.status(&customer.name).await.quota.expect("a quota");
    let period = Period { start: quota.period_start, end: quota.period_end };
    let tenant = customer.id.clone().try_into().expect("a name");
    let body = Void { tenant, period: period.try_into().expect("a period") };
    world.ledger().void("counts-nothing", &body).await.expect("voided");
}

/// The events store is there again, and gets every line that it missed.
async fn fed(world: &mut World) {
    tokio::task::block_in_place(|| world.bring_events_store_back());
    let complete = async || world.ledger().events_store().await.is_ok_and(|store| store.complete && store.seq > 0);
    world.until("the events store has everything", complete).await;
    for unit in [Unit::Queries, Unit::EmbeddedBytes, Unit::PromptTokens, Unit::CompletionTokens] {
        assert_eq!(world.sums_of_events(unit), world.sums(unit).lines, "{unit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_each_unit_counts_once_and_limits_are_exact_from_both_sides() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("SEED={seed}");
    let begun = Instant::now();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::without_controller("ledger-kills").await;
    world.controller_args(&["--usage-interval=1", "--usage-billing-interval=1"]);
    world.environment("USAGE_EVENTS_TOKEN", TOKEN);
    // The load is limited by the machine, not by a provider's account.
    for rate in ["OPENAI_RATE", "PINECONE_RATE"] {
        world.environment(rate, "100000");
    }
    let expiry = format!("{}s", EXPIRY.as_secs());
    let args = ["--requests-per-second", "1000", "--question-expiry", &expiry, "--ledger-patience", PATIENCE];
    let mut replicas = Replicas::start(&mut world, REPLICAS, &args);
    let meters = Meters::new(&world).await;
    world.start_controller();
    let customers = customers(&world, &meters).await;
    replicas.all_ready(&world).await;
    let load = Arc::new(Load::new(replicas.ready(), customers.clone()));
    known(&world, &load).await;
    tokio::task::block_in_place(|| world.take_events_store_away());

    let mut callers = tokio::task::JoinSet::new();
    for customer in &customers {
        (0..CALLERS).for_each(|_| drop(callers.spawn(load.clone().call(customer.clone(), rng.random()))));
    }
    callers.spawn(load.clone().report(rng.random()));
    println!("{:?}: the load begins", begun.elapsed());
    bill::slow_down(&world).await;
    let killed = kill(&mut world, &mut replicas, &mut rng).await;
    world.clear_faults().await;
    println!("{:?}: {KILLS} were killed, and {killed:?}", begun.elapsed());
    replicas.all_ready(&world).await;
    load.over.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended.expect("a caller");
    }
    println!("{:?}: {:#?}", begun.elapsed(), load.tally.lock().expect("not poisoned"));
    assert!((1..KILLS).contains(&killed.ledger) && killed.controllers > 1, "the seed leaves one kind out: {killed:?}");
    let away = world.ledger().events_store().await.expect("the ledger answers");
    assert!(away.failing.is_some() && !away.complete, "the events store was away all the time: {away:?}");

    // What replicas could not tell the ledger, they tell it now.
    let empty = async || replicas.metric(&world, "ledger_journal_entries").await == 0;
    world.until("the journals are delivered", empty).await;
    assert_eq!(replicas.metric(&world, "ledger_journal_refused_entries").await, 0);
    // Two days pass while gateways' questions that were left open expire, which takes a minute.
    void(&world, &customers[0]).await;
    assert!(world.voided_operations() > 0, "one at least counted nothing");
    world.age_operations(2);
    let mut counted = Vec::new();
    for customer in &customers {
        counted.push(judge(&world, customer).await);
    }
    println!("{:?}: judged", begun.elapsed());

    // Everything once more: it counts no more. What counted nothing is forgotten by then.
    world.until("what counted nothing is forgotten", async || world.voided_operations() == 0).await;
    for customer in &customers {
        load.repeat(customer, REPEATED).await;
    }
    let batches = load.batches.lock().expect("not poisoned").clone();
    for (number, batch) in batches.iter().enumerate() {
        assert_eq!(load.deliver(batch, number).await, 0, "{batch}");
    }
    for (customer, counted) in customers.iter().zip(&counted) {
        assert_eq!(settled(&world, customer, Unit::Queries).await, *counted, "{}", customer.name);
        let reported = *customer.reported.lock().expect("not poisoned");
        assert_eq!(settled(&world, customer, Unit::EmbeddedBytes).await, reported, "{}", customer.name);
    }

    for (customer, counted) in customers.iter().zip(&counted) {
        exhaust(&load, customer, *counted).await;
        assert_eq!(settled(&world, customer, Unit::Queries).await, (*counted).max(customer.limit));
    }
    kept_alike(&world, &customers).await;
    fed(&mut world).await;
    hour_passes(&world).await;
    is_billed(&world, &customers, &meters).await;
    println!("{:?}: over", begun.elapsed());
}
