//! What operating it takes: from start to ready, from a lost leader to the next, and a whole preflight.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;
use kube::Client;
use tenant_operator_dev::cluster::Cluster;

use crate::lab::{Controller, Providers, namespace, quantile};
use crate::targets::{Wanted, judge};

const NAMESPACE: &str = "bench-operate";
const ROUNDS: usize = 5;
/// How often a controller is asked whether it is ready.
const LOOK: Duration = Duration::from_millis(20);
/// For what should take seconds.
const LIMIT: Duration = Duration::from_mins(1);

pub async fn run(client: &Client, cluster: &Cluster) -> anyhow::Result<()> {
    namespace(client, NAMESPACE).await?;
    let mut starts = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let controller = Controller::start(cluster, NAMESPACE, 0)?;
        until(&controller, "leading").await?;
        starts.push(start.elapsed().as_secs_f64());
        end(controller, "TERM")?;
    }
    println!(
        "controller, start to ready, its sandbox's start included: {:.2} s, at worst {:.2} s (wanted: under 2)",
        quantile(&mut starts, 0.5),
        quantile(&mut starts, 1.0)
    );
    judge("s until a controller leads", quantile(&mut starts, 1.0), Wanted::Under(2.0));
    let mut graceful = failovers(cluster, "TERM", ROUNDS).await?;
    let mut killed = failovers(cluster, "KILL", 2).await?;
    println!(
        "failover: {:.2} s after a leader ended in order, at worst {:.2} s (wanted: under 1); {:.1} s after kill -9, at worst \
         {:.1} s (wanted: under 15)",
        quantile(&mut graceful, 0.5),
        quantile(&mut graceful, 1.0),
        quantile(&mut killed, 0.5),
        quantile(&mut killed, 1.0)
    );
    judge("s of a failover in order", quantile(&mut graceful, 1.0), Wanted::Under(1.0));
    judge("s of a failover after kill -9", quantile(&mut killed, 1.0), Wanted::Under(15.0));
    let mut checked = Vec::new();
    for _ in 0..ROUNDS {
        checked.push(preflight(cluster)?);
    }
    println!("preflight, all checks: {:.2} s (wanted: under 3)", quantile(&mut checked, 0.5));
    judge("s of a preflight", quantile(&mut checked, 0.5), Wanted::Under(3.0));
    Ok(())
}

async fn until(controller: &Controller, role: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    while controller.role().await.as_deref() != Some(role) {
        ensure!(start.elapsed() < LIMIT, "the controller is not {role}");
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

fn end(controller: Controller, signal: &str) -> anyhow::Result<()> {
    let sent = Command::new("kill").args([&format!("-{signal}"), &controller.pid().to_string()]).status()?;
    ensure!(sent.success(), "the signal was not sent");
    let Controller { mut process, .. } = controller;
    process.0.wait()?;
    Ok(())
}

/// From the end of a leader until the one that stood by leads.
async fn failovers(cluster: &Cluster, signal: &str, rounds: usize) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    let mut leader = Controller::start(cluster, NAMESPACE, 0)?;
    until(&leader, "leading").await?;
    for _ in 0..rounds {
        let other = Controller::start(cluster, NAMESPACE, 0)?;
        until(&other, "standing by").await?;
        // It has to know of the leader before that one ends.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let start = Instant::now();
        end(leader, signal)?;
        until(&other, "leading").await?;
        times.push(start.elapsed().as_secs_f64());
        leader = other;
    }
    end(leader, "TERM")?;
    Ok(times)
}

fn preflight(cluster: &Cluster) -> anyhow::Result<f64> {
    let providers = Providers::start(0)?;
    let start = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_tenant-operator"))
        .args(["preflight", "-o", "json", "--namespace", NAMESPACE])
        .env("KUBECONFIG", &cluster.kubeconfig)
        .envs(providers.env())
        .envs([("PINECONE_API_KEY", "x"), ("STRIPE_SECRET_KEY", "sk_test_x"), ("OPENAI_API_KEY", "x")])
        .envs([("POD_NAMESPACE", NAMESPACE), ("STRIPE_WEBHOOK_SECRET", "whsec_x")])
        .stderr(Stdio::null())
        .output()?;
    ensure!(!output.stdout.is_empty(), "preflight said nothing");
    Ok(start.elapsed().as_secs_f64())
}
