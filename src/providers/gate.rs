//! Decides whether a provider may be called: its key must reach the account or index that the tenants are in.

use std::time::Duration;

use tokio::sync::watch;

use super::ProviderError;
use crate::lifecycle::{Blame, Fault, Provider};

/// How soon a call is worth another try while the check is under way.
const SOON: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
enum State {
    Open,
    Unchecked,
    Closed(ProviderError),
}

/// Lets calls through, or says why not. Open, unless it is guarded.
#[derive(Debug)]
pub struct Gate {
    provider: Provider,
    state: watch::Sender<State>,
}

impl Gate {
    /// One that lets every call through.
    pub fn new(provider: Provider) -> Self {
        Self { provider, state: watch::Sender::new(State::Open) }
    }

    /// Lets no call through until the account or index behind the provider was checked.
    pub fn guard(&self) {
        self.state.send_replace(State::Unchecked);
    }

    /// Lets calls through. True when it did not before.
    pub fn open(&self) -> bool {
        !matches!(self.state.send_replace(State::Open), State::Open)
    }

    /// Answers every call with this error. True when that is another reason than before.
    pub fn close(&self, why: ProviderError) -> bool {
        let now = (why.blame, why.reason, why.message.clone());
        match self.state.send_replace(State::Closed(why)) {
            State::Closed(before) => (before.blame, before.reason, before.message) != now,
            State::Open | State::Unchecked => true,
        }
    }

    /// Answers every call with a failure of the check itself, which says nothing against the provider.
    pub fn unchecked(&self, error: ProviderError) -> bool {
        let blame = if error.blame == Blame::Admin { Blame::Admin } else { Blame::Outage };
        self.close(ProviderError { blame, retryable: true, retry_after: error.retry_after.or(Some(SOON)), ..error })
    }

    /// Whether calls are let through.
    pub fn is_open(&self) -> bool {
        matches!(*self.state.borrow(), State::Open)
    }

    /// Whether the check has come to a result, whichever.
    pub fn is_checked(&self) -> bool {
        !matches!(*self.state.borrow(), State::Unchecked)
    }

    /// Whether calls are let through.
    ///
    /// # Errors
    ///
    /// Why they are not.
    pub fn check(&self) -> Result<(), ProviderError> {
        match &*self.state.borrow() {
            State::Open => Ok(()),
            State::Closed(why) => Err(why.clone()),
            State::Unchecked => Err(ProviderError {
                provider: self.provider,
                status: None,
                reason: Fault::Unavailable,
                message: "is being checked: whether it is what the tenants are in".into(),
                blame: Blame::Outage,
                retryable: true,
                retry_after: Some(SOON),
                tokens: None,
            }),
        }
    }

    /// Why calls are refused, where the account or index is not the one that the tenants are in.
    pub fn refusal(&self) -> Option<ProviderError> {
        match &*self.state.borrow() {
            State::Closed(why) if why.blame == Blame::Mismatch => Some(why.clone()),
            _ => None,
        }
    }

    /// Waits a moment for the first check, as right after a start.
    pub async fn pass(&self) -> Result<(), ProviderError> {
        drop(tokio::time::timeout(SOON, self.checked()).await);
        self.check()
    }

    /// Returns once the check has come to a result.
    pub async fn checked(&self) {
        let mut state = self.state.subscribe();
        drop(state.wait_for(|state| !matches!(state, State::Unchecked)).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(blame: Blame) -> ProviderError {
        ProviderError {
            provider: Provider::VectorStore,
            status: Some(500),
            reason: Fault::ProviderError,
            message: "answered 500".into(),
            blame,
            retryable: false,
            retry_after: None,
            tokens: None,
        }
    }

    #[tokio::test]
    async fn a_guarded_gate_lets_nothing_through_until_it_was_checked() {
        let gate = Gate::new(Provider::VectorStore);
        assert!(gate.check().is_ok(), "without a guard every call passes");
        gate.guard();
        assert_eq!(gate.check().expect_err("unchecked").blame, Blame::Outage);
        assert!(tokio::time::timeout(Duration::from_millis(20), gate.checked()).await.is_err());
        assert!(gate.unchecked(error(Blame::Call)));
        gate.checked().await;
        let waits = gate.check().expect_err("the check failed");
        assert!(
            waits.blame == Blame::Outage && waits.retryable && gate.refusal().is_none(),
            "not counted as a failed attempt"
        );
        assert!(gate.unchecked(error(Blame::Admin)));
        assert_eq!(gate.check().expect_err("a refused key").blame, Blame::Admin);
        assert!(gate.close(error(Blame::Mismatch)) && !gate.close(error(Blame::Mismatch)), "told once");
        assert!(gate.refusal().is_some());
        assert!(gate.open() && !gate.open() && gate.check().is_ok());
    }
}
