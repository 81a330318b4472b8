//! `tenant-operator ledger rebuild`

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Url;

use crate::ledger::LedgerKey;
use crate::ledger::client::{CallError, LedgerClient};
use crate::ledger::wire::{EventsStatus, Rebuild};

/// How long the command waits for a ledger that restarts.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How often it says how far the store is.
const SAID: u32 = 5;

/// Make the events store anew from the ledger.
///
/// The ledger that runs empties its events store and feeds it again, while it goes on counting. Use it when the two
/// differ (alert `TenantOperatorLedgerEventsDiffer`), or after you changed the store by hand. Nothing is lost: the ledger has
/// every line. The command says on stderr how far it is. If you interrupt it, the ledger goes on; you can repeat it at any
/// time, and it begins again.
///
/// On a cluster: `kubectl -n NAMESPACE exec RELEASE-ledger-0 -- /tenant-operator ledger rebuild --key-file
/// /etc/tenant-operator/ledger/key`
///
/// Exit codes: 0 the store holds all lines, 1 it failed, for the reason that is printed, 2 wrong usage.
#[derive(clap::Args)]
pub struct Args {
    /// URL of the ledger's API.
    #[arg(long, env = "LEDGER_ENDPOINT", value_name = "URL", default_value = "http://127.0.0.1:8084")]
    ledger_url: Url,
    /// File with the ledger's key.
    #[arg(long, env = "LEDGER_KEY_FILE", value_name = "FILE")]
    key_file: PathBuf,
    /// Take over an events store that belongs to another ledger, whose lines it then loses.
    #[arg(long)]
    take_over: bool,
}

pub async fn run(args: &Args) -> anyhow::Result<()> {
    let key = LedgerKey::read(&args.key_file)?;
    let client = |patience| LedgerClient::new(args.ledger_url.clone(), &key, patience);
    let (once, patient) = (client(Duration::ZERO)?, client(PATIENCE)?);
    let before = patient.events_store().await?;
    let wanted = match once.rebuild(&Rebuild { take_over: args.take_over }).await {
        Ok(rebuilt) => rebuilt.generation,
        Err(CallError::Unavailable(why)) => {
            if let Some(failing) = patient.events_store().await?.failing {
                bail!("the events store was not emptied: {failing}. Correct this, and run the command again");
            }
            let Some(before) = before.generation else { bail!("the events store was not emptied: {why}") };
            eprintln!("The store is not empty yet ({why}). The ledger goes on ...");
            before + 1
        }
        Err(error) => return Err(error.into()),
    };
    eprintln!("The events store ({}) is fed anew. You may interrupt this command: the ledger goes on.", before.store);
    let done = wait(&patient, wanted).await?;
    eprintln!("The events store holds every line of the ledger, up to line {}.", done.seq);
    Ok(())
}

/// Waits until the store of this generation, or of a later one, has all lines.
async fn wait(client: &LedgerClient, wanted: i64) -> anyhow::Result<EventsStatus> {
    let (mut failed, mut idle) = (0, 0);
    for look in 0_u32.. {
        let now = client.events_store().await.context("the rebuild goes on once the ledger is back")?;
        let begun = now.generation.is_some_and(|generation| generation >= wanted);
        if begun && now.complete {
            return Ok(now);
        }
        // It is fed as before: the ledger may have given up emptying it.
        idle = if now.complete && !begun { idle + 1 } else { 0 };
        if idle > PATIENCE.as_secs() {
            bail!("the events store was not emptied within {} s: run the command again", PATIENCE.as_secs());
        }
        failed = if now.failing.is_some() { failed + 1 } else { 0 };
        if let Some(why) = now.failing.filter(|_| failed > PATIENCE.as_secs()) {
            bail!(
                "{why}. The ledger tries again by itself: correct this. It is done when the metric ledger_events_lag_lines is 0; \
                 this command would begin anew"
            );
        }
        if look % SAID == 0 {
            let more = if now.waiting >= 100_000 { " or more" } else { "" };
            eprintln!("Fed up to line {}; {}{more} wait ...", now.seq, now.waiting);
        }
        tokio::time::sleep(LOOK).await;
    }
    bail!("it did not end")
}
