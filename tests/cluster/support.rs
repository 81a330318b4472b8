//! One control plane for all tests; a namespace, a sandbox and processes of its own for each.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::{Value, json};
use tenant_operator::api::tenant::{Billing, BillingMode};
use tenant_operator::api::{Phase, Tenant, TenantSpec, TenantStatus};
use tenant_operator::operator_keys::IdentityKey;
use tenant_operator_dev::{apply_crds, apply_yaml};
use tenant_operator_sandbox::{Sandbox, SandboxConfig};
use tokio::sync::OnceCell;

pub use tenant_operator::cli::install_crypto;

use crate::programs::program;

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");
pub const BINARY: &str = env!("CARGO_BIN_EXE_tenant-operator");
pub const WEBHOOK_SECRET: &str = "whsec_test";
/// Generous: a condition that holds is seen at once, one that never holds fails the test.
pub const LIMIT: Duration = Duration::from_secs(90);
/// How a controller ends that lost its lease, and how often it is started again.
const LEASE_LOST: i32 = 1;
const RESTARTS: u32 = 100;

const PLANS: &str = include_str!("../../examples/plans.yaml");
const PAID_PLAN: &str = "
apiVersion: tenant-operator.dev/v1alpha1
kind: Plan
metadata: {name: paid}
spec:
  stripePriceId: price_paid
  monthlyPrice: {amount: 4900}
  trialDays: 0
  sampleDocuments: [{id: sample_1, text: RAG means retrieval-augmented generation.}]
";
/// A plan: its name, what it costs in cents, the documents it holds, and what else it says.
pub type Size = (&'static str, i64, i64, &'static str);

/// Plans of every size, known to every world.
const SIZES: [Size; 4] = [
    ("tiny", 100, 1, "downgrades: Immediately"),
    ("small", 900, 1, ""),
    ("middle", 4900, 10, ""),
    ("large", 19_900, 100, ""),
];

pub fn plan_of_size((size, amount, documents, extra): Size) -> String {
    format!(
        "apiVersion: tenant-operator.dev/v1alpha1\nkind: Plan\nmetadata: {{name: {size}}}\nspec:\n  stripePriceId: price_{size}\n  \
         monthlyPrice: {{amount: {amount}}}\n  trialDays: 0\n  limits: {{documents: {documents}, queriesPerMonth: {amount}}}\n  \
         {extra}\n  sampleDocuments: [{{id: sample_1, text: RAG means retrieval-augmented generation.}}]\n"
    )
}

/// The control plane. It ends with the test process, which holds its standard input.
pub struct ControlPlane {
    pub kubeconfig: PathBuf,
    pub kubectl: PathBuf,
    child: Child,
    _stdin: ChildStdin,
}

pub fn control_plane() -> &'static ControlPlane {
    static PLANE: OnceLock<ControlPlane> = OnceLock::new();
    PLANE.get_or_init(|| ControlPlane::start(&folder("test")))
}

impl ControlPlane {
    fn start(folder: &std::path::Path) -> Self {
        let mut child = Command::new(program("tenant-operator-dev"))
            .args(["--cluster-only", "--folder"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the control plane starts");
        let stdin = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (mut kubeconfig, mut kubectl) = (None, PathBuf::from("kubectl"));
        for line in lines.map_while(Result::ok) {
            match line.split_once('=') {
                Some(("KUBECONFIG", path)) => kubeconfig = Some(PathBuf::from(path)),
                Some(("KUBECTL", path)) => kubectl = PathBuf::from(path),
                _ if line == "READY" => break,
                _ => {}
            }
        }
        let kubeconfig = kubeconfig.expect("the control plane is ready");
        Self { kubeconfig, kubectl, child, _stdin: stdin }
    }

    pub async fn client(&self) -> Client {
        let config = Kubeconfig::read_from(&self.kubeconfig).expect("a kubeconfig");
        let config =
            kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.expect("a config");
        Client::try_from(config).expect("a client")
    }
}

/// Definitions and plans.
async fn define(client: &Client) {
    apply_crds(client).await.expect("the definitions apply");
    apply_yaml(client, PLANS).await.expect("the plans apply");
    apply_yaml(client, PAID_PLAN).await.expect("the plan applies");
    for size in SIZES {
        apply_yaml(client, &plan_of_size(size)).await.expect("the plan applies");
    }
}

pub async fn client() -> Client {
    static DEFINED: OnceCell<()> = OnceCell::const_new();
    install_crypto();
    let plane = tokio::task::spawn_blocking(control_plane).await.expect("the control plane starts");
    let client = plane.client().await;
    DEFINED.get_or_init(|| define(&client)).await;
    client
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port()
}

/// Where this run keeps its files: 500 MB at its end. They stay, so that a failure can be looked into; the next run removes
/// them.
fn scratch() -> &'static std::path::Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let runs = std::env::temp_dir().join("tenant-operator-tests");
        for run in std::fs::read_dir(&runs).into_iter().flatten().flatten() {
            let pid = run.file_name().to_str().and_then(|n| n.parse().ok()).and_then(rustix::process::Pid::from_raw);
            if pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_err()) {
                drop(std::fs::remove_dir_all(run.path()));
            }
        }
        let own = runs.join(std::process::id().to_string());
        drop(std::fs::remove_dir_all(&own));
        std::fs::create_dir_all(&own).expect("a folder");
        own
    })
}

