//! Links in e-mails: confirming an address, logging in, a new password, and no more tips. As a customer, and as
//! everybody who would like to be one.

mod invitation;
mod password;
mod takeover;

use std::time::Duration;

use serde_json::{Value, json};
use tenant_operator::api::{LinkKind, MailRequest, Phase, Tenant, Timestamp};
use tenant_operator::operator_keys::IdentityKey;

use crate::support::{PASSWORD, Visitor, World};

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
