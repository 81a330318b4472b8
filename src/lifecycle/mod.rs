//! What should happen next to a tenant. Pure: no I/O and no clock of its own, so that the function that production
//! runs is the one that `tests/model` explores.

mod active;
mod address;
mod advice;
mod agenda;
mod audit;
mod billed;
mod brake;
mod courtesies;
mod deleting;
mod dispute;
mod dunning;
mod export;
mod failed;
mod generations;
mod held;
mod identity;
mod key_generation;
mod leaving;
mod migration;
mod notices;
mod observed;
mod outbox;
mod payment_link;
mod pending_payment;
mod place;
mod plan_change;
mod policy;
mod provisioning;
mod renewal;
mod requested;
mod status;
mod suspended;
mod transitions;
mod verification;
mod view;

pub use advice::advice;
pub use audit::{Finding, audit};
pub use billed::{bills_another, shows_price, shows_surplus};
pub use brake::{Harm, harm, held, met};
pub use dispute::reason as dispute_reason;
pub use held::{may_hold, may_precede};
pub use observed::{
    Blame, Dispute, Failure, Found, Holdings, Observed, ObservedBilling, ObservedDispute, ObservedExport,
    ObservedMigration, ObservedRefund, ObservedSession, ObservedSubscription, Outcome, Problem, Samples, SessionState,
    UnconfirmedPrice,
};
pub use outbox::shipped;
pub use payment_link::link_on_request;
pub use plan_change::{Obstacle, excess, impossible, is_smaller, next_period_begun};
pub use policy::{EmailVerification, Policy, Regions, UPLOAD_LIMIT};
pub use suspended::{SuspendedFor, suspended_for};
pub use transitions::{Arrow, TRANSITIONS, is_known};
pub use view::{Claim, Credentials, View, chosen_generation};

use agenda::Concern;

use crate::api::phase::TriggeredBy;
use crate::api::tenant::{BillingMode, Provisioning, WishedBy};
use crate::api::{LinkKind, MailRequest, Phase, PlanSpec, SampleData, TenantStatus, Timestamp};

/// All that a decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The tenant as last read or written.
    pub tenant: &'a View,
    /// The plan that is in force, when there is one of that name.
    pub plan: Option<&'a PlanSpec>,
    /// The plan that the spec names, when there is one of that name: another one while the tenant is to move to it.
    pub wanted: Option<&'a PlanSpec>,
    /// What was seen and done since the tenant was read.
    pub observed: &'a Observed,
    /// The present, by the API server's clock.
    pub now: Timestamp,
    /// The present by the clock that is behind: the API server's or the controller's. What cannot be undone waits until its
    /// moment has come by both.
    pub earliest: Timestamp,
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
    AssignIdentity {
        /// The plan to write down as the one in force, when that is settled and not written yet.
        plan: Option<String>,
    },
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
        /// The subscription, once there is one that is paid or in trial.
        subscription: Option<String>,
    },
    /// Write the plan that was paid for into the spec.
    FollowPaidPlan {
        /// The plan.
        plan: String,
    },
    /// Write the plan that is in force into the spec, where it outlives the status.
    RecordPlan {
        /// The plan.
        plan: String,
    },
    /// Make the Pinecone namespace and see that it is usable.
    EnsureNamespace,
    /// See whether the Pinecone namespace is still there.
    CheckNamespace,
    /// Make the API-key Secret.
    EnsureApiKey,
    /// Embed and upsert the plan's sample documents.
    StoreSamples,
    /// See whether a query finds the sample documents.
    VerifySamples,
    /// Send an e-mail or alert.
    Notify(Notice),
    /// Write down, outside the status, that these were sent.
    MarkSent(Vec<Notice>),
    /// Give back what was paid for the period that was not served, and see how far that is.
    Refund,
    /// Stop collecting on the subscription, and on every other one of the tenant.
    PauseCollection,
    /// Collect again.
    ResumeCollection,
    /// Collect again for a tenant that had failed. Where the money was given back, a new period begins now, and is charged.
    CollectAnew,
    /// Bill another plan on the same subscription.
    SwitchPrice {
        /// The plan.
        plan: String,
        /// What becomes of the rest of the period.
        proration: Proration,
    },
    /// Cancel the subscription and expire the open Checkout session.
    CancelBilling,
    /// Tell Stripe the customer's present name, address and generation of the API key, and where the Tenant is.
    UpdateCustomer,
    /// Expire the open Checkout sessions, so that the customer pays nothing there.
    ExpireCheckout,
    /// Let every subscription end with its period, and expire the open Checkout sessions.
    StopRenewal,
    /// Renew the subscription after all.
    RenewAgain,
    /// Remove what Stripe keeps of the closing. The end of the subscription stays as it is.
    ForgetClosing,
    /// Cancel every subscription and delete the customer.
    EraseBilling,
    /// Count what each provider holds of the tenant.
    CountHoldings,
    /// Go on with the export that the spec asks for, and see how far it is. It does not wait for it.
    Export,
    /// Delete the files of all exports of the tenant, and end one that runs.
    DeleteExports,
    /// Write into the spec where the tenant's data is.
    RecordData {
        /// The generation of its namespace.
        generation: u32,
        /// What it was embedded with.
        embedding: String,
        /// The region of its index, where each region has one.
        region: Option<String>,
    },
    /// Go on with moving the tenant's data, and see how far it is. It does not wait for it.
    Migrate {
        /// The generation of the new namespace.
        generation: u32,
        /// The model.
        embedding: String,
        /// The region of its index, where each region has one.
        region: Option<String>,
        /// Whether to go on until nothing changes any more.
        last: bool,
    },
    /// Delete the namespace of another generation of the tenant's data, and end what writes into it.
    DropNamespace {
        /// The generation.
        generation: u32,
    },
    /// List the namespaces of all generations of the tenant's data, and count what each holds.
    FindData,
    /// Write into the spec that the tenant's data is in the namespace of this generation, with the model and the region that are
    /// found there.
    ServeFrom {
        /// The generation.
        generation: u32,
    },
    /// Remove the annotation with which a person chose a generation.
    ForgetChoice,
    /// Hand the transitions that were not shipped yet to the event store.
    ShipTransitions,
    /// Take everything personal out of the object, and write down what was erased.
    EraseIdentity,
    /// Delete the Pinecone namespace and see that it is gone.
    DeleteNamespace,
    /// Delete the tenant's Secrets.
    DeleteSecrets,
    /// Let Kubernetes remove the object.
    RemoveFinalizer,
    /// Delete the Tenant object of a signup that was never paid for.
    DeleteTenant,
}

