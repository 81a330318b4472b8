//! `tenant-operator controller`

use std::net::SocketAddr;
use std::time::Duration;

use super::provider_args::ProviderArgs;
use super::{KubeArgs, stop_signal};
use crate::controller::{ControllerConfig, LeaseConfig, run as run_controller};
use crate::lifecycle::Policy;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    providers: ProviderArgs,
    #[command(flatten)]
    pub work: WorkArgs,
    /// Where health and metrics are served.
    #[arg(long, env = "CONTROLLER_LISTEN", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
}

/// How the work is done.
#[derive(clap::Args, Clone)]
pub struct WorkArgs {
    /// Watch the Tenants of this namespace alone; all namespaces when absent.
    #[arg(long, env = "WATCH_NAMESPACE")]
    pub namespace: Option<String>,
    /// Where the operator's own Secrets and Lease are.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub operator_namespace: String,
    /// Tenants worked on at the same time.
    #[arg(long, default_value = "64")]
    pub concurrency: u16,
    /// The waits between attempts to provision, in seconds; as many retries as entries.
    #[arg(long, value_delimiter = ',', default_value = "60,120,240")]
    pub retry_waits: Vec<i64>,
    /// Each of these waits is lengthened by up to this percentage, so that not all tenants come back at once.
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub retry_jitter_percent: u32,
    /// The limit of one attempt, in seconds.
    #[arg(long, default_value = "300")]
    pub attempt_limit: i64,
    /// A signup that is not paid for after so many seconds is removed.
    #[arg(long, default_value = "604800")]
    pub signup_ttl: i64,
    /// How often the truth is read back from the providers, in seconds.
    #[arg(long, default_value = "600")]
    pub resync: i64,
    /// The wait before a failed e-mail, alert or clean-up is tried again, in seconds.
    #[arg(long, default_value = "30")]
    pub notice_retry: i64,
    /// A tenant that is not Active so many seconds after its payment is shown as slow, and ops are alerted.
    #[arg(long, default_value = "300")]
    pub slow_after: i64,
    /// While many tenants are being provisioned, a welcome e-mail waits for them so many seconds at most.
    #[arg(long, default_value = "20")]
    pub welcome_hold: i64,
    /// How long others wait after the last renewal of the leader's lease, in seconds.
    #[arg(long, default_value = "15")]
    pub lease_duration: u64,
}

impl WorkArgs {
    pub fn config(&self, listen: Option<SocketAddr>) -> ControllerConfig {
        let host = std::env::var("POD_NAME").unwrap_or_else(|_| "local".into());
        ControllerConfig {
            namespace: self.namespace.clone(),
            operator_namespace: self.operator_namespace.clone(),
            policy: Policy {
                retry_waits: self.retry_waits.clone(),
                jitter_percent: self.retry_jitter_percent,
                attempt_limit: self.attempt_limit,
                signup_ttl: self.signup_ttl,
                resync: self.resync,
                notice_retry: self.notice_retry,
                slow_after: self.slow_after,
                welcome_hold: self.welcome_hold,
            },
            concurrency: self.concurrency,
            listen,
            lease: LeaseConfig {
                identity: format!("{host}-{}", hex::encode(rand::random::<[u8; 6]>())),
                duration: Duration::from_secs(self.lease_duration.max(1)),
            },
        }
    }
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let client = kube.client().await?;
    let config = args.work.config(Some(args.listen));
    Ok(run_controller(client, config, args.providers.build()?, stop_signal()).await?)
}
