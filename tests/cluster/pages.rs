//! The pages under attack; how they look and work is judged by a browser in `tests/browser`.

use serde_json::json;
use tenant_operator::api::Phase;

use crate::support::{PASSWORD, Visitor, World, status_of_question};

async fn start(name: &str) -> World {
    let mut world = World::start(name).await;
    world.start_web(&[]);
    world
}

#[tokio::test]
async fn a_form_of_another_site_changes_nothing() {
    let world = start("csrf").await;
    let fields =
        [("email", "ada@example.com"), ("company_name", "Acme"), ("password", PASSWORD), ("accept_terms", "on")];
    let mut stranger = Visitor::new(&world);
    // Without a token, with a made-up one, and with that of another visitor.
    let (status, _, page) = stranger.post("/signup", &fields).await;
    assert!(status == 403 && page.contains("reload it"), "{status} {page}");
    let foreign = Visitor::new(&world).csrf("/signup").await;
    stranger.get("/pricing").await;
    for token in ["x", &foreign] {
        let with: Vec<_> = fields.iter().copied().chain([("csrf", token)]).collect();
        assert_eq!(stranger.post("/signup", &with).await.0, 403);
    }
    assert!(world.tenants().list(&Default::default()).await.expect("listed").items.is_empty());

    let mut ada = Visitor::new(&world);
    let name = ada.sign_up("ada@example.com", "Acme").await;
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Active).await;
    let sessions = world.sandbox_get("/_sandbox/pinecone").await;
    for (path, fields) in [
        ("/account/ask", vec![("question", "What is RAG?")]),
        ("/account/key", vec![]),
        ("/account/documents/policy", vec![]),
        ("/logout", vec![]),
    ] {
        assert_eq!(ada.post(path, &fields).await.0, 403, "{path}");
    }
    assert_eq!(world.sandbox_get("/_sandbox/pinecone").await, sessions);
    assert_eq!(ada.get("/account").await.0, 200, "still logged in");
}

#[tokio::test]
async fn a_session_opens_one_account_and_cannot_be_made_up() {
    let world = start("session").await;
    let (mut ada, mut bob) = (Visitor::new(&world), Visitor::new(&world));
    let name = ada.sign_up("ada@example.com", "Ada Ltd").await;
    bob.sign_up("bob@example.com", "Bob Ltd").await;
    let (_, page) = ada.get("/account").await;
    assert!(page.contains("Ada Ltd") && !page.contains("Bob Ltd"), "{page}");
    let of =
        |visitor: &Visitor| visitor.cookies.iter().find(|(name, _)| name == "session").expect("a session").1.clone();
    let (own, foreign) = (of(&ada), of(&bob));
    let mixed = format!("{}.{}", own.rsplit_once('.').expect("parts").0, foreign.rsplit_once('.').expect("parts").1);
    let mut parts: Vec<_> = own.split('.').collect();
    parts[2] = "99999999999";
    for made_up in [mixed, parts.join("."), String::new(), "a.b.c.d".into(), "x".repeat(5000)] {
        let mut visitor = Visitor::new(&world);
        visitor.cookies = vec![("session".into(), made_up.clone())];
        let (status, page) = visitor.get("/account").await;
        assert!(status == 303 && !page.contains("Ltd"), "{made_up}: {status}");
    }
    // A session ends with its object. It does not open a new object of the same name.
    world.erase(&name).await;
    world.wait_gone(&name).await;
    assert_eq!(ada.get("/account").await.0, 303);
}

