//! What a platform engineer does with kubectl.

use tenant_operator::api::Phase;
use tenant_operator::api::tenant::BillingMode;
use tokio::process::Command;

use crate::support::{BINARY, ROOT, World, folder, kubectl, said};

#[tokio::test]
async fn crds_and_examples_apply_twice_either_way() {
    let _world = World::without_controller("examples").await;
    for args in [
        &["apply", "-f", "crds/", "-f", "examples/"][..],
        &["apply", "--server-side", "--force-conflicts", "-f", "crds/", "-f", "examples/"],
    ] {
        for _ in 0..2 {
            let output = kubectl(args).await;
            assert!(output.status.success(), "{}", said(&output));
        }
    }
    kubectl(&["delete", "--wait=false", "-f", "examples/tenants.yaml"]).await;
}

#[tokio::test]
async fn the_definitions_in_the_tree_are_those_of_the_types() {
    let folder = folder("crds");
    std::fs::create_dir_all(&folder).expect("a folder");
    let made = Command::new(BINARY).args(["crds", "--out"]).arg(&folder).status().await.expect("it runs");
    assert!(made.success());
    for name in ["tenants.yaml", "plans.yaml"] {
        let fresh = std::fs::read_to_string(folder.join(name)).expect("made");
        let kept = std::fs::read_to_string(format!("{ROOT}/crds/{name}")).expect("kept");
        assert_eq!(fresh, kept, "crds/{name} has drifted: run `make generate`");
    }
    let fresh = Command::new(BINARY).args(["crds", "--reference"]).output().await.expect("it runs");
    let kept = std::fs::read_to_string(format!("{ROOT}/docs/crds.md")).expect("kept");
    assert_eq!(String::from_utf8_lossy(&fresh.stdout), kept, "docs/crds.md has drifted: run `make generate`");
}

#[tokio::test]
async fn wait_explain_get_and_delete_work() {
    let world = World::start("kubectl").await;
    world.create("acme", "enterprise", BillingMode::Manual).await;
    let ns = world.namespace.as_str();
    let waited = kubectl(&["wait", "-n", ns, "--for=condition=Ready", "tenant/acme", "--timeout=60s"]).await;
    assert!(waited.status.success(), "{}", said(&waited));
    let wide = said(&kubectl(&["get", "tn", "-n", ns, "-o", "wide"]).await);
    for column in
        ["COMPANY", "PLAN", "PHASE", "READY", "AGE", "PINECONE NAMESPACE", "REGION", "SUBSCRIPTION", "USED", "MESSAGE"]
    {
        assert!(wide.contains(column), "{wide}");
    }
    assert!(wide.contains("Active") && wide.contains("manual"), "{wide}");
    let explained = said(&kubectl(&["explain", "tenant.spec"]).await);
    assert!(explained.contains("How the customer pays"), "{explained}");
    let deleted = kubectl(&["delete", "tenant", "acme", "-n", ns, "--timeout=60s"]).await;
    assert!(deleted.status.success(), "{}", said(&deleted));
}

#[tokio::test]
async fn a_plan_names_each_soft_unit_once_and_its_limits_are_numbers() {
    let _world = World::without_controller("bad-plans").await;
    let path = folder("bad-plan.yaml");
    let apply = async |spec: &str| {
        let manifest = format!(
            "apiVersion: tenant-operator.dev/v1alpha1\nkind: Plan\nmetadata: {{name: soft-units}}\n\
             spec: {{monthlyPrice: {{amount: 1}}, sampleData: None, {spec}}}\n"
        );
        std::fs::write(&path, manifest).expect("written");
        let shown = "jsonpath={.spec.quota} {.spec.limits}";
        kubectl(&["apply", "--dry-run=server", "-o", shown, "-f", path.to_str().expect("a path")]).await
    };
    for (spec, wanted) in [
        ("quota: {soft: [queries, bytes, queries]}", "spec.quota.soft[2]: Duplicate value: \"queries\""),
        ("quota: {soft: [questions]}", "Unsupported value: \"questions\""),
        ("quota: {whenUnavailable: Wait}", "Unsupported value: \"Wait\""),
        ("limits: {promptTokensPerMonth: -1}", "spec.limits.promptTokensPerMonth"),
    ] {
        let output = apply(spec).await;
        assert!(!output.status.success() && said(&output).contains(wanted), "{spec}: {}", said(&output));
    }
    // A soft unit needs no limit, and a rule that is left out has its default.
    let output = apply("limits: {promptTokensPerMonth: 0}, quota: {soft: [promptTokens, embeddingTokens]}").await;
    let kept = said(&output);
    assert!(output.status.success(), "{kept}");
    assert!(
        kept.contains(r#"{"notify":"Email","soft":["promptTokens","embeddingTokens"],"whenUnavailable":"Serve"}"#),
        "{kept}"
    );
    assert!(kept.contains(r#""promptTokensPerMonth":0"#) && !kept.contains("completionTokensPerMonth"), "{kept}");
}

#[tokio::test]
async fn bad_manifests_get_messages_that_a_person_understands() {
    let world = World::start("bad").await;
    let cases = [
        ("companyName: '  ', adminEmail: a@b.cd", "companyName must not be blank"),
        ("companyName: A, adminEmail: nobody", "adminEmail must be one e-mail address"),
        ("companyName: A, adminEmail: a@b.cd, billing: {mode: Barter}", "Unsupported value: \"Barter\""),
        ("companyName: A, adminEmail: a@b.cd, tenantId: ../x", "tenantId"),
    ];
    for (spec, wanted) in cases {
        let manifest = format!(
            "apiVersion: tenant-operator.dev/v1alpha1\nkind: Tenant\nmetadata: {{name: bad, namespace: {}}}\nspec: {{{spec}}}\n",
            world.namespace
        );
        let path = folder("bad.yaml");
        std::fs::write(&path, manifest).expect("written");
        let output = kubectl(&["apply", "-f", path.to_str().expect("a path")]).await;
        assert!(!output.status.success() && said(&output).contains(wanted), "{spec}: {}", said(&output));
    }
    world.create("acme", "enterprise", BillingMode::Manual).await;
    world.wait_phase("acme", Phase::Active).await;
    let output = kubectl(&[
        "patch",
        "tenant",
        "acme",
        "-n",
        &world.namespace,
        "--type=merge",
        "-p",
        r#"{"spec":{"billing":{"mode":"Stripe"}}}"#,
    ])
    .await;
    assert!(said(&output).contains("billing.mode cannot be changed"), "{}", said(&output));
}
