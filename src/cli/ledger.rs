//! `tenant-operator ledger`

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt as _;
use secrecy::{ExposeSecret, SecretString};

use super::admin_args::AdminArgs;
use super::{KubeArgs, ledger_rebuild, span, stop_signal};
use crate::admin::AdminServer;
use crate::ledger::snapshots::Snapshots;
use crate::ledger::{Ledger, LedgerConfig, LedgerKey, LedgerPlace};

/// Each snapshot copies the whole file.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Count what tenants use: reserve, settle and void, with exact limits.
///
/// With --data, one process owns the folder, and a second one refuses to start. With --url, several replicas may run.
/// The operator's other parts reach the ledger by HTTP with its key. The time is the API server's.
///
/// With --admin-listen, the same process serves `/admin`: who signs up, where customers stop, and who needs help.
///
/// Try it: `openssl rand -hex 32 > ledger.key`, then `tenant-operator ledger --own-clock --data ledger --key-file
/// ledger.key`. docs/ledger.md describes the API.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<LedgerCommand>,
    /// Address to listen on.
    #[arg(long, env = "LEDGER_LISTEN", default_value = "127.0.0.1:8084")]
    listen: SocketAddr,
    /// Address for metrics and probes. The ledger's clients need not reach it.
    #[arg(long, env = "LEDGER_METRICS_LISTEN", default_value = "127.0.0.1:8085")]
    metrics_listen: SocketAddr,
    #[command(flatten)]
    place: PlaceArgs,
    /// Storage for snapshots of the folder, which a ledger with an empty folder begins with: `file:///a/folder`, or
    /// `s3://bucket/folder` with the variables of the AWS tools, such as `AWS_ACCESS_KEY_ID`. Default: no snapshots.
    #[arg(long, env = "LEDGER_SNAPSHOTS", value_name = "URL", requires = "data")]
    snapshots: Option<String>,
    /// How often a snapshot is taken.
    #[arg(long, env = "LEDGER_SNAPSHOT_INTERVAL", default_value = "5m", value_parser = span::duration)]
    snapshot_interval: Duration,
    /// File with the key that clients must show: 32 bytes, or 64 lower-case hexadecimal digits (`openssl rand -hex
    /// 32`).
    #[arg(long, env = "LEDGER_KEY_FILE", value_name = "FILE", required = true)]
    key_file: Option<PathBuf>,
    /// Megabytes that the answers kept for idempotency keys may take, those of all tenants together. Beyond it, the
    /// oldest answers make room.
    #[arg(long, env = "LEDGER_ANSWERS_MB", value_name = "MEGABYTES", default_value = "500",
        value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    answers_mb: i64,
    /// `ClickHouse` database for a copy of the lines, to sum and list them at any size:
    /// `clickhouse://user:password@host:8123/database`, or `clickhouses://` for TLS. The ledger never waits for it.
    /// Default: the file `events.db` in --data; with --url, none.
    #[arg(long, env = "EVENTS_URL", hide_env_values = true, value_name = "URL")]
    events_url: Option<SecretString>,
    /// How long the events store keeps lines, at least 2d. By default it deletes none. The ledger keeps its own lines in
    /// any case.
    #[arg(long, env = "EVENTS_RETENTION", value_name = "DURATION", value_parser = retention)]
    events_retention: Option<Duration>,
    /// Go by this machine's clock instead of the API server's. The ledger then needs no cluster.
    #[arg(long, env = "LEDGER_OWN_CLOCK", value_parser = clap::builder::FalseyValueParser::new())]
    own_clock: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// What is done with a ledger that runs.
#[derive(clap::Subcommand)]
enum LedgerCommand {
    Rebuild(ledger_rebuild::Args),
}

/// Closed hours of some days are compared with the copy again and again.
const SHORTEST_RETENTION: Duration = Duration::from_hours(48);

fn retention(text: &str) -> Result<Duration, String> {
    let retention = span::duration(text).map_err(|error| error.to_string())?;
    if retention < SHORTEST_RETENTION { Err("write at least 2d".into()) } else { Ok(retention) }
}

/// Where the ledger is kept.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct PlaceArgs {
    /// Folder of the ledger's files, on a volume that outlives the pod. It is created if it is missing.
    #[arg(long, env = "LEDGER_DATA", value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Postgres database to use instead: `postgres://user:password@host:5432/database?sslmode=require`
    #[arg(long, env = "LEDGER_URL", hide_env_values = true, value_name = "URL")]
    url: Option<SecretString>,
}

impl PlaceArgs {
    fn place(self, snapshots: Option<Snapshots>) -> Option<LedgerPlace> {
        self.url.map(LedgerPlace::Postgres).or_else(|| Some(LedgerPlace::Folder(self.data?, snapshots)))
    }
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    if let Some(LedgerCommand::Rebuild(args)) = args.command {
        return ledger_rebuild::run(&args).await;
    }
    crate::telemetry::init_traces("ledger")?;
    let admin = match args.admin.config(kube).await {
        Ok(config) => config,
        Err(error) => without_admin(&error),
    };
    let client = if args.own_clock {
        None
    } else {
        Some(kube.client().await.context(
            "the ledger takes the time from the API server; with --own-clock it goes by this machine's clock",
        )?)
    };
    let open = |url: String| Snapshots::open(&url, args.snapshot_interval.max(SHORTEST_INTERVAL));
    let snapshots = args.snapshots.filter(|url| !url.is_empty()).map(open).transpose()?;
    let place = args.place.place(snapshots).context("set --data or --url")?;
    let key = LedgerKey::read(&args.key_file.context("set --key-file")?)?;
    let config = LedgerConfig {
        listen: args.listen,
        metrics_listen: args.metrics_listen,
        place,
        key,
        answer_bytes: args.answers_mb * 1_000_000,
        client,
        events: args.events_url.filter(|url| !url.expose_secret().is_empty()),
        retention: args.events_retention,
    };
    let ledger = Ledger::bind(config).await?;
    // In one piece: the reader of the first line may be gone afterwards.
    let mut places =
        format!("listening on http://{}\nmetrics on http://{}/metrics", ledger.addr()?, ledger.metrics_addr()?);
    let admin = match admin {
        Some(config) => {
            AdminServer::bind(config).await.map_err(anyhow::Error::from).map_or_else(|e| without_admin(&e), Some)
        }
        None => None,
    };
    if let Some(admin) = &admin {
        write!(places, "\nadmin on http://{}/admin", admin.addr()?)?;
    }
    println!("{places}");
    let stop = stop_signal().shared();
    let Some(admin) = admin else { return Ok(ledger.serve(stop).await?) };
    let pages = async {
        if let Err(error) = admin.serve(stop.clone()).await {
            without_admin::<()>(&error.into());
        }
    };
    let (served, ()) = tokio::join!(ledger.serve(stop.clone()), pages);
    Ok(served?)
}

/// What is wrong with the admin pages never keeps the ledger from counting: without it, usage is not billed.
fn without_admin<T>(error: &anyhow::Error) -> Option<T> {
    tracing::error!("/admin is not served, and the ledger counts without it: {error:#}");
    None
}
