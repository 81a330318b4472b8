//! Links in e-mails: confirming an address, logging in, a new password, and no more tips. As a customer, and as
//! everybody who would like to be one.

use std::time::Duration;

use serde_json::{Value, json};
use tenant_operator::api::{LinkKind, MailRequest, Phase, Tenant, Timestamp};
use tenant_operator::operator_keys::IdentityKey;

use crate::support::{PASSWORD, Visitor, World, said};

const ADA: &str = "ada@example.com";
const FRONTEND: &str = "http://localhost:8080";

async fn start(name: &str, controller: &[&str]) -> World {
    start_with(name, controller, &[]).await
}

async fn start_with(name: &str, controller: &[&str], web: &[&str]) -> World {
    let mut world = World::without_controller(name).await;
    world.controller_args(&["--email-verification=beforeProvisioning"]);
    world.controller_args(controller);
    world.start_controller();
    world.start_web(web);
    world
}

/// The path of the link in the last such e-mail.
async fn path(world: &World, to: &str, subject: &str) -> String {
    let links = world.mail_links(to, subject).await;
    let link = links.first().unwrap_or_else(|| panic!("no link in {subject}"));
    link.strip_prefix(FRONTEND).unwrap_or_else(|| panic!("{link}")).to_owned()
}

fn token(path: &str) -> &str {
    path.split_once("?token=").expect("a token").1
}

/// Opens a page with a button, and presses it.
async fn press(visitor: &mut Visitor<'_>, path: &str, more: &[(&str, &str)]) -> (u16, String, String) {
    let csrf = visitor.csrf(path).await;
    let fields: Vec<_> = [("csrf", &*csrf), ("token", token(path))].into_iter().chain(more.iter().copied()).collect();
    visitor.post(path.split('?').next().expect("a path"), &fields).await
}

/// Asks for a link on a page with a field for the address.
async fn ask(visitor: &mut Visitor<'_>, page: &str, email: &str) -> (u16, String) {
    let csrf = visitor.csrf(page).await;
    let (status, _, text) = visitor.post(page, &[("csrf", &csrf), ("email", email)]).await;
    (status, text.replace(&csrf, ""))
}

async fn json_signup(world: &World, email: &str) -> (u16, Value) {
    let form =
        json!({"email": email, "company_name": "Acme", "password": PASSWORD, "plan": "paid", "accept_terms": true});
    let answer = world.http.post(format!("{}/signup", world.web)).json(&form).send().await.expect("it answers");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

async fn confirm(world: &World, token: &str) -> u16 {
    let url = format!("{}/verify-email", world.web);
    world.http.post(url).json(&json!({"token": token})).send().await.expect("it answers").status().as_u16()
}

async fn tenant(world: &World, name: &str) -> Tenant {
    world.tenants().get(name).await.expect("it is there")
}

fn annotation(tenant: &Tenant, name: &str) -> Option<String> {
    tenant.metadata.annotations.as_ref()?.get(&format!("tenant-operator.dev/{name}")).cloned()
}

#[tokio::test]
async fn nothing_is_set_up_before_the_address_is_confirmed() {
    let world = start("confirm", &[]).await;
    let mut ada = Visitor::new(&world);
    let name = ada.sign_up(ADA, "Acme").await;
    world.pay(&name).await;
    let paid =
        |s: &tenant_operator::api::TenantStatus| s.message.as_deref().is_some_and(|m| m.starts_with("Paid; waiting"));
    world.wait(&name, "paid", paid).await;
    let (_, page) = ada.get("/account").await;
    assert!(page.contains(ADA) && page.contains("Send it again") && page.contains("Please confirm"), "{page}");
    assert_eq!(world.sandbox_get("/_sandbox/pinecone").await["created"], 0, "no namespace for a stranger's address");

    // A program that looks through e-mails opens every link, and has no session.
    let link = path(&world, ADA, "Confirm your e-mail").await;
    let mut scanner = Visitor::new(&world);
    assert_eq!(scanner.get(&link).await.0, 200);
    assert_eq!(annotation(&tenant(&world, &name).await, "verified-address"), None);
    // The customer's own browser needs no second click.
    let (status, _) = ada.get(&link).await;
    assert_eq!(status, 303);
    world.wait_phase(&name, Phase::Active).await;
    world.assert_one_of_each(&name).await;
    assert_eq!(world.mails("verify-email").await, 1);
    let made = tenant(&world, &name).await;
    assert!(annotation(&made, "reached-email-verified").is_some());
    let sent = annotation(&made, "sent").expect("notes");
    assert!(sent.contains("verify-email."), "{sent}");
    // A second use of the link changes nothing and creates no session.
    let (status, _, text) = press(&mut scanner, &link, &[]).await;
    assert!(status == 200 && text.contains("Log in to continue"), "{status} {text}");
    assert!(scanner.cookies.iter().all(|(name, _)| name != "session"));
    assert_eq!(
        annotation(&tenant(&world, &name).await, "reached-email-verified"),
        annotation(&made, "reached-email-verified")
    );
}

#[tokio::test]
async fn before_the_payment_the_link_to_pay_follows_the_confirmation() {
    let world = start("prepay", &["--email-verification=beforePayment"]).await;
    let (status, signup) = json_signup(&world, ADA).await;
    assert_eq!(status, 202, "{signup}");
    assert!(
        signup["checkout_url"].is_null() && signup["message"].as_str().is_some_and(|m| m.contains("e-mail")),
        "{signup}"
    );
    let name = signup["token"].as_str().and_then(|t| t.split('.').next()).expect("a name").to_owned();
    let state = world.sandbox_get("/_sandbox/state").await;
    assert!(state["customer"].as_array().is_none_or(Vec::is_empty), "nothing is made at Stripe: {state}");
    let link = path(&world, ADA, "Confirm your e-mail").await;
    assert_eq!(confirm(&world, token(&link)).await, 200);
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Active).await;
}

