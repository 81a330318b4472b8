//! Usage-based billing at the Stripe stand-in: the official SDK drives it, and stripe-mock and Stripe's description of
//! its API judge what it takes and answers. The checks are in `tests/conformance`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tenant_operator_sandbox::{Sandbox, SandboxConfig};

const CHECKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/conformance");

/// Signs the sandbox's webhooks.
const SECRET: &str = "whsec_usage";

fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn must(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it starts");
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{out}\n{err}");
    out.into_owned()
}

/// The Python that has the vendors' SDKs: the same one as that of the tests on an API server.
fn python() -> PathBuf {
    let folder = target().join("python-conformance");
    let (programs, done) = (folder.join("bin"), folder.join("installed"));
    let requirements = format!("{CHECKS}/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).expect("the list of packages");
    if std::fs::read_to_string(&done).ok().as_ref() != Some(&wanted) {
        must(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        let install = ["install", "--quiet", "--require-hashes", "--requirement", &requirements];
        must(Command::new(programs.join("pip")).args(install));
        std::fs::write(done, wanted).expect("noted");
    }
    programs.join("python")
}

/// stripe-mock, which ends with its owner, its address, and the description of the API that it goes by.
struct Mock(std::process::Child, String, PathBuf);

impl Mock {
    fn start() -> Self {
        let (folder, binary) = (format!("{CHECKS}/stripe-mock"), target().join("stripe-mock"));
        let package = "github.com/stripe/stripe-mock";
        must(Command::new("go").args(["build", "-o"]).arg(&binary).arg(package).current_dir(&folder));
        let module = must(Command::new("go").args(["list", "-m", "-f", "{{.Dir}}", package]).current_dir(&folder));
        let spec = Path::new(module.trim()).join("embedded/openapi/spec3.json");
        for _ in 0..10 {
            let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
            let mut command = Command::new(&binary);
            command.args(["-http-addr", &port.to_string()]).stdout(Stdio::null());
            let mut mock = Self(command.spawn().expect("stripe-mock starts"), format!("http://{port}"), spec.clone());
            while mock.0.try_wait().expect("a child of ours").is_none() {
                if std::net::TcpStream::connect(port).is_ok() {
                    return mock;
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
        panic!("stripe-mock does not listen");
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_counted_and_billed_by_stripes_rules() {
    // An error says only that it was done before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = SandboxConfig {
        listen: std::net::Ipv4Addr::LOCALHOST.into(),
        advertise: None,
        ports: [0; 5],
        webhook_secret: SECRET.into(),
        webhook_url: None,
        latency_ms: 0,
        data: None,
    };
    let sandbox = Sandbox::start(config).await.expect("it starts");
    let said = tokio::task::spawn_blocking(move || {
        let mock = Mock::start();
        let mut driver = Command::new(python());
        driver
            .arg(format!("{CHECKS}/usage.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("STRIPE_WEBHOOK_SECRET", SECRET)
            .env("SANDBOX_URL", &sandbox.url)
            .env("STRIPE_URL", &sandbox.stripe_url)
            .env("STRIPE_MOCK_URL", &mock.1)
            .env("STRIPE_SPEC", &mock.2);
        must(&mut driver)
    });
    let said = said.await.expect("it ends");
    assert_eq!(said.matches(": passed").count(), 14, "{said}");
}
