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

    /// Whether the status does not say what Stripe says, or the tenant is served although a dispute suspends it.
    pub fn differ(&self, tenant: &Tenant, suspend_disputed: bool) -> Option<Priority> {
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
        let served = status.phase == Some(Phase::Active) && wanted.is_some() && suspend_disputed;
        (status.dispute != wanted || served).then_some(Priority::Repair)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tenant(phase: &str) -> Tenant {
        serde_json::from_value(json!({
            "metadata": {"name": "acme", "namespace": "shop", "uid": "t1"},
            "spec": {
                "companyName": "Acme", "adminEmail": "ada@example.com", "plan": "starter",
                "billing": {"mode": "Stripe", "stripe": {"customerId": "cus_1"}},
            },
            "status": {"phase": phase, "dispute": "Open"},
        }))
        .expect("a Tenant")
    }

    /// What was known before the restart suspends no tenant. Once disputes are read, they do.
    #[test]
    fn a_setting_that_is_turned_on_counts_once_disputes_are_read() {
        let disputes = Disputes::default();
        assert_eq!(disputes.differ(&tenant("Active"), true), None, "not read yet");
        let dispute = Dispute {
            id: "du_1".into(),
            cause: "fraudulent".into(),
            amount: 4905,
            currency: "usd".into(),
            lost: false,
            due_by: None,
        };
        disputes.replace([("cus_1".to_owned(), dispute)].into());
        assert_eq!(disputes.differ(&tenant("Active"), true), Some(Priority::Repair));
        assert_eq!(disputes.differ(&tenant("Active"), false), None, "served on, and shown already");
        assert_eq!(disputes.differ(&tenant("Suspended"), true), None, "suspended already");
    }
}