/// What becomes of the difference in price for the rest of a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Proration {
    /// It is charged now. Without the payment nothing changes.
    ChargeNow,
    /// It is on the next invoice.
    NextInvoice,
    /// No proration: the price counts from the next period on.
    None,
    /// No proration, and the plan before stays in force until the period ends. Stripe's metadata of the subscription says so.
    AtPeriodEnd,
}

/// An e-mail or alert, sent once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Notice {
    /// To the customer: a link that they asked for, or that their signup needs.
    Link(MailRequest),
    /// To the customer: the account is ready.
    Welcome,
    /// To the customer: the agreement on the processing of their data.
    DataProcessingAgreement,
    /// To the customer: how to ask the first question.
    FirstQuestion,
    /// To the customer: the setup is complete.
    Congratulation,
    /// To the customer: a payment failed, which is late since then.
    PaymentFailed(Timestamp),
    /// To the customer: it is still late, and half of the grace period is over.
    PaymentReminder(Timestamp),
    /// To the customer: the account is suspended, since then.
    Suspended(Timestamp),
    /// To the customer: another plan is in force, since then.
    PlanChanged(Timestamp),
    /// To the customer: another plan will be in force, as was scheduled then.
    PlanScheduled(Timestamp),
    /// To the customer: another plan was declined then.
    PlanDeclined(Timestamp),
    /// To the customer: another plan waits since then until they confirm its payment.
    PlanUnconfirmed(Timestamp),
    /// To the customer: the account is closed, since then, and erased later.
    DeletionRequested(Timestamp),
    /// To the address before: it was changed, by the change that this names.
    AddressChanged(String),
    /// To the customer: the export that they asked for by this name is complete.
    ExportReady(String),
    /// To the customer who has left: an offer to come back, once.
    WinBack,
    /// To the customer: everything is erased.
    Erased,
    /// To ops: the welcome e-mail cannot be sent.
    WelcomeFailedAlert,
    /// To ops: the object of a customer was deleted, and the customer was not erased.
    KeptAlert,
    /// To ops: provisioning failed, in the run that this token names.
    FailedAlert(String),
    /// To the customer: provisioning failed, in the run that this token names.
    FailedMail(String),
    /// To ops: the customer disputes a payment, or has won that, as this names.
    DisputeAlert(String),
    /// To ops: Stripe bills this price, which is another plan's.
    PriceAlert(String),
    /// To ops: the tenant is closed, and Stripe renews this subscription.
    RenewedAlert(String),
    /// To ops: the tenant is open, and Stripe ends this subscription because the tenant was closed.
    EndsAlert(String),
    /// To ops: Stripe bills these subscriptions beside the tenant's own.
    SurplusAlert(String),
    /// To ops: paid, and still not Active after the normal time, in the run that this token names.
    SlowAlert(String),
    /// To ops: the object names another namespace than the one with the documents, or several hold documents, as this names.
    DataAlert(String),
    /// To ops: the tenant's Pinecone namespace is gone, in the run that this token names.
    NamespaceMissingAlert(String),
}

