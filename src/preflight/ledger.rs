//! The ledger, which counts what tenants use: whether web can use it, and whether what it counts would outlive its
//! volume.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use super::{Check, CheckOutcome, Target};
use crate::api::Timestamp;
use crate::clock::{Clock, ask};
use crate::ledger::client::{CallError, LedgerClient};
use crate::ledger::wire::Status;
use crate::operator_keys::{LEDGER_SECRET, read_ledger_key};

const LIMIT: Duration = Duration::from_secs(5);
/// Seconds of difference at which the ledger refuses the present period.
const WRONG: i64 = 300;
/// Seconds of difference that go unnoticed.
const FINE: i64 = 60;
/// How many snapshots may be missing before the latest one is too old.
const MISSED: u64 = 3;

pub const CHECKS: &[Check] = &[
    Check {
        name: "ledger/ready",
        blocks_start: false,
        title: "the ledger answers and is ready",
        about: "Runs with --ledger-url only, which the chart and `make dev` set. While the ledger is away, web serves \
            or refuses questions as their Plan says; what it serves waits in web's journal, which ends with the pod.",
        needs: None,
        writes: false,
        run: |target| ready(target).boxed(),
    },
    Check {
        name: "ledger/key",
        blocks_start: false,
        title: "the ledger takes the operator's key",
        about: "Web shows it with each call. The controller makes it, and the ledger's pod mounts it when it starts.",
        needs: Some("ledger/ready"),
        writes: false,
        run: |target| key(target).boxed(),
    },
    Check {
        name: "ledger/clock",
        blocks_start: false,
        title: "the ledger's clock agrees with the API server's",
        about: "The ledger refuses a period that begins more than five minutes after its own time.",
        needs: Some("ledger/key"),
        writes: false,
        run: |target| clock(target).boxed(),
    },
    Check {
        name: "ledger/snapshots",
        blocks_start: false,
        title: "the ledger's latest snapshot is recent",
        about: "What was counted after the latest snapshot is counted again only as far as Tenants and the vector store show it.",
        needs: Some("ledger/key"),
        writes: false,
        run: |target| snapshots(target).boxed(),
    },
];

async fn ready(target: &Target) -> CheckOutcome {
    if target.startup {
        // At the first one, the ledger waits for the key that this controller makes.
        return CheckOutcome::Skipped("the controller starts without the ledger".into());
    }
    let Some(url) = &target.ledger_url else {
        return CheckOutcome::Skipped("not checked: name the ledger with --ledger-url".into());
    };
    let url = format!("{}/readyz", url.as_str().trim_end_matches('/'));
    let fix = "Look at the ledger's pod: kubectl describe pod, kubectl logs. A NetworkPolicy lets only the \
        controller and web reach it";
    let client = match reqwest::Client::builder().timeout(LIMIT).build() {
        Ok(client) => client,
        Err(error) => return CheckOutcome::failed(error.to_string(), fix),
    };
    match client.get(&url).send().await {
        Ok(answer) if answer.status().is_success() => CheckOutcome::Ok(String::new()),
        Ok(answer) => CheckOutcome::failed(
            format!("{url} answers {}", answer.status()),
            "Read the ledger's log: its volume is full, its files are damaged, or its database does not answer",
        ),
        Err(error) => CheckOutcome::failed(format!("{url} does not answer: {error}"), fix),
    }
}

/// What the ledger says of itself to one who shows the operator's key.
async fn status(target: &Target) -> Result<Status, CheckOutcome> {
    let (Ok(client), Some(url)) = (&target.kubernetes, &target.ledger_url) else {
        return Err(CheckOutcome::Skipped("needs the cluster".into()));
    };
    let secret = format!("Secret {}/{LEDGER_SECRET}", target.operator_namespace);
    let key = match read_ledger_key(client, &target.operator_namespace).await {
        Ok(Some(key)) => key,
        Ok(None) => {
            return Err(CheckOutcome::failed(
                format!("there is no {secret}"),
                "Restart the controller, which makes it, then the ledger and web; or name the operator's namespace \
                    (--operator-namespace)",
            ));
        }
        Err(error) => return Err(CheckOutcome::failed(error.to_string(), format!("Let this account read {secret}"))),
    };
    let ledger = LedgerClient::new(url.clone(), &key, Duration::ZERO)
        .map_err(|error| CheckOutcome::failed(error.to_string(), "Correct --ledger-url"))?;
    ledger.status().await.map_err(|error| match error {
        CallError::Refused { code, detail } if code == "unauthorized" => CheckOutcome::failed(
            detail,
            format!(
                "The ledger read its key before {secret} was replaced. If web did too, restart web first and wait \
                until its rollout has ended: in the other order, counts of web pods that end are lost. Then restart \
                the ledger"
            ),
        ),
        other => CheckOutcome::failed(
            other.to_string(),
            "Read the ledger's log, and check that --ledger-url names \
            the ledger",
        ),
    })
}

async fn key(target: &Target) -> CheckOutcome {
    match status(target).await {
        Ok(_) => CheckOutcome::Ok(String::new()),
        Err(outcome) => outcome,
    }
}

/// The API server's time; this machine's if it does not answer.
async fn present(target: &Target) -> Timestamp {
    let clock = Arc::new(Clock::default());
    if let Ok(client) = &target.kubernetes {
        ask(&clock.listen(client.clone())).await;
    }
    clock.read().now
}

async fn clock(target: &Target) -> CheckOutcome {
    let theirs = match status(target).await {
        Ok(status) => status.now,
        Err(outcome) => return outcome,
    };
    let off = theirs.since(present(target).await);
    let reason = format!("it is {} s {} the API server's", off.abs(), if off > 0 { "ahead of" } else { "behind" });
    let fix = "Restart the ledger, and look for \"the API server did not tell its time\" in its log. Start a time \
        service such as chrony on the nodes";
    if off.abs() <= FINE {
        CheckOutcome::Ok(format!("{off} s from the API server's"))
    } else if off.abs() < WRONG {
        CheckOutcome::warning(reason, fix)
    } else {
        CheckOutcome::failed(reason, fix)
    }
}

async fn snapshots(target: &Target) -> CheckOutcome {
    let status = match status(target).await {
        Ok(status) => status,
        Err(outcome) => return outcome,
    };
    let Some(snapshots) = status.snapshots else { return CheckOutcome::Skipped("the ledger takes none".into()) };
    let fix = "Read \"no snapshot was taken\" in the ledger's log: check the storage's URL, its keys, and the free \
        space of the volume";
    let Some(latest) = snapshots.latest else {
        return CheckOutcome::failed("none was taken since the ledger started", fix);
    };
    let age = status.now.since(latest);
    let most = snapshots.every_seconds.saturating_mul(MISSED);
    if u64::try_from(age).unwrap_or(0) > most {
        let every = snapshots.every_seconds;
        return CheckOutcome::failed(format!("it is {age} s old, and one is due every {every} s"), fix);
    }
    CheckOutcome::Ok(format!("{age} s old"))
}
