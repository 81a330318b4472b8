//! Checks of an installation before customers come: each says what it found, why that matters and how to fix it.
//!
//! The checks of one area run one after the other, the areas side by side. A check whose ground is missing (a key that
//! is refused, say) is skipped, so that one cause is reported once.

mod access;
mod clock;
mod kubernetes;
mod ledger;
mod mail;
mod openai;
mod pinecone;
mod report;
mod sender;
mod stripe;
mod web;

use std::collections::HashMap;
use std::net::SocketAddr;

use futures::future::{BoxFuture, join_all};
use kube::Client;
use reqwest::Url;
use secrecy::SecretString;
use tokio::sync::OnceCell;

use crate::api::Plan;
use crate::api::plan::Models;
use crate::pins::{Finding as PinFinding, Pins};
use crate::providers::ProviderError;
use crate::providers::indexes::Indexes;
use crate::providers::mail::Mail;
use crate::providers::openai::OpenAi;
use crate::providers::stripe::Stripe;

pub use report::{Finding, Report, Verdict, reference};

/// What the checks look at. A setting that is missing is None, and a check reports it.
pub struct Target {
    /// A client of the cluster, or why there is none.
    pub kubernetes: Result<Client, String>,
    /// Where the operator's own Secrets and Lease are.
    pub operator_namespace: String,
    /// Where signups create Tenants, where this pod knows it.
    pub signup_namespace: Option<String>,
    /// Whether that may be the operator's own namespace.
    pub shared_signup_namespace: bool,
    /// The watched namespaces; all when empty.
    pub namespaces: Vec<String>,
    /// Check the rights of this account as well.
    pub permissions: bool,
    /// Stripe and its key.
    pub stripe: Option<(Stripe, SecretString)>,
    /// Whether Stripe is the real one.
    pub real_stripe: bool,
    /// The webhook secrets, where this pod has them.
    pub webhook_secrets: Option<Vec<SecretString>>,
    /// Where customers reach the service.
    pub frontend_url: String,
    /// Pinecone's indexes.
    pub indexes: Option<Indexes>,
    /// Namespaces that the account allows for the index.
    pub namespace_limit: u64,
    /// `OpenAI`.
    pub openai: Option<OpenAi>,
    /// The mail server, or what is wrong with its setting.
    pub mail: Option<Result<Mail, String>>,
    /// The sender of e-mails.
    pub from_email: String,
    /// The selectors of its DKIM keys.
    pub dkim_selectors: Vec<String>,
    /// The name server to ask; the system's when absent.
    pub dns_server: Option<SocketAddr>,
    /// Send a test e-mail to this address.
    pub test_mail: Option<String>,
    /// Where web is reached.
    pub web_url: Option<String>,
    /// Where the ledger is reached.
    pub ledger_url: Option<Url>,
    /// Whether something may be written at the providers, and taken away again.
    pub writes: bool,
    /// Whether only what keeps a controller from starting counts as failed; the rest warns.
    pub startup: bool,
    /// The Plans, read once.
    pub plans: OnceCell<Vec<Plan>>,
}

/// What a check found.
pub enum CheckOutcome {
    /// All is well; a detail worth showing.
    Ok(String),
    /// Works, and will not always.
    Warning(Defect),
    /// Does not work.
    Failed(Defect),
    /// Could not be looked at, and why.
    Skipped(String),
}

/// What is wrong, and what to do.
pub struct Defect {
    reason: String,
    fix: String,
}

impl CheckOutcome {
    fn failed(reason: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Failed(Defect { reason: reason.into(), fix: fix.into() })
    }

    fn warning(reason: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Warning(Defect { reason: reason.into(), fix: fix.into() })
    }

    /// A call that failed: an outage may be over by itself, anything else needs the fix.
    fn of(target: &Target, error: &ProviderError, fix: &str) -> Self {
        let outage = error.status.is_none_or(|status| status >= 500 || status == 429);
        let fix = if outage {
            "Check the provider's status page and this pod's connection to it, then try again"
        } else {
            fix
        };
        if outage && target.startup {
            Self::warning(error.to_string(), fix)
        } else {
            Self::failed(error.to_string(), fix)
        }
    }
}

