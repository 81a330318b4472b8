//! What each account of the chart can do, and what its stolen token cannot; who may approve, and who is exempt; and how
//! customers leave a namespace that they share with the operator's keys.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::{Value, json};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, Tenant};
use tenant_operator_dev::apply_yaml;

use crate::release::{RELEASE, SIGNUPS, install, kubeconfig, run, stolen};
use crate::support::{PASSWORD, Visitor, World, folder, plan_with, said, tenant};

async fn client(path: &std::path::Path) -> Client {
    let config = Kubeconfig::read_from(path).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.expect("a config");
    Client::try_from(config).expect("a client")
}

/// A control plane of its own with the release's accounts, roles and policies.
async fn released(name: &str, set: &str) -> World {
    let mut world = World::apart(name).await;
    install(&world, set);
    world.namespace = SIGNUPS.into();
    world.environment("POD_NAMESPACE", RELEASE);
    world.use_ledger_key_of(RELEASE).await;
    world.environment("SHARED_SIGNUP_NAMESPACE", "false");
    world
}

/// The message of a refusal, which the API server gives a code of 403 or 422.
fn refusal<T: std::fmt::Debug>(what: &str, outcome: Result<T, kube::Error>) -> String {
    match outcome {
        Err(kube::Error::Api(status)) if [403, 422].contains(&status.code) => status.message.clone(),
        other => panic!("{what} is not refused: {other:?}"),
    }
}

fn secret(name: &str, kind: &str, labels: &Value) -> Secret {
    let whole = json!({"metadata": {"name": name, "labels": labels}, "type": kind, "data": {"x": "eA=="}});
    let mut whole = whole;
    if kind == "kubernetes.io/service-account-token" {
        whole["metadata"]["annotations"] = json!({"kubernetes.io/service-account.name": "rag-controller"});
    }
    serde_json::from_value(whole).expect("a Secret")
}

const OPAQUE: &str = "Opaque";
const TOKEN: &str = "kubernetes.io/service-account-token";

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_token_reads_no_key_writes_no_foreign_secret_and_makes_no_other_account() {
    let mut world = released("stolen", "").await;
    let (controller, web) = (stolen(&world, "controller"), stolen(&world, "web"));
    let admin = world.use_kubeconfig(controller.clone());
    world.start_controller();
    world.use_kubeconfig(web.clone());
    world.start_web(&[]);
    world.use_kubeconfig(admin);

    // What they are for works with these rights.
    let name = {
        let mut ada = Visitor::new(&world);
        let name = ada.sign_up("ada@example.com", "Analytical Engines").await;
        world.pay(&name).await;
        world.wait_phase(&name, Phase::Active).await;
        let mut later = Visitor::new(&world);
        assert_ne!(later.log_in("ada@example.com", "a wrong password").await, 303);
        assert_eq!(later.log_in("ada@example.com", PASSWORD).await, 303);
        let csrf = later.csrf("/sales").await;
        let lead = [("csrf", &*csrf), ("email", "bob@example.com"), ("company_name", "Bob"), ("text", "500 seats")];
        assert_eq!(later.post("/sales", &lead).await.0, 200);
        name
    };
    let key = world.api_key(&name).await;
    world.secrets().delete(&format!("{name}-api-key"), &DeleteParams::default()).await.expect("deleted");
    world
        .wait_secret(&format!("{name}-api-key"), |secret| {
            secret.data.as_ref().is_some_and(|d| d["api-key"].0 == key.as_bytes())
        })
        .await;

    let unlabelled = Patch::Merge(json!({"metadata": {"labels": {"tenant-operator.dev/tenant": null}}}));
    world.secrets().patch(&format!("{name}-api-key"), &PatchParams::default(), &unlabelled).await.expect("patched");
    let label = |secret: &Secret| secret.metadata.labels.as_ref()?.get("tenant-operator.dev/tenant").cloned();
    world.wait_secret(&format!("{name}-api-key"), |secret| label(secret).as_ref() == Some(&name)).await;
    a_deleted_tenant_leaves_its_login(&world).await;

    stolen_from_web(&world, &client(&web).await).await;
    stolen_from_the_controller(&world, &client(&controller).await).await;
    stolen_from_the_ledger(&client(&stolen(&world, "ledger")).await).await;

    // A customer who leaves is erased with these rights, Secrets included.
    world.erase(&name).await;
    world.wait_gone(&name).await;
    for gone in [format!("{name}-api-key"), format!("{name}-login")] {
        assert!(world.secrets().get_opt(&gone).await.expect("the API answers").is_none(), "{gone}");
    }
}

