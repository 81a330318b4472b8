//! What was seen and done since the tenant was read. Lost in a crash, and found again.

use std::collections::{BTreeMap, BTreeSet};

use super::{Effect, Notice};
use crate::api::Timestamp;

/// What Stripe says of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BillingFact {
    /// The customer, when there is one.
    pub customer_id: Option<String>,
    /// The subscription that is worth most: one that is paid or in trial before any other.
    pub subscription: Option<SubscriptionFact>,
    /// The latest Checkout session.
    pub session: Option<SessionFact>,
}

/// A subscription at Stripe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SubscriptionFact {
    /// `sub_...`
    pub id: String,
    /// Stripe's word: trialing, active, `past_due`, ...
    pub status: String,
    /// Whether a payment method is attached to it or to its customer.
    pub payment_method: bool,
    /// Whether collection is paused.
    pub paused: bool,
    /// When the trial ends.
    pub trial_ends_at: Option<Timestamp>,
}

impl SubscriptionFact {
    /// Whether service is due: paid or in trial, and with a payment method.
    pub fn paid(&self) -> bool {
        matches!(self.status.as_str(), "trialing" | "active") && self.payment_method
    }
}

/// A Checkout session at Stripe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionFact {
    /// `cs_...`
    pub id: String,
    /// Where to pay, while it is open.
    pub url: Option<String>,
    /// Where it stands.
    pub state: SessionState,
    /// When it expires.
    pub expires_at: Timestamp,
    /// Which attempt of ours made it.
    pub attempt: u32,
}

/// Where a Checkout session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// Waits for the customer.
    Open,
    /// Paid, or a trial begun.
    Complete,
    /// Too late.
    Expired,
}

/// How far the sample documents are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Samples {
    /// Not known.
    #[default]
    Unknown,
    /// Accepted by Pinecone.
    Stored,
    /// Seen by a query.
    Seen,
}

/// Why an effect failed, after the quick retries inside the call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Failure {
    /// The step, by its name in conditions without the ending.
    pub step: String,
    /// Why, as one word.
    pub reason: String,
    /// Why, as a sentence that holds no secret.
    pub message: String,
    /// Whether trying again can help.
    pub retryable: bool,
    /// The provider's own wish, in seconds.
    pub retry_after: Option<i64>,
}

/// What was given back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RefundFact {
    /// In the smallest unit of the currency; 0 when nothing had been paid.
    pub amount: i64,
    /// The currency.
    pub currency: Option<String>,
}

/// What came of an effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Done; there is nothing to learn beyond that.
    Done,
    /// Stripe's answer.
    Billing(BillingFact),
    /// What was given back.
    Refunded(RefundFact),
    /// It failed.
    Failed(Failure),
}

/// What was seen and done since the tenant was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Stripe's word.
    pub billing: Option<BillingFact>,
    /// Whether the API-key Secret is there and right; None when it is not known.
    pub api_key: Option<bool>,
    /// Whether the namespace is usable.
    pub namespace: bool,
    /// How far the sample documents are.
    pub samples: Samples,
    /// The first failure of this attempt.
    pub failure: Option<Failure>,
    /// Notices sent and not yet written down.
    pub sent: BTreeSet<Notice>,
    /// Notices that could not be sent.
    pub unsent: BTreeMap<Notice, Failure>,
    /// What was given back.
    pub refund: Option<RefundFact>,
    /// Effects that were done and leave no other trace.
    pub done: BTreeSet<Effect>,
    /// Whether this pass was asked to read everything back.
    pub resync: bool,
    /// Whether many other tenants are being provisioned at this moment.
    pub busy: bool,
}

impl Facts {
    /// The status was written, and with it the failure, if there was one.
    pub fn recorded(&mut self) {
        self.failure = None;
    }

    /// What was read before is no longer true: one pass may both pause and, after a retry, resume.
    fn set_paused(&mut self, paused: bool) {
        if let Some(subscription) = self.billing.as_mut().and_then(|b| b.subscription.as_mut()) {
            subscription.paused = paused;
        }
    }

    /// Takes in what came of an effect.
    pub fn learn(&mut self, effect: &Effect, outcome: Outcome) {
        match (effect, outcome) {
            (Effect::Notify(notice), Outcome::Failed(failure)) => {
                self.unsent.insert(notice.clone(), failure);
            }
            (Effect::Notify(notice), _) => {
                self.sent.insert(notice.clone());
            }
            (_, Outcome::Failed(failure)) => {
                // A failure that cannot be mended outranks one that can.
                if self.failure.as_ref().is_none_or(|f| f.retryable && !failure.retryable) {
                    self.failure = Some(failure);
                }
            }
            (_, Outcome::Billing(billing)) => self.billing = Some(billing),
            (_, Outcome::Refunded(refund)) => self.refund = Some(refund),
            (Effect::EnsureNamespace, _) => self.namespace = true,
            (Effect::EnsureApiKey, _) => self.api_key = Some(true),
            (Effect::StoreSamples, _) => self.samples = self.samples.max(Samples::Stored),
            (Effect::VerifySamples, _) => self.samples = Samples::Seen,
            (Effect::PauseCollection, _) => self.set_paused(true),
            (Effect::ResumeCollection, _) => self.set_paused(false),
            (effect, Outcome::Done) => {
                self.done.insert(effect.clone());
            }
        }
    }
}
