//! Every change of phase reaches the event store, even if the controller crashes or the store is away.

use std::collections::BTreeSet;
use std::path::Path;

use kube::api::Patch;
use serde_json::{Value, json};
use tenant_operator::api::Phase;
use tenant_operator::api::tenant::BillingMode;

use crate::support::{World, folder};

/// (tenant id, number) of each line.
fn shipped(file: &Path) -> Vec<(String, i64)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let record = |line: &str| -> (String, i64) {
        let record: Value = serde_json::from_str(line).expect("a whole line of JSON");
        for field in ["event_type", "to_state", "timestamp", "triggered_by", "reason"] {
            assert!(record[field].is_string(), "{record}");
        }
        (record["tenant_id"].as_str().expect("an id").to_owned(), record["seq"].as_i64().expect("a number"))
    };
    text.lines().map(record).collect()
}

/// (tenant id, milestone) of each line.
fn milestones(file: &Path) -> BTreeSet<(String, String)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a whole line of JSON"));
    let word = |value: &Value| value.as_str().expect("text").to_owned();
    events.map(|event| (word(&event["tenant_id"]), word(&event["event_type"]))).collect()
}

async fn suspended(world: &World, name: &str, desired: &str) {
    let change = Patch::Merge(json!({"spec": {"desired": desired}}));
    world.tenants().patch(name, &Default::default(), &change).await.expect("patched");
    let phase = if desired == "Active" { Phase::Active } else { Phase::Suspended };
    world.wait_phase(name, phase).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transition_is_shipped_though_the_controller_is_killed() {
    let file = folder("outbox").with_extension("jsonl");
    let mut world = World::without_controller("outbox").await;
    let events = folder("outbox-events").with_extension("jsonl");
    world.controller_args(&[
        &format!("--transitions-file={}", file.display()),
        &format!("--events-file={}", events.display()),
    ]);
    world.start_controller();
    world.start_web(&[]);
    let names = ["a", "b", "c", "d"];
    for name in names {
        world.create(name, "paid", BillingMode::Stripe).await;
    }
    for (round, name) in names.into_iter().enumerate() {
        world.pay(name).await;
        if round % 2 == 0 {
            world.replace_controller();
        }
        world.wait_true(name, "WelcomeEmailSent").await;
    }
    for desired in ["Suspended", "Active", "Suspended"] {
        suspended(&world, "a", desired).await;
        world.replace_controller();
    }
    let mut wanted = BTreeSet::new();
    for name in names {
        for transition in world.status(name).await.transitions {
            wanted.insert((transition.tenant_id, transition.seq));
        }
    }
    assert!(wanted.len() >= 15, "{wanted:?}");
    let all = async || wanted.is_subset(&shipped(&file).into_iter().collect());
    world.until("every transition is in the file", all).await;
    let reached = milestones(&events);
    for (id, _) in wanted.iter().filter(|(_, seq)| *seq == 3) {
        for milestone in ["payment", "provisioned"] {
            assert!(reached.contains(&(id.clone(), milestone.into())), "{milestone} of {id}: {reached:?}");
        }
    }
    // What the status says of it is true, and a restart ships nothing of that again.
    let status = world.wait("b", "known to be shipped", |s| s.shipped_seq.is_some()).await;
    let lines = shipped(&file);
    let seq = status.shipped_seq.expect("a number");
    assert!(lines.contains(&(status.transitions[0].tenant_id.clone(), seq)));
    // The last transition of a tenant that is erased.
    world.erase("d").await;
    let id = world.tenants().get("d").await.ok().and_then(|t| t.spec.tenant_id);
    world.wait_gone("d").await;
    if let Some(id) = id {
        let last = shipped(&file).into_iter().filter(|(of, _)| *of == id).map(|(_, seq)| seq).max();
        assert_eq!(last, Some(4), "the deletion");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_is_full_nothing_leaves_and_everything_is_shipped_afterwards() {
    let mut world = World::without_controller("outbox-full").await;
    world.controller_args(&["--transitions-file=/dev/full"]);
    world.start_controller();
    world.create("acme", "paid", BillingMode::Manual).await;
    world.create("gone", "paid", BillingMode::Manual).await;
    world.wait_true("acme", "WelcomeEmailSent").await;
    world.wait_true("gone", "WelcomeEmailSent").await;
    suspended(&world, "acme", "Suspended").await;
    let status = world.status("acme").await;
    assert_eq!((status.shipped_seq, status.transitions.len()), (None, 4), "served, and nothing is lost");
    let alerts = world.sandbox_get("/_sandbox/alerts").await;
    let told = alerts
        .as_array()
        .into_iter()
        .flatten()
        .filter(|a| a["text"].as_str().is_some_and(|t| t.contains("TRANSITIONS_FILE")));
    assert_eq!(told.count(), 1, "once, for however many: {alerts}");
    world.erase("gone").await;
    world.wait("gone", "waiting for its last words", |s| s.phase == Some(Phase::Deleting)).await;
    let id = world.tenants().get("gone").await.expect("held by its finalizer").spec.tenant_id.expect("an id");
    // The events' disk is full for longer, and holds the transitions back as well.
    let file = folder("outbox-full").with_extension("jsonl");
    let shipping = format!("--transitions-file={}", file.display());
    world.controller_args(&[&shipping, "--events-file=/dev/full"]);
    world.replace_controller();
    let told = async || world.sandbox_get("/_sandbox/alerts").await.to_string().contains("EVENTS_FILE");
    world.until("the operator hears of it", told).await;
    assert!(world.tenants().get("gone").await.is_ok(), "its last words are not shipped");
    let events = folder("outbox-full-events").with_extension("jsonl");
    world.controller_args(&[&shipping, &format!("--events-file={}", events.display())]);
    world.replace_controller();
    world.wait_gone("gone").await;
    let ours =
        |of: &str| shipped(&file).into_iter().filter(|(id, _)| id == of).map(|(_, seq)| seq).collect::<BTreeSet<_>>();
    assert_eq!(ours(&id), BTreeSet::from([1, 2, 3, 4]));
    let acme = status.transitions[0].tenant_id.clone();
    world.until("acme's are shipped", async || ours(&acme) == BTreeSet::from([1, 2, 3, 4])).await;
    let reached = milestones(&events);
    for of in [id, acme] {
        for milestone in ["payment", "provisioned"] {
            assert!(reached.contains(&(of.clone(), milestone.into())), "{milestone} of {of}: {reached:?}");
        }
    }
}
