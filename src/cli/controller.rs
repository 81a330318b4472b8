//! `tenant-operator controller`

use std::net::SocketAddr;
use std::time::Duration;

use super::provider_args::{ExportArgs, ProviderArgs};
use super::{KubeArgs, span, stop_signal};
use crate::controller::{BrakeConfig, ControllerConfig, LeadConfig, LeaseConfig, run as run_controller};
use crate::lifecycle::{EmailVerification, Policy, Regions};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    providers: ProviderArgs,
    #[command(flatten)]
    pub work: WorkArgs,
    /// Address for health and metrics.
    #[arg(long, env = "CONTROLLER_LISTEN", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
}

/// When the e-mail address of a signup is confirmed.
#[derive(clap::ValueEnum, Clone, Copy)]
#[value(rename_all = "camelCase")]
pub enum Verification {
    BeforeProvisioning,
    BeforePayment,
    Off,
}

/// How the work is done.
#[derive(clap::Args, Clone)]
pub struct WorkArgs {
    /// Watch Tenants in these namespaces only, comma-separated. Default: all namespaces.
    #[arg(long = "namespace", env = "WATCH_NAMESPACE", value_delimiter = ',', overrides_with = "namespaces")]
    pub namespaces: Vec<String>,
    /// Namespace of the operator's own Secrets and Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub operator_namespace: String,
    /// Maximum number of concurrent reconciles. A quarter is reserved for signups, payments and deletions.
    #[arg(long, default_value = "64")]
    pub concurrency: u16,
    /// How long to wait before each retry of provisioning, comma-separated; one retry per entry.
    #[arg(long, env = "RETRY_WAITS", value_delimiter = ',', default_value = "1m,2m,4m", overrides_with = "retry_waits", value_parser = span::seconds)]
    pub retry_waits: Vec<i64>,
    /// Lengthen each of these waits by up to this percentage, so that tenants do not all retry at once.
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub retry_jitter_percent: u32,
    /// Timeout of one provisioning attempt.
    #[arg(long, default_value = "5m", value_parser = span::seconds)]
    pub attempt_limit: i64,
    /// Delete unpaid signups after this time. The payment link of a Tenant from a manifest is renewed for as long;
    /// after that, a new one is created on request.
    #[arg(long, default_value = "7d", value_parser = span::seconds)]
    pub signup_ttl: i64,
    /// Renew the payment link of a tenant whose subscription has ended for this long after the suspension. After that,
    /// a new one is created when the customer or `kubectl tenant open` asks for it.
    #[arg(long, default_value = "1d", value_parser = span::seconds)]
    pub link_renewal: i64,
    /// When a customer who signs up must confirm the e-mail address: before anything is set up, before there is a
    /// payment link, or never. Tenants from manifests need no confirmation.
    #[arg(long, env = "EMAIL_VERIFICATION", default_value = "beforeProvisioning")]
    pub email_verification: Verification,
    /// Fail and refund a tenant that is paid for, and whose e-mail address is not confirmed after this time.
    #[arg(long, default_value = "7d", value_parser = span::seconds)]
    pub verification_limit: i64,
    /// Remind a customer who has asked no question this long after the start; 0 for never.
    #[arg(long, env = "NUDGE_AFTER", default_value = "1d", value_parser = span::seconds)]
    pub nudge_after: i64,
    /// Invite a customer who closed the account and agreed to offers back, once, after this time; 0 for never.
    #[arg(long, env = "WIN_BACK_AFTER", default_value = "7d", value_parser = span::seconds)]
    pub win_back_after: i64,
    /// Suspend a tenant whose payment has been late for this long.
    #[arg(long, env = "PAYMENT_GRACE", default_value = "7d", value_parser = span::seconds)]
    pub payment_grace: i64,
    /// Suspend a tenant whose customer disputes a payment at their bank, until the dispute is won or accepted. Without
    /// it, the dispute is shown and alerted.
    #[arg(long, env = "SUSPEND_DISPUTED", value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set, num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub suspend_disputed: bool,
    /// Interval at which Stripe events are checked for missed webhooks.
    #[arg(long, default_value = "10m", value_parser = span::seconds)]
    pub resync: i64,
    /// Interval at which all tenants are compared with Stripe and Pinecone.
    #[arg(long, default_value = "1h", value_parser = span::seconds)]
    pub full_resync: i64,
    /// How long to wait before a failed e-mail, alert or cleanup is retried; the wait doubles with each failure in a
    /// row.
    #[arg(long, default_value = "30s", value_parser = span::seconds)]
    pub notice_retry: i64,
    /// Delete login Secrets without a Tenant after this time.
    #[arg(long, default_value = "1h", value_parser = span::seconds)]
    pub orphan_ttl: i64,
    /// Delete messages to the sales team and entries of the waitlist this long after they were last written, or the
    /// writer was admitted.
    #[arg(long, env = "LEAD_TTL", default_value = "90d", value_parser = span::some_seconds)]
    pub lead_ttl: i64,
    /// How long to wait before a tenant on hold is retried. Tenants are on hold while they wait for you to fix
    /// something.
    #[arg(long, default_value = "30s", value_parser = span::seconds)]
    pub hold_retry: i64,
    /// Fail and refund a tenant that has been on hold for this long. One that was served before waits without a limit.
    #[arg(long, default_value = "1h", value_parser = span::seconds)]
    pub hold_limit: i64,
    /// Show a tenant as slow, and alert, when it is not Active this long after its payment.
    #[arg(long, default_value = "5m", value_parser = span::seconds)]
    pub slow_after: i64,
    /// While the controller is overloaded, delay welcome e-mails by up to this time.
    #[arg(long, default_value = "20s", value_parser = span::seconds)]
    pub welcome_hold: i64,
    /// Time after which uploads that began before a tenant was closed have ended: web's --upload-limit. Then an erasure
    /// deletes the data once more.
    #[arg(long, env = "UPLOAD_LIMIT", default_value = "5m", value_parser = span::seconds)]
    pub upload_limit: i64,
    #[command(flatten)]
    pub exports: ExportArgs,
    /// Delete the files of an export after this time.
    #[arg(long, env = "EXPORTS_KEPT", default_value = "7d", value_parser = span::some_seconds)]
    pub exports_kept: i64,
    /// Fail an export that is not complete after this time. Until then it is retried.
    #[arg(long, default_value = "1d", value_parser = span::seconds)]
    pub export_limit: i64,
    /// Keep the old vectors of a tenant whose documents were embedded with another model for this long. Until then, no
    /// other such move of the tenant begins.
    #[arg(long, env = "MIGRATION_OVERLAP", default_value = "1h", value_parser = span::some_seconds)]
    pub migration_overlap: i64,
    /// Give up on embedding a tenant's documents with another model when it is not complete after this time. Until then
    /// it is retried.
    #[arg(long, default_value = "1d", value_parser = span::seconds)]
    pub migration_limit: i64,
    /// File to append activation events to, one line of JSON each. Default: the log, under the target activation.
    #[arg(long, env = "EVENTS_FILE", default_value = "")]
    pub events_file: String,
    /// File to append every change of phase to, one line of JSON each, before it may leave the status. A line may come
    /// twice; `tenant_id` and seq name it. Default: the log, under the target transition.
    #[arg(long, env = "TRANSITIONS_FILE", default_value = "")]
    pub transitions_file: String,
    /// Hold further suspensions, failures, closings or erasures, each counted separately, once they affect this
    /// percentage of all tenants within --brake-window, until you confirm them with `kubectl tenant confirm`. 100 holds
    /// nothing.
    #[arg(long, env = "BRAKE_PERCENT", default_value = "5", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub brake_percent: u8,
    /// Hold nothing until this many tenants are affected.
    #[arg(long, env = "BRAKE_AT_LEAST", default_value = "10")]
    pub brake_at_least: u32,
    /// Time within which they are counted.
    #[arg(long, env = "BRAKE_WINDOW", default_value = "1h", value_parser = span::some_seconds)]
    pub brake_window: i64,
    /// URL of the ledger, which counts what tenants use.
    #[arg(long, env = "LEDGER_ENDPOINT", default_value = "http://127.0.0.1:8084", overrides_with = "ledger_url")]
    pub ledger_url: reqwest::Url,
    /// How often the controller reads from the ledger what tenants used, and writes it to their statuses.
    #[arg(long, env = "USAGE_INTERVAL", default_value = "1m", value_parser = span::some_seconds)]
    pub usage_interval: i64,
    /// Time after which the usage of a tenant is sent to Stripe and compared again. It is done in each hour anyway.
    #[arg(long, default_value = "1h", value_parser = span::some_seconds, hide = true)]
    pub usage_billing_interval: i64,
    /// Time for which Stripe's sums may lack what was sent. Until it is over, numbers that differ are neither shown nor
    /// settled.
    #[arg(long, default_value = "15m", value_parser = span::some_seconds, hide = true)]
    pub usage_billing_lag: i64,
    /// Send the usage of at most this many tenants to Stripe at the same time. 16 are enough for 20,000 tenants with
    /// usage prices; see also --stripe-rate.
    #[arg(long, env = "USAGE_BILLING_CONCURRENCY", default_value = "16", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub usage_billing_concurrency: u16,
    /// Time after the leader's last renewal until another replica may take over. A leader that shuts down cleanly
    /// gives up its lease at once.
    #[arg(long, default_value = "12s", value_parser = span::some_seconds)]
    pub lease_duration: i64,
}