#[tokio::test]
async fn a_confirmation_is_sent_again_when_it_is_asked_for_and_when_the_mail_server_was_away() {
    let world = start("resend", &["--email-verification=beforePayment"]).await;
    world.fault(json!({"provider": "smtp", "method": "DATA", "path": ADA, "status": 451, "times": 3})).await;
    let (_, signup) = json_signup(&world, ADA).await;
    let (id, bearer) = (signup["tenant_id"].as_str().expect("an id"), signup["token"].as_str().expect("a token"));
    path(&world, ADA, "Confirm your e-mail").await;
    let again = async || {
        let url = format!("{}/tenant/{id}/verification-email", world.web);
        world.http.post(url).bearer_auth(bearer).send().await.expect("it answers")
    };
    let answer = again().await;
    assert_eq!(answer.status(), 429, "one was sent a moment ago");
    assert_eq!(answer.headers()["retry-after"], "120");
    // Two minutes later, for all that the service can tell.
    let name = bearer.split('.').next().expect("a name");
    let old = MailRequest { kind: LinkKind::VerifyEmail, at: Timestamp::now().plus(-200) };
    world.annotate(name, "tenant-operator.dev/mail-requests", &old.to_string()).await;
    let identity = IdentityKey::read(&world.client, &world.namespace).await.expect("read").expect("there");
    let link = identity.link(&tenant(&world, name).await, old);
    assert_eq!(confirm(&world, token(&link)).await, 200, "an older link works as well");
    world.wait_true(name, "EmailVerified").await;
    assert_eq!(again().await.status(), 404, "tokens from before the first proof are over");
}