/// A check.
pub struct Check {
    /// Its area and name, such as `stripe/key`.
    pub name: &'static str,
    /// What is so when it passes.
    pub title: &'static str,
    /// Why it matters.
    pub about: &'static str,
    /// Whether a controller should rather not start. Anything else only warns at a start: a webhook endpoint, say, is
    /// registered once there is something to call.
    blocks_start: bool,
    /// The check of the same area without which this one makes no sense.
    needs: Option<&'static str>,
    /// Whether it writes something at a provider, and takes it away again.
    writes: bool,
    run: for<'a> fn(&'a Target) -> BoxFuture<'a, CheckOutcome>,
}

/// All checks, by area.
pub fn checks() -> Vec<&'static [Check]> {
    vec![
        kubernetes::CHECKS,
        access::CHECKS,
        stripe::CHECKS,
        pinecone::CHECKS,
        openai::CHECKS,
        mail::CHECKS,
        sender::CHECKS,
        web::CHECKS,
        ledger::CHECKS,
        clock::CHECKS,
    ]
}

/// Runs all checks of the areas that are wanted; of all areas when none is named.
pub async fn run(target: &Target, areas: &[String]) -> Report {
    let wanted = |checks: &&[Check]| {
        areas.is_empty() || checks.first().is_some_and(|c| areas.iter().any(|area| c.area() == area))
    };
    let findings = join_all(checks().into_iter().filter(wanted).map(|checks| area(target, checks))).await;
    Report { findings: findings.concat() }
}

impl Check {
    /// The part before the slash.
    pub fn area(&self) -> &'static str {
        self.name.split('/').next().unwrap_or(self.name)
    }
}

async fn area(target: &Target, checks: &'static [Check]) -> Vec<Finding> {
    let mut verdicts: HashMap<&str, Verdict> = HashMap::new();
    let mut findings = Vec::new();
    for check in checks {
        let blocked = check.needs.filter(|needs| !matches!(verdicts.get(needs), Some(Verdict::Ok | Verdict::Warning)));
        let outcome = match blocked {
            Some(needs) => CheckOutcome::Skipped(format!("{needs} did not pass")),
            None if check.writes && !target.writes => CheckOutcome::Skipped("it writes at the provider".into()),
            None => (check.run)(target).await,
        };
        let outcome = match outcome {
            CheckOutcome::Failed(problem) if target.startup && !check.blocks_start => CheckOutcome::Warning(problem),
            other => other,
        };
        let finding = Finding::of(check, outcome);
        verdicts.insert(check.name, finding.verdict);
        findings.push(finding);
    }
    findings
}

/// What a comparison with the pins says.
fn pinned(finding: PinFinding) -> CheckOutcome {
    match finding {
        PinFinding::Same => CheckOutcome::Ok(String::new()),
        PinFinding::New => CheckOutcome::Ok("not pinned yet: the controller does that when it starts".into()),
        PinFinding::Another { what, fix } => CheckOutcome::failed(what, fix),
    }
}

impl Target {
    /// What is pinned, or why that is not known.
    async fn pins(&self) -> Result<Pins, CheckOutcome> {
        let Ok(client) = &self.kubernetes else { return Err(CheckOutcome::Skipped("needs the cluster".into())) };
        Pins::read(client, &self.operator_namespace).await.map_err(|error| {
            CheckOutcome::failed(
                error.to_string(),
                "Let this account read ConfigMap tenant-operator-pins in the operator's namespace (--operator-namespace)",
            )
        })
    }

    /// The Plans. Empty if they cannot be read, which the checks of Kubernetes report.
    async fn plans(&self) -> &[Plan] {
        self.plans
            .get_or_init(|| async {
                let Ok(client) = &self.kubernetes else { return Vec::new() };
                let plans = kube::Api::<Plan>::all(client.clone());
                plans.list(&kube::api::ListParams::default()).await.map(|list| list.items).unwrap_or_default()
            })
            .await
    }

    /// Embedding models that the Plans name.
    async fn embedding_models(&self) -> Vec<String> {
        let of = |models: &Models| models.embeddings().map(ToString::to_string).collect();
        self.models(of).await
    }

    /// Models that the Plans name; the default ones without Plans.
    async fn models(&self, of: fn(&Models) -> Vec<String>) -> Vec<String> {
        let mut all: Vec<String> = self.plans().await.iter().flat_map(|plan| of(&plan.spec.models)).collect();
        all.sort();
        all.dedup();
        if all.is_empty() { of(&Models::default()) } else { all }
    }
}
