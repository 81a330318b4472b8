//! The chart on a node with real pods: installed, tested, used, upgraded and rolled back under load, killed, drained,
//! uninstalled and installed again.

mod binaries;
mod chart;
mod ledger;
mod load;
mod node;
mod release;
mod rights;
mod story;
mod upgrade;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Instant;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Prints a step and the time since the start, because some steps take long.
fn step(what: &str) {
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    eprintln!("pods: {:>4} s: {what}", STARTED.elapsed().as_secs());
}

/// Where the node keeps its files. The path of containerd's socket must be short.
fn folder() -> PathBuf {
    Path::new("/tmp").join(format!("tenant-operator-pods-{}", std::process::id()))
}

/// A node, unless there can be none here.
async fn node() -> Option<node::Node> {
    if let Some(why) = node::why_not() {
        assert!(std::env::var("CI").is_err(), "{why}");
        eprintln!("pods: not run: {why}");
        return None;
    }
    tenant_operator::cli::install_crypto();
    step("building what a node needs");
    let binaries = binaries::build();
    let node = node::Node::start(&binaries, &folder()).await;
    step("the node is ready");
    Some(node)
}

async fn end(node: node::Node) {
    node.stop().await;
    drop(std::fs::remove_dir_all(folder()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_serves_from_its_installation_to_its_return() {
    let Some(node) = node().await else { return };
    story::run(&node).await;
    end(node).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`tests/upgrade` checks out the earlier version that it needs"]
async fn an_earlier_version_is_upgraded_and_every_question_counts_once() {
    let earlier = std::env::var("EARLIER").expect("EARLIER names a checkout of the earlier version");
    let Some(node) = node().await else { return };
    upgrade::run(&node, &earlier).await;
    end(node).await;
}
