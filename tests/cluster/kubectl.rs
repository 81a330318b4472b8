//! What the on-call asks `kubectl tenant`.

use std::process::Output;

use serde_json::json;
use tenant_operator::api::conditions::{READY, get};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, Timestamp};
use tokio::process::Command;

use crate::support::{BINARY, World, control_plane, said};

async fn tenant(args: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(args).arg("--kubeconfig").arg(&control_plane().kubeconfig);
    command.output().await.expect("it runs")
}

#[tokio::test]
async fn why_says_what_the_conditions_say_and_what_to_do() {
    let world = World::start("why").await;
    let ns = world.namespace.as_str();
    world.create("acme", "paid", BillingMode::Stripe).await;
    let status = world.wait("acme", "given a link", |s| s.checkout.is_some()).await;
    let why = tenant(&["why", "acme", "-n", ns]).await;
    assert_eq!(why.status.code(), Some(1), "not Ready");
    let text = said(&why);
    assert!(text.starts_with(&format!("acme is PendingPayment: {}", status.message.expect("a message"))), "{text}");
    assert!(text.contains("Reason: AwaitingPayment") && text.contains("Fix: Nothing: the customer pays"), "{text}");
    let open = tenant(&["open", "acme", "-n", ns]).await;
    assert_eq!(said(&open).trim(), status.checkout.expect("a link").url);

    world.fault(json!({"provider": "pinecone", "method": "POST", "path": "/namespaces", "status": 400})).await;
    world.pay("acme").await;
    let status = world.wait("acme", "Failed", |s| s.phase == Some(Phase::Failed)).await;
    let text = said(&tenant(&["why", "acme", "-n", ns]).await);
    let ready = get(&status.conditions, READY).expect("Ready");
    for part in
        [&*ready.message, &*ready.reason, "Fix the cause, then run `kubectl tenant retry`", "the last at Namespace"]
    {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
    assert_eq!(said(&tenant(&["open", "acme", "-n", ns]).await).trim(), "http://localhost:8080");

    assert!(tenant(&["retry", "acme", "-n", ns]).await.status.success());
    world.wait("acme", "Active", |s| s.phase == Some(Phase::Active)).await;
    let why = tenant(&["why", "acme", "-n", ns]).await;
    assert!(why.status.success() && said(&why).contains("Fix: Nothing to do"), "{}", said(&why));
    let unknown = tenant(&["why", "unknown", "-n", ns]).await;
    assert!(
        !unknown.status.success() && said(&unknown).contains("there is no Tenant unknown here"),
        "{}",
        said(&unknown)
    );
}

#[tokio::test]
async fn list_shows_what_each_waits_for_and_can_be_narrowed() {
    let world = World::start("list").await;
    let ns = world.namespace.as_str();
    world.create("waits", "paid", BillingMode::Stripe).await;
    world.wait("waits", "given a link", |s| s.checkout.is_some()).await;
    world.create("works", "paid", BillingMode::Stripe).await;
    world.pay("works").await;
    world.wait("works", "Active", |s| s.phase == Some(Phase::Active)).await;
    let list = async |more: &[&str]| said(&tenant(&[&["list", "-n", ns], more].concat()).await);
    let all = list(&[]).await;
    assert!(all.contains("AwaitingPayment") && all.contains("The tenant is ready for use"), "{all}");
    let active = list(&["--phase", "Active"]).await;
    assert!(active.contains("works") && !active.contains("waits"), "{active}");
    let not_ready = list(&["--not-ready"]).await;
    assert!(not_ready.contains("waits") && !not_ready.contains("works"), "{not_ready}");
    assert!(list(&["--phase", "Activ"]).await.contains("Activ is not a phase"));
    let completions = said(&tenant(&["completions", "bash"]).await);
    assert!(completions.contains("preflight") && completions.contains("complete -F"), "{completions}");
}

#[tokio::test]
async fn describe_shows_everything_on_one_screen() {
    let world = World::with_active("describe").await;
    let ns = world.namespace.as_str();
    world.wait_event("acme", "Active").await;
    let text = said(&tenant(&["describe", "acme", "-n", ns]).await);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let object = world.tenants().get("acme").await.expect("it is there");
    let stripe = object.spec.billing.stripe.clone().expect("ids");
    for part in [
        object.tenant_id(),
        &stripe.customer_id.expect("a customer"),
        &stripe.subscription_id.expect("a subscription"),
        "The tenant is ready for use",
        "1000 documents,",
        "acme-api-key",
        "SampleDataReady",
        "PendingPayment Provisioning",
        "Events",
    ] {
        assert!(words.contains(part), "{part:?} is missing in: {text}");
    }
    assert!(!text.contains("sk_live_"), "no key is shown");
}

/// The level changes from inside the pod, for a while, and in this pod alone.
#[tokio::test]
async fn the_log_level_changes_for_a_while() {
    let mut world = World::start("log-level").await;
    world.start_web(&[]);
    let url = world.web_metrics.replace("/metrics", "");
    let level = async |more: &[&str]| tenant_alone(&[&["log-level", "--url", &url], more].concat()).await;
    let before = said(&level(&[]).await);
    assert!(before.contains("tenant_operator=info"), "{before}");
    let changed = level(&["debug", "--seconds", "2"]).await;
    assert!(changed.status.success() && said(&changed).contains("tenant_operator=debug"), "{}", said(&changed));
    // Changed again: the first level comes back, not the second.
    let changed = said(&level(&["trace", "--seconds", "2"]).await);
    assert!(changed.contains("tenant_operator=trace") && changed.contains("warn"), "{changed}");
    world.until("the level is as it was", async || said(&level(&[]).await) == before).await;
    for (body, seconds) in
        [("tenant_operator=trace,hyper=trace", "5"), ("debug", "0"), ("debug", "99999999"), ("", "5")]
    {
        let put =
            world.http.put(format!("{url}/log-level?seconds={seconds}")).body(body).send().await.expect("it answers");
        assert_eq!(put.status(), 400, "{body} {seconds}");
    }
    assert_eq!(said(&level(&[]).await), before);
    let public = world.http.get(format!("{}/log-level", world.web)).send().await.expect("it answers");
    assert_eq!(public.status(), 404, "not where the internet is");
}

async fn tenant_alone(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).output().await.expect("it runs")
}

