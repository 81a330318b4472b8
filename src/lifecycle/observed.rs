//! The observed state: what was seen and done since the tenant was read. A crash loses it, and the next reconcile reads it again.

use std::collections::{BTreeMap, BTreeSet};

use super::{Effect, Failure, Harm, Notice};
use crate::api::{TenantStatus, Timestamp};

/// What Stripe says of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ObservedBilling {
    /// The customer, when there is one.
    pub customer_id: Option<String>,
    /// The subscription that is worth most: one that is paid or in trial before any other.
    pub subscription: Option<ObservedSubscription>,
    /// The latest Checkout session.
    pub session: Option<ObservedSession>,
    /// Other subscriptions of the tenant that Stripe bills, by their ids.
    pub surplus: Vec<String>,
    /// Those of them whose collection is not paused.
    pub surplus_collected: Vec<String>,
    /// Those of them for which Stripe begins another period.
    pub surplus_renewing: Vec<String>,
}

/// A subscription at Stripe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ObservedSubscription {
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
    /// The plan that it was bought for.
    pub plan: Option<String>,
    /// The price that it bills, `price_...`.
    pub price: Option<String>,
    /// The Plan that has this price, by its name.
    pub billed_plan: Option<String>,
    /// A change of price that waits until the customer confirms its payment.
    pub unconfirmed: Option<UnconfirmedPrice>,
    /// When the present period ends.
    pub period_ends_at: Option<Timestamp>,
    /// The plan that is in force until the present period ends, where a smaller one is billed from then on.
    pub plan_before: Option<String>,
    /// Whether it ends and its tenant was closed. What a customer cancels at Stripe is theirs.
    pub ends: bool,
    /// When its tenant was closed, of one that was not taken back since.
    pub closed_at: Option<Timestamp>,
    /// Whether Stripe keeps another namespace or name of the Tenant with it.
    pub elsewhere: bool,
    /// Whether Stripe begins another period after the present one.
    pub renews: bool,
}

impl ObservedSubscription {
    /// Whether Stripe counts it as one to be served.
    pub fn served(&self) -> bool {
        matches!(self.status.as_str(), "trialing" | "active")
    }

    /// Whether Stripe makes invoices for it.
    pub fn billed(&self) -> bool {
        self.served() || matches!(self.status.as_str(), "past_due" | "unpaid")
    }

    /// Whether it is over for good: Stripe refuses every change to it but that of its metadata.
    pub fn over(&self) -> bool {
        matches!(self.status.as_str(), "canceled" | "incomplete_expired")
    }

    /// Whether collection is paused and can be resumed.
    pub fn resumable(&self) -> bool {
        self.paused && !self.over()
    }

    /// Whether Stripe begins another period and charges for it.
    pub fn bills_again(&self) -> bool {
        self.billed() && self.renews && !self.ends && !self.paused
    }

    /// Whether Stripe says that its tenant is closed, and it can still go on.
    pub fn renewable(&self) -> bool {
        self.closed_at.is_some() && !self.over()
    }

    /// Whether service is due: paid or in trial, and with a payment method.
    pub fn paid(&self) -> bool {
        self.served() && self.payment_method
    }

    /// Of several subscriptions of a tenant, the one that is worth most counts.
    pub fn worth(&self) -> (bool, bool, bool) {
        (self.paid(), self.served(), self.status != "canceled")
    }
}

/// A change of price that Stripe makes once its payment is confirmed:
/// <https://docs.stripe.com/billing/subscriptions/pending-updates>
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnconfirmedPrice {
    /// The price that it changes to.
    pub price: String,
    /// Where the customer confirms the payment, once it was asked for.
    pub url: Option<String>,
    /// Until when. Then Stripe drops the change.
    pub expires_at: Timestamp,
}

/// A Checkout session at Stripe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObservedSession {
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
    /// The plan that it sells.
    pub plan: Option<String>,
    /// Whether Stripe keeps another namespace or name of the Tenant with it, and would note them with what is bought.
    pub elsewhere: bool,
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

