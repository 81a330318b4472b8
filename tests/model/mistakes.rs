//! Mistakes that one could make in `decide`, as variants of its inputs and of the rules around it.

use tenant_operator::lifecycle::{Observed, Samples, View};

/// A seeded mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// What was upserted counts as seen.
    SamplesAssumedSeen,
    /// A status is written whatever the object has become meanwhile.
    StaleWritesAccepted,
    /// What was sent is not remembered outside the process.
    SentForgotten,
    /// Stripe calls carry no idempotency key and nobody looks first.
    NewKeyEachTime,
    /// Failed attempts are not counted.
    AttemptsForgotten,
    /// Nobody notices that collection is paused.
    PauseUnseen,
}

impl Mistake {
    /// What a decision that makes this mistake would see.
    pub fn tamper(self, view: &mut View, observed: &mut Observed) {
        match self {
            Self::SamplesAssumedSeen if observed.samples == Samples::Stored => observed.samples = Samples::Seen,
            Self::SentForgotten => view.sent.clear(),
            Self::AttemptsForgotten => {
                if let Some(p) = &mut view.status.provisioning {
                    p.attempts = 0;
                }
            }
            Self::PauseUnseen => {
                if let Some(s) = observed.billing.as_mut().and_then(|b| b.subscription.as_mut()) {
                    s.paused = s.paused && view.status.phase == Some(tenant_operator::api::Phase::Failed);
                }
            }
            _ => {}
        }
    }
}
