//! A key of another account, an index that was created again, and harm to many tenants at once: the controller changes
//! nothing until an admin decides.

use std::process::Output;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, TenantStatus};

use crate::support::{World, free_port, reason, said};

const CUSTOMERS: usize = 30;

fn name(n: usize) -> String {
    format!("customer-{n}")
}

/// Customers who have paid and are welcomed.
async fn customers(world: &World) {
    for n in 0..CUSTOMERS {
        world.create(&name(n), "paid", BillingMode::Stripe).await;
    }
    for n in 0..CUSTOMERS {
        world.pay(&name(n)).await;
    }
    for n in 0..CUSTOMERS {
        world.wait_true(&name(n), "WelcomeEmailSent").await;
    }
}

async fn statuses(world: &World) -> Vec<TenantStatus> {
    let all = world.tenants().list(&Default::default()).await.expect("a list").items;
    all.into_iter()
        .filter(|t| t.metadata.name.as_ref().is_some_and(|n| n.starts_with("customer-")))
        .filter_map(|t| t.status)
        .collect()
}

async fn in_phase(world: &World, phase: Phase) -> usize {
    statuses(world).await.iter().filter(|s| s.phase == Some(phase)).count()
}

async fn with_reason(world: &World, type_: &str, wanted: &str) -> usize {
    statuses(world).await.iter().filter(|s| reason(s, type_) == wanted).count()
}

async fn mails(world: &World) -> usize {
    world.sandbox_get("/_sandbox/mails").await.as_array().map_or(0, Vec::len)
}

async fn page(world: &World, port: u16, path: &str) -> (u16, String) {
    let Ok(answer) = world.http.get(format!("http://127.0.0.1:{port}{path}")).send().await else {
        return (0, String::new());
    };
    (answer.status().as_u16(), answer.text().await.unwrap_or_default())
}

fn run(world: &World, subcommand: &str, args: &[&str]) -> Output {
    tokio::task::block_in_place(|| world.command(subcommand).args(args).output()).expect("it runs")
}

