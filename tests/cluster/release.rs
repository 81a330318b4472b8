//! The chart on a control plane without nodes: its accounts, roles and admission policies, rendered by helm.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::{Value, json};
use tenant_operator_dev::cluster::{cache_folder, linker_flags};

use crate::support::{ROOT, World, folder, said};

/// The release's name and namespace.
pub const RELEASE: &str = "rag";
/// The namespace of its signups.
pub const SIGNUPS: &str = "rag-tenants";

/// helm, built from source once into the user's cache folder.
fn helm() -> &'static Path {
    static HELM: OnceLock<PathBuf> = OnceLock::new();
    HELM.get_or_init(|| {
        let module = format!("{ROOT}/cluster/node");
        let read = |name: &str| std::fs::read_to_string(format!("{module}/{name}")).expect("a file");
        let done = cache_folder("helm", read("go.sum").as_bytes()).expect("a place for it");
        if !done.is_dir() {
            let work = done.with_extension(format!("build-{}", std::process::id()));
            let built = Command::new("go")
                .args(["install", "-trimpath", "-ldflags", &linker_flags(&read("go.mod")), "helm.sh/helm/v4/cmd/helm"])
                .current_dir(&module)
                .envs([("CGO_ENABLED", "0"), ("GOWORK", "off")])
                .env("GOBIN", &work)
                .status();
            assert!(built.expect("go runs").success(), "helm was not built");
            std::fs::rename(&work, &done).expect("the folder can be moved");
        }
        done.join("helm")
    })
}

/// Runs helm with the chart and the values of docs/install.md.
pub fn run(world: &World, args: &[&str], set: &str) -> Output {
    let values = folder(&format!("{}-values.yaml", world.namespace));
    let text = "frontendUrl: https://app.example.com\nfromEmail: hello@example.com\ncredentials: {existingSecret: providers}\n";
    std::fs::write(&values, text).expect("a file");
    let mut command = Command::new(helm());
    command
        .args(args)
        .arg("--kubeconfig")
        .arg(world.kubeconfig())
        .args(["--namespace", RELEASE, "--values"])
        .arg(values);
    if !set.is_empty() {
        command.args(["--set", set]);
    }
    tokio::task::block_in_place(|| command.current_dir(format!("{ROOT}/charts")).output()).expect("helm runs")
}

/// Applies what the chart renders of these kinds.
fn apply(world: &World, set: &str, kinds: &[&str]) {
    let rendered = run(world, &["template", RELEASE, "tenant-operator"], set);
    assert!(rendered.status.success(), "{}", said(&rendered));
    let text = String::from_utf8(rendered.stdout).expect("text");
    let wanted = |part: &&str| kinds.iter().any(|kind| part.lines().any(|line| line == format!("kind: {kind}")));
    let parts: Vec<_> = text.split("\n---\n").filter(wanted).collect();
    assert!(parts.len() >= kinds.len(), "{kinds:?}:\n{text}");
    let path = folder(&format!("{}-rendered.yaml", world.namespace));
    std::fs::write(&path, parts.join("\n---\n")).expect("a file");
    let applied = world.kubectl(&["apply", "-f", path.to_str().expect("a path")]);
    assert!(applied.status.success(), "{}", said(&applied));
}

/// Installs the release's accounts, roles and policies with these values, and a Secret with keys of providers.
pub fn install(world: &World, set: &str) {
    for args in [
        &["create", "namespace", RELEASE][..],
        &["create", "secret", "generic", "providers", "-n", RELEASE, "--from-literal=STRIPE_SECRET_KEY=sk_live_real"],
    ] {
        let made = world.kubectl(args);
        assert!(made.status.success(), "{}", said(&made));
    }
    apply(world, set, &["Namespace"]);
    let roles = ["ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"];
    apply(world, set, &roles);
    apply(world, set, &["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"]);
}

/// A kubeconfig with a token of a service account, as a pod has it.
pub fn stolen(world: &World, component: &str) -> PathBuf {
    let token = world.kubectl(&["create", "token", &format!("{RELEASE}-{component}"), "-n", RELEASE]);
    assert!(token.status.success(), "{}", said(&token));
    let token = String::from_utf8(token.stdout).expect("text");
    kubeconfig(world, component, &json!({"token": token.trim()}))
}

/// A kubeconfig of a user, or of what else `user` says.
pub fn kubeconfig(world: &World, name: &str, user: &Value) -> PathBuf {
    let text = std::fs::read_to_string(world.kubeconfig()).expect("a file");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    match user.as_object() {
        Some(whole) if whole.contains_key("token") => config["users"][0]["user"] = user.clone(),
        // The admin acts as that user.
        _ => config["users"][0]["user"]["as"] = user.clone(),
    }
    let path = folder(&format!("{}-{name}.kubeconfig", world.namespace));
    std::fs::write(&path, config.to_string()).expect("a file");
    path
}

