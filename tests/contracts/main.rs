//! What any vector store, embedder and chat model must do for the operator. A second implementation is judged by the
//! same functions as the clients of today, which run against the sandbox here. Each contract is also seen to fail, by a
//! client with a seeded fault.

mod models;
mod vector_store;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use serde_json::Value;
use tenant_operator::providers::CallLimits;
use tenant_operator_sandbox::{Sandbox, SandboxConfig};

/// How long what was written may take until reads show it.
const LONGEST_LAG: Duration = Duration::from_secs(3);

/// Whether a contract is kept, or what breaks it.
type Verdict = Result<(), String>;

/// Breaks a contract unless something holds.
fn holds(what: &str, is_so: bool) -> Verdict {
    if is_so { Ok(()) } else { Err(what.to_owned()) }
}

/// Breaks a contract unless something holds within [`LONGEST_LAG`].
async fn becomes<E: std::fmt::Display>(what: &str, is_so: impl AsyncFn() -> Result<bool, E>) -> Verdict {
    let start = Instant::now();
    while !is_so().await.map_err(|error| format!("{what}: {error}"))? {
        if start.elapsed() > LONGEST_LAG {
            return Err(what.to_owned());
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    Ok(())
}

/// The names of the contracts that are broken, with the reasons on stderr.
fn broken(verdicts: Vec<(&'static str, Verdict)>) -> BTreeSet<&'static str> {
    let why = |(name, verdict): (&'static str, Verdict)| verdict.err().map(|why| (name, why));
    verdicts
        .into_iter()
        .filter_map(why)
        .inspect(|(name, why)| eprintln!("{name}: {why}"))
        .map(|(name, _)| name)
        .collect()
}

async fn sandbox() -> Sandbox {
    // The first one wins, whichever test it is.
    drop(rustls::crypto::ring::default_provider().install_default());
    let config = SandboxConfig {
        advertise: None,
        listen: Ipv4Addr::LOCALHOST.into(),
        ports: [0; 5],
        webhook_secret: String::new(),
        webhook_url: None,
        latency_ms: 0,
        data: None,
    };
    Sandbox::start(config).await.expect("a sandbox")
}

/// Sets how the sandbox behaves.
async fn set(sandbox: &Sandbox, what: &str, to: Value) {
    let url = format!("{}/_sandbox/{what}", sandbox.url);
    let answer = reqwest::Client::new().post(url).json(&to).send().await.expect("the sandbox answers");
    assert!(answer.status().is_success(), "{what}: {}", answer.status());
}

fn calls() -> CallLimits {
    let per_second = NonZeroU32::MIN.saturating_add(9_999);
    CallLimits { per_second, timeout: Duration::from_secs(20), retries: 0 }
}
