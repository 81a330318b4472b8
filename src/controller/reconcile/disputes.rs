//! The disputes of customers, as last read from Stripe.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::api::{ACCEPT_DISPUTE_ANNOTATION, Phase, Tenant};
use crate::lifecycle::{Dispute, ObservedDispute, dispute_state};
use crate::providers::Priority;

/// By the customers' ids; None before Stripe was asked.
#[derive(Default)]
pub struct Disputes(RwLock<Option<HashMap<String, Dispute>>>);

impl Disputes {
    /// Takes in what Stripe says now.
    pub fn replace(&self, all: HashMap<String, Dispute>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(all);
    }

    /// What a tenant's customer disputes.
    pub fn of(&self, tenant: &Tenant) -> ObservedDispute {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(all) = known.as_ref() else { return ObservedDispute::Unknown };
        let customer = tenant.spec.billing.stripe.as_ref().and_then(|refs| refs.customer_id.as_ref());
        let dispute = customer.and_then(|customer| all.get(customer)).cloned();
        dispute.map_or(ObservedDispute::None, ObservedDispute::Disputed)
    }

    /// Whether the status does not say what Stripe says.
    pub fn differ(&self, tenant: &Tenant) -> Option<Priority> {
        let status = tenant.status.as_ref()?;
        if !matches!(status.phase, Some(Phase::Active | Phase::Suspended)) {
            return None;
        }
        let accepted = tenant.metadata.annotations.as_ref().and_then(|a| a.get(ACCEPT_DISPUTE_ANNOTATION));
        let observed = self.of(tenant);
        if observed == ObservedDispute::Unknown {
            return None;
        }
        let wanted = observed.counting(accepted).map(dispute_state);
        (status.dispute != wanted).then_some(Priority::Repair)
    }
}
