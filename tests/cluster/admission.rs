//! Limits on signups, and leads of people who are not customers yet.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::support::{PASSWORD, Visitor, World, folder, said};

const PASSES: &str = "1x0000000000000000000000000000000AA";

async fn start(name: &str, settings: &[(&str, &str)]) -> World {
    let mut world = World::start(name).await;
    for (name, value) in settings {
        world.environment(name, value);
    }
    let captcha = format!("{}/captcha/siteverify", world.sandbox.url);
    world.environment("CAPTCHA_URL", &captcha);
    world.start_web(&[]);
    world
}

async fn signup(world: &World, email: &str, captcha: &str) -> (u16, Value) {
    let form = json!({"email": email, "company_name": "Acme", "password": PASSWORD, "accept_terms": true, "captcha_token": captcha});
    let answer = world.http.post(format!("{}/signup", world.web)).json(&form).send().await.expect("it answers");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

fn captcha(secret: &str) -> [(&str, &str); 3] {
    [
        ("CAPTCHA_PROVIDER", "turnstile"),
        ("CAPTCHA_SITE_KEY", "1x00000000000000000000AA"),
        ("CAPTCHA_SECRET_KEY", secret),
    ]
}

#[tokio::test]
async fn a_captcha_refuses_signups_without_an_answer() {
    let world = start("captcha", &captcha(PASSES)).await;
    for token in ["", &"x".repeat(10_000)] {
        let (status, refusal) = signup(&world, "ada@example.com", token).await;
        assert_eq!((status, &refusal["code"]), (400, &json!("captcha")));
    }
    assert!(
        world.secrets().list(&Default::default()).await.expect("listed").items.iter().all(|s| !s
            .metadata
            .name
            .as_deref()
            .unwrap_or_default()
            .ends_with("-login"))
    );
    assert_eq!(signup(&world, "ada@example.com", "answered").await.0, 201);
    let answer =
        world.http.get(format!("{}/signup", world.web)).header("accept", "text/html").send().await.expect("it answers");
    let policy = answer.headers()["content-security-policy"].to_str().expect("text").to_owned();
    let page = answer.text().await.expect("text");
    assert!(page.contains("class=\"cf-turnstile\" data-sitekey=\"1x00000000000000000000AA\""), "{page}");
    assert!(
        policy.contains("script-src 'self' https://challenges.cloudflare.com;")
            && policy.contains("frame-src https://challenges"),
        "{policy}"
    );
    let other = world.http.get(format!("{}/login", world.web)).send().await.expect("it answers");
    assert!(
        !other.headers()["content-security-policy"].to_str().expect("text").contains("cloudflare"),
        "no other page may"
    );
    let mut visitor = Visitor::new(&world);
    let csrf = visitor.csrf("/signup").await;
    let fields = [
        ("csrf", &*csrf),
        ("email", "bob@example.com"),
        ("company_name", "Bob"),
        ("password", PASSWORD),
        ("accept_terms", "on"),
    ];
    let (status, _, page) = visitor.post("/signup", &fields).await;
    assert!(status == 400 && page.contains("solve the captcha") && page.contains("bob@example.com"), "{status} {page}");
    let with: Vec<_> = fields.into_iter().chain([("cf-turnstile-response", "answered by bob")]).collect();
    assert_eq!(visitor.post("/signup", &with).await.0, 303);
}

/// Turnstile verifies an answer once and for 300 s. A verdict that is lost on the way is asked for again, and the
/// person stays a person.
#[tokio::test]
async fn a_lost_verdict_turns_no_person_away() {
    let world = start("captchalost", &captcha(PASSES)).await;
    let lost = json!({"provider": "captcha", "drop_after_effect": true, "times": 1});
    world.fault(lost).await;
    assert_eq!(signup(&world, "ada@example.com", "a token").await.0, 201);
    let (status, refusal) = signup(&world, "eve@example.com", "a token").await;
    assert_eq!((status, &refusal["code"]), (400, &json!("captcha")), "an answer is good for one form");
    let trouble = json!({"success": false, "error-codes": ["internal-error"]}).to_string();
    world.fault(json!({"provider": "captcha", "status": 200, "body": trouble, "times": 1})).await;
    assert_eq!(signup(&world, "bob@example.com", "another token").await.0, 201);
    let now = tenant_operator::api::Timestamp::now().as_second();
    let old = format!("a token@{}", now - 301);
    assert_eq!(signup(&world, "eve@example.com", &old).await.0, 400, "given too long ago");
    assert_eq!(signup(&world, "eve@example.com", &format!("a token@{now}")).await.0, 201);
}

#[tokio::test]
async fn a_captcha_that_says_no_a_wrong_key_and_a_provider_that_is_away() {
    let says_no = start("captchano", &captcha("2x0000000000000000000000000000000AA")).await;
    assert_eq!(signup(&says_no, "ada@example.com", "answered").await.1["code"], "captcha");
    let wrong = start("captchakey", &captcha("nonsense")).await;
    assert_eq!(signup(&wrong, "ada@example.com", "answered").await.0, 503, "our own mistake is not the customer's");
    let mut away = World::start("captchaaway").await;
    for (name, value) in captcha(PASSES).into_iter().chain([("CAPTCHA_URL", "http://127.0.0.1:1/siteverify")]) {
        away.environment(name, value);
    }
    away.start_web(&[]);
    assert_eq!(signup(&away, "ada@example.com", "answered").await.0, 503);
    let mut incomplete = away.command("web");
    let output = incomplete.env("CAPTCHA_SECRET_KEY", "").env("WEB_LISTEN", "127.0.0.1:0").output().expect("it runs");
    assert!(
        !output.status.success() && said(&output).contains("set CAPTCHA_SITE_KEY and CAPTCHA_SECRET_KEY"),
        "{}",
        said(&output)
    );
}

#[tokio::test]
async fn disposable_addresses_are_refused_by_the_operators_list() {
    let file = folder("domains.txt");
    std::fs::write(&file, "# throwaway\nmailinator.com\n").expect("written");
    let world = start("disposable", &[("DISPOSABLE_DOMAINS", file.to_str().expect("a path"))]).await;
    let (status, refusal) = signup(&world, "ada@eu.Mailinator.com", "").await;
    assert!(
        status == 400 && refusal["fields"]["email"].as_str().is_some_and(|why| why.contains("disposable")),
        "{refusal}"
    );
    assert_eq!(signup(&world, "ada@example.com", "").await.0, 201);
    std::fs::write(&file, "not a domain\n").expect("written");
    let output = world.command("web").env("WEB_LISTEN", "127.0.0.1:0").output().expect("it runs");
    assert!(!output.status.success() && said(&output).contains("line 1 is not a domain"), "{}", said(&output));
}

async fn write(visitor: &mut Visitor<'_>, page: &str, fields: &[(&str, &str)]) -> (u16, String) {
    let csrf = visitor.csrf(page).await;
    let fields: Vec<_> = [("csrf", &*csrf)].into_iter().chain(fields.iter().copied()).collect();
    let (status, _, text) = visitor.post(page, &fields).await;
    (status, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_the_sales_team_is_kept_and_the_team_gets_an_alert() {
    let world = start("sales", &[]).await;
    let mut ada = Visitor::new(&world);
    let huge = "x".repeat(2001);
    for (field, value) in
        [("email", "nonsense"), ("company_name", " "), ("text", ""), ("text", &*huge), ("company_name", "a\u{202e}b")]
    {
        let fields: Vec<_> = [("email", "ada@example.com"), ("company_name", "Acme"), ("text", "Hello")]
            .map(|(name, usual)| (name, if name == field { value } else { usual }))
            .into();
        let (status, page) = write(&mut ada, "/sales", &fields).await;
        assert!(status == 400 && page.contains(&format!("id=\"{field}-error\"")), "{field}: {status} {page}");
    }
    let text = "<b>500 seats</b>\nand \u{1b}[2J single sign-on";
    let clean = text.replace('\u{1b}', "");
    let fields =
        [("email", "ada@example.com"), ("company_name", "Acme <i>"), ("text", &*clean), ("plan", "enterprise")];
    let (status, page) = write(&mut ada, "/sales", &fields).await;
    assert!(status == 200 && page.contains("Our team writes to you"), "{status} {page}");
    // Again, as people do who are not sure: one lead, the later words.
    assert_eq!(
        write(&mut ada, "/sales", &[("email", "ADA@example.com"), ("company_name", "Acme"), ("text", "Hello?")])
            .await
            .0,
        200
    );
    let (status, _, _) = Visitor::new(&world).post("/sales", &fields).await;
    assert_eq!(status, 403, "another site's form");
    let leads = tokio::task::block_in_place(|| {
        world.command("leads").args(["--namespace", &world.namespace, "-o", "json"]).output()
    });
    let leads: Value = serde_json::from_slice(&leads.expect("it runs").stdout).expect("JSON");
    assert_eq!(leads.as_array().map(Vec::len), Some(1), "{leads}");
    assert_eq!(
        (&leads[0]["kind"], &leads[0]["text"], &leads[0]["email"]),
        (&json!("sales"), &json!("Hello?"), &json!("ADA@example.com"))
    );
    let alerts = world.sandbox_get("/_sandbox/alerts").await;
    let told = alerts
        .as_array()
        .into_iter()
        .flatten()
        .filter(|a| a["text"].as_str().is_some_and(|t| t.contains("sales team")))
        .count();
    assert_eq!(told, 1, "{alerts}");
    assert!(world.tenants().list(&Default::default()).await.expect("listed").items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_who_were_admitted_sign_up_while_there_is_a_waitlist() {
    let mut world = World::without_controller("waitlist").await;
    world.environment("WAITLIST", "true");
    // Leads are looked at every ten seconds.
    world.controller_args(&["--lead-ttl=40"]);
    world.start_controller();
    world.start_web(&[]);
    let (status, refusal) = signup(&world, "ada@example.com", "").await;
    assert_eq!((status, &refusal["code"]), (403, &json!("waitlist")));
    let mut ada = Visitor::new(&world);
    let (_, page) = ada.get("/signup").await;
    assert!(page.contains("Join the waitlist"), "{page}");
    let (status, page) =
        write(&mut ada, "/waitlist", &[("email", "ada@example.com"), ("text", "Support answers")]).await;
    assert!(status == 200 && page.contains("You are on the waitlist"), "{status} {page}");
    assert_eq!(signup(&world, "ada@example.com", "").await.0, 403, "to wait is not to be admitted");
    let admit = |email: &str| {
        tokio::task::block_in_place(|| world.command("admit").args([email, "--namespace", &world.namespace]).output())
            .expect("it runs")
    };
    let unknown = admit("bob@example.com");
    assert!(!unknown.status.success() && said(&unknown).contains("is not on the waitlist"), "{}", said(&unknown));
    let admitted = admit("Ada@Example.com");
    assert!(admitted.status.success() && said(&admitted).contains("may sign up now"), "{}", said(&admitted));
    assert!(ada.get("/signup?admitted=true").await.1.contains("Create your account"));
    assert_eq!(signup(&world, "bob@example.com", "").await.0, 403);
    assert_eq!(signup(&world, "ada@example.com", "").await.0, 201);
    // The page promised an e-mail. It comes once, and once more when an admin asks again.
    let links = world.mail_links("ada@example.com", "You can sign up").await;
    assert!(links.iter().any(|link| link.ends_with("/signup?admitted=true")), "{links:?}");
    let noted = async || leads(&world).await[0].annotations()["tenant-operator.dev/admission-mail"] == "sent";
    world.until("it is noted", noted).await;
    let sent = async || {
        let mails = world.sandbox_get("/_sandbox/mails").await;
        let ours = |m: &&Value| m["subject"].as_str().is_some_and(|s| s.starts_with("You can sign up"));
        mails.as_array().into_iter().flatten().filter(ours).count()
    };
    // Longer than the ten seconds between two passes: nothing shows that a pass had nothing to send.
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    assert_eq!(sent().await, 1, "another pass sends nothing");
    admit("ada@example.com");
    world.until("the second e-mail is sent", async || sent().await == 2).await;
}

/// Strangers fill neither the cluster nor the team's channel with leads.
#[tokio::test]
async fn so_many_leads_are_kept_in_a_day() {
    let world = start("manyleads", &[("LEADS_PER_DAY", "2"), ("SALES_REPLY", "by tomorrow")]).await;
    let mut visitor = Visitor::new(&world);
    let mut ask = async |email: &str| {
        write(&mut visitor, "/sales", &[("email", email), ("company_name", "Acme"), ("text", "Hello")]).await
    };
    for email in ["a@example.com", "b@example.com", "a@example.com"] {
        let (status, page) = ask(email).await;
        assert!(status == 200 && page.contains("by tomorrow"), "{status} {page}");
    }
    assert_eq!(ask("c@example.com").await.0, 429);
    let leads = world.secrets().list(&Default::default()).await.expect("listed").items;
    let kept = leads.iter().filter(|s| s.metadata.name.as_deref().is_some_and(|n| n.starts_with("lead-")));
    assert_eq!(kept.count(), 2);
}

/// The Secrets with leads.
async fn leads(world: &World) -> Vec<Secret> {
    let only = ListParams::default().labels("app.kubernetes.io/component=lead");
    world.secrets().list(&only).await.expect("listed").items
}

/// A lead is deleted after its time, unless it was written again or admitted since then. Above the limit, new ones are
/// refused.
#[tokio::test(flavor = "multi_thread")]
async fn leads_expire_and_only_so_many_exist_at_once() {
    let mut world = World::without_controller("leadslimit").await;
    world.environment("LEADS_LIMIT", "2");
    world.start_controller();
    world.start_web(&[]);
    let ask = async |world: &World, email: &str| {
        let mut visitor = Visitor::new(world);
        write(&mut visitor, "/sales", &[("email", email), ("company_name", "Acme"), ("text", "Hello")]).await
    };
    for email in ["old@example.com", "again@example.com"] {
        assert_eq!(ask(&world, email).await.0, 200, "{email}");
    }
    let count = async |world: &World| {
        let counts: Api<ConfigMap> = Api::namespaced(world.client.clone(), &world.namespace);
        let map = counts.get_opt("tenant-operator-leads").await.expect("the API answers");
        map.and_then(|map| map.data).and_then(|data| data.get("count").cloned())
    };
    // A controller counts when it begins to lead, and then once a minute.
    world.replace_controller();
    world.until("both are counted", async || count(&world).await.as_deref() == Some("2")).await;
    let (status, page) = ask(&world, "more@example.com").await;
    assert!(status == 503 && page.contains("more messages than we can answer"), "{status} {page}");
    assert_eq!(ask(&world, "again@example.com").await.0, 200, "the limit is one of new leads");
    assert_eq!(leads(&world).await.len(), 2, "none has expired");

    // One is admitted later; the other has had its time.
    let later = tenant_operator::api::Timestamp::now().plus(3600);
    let admitted = Patch::Merge(json!({"metadata": {"annotations": {"tenant-operator.dev/admitted": later}}}));
    for lead in leads(&world).await {
        if lead.data.as_ref().is_some_and(|data| data["email"].0 == b"again@example.com") {
            world.secrets().patch(&lead.name_any(), &PatchParams::default(), &admitted).await.expect("patched");
        }
    }
    world.controller_args(&["--lead-ttl=3"]);
    world.replace_controller();
    world.until("the old one is deleted", async || leads(&world).await.len() == 1).await;
    world.until("web is told", async || count(&world).await.as_deref() == Some("1")).await;
    let left = leads(&world).await;
    assert_eq!(left[0].data.as_ref().expect("data")["email"].0, b"again@example.com");
    assert_eq!(ask(&world, "more@example.com").await.0, 200, "there is room again");
}
