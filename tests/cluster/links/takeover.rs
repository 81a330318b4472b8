//! Who confirms an address that another person signed up with, and what that ends.

use std::time::Duration;

use serde_json::{Value, json};
use tenant_operator::api::{LinkKind, Phase};

use super::{ADA, api_log_in, ask, call, confirm, fresh_link, json_signup, path, press, start, token};
use crate::support::{PASSWORD, Visitor};

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
