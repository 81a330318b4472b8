//! The ledger does not answer: Tenants show it, with few writes.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use kube::api::WatchParams;
use kube::core::WatchEvent;
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{ConditionStatus, Phase, Tenant, TenantStatus, Timestamp};

use crate::support::{World, shows, status_of_question};

/// A world whose controller shows usage so often, and the tenant "acme".
async fn world(name: &str, interval: Option<&str>) -> World {
    let mut world = World::without_controller(name).await;
    world.controller_args(interval.as_slice());
    world.start_controller();
    world.start_web(&["--requests-per-second", "1000"]);
    world.create("acme", "enterprise", BillingMode::Manual).await;
    world.wait_phase("acme", Phase::Active).await;
    let key = world.api_key("acme").await;
    world.until("a question is answered", async || status_of_question(&world, &key).await == 200).await;
    world
}

/// What the statuses of a tenant show, write by write, for so long.
async fn statuses(world: &World, span: Duration) -> Vec<TenantStatus> {
    let params = WatchParams::default().fields("metadata.name=acme");
    let mut changes = world.tenants().watch(&params, "0").await.expect("a watch").boxed();
    let (start, mut seen) = (Instant::now(), Vec::new());
    while let Some(left) = span.checked_sub(start.elapsed()) {
        let Ok(event) = tokio::time::timeout(left, changes.try_next()).await else { break };
        let event = event.expect("an event").expect("the watch goes on");
        let (WatchEvent::Added(tenant) | WatchEvent::Modified(tenant)) = event else { continue };
        let tenant: Tenant = tenant;
        seen.extend(tenant.status);
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_shows_once_that_the_ledger_is_away_and_once_that_it_is_back() {
    let mut world = world("away", Some("--usage-interval=2")).await;
    world.wait("acme", "the usage is shown", |s| s.usage.is_some_and(|usage| usage.queries.used > 0)).await;
    let status = world.status("acme").await;
    assert!(status.conditions.iter().all(|condition| *condition.type_ != *"UsageCounted"), "nothing was wrong yet");
    world.kill_ledger();
    world.wait("acme", "away", shows("UsageCounted", ConditionStatus::False, "LedgerUnavailable")).await;
    let status = world.status("acme").await;
    assert!(status.ledger_away_since.is_some_and(|since| since <= Timestamp::now()) && status.usage.is_some());
    let told = world.command("usage").args(["-n", &world.namespace, "acme"]).output().expect("it runs");
    assert!(crate::support::said(&told).contains("The ledger has not answered since"));
    let seen = statuses(&world, Duration::from_secs(10)).await;
    assert_eq!(seen.len(), 1, "nothing more is written while it lasts: {seen:#?}");

    world.start_ledger();
    world.wait("acme", "back", shows("UsageCounted", ConditionStatus::True, "Counted")).await;
    assert_eq!(world.status("acme").await.ledger_away_since, None);
    let seen = statuses(&world, Duration::from_secs(10)).await;
    assert_eq!(seen.len(), 1, "nor afterwards: {seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_written_once_a_minute_at_most_however_much_is_used() {
    let world = world("once-a-minute", None).await;
    let key = world.api_key("acme").await;
    let asked = async {
        let start = Instant::now();
        let mut answered = 0;
        while start.elapsed() < Duration::from_secs(130) {
            answered += u32::from(status_of_question(&world, &key).await == 200);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        answered
    };
    let (seen, answered) = tokio::join!(statuses(&world, Duration::from_secs(130)), asked);
    assert!(answered > 100, "{answered} questions");
    let mut shown: Vec<_> = seen.iter().filter_map(|status| status.usage).collect();
    shown.dedup();
    assert!((2..=3).contains(&shown.len()), "{} writes of usage in 130 s", shown.len());
    for pair in shown.windows(2) {
        let apart = pair[1].observed_at.since(pair[0].observed_at);
        assert!(apart >= 59, "{apart} s apart: {shown:?}");
    }
}