#[tokio::test]
async fn a_link_that_is_old_forged_or_of_another_account_confirms_nothing() {
    let world = start("forged", &[]).await;
    let (_, ada) = json_signup(&world, ADA).await;
    let name = ada["token"].as_str().and_then(|t| t.split('.').next()).expect("a name");
    let real = path(&world, ADA, "Confirm your e-mail").await;
    let real = token(&real);
    let identity = IdentityKey::read(&world.client, &world.namespace).await.expect("read").expect("there");
    let made = tenant(&world, name).await;
    let at = |kind, ago: i64| MailRequest { kind, at: Timestamp::now().plus(-ago) };
    let old = identity.link(&made, at(LinkKind::VerifyEmail, 24 * 3600));
    let other_kind = identity.link(&made, at(LinkKind::LoginLink, 1));
    let mut moved = made.clone();
    moved.spec.admin_email = "eve@example.com".into();
    let other_address = identity.link(&moved, at(LinkKind::VerifyEmail, 1));
    let mut namesake = made.clone();
    namesake.metadata.uid = Some("11111111-2222-3333-4444-555555555555".into());
    let other_object = identity.link(&namesake, at(LinkKind::VerifyEmail, 1));
    let (head, seal) = real.rsplit_once('.').expect("a seal");
    let later = {
        let mut parts: Vec<_> = real.split('.').map(str::to_owned).collect();
        parts[3] = (parts[3].parse::<i64>().expect("a time") + 1).to_string();
        parts.join(".")
    };
    let short = format!("{head}.{}", &seal[..seal.len() - 1]);
    let links = [&old, &other_kind, &other_address, &other_object].map(|link| token(link));
    let broken = ["", ".", "....", "a.b.c.d.e", &later, &short, &"x".repeat(10_000), "t-\u{202e}.1.2.3.4"];
    for token in links.into_iter().chain(broken) {
        let status = confirm(&world, token).await;
        assert_eq!(status, 410, "{}", &token[..token.len().min(200)]);
    }
    let mut visitor = Visitor::new(&world);
    for link in [&*old, "/verify-email?token=x", "/login/link?token=x", "/password/new?token=x"] {
        let (status, page) = visitor.get(link).await;
        assert!(status == 410 && page.contains("Please ask for a new one"), "{link}: {status} {page}");
    }
    assert_eq!(annotation(&tenant(&world, name).await, "verified-address"), None);
    assert_eq!(confirm(&world, real).await, 200, "the real one still does");
}

/// A signup that is confirmed, paid for and Active.
async fn active(world: &World) -> String {
    let name = Visitor::new(world).sign_up(ADA, "Acme").await;
    let link = path(world, ADA, "Confirm your e-mail").await;
    assert_eq!(confirm(world, token(&link)).await, 200);
    world.pay(&name).await;
    world.wait_true(&name, "WelcomeEmailSent").await;
    name
}

#[tokio::test]
async fn a_link_logs_in_once_and_whether_an_address_is_known_is_not_told() {
    let world = start("magic", &[]).await;
    let name = active(&world).await;
    let mut ada = Visitor::new(&world);
    let known = ask(&mut ada, "/login/mail", " ADA@example.com ").await;
    let unknown = ask(&mut Visitor::new(&world), "/login/mail", "nobody@example.com").await;
    let no_address = ask(&mut Visitor::new(&world), "/login/mail", "<nobody>").await;
    assert_eq!(known.0, 200);
    let body = |page: &str| page.split("<main").nth(1).map(str::to_owned);
    assert!(body(&known.1) == body(&unknown.1) && body(&known.1) == body(&no_address.1), "{}", known.1);
    let link = path(&world, ADA, "Log in to").await;
    assert!(link.starts_with("/login/link?token="));
    // However often it is asked for, one e-mail is sent.
    for _ in 0..5 {
        ask(&mut Visitor::new(&world), "/login/mail", ADA).await;
    }
    // Opened by a program, and by the customer in another browser.
    Visitor::new(&world).get(&link).await;
    let mut tablet = Visitor::new(&world);
    let (status, place, _) = press(&mut tablet, &link, &[]).await;
    assert_eq!((status, &*place), (303, "/account"));
    assert!(tablet.get("/account").await.1.contains("Log out"));
    let mut thief = Visitor::new(&world);
    let csrf = thief.csrf("/login/mail").await;
    let (status, _, page) = thief.post("/login/link", &[("csrf", &csrf), ("token", token(&link))]).await;
    assert!(status == 410 && page.contains("it was used"), "{status}");
    assert_eq!(thief.get(&link).await.0, 410);
    assert_eq!((world.mails("login-link").await, world.mails("password-reset").await), (1, 0));
    let sent = annotation(&tenant(&world, &name).await, "sent").expect("notes");
    assert!(!sent.contains("nobody"), "{sent}");
}