/// Another application of the domain sets cookies of the same names, which the browser sends first.
#[tokio::test]
async fn cookies_of_another_application_lock_no_customer_out() {
    let mut world = start("cookies").await;
    let mut ada = Visitor::new(&world);
    ada.sign_up("ada@example.com", "Ada Ltd").await;
    let foreign = [("session", "of another application"), ("visitor", "0123456789abcdef0123456789abcdef")];
    ada.cookies = foreign.map(|(name, value)| (name.into(), value.into())).into_iter().chain(ada.cookies).collect();
    let (status, page) = ada.get("/account").await;
    assert!(status == 200 && page.contains("Ada Ltd"), "{status} {page}");
    let csrf = ada.csrf("/account").await;
    assert_eq!(ada.post("/account/verify-email", &[("csrf", &csrf)]).await.0, 303, "forms work as well");
    // A visitor's number that another site has planted is of no use with the form's token of a stranger.
    let mut stranger = Visitor::new(&world);
    stranger.cookies = vec![("visitor".into(), foreign[1].1.into())];
    let planted = stranger.csrf("/login").await;
    assert_eq!(ada.post("/account/verify-email", &[("csrf", &planted)]).await.0, 403);
    // Under TLS, no other application can set them at all.
    world.environment("FRONTEND_URL", "https://app.example.com");
    world.start_web(&[]);
    let url = format!("{}/login", world.web);
    let answer = world.http.get(url).header("accept", "text/html").send().await.expect("it answers");
    let cookie = answer.headers()["set-cookie"].to_str().expect("text").to_owned();
    assert!(
        cookie.starts_with("__Host-visitor=") && cookie.contains("; Secure") && cookie.contains("Path=/;"),
        "{cookie}"
    );
    assert!(!cookie.contains("Domain"), "{cookie}");
}

/// Two clicks on one page replace the key once: a key that is replaced twice is refused at once.
#[tokio::test]
async fn a_key_is_replaced_once_for_each_page_that_showed_it() {
    let world = start("twice").await;
    let mut ada = Visitor::new(&world);
    let name = ada.sign_up("ada@example.com", "Ada Ltd").await;
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Active).await;
    let key = world.api_key(&name).await;
    let csrf = ada.csrf("/account").await;
    let fields = [("csrf", csrf.as_str()), ("generation", "1")];
    for _ in 0..2 {
        assert_eq!(ada.post("/account/key/replace", &fields).await.0, 303);
    }
    assert_eq!(ada.post("/account/key/replace", &[fields[0], ("generation", "")]).await.0, 422);
    let tenant = world.tenants().get(&name).await.expect("there");
    assert_eq!(tenant.spec.api_key_generation, 2);
    world.until("the key before is good", async || status_of_question(&world, &key).await == 200).await;
    // From a page that shows the new one, it is replaced again.
    let csrf = ada.csrf("/account").await;
    assert_eq!(ada.post("/account/key/replace", &[("csrf", &csrf)]).await.0, 303);
    assert_eq!(world.tenants().get(&name).await.expect("there").spec.api_key_generation, 3);
}

/// Two clicks at the same moment, or two windows, change once: what a form showed is compared with the very object that
/// is written.
#[tokio::test]
async fn of_two_forms_that_are_sent_at_once_one_changes_the_settings() {
    let world = start("clicks").await;
    let mut ada = Visitor::new(&world);
    let name = ada.sign_up("ada@example.com", "Ada Ltd").await;
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Active).await;
    for round in 0..5 {
        let csrf = ada.csrf("/settings/advanced").await;
        let seen = serde_json::json!(world.tenants().get(&name).await.expect("there").spec.settings).to_string();
        let save = |max: u32| {
            let fields = [
                ("csrf", csrf.clone()),
                ("seen", seen.clone()),
                ("chunking", "custom".into()),
                ("max_characters", max.to_string()),
                ("overlap_characters", "50".into()),
            ];
            ada.request(reqwest::Method::POST, "/settings/advanced").form(&fields).send()
        };
        let answers = futures::future::join_all((0..6).map(|i| save(500 + 10 * round + i))).await;
        let statuses: Vec<_> = answers.into_iter().map(|a| a.expect("it answers").status().as_u16()).collect();
        let saved = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(saved, 1, "{statuses:?}");
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }
}