/// A payment that the customer disputes, or has disputed with success.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dispute {
    /// `du_...`
    pub id: String,
    /// Stripe's word for the customer's reason, such as `fraudulent`.
    pub cause: String,
    /// In the smallest unit of the currency.
    pub amount: i64,
    /// The currency.
    pub currency: String,
    /// Whether the bank has given the money back.
    pub lost: bool,
    /// Until when it can be answered.
    pub due_by: Option<Timestamp>,
}

/// What is known of disputes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ObservedDispute {
    /// Stripe was not asked yet.
    #[default]
    Unknown,
    /// There is no open dispute.
    None,
    /// There is this one.
    Disputed(Dispute),
}

impl ObservedDispute {
    /// The dispute that counts: one that was settled with the customer does not.
    pub fn counting(&self, accepted: Option<&String>) -> Option<&Dispute> {
        match self {
            Self::Disputed(dispute) if accepted != Some(&dispute.id) => Some(dispute),
            Self::Disputed(_) | Self::None | Self::Unknown => None,
        }
    }
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

/// What was given back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ObservedRefund {
    /// What the customer has back, in the smallest unit of the currency; 0 when nothing had been paid.
    pub amount: i64,
    /// What Stripe still sends back: it may fail.
    pub pending: i64,
    /// The currency.
    pub currency: Option<String>,
}

/// How far a move of data is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ObservedMigration {
    /// Vectors that were compared, and copied where they differed.
    pub vectors: u64,
    /// What went wrong last.
    pub problem: Option<MigrationError>,
    /// Whether it is done.
    pub done: bool,
    /// Whether it went on until nothing changed any more.
    pub last: bool,
}

/// The namespace of one generation of a tenant's data, as Pinecone has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    /// The generation.
    pub generation: u32,
    /// How many vectors it holds.
    pub vectors: u64,
    /// Whether it holds anything but the sample documents of a Plan.
    pub documents: bool,
}

/// What went wrong in work that goes on by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MigrationError {
    /// A sentence without its end.
    pub message: String,
    /// Whether trying again can help.
    pub retryable: bool,
    /// Whether the copy holds vectors that its source does not have, so that a move would delete them.
    pub ahead: bool,
}

/// What each provider holds of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holdings {
    /// Its Pinecone namespace: 1, or 0 when there is none.
    pub namespaces: u64,
    /// The vectors in it.
    pub vectors: u64,
    /// Its Secrets in Kubernetes.
    pub secrets: u64,
    /// Its subscriptions at Stripe that are not over.
    pub subscriptions: u64,
    /// Its customers at Stripe.
    pub customers: u64,
    /// Customers at Stripe that are kept because subscriptions that are not this tenant's bill them.
    pub kept_customers: u64,
    /// The files of its exports.
    pub exports: u64,
}

/// How far an export is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ObservedExport {
    /// Files are being written.
    Running {
        /// How many are.
        files: u64,
        /// Their size in bytes.
        bytes: u64,
        /// What it waits for, where something went wrong. It goes on by itself.
        problem: Option<String>,
    },
    /// All files are written.
    Done {
        /// Their folder.
        path: String,
        /// How many there are.
        files: u64,
        /// Their size in bytes.
        bytes: u64,
    },
}

/// The outcome of an effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Done; there is nothing to learn beyond that.
    Done,
    /// Stripe's answer.
    Billing(Box<ObservedBilling>),
    /// What was given back.
    Refunded(ObservedRefund),
    /// What each provider holds.
    Holdings(Holdings),
    /// How far an export is.
    Export(ObservedExport),
    /// How far a move of data is.
    Migration(ObservedMigration),
    /// The namespaces of all generations of the tenant's data.
    Found(Vec<Found>),
    /// The namespace of this generation holds vectors that the one in use does not have. It was not deleted.
    OnlyThere(u32),
    /// Transitions were shipped, up to this number.
    Shipped(i64),
    /// Done, and not visible yet.
    NotYet,
    /// The thing that should be there is gone.
    Missing,
    /// It failed.
    Failed(Failure),
}