/// A path that this test run has to itself; nothing is there.
pub fn folder(name: &str) -> PathBuf {
    let folder = scratch().join(name);
    drop(std::fs::remove_dir_all(&folder));
    folder
}

/// Both outputs of a program.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Sends a signal by its name. False if the process is gone.
pub fn signal(child: &Child, name: &str) -> bool {
    Command::new("kill").args(["-s", name, &child.id().to_string()]).status().is_ok_and(|s| s.success())
}

/// A process that is killed with the test.
pub struct Process {
    child: Arc<Mutex<Child>>,
    /// Whether it is not started again once it has ended.
    over: Arc<AtomicBool>,
}

impl From<Child> for Process {
    fn from(child: Child) -> Self {
        Self::of(child)
    }
}

impl Process {
    fn of(child: Child) -> Self {
        Self { child: Arc::new(Mutex::new(child)), over: Arc::new(AtomicBool::new(true)) }
    }

    /// A controller that is started again when it ends because it lost its lease, as the kubelet does: a busy machine does not
    /// renew the short leases of the tests in time.
    fn supervised(mut command: Command) -> Self {
        let process = Self::of(command.spawn().expect("the controller starts"));
        process.over.store(false, Ordering::SeqCst);
        let (child, over) = (process.child.clone(), process.over.clone());
        std::thread::spawn(move || {
            for _ in 0..RESTARTS {
                loop {
                    std::thread::sleep(Duration::from_millis(100));
                    let mut child = child.lock().expect("not poisoned");
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    match child.try_wait().expect("a child of ours").map(|status| status.code()) {
                        None => {}
                        Some(Some(LEASE_LOST)) => {
                            *child = command.spawn().expect("the controller starts");
                            break;
                        }
                        Some(_) => return,
                    }
                }
            }
        });
        process
    }

    /// SIGKILL: nothing of it gets to clean up.
    pub fn kill(self) {
        self.over.store(true, Ordering::SeqCst);
        let mut child = self.child.lock().expect("not poisoned");
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.lock().expect("not poisoned").id()
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.child.lock().expect("not poisoned").try_wait().expect("a child of ours").is_none()
    }

    /// Sends a signal. What gets one is not started again.
    pub fn signal(&self, name: &str) {
        self.over.store(true, Ordering::SeqCst);
        assert!(signal(&self.child.lock().expect("not poisoned"), name), "the process is not there");
    }

