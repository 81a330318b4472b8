//! The release under test: its image, its Secret, its values.

use std::path::PathBuf;
use std::process::Command;

use tenant_operator_sandbox::{Sandbox, SandboxConfig};

use crate::node::Node;
use crate::{ROOT, step};

pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/tenant-operator");
pub const NAMESPACE: &str = "rag";
/// Where its signups create Tenants.
pub const TENANTS: &str = "rag-tenants";
pub const NAME: &str = "rag";
const WEBHOOK_SECRET: &str = "whsec_pods";

/// The providers' stand-ins, which outlive every pod.
pub async fn providers() -> Sandbox {
    let config = SandboxConfig {
        listen: "10.88.0.1".parse().expect("an address"),
        advertise: None,
        ports: [0; 5],
        webhook_secret: WEBHOOK_SECRET.into(),
        webhook_url: None,
        latency_ms: 5,
        data: None,
    };
    Sandbox::start(config).await.expect("the sandbox starts")
}

fn build(args: &[&str]) -> PathBuf {
    build_in(ROOT, args)
}

fn build_in(root: &str, args: &[&str]) -> PathBuf {
    let done = Command::new(format!("{root}/image/build")).args(args).output().expect("python3 runs");
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "image/build {args:?} failed:\n{out}{err}");
    let lines: Vec<_> = out.lines().collect();
    step(lines.get(lines.len().saturating_sub(2)).unwrap_or(&""));
    lines.last().expect("the path of the archive").into()
}

/// Builds the image and loads it into the node.
pub fn image(node: &Node) {
    let pause = node.folder.join("pause");
    let source = node.folder.join("pause.c");
    // What holds a pod's namespaces; the first process of a container is sent no signal that it does not handle.
    std::fs::write(&source, "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n").expect("a file");
    let built = Command::new("cc").args(["-static", "-Os", "-o"]).arg(&pause).arg(&source).status().expect("cc runs");
    assert!(built.success(), "the pause program was not built");
    let (pause, out) = (pause.display().to_string(), node.folder.join("pause.tar").display().to_string());
    node.import(&build(&["--binary", &pause, "--name", "local/pause", "--tag", "1", "--out", &out]));
    let out = node.folder.join("image.tar").display().to_string();
    node.import(&build(&["--name", "local/tenant-operator", "--tag", "test", "--out", &out]));
}

/// The same for the image of another checkout, with a tag of its own.
pub fn image_of(node: &Node, root: &str, tag: &str) {
    let out = node.folder.join("earlier.tar").display().to_string();
    node.import(&build_in(root, &["--name", "local/tenant-operator", "--tag", tag, "--out", &out]));
}

/// The same for the image for trials.
pub fn sandbox_image(node: &Node) {
    let out = node.folder.join("sandbox.tar").display().to_string();
    node.import(&build(&["--sandbox", "--out", &out]));
}

/// The examples of docs/install.md that are fenced with these words.
pub fn documented(words: &str) -> String {
    documented_in(ROOT, words)
}

/// The same of another checkout.
pub fn documented_in(root: &str, words: &str) -> String {
    let page = std::fs::read_to_string(format!("{root}/docs/install.md")).expect("the page");
    let blocks = page.split("\n```").skip(1).step_by(2);
    let code = blocks.filter_map(|b| b.split_once('\n')).filter(|(language, _)| *language == words);
    let code: Vec<_> = code.map(|(_, code)| code).collect();
    assert!(!code.is_empty(), "docs/install.md has no {words}");
    code.join("\n")
}

/// What the user's shell knows while these examples run.
pub fn environment(providers: &Sandbox) -> Vec<(&'static str, String)> {
    vec![
        ("STRIPE_SECRET_KEY", "sk_test_pods".into()),
        ("STRIPE_WEBHOOK_SECRET", WEBHOOK_SECRET.into()),
        ("PINECONE_API_KEY", "pc-pods".into()),
        ("OPENAI_API_KEY", "sk-pods".into()),
        ("SMTP_URL", format!("smtp://{}", providers.smtp_addr)),
    ]
}

/// The documented values file, with this test's image, its volume and its providers.
pub fn settings(node: &Node, providers: &Sandbox) -> String {
    let ledger = "ledger: {persistence: {storageClass: \"-\"}}\n";
    write_settings(node, &(settings_in(ROOT, "test", providers) + ledger))
}

/// Writes the values file, and returns its path.
pub fn write_settings(node: &Node, values: &str) -> String {
    let path = node.folder.join("values.yaml");
    std::fs::write(&path, values).expect("a file");
    path.display().to_string()
}

/// The values file that a checkout documents, with an image that the node has, these providers, and short waits. The
/// load of a test stands for many clients, and has one address.
pub fn settings_in(root: &str, tag: &str, providers: &Sandbox) -> String {
    let documented = documented_in(root, "yaml values");
    assert!(documented.lines().count() <= 6, "six lines must do");
    let values = documented.replace(
        "image: {repository: registry.example.com/tenant-operator}",
        &format!("image: {{repository: local/tenant-operator, tag: {tag}, pullPolicy: Never}}"),
    );
    assert_ne!(values, documented);
    let values = values.replace("https://app.example.com", "http://app.example.com");
    format!(
        "{values}\n\
         stripe: {{url: \"{}\", rate: 100}}\n\
         pinecone: {{url: \"{}\"}}\n\
         openai: {{baseUrl: \"{}\"}}\n\
         admission: {{exemptUsers: [restorer]}}\n\
         uploadLimit: 30s\n\
         web: {{extraArgs: [\"--client-requests-per-second=10000\"]}}\n\
         controller: {{replicas: 2, extraArgs: [\"--signup-ttl=45\", \"--retry-waits=1,1\"]}}\n",
        providers.stripe_url, providers.pinecone_url, providers.openai_url
    )
}
