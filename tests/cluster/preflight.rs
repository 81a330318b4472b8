//! Each preflight check is proven able to fail: a seeded fault turns it red. The cluster is this test's own, because
//! what is checked belongs to a whole cluster.

mod ledger;

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

/// A web that is ready.
async fn ready() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let routes = axum::Router::new().fallback(async || "ok");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

/// What the name server knows.
fn zone(name: &str) -> &'static [&'static str] {
    match name {
        "mail.good.example." => &["google-site-verification=x", "v=spf1 include:_spf.mail.example ~all"],
        "s1._domainkey.mail.good.example." | "s2._domainkey.mail.good.example." => &["v=DKIM1; k=rsa; p=MIIB"],
        "s3._domainkey.mail.good.example." => &["v=DKIM1; p="],
        // Of the domain above, which receivers fall back to.
        "_dmarc.good.example." => &["v=DMARC1; p=none; rua=mailto:ops@good.example"],
        "two.example." => &["v=spf1 -all", "v=spf1 include:_spf.mail.example ~all"],
        "open.example." => &["v=spf1 +all"],
        "_dmarc.open.example." => &["v=DMARC1; p=perhaps"],
        "_dmarc.two.example." => &["v=DMARC1; p=none", "v=DMARC1; p=reject"],
        _ => &[],
    }
}

/// A name server with that zone.
async fn name_server() -> std::net::SocketAddr {
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::{RData, Record, rdata::TXT};
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let addr = socket.local_addr().expect("its address");
    tokio::spawn(async move {
        let mut buffer = [0; 1024];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let question = Message::from_vec(&buffer[..length]).expect("a question");
            let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
            let name = question.queries[0].name().clone();
            answer.add_query(question.queries[0].clone());
            let records = zone(&name.to_lowercase().to_string());
            if records.is_empty() {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            for text in records {
                // In two parts, as long records are.
                let (head, tail) = text.split_at(text.len() / 2);
                let data = RData::TXT(TXT::new(vec![head.into(), tail.into()]));
                answer.add_answer(Record::from_rdata(name.clone(), 60, data));
            }
            socket.send_to(&answer.to_vec().expect("a message"), peer).await.expect("sent");
        }
    });
    addr
}

/// An API server that answers every question like this; the one of the lab cannot be made older.
async fn old_api_server(folder: &std::path::Path) -> PathBuf {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "old",
        "clusters": [{"name": "old", "cluster": {"server": format!("http://{}", listener.local_addr().expect("its address"))}}],
        "users": [{"name": "old", "user": {}}],
        "contexts": [{"name": "old", "context": {"cluster": "old", "user": "old"}}],
    });
    let version = json!({"major": "1", "minor": "32", "gitVersion": "v1.32.9", "gitCommit": "", "gitTreeState": "",
        "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
    let routes = axum::Router::new().fallback(async move || axum::Json(version.clone()));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let path = folder.join("old");
    std::fs::write(&path, config.to_string()).expect("a file");
    path
}

const POLICY: &str = "rag.default.tenant-operator.dev";

/// Another account and another index are pinned.
fn pin_seeds() -> Vec<Seed> {
    let pinned = |check, entry: &str, says| Seed {
        check,
        kubectl: vec![words(&format!("create configmap tenant-operator-pins -n default --from-literal={entry}"))],
        undo: vec![words("delete configmap tenant-operator-pins -n default")],
        says,
        verdict: "failed",
        ..Seed::default()
    };
    let account = json!({"account": "acct_before", "livemode": false});
    let index = json!({"index": "multi-tenant-rag", "host": "http://before.example", "dimension": 1536});
    vec![
        pinned("stripe/account", &format!("stripe={account}"), "acct_before"),
        pinned("pinecone/pinned", &format!("pinecone={index}"), "http://before.example"),
        pinned("stripe/account", "stripe=nonsense", "cannot be read"),
        pinned("pinecone/pinned", "pinecone=nonsense", "cannot be read"),
    ]
}

/// The admission policy of the chart, as far as the checks look at it.
fn policy(exempt: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": POLICY, "labels": {"app.kubernetes.io/name": "tenant-operator"},
            "annotations": {"tenant-operator.dev/exempt": exempt}},
        "spec": {"matchConstraints": {"resourceRules": [{"apiGroups": ["tenant-operator.dev"], "apiVersions": ["v1alpha1"],
            "resources": ["tenants"], "operations": ["CREATE"]}]}, "validations": [{"expression": "true"}]},
    })
}

/// Where signups are, and who is exempt from the policies.
fn access_seeds(lab: &Lab) -> Vec<Seed> {
    let shared = ("TENANT_NAMESPACE", "default".to_owned());
    let allowed = ("SHARED_SIGNUP_NAMESPACE", "true".to_owned());
    let seed = |check, says, verdict| Seed { check, says, verdict, ..Seed::default() };
    let whole = lab.manifest("whole", &policy(""));
    vec![
        Seed { env: vec![shared.clone()], ..seed("access/signup-namespace", "web may read every key", "failed") },
        Seed { env: vec![shared, allowed], ..seed("access/signup-namespace", "web may read every key", "warning") },
        Seed {
            kubectl: vec![words(&format!("delete validatingadmissionpolicy {POLICY}"))],
            undo: vec![words(&format!("apply -f {whole}"))],
            ..seed("access/admission", "the release in namespace default has none", "warning")
        },
    ]
}

