//! Each preflight check is proven able to fail: a seeded fault turns it red. The cluster is this test's own, because
//! what is checked belongs to a whole cluster.

mod ledger;
mod seeds;
mod stand_ins;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};
use tenant_operator::preflight::checks;
use tenant_operator::providers::stripe::EVENTS;
use tenant_operator_dev::SelfSigned;
use tenant_operator_dev::cluster::{Binaries, Cluster};
use tenant_operator_sandbox::{Sandbox, SandboxConfig};
use tokio::process::Command;

use self::seeds::{access_seeds, kubernetes_seeds, other_seeds, pin_seeds, policy, sender_seeds, stripe_seeds};
use self::stand_ins::{name_server, old_api_server, ready};
use crate::support::{BINARY, ROOT, folder, free_port, providers, said};

const FRONTEND: &str = "http://localhost:8080";
const DEFINITION: &str = "tenants.tenant-operator.dev";

/// A cluster and the providers, in order.
struct Lab {
    cluster: Cluster,
    sandbox: Sandbox,
    http: reqwest::Client,
    folder: PathBuf,
    /// Answers 200 to everything.
    web: String,
    /// The name server.
    dns: std::net::SocketAddr,
    /// A ledger that takes snapshots.
    ledger: ledger::Running,
}

/// A fault: how to cause it, the variables and arguments that differ, and how to undo it.
#[derive(Default)]
struct Seed {
    check: &'static str,
    faults: Vec<Value>,
    kubectl: Vec<Vec<String>>,
    undo: Vec<Vec<String>>,
    env: Vec<(&'static str, String)>,
    args: Vec<String>,
    /// What the reason must say.
    says: &'static str,
    verdict: &'static str,
}

impl Lab {
    async fn start() -> Self {
        tenant_operator::cli::install_crypto();
        let folder = folder("preflight");
        let binaries = Binaries::find().await.expect("etcd and kube-apiserver");
        let cluster = Cluster::start(&binaries, &folder).await.expect("a control plane");
        let config = SandboxConfig {
            advertise: None,
            listen: Ipv4Addr::LOCALHOST.into(),
            ports: [0; 5],
            webhook_secret: "whsec_lab".into(),
            webhook_url: None,
            latency_ms: 0,
            data: None,
        };
        let sandbox = Sandbox::start(config).await.expect("a sandbox");
        for (price, amount) in [("price_starter_monthly", 4900), ("price_pro_monthly", 19_900)] {
            sandbox.add_price(price, amount, "usd");
        }
        let ledger = ledger::Running::start(&folder);
        let lab = Self {
            cluster,
            sandbox,
            http: reqwest::Client::new(),
            folder,
            web: ready().await,
            dns: name_server().await,
            ledger,
        };
        lab.kubectl(&["apply", "-f", "crds/"]).await;
        lab.kubectl(&["wait", "--for=condition=Established", "crd", "--all"]).await;
        lab.kubectl(&["apply", "-f", "examples/plans.yaml"]).await;
        lab.apply("policy", &policy("user system:serviceaccount:velero:velero-server")).await;
        lab.apply("ledger-key", &ledger::secret(ledger::KEY)).await;
        let mut endpoint = vec![("url".to_owned(), format!("{FRONTEND}/webhooks/stripe"))];
        endpoint.extend(EVENTS.iter().enumerate().map(|(i, event)| (format!("enabled_events[{i}]"), (*event).into())));
        let url = format!("{}/v1/webhook_endpoints", lab.sandbox.stripe_url);
        let made = lab.http.post(url).bearer_auth("sk_test_lab").form(&endpoint).send().await.expect("it answers");
        assert!(made.status().is_success());
        lab
    }

    async fn kubectl(&self, args: &[&str]) {
        let kubectl = self.cluster.kubectl.as_ref().expect("kubectl");
        let mut command = Command::new(kubectl);
        command.arg("--kubeconfig").arg(&self.cluster.kubeconfig).args(args).current_dir(ROOT);
        let output = command.output().await.expect("kubectl runs");
        assert!(output.status.success(), "{args:?}: {}", said(&output));
    }

