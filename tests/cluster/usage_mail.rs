//! E-mails at 80 and 100 percent of a limit.

use kube::api::Patch;
use serde_json::{Value, json};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, Timestamp, Unit};
use tenant_operator_dev::apply_yaml;

use crate::support::{World, plan_with};

/// The texts of the e-mails about usage, oldest first: however often one came, under one Message-ID it is one.
async fn told(world: &World) -> Vec<String> {
    let mails = world.sandbox_get("/_sandbox/mails").await;
    let about_usage = |mail: &&Value| mail["message_id"].as_str().is_some_and(|id| id.contains(".usage-"));
    let mut mails: Vec<_> = mails.as_array().into_iter().flatten().filter(about_usage).collect();
    let mut seen = std::collections::BTreeSet::new();
    mails.retain(|mail| seen.insert(mail["message_id"].to_string()));
    mails.iter().map(|mail| mail["text"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Asks so many questions, and waits until the status shows so many.
async fn ask(world: &World, questions: usize, shown: i64) {
    let key = world.api_key("acme").await;
    for _ in 0..questions {
        let request = world.http.post(format!("{}/v1/query", world.web)).bearer_auth(&key);
        let answer = request.json(&json!({"question": "What is RAG?"})).send().await.expect("it answers");
        assert_eq!(answer.status(), 200);
    }
    world.wait("acme", "shown", |status| status.usage.is_some_and(|usage| usage.queries.used == shown)).await;
}

async fn wait_told(world: &World, mails: usize) -> String {
    world.until("the customer is told", async || told(world).await.len() >= mails).await;
    let all = told(world).await;
    assert_eq!(all.len(), mails, "{all:#?}");
    all.last().cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_customer_is_told_at_80_and_100_percent_once_each_in_a_period_across_a_restart() {
    let mut world = World::without_controller("usage-mail").await;
    world.controller_args(&["--usage-interval=1"]);
    world.start_controller();
    let namespace = world.namespace.clone();
    world.environment("WATCH_NAMESPACE", &namespace);
    world.start_web(&["--requests-per-second", "1000"]);
    let limits = "documents: 100, queriesPerMonth: 10, bytes: 1000000";
    apply_yaml(&world.client, &plan_with("usage-mail", limits)).await.expect("the plan applies");
    world.create("acme", "usage-mail", BillingMode::Manual).await;
    world.wait_phase("acme", Phase::Active).await;
    let known = async || {
        let request = world.http.get(format!("{}/v1/usage", world.web)).bearer_auth(world.api_key("acme").await);
        request.send().await.is_ok_and(|answer| answer.status() == 200)
    };
    world.until("web knows the tenant", known).await;

    ask(&world, 7, 7).await;
    ask(&world, 1, 8).await;
    let near = wait_told(&world, 1).await;
    assert!(near.contains("8 of 10 questions") && near.contains("is refused until"), "{near}");
    ask(&world, 1, 9).await;
    world.replace_controller();
    ask(&world, 1, 10).await;
    let reached = wait_told(&world, 2).await;
    assert!(reached.contains("10 of 10 questions") && reached.contains("Questions are refused until"), "{reached}");
    let end = world.status("acme").await.usage.expect("shown").period_end.to_string();
    assert!(reached.contains(&end[..10]), "{end}: {reached}");
    let key = world.api_key("acme").await;
    let eleventh = world.http.post(format!("{}/v1/query", world.web)).bearer_auth(&key);
    let answer = eleventh.json(&json!({"question": "What is RAG?"})).send().await.expect("it answers");
    assert_eq!(answer.status(), 429);
    world.replace_controller();
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert_eq!(told(&world).await.len(), 2);

    // The next period begins now.
    let start = Timestamp::now();
    let quota = json!({"status": {"quota": {"periodStart": start, "periodEnd": start.plus_months(1)}}});
    world.tenants().patch_status("acme", &Default::default(), &Patch::Merge(quota)).await.expect("patched");
    let begun = async || {
        let request = world.http.get(format!("{}/v1/usage", world.web)).bearer_auth(&key);
        let answer: Value = request.send().await.expect("it answers").json().await.expect("JSON");
        answer["queries"]["used"] == 0
    };
    world.until("web knows the period", begun).await;
    ask(&world, 8, 8).await;
    let again = wait_told(&world, 3).await;
    assert!(again.contains("8 of 10 questions"), "{again}");
    assert_eq!(world.settled("acme", Unit::Queries).await, 8);
}
