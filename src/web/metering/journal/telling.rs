//! How web reports to the ledger what became of an operation.
//!
//! A document can be uploaded through one replica and deleted through another one while the ledger is away. Each has its
//! part in a journal of its own, and either part may reach the ledger first, or never. The replica that deletes the
//! document knows its levels and not what was embedded, so what was embedded counts beside the operation if the ledger
//! had the levels before.

use super::Entry;
use crate::api::Unit;
use crate::ledger::client::{CallError, LedgerClient};
use crate::ledger::units::{Amounts, LARGEST};
use crate::ledger::wire::{Checkpoint, CommandOutcome, Counted};

/// Units of what a document takes once, whatever becomes of it.
const EMBEDDED: [Unit; 2] = [Unit::EmbeddedBytes, Unit::EmbeddingTokens];
/// Refusals of a checkpoint that say that an operation is not pending.
const NOT_PENDING: [&str; 2] = ["unknown_operation", "ended"];

/// Tells the ledger an entry. A repetition counts nothing twice.
pub async fn tell(ledger: &LedgerClient, entry: &Entry) -> Result<(), CallError> {
    match entry {
        Entry::Settle { operation, body } => settle(ledger, operation, body).await,
        Entry::Recount { operation, body } => ledger.recount(operation, body).await.map(drop),
        Entry::Void { operation, body } => ledger.void(operation, body).await.map(drop),
        Entry::Release { operation, body } => ledger.release(operation, body).await.map(drop),
        Entry::Conclude { operation, body } => conclude(ledger, operation, body).await,
    }
}

/// Settles an operation. Where it was concluded before with less than was embedded, the rest counts under a name of its
/// own, in the period in which it was embedded.
async fn settle(ledger: &LedgerClient, operation: &str, body: &Counted) -> Result<(), CallError> {
    let CommandOutcome::Settled { excess, .. } = ledger.settle(operation, body).await? else { return Ok(()) };
    let rest = EMBEDDED.into_iter().fold(Amounts::ZERO, |rest, unit| rest.with(unit, excess[unit]));
    if rest.is_zero() {
        return Ok(());
    }
    let body = Counted { amounts: rest, ..body.clone() };
    ledger.settle(&format!("{operation}-embedded"), &body).await.map(drop)
}

/// Ends the operation of a document that is gone, unless it has ended. `body` has the levels of the document.
async fn conclude(ledger: &LedgerClient, operation: &str, body: &Counted) -> Result<(), CallError> {
    let levels = body.amounts;
    let noted = Checkpoint { tenant: body.tenant.clone(), amounts: levels };
    let amounts = match ledger.checkpoint(operation, &noted).await {
        // It is pending. All that was set aside counts: what was embedded is not known here.
        Ok(_) => EMBEDDED.into_iter().fold(levels, |all, unit| all.with(unit, LARGEST)),
        // It was settled, which stays as it is; or it expired, or waits in the journal of the replica that stored the
        // document. Settled here, its levels count once.
        Err(CallError::Refused { code, .. }) if NOT_PENDING.contains(&code.as_str()) => levels,
        Err(error) => return Err(error),
    };
    // Nothing is beyond a reservation here.
    ledger.settle(operation, &Counted { amounts, ..body.clone() }).await.map(drop)
}
