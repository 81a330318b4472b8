//! Customers who are invited, or whose Tenant was applied as a manifest.

use serde_json::json;
use tenant_operator::api::{Phase, Timestamp};
use tenant_operator::operator_keys::IdentityKey;

use super::{FRONTEND, ask, press, start, tenant};
use crate::support::{PASSWORD, Visitor, World, said};

/// The welcome of a customer whose Tenant was applied as a manifest leads to a first password, and so into the account.
#[tokio::test(flavor = "multi_thread")]
async fn a_customer_whose_tenant_was_applied_as_a_manifest_gets_in() {
    let world = start("manifest-login", &[]).await;
    world.create("acme", "enterprise", tenant_operator::api::tenant::BillingMode::Manual).await;
    world.wait_true("acme", "WelcomeEmailSent").await;
    let links = world.mail_links("acme@example.com", "Your RAG Service account").await;
    let link = links.iter().find_map(|link| link.strip_prefix(FRONTEND).filter(|l| l.starts_with("/invitation")));
    let link = link.expect("an invitation").to_owned();
    let mut acme = Visitor::new(&world);
    let (status, page) = acme.get(&link).await;
    assert!(status == 200 && page.contains("Welcome, Analytical Engines"), "{page}");
    let more = [("password", PASSWORD), ("accept_terms", "on")];
    let (status, place, page) = press(&mut acme, &link, &more).await;
    assert_eq!((status, &*place), (303, "/account"), "{page}");
    assert!(acme.get("/account").await.1.contains("Ask a question"));
    assert_eq!(Visitor::new(&world).log_in("acme@example.com", PASSWORD).await, 303);
    let made = tenant(&world, "acme").await;
    assert!(made.spec.login.is_some() && made.spec.terms.is_some(), "{:?}", made.spec);
    // One that has lost the e-mail asks for another link.
    world.create("other", "enterprise", tenant_operator::api::tenant::BillingMode::Manual).await;
    world.wait_true("other", "WelcomeEmailSent").await;
    ask(&mut Visitor::new(&world), "/password/forgot", "other@example.com").await;
    world.until("another invitation is sent", async || world.mails("invitation").await == 1).await;
}

/// Runs `kubectl tenant invite` for Grace.
fn invite(world: &World, namespace: &str, args: &[&str]) -> std::process::Output {
    let all = ["Grace@Example.com", "--company", "Cobol Ltd", "--plan", "enterprise", "--namespace", namespace];
    tokio::task::block_in_place(|| world.command("invite").args(all).args(args).output()).expect("it runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_makes_no_second_account_of_an_address() {
    let mut world = World::start("invitedtwice").await;
    world.start_web(&[]);
    world.create("other", "enterprise", tenant_operator::api::tenant::BillingMode::Manual).await;
    // Another customer takes the address over.
    let moved = json!({"spec": {"adminEmail": "grace@example.com"}});
    world.tenants().patch("other", &Default::default(), &kube::api::Patch::Merge(moved)).await.expect("patched");
    let identity = IdentityKey::read(&world.client, &world.namespace).await.expect("read").expect("there");
    let hash = identity.email_hash("grace@example.com");
    world
        .until("the label follows the address", async || {
            let labels = tenant(&world, "other").await.metadata.labels.unwrap_or_default();
            labels.get("tenant-operator.dev/email-hash") == Some(&hash)
        })
        .await;
    let refused = invite(&world, &world.namespace, &["--manual"]);
    assert!(!refused.status.success() && said(&refused).contains("Tenant other"), "{}", said(&refused));
    assert_eq!(world.tenants().list(&Default::default()).await.expect("listed").items.len(), 1);
}

/// The link of an invitation opens in the namespace with pages. Without a controller there, the command fails and no
/// e-mail is sent.
#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_into_a_namespace_without_an_operator_fails_and_says_what_to_do() {
    let world = World::without_controller("invitednowhere").await;
    let lost = invite(&world, &world.namespace, &["--manual"]);
    let text = said(&lost);
    assert!(!lost.status.success(), "{text}");
    let name = world.tenants().list(&Default::default()).await.expect("listed").items.remove(0).metadata.name;
    let name = name.expect("a name");
    let delete = format!("kubectl delete tenant/{name} secret/{name}-login -n {}", world.namespace);
    for part in ["Waiting for the controller", &*delete, "signupNamespace", &world.namespace] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    // As the chart installs web, for the signups of this namespace.
    let web = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "rag-web", "labels": {
            "app.kubernetes.io/name": "tenant-operator", "app.kubernetes.io/component": "web"}},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web",
                    "env": [{"name": "TENANT_NAMESPACE", "value": world.namespace}]}]},
            },
        },
    });
    let web = serde_json::from_value(web).expect("a Deployment");
    let deployments: kube::Api<k8s_openapi::api::apps::v1::Deployment> =
        kube::Api::namespaced(world.client.clone(), &world.namespace);
    deployments.create(&Default::default(), &web).await.expect("made");
    let elsewhere = invite(&world, "default", &["--manual"]);
    let text = said(&elsewhere);
    assert!(!elsewhere.status.success(), "{text}");
    assert!(text.contains("namespace default has no pages"), "{text}");
    assert!(text.contains(&format!("--namespace {}", world.namespace)), "{text}");
}