    /// The exit code, once it has ended by itself.
    pub async fn exit_code(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            let ended = self.child.lock().expect("not poisoned").try_wait().expect("a child of ours");
            if let Some(status) = ended {
                return status.code();
            }
            assert!(start.elapsed() < LIMIT, "the process does not end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let mut child = self.child.lock().expect("not poisoned");
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The settings by which the product finds the providers' stand-ins.
pub fn providers(sandbox: &Sandbox) -> [(&'static str, String); 7] {
    [
        ("PINECONE_API_KEY", "pc-test".into()),
        ("PINECONE_URL", sandbox.pinecone_url.clone()),
        ("OPENAI_API_KEY", "sk-test".into()),
        ("OPENAI_BASE_URL", sandbox.openai_url.clone()),
        ("STRIPE_SECRET_KEY", "sk_test_test".into()),
        ("STRIPE_URL", sandbox.stripe_url.clone()),
        ("SMTP_URL", format!("smtp://{}", sandbox.smtp_addr)),
    ]
}

/// A test's own world.
pub struct World {
    pub client: Client,
    pub namespace: String,
    pub sandbox: Sandbox,
    pub http: reqwest::Client,
    pub web: String,
    pub web_metrics: String,
    pub controllers: Vec<Process>,
    web_processes: Vec<Process>,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    kubeconfig: PathBuf,
    /// A control plane of its own, where what happens to it would hurt others.
    plane: Option<ControlPlane>,
}

impl World {
    /// A namespace, a sandbox and a controller with short waits.
    pub async fn start(name: &str) -> Self {
        let mut world = Self::without_controller(name).await;
        world.start_controller();
        world
    }

    /// With an Active tenant "acme" that pays by Stripe.
    pub async fn with_active(name: &str) -> Self {
        let world = Self::start(name).await;
        world.create("acme", "paid", BillingMode::Stripe).await;
        world.pay("acme").await;
        world.wait_true("acme", "WelcomeEmailSent").await;
        world
    }

    pub async fn without_controller(name: &str) -> Self {
        let client = client().await;
        Self::in_cluster(name, client, control_plane().kubeconfig.clone(), None).await
    }

    /// With a controller that got these arguments, web, and a portal to pay in.
    pub async fn with_portal(name: &str, args: &[&str]) -> Self {
        let mut world = Self::without_controller(name).await;
        world.controller_args(args);
        world.start_controller();
        world.environment("STRIPE_PORTAL_KEY", "rk_test_portal");
        world.start_web(&[]);
        world
    }

    /// With a control plane of its own.
    pub async fn apart(name: &str) -> Self {
        install_crypto();
        let there = folder(name);
        let plane =
            tokio::task::spawn_blocking(move || ControlPlane::start(&there)).await.expect("the control plane starts");
        let client = plane.client().await;
        define(&client).await;
        let kubeconfig = plane.kubeconfig.clone();
        Self::in_cluster(name, client, kubeconfig, Some(plane)).await
    }

    /// The process that started the control plane of this world's own, and the folder of its data.
    pub fn own_plane(&self) -> (u32, PathBuf) {
        let plane = self.plane.as_ref().expect("a control plane of its own");
        (plane.child.id(), plane.kubeconfig.parent().expect("a folder").to_owned())
    }

    /// The kubeconfig of the processes that start from now on.
    pub fn kubeconfig(&self) -> &std::path::Path {
        &self.kubeconfig
    }

    /// Lets the processes that start from now on use this kubeconfig; answers the one before.
    pub fn use_kubeconfig(&mut self, path: PathBuf) -> PathBuf {
        std::mem::replace(&mut self.kubeconfig, path)
    }

    /// Runs kubectl.
    pub fn kubectl(&self, args: &[&str]) -> Output {
        let plane = self.plane.as_ref().unwrap_or_else(|| control_plane());
        let mut command = Command::new(&plane.kubectl);
        tokio::task::block_in_place(|| command.arg("--kubeconfig").arg(&self.kubeconfig).args(args).output())
            .expect("kubectl runs")
    }

    async fn in_cluster(name: &str, client: Client, kubeconfig: PathBuf, plane: Option<ControlPlane>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let object = Namespace {
            metadata: ObjectMeta { name: Some(namespace.clone()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        match Api::all(client.clone()).create(&PostParams::default(), &object).await {
            // The client sends a create again whose answer was lost; the name is this test's alone.
            Err(kube::Error::Api(e)) if e.code == 409 => {}
            made => drop(made.expect("a namespace")),
        }
        // Made by the first controller; tests of web alone have none.
        IdentityKey::load(&client, &namespace).await.expect("an identity key");
        let sandbox = Sandbox::start(SandboxConfig {
            advertise: None,
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            ports: [0; 5],
            webhook_secret: WEBHOOK_SECRET.into(),
            webhook_url: None,
            latency_ms: 0,
            data: None,
        })
        .await
        .expect("a sandbox");
        for (price, amount) in [("price_starter_monthly", 4900), ("price_pro_monthly", 19_900), ("price_paid", 4900)] {
            sandbox.add_price(price, amount, "usd");
        }
        for (size, amount, ..) in SIZES {
            sandbox.add_price(&format!("price_{size}"), amount, "usd");
        }
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_mins(1))
            .build()
            .expect("a client");
        let args = [
            "--retry-waits=1,1,1",
            "--notice-retry=1",
            "--resync=1",
            "--full-resync=3",
            "--lease-duration=3",
            "--attempt-limit=20",
            "--upload-limit=0",
            // Tests of other things need not read mail; those of this turn it on.
            "--email-verification=off",
        ];
        Self {
            client,
            namespace,
            sandbox,
            http,
            web: String::new(),
            web_metrics: String::new(),
            controllers: Vec::new(),
            web_processes: Vec::new(),
            args: args.map(String::from).to_vec(),
            environment: Vec::new(),
            kubeconfig,
            plane,
        }
    }

    /// Arguments of the form `--name=value` for the controllers that start from now on.
    pub fn controller_args(&mut self, args: &[&str]) {
        for arg in args {
            let name = arg.split('=').next().unwrap_or_default();
            self.args.retain(|old| old.split('=').next() != Some(name));
            self.args.push((*arg).to_owned());
        }
    }

    /// One of the product's commands, with the settings of this world.
    pub fn command(&self, subcommand: &str) -> Command {
        let s = &self.sandbox;
        let mut command = Command::new(BINARY);
        command
            .arg(subcommand)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .env("POD_NAMESPACE", &self.namespace)
            // One namespace for each world; `rights` tests them apart, as the chart has them.
            .env("SHARED_SIGNUP_NAMESPACE", "true")
            .envs(providers(s))
            .env("STRIPE_RATE", "500")
            .env("STRIPE_WEBHOOK_SECRET", format!("whsec_old,{WEBHOOK_SECRET}"))
            .env("ALERT_WEBHOOK_URL", format!("{}/_sandbox/alerts", s.url))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// A variable for the processes that start from now on.
    pub fn environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub fn start_controller(&mut self) {
        let mut command = self.command("controller");
        if !self.args.iter().any(|arg| arg.starts_with("--listen=")) {
            command.arg("--listen=127.0.0.1:0");
        }
        command.args(["--namespace", &self.namespace]).args(&self.args);
        self.controllers.push(Process::supervised(command));
    }

    /// Kills the first controller with SIGKILL, and starts another.
    pub fn replace_controller(&mut self) {
        self.controllers.remove(0).kill();
        self.start_controller();
    }

    /// Starts a replica of web, points `web` to it and sends the sandbox's webhooks to it.
    pub fn start_web(&mut self, args: &[&str]) {
        self.start_web_logging(args, Stdio::inherit());
    }

    /// The same, with its log in another place.
    pub fn start_web_logging(&mut self, args: &[&str], log: Stdio) {
        let mut command = self.command("web");
        command.stderr(log);
        command.args(["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--namespace", &self.namespace]);
        if !args.contains(&"--signups-per-minute") {
            command.args(["--signups-per-minute", "10000"]);
        }
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().expect("web starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut said = |what: &str| {
            let line = lines.next().expect("web says where it listens").expect("text");
            line.strip_prefix(what).unwrap_or_else(|| panic!("{line}")).to_owned()
        };
        self.web = said("listening on ");
        self.web_metrics = said("metrics on ");
        self.sandbox.send_webhooks_to(&format!("{}/webhooks/stripe", self.web));
        self.web_processes.push(Process::of(child));
    }

    /// The first replica of web.
    pub fn first_web(&mut self) -> &mut Process {
        &mut self.web_processes[0]
    }

    /// One that has ended.
    pub fn forget_first_web(&mut self) {
        self.web_processes.remove(0);
    }

    /// The processes that start from now on reach Kubernetes through a proxy, until it is dropped.
    pub async fn proxy_kubernetes(&mut self) -> tokio::task::JoinHandle<()> {
        let text = std::fs::read_to_string(&control_plane().kubeconfig).expect("a kubeconfig");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        let server = &mut config["clusters"][0]["cluster"]["server"];
        let upstream = server.as_str().and_then(|s| s.strip_prefix("https://")).expect("an address").to_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        *server = json!(format!("https://{}", listener.local_addr().expect("an address")));
        self.kubeconfig = folder(&format!("{}.kubeconfig", self.namespace));
        std::fs::write(&self.kubeconfig, config.to_string()).expect("written");
        tokio::spawn(async move {
            // Dropped with this task, and with it every connection.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let upstream = upstream.clone();
                connections.spawn(async move {
                    let mut far = tokio::net::TcpStream::connect(upstream).await?;
                    tokio::io::copy_bidirectional(&mut near, &mut far).await
                });
            }
        })
    }

    pub fn tenants(&self) -> Api<Tenant> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn create(&self, name: &str, plan: &str, mode: BillingMode) -> Tenant {
        let tenant = tenant(name, plan, mode);
        self.tenants().create(&PostParams::default(), &tenant).await.expect("the tenant is taken")
    }

    pub async fn status(&self, name: &str) -> TenantStatus {
        self.tenants().get(name).await.expect("the tenant is there").status.unwrap_or_default()
    }

    /// Waits until the status is as wanted.
    pub async fn wait(&self, name: &str, what: &str, wanted: impl Fn(&TenantStatus) -> bool) -> TenantStatus {
        let start = Instant::now();
        loop {
            let status = self.status(name).await;
            if wanted(&status) {
                return status;
            }
            assert!(start.elapsed() < LIMIT, "{name} is not {what}: {status:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let start = Instant::now();
        while !holds().await {
            assert!(start.elapsed() < LIMIT, "it never came that {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn wait_phase(&self, name: &str, phase: Phase) -> TenantStatus {
        self.wait(name, &phase.to_string(), |s| s.phase == Some(phase)).await
    }

    pub async fn wait_true(&self, name: &str, condition: &str) -> TenantStatus {
        self.wait(name, condition, |s| tenant_operator::api::conditions::is_true(&s.conditions, condition)).await
    }

    pub async fn wait_gone(&self, name: &str) {
        let start = Instant::now();
        while self.tenants().get_opt(name).await.expect("the API answers").is_some() {
            assert!(start.elapsed() < LIMIT, "{name} is still there: {:#?}", self.status(name).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn annotate(&self, name: &str, key: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        self.tenants().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("annotated");
    }

    /// Deletes a Tenant, and means it.
    pub async fn erase(&self, name: &str) {
        let id = self.tenants().get(name).await.expect("it is there").spec.tenant_id.unwrap_or_default();
        self.annotate(name, "tenant-operator.dev/erase", &id).await;
        self.tenants().delete(name, &Default::default()).await.expect("deletion is asked for");
    }

    pub async fn sandbox_get(&self, path: &str) -> Value {
        let answer = self.http.get(format!("{}{path}", self.sandbox.url)).send().await.expect("the sandbox answers");
        answer.json().await.expect("JSON")
    }

    /// How many calls to the providers were like this.
    pub async fn calls(&self, like: impl Fn(&Value) -> bool) -> usize {
        self.sandbox_get("/_sandbox/requests").await.as_array().expect("a list").iter().filter(|r| like(r)).count()
    }

    pub async fn sandbox_post(&self, path: &str, body: Value) {
        let answer = self.http.post(format!("{}{path}", self.sandbox.url)).json(&body).send().await;
        assert!(answer.expect("the sandbox answers").status().is_success());
    }

    pub async fn fault(&self, fault: Value) {
        self.sandbox_post("/_sandbox/faults", fault).await;
    }

    pub async fn clear_faults(&self) {
        let cleared = self.http.delete(format!("{}/_sandbox/faults", self.sandbox.url)).send().await;
        assert!(cleared.expect("the sandbox answers").status().is_success());
    }

    /// Wipes the status, as a restore without it does.
    pub async fn lose_status(&self, name: &str) {
        let wipe = Patch::Merge(json!({"status": null}));
        let seen = self.tenants().patch_status(name, &PatchParams::default(), &wipe).await.expect("wiped");
        assert_eq!(seen.status, None);
    }

    /// Waits for an Event about the tenant.
    pub async fn wait_event(&self, name: &str, reason: &str) {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let about = ListParams::default().fields(&format!("regarding.name={name},reason={reason}"));
        let start = Instant::now();
        while events.list(&about).await.expect("the API answers").items.is_empty() {
            assert!(start.elapsed() < LIMIT, "no Event {reason}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn pay(&self, name: &str) {
        let status = self.wait(name, "waiting for payment", |s| s.checkout.is_some()).await;
        let url = status.checkout.expect("a link").url;
        let answer = self.http.post(url).form(&[("card", "4242424242424242")]).send().await.expect("the page answers");
        assert_eq!(answer.status(), 303);
    }

    pub async fn api_key(&self, name: &str) -> Vec<u8> {
        let secret = self.secrets().get(&format!("{name}-api-key")).await.expect("the Secret is there");
        secret.data.expect("data")["api-key"].0.clone()
    }

    /// Waits until a Secret is as wanted.
    pub async fn wait_secret(&self, name: &str, wanted: impl Fn(&Secret) -> bool) {
        let start = Instant::now();
        while !self.secrets().get_opt(name).await.expect("the API answers").as_ref().is_some_and(&wanted) {
            assert!(start.elapsed() < LIMIT, "Secret {name} is not as wanted");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How many mails whose Message-ID names this template were sent to the tenant: under one id, however often.
    pub async fn mails(&self, key: &str) -> usize {
        let mails = self.sandbox_get("/_sandbox/mails").await;
        let ids: std::collections::BTreeSet<_> = mails
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|m| m["message_id"].as_str())
            .filter(|id| id.contains(&format!(".{key}")))
            .collect();
        ids.len()
    }

    /// The links in the last e-mail to this address whose subject begins with this text.
    pub async fn mail_links(&self, to: &str, subject: &str) -> Vec<String> {
        let start = Instant::now();
        loop {
            let mails = self.sandbox_get("/_sandbox/mails").await;
            let ours = |m: &&Value| m["to"] == to && m["subject"].as_str().is_some_and(|s| s.starts_with(subject));
            if let Some(mail) = mails.as_array().into_iter().flatten().rfind(ours) {
                let links = mail["links"].as_array().into_iter().flatten().filter_map(Value::as_str);
                return links.map(str::to_owned).collect();
            }
            assert!(start.elapsed() < LIMIT, "no e-mail {subject:?} to {to}: {mails:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// There is exactly one namespace, Secret, customer, subscription and welcome mail, whatever went wrong on the way.
    pub async fn assert_one_of_each(&self, name: &str) {
        self.wait_true(name, "WelcomeEmailSent").await;
        let pinecone = self.sandbox_get("/_sandbox/pinecone").await;
        assert_eq!(pinecone["created"], 1, "namespaces: {pinecone}");
        let stripe = self.sandbox_get("/_sandbox/state").await;
        for kind in ["customer", "subscription", "invoice"] {
            assert_eq!(stripe[kind].as_array().map(Vec::len), Some(1), "{kind}: {stripe}");
        }
        assert_eq!(self.mails("welcome").await, 1);
        self.assert_transitions(name).await;
    }

    /// Each change of phase once, in order.
    pub async fn assert_transitions(&self, name: &str) {
        let transitions = self.status(name).await.transitions;
        let mut before = None;
        let mut seq = 0;
        for t in &transitions {
            assert_eq!(t.from_state, before, "{transitions:#?}");
            assert!(t.seq > seq, "{transitions:#?}");
            (before, seq) = (Some(t.to_state), t.seq);
        }
    }
}

pub fn tenant(name: &str, plan: &str, mode: BillingMode) -> Tenant {
    Tenant::new(
        name,
        TenantSpec {
            export_request: None,
            wish: None,
            suspension: None,
            plan_in_force: None,
            data: None,
            deletion_policy: None,
            company_name: "Analytical Engines".into(),
            admin_email: format!("{name}@example.com"),
            plan: plan.into(),
            billing: Billing { mode, approved: mode == BillingMode::Manual, stripe: None },
            tenant_id: None,
            login: None,
            terms: None,
            desired: Default::default(),
            settings: Default::default(),
            api_key_generation: 1,
        },
    )
}