/// What was seen and done since the tenant was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Observed {
    /// Stripe's word.
    pub billing: Option<ObservedBilling>,
    /// What the customer disputes.
    pub dispute: ObservedDispute,
    /// Whether the API-key Secret is there and right; None when it is not known.
    pub api_key: Option<bool>,
    /// Whether the namespace was seen to be usable.
    pub namespace: bool,
    /// Whether the namespace was seen to be gone.
    pub namespace_missing: bool,
    /// Whether something that was written is not visible yet.
    pub pending: bool,
    /// Seconds since this attempt began to look for it.
    pub attempt_age: i64,
    /// How far the sample documents are.
    pub samples: Samples,
    /// The first failure of this reconcile.
    pub failure: Option<Failure>,
    /// Whether the status already speaks of that failure.
    pub failure_recorded: bool,
    /// Which effects failed in this reconcile. They are not called again before the next one.
    pub failed: BTreeMap<Effect, Failure>,
    /// How many reconciles in a row have failed before this one.
    pub failures: u32,
    /// Why no new tenant can be provisioned, when that is known.
    pub capacity_missing: Option<String>,
    /// Notices sent and not yet written down.
    pub sent: BTreeSet<Notice>,
    /// Notices that could not be sent.
    pub unsent: BTreeMap<Notice, Failure>,
    /// What was given back.
    pub refund: Option<ObservedRefund>,
    /// What each provider holds, counted since the last deletion.
    pub holdings: Option<Holdings>,
    /// How far the export is.
    pub export: Option<ObservedExport>,
    /// How far the move of data is.
    pub migration: Option<ObservedMigration>,
    /// A generation of the tenant's data that is not in use, and has a namespace.
    pub leftover: Option<u32>,
    /// The namespaces of all generations of the tenant's data, listed in this reconcile.
    pub found: Option<Vec<Found>>,
    /// Generations that hold vectors that the one in use does not have, as the vectors' ids say.
    pub only_there: BTreeSet<u32>,
    /// The number of the last transition that was shipped since the controller started.
    pub shipped: i64,
    /// Whether transitions could not be shipped.
    pub unshipped: bool,
    /// Effects that were done and leave no other trace.
    pub done: BTreeSet<Effect>,
    /// Whether everything is to be read back.
    pub resync: bool,
    /// What must not happen to the tenant now, because it happens to too many.
    pub held: BTreeSet<Harm>,
    /// Whether many other tenants are being provisioned at this moment.
    pub overloaded: bool,
}

impl Observed {
    /// The failure, until the status speaks of it.
    pub fn new_failure(&self) -> Option<&Failure> {
        self.failure.as_ref().filter(|_| !self.failure_recorded)
    }

    /// Why the customer's card does not pay for the period that would begin.
    pub fn declined_card(&self) -> Option<&Failure> {
        self.failed.get(&Effect::CollectAnew).filter(|failure| !failure.retryable)
    }

    /// The failure of what the phase itself does: a key that cannot be written holds up no plan.
    pub fn failure_besides(&self, other: &Effect) -> Option<&Failure> {
        let alone = self.failure.as_ref().filter(|_| self.failed.is_empty());
        self.failed.iter().find(|(e, _)| *e != other && !e.is_beside()).map(|(_, failure)| failure).or(alone)
    }

    /// The status was written. A new phase or a counted attempt has dealt with the failure; otherwise it stands until
    /// the reconcile ends, so that what failed is not called again at once.
    pub fn recorded(&mut self, before: &TenantStatus, after: &TenantStatus) {
        let attempts = |s: &TenantStatus| s.provisioning.as_ref().map(|p| p.attempts);
        if before.phase != after.phase || attempts(before) != attempts(after) {
            self.failure = None;
            self.failed.clear();
            self.pending = false;
        }
        self.failure_recorded = self.failure.is_some();
    }