/// Variables that libraries read, and those that name the pod.
const OTHERS_READ: [&str; 9] = [
    // By every command, before its settings.
    "LOG_FORMAT",
    "RUST_LOG",
    "SSL_CERT_DIR",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "POD_NAME",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// A value of the chart that reaches no setting would be ignored without a word.
#[tokio::test(flavor = "multi_thread")]
async fn every_variable_that_the_chart_sets_is_read_by_a_command() {
    let world = World::without_controller("chart-variables").await;
    let set = "leads.limit=7,leads.perDay=3,leads.keepDays=30,uploadLimit=1h 30m,brake.window=2592000,web.clientIp=RightmostXForwardedFor,exports.keepDays=36h,winBack.afterDays=3,exports.url=s3://exports,exports.existingSecret=exports,admin.enabled=true,admin.url=https://admin.example.com";
    let rendered = run(&world, &["template", RELEASE, "tenant-operator"], set);
    assert!(rendered.status.success(), "{}", said(&rendered));
    let text = String::from_utf8(rendered.stdout).expect("text");
    let reference = std::fs::read_to_string(format!("{ROOT}/docs/cli.md")).expect("the reference");
    for (kind, component, some) in [
        ("Deployment", "controller", "LEAD_TTL"),
        ("Deployment", "web", "LEADS_LIMIT"),
        ("StatefulSet", "ledger", "LEDGER_SNAPSHOTS"),
    ] {
        let (kind, own) = (format!("kind: {kind}\n"), format!("\n  name: {RELEASE}-{component}\n"));
        let workload = text.split("\n---\n").find(|part| part.contains(&kind) && part.contains(&own));
        let names = workload.expect("a workload").lines().filter_map(|line| line.trim_start().strip_prefix("- name: "));
        let is_variable = |name: &&str| name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        let names: Vec<_> = names.filter(is_variable).collect();
        assert!(names.contains(&some), "{names:?}");
        for name in names {
            // By it, or by the preflight that runs before it.
            let read = reference.contains(&format!("`{name}`")) || OTHERS_READ.contains(&name);
            assert!(read, "{component}: no command reads {name}");
        }
    }
    for (name, value) in [
        ("LEADS_LIMIT", "7"),
        ("LEADS_PER_DAY", "3"),
        ("LEAD_TTL", "30d"),
        ("WIN_BACK_AFTER", "3d"),
        ("EXPORTS_KEPT", "36h"),
        ("UPLOAD_LIMIT", "1h 30m"),
        ("BRAKE_WINDOW", "2592000"),
        ("ADMIN_LISTEN", "0.0.0.0:8086"),
        ("ADMIN_URL", "https://admin.example.com"),
        // Beside the exports, whose storage is known to work.
        ("LEDGER_SNAPSHOTS", "s3://exports/ledger/rag/rag"),
    ] {
        assert!(text.contains(&format!("- name: {name}\n              value: \"{value}\"")), "{name} is {value}");
    }
}

/// Without `admin.enabled`, a release has nothing of /admin: no port, no Service, no right of the ledger.
#[tokio::test(flavor = "multi_thread")]
async fn the_owners_door_is_closed_unless_it_is_turned_on() {
    let world = World::without_controller("chart-admin").await;
    let rendered = |set: &str| {
        let output = run(&world, &["template", RELEASE, "tenant-operator", "--skip-tests"], set);
        assert!(output.status.success(), "{set}: {}", said(&output));
        String::from_utf8(output.stdout).expect("text")
    };
    let part = |text: &str, kind: &str, name: &str| {
        let (kind, name) = (format!("kind: {kind}\n"), format!("\n  name: {name}\n"));
        text.split("\n---\n").find(|part| part.contains(&kind) && part.contains(&name)).map(str::to_owned)
    };
    let without = rendered("");
    for word in ["ADMIN_", "8086", "rag-admin", "port: admin"] {
        assert!(!without.contains(word), "{word}");
    }
    let with = rendered("admin.enabled=true");
    let ledger = part(&with, "StatefulSet", "rag-ledger").expect("a ledger");
    assert!(ledger.contains("secretKeyRef: {name: providers, key: ADMIN_TOKEN, optional: true}"), "{ledger}");
    assert!(ledger.contains("{name: admin, containerPort: 8086}") && !ledger.contains("WATCH_NAMESPACE"), "{ledger}");
    let service = part(&with, "Service", "rag-admin").expect("a Service");
    assert!(
        service.contains("port: 80, targetPort: admin}") && service.contains("pod-name: rag-ledger-0"),
        "{service}"
    );
    let policy = part(&with, "NetworkPolicy", "rag-ledger").expect("a policy");
    assert!(policy.contains("- ports: [{port: admin}]\n      from:\n        - podSelector: {}\n"), "{policy}");
    assert!(part(&with, "ClusterRole", "rag-admin").is_some());
    let scoped = rendered(
        "admin.enabled=true,credentials.adminToken.existingSecret=door,watchNamespaces={a,b},signupNamespace=a,\
         admin.from[0].podSelector.matchLabels.app=proxy",
    );
    let ledger = part(&scoped, "StatefulSet", "rag-ledger").expect("a ledger");
    assert!(ledger.contains("secretKeyRef: {name: door, key: ADMIN_TOKEN, optional: true}"), "{ledger}");
    assert!(ledger.contains("- name: WATCH_NAMESPACE\n              value: \"a,b\""), "{ledger}");
    assert!(part(&scoped, "ClusterRole", "rag-admin").is_none() && part(&scoped, "Role", "rag-admin").is_some());
    let policy = part(&scoped, "NetworkPolicy", "rag-ledger").expect("a policy");
    assert!(policy.contains("app: proxy") && !policy.contains("podSelector: {}"), "{policy}");
    let output = run(
        &world,
        &["template", RELEASE, "tenant-operator"],
        "admin.enabled=true,sandbox.enabled=true,credentials.existingSecret=",
    );
    assert!(
        said(&output).contains("no Secret is named for ADMIN_TOKEN: set credentials.adminToken"),
        "{}",
        said(&output)
    );
}
