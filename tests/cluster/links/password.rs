//! Links to log in and to set a new password, and what a new password ends.

use std::time::Duration;

use serde_json::json;
use tenant_operator::api::{LinkKind, Timestamp};
use tenant_operator::operator_keys::IdentityKey;

use super::{
    ADA, active, annotation, api_log_in, ask, call, fresh_link, path, press, start, start_with, tenant, token,
};
use crate::support::{PASSWORD, Visitor};

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
