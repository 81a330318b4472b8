//! What the features of a Plan switch on: `api_access` lets its tenants use the API with their keys.

use futures::future;
use kube::Api;
use kube::api::Patch;
use serde_json::{Value, json};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, Plan};
use tenant_operator_dev::apply_yaml;

use crate::support::{Lab, plan_with};

const QUESTION: &str = "What is RAG?";

/// The status of a question, and its code if it is refused.
async fn asked(lab: &Lab, key: &str) -> (u16, String) {
    let answer = lab.client_with(key).ask(QUESTION).await;
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.expect("JSON");
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

async fn set(plans: &Api<Plan>, name: &str, spec: Value) {
    plans.patch(name, &Default::default(), &Patch::Merge(json!({"spec": spec}))).await.expect("patched");
}

#[tokio::test]
async fn a_key_is_refused_while_the_plan_has_no_access_to_the_api() {
    let mut lab = Lab::start("features", &[]).await;
    let plan = plan_with("pages-only", "documents: 10, queriesPerMonth: 100, bytes: 100000");
    apply_yaml(&lab.world.client, &format!("{plan}  features: [basic_rag]\n")).await.expect("the plan applies");
    lab.world.create("acme", "pages-only", BillingMode::Manual).await;
    lab.world.wait_phase("acme", Phase::Active).await;
    let key = lab.world.api_key("acme").await;
    let refused = (403, "no_api_access".to_owned());
    lab.world.until("web knows the tenant", async || asked(&lab, &key).await == refused).await;
    let gateway = lab.world.http.get(lab.url("/authz")).bearer_auth(&key).send().await.expect("it answers");
    assert_eq!(
        (gateway.status().as_u16(), &gateway.headers()["x-refusal"]),
        (403, &"no_api_access".parse().expect("a header"))
    );

    // A refusal takes a second, and many at once hold no connections.
    lab.world.start_web(&[]);
    lab.world.until("the replica knows the tenant", async || asked(&lab, &key).await == refused).await;
    let many = future::join_all((0..200).map(|_| asked(&lab, &key))).await;
    assert!(many.iter().all(|(status, _)| [403, 429].contains(status)), "{many:?}");
    assert!(many.iter().any(|(status, code)| *status == 429 && code == "too_many_requests"), "{many:?}");

    let plans: Api<Plan> = Api::all(lab.world.client.clone());
    set(&plans, "pages-only", json!({"features": ["basic_rag", "api_access"]})).await;
    lab.world.until("the key is good", async || asked(&lab, &key).await.0 == 200).await;
    set(&plans, "pages-only", json!({"features": ["basic_rag"]})).await;
    lab.world.until("it is refused again", async || asked(&lab, &key).await == refused).await;

    // A tenant that keeps what it was given by a version that let every tenant use its key.
    set(&plans, "pages-only", json!({"limitChanges": "NewTenants"})).await;
    let before = Patch::Merge(json!({"status": {"config": {"apiAccess": null}}}));
    lab.world.tenants().patch_status("acme", &Default::default(), &before).await.expect("patched");
    lab.world.until("the key is good", async || asked(&lab, &key).await.0 == 200).await;
}