#[tokio::test]
async fn audit_counts_the_tenants_and_finds_what_is_odd() {
    let world = World::with_active("audit").await;
    let ns = world.namespace.as_str();
    let sound = tenant(&["audit", "-n", ns, "-o", "json"]).await;
    let facts: serde_json::Value = serde_json::from_slice(&sound.stdout).expect("JSON");
    assert_eq!((sound.status.code(), &facts), (Some(0), &json!({"phases": {"Active": 1}, "findings": []})));
    // An admin edits the record while no controller runs that would rebuild it.
    let mut world = world;
    world.controllers.clear();
    let mut object = world.tenants().get("acme").await.expect("there");
    object.status.as_mut().expect("a status").transitions.remove(1);
    world.tenants().replace_status("acme", &Default::default(), &object).await.expect("written");
    let odd = tenant(&["audit", "-n", &world.namespace]).await;
    let text = said(&odd);
    assert!(odd.status.code() == Some(1) && text.contains("MissingTransition") && text.contains("acme"), "{text}");
    let csv = tenant(&["audit", "-n", &world.namespace, "-o", "csv"]).await;
    let lines: Vec<_> = str::from_utf8(&csv.stdout).expect("text").lines().collect();
    assert_eq!((csv.status.code(), lines[0]), (Some(1), "namespace,name,finding,message"));
    assert!(
        lines[1..].iter().any(|line| line.starts_with(&format!("{},acme,MissingTransition,", world.namespace))),
        "{lines:?}"
    );
}

