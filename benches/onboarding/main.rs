//! `make bench`: speed, memory and what a large fleet costs, side by side in one run, with ratios. It fails if a target
//! is missed.

// Counts and seconds of a benchmark are far from where these casts lose anything.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod authz;
mod counting;
mod events_store;
mod fleet;
mod lab;
mod ledger;
mod life;
mod lines;
mod neighbours;
mod operate;
mod peer;
#[path = "../../tests/cluster/programs.rs"]
mod programs;
mod speed;
mod targets;
#[path = "../../tests/cluster/support/tenant.rs"]
mod tenant;
mod web;

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tenant_operator_dev::cluster::{Binaries, Cluster};
use tenant_operator_dev::{apply_crds, apply_yaml};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tenant_operator::cli::install_crypto();
    match std::env::var(authz::BARE).ok().as_deref() {
        None => {}
        Some(counting::LEDGER) => return counting::nothing().await,
        Some(_) => return authz::bare().await,
    }
    let folder = std::env::temp_dir().join(format!("tenant-operator-bench-{}", std::process::id()));
    let cluster = Cluster::start(&Binaries::find().await?, &folder).await?;
    let config = Kubeconfig::read_from(&cluster.kubeconfig)?;
    let client = Client::try_from(kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?)?;
    let outcome = async {
        apply_crds(&client).await?;
        apply_yaml(&client, include_str!("../../examples/plans.yaml")).await?;
        let only = std::env::var("BENCH").unwrap_or_default();
        if only.is_empty() || only == "web" {
            web::run(&client, &cluster).await?;
        }
        if only.is_empty() || only == "authz" {
            authz::run(&client, &cluster).await?;
        }
        if only.is_empty() || only == "neighbours" {
            neighbours::run(&client, &cluster).await?;
        }
        if only.is_empty() || only == "speed" {
            speed::single(&client, &cluster).await?;
            speed::many(&client, &cluster).await?;
        }
        if only.is_empty() || only == "ledger" {
            ledger::run().await?;
        }
        if only.is_empty() || only == "counting" {
            counting::run(&client, &cluster).await?;
        }
        if only.is_empty() || only == "lines" {
            lines::run().await?;
        }
        if only.is_empty() || only == "events-store" {
            events_store::run().await?;
        }
        if only.is_empty() || only == "operate" {
            operate::run(&client, &cluster).await?;
        }
        if only.is_empty() || only == "peer" {
            peer::run(&client, &cluster).await?;
        }
        if only.is_empty() || only == "life" {
            life::run(&client, &cluster).await?;
        }
        if only.is_empty() || only == "fleet" {
            fleet::run(&client, &cluster).await?;
        }
        anyhow::Ok(())
    };
    let mut ended = signal(SignalKind::terminate())?;
    let outcome = tokio::select! {
        outcome = outcome => outcome,
        // Its API server and etcd end with it.
        _ = ended.recv() => Err(anyhow::anyhow!("it was asked to end")),
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("it was interrupted")),
    };
    cluster.stop().await;
    drop(std::fs::remove_dir_all(folder));
    outcome?;
    targets::summary()
}
