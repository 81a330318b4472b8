//! Customers who leave: closed, taken back, erased with a certificate, and nothing left of them anywhere.

use serde_json::{Value, json};
use tenant_operator::api::tenant::{BillingMode, Desired};
use tenant_operator::api::{Phase, TenantStatus, conditions};

use crate::support::{PASSWORD, Visitor, World, closed, day_comes, desire, said, status_of_question};

const DAY: i64 = 24 * 3600;

async fn customer(world: &World, visitor: &mut Visitor<'_>) -> String {
    let name = visitor.sign_up("ada@example.com", "Acme").await;
    world.pay(&name).await;
    world.wait_true(&name, "WelcomeEmailSent").await;
    name
}

/// All that any provider holds, as text.
async fn everything(world: &World) -> String {
    let (stripe, pinecone) =
        (world.sandbox_get("/_sandbox/state").await, world.sandbox_get("/_sandbox/pinecone").await);
    let tenants = world.tenants().list(&Default::default()).await.expect("listed");
    let secrets = world.secrets().list(&Default::default()).await.expect("listed");
    let living: Vec<_> = stripe["customer"].as_array().into_iter().flatten().filter(|c| c["deleted"] != true).collect();
    format!("{}\n{living:?}\n{}\n{}", json!(pinecone["namespaces"]), json!(tenants), json!(secrets))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_leaves_comes_back_leaves_again_and_is_erased_with_a_certificate() {
    let world = World::with_portal("leave", &[]).await;
    let mut ada = Visitor::new(&world);
    let name = customer(&world, &mut ada).await;
    let key = world.api_key(&name).await;
    let id = world.tenants().get(&name).await.expect("there").spec.tenant_id.expect("an id");
    // What the customer once wrote to the sales team.
    let csrf = ada.csrf("/sales").await;
    let lead = [("csrf", &*csrf), ("email", "ada@example.com"), ("company_name", "Acme"), ("text", "500 seats")];
    assert_eq!(ada.post("/sales", &lead).await.0, 200);
    // Closed by the customer, who says why.
    let csrf = ada.csrf("/account/close").await;
    let form = [("csrf", &*csrf), ("reason", "too-expensive"), ("comment", "It was fine.")];
    let (status, place, page) = ada.post("/account/close", &form).await;
    assert_eq!((status, &*place), (303, "/account"), "{page}");
    let status = world.wait(&name, "closed", closed).await;
    let left = status.erases_at.expect("a day").since(tenant_operator::api::Timestamp::now());
    assert!((29 * DAY..=30 * DAY).contains(&left), "{left}");
    world.until("questions are refused", async || status_of_question(&world, &key).await == 410).await;
    world.until("the customer is told", async || world.mails("deletion-requested").await == 1).await;
    let stripe = world.sandbox_get("/_sandbox/state").await;
    assert_eq!(stripe["subscription"][0]["cancel_at_period_end"], true, "not renewed");
    let (_, page) = ada.get("/account").await;
    assert!(page.contains("Take my account back"), "{page}");
    // Back, as if nothing had been.
    let (status, place, page) = ada.post("/account/reactivate", &[("csrf", &csrf)]).await;
    assert_eq!((status, &*place), (303, "/account"), "{page}");
    let status = world.wait_phase(&name, Phase::Active).await;
    assert_eq!(status.erases_at, None);
    world.until("questions are answered", async || status_of_question(&world, &key).await == 200).await;
    let stripe = world.sandbox_get("/_sandbox/state").await;
    assert_eq!(stripe["subscription"][0]["cancel_at_period_end"], false, "renewed again");
    assert_eq!(world.api_key(&name).await, key);
    // Closed by an admin this time, and its day comes.
    let args = [name.as_str(), "--namespace", &world.namespace];
    let output = tokio::task::block_in_place(|| world.command("delete").args(args).output()).expect("it runs");
    assert!(said(&output).contains("kubectl tenant reactivate"), "{}", said(&output));
    world.wait(&name, "closed", closed).await;
    day_comes(&world, &name).await;
    let status = world.wait_phase(&name, Phase::Deleted).await;
    let erasure = status.erasure.clone().expect("a certificate");
    let lines: Vec<_> =
        erasure.lines.iter().map(|l| format!("{} {} {} {:?}", l.provider, l.what, l.before, l.after)).collect();
    assert_eq!(
        lines,
        [
            "Pinecone namespaces 1 Some(0)",
            "Pinecone vectors 3 Some(0)",
            "Kubernetes Secrets 3 Some(0)",
            "Stripe subscriptions 1 Some(0)",
            "Stripe customers 1 Some(0)"
        ]
    );
    assert!(erasure.erased_at.is_some());
    world.mail_links("ada@example.com", "Your RAG Service data is erased").await;
    // Nothing of the customer is left anywhere, but the id on the record.
    let left = everything(&world).await;
    assert!(!left.contains("lead-sales-"), "{left}");
    for trace in ["ada@example.com", "Acme", "too-expensive"] {
        assert!(!left.contains(trace), "{trace} is still there: {left}");
    }
    assert!(left.contains(&id));
    world.assert_transitions(&name).await;
    let output = tokio::task::block_in_place(|| world.command("history").args(args).output()).expect("it runs");
    assert!(
        said(&output).contains("reactivate") && said(&output).contains("Everything is erased"),
        "{}",
        said(&output)
    );
    // There is no way back, and a new start.
    let refused = desire(&world, &name, Desired::Active).await.expect_err("refused").to_string();
    assert!(refused.contains("the erasure of the tenant has begun"), "{refused}");
    let mut again = Visitor::new(&world);
    let second = again.sign_up("ada@example.com", "Acme").await;
    assert_eq!(second, format!("{name}-2"));
    world.pay(&second).await;
    world.wait_phase(&second, Phase::Active).await;
    assert_eq!(again.log_in("ada@example.com", PASSWORD).await, 303);
    // The record can be deleted like any object.
    world.tenants().delete(&name, &Default::default()).await.expect("deleted");
    world.wait_gone(&name).await;
    assert_eq!(world.status(&second).await.phase, Some(Phase::Active));
}

/// A signup by the API, where nothing but web runs: tenant id and token.
async fn signed_up(world: &World) -> (String, String) {
    let form = json!({"email": "ada@example.com", "company_name": "Acme", "password": PASSWORD,
        "plan": "paid", "accept_terms": true});
    let answer = world.http.post(format!("{}/signup", world.web)).json(&form).send().await.expect("it answers");
    let signup: Value = answer.json().await.expect("JSON");
    let text = |key: &str| signup[key].as_str().unwrap_or_else(|| panic!("{signup}")).to_owned();
    (text("tenant_id"), text("token"))
}

async fn ask(world: &World, what: &str, (id, token): (&str, &str)) -> (u16, Value) {
    let request = world.http.post(format!("{}/tenant/{id}/{what}", world.web)).bearer_auth(token);
    let answer = request.json(&json!({})).send().await.expect("it answers");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[tokio::test]
async fn a_token_is_renewed_once_by_closing_the_account() {
    let mut world = World::without_controller("closedonce").await;
    world.start_web(&["--checkout-wait-ms", "500"]);
    let (id, first) = signed_up(&world).await;
    let (status, left) = ask(&world, "delete", (&id, &first)).await;
    let second = left["token"].as_str().unwrap_or_else(|| panic!("{left}"));
    assert_eq!(status, 202);
    assert_eq!(ask(&world, "delete", (&id, &first)).await.0, 404, "the first one is over");
    let (status, again) = ask(&world, "delete", (&id, second)).await;
    assert_eq!((status, &again["token"]), (202, &Value::Null), "it was closed already");
    assert_eq!(ask(&world, "reactivate", (&id, second)).await.0, 202);
}

/// A stolen token closes the account, and the owner sets a new password while the request waits for the controller.
#[tokio::test]
async fn closing_an_account_gives_no_token_that_outlives_a_new_password() {
    let mut world = World::without_controller("closedbythief").await;
    world.start_web(&["--checkout-wait-ms", "3000"]);
    let (id, stolen) = signed_up(&world).await;
    let name = stolen.split('.').next().expect("a name");
    let reset = async {
        world
            .until("it is closed", async || {
                world.tenants().get(name).await.expect("there").spec.desired == Desired::Deleted
            })
            .await;
        let since = (tenant_operator::api::Timestamp::now().as_second() + 1).to_string();
        world.annotate(name, "tenant-operator.dev/sessions-since", &since).await;
    };
    let ((status, left), ()) = tokio::join!(ask(&world, "delete", (&id, &stolen)), reset);
    assert_eq!((status, &left["token"]), (202, &Value::Null), "{left}");
    assert_eq!(ask(&world, "reactivate", (&id, &stolen)).await.0, 404);
}

#[tokio::test]
async fn a_customer_who_comes_back_after_the_subscription_has_ended_buys_it_again_and_finds_everything() {
    let world = World::with_portal("return", &[]).await;
    let mut ada = Visitor::new(&world);
    let name = customer(&world, &mut ada).await;
    let key = world.api_key(&name).await;
    desire(&world, &name, Desired::Deleted).await.expect("patched");
    world.wait(&name, "closed", closed).await;
    // The trial ends on day 14, the last day of the retention is the 30th.
    world.sandbox_post("/_sandbox/clock", json!({"advance_seconds": 29 * DAY})).await;
    let stripe = world.sandbox_get("/_sandbox/state").await;
    assert_eq!(stripe["subscription"][0]["status"], "canceled", "{stripe}");
    assert_eq!(world.status(&name).await.phase, Some(Phase::Deleting));
    desire(&world, &name, Desired::Active).await.expect("patched");
    world.wait(&name, "sold again", |s| s.phase == Some(Phase::Suspended) && s.checkout.is_some()).await;
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Active).await;
    world.until("questions are answered", async || status_of_question(&world, &key).await == 200).await;
    let (stripe, pinecone) =
        (world.sandbox_get("/_sandbox/state").await, world.sandbox_get("/_sandbox/pinecone").await);
    assert_eq!(stripe["customer"].as_array().map(Vec::len), Some(1), "the same customer");
    assert_eq!(pinecone["created"], 1, "the same namespace");
}

#[tokio::test]
async fn a_legal_hold_and_a_provider_that_is_away_stop_an_erasure_and_lose_nothing() {
    let mut world = World::with_active("hold").await;
    world.annotate("acme", "tenant-operator.dev/legal-hold", "case 12").await;
    desire(&world, "acme", Desired::Deleted).await.expect("patched");
    world.wait("acme", "closed", closed).await;
    day_comes(&world, "acme").await;
    let held = |s: &TenantStatus| conditions::get(&s.conditions, "Erased").is_some_and(|c| c.reason == "LegalHold");
    world.wait("acme", "on hold", held).await;
    assert_eq!(
        world.sandbox_get("/_sandbox/pinecone").await["namespaces"].as_object().map(serde_json::Map::len),
        Some(1)
    );
    world
        .fault(json!({"provider": "pinecone", "method": "DELETE", "path": "/namespaces", "status": 503, "times": 1000}))
        .await;
    world.annotate("acme", "tenant-operator.dev/legal-hold", "").await;
    let away =
        |s: &TenantStatus| conditions::get(&s.conditions, "Erased").is_some_and(|c| c.reason.starts_with("Pinecone"));
    let status = world.wait("acme", "waiting for Pinecone", away).await;
    assert!(status.erasure.is_some_and(|e| e.erased_at.is_none()), "begun, and not certified");
    world.replace_controller();
    world.clear_faults().await;
    let status = world.wait_phase("acme", Phase::Deleted).await;
    assert_eq!(status.erasure.expect("a certificate").lines[0].before, 1, "as it was before the first attempt");
    world.assert_transitions("acme").await;
}

/// An admin or a `GitOps` tool deletes the object of a customer who has left, in the middle of the erasure.
#[tokio::test]
async fn an_erasure_that_has_begun_goes_on_when_its_object_is_deleted() {
    let world = World::with_active("erase-deleted").await;
    desire(&world, "acme", Desired::Deleted).await.expect("patched");
    world.wait("acme", "closed", closed).await;
    world.fault(json!({"provider": "pinecone", "method": "DELETE", "status": 503, "times": 1000})).await;
    day_comes(&world, "acme").await;
    world.wait("acme", "being erased", |s| s.erasure.is_some()).await;
    world.tenants().delete("acme", &Default::default()).await.expect("accepted");
    world.wait("acme", "waiting for Pinecone", |s| !conditions::is_true(&s.conditions, "Erased")).await;
    world.clear_faults().await;
    world.until("it is gone", async || world.tenants().get_opt("acme").await.is_ok_and(|t| t.is_none())).await;
    assert_eq!(world.mails("erased").await, 1, "the customer has the certificate");
    let left = everything(&world).await;
    assert!(!left.contains("acme@example.com") && !left.contains("tenant_"), "{left}");
}

/// The program interface, and what it refuses.
#[tokio::test]
async fn the_api_closes_an_account_and_takes_it_back() {
    let world = World::with_portal("leave-api", &[]).await;
    let signup = json!({"email": "ada@example.com", "company_name": "Acme", "password": "correct horse battery",
        "accept_terms": true});
    let answer = world.http.post(format!("{}/signup", world.web)).json(&signup).send().await.expect("it answers");
    let answer: Value = answer.json().await.expect("JSON");
    let (id, token) = (answer["tenant_id"].as_str().expect("an id"), answer["token"].as_str().expect("a token"));
    let call = async |action: &str, token: &str, body: Value| {
        let request = world.http.post(format!("{}/tenant/{id}/{action}", world.web)).bearer_auth(token).json(&body);
        let answer = request.send().await.expect("it answers");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
    };
    let tenants = world.tenants().list(&Default::default()).await.expect("listed");
    let name = tenants.items[0].metadata.name.clone().expect("a name");
    world.pay(&name).await;
    world.wait_true(&name, "WelcomeEmailSent").await;
    assert_eq!(call("delete", "someone.else.entirely", json!({})).await.0, 404);
    let (status, body) = call("delete", token, json!({"reason": "boredom"})).await;
    assert!(status == 400 && body["fields"]["reason"].is_string(), "{body}");
    assert_eq!(call("delete", token, json!({"comment": "x".repeat(501)})).await.0, 400);
    assert_eq!(world.status(&name).await.phase, Some(Phase::Active), "nothing was closed so far");
    let (status, body) = call("delete", token, json!({"reason": "other"})).await;
    assert!(status == 202 && body["phase"] == "Deleting" && body["erases_at"].is_string(), "{body}");
    assert_eq!(call("reactivate", token, json!({})).await.0, 404, "tokens end with the account");
    let token = body["token"].as_str().expect("a new token");
    let (status, again) = call("delete", token, json!({})).await;
    assert_eq!((status, &again["erases_at"]), (202, &body["erases_at"]), "the same day");
    let (status, body) = call("reactivate", token, json!({})).await;
    assert!(status == 202 && body["phase"] == "Active", "{body}");
    desire(&world, &name, Desired::Deleted).await.expect("patched");
    world.wait(&name, "closed", closed).await;
    day_comes(&world, &name).await;
    world.wait_phase(&name, Phase::Deleted).await;
    assert_eq!(call("reactivate", token, json!({})).await.0, 404);
}

#[tokio::test]
async fn a_signup_that_never_paid_goes_at_once_and_a_contract_by_hand_after_its_time() {
    let world = World::start("leave-others").await;
    world.create("unpaid", "paid", BillingMode::Stripe).await;
    world.wait("unpaid", "waiting", |s| s.checkout.is_some()).await;
    desire(&world, "unpaid", Desired::Deleted).await.expect("patched");
    world.wait_phase("unpaid", Phase::Deleted).await;
    world.create("contract", "enterprise", BillingMode::Manual).await;
    world.wait_true("contract", "WelcomeEmailSent").await;
    desire(&world, "contract", Desired::Deleted).await.expect("patched");
    world.wait_phase("contract", Phase::Deleting).await;
    // Deleting the object in the meantime erases nothing.
    day_comes(&world, "contract").await;
    world.wait_phase("contract", Phase::Deleted).await;
    let too_short = tenant_operator_dev::apply_yaml(
        &world.client,
        "apiVersion: tenant-operator.dev/v1alpha1\nkind: Plan\nmetadata: {name: too-short}\nspec: {monthlyPrice: {amount: 1}, sampleData: None, retentionDays: 7}\n",
    );
    let refused = too_short.await.expect_err("refused");
    assert!(format!("{refused:#}").contains("retentionDays"), "{refused:#}");
}

/// A customer whom an admin suspended closes the account, takes it back, pays, and signs up again: suspended all the
/// same.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_customer_does_lifts_the_suspension_of_an_admin() {
    let world = World::with_portal("abuse", &[]).await;
    let mut eve = Visitor::new(&world);
    let name = customer(&world, &mut eve).await;
    let key = world.api_key(&name).await;
    let run = |command: &str, more: &[&str]| {
        let args = [name.as_str(), "--namespace", &world.namespace];
        let mut command = world.command(command);
        let output = tokio::task::block_in_place(|| command.args(args).args(more).output()).expect("it runs");
        (output.status.success(), said(&output))
    };
    let (done, text) = run("suspend", &["--reason", "mines coins"]);
    assert!(done && text.contains("kubectl tenant resume"), "{text}");
    let status = world.wait_phase(&name, Phase::Suspended).await;
    let last = status.transitions.last().expect("a transition").clone();
    assert!(last.reason.contains("admin ") && last.reason.contains("(mines coins)"), "{last:?}");
    let again = run("suspend", &[]);
    assert!(again.0 && again.1.contains("is suspended already, by admin"), "{}", again.1);
    // Closed and taken back, on the pages.
    let csrf = eve.csrf("/account/close").await;
    let (status, _, page) = eve.post("/account/close", &[("csrf", &csrf)]).await;
    assert_eq!(status, 303, "{page}");
    let closed_by = world.wait(&name, "closed", closed).await.transitions.last().expect("a transition").clone();
    assert!(closed_by.reason.starts_with("Closed by the customer."), "{closed_by:?}");
    for command in ["suspend", "resume"] {
        let (done, text) = run(command, &[]);
        assert!(!done && text.contains("is closed"), "{command} revives nothing: {text}");
    }
    assert_eq!(world.tenants().get(&name).await.expect("there").spec.desired, Desired::Deleted);
    eve.get("/account").await;
    let (status, _, page) = eve.post("/account/reactivate", &[("csrf", &csrf)]).await;
    assert_eq!(status, 303, "{page}");
    world.wait_phase(&name, Phase::Suspended).await;
    world.until("it is refused", async || status_of_question(&world, &key).await == 402).await;
    let (_, page) = eve.get("/account").await;
    assert!(page.contains("Please write to us"), "{page}");
    assert!(!page.contains("mines coins"), "the customer does not see why");
    // Stripe tells of a change, and everything is looked at anew.
    world.sandbox_post("/_sandbox/clock", json!({"advance_seconds": DAY})).await;
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    let status = world.status(&name).await;
    assert_eq!(status.phase, Some(Phase::Suspended), "{status:#?}");
    assert_eq!(status_of_question(&world, &key).await, 402);
    // The admin ends it.
    let (done, text) = run("resume", &[]);
    assert!(done && text.contains("will be served again"), "{text}");
    let status = world.wait_phase(&name, Phase::Active).await;
    assert!(status.transitions.last().is_some_and(|t| t.reason.contains("ended by admin")), "{status:#?}");
    world.until("questions are answered", async || status_of_question(&world, &key).await == 200).await;
    assert!(run("resume", &[]).1.contains("is not suspended"));
    // Suspended again, by an edit of the object; closed, erased, and no second account.
    desire(&world, &name, Desired::Suspended).await.expect("patched");
    world.wait_phase(&name, Phase::Suspended).await;
    let csrf = eve.csrf("/account/close").await;
    let (status, _, page) = eve.post("/account/close", &[("csrf", &csrf)]).await;
    assert_eq!(status, 303, "{page}");
    world.wait(&name, "closed", closed).await;
    day_comes(&world, &name).await;
    world.wait_phase(&name, Phase::Deleted).await;
    assert_eq!(Visitor::new(&world).try_sign_up("ada@example.com").await, 400);
    assert_eq!(Visitor::new(&world).log_in("ada@example.com", PASSWORD).await, 401);
    let all = world.tenants().list(&Default::default()).await.expect("listed").items;
    assert_eq!(all.len(), 1, "{all:#?}");
}