/// The controller notes on the login Secret of a customer who is kept that it outlives the Tenant.
async fn a_deleted_tenant_leaves_its_login(world: &World) {
    let name = Visitor::new(world).sign_up("eve@example.com", "Kept Ltd").await;
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Active).await;
    world.annotate(&name, "tenant-operator.dev/keep-data", "true").await;
    world.tenants().delete(&name, &DeleteParams::default()).await.expect("deleted");
    world.wait_gone(&name).await;
    let login = world.secrets().get(&format!("{name}-login")).await.expect("it is kept");
    assert!(login.metadata.annotations.is_some_and(|all| all.contains_key("tenant-operator.dev/kept")));
}

async fn stolen_from_web(world: &World, web: &Client) {
    let (own, signups): (Api<Secret>, Api<Secret>) =
        (Api::namespaced(web.clone(), RELEASE), Api::namespaced(web.clone(), SIGNUPS));
    for key in ["tenant-operator-identity", "tenant-operator-ledger"] {
        own.get(key).await.expect("the key that it needs");
        refusal(key, own.delete(key, &DeleteParams::default()).await);
    }
    for key in ["tenant-operator-signing", "providers"] {
        refusal(key, own.get(key).await);
        refusal(key, own.delete(key, &DeleteParams::default()).await);
    }
    refusal("a list", own.list(&ListParams::default()).await);
    refusal("a list", signups.list(&ListParams::default()).await);
    refusal(
        "another namespace",
        Api::<Secret>::namespaced(web.clone(), "kube-system").list(&ListParams::default()).await,
    );
    for kind in [OPAQUE, TOKEN] {
        refusal(
            "a Secret beside the keys",
            own.create(&PostParams::default(), &secret("x-login", kind, &json!({}))).await,
        );
    }

    let login =
        |tenant: &str| json!({"app.kubernetes.io/component": "tenant-login", "tenant-operator.dev/tenant": tenant});
    let make = async |name: &str, kind: &str, labels: Value| {
        signups.create(&PostParams::default(), &secret(name, kind, &labels)).await
    };
    let said = refusal("a service-account token", make("x-login", TOKEN, login("x")).await);
    assert!(said.contains("only Secrets of type Opaque"), "{said}");
    for (name, labels) in [
        ("x-login", json!({})),
        ("x-login", login("y")),
        ("x-api-key", login("x")),
        ("x", json!({"app.kubernetes.io/component": "lead"})),
        ("tenant-operator-signing", json!({})),
    ] {
        let said = refusal(name, make(name, OPAQUE, labels).await);
        assert!(said.contains("only login Secrets and leads"), "{said}");
    }
    make("y-login", OPAQUE, login("y")).await.expect("a login Secret");

    // Web cannot make another's Secret its own, nor give its own another label.
    world
        .secrets()
        .create(&PostParams::default(), &secret("z-login", OPAQUE, &json!({})))
        .await
        .expect("made by an admin");
    let label = Patch::Merge(json!({"metadata": {"labels": login("z")}}));
    refusal("to take a Secret", signups.patch("z-login", &PatchParams::default(), &label).await);
    let unlabel = Patch::Merge(json!({"metadata": {"labels": {"app.kubernetes.io/component": "x"}}}));
    refusal("to relabel one", signups.patch("y-login", &PatchParams::default(), &unlabel).await);

    // It signs customers up, and approves none.
    let tenants: Api<Tenant> = Api::namespaced(web.clone(), SIGNUPS);
    let approved = tenant("gift", "enterprise", BillingMode::Manual);
    let said = refusal("a plan without payment", tenants.create(&PostParams::default(), &approved).await);
    assert!(said.contains("spec.billing.approved gives the plan without payment"), "{said}");
    let account = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}});
    let path = format!("/api/v1/namespaces/{RELEASE}/serviceaccounts/rag-controller/token");
    let request = axum::http::Request::post(path).body(account.to_string().into_bytes()).expect("a request");
    refusal("another account's token", web.request::<Value>(request).await);
}