/// A form that was shown before something changed does not undo the change.
#[tokio::test]
async fn a_form_from_before_a_change_changes_nothing() {
    let world = start("stale").await;
    let mut ada = Visitor::new(&world);
    let name = ada.sign_up("ada@example.com", "Ada Ltd").await;
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Active).await;
    let csrf = ada.csrf("/settings/advanced").await;
    let custom =
        [("csrf", csrf.as_str()), ("chunking", "custom"), ("max_characters", "500"), ("overlap_characters", "50")];
    let old = [("csrf", csrf.as_str()), ("chunking", "auto"), ("seen", "{}")];
    assert_eq!(ada.post("/settings/advanced", &custom).await.0, 200);
    let (status, _, page) = ada.post("/settings/advanced", &old).await;
    assert!(status == 409 && page.contains("have changed"), "{status} {page}");
    let settings = world.tenants().get(&name).await.expect("there").spec.settings;
    assert_eq!(settings.chunking.map(|c| c.max_characters), Some(500));
    // The plan.
    let (status, _, page) =
        ada.post("/account/plan", &[("csrf", &csrf), ("plan", "pro"), ("seen", "large large")]).await;
    assert!(status == 409 && page.contains("Your plan has changed"), "{status} {page}");
    // The end of the account: sent again after the account was taken back, it ends nothing.
    let csrf = ada.csrf("/account/close").await;
    assert_eq!(ada.post("/account/close", &[("csrf", &csrf)]).await.0, 303);
    world.wait_phase(&name, Phase::Deleting).await;
    ada.get("/account").await;
    assert_eq!(ada.post("/account/reactivate", &[("csrf", &csrf)]).await.0, 303);
    world.wait_phase(&name, Phase::Active).await;
    assert_eq!(ada.post("/account/close", &[("csrf", &csrf), ("seen", "")]).await.0, 303);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(world.status(&name).await.phase, Some(Phase::Active));
}

#[tokio::test]
async fn input_is_shown_as_text_and_nonsense_is_refused() {
    let world = start("markup").await;
    let mut visitor = Visitor::new(&world);
    let hostile = "<script>alert(1)</script>\"'><b>";
    visitor.sign_up("mallory@example.com", hostile).await;
    let (_, page) = visitor.get("/account").await;
    assert!(page.contains("&lt;script&gt;") && !page.contains("<script>alert"), "{page}");
    for path in [
        "/signup?plan=%22%3E%3Cscript%3Ealert(1)%3C/script%3E",
        "/assets/..%2f..%2fetc%2fpasswd",
        "/onboarding/success?session_id=%0d%0aX: y",
    ] {
        let (status, page) = visitor.get(path).await;
        assert!(matches!(status, 200 | 303 | 404) && !page.contains("<script>alert"), "{path}: {status} {page}");
    }
    let csrf = visitor.csrf("/signup").await;
    let long = "x".repeat(15_000);
    for (email, company, password) in [
        ("", "", ""),
        (&*long, &*long, &*long),
        ("企業@例え.テスト", "企業", "12345678"),
        ("a\0b@example.com", "a\u{202e}b", PASSWORD),
    ] {
        let fields = [("csrf", &*csrf), ("email", email), ("company_name", company), ("password", password)];
        let (status, _, page) = visitor.post("/signup", &fields).await;
        assert!((400..500).contains(&status) && page.contains("<html"), "{status}");
    }
    // The answer does not tell which addresses have an account.
    let csrf = visitor.csrf("/login").await;
    for email in ["mallory@example.com", "nobody@example.com", "nonsense"] {
        let (status, _, page) =
            visitor.post("/login", &[("csrf", &csrf), ("email", email), ("password", "wrong password")]).await;
        assert!(status == 401 && page.contains("The e-mail address or the password is wrong."), "{status}");
    }
}

#[tokio::test]
async fn a_question_while_openai_is_down_stays_on_the_page() {
    let world = start("down").await;
    let mut ada = Visitor::new(&world);
    let name = ada.sign_up("ada@example.com", "Acme").await;
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Active).await;
    world.fault(json!({"provider": "openai", "status": 400, "times": 2})).await;
    let csrf = ada.csrf("/account").await;
    let question = "How much is <b>too much</b>?";
    let (status, _, page) = ada.post("/account/ask", &[("csrf", &csrf), ("question", question)]).await;
    assert!(status == 502 && page.contains("How much is &lt;b&gt;too much&lt;&#x2f;b&gt;?"), "{status} {page}");
    assert!(page.contains("could not be found at the moment"), "{page}");
    world.clear_faults().await;
    let (status, _, page) = ada.post("/account/ask", &[("csrf", &csrf), ("question", "What is RAG?")]).await;
    assert!(status == 200 && page.contains("retrieval-augmented"), "{status} {page}");
    // Its milestones are noted once.
    let tenant = world.tenants().get(&name).await.expect("it is there");
    let reached = |m: &str| {
        tenant
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|a| a.contains_key(&format!("tenant-operator.dev/reached-{m}")))
    };
    assert!(reached("first-login") && reached("sample-query") && !reached("own-query"));
}

