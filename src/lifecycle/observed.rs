//! The observed state: what was seen and done since the tenant was read. A crash loses it, and the next reconcile reads
//! it again.

use std::collections::{BTreeMap, BTreeSet};

use super::observed_billing::{ObservedBilling, ObservedDispute, ObservedRefund, ObservedSubscription};
use super::{Effect, Failure, Harm, Notice};
use crate::api::TenantStatus;

/// How far the sample documents are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Samples {
    /// Not known.
    #[default]
    Unknown,
    /// Accepted by the vector store.
    Stored,
    /// Seen by a query.
    Seen,
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

/// The namespace of one generation of a tenant's data, as the vector store has it.
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
    /// Its namespace: 1, or 0 when there is none.
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

/// What a tenant stores, as the ledger counted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stored {
    /// The ledger answered.
    Counted {
        /// Documents that are stored.
        documents: i64,
        /// Bytes of their files.
        bytes: i64,
    },
    /// The ledger did not answer.
    Unknown,
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
    /// A person settles the refund, and does not name a payment that it is of. This invoice is one.
    PaymentNotNamed(String),
    /// What each provider holds.
    Holdings(Holdings),
    /// What the tenant stores.
    Stored(Stored),
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
    /// An invoice that a person is to name who settles the refund, because they name none that it is of.
    pub payment_not_named: Option<String>,
    /// What each provider holds, counted since the last deletion.
    pub holdings: Option<Holdings>,
    /// What the tenant stores, read in this reconcile.
    pub stored: Option<Stored>,
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
    /// Whether no e-mail about usage is to begin now, because too many customers would get one.
    pub usage_mails_held: bool,
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
            (_, Outcome::PaymentNotNamed(invoice)) => self.payment_not_named = Some(invoice),
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
            (_, Outcome::Stored(stored)) => self.stored = Some(stored),
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