/// The ledger asks the API server for its version, and may do nothing else.
async fn stolen_from_the_ledger(ledger: &Client) {
    ledger.apiserver_version().await.expect("where it takes the time from");
    for namespace in [RELEASE, SIGNUPS] {
        let secrets = Api::<Secret>::namespaced(ledger.clone(), namespace);
        for key in ["tenant-operator-ledger", "tenant-operator-identity", "tenant-operator-signing"] {
            refusal(key, secrets.get(key).await);
        }
        refusal("a list", secrets.list(&ListParams::default()).await);
        refusal("a Secret", secrets.create(&PostParams::default(), &secret("x-login", OPAQUE, &json!({}))).await);
    }
    refusal("Tenants", Api::<Tenant>::all(ledger.clone()).list(&ListParams::default()).await);
}

/// With /admin, the ledger reads Tenants and Plans, and that is all.
#[tokio::test(flavor = "multi_thread")]
async fn with_admin_the_ledger_reads_tenants_and_changes_none() {
    let world = released("stolen-admin", "admin.enabled=true").await;
    let ledger = client(&stolen(&world, "ledger")).await;
    let tenants: Api<Tenant> = Api::namespaced(ledger.clone(), SIGNUPS);
    world
        .tenants()
        .create(&PostParams::default(), &tenant("acme", "starter", BillingMode::Stripe))
        .await
        .expect("made");
    Api::<Tenant>::all(ledger.clone()).list(&ListParams::default()).await.expect("listed");
    Api::<tenant_operator::api::Plan>::all(ledger.clone()).list(&ListParams::default()).await.expect("listed");
    let change = Patch::Merge(json!({"metadata": {"annotations": {"x": "y"}}}));
    refusal("a change", tenants.patch("acme", &PatchParams::default(), &change).await);
    refusal("a deletion", tenants.delete("acme", &DeleteParams::default()).await);
    refusal("a status", tenants.patch_status("acme", &PatchParams::default(), &change).await);
    for namespace in [RELEASE, SIGNUPS] {
        refusal("a list", Api::<Secret>::namespaced(ledger.clone(), namespace).list(&ListParams::default()).await);
    }
}