impl Notice {
    /// The name under which it is written down as sent.
    pub fn key(&self) -> String {
        match self {
            Self::Link(request) => request.to_string(),
            Self::Welcome => "welcome".into(),
            Self::DataProcessingAgreement => "data-processing-agreement".into(),
            Self::FirstQuestion => "first-question".into(),
            Self::Congratulation => "congratulation".into(),
            Self::PaymentFailed(since) => format!("payment-failed.{}", since.as_second()),
            Self::PaymentReminder(since) => format!("payment-reminder.{}", since.as_second()),
            Self::Suspended(since) => format!("suspended.{}", since.as_second()),
            Self::PlanChanged(since) => format!("plan-changed.{}", since.as_second()),
            Self::PlanScheduled(since) => format!("plan-scheduled.{}", since.as_second()),
            Self::PlanUnconfirmed(since) => format!("plan-unconfirmed.{}", since.as_second()),
            Self::PlanDeclined(since) => format!("plan-declined.{}", since.as_second()),
            Self::DeletionRequested(since) => format!("deletion-requested.{}", since.as_second()),
            Self::AddressChanged(change) => format!("address-changed.{change}"),
            Self::ExportReady(request) => format!("export-ready.{request}"),
            Self::WinBack => "win-back".into(),
            Self::Erased => "erased".into(),
            Self::KeptAlert => "kept-alert".into(),
            Self::WelcomeFailedAlert => "welcome-failed-alert".into(),
            Self::FailedAlert(run) => format!("failed-alert.{run}"),
            Self::FailedMail(run) => format!("failed-mail.{run}"),
            Self::DisputeAlert(what) => format!("dispute-alert.{what}"),
            Self::PriceAlert(price) => format!("price-alert.{price}"),
            Self::RenewedAlert(id) => format!("renewed-alert.{id}"),
            Self::EndsAlert(id) => format!("ends-alert.{id}"),
            Self::SurplusAlert(ids) => format!("surplus-alert.{ids}"),
            Self::SlowAlert(run) => format!("slow-alert.{run}"),
            Self::DataAlert(what) => format!("data-alert.{what}"),
            Self::NamespaceMissingAlert(run) => format!("namespace-missing-alert.{run}"),
        }
    }

    /// Whether an earlier one of this key need not be remembered once this was sent: a customer may ask for any number
    /// of links, pay late and change plans any number of times.
    pub fn supersedes(&self, key: &str) -> bool {
        let kind = |key: &str| key.split('.').next().unwrap_or_default().to_owned();
        match self {
            Self::Link(_)
            | Self::PaymentFailed(_)
            | Self::PaymentReminder(_)
            | Self::Suspended(_)
            | Self::PlanChanged(_)
            | Self::PlanScheduled(_)
            | Self::PlanDeclined(_)
            | Self::PlanUnconfirmed(_)
            | Self::AddressChanged(_)
            | Self::ExportReady(_)
            | Self::DisputeAlert(_)
            | Self::DataAlert(_)
            | Self::PriceAlert(_)
            | Self::RenewedAlert(_)
            | Self::EndsAlert(_)
            | Self::SurplusAlert(_)
            | Self::DeletionRequested(_) => kind(&self.key()) == kind(key),
            _ => false,
        }
    }
}

impl Notice {
    /// The kinds of notices that are sent only to tenants that are or were served, and to ops about them.
    const FOLLOW_SERVICE: [&str; 12] = [
        "welcome",
        "welcome-failed-alert",
        "data-processing-agreement",
        "first-question",
        "congratulation",
        "payment-failed",
        "payment-reminder",
        "plan-changed",
        "plan-scheduled",
        "plan-declined",
        "export-ready",
        "namespace-missing-alert",
    ];