#[tokio::test]
async fn a_new_password_ends_old_sessions_and_links_and_the_old_password() {
    let world = start("reset", &[]).await;
    let name = active(&world).await;
    let mut laptop = Visitor::new(&world);
    assert_eq!(laptop.log_in(ADA, PASSWORD).await, 303);
    ask(&mut Visitor::new(&world), "/login/mail", ADA).await;
    ask(&mut Visitor::new(&world), "/password/forgot", ADA).await;
    let (login, link) = (path(&world, ADA, "Log in to").await, path(&world, ADA, "Set a new password").await);
    let mut ada = Visitor::new(&world);
    let (status, _, page) = press(&mut ada, &link, &[("password", "short")]).await;
    assert!(status == 400 && page.contains("8 to 256 characters"), "the link is not used up: {status} {page}");
    // Two who have the link, at the same moment.
    let (mut one, mut two) = (Visitor::new(&world), Visitor::new(&world));
    let (first, second) = tokio::join!(
        press(&mut one, &link, &[("password", "the first new password")]),
        press(&mut two, &link, &[("password", "the second new password")]),
    );
    let mut statuses = [first.0, second.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 410]);
    let (winner, new) =
        if first.0 == 303 { (&mut one, "the first new password") } else { (&mut two, "the second new password") };
    assert!(winner.get("/account").await.1.contains("Log out"), "the browser that set it is logged in");
    let (_, place) = laptop.get_place("/account").await;
    assert_eq!(place, "/login", "every other session is over");
    assert_eq!(Visitor::new(&world).get(&login).await.0, 410, "and so are links from before");
    assert_eq!(Visitor::new(&world).log_in(ADA, PASSWORD).await, 401);
    assert_eq!(Visitor::new(&world).log_in(ADA, new).await, 303);
    let audited = annotation(&tenant(&world, &name).await, "sessions-since");
    assert!(audited.is_some_and(|since| since.parse::<i64>().is_ok()));
}

/// A stranger who knows the address, or has a token, asks for links: the customer's own changes stay possible.
#[tokio::test]
async fn links_that_a_stranger_asks_for_use_up_none_of_the_customers_changes() {
    let world = start_with("spent", &[], &["--signups-per-minute", "1000"]).await;
    let name = active(&world).await;
    let mut ada = Visitor::new(&world);
    assert_eq!(ada.log_in(ADA, PASSWORD).await, 303);
    let csrf = ada.csrf("/settings/advanced").await;
    // The customer has used up the changes of this minute.
    let mut refused = 0;
    for i in 0..40 {
        let max = (500 + i).to_string();
        let seen = json!(world.tenants().get(&name).await.expect("there").spec.settings).to_string();
        let fields = [
            ("csrf", csrf.as_str()),
            ("seen", &seen),
            ("chunking", "custom"),
            ("max_characters", &max),
            ("overlap_characters", "50"),
        ];
        refused += u32::from(ada.post("/settings/advanced", &fields).await.0 == 429);
    }
    assert!(refused > 0, "the limit is reached");
    // A link to log in does not depend on them.
    ask(&mut Visitor::new(&world), "/login/mail", ADA).await;
    path(&world, ADA, "Log in to").await;
}