/// A customer of the sales team chooses a password, and that is all.
#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_becomes_an_account_once_it_is_accepted() {
    let mut world = World::without_controller("invited").await;
    world.controller_args(&["--email-verification=beforeProvisioning"]);
    world.start_controller();
    world.start_web(&[]);
    world
        .until("the identity key is there", async || {
            world.secrets().get_opt("tenant-operator-identity").await.is_ok_and(|secret| secret.is_some())
        })
        .await;
    let invite = |args: &[&str]| {
        let all = ["Grace@Example.com", "--company", "Cobol Ltd", "--namespace", &world.namespace];
        tokio::task::block_in_place(|| world.command("invite").args(all).args(args).output()).expect("it runs")
    };
    let wrong = invite(&["--plan", "golden"]);
    assert!(!wrong.status.success() && said(&wrong).contains("no Plan is named golden"), "{}", said(&wrong));
    let invited = invite(&["--plan", "enterprise", "--manual"]);
    assert!(invited.status.success(), "{}", said(&invited));
    let tenants = world.tenants().list(&Default::default()).await.expect("listed").items;
    let name = tenants[0].metadata.name.clone().expect("a name");
    let links = world.mail_links("Grace@example.com", "Your RAG Service account").await;
    let link = links.iter().find_map(|link| link.split_once("/invitation")).expect("an invitation").1.to_owned();
    let status = world.wait(&name, "waiting", |s| s.phase == Some(Phase::PendingPayment)).await;
    assert!(status.namespace.is_none(), "nothing is set up before");
    let mut grace = Visitor::new(&world);
    let (status, page) = grace.get(&format!("/invitation{link}")).await;
    assert!(status == 200 && page.contains("Welcome, Cobol Ltd"), "{page}");
    // The link of an invitation sets no other password.
    let (status, _) = grace.get(&format!("/password/new{link}")).await;
    assert_eq!(status, 410);
    let csrf = grace.csrf(&format!("/invitation{link}")).await;
    let token = link.trim_start_matches("?token=");
    let form = [("csrf", &*csrf), ("token", token), ("password", "correct horse battery"), ("accept_terms", "on")];
    let (status, _, page) = grace.post("/invitation", &[form[0], form[1], ("password", "short")]).await;
    assert!(status == 400 && page.contains("8 to 256"), "{page}");
    let (status, _, page) = grace.post("/invitation", &form[..3]).await;
    assert!(status == 400 && page.contains("Accept the terms"), "{page}");
    let (status, place, page) = grace.post("/invitation", &form).await;
    assert_eq!((status, &*place), (303, "/account"), "{page}");
    world.wait_true(&name, "WelcomeEmailSent").await;
    assert_eq!(world.mails("verify-email").await, 0, "the invitation has proved the address");
    let (status, page) = grace.get("/account").await;
    assert!(status == 200 && page.contains("Ask a question"), "{page}");
    let terms = tenant(&world, &name).await.spec.terms.expect("what was agreed to");
    assert!(!terms.version.is_empty() && Timestamp::now().since(terms.accepted_at) < 60);
    // An invitation works once.
    let csrf = grace.csrf("/account").await;
    let again = [("csrf", csrf.as_str()), form[1], form[2], form[3]];
    let (status, _, _) = grace.post("/invitation", &again).await;
    assert_eq!(status, 410);
    let twice = invite(&[]);
    assert!(!twice.status.success() && said(&twice).contains("already"), "{}", said(&twice));
    // With the password, later.
    let mut later = Visitor::new(&world);
    let csrf = later.csrf("/login").await;
    let (status, place, page) = later
        .post("/login", &[("csrf", &csrf), ("email", "grace@example.com"), ("password", "correct horse battery")])
        .await;
    assert_eq!((status, &*place), (303, "/account"), "{page}");
}