    /// Whether a notice of this key is sent only once a tenant was served.
    pub fn follows_service(key: &str) -> bool {
        key.split('.').next().is_some_and(|kind| Self::FOLLOW_SERVICE.contains(&kind))
    }
}

/// Whether a notice of this key is a link of this kind.
fn is_link(key: &str, kind: LinkKind) -> bool {
    key.split('.').next() == Some(kind.name())
}

/// What should happen next. Total: every tenant in every state has an answer.
pub fn decide(input: &Input) -> Decision {
    outbox::ship(input, brake::apply(input, next(input)))
}

fn next(input: &Input) -> Decision {
    if let Some(decision) = identity::decide(input) {
        return decision;
    }
    if input.tenant.deleting {
        return agenda::first_due(input, &[|input| Some(deleting::decide(input))]);
    }
    if let Some(decision) = leaving::begin(input) {
        return decision;
    }
    agenda::first_due(input, &CONCERNS)
}

/// The most urgent first. What a provider that is away may hold up comes after what the phase has to do.
const CONCERNS: [Concern; 8] = [
    notices::note,
    requested::decide,
    place::follow,
    |input| Some(in_phase(input)),
    address::follow,
    key_generation::note,
    export::follow,
    |input| Some(Decision::Wait(export::wait(input))),
];

fn in_phase(input: &Input) -> Decision {
    match input.tenant.status.phase {
        None | Some(Phase::PendingPayment) => pending_payment::decide(input),
        Some(Phase::Provisioning) => provisioning::decide(input),
        Some(Phase::Failed) => failed::decide(input),
        Some(Phase::Active) => active::decide(input),
        Some(Phase::Suspended) => suspended::decide(input),
        // A tenant is served while its plan changes, which may take hours.
        Some(Phase::Upgrading | Phase::Downgrading) => {
            agenda::first_due(input, &[active::key, |input| Some(plan_change::run(input)), active::tell])
        }
        Some(Phase::Deleting) => leaving::decide(input),
        Some(Phase::Deleted) => Decision::Wait(None),
    }
}

impl Input<'_> {
    /// Who asks for something: the customer on the pages, or an admin who writes manifests.
    fn asked_by(&self) -> TriggeredBy {
        if self.tenant.spec.login.is_some() { TriggeredBy::User } else { TriggeredBy::Admin }
    }

    /// Who asked for the present value of `spec.desired`: the customer if web recorded that, otherwise an admin.
    fn wished_by(&self) -> TriggeredBy {
        match self.tenant.spec.wisher().map(|wish| wish.by) {
            Some(WishedBy::Customer) => TriggeredBy::User,
            Some(WishedBy::Admin) | None => TriggeredBy::Admin,
        }
    }

    /// Seconds until a moment has come by both clocks, for what cannot be undone then; 0 or less from then on.
    fn until(&self, moment: Timestamp) -> i64 {
        moment.since(self.earliest)
    }

    fn by_stripe(&self) -> bool {
        self.tenant.spec.billing.mode == BillingMode::Stripe
    }

    /// A run of attempts that begins now, in answer to the present value of the retry annotation.
    fn fresh_run(&self) -> Provisioning {
        Provisioning {
            attempts: 0,
            started_at: self.now,
            next_retry_at: None,
            held_since: None,
            failed_step: None,
            reason: None,
            last_error: None,
            retry_token: self.tenant.retry_token.clone(),
        }
    }

    /// Whether the retry annotation has a value that no run has answered.
    fn retry_asked(&self) -> bool {
        let Some(token) = &self.tenant.retry_token else { return false };
        self.tenant.status.provisioning.as_ref().and_then(|p| p.retry_token.as_ref()) != Some(token)
    }

    /// The wait before what failed is called again, outside provisioning: longer with each failure in a row.
    fn backoff(&self) -> i64 {
        let wait = self.policy.notice_retry.saturating_mul(1 << self.observed.failures.min(5));
        wait.max(self.observed.failure.as_ref().and_then(|f| f.retry_after).unwrap_or(0))
    }

    /// The wait before notices that could not be sent are tried again: longer where only another address or
    /// another mail server can help.
    fn notice_wait(&self) -> i64 {
        let hopeful = self.observed.unsent.values().any(|failure| failure.retryable);
        if hopeful { self.policy.notice_retry } else { self.policy.resync }
    }

    fn wants_samples(&self) -> bool {
        self.plan.is_some_and(|p| p.sample_data != SampleData::None)
    }
}