/// A kubeconfig of a user without any rights.
fn without_rights(lab: &Lab) -> String {
    let text = std::fs::read_to_string(&lab.cluster.kubeconfig).expect("a file");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["users"][0]["user"]["as"] = json!("without-rights");
    let path = lab.folder.join("without-rights");
    std::fs::write(&path, config.to_string()).expect("a file");
    path.display().to_string()
}

fn kubernetes_seeds(lab: &Lab, old: &std::path::Path) -> Vec<Seed> {
    let failed = |check, says| Seed { check, says, verdict: "failed", ..Seed::default() };
    vec![
        Seed { env: vec![("KUBECONFIG", old.display().to_string())], ..failed("kubernetes/version", "v1.32.9") },
        Seed { env: vec![("KUBECONFIG", "/nonexistent".into())], ..failed("kubernetes/version", "no cluster") },
        Seed {
            kubectl: vec![revision("0")],
            undo: vec![words("apply -f crds/")],
            ..failed("kubernetes/crds", "is of revision 0; this version needs")
        },
        Seed {
            kubectl: vec![revision("99")],
            undo: vec![words("apply -f crds/")],
            verdict: "warning",
            ..failed("kubernetes/crds", "newer than this version's")
        },
        Seed {
            kubectl: vec![words("delete plans --all")],
            undo: vec![words("apply -f examples/plans.yaml")],
            verdict: "warning",
            ..failed("kubernetes/plans", "there is none")
        },
        Seed {
            env: vec![("KUBECONFIG", without_rights(lab))],
            ..failed("kubernetes/permissions", "may not: list tenants")
        },
    ]
}

fn stripe_seeds() -> Vec<Seed> {
    let failed = |check, says| Seed { check, says, verdict: "failed", ..Seed::default() };
    let endpoint = |status: &str, events: &[&str]| {
        let endpoint =
            json!({"url": format!("{FRONTEND}/webhooks/stripe"), "status": status, "enabled_events": events});
        vec![answer("stripe", "/v1/webhook_endpoints", 200, &json!({"data": [endpoint]}))]
    };
    let price = |change: Value| {
        let mut price = json!({"id": "price", "active": true, "unit_amount": 4900, "currency": "usd", "recurring": {"interval": "month"}});
        for (key, value) in change.as_object().into_iter().flatten() {
            price[key] = value.clone();
        }
        vec![answer("stripe", "/v1/prices/price_starter_monthly", 200, &price)]
    };
    let none = json!({});
    vec![
        Seed { faults: vec![answer("stripe", "/v1/account", 401, &none)], ..failed("stripe/key", "Stripe") },
        Seed { env: vec![("STRIPE_SECRET_KEY", String::new())], ..failed("stripe/key", "is not set") },
        Seed {
            env: vec![("STRIPE_SECRET_KEY", "sk_live_x".into())],
            verdict: "warning",
            ..failed("stripe/mode", "a live key")
        },
        Seed {
            faults: vec![answer("stripe", "/v1/account", 200, &json!({"id": "acct_1", "charges_enabled": false}))],
            ..failed("stripe/charges", "acct_1 may not charge yet")
        },
        Seed {
            faults: vec![answer("stripe", "/v1/prices/price_pro", 404, &none)],
            ..failed("stripe/prices", "Plan pro: Stripe has no price")
        },
        Seed { faults: price(json!({"active": false})), ..failed("stripe/prices", "is not active") },
        Seed { faults: price(json!({"recurring": null})), ..failed("stripe/prices", "is not recurring") },
        Seed {
            faults: price(json!({"unit_amount": 1})),
            verdict: "warning",
            ..failed("stripe/prices", "Plan starter shows 4900 usd, Stripe charges 1 usd")
        },
        Seed {
            faults: vec![answer("stripe", "/v1/webhook_endpoints", 200, &json!({"data": []}))],
            ..failed("stripe/webhook", "no endpoint ends with")
        },
        Seed { faults: endpoint("disabled", &["*"]), ..failed("stripe/webhook", "is disabled") },
        Seed {
            faults: endpoint("enabled", &EVENTS[1..]),
            ..failed("stripe/webhook", "does not get checkout.session.completed")
        },
        Seed {
            env: vec![("FRONTEND_URL", "http://elsewhere.example".into())],
            verdict: "warning",
            ..failed("stripe/webhook", "not http://elsewhere")
        },
        Seed {
            env: vec![("STRIPE_WEBHOOK_SECRET", "whsec_a,sk_test_b".into())],
            ..failed("stripe/webhook-secret", "number 2")
        },
        Seed {
            faults: vec![answer("stripe", "/v1/billing_portal/configurations", 200, &json!({"data": []}))],
            verdict: "warning",
            ..failed("stripe/portal", "never saved in this mode")
        },
        Seed {
            faults: vec![answer("stripe", "/v1/subscriptions", 403, &none)],
            ..failed("stripe/subscription", "Stripe")
        },
        Seed {
            faults: vec![
                json!({"provider": "stripe", "path": "/", "status": 404, "date": "Wed, 25 Nov 2020 00:00:00 GMT", "times": 9}),
            ],
            ..failed("clock/skew", "ahead of Stripe's")
        },
    ]
}