/// The setup by its API: it is complete when its steps are done, and not before.
#[tokio::test]
async fn the_setup_is_complete_when_its_steps_are_done() {
    let world = start("setup").await;
    let form = json!({"email": "ada@example.com", "company_name": "Acme", "password": PASSWORD, "accept_terms": true, "marketing_opt_in": true});
    let answer = world.http.post(format!("{}/signup", world.web)).json(&form).send().await.expect("it answers");
    let answer: serde_json::Value = answer.json().await.expect("JSON");
    let (id, token) = (answer["tenant_id"].as_str().expect("an id"), answer["token"].as_str().expect("a token"));
    let name = token.split('.').next().expect("a name");
    let audit = world.tenants().get(name).await.expect("it is there").metadata.annotations.expect("annotations");
    let audit: serde_json::Value = serde_json::from_str(&audit["tenant-operator.dev/signup"]).expect("JSON");
    assert!(audit["marketing"] == true && audit["terms"].is_string() && audit["at"].is_string(), "{audit}");
    world.pay(name).await;
    world.wait_phase(name, Phase::Active).await;
    let url = |path: &str| format!("{}/tenant/{id}/setup{path}", world.web);
    let setup = async || {
        let answer = world.http.get(url("")).bearer_auth(token).send().await.expect("it answers");
        answer.json::<serde_json::Value>().await.expect("JSON")
    };
    let first = setup().await;
    assert_eq!((&first["completion_percentage"], &first["next_step"]), (&json!(0), &json!("sample-query")));
    let asked =
        world.http.post(url("/sample-query")).bearer_auth(token).json(&json!({})).send().await.expect("it answers");
    assert_eq!(asked.status(), 200);
    let second = setup().await;
    assert_eq!((&second["completion_percentage"], &second["next_step"]), (&json!(33), &json!("first-document")));
    let refused = world.http.post(url("/complete")).bearer_auth(token).send().await.expect("it answers");
    assert_eq!(refused.status(), 400);
    let refused: serde_json::Value = refused.json().await.expect("JSON");
    assert_eq!(refused["detail"], "complete all setup steps first");
    for milestone in ["first-document", "own-query"] {
        world.annotate(name, &format!("tenant-operator.dev/reached-{milestone}"), "2026-01-01T00:00:00Z").await;
    }
    let done = world.http.post(url("/complete")).bearer_auth(token).send().await.expect("it answers");
    assert_eq!(done.status(), 200);
    assert!(setup().await["completed_at"].is_string());
}

#[tokio::test]
async fn a_browser_that_is_refused_gets_a_page_and_a_program_a_problem() {
    let world = start("refused").await;
    let ada = Visitor::new(&world);
    let long = "x".repeat(70_000);
    for (path, body, status, says) in [
        ("/nothing-here", None, 404, "There is nothing at this address."),
        ("/signup", Some(&*long), 413, "What you sent is too large."),
        ("/pricing", Some("x=y"), 405, "The form could not be read."),
    ] {
        let method = if body.is_some() { reqwest::Method::POST } else { reqwest::Method::GET };
        let form = |request: reqwest::RequestBuilder| {
            request
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body.unwrap_or_default().to_owned())
        };
        let page = form(ada.request(method.clone(), path)).send().await.expect("it answers");
        assert_eq!(page.status(), status, "{path}");
        assert!(page.headers()["content-type"].to_str().expect("text").starts_with("text/html"), "{path}");
        assert!(page.headers().contains_key("content-security-policy"), "{path}");
        let text = page.text().await.expect("text");
        assert!(text.contains(says) && text.contains("</html>"), "{path}: {text}");
        let plain = form(world.http.request(method, format!("{}{path}", world.web))).send().await.expect("it answers");
        assert_eq!(plain.status(), status, "{path}");
        assert_eq!(plain.headers()["content-type"], "application/problem+json", "{path}");
    }
}
