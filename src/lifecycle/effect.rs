//! The effects: each action on the world, the step that it belongs to, and what its success proves.

use strum::IntoStaticStr;

use super::{Notice, Provider, Step};

/// One idempotent action on the world. Running it twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, IntoStaticStr)]
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
    /// Make the namespace and see that it is usable.
    EnsureNamespace,
    /// See whether the namespace is still there.
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
    /// Note at Stripe that a person settles the refund of the last paid period.
    WaiveRefund,
    /// Stop collecting on the subscription, and on every other one of the tenant.
    PauseCollection,
    /// Collect again.
    ResumeCollection,
    /// Collect again for a tenant that had failed. Where the money was given back, a new period begins now, and is
    /// charged.
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
    /// Read from the ledger what the tenant stores.
    CountStored,
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
    /// Write into the spec that the tenant's data is in the namespace of this generation, with the model and the region
    /// that are found there.
    ServeFrom {
        /// The generation.
        generation: u32,
    },
    /// Remove the annotation with which a person chose a generation.
    ForgetChoice,
    /// Hand the transitions that were not shipped yet to the transition log.
    ShipTransitions,
    /// Take everything personal out of the object, and write down what was erased.
    EraseIdentity,
    /// Delete the namespace and see that it is gone.
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
    /// No proration, and the plan before stays in force until the period ends. Stripe's metadata of the subscription
    /// says so.
    AtPeriodEnd,
}

impl Effect {
    /// Its name without what it holds, such as `EnsureNamespace`.
    pub fn name(&self) -> &'static str {
        self.into()
    }

    /// The step that it belongs to.
    pub fn step(&self) -> Step {
        match self {
            Self::EnsureNamespace | Self::CheckNamespace | Self::DeleteNamespace | Self::FindData => Step::Namespace,
            Self::EnsureApiKey | Self::DeleteSecrets => Step::ApiKey,
            Self::StoreSamples | Self::VerifySamples => Step::SampleData,
            Self::Notify(_) | Self::MarkSent(_) => Step::Notice,
            Self::AssignIdentity { .. }
            | Self::RemoveFinalizer
            | Self::DeleteTenant
            | Self::CountHoldings
            | Self::EraseIdentity => Step::Identity,
            Self::Export | Self::DeleteExports => Step::Export,
            Self::RecordData { .. }
            | Self::Migrate { .. }
            | Self::DropNamespace { .. }
            | Self::ServeFrom { .. }
            | Self::ForgetChoice => Step::Data,
            Self::CountStored => Step::Usage,
            Self::ShipTransitions => Step::Outbox,
            Self::ReadBilling
            | Self::OpenCheckout { .. }
            | Self::NextCheckout { .. }
            | Self::StoreStripeIds { .. }
            | Self::FollowPaidPlan { .. }
            | Self::RecordPlan { .. }
            | Self::SwitchPrice { .. }
            | Self::Refund
            | Self::WaiveRefund
            | Self::PauseCollection
            | Self::ResumeCollection
            | Self::CollectAnew
            | Self::UpdateCustomer
            | Self::ExpireCheckout
            | Self::StopRenewal
            | Self::RenewAgain
            | Self::ForgetClosing
            | Self::EraseBilling
            | Self::CancelBilling => Step::Billing,
        }
    }

    /// The provider whose incidents are over once the effect succeeds: the incidents could not last while it did.
    pub fn proves(&self) -> Option<Provider> {
        match self {
            Self::EnsureNamespace => Some(Provider::VectorStore),
            Self::StoreSamples => Some(Provider::Models),
            Self::ReadBilling | Self::OpenCheckout { .. } => Some(Provider::Stripe),
            Self::EnsureApiKey | Self::AssignIdentity { .. } => Some(Provider::Kubernetes),
            _ => None,
        }
    }

    /// Whether no phase waits for it. Its failure is no failed attempt of the phase.
    pub(super) fn is_beside(&self) -> bool {
        matches!(self, Self::UpdateCustomer | Self::MarkSent(_))
    }
}