/// Two customers signed up: one is served and never logged in, and the other completed the setup. One came by manifest.
#[tokio::test]
async fn the_funnel_and_the_stuck_customers_are_read_from_the_tenants() {
    let world = World::start("funnel").await;
    let ns = world.namespace.as_str();
    world.create("by-manifest", "enterprise", BillingMode::Manual).await;
    world.create("silent", "enterprise", BillingMode::Manual).await;
    world.create("done", "enterprise", BillingMode::Manual).await;
    for name in ["by-manifest", "silent", "done"] {
        world.wait(name, "Active", |s| s.phase == Some(Phase::Active)).await;
    }
    let annotate = async |name: &str, annotations: serde_json::Value| {
        let patch = kube::api::Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        world.tenants().patch(name, &Default::default(), &patch).await.expect("annotated");
    };
    annotate("silent", json!({"tenant-operator.dev/signup": "{}"})).await;
    let reached = ["first-login", "sample-query", "first-document", "own-query", "ten-queries", "completed"];
    let mut annotations = json!({"tenant-operator.dev/signup": "{}"});
    for milestone in reached {
        annotations[format!("tenant-operator.dev/reached-{milestone}")] = json!("2099-01-01T00:00:00Z");
    }
    annotate("done", annotations).await;

    let output = tenant(&["funnel", "-n", ns, "-o", "json"]).await;
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((figures["total_signups"].as_u64(), figures["by_manifest"].as_u64()), (Some(2), Some(1)), "{figures}");
    assert_eq!(figures["conversion_rates"]["activation_rate"], 50.0, "{figures}");
    assert_eq!(figures["steps"][4]["milestone"], "first_login");
    assert_eq!((&figures["steps"][4]["customers"], &figures["steps"][4]["high_drop_off"]), (&json!(1), &json!(true)));
    let table = said(&tenant(&["funnel", "-n", ns]).await);
    assert!(table.contains("2 customers signed up") && table.contains("50.0 % !"), "{table}");
    let csv = said(&tenant(&["funnel", "-n", ns, "-o", "csv"]).await);
    assert!(csv.lines().any(|line| line.starts_with("completed,1,ten_queries,100.0,0.0,")), "{csv}");

    let new = tenant(&["stuck", "-n", ns]).await;
    assert_eq!((new.status.code(), said(&new).trim()), (Some(0), "No customer is stuck."));
    // The customer has been served for years, as the record says while no controller corrects it.
    let mut world = world;
    world.controllers.clear();
    let mut object = world.tenants().get("silent").await.expect("there");
    object.status.as_mut().expect("a status").provisioned_at = Some(Timestamp::from_second(1_600_000_000));
    world.tenants().replace_status("silent", &Default::default(), &object).await.expect("written");
    let ns = world.namespace.as_str();
    let late = tenant(&["stuck", "-n", ns]).await;
    assert!(late.status.code() == Some(1) && said(&late).contains("never logged in: 1"), "{}", said(&late));
    let found: serde_json::Value =
        serde_json::from_slice(&tenant(&["stuck", "-n", ns, "-o", "json"]).await.stdout).expect("JSON");
    assert_eq!(found["stuck_after_payment"][0]["name"], "silent", "{found}");
    assert_eq!((&found["stuck_after_login"], &found["stuck_after_query"]), (&json!([]), &json!([])), "{found}");
    let csv = said(&tenant(&["stuck", "-n", ns, "-o", "csv"]).await);
    assert!(
        csv.lines().nth(1).is_some_and(|line| line.starts_with("stuck_after_payment,") && line.contains(",silent,")),
        "{csv}"
    );
    let wrong = tenant(&["funnel", "-n", ns, "--days", "0"]).await;
    assert!(wrong.status.code() == Some(2) && said(&wrong).contains("0 is not in 1..=3650"), "{}", said(&wrong));
}