/// A log-in that is under way when the password changes opens nothing afterwards.
#[tokio::test]
async fn a_log_in_from_before_a_new_password_does_not_outlive_it() {
    let world = start_with("underway", &[], &["--signups-per-minute", "10000"]).await;
    let name = active(&world).await;
    let id = world.tenants().get(&name).await.expect("there").tenant_id().to_owned();
    let moment = || jiff::Timestamp::now().as_millisecond();
    let mut rounds = Vec::new();
    // In milliseconds. With a short lead, a log-in may begin so late that it is one from after the change; with a long
    // one, all end before the change. Which lead is right depends on how fast the machine is.
    for lead in [500, 640, 800, 1000, 1250, 1560, 1950, 2440, 3050, 3810, 4770] {
        let since = (moment() + lead) / 1000 + 1;
        tokio::time::sleep(Duration::from_millis((since * 1000 - lead - moment()).max(0).unsigned_abs())).await;
        // Passwords are compared a few at a time, so that the last of these log-ins end a while later.
        let log_ins = futures::future::join_all((0..64).map(async |_| {
            let (status, token) = api_log_in(&world, PASSWORD).await;
            (status, token, moment())
        }));
        let change = async {
            tokio::time::sleep(Duration::from_millis((lead - 100).unsigned_abs())).await;
            world.annotate(&name, "tenant-operator.dev/sessions-since", &since.to_string()).await;
        };
        let (log_ins, ()) = tokio::join!(log_ins, change);
        let (mut later, mut open) = (0, 0);
        for (_, token, ended) in log_ins.iter().filter(|(status, ..)| *status == 200) {
            // A token that carried the time of its issue instead would be a valid one from this second on.
            later += u32::from(*ended > since * 1000 + 50);
            open += u32::from(call(&world, reqwest::Method::GET, &format!("/tenant/{id}"), token).await == 200);
        }
        rounds.push((later, open));
        if later > 0 && open == 0 {
            return;
        }
    }
    panic!("log-ins from before the new password that ended after it, and those that are still open: {rounds:?}");
}

/// A token that has ended takes nothing from the requests of the tenant's people.
#[tokio::test]
async fn a_token_that_has_ended_does_not_slow_the_customer_down() {
    let world =
        start_with("endedtoken", &[], &["--requests-per-second", "2", "--client-requests-per-second", "10000"]).await;
    let name = active(&world).await;
    let (status, old) = api_log_in(&world, PASSWORD).await;
    assert_eq!(status, 200);
    let there = world.tenants().get(&name).await.expect("there");
    let page = format!("/tenant/{}", there.tenant_id());
    let issued: i64 = old.split('.').nth(3).and_then(|issued| issued.parse().ok()).expect("when it was issued");
    world.annotate(&name, "tenant-operator.dev/sessions-since", &(issued + 1).to_string()).await;
    let (_, new) = api_log_in(&world, PASSWORD).await;
    let statuses = futures::future::join_all((0..30).map(|_| call(&world, reqwest::Method::GET, &page, &old))).await;
    assert!(statuses.iter().all(|status| matches!(status, 404 | 429)), "{statuses:?}");
    assert_eq!(call(&world, reqwest::Method::GET, &page, &new).await, 200);
    // Nor does a link to a download.
    let identity = IdentityKey::read(&world.client, &world.namespace).await.expect("read").expect("there");
    let (uid, address) = (there.metadata.uid.expect("a uid"), identity.email_hash(ADA));
    let (issued, until) = (issued.to_string(), (issued + 3600).to_string());
    let seal = identity.seal("export", &[&name, &uid, &address, &issued, &until]);
    let link = format!("/exports/{name}.{uid}.{address}.{issued}.{until}.{seal}");
    // The customer's own requests are there again.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let statuses = futures::future::join_all((0..30).map(|_| call(&world, reqwest::Method::GET, &link, ""))).await;
    assert!(statuses.contains(&404) && statuses.iter().all(|s| matches!(s, 404 | 429)), "{statuses:?}");
    assert_eq!(call(&world, reqwest::Method::GET, &page, &new).await, 200);
}

/// A log-in with the old password that comes between the use of the link and the new password, all within a second.
#[tokio::test]
async fn a_new_password_ends_what_was_issued_in_the_same_second() {
    let world = start("samesecond", &[]).await;
    let name = active(&world).await;
    let show = format!("/tenant/{}", tenant(&world, &name).await.tenant_id());
    // The use of a link has ended the sessions a moment ago. A time in the future, so that the pace of the test decides
    // nothing.
    let first = Timestamp::now().plus(600).as_second();
    world.annotate(&name, "tenant-operator.dev/sessions-since", &first.to_string()).await;
    let (status, old) = api_log_in(&world, PASSWORD).await;
    assert_eq!((status, call(&world, reqwest::Method::GET, &show, &old).await), (200, 200));
    let link = fresh_link(&world, &name, LinkKind::PasswordReset, 0).await;
    let mut ada = Visitor::new(&world);
    assert_eq!(press(&mut ada, &link, &[("password", "another good password")]).await.0, 303);
    assert_eq!(call(&world, reqwest::Method::GET, &show, &old).await, 404);
    assert!(ada.get("/account").await.1.contains("Log out"), "the new password's own session is good");
    let last = annotation(&tenant(&world, &name).await, "sessions-since");
    // Once as the link is used, and once after the new password is stored: what was issued between the two ends as
    // well.
    assert_eq!(last, Some((first + 2).to_string()));
}