    async fn apply(&self, name: &str, manifest: &Value) {
        self.kubectl(&["apply", "-f", &self.manifest(name, manifest)]).await;
    }

    /// The path of a file with this manifest.
    fn manifest(&self, name: &str, manifest: &Value) -> String {
        let path = self.folder.join(format!("{name}.json"));
        std::fs::write(&path, manifest.to_string()).expect("a file");
        path.display().to_string()
    }

    async fn preflight(&self, env: &[(&'static str, String)], args: &[&str]) -> Output {
        let mut command = self.command("preflight", env);
        command.args(["--permissions", "--test-mail", "ops@example.com", "--web-url", &self.web]).args(args);
        command.output().await.expect("it runs")
    }

    fn command(&self, subcommand: &str, env: &[(&'static str, String)]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .arg(subcommand)
            .env_clear()
            .env("KUBECONFIG", &self.cluster.kubeconfig)
            .envs(providers(&self.sandbox))
            .env("STRIPE_WEBHOOK_SECRET", "whsec_lab")
            .env("FRONTEND_URL", FRONTEND)
            .env("TENANT_NAMESPACE", "tenants")
            .env("FROM_EMAIL", "Rag <hello@mail.good.example>")
            .env("DKIM_SELECTORS", "s1,s2")
            .env("DNS_SERVER", self.dns.to_string())
            .env("LEDGER_ENDPOINT", &self.ledger.url)
            .envs(env.iter().map(|(name, value)| (*name, value.as_str())));
        command
    }

    async fn findings(&self, env: &[(&'static str, String)], args: &[&str]) -> (i32, Vec<Value>) {
        let output = self.preflight(env, &[&["-o", "json"], args].concat()).await;
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        (output.status.code().expect("a code"), report["findings"].as_array().expect("a list").clone())
    }

    /// Sows the fault, and takes it away again.
    async fn sow(&self, seed: &Seed) -> (i32, Vec<Value>) {
        for args in &seed.kubectl {
            self.kubectl(&args.iter().map(String::as_str).collect::<Vec<_>>()).await;
        }
        let faults = format!("{}/_sandbox/faults", self.sandbox.url);
        for fault in &seed.faults {
            self.http.post(&faults).json(fault).send().await.expect("it answers");
        }
        let mut args: Vec<_> = seed.args.iter().map(String::as_str).collect();
        args.insert(0, seed.check.split('/').next().expect("an area"));
        let found = self.findings(&seed.env, &args).await;
        self.http.delete(&faults).send().await.expect("it answers");
        for args in &seed.undo {
            self.kubectl(&args.iter().map(String::as_str).collect::<Vec<_>>()).await;
        }
        found
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// An answer of a provider's instead of the right one, as often as it is asked.
fn answer(provider: &str, path: &str, status: u16, body: &Value) -> Value {
    json!({"provider": provider, "path": path, "status": status, "body": body.to_string(), "times": 50})
}

fn revision(number: &str) -> Vec<String> {
    words(&format!("annotate --overwrite crd {DEFINITION} tenant-operator.dev/crd-revision={number}"))
}

#[tokio::test]
async fn every_check_passes_in_order_and_fails_by_its_fault() {
    let lab = Lab::start().await;
    let old = old_api_server(&lab.folder).await;
    let (code, findings) = lab.findings(&[], &[]).await;
    let all: BTreeSet<_> = checks().into_iter().flatten().map(|c| c.name).collect();
    let seen: BTreeMap<_, _> = findings.iter().map(|f| (f["check"].as_str().expect("a name"), f)).collect();
    assert_eq!(seen.keys().copied().collect::<BTreeSet<_>>(), all);
    assert!(code == 0 && findings.iter().all(|f| f["verdict"] == "ok"), "{code} {findings:#?}");
    let detail = |check: &str| seen[check]["detail"].as_str().or(seen[check]["reason"].as_str()).map(str::to_owned);
    let exempt = "exempt: user system:serviceaccount:velero:velero-server";
    assert_eq!(detail("access/admission").as_deref(), Some(exempt), "{:#}", seen["access/admission"]);

    let mut killed = BTreeSet::new();
    for seed in kubernetes_seeds(&lab, &old)
        .into_iter()
        .chain(access_seeds(&lab))
        .chain(pin_seeds())
        .chain(stripe_seeds())
        .chain(other_seeds(&lab))
        .chain(sender_seeds())
        .chain(ledger::seeds(&lab).await)
    {
        let (code, findings) = lab.sow(&seed).await;
        let found = findings.iter().find(|f| f["check"] == seed.check).expect("the check ran");
        let reason = found["reason"].as_str().expect("a reason");
        assert!(found["verdict"] == seed.verdict && reason.contains(seed.says), "{}: {found:#}", seed.check);
        assert!(found["fix"].as_str().is_some_and(|fix| fix.len() > 5), "{found:#}");
        let wanted = if findings.iter().any(|f| f["verdict"] == "failed") { 1 } else { 2 };
        assert_eq!(code, wanted, "{}", seed.check);
        killed.insert(seed.check);
    }
    assert_eq!(killed, all, "every check has a fault that turns it red");

    // What was sown is gone, and so is what the checks made.
    let (code, _) = lab.findings(&[], &[]).await;
    assert_eq!(code, 0);
    let state: Value = lab
        .http
        .get(format!("{}/_sandbox/state", lab.sandbox.url))
        .send()
        .await
        .expect("it answers")
        .json()
        .await
        .expect("JSON");
    let alive = |kind: &str| {
        state[kind]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|o| o["deleted"] != true && o["status"] != "canceled")
            .count()
    };
    assert_eq!((alive("customer"), alive("subscription")), (0, 0), "nothing is left at Stripe");
    strictness_and_text(&lab).await;
    monitors_ask_by_http(&lab).await;
    lab.cluster.stop().await;
}

/// Warnings exit with 2, or 1 where they count; the text has everything that the JSON has; a start is gentle with
/// outages.
async fn strictness_and_text(lab: &Lab) {
    let warned = [("FRONTEND_URL", "http://elsewhere.example".to_owned())];
    let strict = lab.preflight(&warned, &["stripe", "--strict"]).await;
    assert_eq!(strict.status.code(), Some(1));
    let text = String::from_utf8_lossy(&lab.preflight(&warned, &["stripe"]).await.stdout).into_owned();
    for finding in lab.findings(&warned, &["stripe"]).await.1 {
        for key in ["title", "reason", "fix"] {
            let part = finding[key].as_str().unwrap_or_default();
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }
    let away = [("PINECONE_URL", "http://127.0.0.1:9".to_owned())];
    let start = lab.preflight(&away, &["pinecone", "--startup"]).await;
    assert_eq!(start.status.code(), Some(0), "{}", said(&start));
    let no_endpoint = [("FRONTEND_URL", FRONTEND.to_owned()), ("SMTP_URL", "smtp://127.0.0.1:9".to_owned())];
    let start = lab.preflight(&no_endpoint, &["mail", "--startup"]).await;
    assert!(
        start.status.success() && said(&start).contains("1 warnings"),
        "not a reason to stay away: {}",
        said(&start)
    );
    let wrong = [("PINECONE_INDEX", "other".to_owned())];
    assert_eq!(lab.preflight(&wrong, &["pinecone", "--startup"]).await.status.code(), Some(1));
    for areas in ["strype", "web,strype"] {
        let unknown = lab.preflight(&[], &[areas]).await;
        let text = said(&unknown);
        assert!(!unknown.status.success() && text.contains("no such area as \"strype\": use access, clock"), "{text}");
    }
}

/// The controller tells monitors what the checks find, without writing anything, and without asking the providers anew
/// for each of them.
async fn monitors_ask_by_http(lab: &Lab) {
    for (env, wanted) in [(vec![], 200), (vec![("PINECONE_INDEX", "other".to_owned())], 503)] {
        let port = free_port();
        let mut command = lab.command("controller", &env);
        let _controller =
            command.args(["--listen", &format!("127.0.0.1:{port}")]).kill_on_drop(true).spawn().expect("it starts");
        let url = format!("http://127.0.0.1:{port}/preflight");
        let answer = loop {
            match lab.http.get(&url).send().await {
                Ok(answer) => break answer,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        };
        let status = answer.status();
        let report: Value = answer.json().await.expect("JSON");
        assert_eq!(status, wanted, "{report:#}");
        let found = |check: &str| {
            let findings = report["findings"].as_array().into_iter().flatten();
            findings.clone().find(|f| f["check"] == check).map(|f| f["verdict"].clone())
        };
        assert_eq!(found("stripe/key"), Some(json!("ok")));
        assert_eq!(found("stripe/subscription"), Some(json!("skipped")), "it would write");
        let asked = async || {
            let url = format!("{}/_sandbox/requests", lab.sandbox.url);
            let log: Value = lab.http.get(url).send().await.expect("it answers").json().await.expect("JSON");
            log.as_array().into_iter().flatten().filter(|r| r["path"] == "/v1/account").count()
        };
        let before = asked().await;
        for _ in 0..5 {
            assert_eq!(lab.http.get(&url).send().await.expect("it answers").status(), wanted);
        }
        assert_eq!(asked().await, before, "one report a minute is enough");
    }
}

/// A mail server with TLS, and the file of the authority that signed its certificate.
fn secure_mail_server(folder: &std::path::Path) -> (String, PathBuf) {
    use rustls::pki_types::PrivateKeyDer;
    use std::io::{BufRead, BufReader, Write};
    let own = SelfSigned::new(&["localhost"]).expect("a certificate");
    std::fs::create_dir_all(folder).expect("a folder");
    let authority = folder.join("ca.crt");
    std::fs::write(&authority, own.certificate_pem()).expect("a file");
    let key = PrivateKeyDer::try_from(own.key().to_vec()).expect("a key");
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![own.certificate().to_vec().into()], key).expect("a server");
    let (config, listener) = (std::sync::Arc::new(config), std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
    let url = format!("smtps://localhost:{}", listener.local_addr().expect("its address").port());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = rustls::ServerConnection::new(config.clone()).expect("a connection");
            let mut mail = BufReader::new(rustls::StreamOwned::new(connection, stream));
            let mut line = String::new();
            let mut answer = "220 localhost\r\n";
            while mail.get_mut().write_all(answer.as_bytes()).and_then(|()| mail.get_mut().flush()).is_ok() {
                line.clear();
                if mail.read_line(&mut line).is_err() || line.is_empty() {
                    break;
                }
                answer = if line.starts_with("QUIT") { "221 bye\r\n" } else { "250 localhost\r\n" };
            }
        }
    });
    (url, authority)
}

/// A company's mail server has a certificate of the company's own authority.
#[tokio::test(flavor = "multi_thread")]
async fn mail_trusts_the_authorities_that_every_client_trusts() {
    tenant_operator::cli::install_crypto();
    let folder = folder("authority");
    let (url, authority) = secure_mail_server(&folder.join("authorities"));
    let check = async |trusted: &[(&str, PathBuf)]| {
        let mut command = Command::new(BINARY);
        command.args(["preflight", "mail", "-o", "json"]).env_clear().env("SMTP_URL", &url);
        command.env("KUBECONFIG", "/nonexistent").env("DNS_SERVER", "127.0.0.1:9");
        let output = command.envs(trusted.iter().map(|(name, path)| (name, path))).output().await.expect("it runs");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        let findings = report["findings"].as_array().cloned().unwrap_or_default();
        findings.into_iter().find(|f| f["check"] == "mail/smtp").expect("the check ran")
    };
    let public = check(&[]).await;
    assert_eq!(public["verdict"], "failed", "{public:#}");
    let own = check(&[("SSL_CERT_FILE", authority.clone())]).await;
    assert_eq!(own["verdict"], "ok", "{own:#}");
    // As the chart mounts them, beside the file of the image.
    let other = folder.join("image.crt");
    std::fs::write(&other, SelfSigned::new(&["other"]).expect("made").certificate_pem()).expect("a file");
    let both = [("SSL_CERT_FILE", other.clone()), ("SSL_CERT_DIR", folder.join("authorities"))];
    assert_eq!(check(&both).await["verdict"], "ok");
    assert_eq!(check(&both[..1]).await["verdict"], "failed");
}
