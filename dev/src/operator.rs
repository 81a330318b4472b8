//! The ledger, the controller and web, as they are shipped: the program beside this one.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join3;
use serde_json::Value;
use tokio::process::Command;

use crate::OPERATOR_NAMESPACE;
use crate::access::Access;
use crate::process::{Process, answers};
use crate::providers::Providers;

const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The running ledger, controller and web.
pub struct Operator {
    ledger: Process,
    controller: Process,
    web: Process,
}

/// Where the ledger, the controller and web listen.
#[derive(Clone, Copy)]
pub struct Addresses {
    /// The controller's health and metrics.
    controller: SocketAddr,
    /// The ledger's API.
    pub ledger: SocketAddr,
    /// The owners' door, which the ledger serves.
    pub admin: SocketAddr,
    /// Web's pages and API.
    pub web: SocketAddr,
    /// Web's metrics.
    pub metrics: SocketAddr,
}

impl Addresses {
    /// The requested port for web, or any that is free.
    pub fn choose(web_port: u16) -> std::io::Result<Self> {
        let bind = |port| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        // Bound at the same time, so that they differ.
        let (web, controller, ledger) = (bind(web_port).or_else(|_| bind(0))?, bind(0)?, bind(0)?);
        let (admin, metrics) = (bind(0)?, bind(0)?);
        Ok(Self {
            controller: controller.local_addr()?,
            ledger: ledger.local_addr()?,
            admin: admin.local_addr()?,
            web: web.local_addr()?,
            metrics: metrics.local_addr()?,
        })
    }
}

/// What they have in common.
pub struct Setup<'a> {
    /// The program `tenant-operator`.
    pub program: PathBuf,
    pub access: &'a Access,
    pub providers: &'a Providers,
    /// For logs, events and the ledger's data.
    pub folder: &'a Path,
    /// The file with the ledger's key.
    pub ledger_key: &'a Path,
    /// What services show that report usage.
    pub usage_events_token: &'a str,
    /// What opens `/admin`.
    pub admin_token: &'a str,
}

/// The shipped program, which is built into the folder of this one.
pub fn program() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("tenant-operator");
    anyhow::ensure!(
        program.is_file(),
        "{} is missing: run `cargo build --workspace`, or `make dev`, which does",
        program.display()
    );
    Ok(program)
}

impl Setup<'_> {
    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(subcommand).args(self.access.args()).env("POD_NAMESPACE", OPERATOR_NAMESPACE);
        self.providers.tell(&mut command);
        command
    }

    /// The ledger: in the database that the user names, or in a folder.
    fn ledger(&self, at: Addresses) -> Command {
        let mut ledger = self.command("ledger");
        ledger.env("LEDGER_LISTEN", at.ledger.to_string()).env("LEDGER_KEY_FILE", self.ledger_key);
        ledger.env("LEDGER_METRICS_LISTEN", "127.0.0.1:0");
        // Those of a shell that has sourced the `env` file of another run are not of this one.
        ledger.env("ADMIN_LISTEN", at.admin.to_string()).env("ADMIN_TOKEN", self.admin_token);
        ledger.env_remove("ADMIN_TOKEN_FILE").env("ADMIN_URL", format!("http://{}", at.admin));
        if std::env::var_os("LEDGER_URL").is_none_or(|url| url.is_empty()) {
            ledger.env_remove("LEDGER_URL").env("LEDGER_DATA", self.folder.join("ledger"));
        }
        ledger
    }

    /// Starts the ledger, the controller and web. `webhook_secret` is that of web's endpoint at Stripe.
    pub fn start(&self, at: Addresses, webhook_secret: &str) -> anyhow::Result<Operator> {
        let endpoint = format!("http://{}", at.ledger);
        let mut controller = self.command("controller");
        controller.env("CONTROLLER_LISTEN", at.controller.to_string()).env("LEDGER_ENDPOINT", &endpoint);
        let mut web = self.command("web");
        web.args(["--checkout-wait-ms", "10000", "--shutdown-delay", "0"])
            .env("WEB_LISTEN", at.web.to_string())
            .env("WEB_METRICS_LISTEN", at.metrics.to_string())
            .env("TENANT_NAMESPACE", "default")
            .env("STRIPE_WEBHOOK_SECRET", self.providers.webhook_secrets(webhook_secret))
            .env("USAGE_EVENTS_TOKEN", self.usage_events_token)
            .env("EVENTS_FILE", self.folder.join("events.jsonl"))
            .env("LEDGER_ENDPOINT", &endpoint)
            .env("LEDGER_JOURNAL", self.folder.join("journal"))
            // One person and one address stand for many.
            .env("REQUESTS_PER_SECOND", "100")
            .env("CLIENT_REQUESTS_PER_SECOND", u32::MAX.to_string())
            .env("SIGNUPS_PER_MINUTE", "1000");
        Ok(Operator {
            ledger: Process::start("ledger", &mut self.ledger(at), self.folder)?,
            controller: Process::start("controller", &mut controller, self.folder)?,
            web: Process::start("web", &mut web, self.folder)?,
        })
    }

    /// Every e-mail with example values, as the controller would send it.
    pub async fn mail_previews(&self) -> anyhow::Result<Value> {
        let output = self.command("mail-previews").output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "the e-mails cannot be shown: {}", said.trim());
        serde_json::from_slice(&output.stdout).context("reading the e-mails")
    }
}

/// Waits until the ledger, the controller and web are ready.
pub async fn ready(at: Addresses) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
    let ready = |address: SocketAddr| {
        let http = http.clone();
        answers(move || http.get(format!("http://{address}/readyz")))
    };
    let all = join3(ready(at.ledger), ready(at.controller), ready(at.web));
    tokio::time::timeout(START_LIMIT, all).await.map(drop).with_context(|| {
        format!(
            "the ledger, the controller and web were not ready after {} s: ledger.log, controller.log and web.log \
                say why",
            START_LIMIT.as_secs()
        )
    })
}

impl Operator {
    /// Waits until one of them ends by itself.
    pub async fn ended(&mut self) -> anyhow::Error {
        tokio::select! {
            error = self.ledger.ended() => error,
            error = self.controller.ended() => error,
            error = self.web.ended() => error,
        }
    }

    /// Stops web, which customers use, then the controller, and last the ledger, which gets what they still have to
    /// say.
    pub async fn stop(mut self) {
        self.web.stop(STOP_LIMIT).await;
        self.controller.stop(STOP_LIMIT).await;
        self.ledger.stop(STOP_LIMIT).await;
    }
}