async fn stolen_from_the_controller(world: &World, controller: &Client) {
    let secrets = |namespace: &str| Api::<Secret>::namespaced(controller.clone(), namespace);
    let ours = json!({"tenant-operator.dev/tenant": "x"});
    for namespace in [RELEASE, SIGNUPS, "kube-system", "default"] {
        let api = secrets(namespace);
        for (name, kind, labels) in [
            ("x-api-key", TOKEN, &ours),
            ("tenant-operator-x", TOKEN, &json!({})),
            ("x-api-key", OPAQUE, &json!({})),
            ("x-login", OPAQUE, &ours),
            ("x", OPAQUE, &ours),
        ] {
            refusal(name, api.create(&PostParams::default(), &secret(name, kind, labels)).await);
        }
        if namespace != RELEASE {
            let key = secret("tenant-operator-signing", OPAQUE, &json!({}));
            refusal("a key elsewhere", api.create(&PostParams::default(), &key).await);
        }
    }
    let own = secrets(RELEASE);
    for key in ["providers", "tenant-operator-signing", "tenant-operator-identity", "tenant-operator-ledger"] {
        let mut there = Api::<Secret>::namespaced(world.client.clone(), RELEASE).get(key).await.expect("there");
        there.data = Some([("x".to_owned(), k8s_openapi::ByteString(b"y".to_vec()))].into());
        refusal(key, own.replace(key, &PostParams::default(), &there).await);
        refusal(key, own.delete(key, &DeleteParams::default()).await);
    }
    // What others keep under such a name stays theirs.
    for name in ["f-api-key", "f-login"] {
        let api = secrets(SIGNUPS);
        let made = world.secrets().create(&PostParams::default(), &secret(name, OPAQUE, &json!({}))).await;
        let mut made = made.expect("made by an admin");
        let said = refusal("to delete it", api.delete(name, &DeleteParams::default()).await);
        assert!(said.contains("belongs to the Tenant of its name"), "{said}");
        let labels = [("tenant-operator.dev/tenant", "f"), ("app.kubernetes.io/component", "tenant-login")];
        made.metadata.labels = Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        refusal("to take it", api.replace(name, &PostParams::default(), &made).await);
    }
    // It deletes leads by name and label, and changes nothing that they say.
    for (name, labels, goes) in [
        ("lead-sales-x", json!({"app.kubernetes.io/component": "lead"}), true),
        ("lead-times", json!({}), false),
        ("times", json!({"app.kubernetes.io/component": "lead"}), false),
    ] {
        let api = secrets(SIGNUPS);
        let made = world.secrets().create(&PostParams::default(), &secret(name, OPAQUE, &labels)).await;
        let mut made = made.expect("made by an admin");
        made.data = Some([("email".to_owned(), k8s_openapi::ByteString(b"y".to_vec()))].into());
        refusal("to change a lead", api.replace(name, &PostParams::default(), &made).await);
        let deleted = api.delete(name, &DeleteParams::default()).await;
        assert_eq!(deleted.is_ok(), goes, "{name}");
    }
    // It may neither make Tenants nor approve one.
    let mut contract = tenant("contract", "enterprise", BillingMode::Manual);
    contract.spec.billing.approved = false;
    world.tenants().create(&PostParams::default(), &contract).await.expect("made by an admin");
    let tenants: Api<Tenant> = Api::namespaced(controller.clone(), SIGNUPS);
    let approve = Patch::Merge(json!({"spec": {"billing": {"approved": true}}}));
    let said = refusal("an approval", tenants.patch("contract", &PatchParams::default(), &approve).await);
    assert!(said.contains("may `approve` tenants.tenant-operator.dev"), "{said}");
    refusal("a Tenant", tenants.create(&PostParams::default(), &tenant("t", "starter", BillingMode::Stripe)).await);
}

/// Gives a user a role with these verbs on Tenants.
fn user(world: &World, name: &str, verbs: &str) {
    for args in [
        vec!["create", "clusterrole", name, &*format!("--verb={verbs}"), "--resource=tenants.tenant-operator.dev"],
        vec!["create", "clusterrolebinding", name, &*format!("--clusterrole={name}"), &*format!("--user={name}")],
    ] {
        let made = world.kubectl(&args);
        assert!(made.status.success(), "{}", said(&made));
    }
}

async fn tenants_as(world: &World, name: &str) -> Api<Tenant> {
    Api::namespaced(client(&kubeconfig(world, name, &json!(name))).await, SIGNUPS)
}