/// The status that a call of the account's API is answered.
async fn call(world: &World, method: reqwest::Method, path: &str, bearer: &str) -> u16 {
    let request = world.http.request(method, format!("{}{path}", world.web)).bearer_auth(bearer).json(&json!({}));
    request.send().await.expect("it answers").status().as_u16()
}

/// A log-in by the API: the status, and the token.
async fn api_log_in(world: &World, password: &str) -> (u16, String) {
    let request = world.http.post(format!("{}/tenant/token", world.web));
    let answer = request.json(&json!({"email": ADA, "password": password})).send().await.expect("it answers");
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.expect("JSON");
    (status, body["token"].as_str().unwrap_or_default().to_owned())
}

/// A link of this kind that is valid although earlier ones were used: it is asked for some seconds from now.
async fn fresh_link(world: &World, name: &str, kind: LinkKind, in_seconds: i64) -> String {
    let identity = IdentityKey::read(&world.client, &world.namespace).await.expect("read").expect("there");
    identity.link(&tenant(world, name).await, MailRequest { kind, at: Timestamp::now().plus(in_seconds) })
}

/// Eve signs up with Ada's address, pays, and uses the account. Ada, who reads the address, takes it over.
#[tokio::test]
async fn a_stranger_who_signed_up_with_the_address_of_another_person_keeps_no_way_in() {
    use reqwest::Method;
    let world = start("takeover", &[]).await;
    let (_, signup) = json_signup(&world, ADA).await;
    let (id, first) = (signup["tenant_id"].as_str().expect("an id"), signup["token"].as_str().expect("a token"));
    assert_eq!(signup["expires_in"], 24 * 3600);
    let name = first.split('.').next().expect("a name");
    let show = format!("/tenant/{id}");
    let mut eve = Visitor::new(&world);
    assert_eq!(eve.log_in(ADA, PASSWORD).await, 303);
    assert_eq!(call(&world, Method::GET, &show, first).await, 200);
    // Ada proves the address: what was issued before is over.
    let link = path(&world, ADA, "Confirm your e-mail").await;
    assert_eq!(confirm(&world, token(&link)).await, 200);
    assert_eq!(call(&world, Method::GET, &show, first).await, 404);
    assert_eq!(eve.get_place("/account").await.1, "/login");
    // Eve still knows the password, pays, and logs in again.
    world.pay(name).await;
    world.wait_true(name, "WelcomeEmailSent").await;
    let (status, second) = api_log_in(&world, PASSWORD).await;
    assert_eq!(status, 200);
    assert_eq!(call(&world, Method::POST, &format!("{show}/setup/sample-query"), &second).await, 200);
    assert_eq!(eve.log_in(ADA, PASSWORD).await, 303);
    let key = world.api_key(name).await;
    let usage = async || {
        let usage = world.http.get(format!("{}/v1/usage", world.web)).bearer_auth(&key).send().await;
        usage.expect("web answers").status().as_u16()
    };
    assert_eq!(usage().await, 200, "Eve has read the API key");
    // Ada logs in by e-mail: the password that was chosen before is over, and all that it opened.
    ask(&mut Visitor::new(&world), "/login/mail", ADA).await;
    let link = path(&world, ADA, "Log in to").await;
    let mut ada = Visitor::new(&world);
    assert_eq!(press(&mut ada, &link, &[]).await.0, 303);
    assert!(ada.get("/account").await.1.contains("Log out"));
    assert_eq!(eve.get_place("/account").await.1, "/login");
    world.until("the API key that Eve has read is over", async || usage().await == 401).await;
    assert_eq!(api_log_in(&world, PASSWORD).await.0, 401);
    assert_eq!(Visitor::new(&world).log_in(ADA, PASSWORD).await, 401);
    let calls = [
        (Method::GET, ""),
        (Method::POST, "/setup/sample-query"),
        (Method::POST, "/delete"),
        (Method::POST, "/export"),
    ];
    for (method, path) in calls {
        assert_eq!(call(&world, method, &format!("{show}{path}"), &second).await, 404, "{path}");
    }
    assert_eq!(world.status(name).await.phase, Some(Phase::Active), "nothing was closed");
    // Ada's own password: a token from before the next one ends with it, and the next log-in by e-mail ends none.
    let set = async |password: &str, in_seconds: i64| {
        let link = fresh_link(&world, name, LinkKind::PasswordReset, in_seconds).await;
        press(&mut Visitor::new(&world), &link, &[("password", password)]).await.0
    };
    assert_eq!(set("a password of my own", 0).await, 303);
    let (status, third) = api_log_in(&world, "a password of my own").await;
    assert_eq!((status, call(&world, Method::GET, &show, &third).await), (200, 200));
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(set("another of my own", 2).await, 303);
    assert_eq!(call(&world, Method::GET, &show, &third).await, 404, "a token ends with the password");
    let (_, fourth) = api_log_in(&world, "another of my own").await;
    let link = fresh_link(&world, name, LinkKind::LoginLink, 4).await;
    assert_eq!(press(&mut Visitor::new(&world), &link, &[]).await.0, 303);
    assert_eq!(api_log_in(&world, "another of my own").await.0, 200, "a proven password stays");
    assert_eq!(call(&world, Method::GET, &show, &fourth).await, 200);
    // Another address.
    let patch = kube::api::Patch::Merge(json!({"spec": {"adminEmail": "grace@example.com"}}));
    world.tenants().patch(name, &Default::default(), &patch).await.expect("patched");
    assert_eq!(call(&world, Method::GET, &show, &fourth).await, 404, "a token ends with the address");
}

