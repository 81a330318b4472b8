//! The controllers and replicas of web of a world: their arguments and environment, their start and end.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{BINARY, Process, WEBHOOK_SECRET, World, control_plane, folder, providers};

impl World {
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
            .env("LEDGER_ENDPOINT", self.ledger.url())
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
        self.start_ledger();
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
        self.start_ledger();
        let journal = self.ledger.next_journal();
        let (process, web, metrics) = self.web_process(&journal, args, log);
        (self.web, self.web_metrics) = (web, metrics);
        self.sandbox.send_webhooks_to(&format!("{}/webhooks/stripe", self.web));
        self.web_processes.push(process);
    }

    /// A process of web with this journal, where it listens, and where its metrics are.
    pub fn web_process(&self, journal: &Path, args: &[&str], log: Stdio) -> (Process, String, String) {
        let mut command = self.command("web");
        command.stderr(log);
        if !self.environment.iter().any(|(name, _)| name == "LEDGER_JOURNAL") {
            command.env("LEDGER_JOURNAL", journal);
        }
        command.args(["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--namespace", &self.namespace]);
        if !args.contains(&"--signups-per-minute") {
            command.args(["--signups-per-minute", "10000"]);
        }
        // On a busy machine, the controller can take longer for a payment link than web waits by default.
        if !args.contains(&"--checkout-wait-ms") && !args.iter().any(|arg| arg.starts_with("--checkout-wait-ms=")) {
            command.args(["--checkout-wait-ms", "15000"]);
        }
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().expect("web starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut said = |what: &str| {
            let line = lines.next().expect("web says where it listens").expect("text");
            line.strip_prefix(what).unwrap_or_else(|| panic!("{line}")).to_owned()
        };
        let (web, metrics) = (said("listening on "), said("metrics on "));
        (Process::of(child), web, metrics)
    }

    /// The first replica of web.
    pub fn first_web(&mut self) -> &mut Process {
        &mut self.web_processes[0]
    }

    /// The replica that was started last.
    pub fn last_web(&mut self) -> &mut Process {
        self.web_processes.last_mut().expect("a replica")
    }

    /// Kills the replica that was started last with SIGKILL.
    pub fn kill_last_web(&mut self) {
        self.web_processes.pop().expect("a replica").kill();
    }

    /// One that has ended.
    pub fn forget_first_web(&mut self) {
        self.web_processes.remove(0);
    }

    /// The processes that start from now on reach Kubernetes through a proxy.
    pub async fn proxy_kubernetes(&mut self) -> KubernetesProxy {
        let text = std::fs::read_to_string(&control_plane().kubeconfig).expect("a kubeconfig");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        let server = &mut config["clusters"][0]["cluster"]["server"];
        let upstream = server.as_str().and_then(|s| s.strip_prefix("https://")).expect("an address").to_owned();
        let proxy = KubernetesProxy::start("127.0.0.1:0", upstream).await;
        *server = json!(format!("https://{}", proxy.address));
        self.kubeconfig = folder(&format!("{}.kubeconfig", self.namespace));
        std::fs::write(&self.kubeconfig, config.to_string()).expect("written");
        proxy
    }
}

/// What stands between the programs and the API server, and can be away. Tests that use it need a runtime with several
/// threads: the proxy must run while the test waits for a program to say where it listens.
pub struct KubernetesProxy {
    address: String,
    upstream: String,
    serving: tokio::task::JoinHandle<()>,
}

impl KubernetesProxy {
    async fn start(address: &str, upstream: String) -> Self {
        let listener = tokio::net::TcpListener::bind(address).await.expect("a port");
        let (address, to) = (listener.local_addr().expect("an address").to_string(), upstream.clone());
        let serving = tokio::spawn(async move {
            // Dropped with this task, and with it every connection.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let to = to.clone();
                connections.spawn(async move {
                    let mut far = tokio::net::TcpStream::connect(to).await?;
                    tokio::io::copy_bidirectional(&mut near, &mut far).await
                });
            }
        });
        Self { address, upstream, serving }
    }

    /// Ends every connection and takes no new one.
    pub async fn stop(&mut self) {
        self.serving.abort();
        // The connections are gone once the task has ended.
        assert!((&mut self.serving).await.is_err());
    }

    /// Serves again, at the same address.
    pub async fn resume(&mut self) {
        *self = Self::start(&self.address.clone(), self.upstream.clone()).await;
    }
}