/// Time in which a controller without pins would have suspended and alerted: nothing shows that it leaves all as it is.
async fn pause() {
    tokio::time::sleep(std::time::Duration::from_secs(8)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_account_suspends_no_tenant() {
    let mut world = World::without_controller("account").await;
    let port = free_port();
    world.controller_args(&[&format!("--listen=127.0.0.1:{port}")]);
    world.start_controller();
    customers(&world).await;
    assert!(said(&run(&world, "pin", &[])).contains("acct_sandbox (test mode)"));
    let mails_before = mails(&world).await;
    world.sandbox_post("/_sandbox/keys", json!({"key": "sk_test_other", "account": "acct_other"})).await;
    world.environment("STRIPE_SECRET_KEY", "sk_test_other");
    world.controllers.remove(0).kill();
    let of_stripe = |r: &Value| r["provider"] == "stripe" && r["path"] != "/v1/account";
    let calls = world.calls(of_stripe).await;
    world.start_controller();
    world
        .until("the controller says so", async || {
            let (status, text) = page(&world, port, "/readyz").await;
            status == 503 && text.contains("acct_other (test mode)") && text.contains("acct_sandbox (test mode)")
        })
        .await;
    world.create("late", "paid", BillingMode::Stripe).await;
    let late = world.wait("late", "on hold", |s| reason(s, "PaymentReceived") == "StripeAccountMismatch").await;
    assert!(late.message.expect("a message").contains("kubectl tenant pin"), "it names the fix");
    pause().await;
    assert_eq!(in_phase(&world, Phase::Active).await, CUSTOMERS);
    assert_eq!(mails(&world).await, mails_before, "no e-mail is sent");
    assert_eq!(world.calls(of_stripe).await, calls, "nothing is done at the other account");
    assert!(page(&world, port, "/metrics").await.1.contains("provider_pin_mismatch{provider=\"Stripe\"} 1"));
    let alerts = world.sandbox_get("/_sandbox/alerts").await.to_string();
    assert!(alerts.contains("acct_other"), "{alerts}");
    let checked = run(&world, "preflight", &["stripe"]);
    assert!(
        said(&checked).contains("the tenants pay to acct_sandbox") && !checked.status.success(),
        "{}",
        said(&checked)
    );

    // The pin is changed on purpose, and the account knows no customer: each is a question to a person.
    let change = ["--stripe-account", "acct_other", "--livemode", "false"];
    let asked = run(&world, "pin", &change);
    assert!(!asked.status.success() && said(&asked).contains("add --yes"), "{}", said(&asked));
    assert!(run(&world, "pin", &[&change[..], &["--yes"]].concat()).status.success());
    world
        .until("each customer is shown", async || {
            with_reason(&world, "BillingReady", "StripeCustomerUnknown").await == CUSTOMERS
        })
        .await;
    assert_eq!(in_phase(&world, Phase::Active).await, CUSTOMERS);
    assert_eq!(mails(&world).await, mails_before);

    let elsewhere = run(&world, "pin", &["--operator-namespace", "default"]);
    assert!(
        !elsewhere.status.success() && said(&elsewhere).contains("set --operator-namespace"),
        "{}",
        said(&elsewhere)
    );
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), &world.namespace);
    let broken = Patch::Merge(json!({"data": {"stripe": "acct_other"}}));
    maps.patch("tenant-operator-pins", &PatchParams::default(), &broken).await.expect("patched");
    let unreadable = run(&world, "pin", &[]);
    assert!(!unreadable.status.success() && said(&unreadable).contains("cannot be read"), "{}", said(&unreadable));

    // Back to where the customers are, and the entry can be read again.
    assert!(run(&world, "pin", &["--stripe-account", "acct_sandbox", "--livemode", "false", "--yes"]).status.success());
    world.environment("STRIPE_SECRET_KEY", "sk_test_test");
    world.replace_controller();
    world
        .until("Stripe knows them again", async || {
            with_reason(&world, "BillingReady", "StripeCustomerUnknown").await == 0
        })
        .await;
    assert_eq!(in_phase(&world, Phase::Active).await, CUSTOMERS);
    assert_eq!(page(&world, port, "/readyz").await.0, 200);
    // "late" may have got its customer at the other account meanwhile.
    world.create("later", "paid", BillingMode::Stripe).await;
    world.pay("later").await;
    world.wait_phase("later", Phase::Active).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_unpaid_subscriptions_at_once_wait_for_a_person() {
    let mut world = World::without_controller("brake").await;
    let port = free_port();
    world.controller_args(&[&format!("--listen=127.0.0.1:{port}"), "--full-resync=1"]);
    world.start_controller();
    customers(&world).await;
    let stripe = world.sandbox_get("/_sandbox/state").await;
    for subscription in stripe["subscription"].as_array().expect("subscriptions") {
        let id = subscription["id"].as_str().expect("an id");
        let url = format!("{}/v1/subscriptions/{id}", world.sandbox.stripe_url);
        let answer = world.http.delete(url).bearer_auth("sk_test_test").send().await.expect("it answers");
        assert!(answer.status().is_success());
    }
    let held = async |world: &World| with_reason(world, "Held", "SuspensionHeld").await;
    world.until("the rest is held", async || held(&world).await == CUSTOMERS - 10).await;
    assert_eq!(in_phase(&world, Phase::Suspended).await, 10);
    let metric = format!("controller_held_tenants{{kind=\"suspension\"}} {}", CUSTOMERS - 10);
    world.until("the metric says so", async || page(&world, port, "/metrics").await.1.contains(&metric)).await;
    let alerts = world.sandbox_get("/_sandbox/alerts").await;
    let told = alerts.as_array().into_iter().flatten().filter(|a| a.to_string().contains("SuspensionHeld")).count();
    // A controller that lost its lease on a busy machine begins anew and says it once more.
    assert!((1..=3).contains(&told), "one alert however many wait: {alerts}");
    // A restart begins no new count.
    world.replace_controller();
    world.wait_for_reads("/v1/subscriptions", 2).await;
    assert_eq!((in_phase(&world, Phase::Suspended).await, held(&world).await), (10, CUSTOMERS - 10));

    let namespace = world.namespace.clone();
    let mut waiting = world.tenants().list(&Default::default()).await.expect("a list").items;
    waiting.retain(|t| t.status.as_ref().is_some_and(|s| reason(s, "Held") == "SuspensionHeld"));
    let one = waiting[0].metadata.name.clone().expect("a name");
    let confirmed = run(&world, "confirm", &[&one, "-n", &namespace]);
    assert!(confirmed.status.success(), "{}", said(&confirmed));
    world.wait_phase(&one, Phase::Suspended).await;
    let listed = run(&world, "confirm", &["--all", "-n", &namespace]);
    assert!(!listed.status.success() && said(&listed).contains("to confirm these 19, add --yes"), "{}", said(&listed));
    assert!(run(&world, "confirm", &["--all", "--yes", "-n", &namespace]).status.success());
    world.until("all are suspended", async || in_phase(&world, Phase::Suspended).await == CUSTOMERS).await;
    assert_eq!(held(&world).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_was_made_anew_is_left_alone_until_it_is_pinned() {
    let mut world = World::without_controller("index").await;
    let port = free_port();
    world.controller_args(&[&format!("--listen=127.0.0.1:{port}")]);
    world.start_controller();
    world.create_paying("acme", "paid").await;
    let made = world.sandbox_get("/_sandbox/pinecone").await["created"].clone();
    world.sandbox_post("/_sandbox/indexes", json!({"index": "multi-tenant-rag"})).await;
    // While it runs, and after a restart.
    for _ in 0..2 {
        world
            .until("the controller says so", async || {
                let (status, text) = page(&world, port, "/readyz").await;
                status == 503 && text.contains("index multi-tenant-rag at")
            })
            .await;
        world.replace_controller();
    }
    pause().await;
    let status = world.status("acme").await;
    assert_ne!(reason(&status, "NamespaceReady"), "NamespaceMissing", "{status:#?}");
    assert_eq!(status.phase, Some(Phase::Active));
    assert_eq!(world.sandbox_get("/_sandbox/pinecone").await["created"], made, "no empty namespace in its place");
    world.create("late", "paid", BillingMode::Manual).await;
    world.wait("late", "on hold", |s| reason(s, "Ready") == "PineconeIndexMismatch").await;
    let checked = run(&world, "preflight", &["pinecone"]);
    assert!(
        said(&checked).contains("the tenants' documents are in index") && !checked.status.success(),
        "{}",
        said(&checked)
    );

    let (_, text) = page(&world, port, "/readyz").await;
    let command = text.split("kubectl tenant pin ").nth(1).and_then(|rest| rest.split('`').next()).expect("the fix");
    let args: Vec<_> = command.split_whitespace().chain(["--yes"]).collect();
    let changed = run(&world, "pin", &args);
    assert!(changed.status.success(), "{}", said(&changed));
    world.wait("acme", "shown as lost", |s| reason(s, "NamespaceReady") == "NamespaceMissing").await;
    world.wait_phase("late", Phase::Active).await;
}