#[tokio::test]
async fn an_e_mail_to_an_unconfirmed_address_names_no_company() {
    let world = start("unnamed", &[]).await;
    let form = json!({"email": ADA, "company_name": "Buy coins at evil.example", "password": PASSWORD, "plan": "paid",
        "accept_terms": true});
    let answer = world.http.post(format!("{}/signup", world.web)).json(&form).send().await.expect("it answers");
    assert!(answer.status().is_success());
    path(&world, ADA, "Confirm your e-mail").await;
    ask(&mut Visitor::new(&world), "/password/forgot", ADA).await;
    path(&world, ADA, "Set a new password").await;
    let mails = world.sandbox_get("/_sandbox/mails").await.to_string();
    assert!(mails.contains("Hello,") && !mails.contains("evil.example"), "{mails}");
}

/// A customer who confirms the address where they are logged in stays logged in, and keeps the password.
#[tokio::test]
async fn a_customer_who_confirms_where_they_are_logged_in_keeps_token_and_password() {
    let world = start("same-browser", &[]).await;
    let (_, signup) = json_signup(&world, ADA).await;
    let (id, bearer) = (signup["tenant_id"].as_str().expect("an id"), signup["token"].as_str().expect("a token"));
    let link = path(&world, ADA, "Confirm your e-mail").await;
    let request = world.http.post(format!("{}/verify-email", world.web)).bearer_auth(bearer);
    let answer = request.json(&json!({"token": token(&link)})).send().await.expect("it answers");
    let answer: Value = answer.json().await.expect("JSON");
    let new = answer["token"].as_str().expect("a new token");
    assert_eq!(call(&world, reqwest::Method::GET, &format!("/tenant/{id}"), new).await, 200);
    let name = bearer.split('.').next().expect("a name");
    world.pay(name).await;
    world.wait_true(name, "WelcomeEmailSent").await;
    ask(&mut Visitor::new(&world), "/login/mail", ADA).await;
    let link = path(&world, ADA, "Log in to").await;
    assert_eq!(press(&mut Visitor::new(&world), &link, &[]).await.0, 303);
    assert_eq!(Visitor::new(&world).log_in(ADA, PASSWORD).await, 303);
    assert_eq!(call(&world, reqwest::Method::GET, &format!("/tenant/{id}"), new).await, 200);
}

