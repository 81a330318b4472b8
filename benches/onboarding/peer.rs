//! The same job by a tuned operator on Go's controller-runtime (`benches/peer`), in turns with ours: the one that takes
//! less of everything should be ours.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use kube::Client;
use kube::api::PostParams;
use tenant_operator_dev::cluster::Cluster;

use crate::lab::{Controller, Cpu, Providers, active, create_all, namespace, quantile, single, tenant, until};
use crate::targets::{Wanted, judge};

const TENANTS: usize = 1000;
const ROUNDS: usize = 3;
/// Until the first tenant of each must be Active.
const LIMIT: Duration = Duration::from_mins(1);

/// Who does the job.
#[derive(Clone, Copy)]
enum Operator {
    Ours,
    /// Whether it writes Provisioning together with Active, as ours does.
    Peer {
        held: bool,
    },
}

impl Operator {
    const ALL: [Self; 3] = [Self::Ours, Self::Peer { held: true }, Self::Peer { held: false }];

    fn name(self) -> &'static str {
        match self {
            Self::Ours => "tenant-operator",
            Self::Peer { held: true } => "controller-runtime",
            Self::Peer { held: false } => "the same with five writes",
        }
    }

    /// For the name of a namespace.
    fn short(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Peer { held: true } => "peer",
            Self::Peer { held: false } => "plain",
        }
    }

    fn start(self, cluster: &Cluster, namespace: &str) -> anyhow::Result<Controller> {
        let Self::Peer { held } = self else { return Controller::start(cluster, namespace, 0) };
        let mut command = Command::new(binary());
        command.args(["--namespace", namespace]);
        if held {
            command.arg("--held");
        }
        Controller::run(command, cluster, namespace, Providers::start(0)?)
    }
}

/// What it took.
#[derive(Default)]
struct Cost {
    rates: Vec<f64>,
    processor: Vec<f64>,
    servers: Vec<f64>,
    memory: Vec<f64>,
    singles: Vec<f64>,
}

fn binary() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/peer"))
}

fn build() -> anyhow::Result<bool> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peer");
    let Ok(built) = Command::new("go").args(["build", "-o"]).arg(binary()).arg(".").current_dir(source).status() else {
        return Ok(false);
    };
    ensure!(built.success(), "benches/peer does not build");
    Ok(true)
}

pub async fn run(client: &Client, cluster: &Cluster) -> anyhow::Result<()> {
    if !build()? {
        println!("no comparison with controller-runtime: it needs Go");
        return Ok(());
    }
    let mut costs = [Cost::default(), Cost::default(), Cost::default()];
    for round in 0..ROUNDS {
        for (operator, cost) in Operator::ALL.into_iter().zip(&mut costs) {
            many(operator, client, cluster, round, cost).await?;
        }
    }
    for (operator, cost) in Operator::ALL.into_iter().zip(&mut costs) {
        let name = format!("bench-{}-single", operator.short());
        let api = namespace(client, &name).await?;
        let _controller = operator.start(cluster, &name)?;
        cost.singles = single(&api).await?;
    }
    println!("{TENANTS} tenants in {ROUNDS} rounds each, in turns (medians), and single ones on an idle system:");
    for (operator, cost) in Operator::ALL.into_iter().zip(&mut costs) {
        println!(
            "  {}: {:.0} tenants per second, {:.1} processor seconds of its own and {:.1} of kube-apiserver and etcd, \
             {:.0} MB; single p50 {:.0} ms, p99 {:.0} ms",
            operator.name(),
            quantile(&mut cost.rates, 0.5),
            quantile(&mut cost.processor, 0.5),
            quantile(&mut cost.servers, 0.5),
            quantile(&mut cost.memory, 0.5),
            quantile(&mut cost.singles, 0.5) * 1000.0,
            quantile(&mut cost.singles, 0.99) * 1000.0
        );
    }
    let [ours, peer, _] = &mut costs;
    let mut ratio = |of: fn(&mut Cost) -> &mut Vec<f64>, q| quantile(of(ours), q) / quantile(of(peer), q);
    println!(
        "ratio to controller-runtime: speed {:.2} (wanted: over 1), processor {:.2}, memory {:.2}, single p50 {:.2}, p99 \
         {:.2} (wanted: under 1)",
        ratio(|c| &mut c.rates, 0.5),
        ratio(|c| &mut c.processor, 0.5),
        ratio(|c| &mut c.memory, 0.5),
        ratio(|c| &mut c.singles, 0.5),
        ratio(|c| &mut c.singles, 0.99)
    );
    judge("speed beside controller-runtime", ratio(|c| &mut c.rates, 0.5), Wanted::Over(1.0));
    judge("p99 of single ones beside controller-runtime", ratio(|c| &mut c.singles, 0.99), Wanted::Under(1.0));
    Ok(())
}

async fn many(
    operator: Operator,
    client: &Client,
    cluster: &Cluster,
    round: usize,
    cost: &mut Cost,
) -> anyhow::Result<()> {
    let name = format!("bench-{}-{round}", operator.short());
    let api = namespace(client, &name).await?;
    let controller = operator.start(cluster, &name)?;
    api.create(&PostParams::default(), &tenant("warm-up")).await?;
    let ready = tokio::time::timeout(LIMIT, until(&api, 1, active)).await;
    ready.with_context(|| format!("{} does not work", operator.name()))??;
    let (etcd, apiserver) = cluster.pids();
    let own = Cpu::read(&[("operator", controller.pid())]);
    let servers = Cpu::read(&[("kube-apiserver", apiserver), ("etcd", etcd)]);
    let start = Instant::now();
    tokio::try_join!(create_all(&api, TENANTS), until(&api, TENANTS + 1, active))?;
    cost.rates.push(TENANTS as f64 / start.elapsed().as_secs_f64());
    cost.processor.push(own.total());
    cost.servers.push(servers.total());
    cost.memory.push(controller.resident_mb()?);
    Ok(())
}
