//! `kubectl tenant usage NAME --billed`: what the ledger, the events store and Stripe have of the same usage.

use std::process::Output;

use reqwest::Method;
use serde_json::{Value, json};
use tenant_operator::api::{ConditionStatus, Timestamp};

use crate::support::{World, said, shows, stripe};
use crate::usage_billing::{acme_buys, hour_passes, price, sent, settle, used, world};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn asked(world: &World, args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        world.command("usage").args(["acme", "-n", &world.namespace, "--billed"]).args(args).output().expect("it runs");
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

/// The row of the queries, or of an hour, in words.
fn row(said: &str, begins: &str) -> String {
    let line = said.lines().find(|line| line.trim_start().starts_with(begins));
    let line = line.unwrap_or_else(|| panic!("{begins} in {said}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The three numbers of the queries.
fn queries(said: &str) -> String {
    let (_, numbers) = said.split_once("CLOSED HOURS").unwrap_or_else(|| panic!("the numbers in {said}"));
    row(numbers, "queries").trim_start_matches("queries ").to_owned()
}

/// Changes one of the ledger's databases as a fault would.
fn damage(world: &World, file: &str, sql: &str) {
    let path = world.ledgers_data().join(file);
    let connection = rusqlite::Connection::open(path).expect("the file");
    connection.busy_timeout(std::time::Duration::from_secs(10)).expect("set");
    assert_ne!(connection.execute(sql, []).expect("written"), 0, "{sql}");
}

/// The three agree; a difference in any one of them is named, and what cannot be read is no difference.
#[tokio::test(flavor = "multi_thread")]
async fn three_numbers_agree_and_the_one_that_does_not_is_named() {
    let (mut world, meter) = world("three-numbers").await;
    let price = price(&world, &meter, &[("unit_amount", "10")]).await;
    acme_buys(&mut world, "three-numbers", &json!([{"unit": "queries", "stripePriceId": price}])).await;
    used(&world, "a", 5).await;
    hour_passes(&world).await;
    sent(&world, 5).await;
    used(&world, "b", 3).await;
    used(&world, "c", 4).await;
    hour_passes(&world).await;
    let usage = sent(&world, 12).await;
    let latest = usage.through.plus(-3600).to_string();

    let all = async || queries(&asked(&world, &["--hours"]).1) == "12 12 12";
    world.until("the events store is fed", all).await;
    let (code, said) = asked(&world, &["--hours"]);
    assert_eq!((code, row(&said, &latest)), (Some(0), format!("{latest} queries 7 7 7")), "{said}");

    // Without Stripe's key, its sums are those of the controller's last comparison.
    let (code, said) = asked(&world, &["--stripe-secret-key", ""]);
    assert_eq!((code, queries(&said)), (Some(0), "12 12 12".into()), "{said}");
    let (code, said) = asked(&world, &["--stripe-secret-key", "", "--hours"]);
    assert_eq!((code, row(&said, &latest)), (Some(0), format!("{latest} queries 7 7 not known")), "{said}");
    // What is away is not known, and no difference.
    let (code, said) = asked(&world, &["--hours", "--stripe-url", "http://127.0.0.1:1"]);
    assert_eq!((code, queries(&said)), (Some(0), "12 12 not known".into()), "{said}");
    assert!(said.contains("Not known: Stripe does not tell its sums"), "{said}");
    let (code, said) = asked(&world, &["--ledger-url", "http://127.0.0.1:1"]);
    assert_eq!((code, queries(&said)), (Some(0), "not known not known 12".into()), "{said}");
    let table = |from: &str, to: &str| {
        let path = world.ledgers_data().join("events.db");
        let connection = rusqlite::Connection::open(path).expect("the file");
        connection.execute_batch(&format!("ALTER TABLE {from} RENAME TO {to}")).expect("written");
    };
    table("line", "away");
    let (code, said) = asked(&world, &[]);
    assert_eq!((code, queries(&said)), (Some(0), "12 not known 12".into()), "{said}");
    table("away", "line");

    // The events store differs.
    damage(&world, "events.db", "UPDATE line SET queries = queries + 2 WHERE operation = 'b'");
    let (code, said) = asked(&world, &["--hours"]);
    assert_eq!((code, queries(&said)), (Some(1), "12 14 12 the events store differs".into()), "{said}");
    assert_eq!(row(&said, &latest), format!("{latest} queries 7 9 7 the events store differs"), "{said}");
    damage(&world, "events.db", "UPDATE line SET queries = queries - 2 WHERE operation = 'b'");

    // The ledger differs, and its lines show what it should have.
    let hour = Timestamp::as_second(usage.through.plus(-3600));
    damage(&world, "ledger.db", &format!("UPDATE tenant_hour SET queries = queries - 1 WHERE hour = {hour}"));
    let (code, said) = asked(&world, &["--hours", "--lines"]);
    assert_eq!((code, queries(&said)), (Some(1), "11 12 12 the ledger differs".into()), "{said}");
    assert_eq!(row(&said, &latest), format!("{latest} queries 6 7 7 the ledger differs"), "{said}");
    let (_, lines) = said.split_once("The ledger's lines of").expect("the lines");
    let words = lines.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains(" b 3 queries") && words.contains(" c 4 queries") && !words.contains(" a 5 queries"),
        "{said}"
    );
    let (_, page) = asked(&world, &["--lines", "--hour", &latest, "--most", "1"]);
    assert!(page.contains("b ") && page.contains(&format!("More: --hour {latest} --after ")), "{page}");
    damage(&world, "ledger.db", &format!("UPDATE tenant_hour SET queries = queries + 1 WHERE hour = {hour}"));

    the_documented_commands_run(&world);

    // Stripe differs, and the condition names the three numbers and the command.
    let customer = world.tenants().get("acme").await.expect("there").spec.billing.stripe.expect("ids").customer_id;
    let customer = customer.expect("a customer");
    let foreign = [("event_name", "queries"), ("payload[stripe_customer_id]", &*customer), ("payload[value]", "3")];
    stripe(&world, Method::POST, "/billing/meter_events", &foreign).await;
    used(&world, "d", 1).await;
    hour_passes(&world).await;
    let differs = shows("UsageBilled", ConditionStatus::False, "NumbersDiffer");
    let status = world.wait("acme", "shown", differs).await;
    let (code, said) = asked(&world, &["--hours"]);
    assert_eq!((code, queries(&said)), (Some(1), "12 12 15 Stripe differs".into()), "{said}");
    let (code, said) = asked(&world, &["-o", "json", "--hours"]);
    let found: Value = serde_json::from_str(said.lines().next().expect("a line")).expect("JSON");
    let unit = &found["units"][0];
    assert_eq!(
        (code, &unit["ledger"], &unit["eventsStore"], &unit["stripe"]),
        (Some(1), &json!(12), &json!(12), &json!(15))
    );
    assert_eq!(unit["differing"], json!(["stripe"]), "{found}");
    let condition = status.conditions.iter().find(|condition| &*condition.type_ == "UsageBilled").expect("shown");
    let command = format!("kubectl tenant usage acme -n {} --billed --hours --lines", world.namespace);
    for part in ["has sent 12 queries", "the events store has 12", "Stripe has 15", &command] {
        assert!(condition.message.contains(part), "{part}: {}", condition.message);
    }
    world.wait_event("acme", "UsageNotBilled").await;

    // Once a person has decided that Stripe's number stands, nothing differs.
    let (code, said) = settle(&world.namespace, "stripe", &["--confirm", "acme"]).await;
    assert_eq!(code, Some(0), "{said}");
    world.wait("acme", "billed", shows("UsageBilled", ConditionStatus::True, "Sent")).await;
    let agrees = async || asked(&world, &[]).0 == Some(0);
    world.until("the numbers agree", agrees).await;
}

/// The examples of docs/usage-billing.md, with this test's tenant.
fn the_documented_commands_run(world: &World) {
    let page = std::fs::read_to_string(format!("{ROOT}/docs/usage-billing.md")).expect("the page");
    let block = page.split("\n```sh billed\n").nth(1).and_then(|rest| rest.split("\n```").next()).expect("the example");
    let mut run = 0;
    for line in block.lines() {
        let command = line.split('#').next().unwrap_or_default().trim();
        let args = command.strip_prefix("kubectl tenant usage NAME").expect("the command");
        let args: Vec<_> = args.split_whitespace().collect();
        let output =
            world.command("usage").args(["acme", "-n", &world.namespace]).args(&args).output().expect("it runs");
        assert!(output.status.success(), "{line}\n{}", said(&output));
        run += 1;
    }
    assert_eq!(run, 4);
}