#[tokio::test]
async fn a_customer_who_asks_nothing_is_reminded_and_one_click_ends_that() {
    let world = start("tips", &["--nudge-after=1"]).await;
    let name = active(&world).await;
    world.mail_links(ADA, "Your first answer").await;
    let mails = world.sandbox_get("/_sandbox/mails").await;
    let tip = mails
        .as_array()
        .and_then(|all| all.iter().rfind(|m| m["subject"].as_str().is_some_and(|s| s.starts_with("Your first"))));
    let data = tip.and_then(|tip| tip["data"].as_str()).expect("an e-mail").replace("\r\n ", "");
    assert!(data.contains("List-Unsubscribe-Post: List-Unsubscribe=One-Click"), "{data}");
    let unsubscribe =
        data.lines().find_map(|l| l.strip_prefix("List-Unsubscribe: <")).expect("a header").trim_end_matches('>');
    let welcome = mails
        .as_array()
        .and_then(|all| all.iter().find(|m| m["message_id"].as_str().is_some_and(|id| id.contains(".welcome"))));
    assert!(
        !welcome.and_then(|m| m["data"].as_str()).expect("an e-mail").contains("List-Unsubscribe"),
        "not of what is needed"
    );
    let path = unsubscribe.strip_prefix(FRONTEND).expect("our own");
    assert_eq!(Visitor::new(&world).get(path).await.0, 200);
    assert_eq!(annotation(&tenant(&world, &name).await, "unsubscribed"), None, "opening it is not a click");
    // As a mail program does it: no cookie, no page.
    let one_click = async |path: &str| {
        let request = world.http.post(format!("{}{path}", world.web)).form(&[("List-Unsubscribe", "One-Click")]);
        request.send().await.expect("it answers").status().as_u16()
    };
    assert_eq!(one_click("/unsubscribe?token=a.b.c").await, 404);
    assert_eq!(one_click(path).await, 200);
    assert_eq!(annotation(&tenant(&world, &name).await, "unsubscribed").as_deref(), Some("true"));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(world.mails("first-question").await, 1);
}

#[tokio::test]
async fn a_customer_tries_again_where_it_failed_and_not_more_often_than_is_good() {
    let world = start("again", &["--retry-waits=1"]).await;
    world
        .fault(json!({"provider": "pinecone", "method": "POST", "path": "/namespaces", "status": 400, "times": 1000}))
        .await;
    let mut ada = Visitor::new(&world);
    let name = ada.sign_up(ADA, "Acme").await;
    let link = path(&world, ADA, "Confirm your e-mail").await;
    assert_eq!(confirm(&world, token(&link)).await, 200);
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Failed).await;
    assert_eq!(ada.log_in(ADA, PASSWORD).await, 303, "the first proof has ended the session of the signup");
    let csrf = ada.csrf("/account").await;
    let (_, page) = ada.get("/account").await;
    assert!(page.contains("Try again now") && page.contains("will not be charged"), "{page}");
    ada.post("/account/retry", &[("csrf", &csrf)]).await;
    let first = annotation(&tenant(&world, &name).await, "retry").expect("a token");
    let again = |s: &tenant_operator::api::TenantStatus| {
        s.provisioning.as_ref().and_then(|p| p.retry_token.as_deref()) == Some(&first) && s.phase == Some(Phase::Failed)
    };
    world.wait(&name, "failed again", again).await;
    ada.post("/account/retry", &[("csrf", &csrf)]).await;
    assert_eq!(annotation(&tenant(&world, &name).await, "retry").as_ref(), Some(&first), "not so soon");
    world.clear_faults().await;
    world.annotate(&name, "tenant-operator.dev/retry", "customer-1000").await;
    world.wait_phase(&name, Phase::Active).await;
    ada.post("/account/retry", &[("csrf", &csrf)]).await;
    assert_eq!(
        annotation(&tenant(&world, &name).await, "retry").as_deref(),
        Some("customer-1000"),
        "not of an account that works"
    );
}

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