#[tokio::test(flavor = "multi_thread")]
async fn users_who_write_tenants_approve_none_and_a_wildcard_exempts_no_account() {
    let world = released("approval", "admission.exemptUsers={restorer}").await;
    let edit = "get,list,create,patch,update,delete";
    user(&world, "author", edit);
    user(&world, "approver", edit);
    let bound =
        world.kubectl(&["create", "clusterrolebinding", "approves", "--clusterrole=rag-approve", "--user=approver"]);
    assert!(bound.status.success(), "{}", said(&bound));
    user(&world, "wildcard", "*");
    user(&world, "restorer", edit);
    let [author, approver, wildcard, restorer] = [
        tenants_as(&world, "author").await,
        tenants_as(&world, "approver").await,
        tenants_as(&world, "wildcard").await,
        tenants_as(&world, "restorer").await,
    ];
    let create = async |api: &Api<Tenant>, tenant: &Tenant| api.create(&PostParams::default(), tenant).await;
    let patch = async |api: &Api<Tenant>, name: &str, spec: Value| {
        api.patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await
    };

    let gift = tenant("acme", "enterprise", BillingMode::Manual);
    // The API server enforces a new policy some time after it has taken it.
    let trial = PostParams { dry_run: true, ..PostParams::default() };
    let refused = async || author.create(&trial, &gift).await.is_err_and(|e| e.to_string().contains("rag-approve"));
    world.until("the policies are in force", refused).await;
    let said = refusal("an approval of one's own", create(&author, &gift).await);
    assert!(said.contains("ClusterRole rag-approve"), "{said}");
    let mut contract = tenant("acme", "starter", BillingMode::Manual);
    contract.spec.billing.approved = false;
    create(&author, &contract).await.expect("a contract that waits for approval");
    patch(&author, "acme", json!({"plan": "pro"})).await.expect("not approved yet, so it may change");
    refusal("an approval", patch(&author, "acme", json!({"billing": {"approved": true}})).await);
    patch(&approver, "acme", json!({"billing": {"approved": true}})).await.expect("the approver may");
    let said = refusal("a larger plan", patch(&author, "acme", json!({"plan": "enterprise"})).await);
    assert!(said.contains("part of its contract"), "{said}");
    patch(&author, "acme", json!({"companyName": "Acme Ltd"})).await.expect("the rest is theirs");
    patch(&approver, "acme", json!({"plan": "enterprise"})).await.expect("the approver may");
    create(&author, &tenant("paying", "enterprise", BillingMode::Stripe))
        .await
        .expect("a customer who pays needs no approval");

    // The status is no way around it: a tenant is limited by the plan in it.
    let made = world.kubectl(&[
        "create",
        "clusterrole",
        "status",
        "--verb=patch",
        "--resource=tenants.tenant-operator.dev/status",
    ]);
    assert!(made.status.success(), "{made:?}");
    for name in ["author", "restorer"] {
        let bind = [
            "create",
            "clusterrolebinding",
            &format!("status-{name}"),
            "--clusterrole=status",
            &format!("--user={name}"),
        ];
        assert!(world.kubectl(&bind).status.success(), "{bind:?}");
    }
    let message = Patch::Merge(json!({"status": {"phase": "Active", "message": "served"}}));
    let said = refusal("a status", author.patch_status("paying", &PatchParams::default(), &message).await);
    assert!(said.contains("only the operator writes the status"), "{said}");
    restorer.patch_status("paying", &PatchParams::default(), &message).await.expect("restored with its status");

    // A GitOps controller with verbs ["*"] approves what is in Git, and writes nothing that is the operator's own.
    create(&wildcard, &tenant("from-git", "enterprise", BillingMode::Manual)).await.expect("approved in Git");
    let mut from_backup = tenant("restored", "enterprise", BillingMode::Manual);
    from_backup.spec.tenant_id = Some("from-a-backup".into());
    // One policy is asked at a time: which of two refuses is not said.
    from_backup.spec.billing.approved = false;
    for refused in [&author, &approver, &wildcard] {
        let said = refusal("an id", create(refused, &from_backup).await);
        assert!(said.contains("spec.tenantId") && said.contains("admission.exemptUsers"), "{said}");
    }
    create(&restorer, &from_backup).await.expect("named in admission.exemptUsers");
}

