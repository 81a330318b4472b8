//! What should happen next to a tenant. Pure: no I/O and no clock of its own, so that the function that production
//! runs is the one that `tests/model` explores.

mod active;
mod deleting;
mod facts;
mod failed;
mod pending_payment;
mod policy;
mod provisioning;
mod status;
mod view;

pub use facts::{
    BillingFact, Facts, Failure, Outcome, RefundFact, Samples, SessionFact, SessionState, SubscriptionFact,
};
pub use policy::Policy;
pub use view::{View, api_key_secret};

use crate::api::tenant::{BillingMode, Provisioning};
use crate::api::{Phase, PlanSpec, SampleData, TenantStatus, Timestamp};

/// All that a decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The tenant as last read or written.
    pub tenant: &'a View,
    /// Its plan, when there is one of that name.
    pub plan: Option<&'a PlanSpec>,
    /// What was seen and done since the tenant was read.
    pub facts: &'a Facts,
    /// The present.
    pub now: Timestamp,
    /// The settings.
    pub policy: &'a Policy,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Do these, side by side, and decide again with what came of them.
    Act(Vec<Effect>),
    /// Write this status, and decide again.
    Record(Box<TenantStatus>),
    /// Nothing to do before so many seconds have passed, or something changes.
    Wait(Option<i64>),
}

/// One idempotent action on the world. Running it twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// Write the tenant id, the finalizer and the labels in one patch.
    AssignIdentity,
    /// Read customer, subscription and Checkout session back from Stripe.
    ReadBilling,
    /// Make the customer if there is none, and the Checkout session of this attempt.
    OpenCheckout {
        /// Part of the idempotency key.
        attempt: u32,
    },
    /// Write the number of the next Checkout attempt into the spec.
    NextCheckout {
        /// The new number.
        attempt: u32,
    },
    /// Write the Stripe ids into the spec, where they outlive the status.
    StoreStripeIds {
        /// The customer.
        customer: String,
        /// The subscription.
        subscription: String,
    },
    /// Make the Pinecone namespace and wait until it is usable.
    EnsureNamespace,
    /// Make the API-key Secret.
    EnsureApiKey,
    /// Embed and upsert the plan's sample documents.
    StoreSamples,
    /// Query until the sample documents are seen.
    VerifySamples,
    /// Send an e-mail or alert.
    Notify(Notice),
    /// Write down, outside the status, that these were sent.
    MarkSent(Vec<Notice>),
    /// Give back what was paid.
    Refund,
    /// Stop collecting on the subscription.
    PauseCollection,
    /// Collect again.
    ResumeCollection,
    /// Cancel the subscription and expire the open Checkout session.
    CancelBilling,
    /// Delete the Pinecone namespace and see that it is gone.
    DeleteNamespace,
    /// Delete the tenant's Secrets.
    DeleteSecrets,
    /// Let Kubernetes remove the object.
    RemoveFinalizer,
    /// Delete the Tenant object of a signup that was never paid for.
    DeleteTenant,
}

/// An e-mail or alert, sent once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Notice {
    /// To the customer: the account is ready.
    Welcome,
    /// To ops: the welcome e-mail cannot be sent.
    WelcomeFailedAlert,
    /// To ops: provisioning was given up, in the run that this token names.
    FailedAlert(String),
    /// To the customer: provisioning was given up, in the run that this token names.
    FailedMail(String),
    /// To ops: paid, and still not Active after the normal time.
    SlowAlert,
}

impl Notice {
    /// The name under which it is written down as sent.
    pub fn key(&self) -> String {
        match self {
            Self::Welcome => "welcome".into(),
            Self::WelcomeFailedAlert => "welcome-failed-alert".into(),
            Self::FailedAlert(run) => format!("failed-alert.{run}"),
            Self::FailedMail(run) => format!("failed-mail.{run}"),
            Self::SlowAlert => "slow-alert".into(),
        }
    }
}

/// What should happen next. Total: every tenant in every state has an answer.
pub fn decide(input: &Input) -> Decision {
    let tenant = input.tenant;
    if tenant.deleting {
        return deleting::decide(input);
    }
    if !tenant.identified() {
        return Decision::Act(vec![Effect::AssignIdentity]);
    }
    match tenant.status.phase {
        None | Some(Phase::PendingPayment) => pending_payment::decide(input),
        Some(Phase::Provisioning) => provisioning::decide(input),
        Some(Phase::Failed) => failed::decide(input),
        Some(Phase::Active) => active::decide(input),
        // Phases of later versions: left as they are.
        Some(_) => Decision::Wait(None),
    }
}

impl Input<'_> {
    fn by_stripe(&self) -> bool {
        self.tenant.spec.billing.mode == BillingMode::Stripe
    }

    /// A run of attempts that begins now, in answer to the present value of the retry annotation.
    fn fresh_run(&self) -> Provisioning {
        Provisioning {
            attempts: 0,
            started_at: self.now,
            next_retry_at: None,
            failed_step: None,
            reason: None,
            last_error: None,
            retry_token: self.tenant.retry_token.clone(),
        }
    }

    /// The wait before notices that could not be sent are tried again: longer where only a change of the address or the
    /// mail server's mind can help.
    fn notice_wait(&self) -> i64 {
        let hopeful = self.facts.unsent.values().any(|failure| failure.retryable);
        if hopeful { self.policy.notice_retry } else { self.policy.resync }
    }

    fn wants_samples(&self) -> bool {
        self.plan.is_some_and(|p| p.sample_data != SampleData::None)
    }
}
