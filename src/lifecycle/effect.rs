//! What is known of each effect: the step that it belongs to, and what its success proves.

use super::{Effect, Provider, Step};

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
            Self::ShipTransitions => Step::Outbox,
            Self::ReadBilling
            | Self::OpenCheckout { .. }
            | Self::NextCheckout { .. }
            | Self::StoreStripeIds { .. }
            | Self::FollowPaidPlan { .. }
            | Self::RecordPlan { .. }
            | Self::SwitchPrice { .. }
            | Self::Refund
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
            Self::EnsureNamespace => Some(Provider::Pinecone),
            Self::StoreSamples => Some(Provider::OpenAi),
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