/// The chart refuses the layout of version 0.1, unless a value keeps it, and names a customer who must be moved.
#[tokio::test(flavor = "multi_thread")]
async fn the_chart_refuses_signups_beside_the_keys_and_customers_left_behind() {
    let world = World::apart("layout").await;
    let refused = |set: &str, says: &str| {
        let output = run(&world, &["template", RELEASE, "tenant-operator", "--dry-run=server"], set);
        assert!(!output.status.success() && said(&output).contains(says), "{set}: {}", said(&output));
    };
    let taken = |set: &str| {
        let output = run(&world, &["template", RELEASE, "tenant-operator", "--dry-run=server"], set);
        assert!(output.status.success(), "{set}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let made = world.kubectl(&["create", "namespace", RELEASE]);
    assert!(made.status.success(), "{}", said(&made));
    let unverified = "credentials.verify=false,crds.install=false";
    // The pod of the ledger would wait for its volume without a word.
    refused(
        unverified,
        "the cluster has no default StorageClass for the ledger's volume: set ledger.persistence.storageClass",
    );
    taken(&format!("{unverified},ledger.existingSecret=postgres"));
    taken(&format!("{unverified},ledger.persistence.enabled=false"));
    let unverified = "credentials.verify=false,crds.install=false,ledger.persistence.storageClass=fast";
    refused(&format!("{unverified},signupNamespace=rag"), "signups would share namespace rag with the release");
    refused(&format!("{unverified},watchNamespaces={{rag}}"), "signups would share namespace rag with the release");
    let own = taken(unverified);
    assert!(own.contains("kind: Namespace") && own.contains("name: rag-tenants"), "{own}");
    assert!(!taken(&format!("{unverified},signupNamespace=customers")).contains("kind: Namespace"));

    let tenants: Api<Tenant> = Api::namespaced(world.client.clone(), RELEASE);
    tenants.create(&PostParams::default(), &tenant("manifest", "starter", BillingMode::Stripe)).await.expect("taken");
    taken(unverified);
    let mut ada = tenant("ada", "starter", BillingMode::Stripe);
    ada.spec.login = Some(tenant_operator::api::tenant::Login { secret_name: "ada-login".into() });
    tenants.create(&PostParams::default(), &ada).await.expect("taken");
    refused(unverified, "1 customers with a log-in are in namespace rag, such as Tenant ada");
    let unverified = format!("{unverified},signupNamespace=rag,sharedSignupNamespace=true");
    taken(&unverified);

    // That version let the tenants of every plan use their keys.
    let plan = plan_with("pages-only", "documents: 10, queriesPerMonth: 100, bytes: 100000");
    apply_yaml(&world.client, &format!("{plan}  features: [basic_rag]\n")).await.expect("the plan applies");
    taken(&unverified);
    let before = ["create", "deployment", "rag-web", "--image=rag", "--namespace", RELEASE];
    assert!(world.kubectl(&before).status.success());
    let label = ["label", "deployment", "rag-web", "app.kubernetes.io/managed-by=Helm", "--namespace", RELEASE];
    assert!(world.kubectl(&label).status.success());
    let owner = ["meta.helm.sh/release-name=rag", "meta.helm.sh/release-namespace=rag"];
    let annotate = [&["annotate", "deployment", "rag-web", "--namespace", RELEASE], &owner[..]].concat();
    assert!(world.kubectl(&annotate).status.success());
    refused(&unverified, "Plan pages-only does not list the feature api_access");
    taken(&format!("{unverified},plansWithoutApi={{pages-only}}"));
}

/// Web and the chart agree.
#[tokio::test(flavor = "multi_thread")]
async fn web_refuses_to_start_beside_the_keys() {
    let world = World::without_controller("beside").await;
    let start = |shared: &str| {
        let mut web = world.command("web");
        web.args(["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--namespace", &world.namespace]);
        web.env("SHARED_SIGNUP_NAMESPACE", shared);
        web
    };
    let refused = tokio::task::block_in_place(|| start("false").output()).expect("it runs");
    assert!(
        !refused.status.success() && said(&refused).contains("Set TENANT_NAMESPACE to another"),
        "{}",
        said(&refused)
    );
}

/// Customers of a release that kept its keys beside them move, one by one or all, and notice nothing.
#[tokio::test(flavor = "multi_thread")]
async fn customers_move_to_another_namespace_with_password_key_and_subscription() {
    let mut world = World::without_controller("mover").await;
    let (from, to) = (world.namespace.clone(), format!("{}-tenants", world.namespace));
    let made = world.kubectl(&["create", "namespace", &to]);
    assert!(made.status.success(), "{}", said(&made));
    world.controller_args(&[&format!("--namespace={from},{to}")]);
    world.start_controller();
    world.start_web(&[]);
    let mut names = Vec::new();
    for email in ["ada@example.com", "bob@example.com"] {
        let name = Visitor::new(&world).sign_up(email, "Analytical Engines").await;
        world.pay(&name).await;
        world.wait_true(&name, "WelcomeEmailSent").await;
        names.push(name);
    }
    world.create("manifest", "enterprise", BillingMode::Manual).await;
    world.wait_phase("manifest", Phase::Active).await;
    {
        let mut carol = Visitor::new(&world);
        let csrf = carol.csrf("/sales").await;
        let lead = [("csrf", &*csrf), ("email", "carol@example.com"), ("company_name", "Carol"), ("text", "500 seats")];
        assert_eq!(carol.post("/sales", &lead).await.0, 200);
    }
    let ids = async |world: &World, name: &str| {
        let spec = world.tenants().get(name).await.expect("there").spec;
        (spec.tenant_id, spec.billing.stripe, world.api_key(name).await)
    };
    let before = [ids(&world, &names[0]).await, ids(&world, &names[1]).await];
    let files = folder("moved");
    let relocate = |args: &[&str]| {
        let mut command = world.command("move");
        command.args(["--namespace", &from, "--to", &to, "--folder"]).arg(&files).args(args);
        let output = tokio::task::block_in_place(|| command.output()).expect("it runs");
        (output.status.success(), said(&output))
    };
    let (done, text) = relocate(&["absent"]);
    assert!(!done && text.contains("there is none with this name"), "{text}");

    // Interrupted at the worst moment: the object is gone and is not there again.
    std::fs::create_dir_all(&files).expect("a folder");
    let ada = world.tenants().get(&names[0]).await.expect("there");
    std::fs::write(files.join(format!("{}.json", names[0])), json!(ada).to_string()).expect("a file");
    world.annotate(&names[0], "tenant-operator.dev/keep-data", "true").await;
    world.tenants().delete(&names[0], &DeleteParams::default()).await.expect("deleted");
    world.wait_gone(&names[0]).await;
    let (done, text) = relocate(&["--all"]);
    assert!(done && text.contains("2 customers and 1 leads moved"), "{text}");
    let left = world.tenants().list(&ListParams::default()).await.expect("listed").items;
    assert_eq!(left.iter().map(|t| t.metadata.name.as_deref()).collect::<Vec<_>>(), [Some("manifest")]);
    let secrets = world.secrets().list(&ListParams::default()).await.expect("listed").items;
    let left: Vec<_> = secrets
        .iter()
        .filter_map(|s| s.metadata.name.clone())
        .filter(|n| n.ends_with("-login") || n.starts_with("lead-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(std::fs::read_dir(&files).expect("a folder").count(), 0, "no file is left");

    // Web follows, as after the upgrade of the release.
    world.namespace.clone_from(&to);
    world.environment("POD_NAMESPACE", &from);
    world.environment("SHARED_SIGNUP_NAMESPACE", "false");
    world.start_web(&[]);
    for (i, email) in ["ada@example.com", "bob@example.com"].into_iter().enumerate() {
        world.wait_phase(&names[i], Phase::Active).await;
        world.wait_secret(&format!("{}-api-key", names[i]), |_| true).await;
        assert_eq!(ids(&world, &names[i]).await, before[i], "the same id, customer, subscription and key");
        let mut later = Visitor::new(&world);
        assert_eq!(later.log_in(email, PASSWORD).await, 303, "{email}");
        // Web has just started, and answers 503 until it has seen the Plan and the status.
        let key = &before[i].2;
        let usage = async || {
            let usage = world.http.get(format!("{}/v1/usage", world.web)).bearer_auth(key).send().await;
            usage.expect("web answers").status() == 200
        };
        world.until("the key works", usage).await;
    }
    assert_eq!(world.sandbox_get("/_sandbox/pinecone").await["created"], 3, "no namespace was made again");
    let stripe = world.sandbox_get("/_sandbox/state").await;
    assert_eq!(stripe["subscription"].as_array().map(Vec::len), Some(2), "{stripe}");
    world
        .until("Stripe knows the new namespace", async || {
            let stripe = world.sandbox_get("/_sandbox/state").await;
            stripe["subscription"]
                .as_array()
                .expect("some")
                .iter()
                .all(|s| s["metadata"]["tenant_namespace"] == json!(to))
        })
        .await;
    let mut ada = Visitor::new(&world);
    assert_ne!(ada.try_sign_up("ada@example.com").await, 303, "an address signs up once");
}