/// A customer who agreed to offers gets one offer to come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_customer_who_left_and_agreed_to_offers_is_invited_back_once() {
    let mut world = World::without_controller("win-back").await;
    world.environment("WIN_BACK_OFFER", "Half the price for three months with the code COMEBACK");
    world.environment("STRIPE_PROMOTION_CODES", "true");
    world.controller_args(&["--win-back-after=1"]);
    world.start_controller();
    world.start_web(&[]);
    let mut names = Vec::new();
    for (email, agreed) in [("ada@example.com", true), ("eve@example.com", false)] {
        let form = json!({
            "email": email, "password": "correct horse battery", "company_name": "Acme", "plan": "middle",
            "accept_terms": true, "marketing_opt_in": agreed,
        });
        let answer = world.http.post(format!("{}/signup", world.web)).json(&form).send().await.expect("it answers");
        let answer: Value = answer.json().await.expect("JSON");
        let token = answer["token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        let name = token.split('.').next().expect("a name").to_owned();
        world.pay(&name).await;
        world.wait_true(&name, "WelcomeEmailSent").await;
        let url = format!("{}/tenant/{}/delete", world.web, answer["tenant_id"].as_str().expect("an id"));
        let left = world.http.post(url).bearer_auth(token).json(&json!({})).send().await.expect("it answers");
        assert_eq!(left.status(), 202);
        names.push(name);
    }
    world.mail_links("ada@example.com", "Your RAG Service data is still there").await;
    world.until("both are told of the end", async || world.mails("deletion-requested").await == 2).await;
    let mails = world.sandbox_get("/_sandbox/mails").await;
    let offer = |m: &&Value| m["subject"] == "Your RAG Service data is still there";
    let offers: Vec<_> = mails.as_array().into_iter().flatten().filter(offer).collect();
    assert_eq!(offers.len(), 1, "{mails:#}");
    let data = offers[0]["data"].as_str().expect("text");
    assert!(data.contains("Half the price for three months") && data.contains("List-Unsubscribe-Post"), "{data}");
    let sessions = world.sandbox_get("/_sandbox/state").await["checkout.session"].as_array().cloned().expect("some");
    assert!(sessions.iter().all(|session| session["allow_promotion_codes"] == true), "Checkout takes the code");
    // Back by the page that it leads to, and not asked a second time.
    desire(&world, &names[0], Desired::Active).await.expect("patched");
    world.wait_phase(&names[0], Phase::Active).await;
    desire(&world, &names[0], Desired::Deleted).await.expect("patched");
    world.until("told of the second end", async || world.mails("deletion-requested").await == 3).await;
    assert_eq!(world.mails("win-back").await, 1);
}
