//! Compares what the pods may do with what they did, and checks what the operator alone may write.

use std::collections::BTreeSet;
use std::io::Write;

use serde_json::{Value, json};

use crate::node::Node;
use crate::release::{NAMESPACE, TENANTS};
use crate::step;

/// A user who may edit Tenants and approve them, and is not of the operator.
const EDITOR: &str = "--as=editor";
/// A user who may do the same, and is named in `admission.exemptUsers`.
const RESTORER: &str = "--as=restorer";

/// Applies a manifest as this user. Err with kubectl's output if it is refused.
fn apply(node: &Node, user: &str, manifest: &Value) -> Result<(), String> {
    let path = node.folder.join("manifest.json");
    std::fs::File::create(&path).and_then(|mut f| f.write_all(manifest.to_string().as_bytes())).expect("a file");
    done(&node.try_kubectl(&[user, "-n", TENANTS, "apply", "-f", &path.display().to_string()]))
}

fn patch(node: &Node, name: &str, patch: &Value) -> Result<(), String> {
    let args = [EDITOR, "-n", TENANTS, "patch", "tenant", name, "--type=merge", "-p", &patch.to_string()];
    done(&node.try_kubectl(&args))
}

fn done(output: &std::process::Output) -> Result<(), String> {
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn manifest(name: &str, spec: &Value, annotations: &Value) -> Value {
    let mut whole = json!({"companyName": name, "adminEmail": format!("{name}@example.com"), "plan": "enterprise",
        "billing": {"mode": "Manual", "approved": true}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    json!({"apiVersion": "tenant-operator.dev/v1alpha1", "kind": "Tenant",
        "metadata": {"name": name, "annotations": annotations}, "spec": whole})
}

/// The admission policy lets others edit a Tenant, and not what is the operator's own; an account that is named in the
/// values can write that too.
pub fn only_the_operator_writes_what_is_its_own(node: &Node) {
    let edit = [
        "create",
        "clusterrole",
        "edit-tenants",
        "--verb=get,create,patch,delete",
        "--resource=tenants.tenant-operator.dev",
    ];
    node.kubectl(&edit);
    for user in ["editor", "restorer"] {
        let bound = format!("--user={user}");
        node.kubectl(&["create", "clusterrolebinding", user, "--clusterrole=edit-tenants", &bound]);
    }
    let gift = manifest("gift", &json!({}), &json!({}));
    let refused = apply(node, EDITOR, &gift).expect_err("the editor may not approve it");
    assert!(refused.contains("spec.billing.approved gives the plan without payment"), "{refused}");
    node.kubectl(&["create", "clusterrolebinding", "approves", "--clusterrole=rag-approve", "--user=editor"]);
    let stripe = json!({"billing": {"mode": "Stripe", "stripe": {"customerId": "cus_of_somebody_else"}}});
    for (what, spec, annotations) in [
        ("spec.tenantId", json!({"tenantId": "victim"}), json!({})),
        ("spec.billing.stripe", stripe, json!({})),
        ("spec.login", json!({"login": {"secretName": "hostile-login"}}), json!({})),
        ("tenant-operator.dev/sent", json!({}), json!({"tenant-operator.dev/sent": "welcome"})),
        ("tenant-operator.dev/identity-proof", json!({}), json!({"tenant-operator.dev/identity-proof": "x"})),
    ] {
        let refused = apply(node, EDITOR, &manifest("hostile", &spec, &annotations)).expect_err(what);
        assert!(refused.contains(what) && refused.contains("only the operator writes"), "{what}: {refused}");
    }
    apply(node, EDITOR, &manifest("honest", &json!({}), &json!({}))).expect("an ordinary Tenant is taken");
    node.kubectl(&["-n", TENANTS, "wait", "--for=condition=Ready", "tenant/honest", "--timeout=60s"]);
    patch(node, "honest", &json!({"spec": {"companyName": "Honest Ltd"}})).expect("an ordinary edit is taken");
    let retry = json!({"metadata": {"annotations": {"tenant-operator.dev/retry": "1"}}});
    patch(node, "honest", &retry).expect("what users may ask for is taken");
    for (what, change) in [
        ("annotations", json!({"metadata": {"annotations": {"tenant-operator.dev/sent": null}}})),
        ("annotations", json!({"metadata": {"annotations": {"tenant-operator.dev/stripe-event": "evt_1"}}})),
        ("label", json!({"metadata": {"labels": {"tenant-operator.dev/email-hash": "0"}}})),
        ("spec.billing.stripe", json!({"spec": {"billing": {"stripe": {"customerId": "cus_x"}}}})),
    ] {
        let refused = patch(node, "honest", &change).expect_err(what);
        assert!(refused.contains(what) && refused.contains("only the operator writes"), "{change}: {refused}");
    }
    let delete = || done(&node.try_kubectl(&[EDITOR, "-n", TENANTS, "delete", "tenant", "honest", "--wait=false"]));
    let refused = delete().expect_err("a customer");
    assert!(refused.contains("honest is a customer") && refused.contains("kubectl tenant delete honest"), "{refused}");
    let of_another = json!({"metadata": {"annotations": {"tenant-operator.dev/erase": "another-id"}}});
    patch(node, "honest", &of_another).expect("editors may write this annotation");
    delete().expect_err("another's id confirms nothing");
    let taken_back = json!({"metadata": {"annotations": {"tenant-operator.dev/erase": null}}});
    patch(node, "honest", &taken_back).expect("editors may write this annotation");
    let restored =
        manifest("restored", &json!({"tenantId": "from-a-backup"}), &json!({"tenant-operator.dev/sent": "welcome"}));
    apply(node, RESTORER, &restored).expect("an exempt user can write it");
    node.kubectl(&["delete", "clusterrolebinding", "editor", "restorer", "approves"]);
    step("the admission policy keeps what is the operator's own");
}

/// A right or its use: service account, API group, resource, verb, and the object's name if the right is limited to
/// one.
type Right = (String, String, String, String, Option<String>);

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn granted(node: &Node) -> BTreeSet<Right> {
    let select = ["-l", "app.kubernetes.io/instance=rag", "-A"];
    let list = |kind| node.get(&[&[kind], &select[..]].concat())["items"].as_array().cloned().unwrap_or_default();
    let mut rights = BTreeSet::new();
    for (roles, bindings) in [("roles", "rolebindings"), ("clusterroles", "clusterrolebindings")] {
        let roles = list(roles);
        for binding in list(bindings) {
            let account = binding["subjects"][0]["name"].as_str().expect("a name").to_owned();
            let role = roles.iter().find(|r| {
                r["metadata"]["name"] == binding["roleRef"]["name"]
                    && r["metadata"]["namespace"] == binding["metadata"]["namespace"]
            });
            for rule in role.expect("the role")["rules"].as_array().into_iter().flatten() {
                let names: Vec<_> = texts(&rule["resourceNames"]).into_iter().map(Some).collect();
                let names = if names.is_empty() { vec![None] } else { names };
                for group in texts(&rule["apiGroups"]) {
                    for resource in texts(&rule["resources"]) {
                        for verb in texts(&rule["verbs"]) {
                            for name in &names {
                                let right =
                                    (account.clone(), group.clone(), resource.clone(), verb.clone(), name.clone());
                                rights.insert(right);
                            }
                        }
                    }
                }
            }
        }
    }
    rights
}

fn log(node: &Node) -> String {
    std::fs::read_to_string(node.folder.join("audit.log")).expect("the audit log")
}

/// How far the audit log has come.
pub fn mark(node: &Node) -> usize {
    log(node).len()
}

/// Since then, the service accounts were allowed everything that they asked for.
pub fn nothing_was_refused(node: &Node, since: usize) {
    assert!(used(&log(node)[since..]).len() > 20, "the pods did something");
}

/// Everything that the service accounts asked for, from the API server's own audit log. None of it may have been
/// refused.
fn used(log: &str) -> BTreeSet<Right> {
    let mut used = BTreeSet::new();
    for line in log.lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let who = event["user"]["username"].as_str().unwrap_or_default();
        let Some(account) = who.strip_prefix(&format!("system:serviceaccount:{NAMESPACE}:")) else { continue };
        let code = event["responseStatus"]["code"].as_i64();
        assert_ne!(code, Some(403), "{account} was refused something: {line}");
        let object = &event["objectRef"];
        let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
        let mut resource = text("resource");
        if let Some(sub) = object["subresource"].as_str() {
            resource = format!("{resource}/{sub}");
        }
        let verb = event["verb"].as_str().unwrap_or_default().to_owned();
        for name in [None, Some(text("name"))] {
            used.insert((account.to_owned(), text("apiGroup"), resource.clone(), verb.clone(), name));
        }
    }
    used
}

/// Compares the two: a right that no pod used must not be granted.
pub fn nothing_is_granted_that_is_not_used(node: &Node) {
    let (granted, used) = (granted(node), used(&log(node)));
    assert!(granted.len() > 20, "the roles were found: {granted:?}");
    for (account, group, resource, verb, _) in &granted {
        let wild = [group, resource, verb].iter().any(|part| part.contains('*'));
        assert!(!wild, "{account} has a wildcard");
    }
    let unused: Vec<_> = granted.difference(&used).collect();
    assert!(unused.is_empty(), "granted and never used: {unused:#?}");
    step(&format!("{} rights are granted, and each was used", granted.len()));
}