    /// What was read before is no longer true: one reconcile may both pause and, after a retry, resume.
    fn correct(&mut self, correct: impl FnOnce(&mut ObservedSubscription)) {
        if let Some(subscription) = self.billing.as_mut().and_then(|b| b.subscription.as_mut()) {
            correct(subscription);
        }
    }

    /// Takes in the outcome of an effect.
    pub fn learn(&mut self, effect: &Effect, outcome: Outcome) {
        match (effect, outcome) {
            (Effect::Notify(notice), Outcome::Failed(failure)) => {
                self.unsent.insert(notice.clone(), failure);
            }
            (Effect::Notify(notice), _) => {
                self.sent.insert(notice.clone());
            }
            // It is tried again, and holds up nothing but the end of the object.
            (Effect::ShipTransitions, Outcome::Failed(_)) => self.unshipped = true,
            (_, Outcome::Shipped(seq)) => self.shipped = self.shipped.max(seq),
            (effect, Outcome::Failed(failure)) => {
                self.failed.insert(effect.clone(), failure.clone());
                if effect.is_beside() {
                    return;
                }
                // What ends the attempts outranks what does not.
                if self.failure.as_ref().is_none_or(|f| f.retryable && !failure.retryable) {
                    self.failure = Some(failure);
                }
            }
            (_, Outcome::NotYet) => self.pending = true,
            (Effect::CheckNamespace, Outcome::Missing) => self.namespace_missing = true,
            (_, Outcome::Billing(billing)) => self.billing = Some(*billing),
            (_, Outcome::Refunded(refund)) => self.refund = Some(refund),
            (Effect::EnsureNamespace | Effect::CheckNamespace, Outcome::Done) => self.namespace = true,
            (Effect::EnsureApiKey, Outcome::Done) => self.api_key = Some(true),
            (Effect::StoreSamples, Outcome::Done) => self.samples = self.samples.max(Samples::Stored),
            (Effect::VerifySamples, Outcome::Done) => self.samples = Samples::Seen,
            (Effect::PauseCollection, Outcome::Done) => {
                self.correct(|s| s.paused = true);
                if let Some(billing) = &mut self.billing {
                    billing.surplus_collected.clear();
                }
            }
            (Effect::ResumeCollection | Effect::CollectAnew, Outcome::Done) => self.correct(|s| s.paused = false),
            (_, Outcome::Holdings(holdings)) => self.holdings = Some(holdings),
            (_, Outcome::Export(export)) => self.export = Some(export),
            (_, Outcome::Migration(migration)) => self.migration = Some(migration),
            (_, Outcome::Found(found)) => self.found = Some(found),
            (_, Outcome::OnlyThere(generation)) => {
                self.only_there.insert(generation);
            }
            // What was seen before was of another namespace.
            (Effect::ServeFrom { .. }, Outcome::Done) => {
                (self.namespace, self.namespace_missing, self.found) = (false, false, None);
                self.only_there.clear();
            }
            (Effect::ForgetClosing, Outcome::Done) => self.correct(|s| (s.ends, s.closed_at) = (false, None)),
            (Effect::RenewAgain, Outcome::Done) => {
                self.correct(|s| (s.ends, s.closed_at, s.renews) = (false, None, true));
                // A customer who leaves in this same reconcile is not renewed again.
                self.done.remove(&Effect::StopRenewal);
            }
            (effect, Outcome::Done | Outcome::Missing) => {
                let deleted =
                    [Effect::DeleteNamespace, Effect::DeleteSecrets, Effect::EraseBilling, Effect::DeleteExports];
                if deleted.contains(effect) {
                    self.holdings = None;
                }
                // What was read before is no longer true.
                if matches!(effect, Effect::StopRenewal | Effect::ExpireCheckout) {
                    self.billing = None;
                }
                self.done.insert(effect.clone());
            }
        }
    }
}
