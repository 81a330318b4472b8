//! What becomes of requests while the ledger does not answer. Once one call has waited in vain, the next ones do not
//! wait; a single probe finds out when the ledger is back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::Future;

use super::Metering;
use super::account::Account;
use super::journal::OF_THE_SERVICE;
use super::refusal;
use crate::api::quota::WhenUnavailable;
use crate::ledger::client::CallError;
use crate::telemetry::OutcomeLabel;
use crate::web::serving::problem::Problem;

/// Between two probes.
const PROBE: Duration = Duration::from_millis(500);

/// A ledger that does not take web's key, or is of another version, is as good as away: what it is told would be lost.
fn of_the_service(error: CallError) -> CallError {
    match error {
        CallError::Refused { code, detail } if OF_THE_SERVICE.contains(&code.as_str()) => {
            CallError::Unavailable(format!("{detail} ({code})"))
        }
        other => other,
    }
}

impl Metering {
    /// A call to the ledger, unless the ledger is known to be away.
    pub(super) async fn ask<T>(
        self: &Arc<Self>,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        if self.is_away() {
            return Err(CallError::Unavailable("it did not answer a moment ago".into()));
        }
        let answer = call.await.map_err(of_the_service);
        if let Err(CallError::Unavailable(why)) = &answer
            && !self.away.swap(true, Ordering::AcqRel)
        {
            tracing::warn!(why, "the ledger is away");
            let metering = self.clone();
            tokio::spawn(async move { metering.until_back().await });
        }
        answer
    }

    /// Whether the ledger is known to be away.
    pub(super) fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }

    async fn until_back(&self) {
        loop {
            tokio::time::sleep(PROBE).await;
            // A ledger that can be read and not written, such as one whose volume is full, answers this with an error.
            let answer = self.ledger.status().await.map_err(of_the_service);
            if !matches!(answer, Err(CallError::Unavailable(_))) {
                self.away.store(false, Ordering::Release);
                tracing::info!("the ledger is back");
                return;
            }
        }
    }

    fn journal_has_room(&self, tenant: &str) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.has_room_for(tenant))
    }

    /// Whether a request is served without the ledger: as the plan says, if what it uses can be kept, and its tenant has
    /// not filled its share of the journal.
    pub(super) fn without_ledger(&self, account: &Account) -> Result<(), Problem> {
        let tenant = String::from(account.tenant.clone());
        let serves = account.when_unavailable == WhenUnavailable::Serve && self.journal_has_room(&tenant);
        self.count_unavailable(if serves { "served" } else { "refused" });
        if serves { Ok(()) } else { Err(refusal::unavailable()) }
    }

    /// Whether what is to be counted reaches the ledger, now or through the journal.
    pub fn can_count(&self, tenant: &str) -> Result<(), Problem> {
        if !self.is_away() || self.journal_has_room(tenant) { Ok(()) } else { Err(refusal::unavailable()) }
    }

    pub(super) fn count_unavailable(&self, outcome: &'static str) {
        self.unavailable.get_or_create_owned(&OutcomeLabel { outcome }).inc();
    }
}