fn other_seeds(lab: &Lab) -> Vec<Seed> {
    let failed = |check, says| Seed { check, says, verdict: "failed", ..Seed::default() };
    let host = lab.sandbox.pinecone_url.clone();
    let index = json!({"name": "multi-tenant-rag", "dimension": 4096, "host": host});
    let short = json!({"data": [{"index": 0, "embedding": [0.6, 0.8]}]});
    let away = words("--web-url http://127.0.0.1:9");
    let found = json!({"matches": [{"id": "preflight", "score": 1.0}]});
    let none = json!({});
    vec![
        Seed { env: vec![("PINECONE_INDEX", "other".into())], ..failed("pinecone/index", "no index named other") },
        Seed { env: vec![("PINECONE_URL", "http://127.0.0.1:9".into())], ..failed("pinecone/index", "Pinecone") },
        Seed {
            env: vec![("PINECONE_REGIONS", "us-east-1=multi-tenant-rag,eu-central-1=rag-eu".into())],
            ..failed("pinecone/index", "eu-central-1: Pinecone")
        },
        Seed {
            env: vec![("PINECONE_REGIONS", "eu-central-1=multi-tenant-rag-eu".into())],
            ..failed("pinecone/regions", "keeps data in us-east-1, where the operator has no index")
        },
        Seed {
            faults: vec![answer("pinecone", "/indexes", 200, &index)],
            ..failed("pinecone/dimension", "no vectors of 4096 numbers, the index multi-tenant-rag takes 4096")
        },
        Seed {
            faults: vec![answer("openai", "/v1/embeddings", 200, &short)],
            ..failed("pinecone/dimension", "vectors of 2 numbers, the index multi-tenant-rag takes 1536")
        },
        Seed {
            args: words("--pinecone-namespace-limit 0"),
            ..failed("pinecone/capacity", "of 0 namespaces are in use")
        },
        Seed {
            faults: vec![
                json!({"provider": "pinecone", "method": "POST", "path": "/namespaces", "status": 403, "times": 9}),
            ],
            ..failed("pinecone/namespace", "Pinecone")
        },
        Seed {
            faults: vec![answer("pinecone", "/query", 200, &found)],
            ..failed("pinecone/isolation", "found from another")
        },
        Seed { faults: vec![answer("openai", "/v1/embeddings", 404, &none)], ..failed("openai/embedding", "OpenAI") },
        Seed { faults: vec![answer("openai", "/v1/chat", 401, &none)], ..failed("openai/chat", "OpenAI") },
        Seed { env: vec![("SMTP_URL", "smtp://127.0.0.1:9".into())], ..failed("mail/smtp", "cannot be reached") },
        Seed { args: away, ..failed("web/ready", "does not answer") },
        Seed { env: vec![("SMTP_URL", "nonsense".into())], ..failed("mail/smtp", "SMTP_URL") },
        Seed {
            faults: vec![json!({"provider": "smtp", "method": "DATA", "path": "ops@example.com", "status": 550})],
            ..failed("mail/test-mail", "did not take it")
        },
    ]
}

fn sender_seeds() -> Vec<Seed> {
    let from = |domain: &str| vec![("FROM_EMAIL", format!("hello@{domain}"))];
    let failed = |check, says, domain| Seed { check, says, verdict: "failed", env: from(domain), ..Seed::default() };
    let warned = |check, says, domain| Seed { verdict: "warning", ..failed(check, says, domain) };
    let selector = |name: &str| vec![("DKIM_SELECTORS", name.to_owned())];
    vec![
        warned("mail/spf", "bare.example has no SPF record", "bare.example"),
        failed("mail/spf", "two.example has 2 SPF records", "two.example"),
        failed("mail/spf", "lets every server send as you", "open.example"),
        warned("mail/dkim", "s1._domainkey.bare.example has no DKIM key", "bare.example"),
        Seed { env: selector("s1,s3"), ..failed("mail/dkim", "s3._domainkey.mail.good.example was revoked", "") },
        warned("mail/dmarc", "_dmarc.bare.example has no DMARC record", "bare.example"),
        failed("mail/dmarc", "has no valid policy: v=DMARC1; p=perhaps", "open.example"),
        failed("mail/dmarc", "_dmarc.two.example has 2 DMARC records", "two.example"),
        Seed { env: vec![("DNS_SERVER", "127.0.0.1:9".into())], ..warned("mail/spf", "DNS: ", "") },
    ]
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