impl WorkArgs {
    pub fn config(&self, listen: SocketAddr, data_processing_agreement: bool) -> anyhow::Result<ControllerConfig> {
        let exports = self.exports.open()?;
        let host = std::env::var("POD_NAME").unwrap_or_else(|_| "local".into());
        Ok(ControllerConfig {
            namespaces: self.namespaces.iter().filter(|n| !n.is_empty()).cloned().collect(),
            operator_namespace: self.operator_namespace.clone(),
            policy: Policy {
                retry_waits: self.retry_waits.clone(),
                jitter_percent: self.retry_jitter_percent,
                attempt_limit: self.attempt_limit,
                signup_ttl: self.signup_ttl,
                link_renewal: self.link_renewal,
                email_verification: match self.email_verification {
                    Verification::BeforeProvisioning => EmailVerification::BeforeProvisioning,
                    Verification::BeforePayment => EmailVerification::BeforePayment,
                    Verification::Off => EmailVerification::Off,
                },
                verification_limit: self.verification_limit,
                nudge_after: self.nudge_after,
                win_back_after: self.win_back_after,
                data_processing_agreement,
                payment_grace: self.payment_grace,
                suspend_disputed: self.suspend_disputed,
                resync: self.resync,
                full_resync: self.full_resync,
                notice_retry: self.notice_retry,
                orphan_ttl: self.orphan_ttl,
                upload_limit: self.upload_limit,
                hold_retry: self.hold_retry,
                hold_limit: self.hold_limit,
                slow_after: self.slow_after,
                outbox: true,
                // Those of the providers' settings.
                regions: Regions::default(),
                migration_overlap: self.migration_overlap,
                migration_limit: self.migration_limit,
                exports_kept: (!exports.is_empty()).then_some(self.exports_kept),
                export_limit: self.export_limit,
                welcome_hold: self.welcome_hold,
            },
            concurrency: self.concurrency,
            listen,
            more_routes: axum::Router::new(),
            exports,
            events_file: (!self.events_file.is_empty()).then(|| self.events_file.clone().into()),
            transitions_file: (!self.transitions_file.is_empty()).then(|| self.transitions_file.clone().into()),
            brake: BrakeConfig {
                percent: self.brake_percent.into(),
                at_least: usize::try_from(self.brake_at_least)?,
                window: self.brake_window,
            },
            leads: LeadConfig { ttl: self.lead_ttl, operator_namespace: self.operator_namespace.clone() },
            ledger: self.ledger_url.clone(),
            usage_interval: Duration::from_secs(self.usage_interval.unsigned_abs()),
            billing_interval: Duration::from_secs(self.usage_billing_interval.unsigned_abs()),
            billing_lag: self.usage_billing_lag,
            billing_concurrency: self.usage_billing_concurrency.into(),
            lease: LeaseConfig {
                identity: format!("{host}-{}", hex::encode(rand::random::<[u8; 6]>())),
                duration: Duration::from_secs(self.lease_duration.unsigned_abs()),
            },
        })
    }
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    crate::telemetry::init_traces("controller")?;
    let client = kube.client().await?;
    let config = ControllerConfig {
        more_routes: super::preflight::routes(kube)?,
        ..args.work.config(args.listen, !args.providers.dpa_url.is_empty())?
    };
    Ok(run_controller(client, config, args.providers.build()?, stop_signal()).await?)
}
