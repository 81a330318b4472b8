//! Stripe's customer portal from the account page, and 3-D Secure on the way to it.

use serde_json::json;
use tenant_operator::api::Phase;

use crate::support::{Visitor, World};

async fn start(name: &str) -> World {
    let mut world = World::start(name).await;
    world.environment("STRIPE_PORTAL_KEY", "rk_test_portal");
    world.start_web(&[]);
    world
}

/// What the page of the portal's link says.
async fn portal(world: &World, customer: &mut Visitor<'_>) -> (u16, String) {
    let csrf = customer.csrf("/account").await;
    let (status, _, page) = customer.post("/account/billing", &[("csrf", &csrf)]).await;
    let Some(rest) = page.split("id=\"portal\" href=\"").nth(1) else { return (status, page) };
    let url = rest.split('"').next().expect("a link").replace("&#x2f;", "/");
    (status, world.http.get(url).send().await.expect("the portal answers").text().await.expect("text"))
}

#[tokio::test]
async fn a_customer_sees_their_own_invoices_and_no_others() {
    let world = start("portal").await;
    let (mut ada, mut eve) = (Visitor::new(&world), Visitor::new(&world));
    let mut names = Vec::new();
    for (visitor, email) in [(&mut ada, "ada@example.com"), (&mut eve, "eve@example.com")] {
        let name = visitor.sign_up(email, "Acme").await;
        world.pay(&name).await;
        world.wait_phase(&name, Phase::Active).await;
        names.push(name);
    }
    let (status, page) = portal(&world, &mut ada).await;
    assert!(status == 200 && page.contains("Cancel at the end of the period"), "{status} {page}");
    let of = async |name: &str| {
        let refs = world.tenants().get(name).await.expect("there").spec.billing.stripe.expect("ids");
        (refs.customer_id.expect("a customer"), refs.subscription_id.expect("a subscription"))
    };
    let (ada_customer, ada_subscription) = of(&names[0]).await;
    assert!(page.contains(&ada_subscription));
    // A user who writes another tenant's customer id into a Tenant does not get into that customer's portal.
    let stolen = json!({"spec": {"billing": {"stripe": {"customerId": ada_customer}}}});
    let patch = kube::api::Patch::Merge(stolen);
    world.tenants().patch(&names[1], &Default::default(), &patch).await.expect("patched");
    let (status, page) = portal(&world, &mut eve).await;
    assert!(status == 503 && !page.contains(&ada_subscription), "{status} {page}");
    // A stranger, and another site's form.
    let (status, place, _) = Visitor::new(&world).post("/account/billing", &[]).await;
    assert_eq!((status, &*place), (403, ""));
    world.fault(json!({"provider": "stripe", "path": "/v1/billing_portal", "status": 500, "times": 10})).await;
    let (status, page) = portal(&world, &mut ada).await;
    assert!(status == 503 && page.contains("try again"), "{status} {page}");
}

#[tokio::test]
async fn without_a_key_there_is_no_button() {
    let mut world = World::start("noportal").await;
    world.start_web(&[]);
    let mut ada = Visitor::new(&world);
    let name = ada.sign_up("ada@example.com", "Acme").await;
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Active).await;
    assert!(!ada.get("/account").await.1.contains("/account/billing"));
    let (status, page) = portal(&world, &mut ada).await;
    assert!(status == 409 && page.contains("nothing to pay"), "{status} {page}");
}

#[tokio::test]
async fn a_card_with_3_d_secure_pays_when_the_bank_agrees() {
    let world = start("secure").await;
    let mut ada = Visitor::new(&world);
    let name = ada.sign_up("ada@example.com", "Acme").await;
    let url = world.wait(&name, "waiting", |s| s.checkout.is_some()).await.checkout.expect("a link").url;
    let card = async |challenge: &str| {
        let form = [("card", "4000 0027 6000 3184"), ("challenge", challenge)];
        let answer = world.http.post(&url).form(&form).send().await.expect("the page answers");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    let (status, page) = card("").await;
    assert!(status == 200 && page.contains("Your bank asks"), "{status} {page}");
    let (status, page) = card("fail").await;
    assert!(status == 402 && page.contains("unable to authenticate"), "{status} {page}");
    assert_eq!(world.status(&name).await.phase, Some(Phase::PendingPayment));
    assert_eq!(card("complete").await.0, 303);
    world.wait_phase(&name, Phase::Active).await;
}
