//! How far a customer has come, read from the Tenant.

use kube::ResourceExt;
use serde::Serialize;
use strum::{EnumCount, IntoEnumIterator};

use super::Milestone;
use crate::api::{Phase, SIGNUP_ANNOTATION, Tenant, Timestamp, reached_at};
use crate::events::{Origin, Variant};

/// Who a customer is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Customer {
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The tenant's id.
    pub tenant_id: String,
    /// The company.
    pub company: String,
    /// The address of the account.
    pub email: String,
    /// The plan in force.
    pub plan: String,
}

/// A customer and what they reached.
#[derive(Clone, Debug)]
pub struct Journey {
    /// Who it is.
    pub customer: Customer,
    /// How the tenant came to be.
    pub origin: Origin,
    /// How the pages guide the customer.
    pub variant: Variant,
    /// The phase. None for a Tenant that the controller has not seen.
    pub phase: Option<Phase>,
    /// When the customer signed up: as the record of the signup says, or else when the object was created; not after the
    /// first milestone.
    pub signed_up: Timestamp,
    reached: [Option<Timestamp>; Milestone::COUNT],
}

impl Journey {
    /// Of an object. None for one that the API server has not stored, and for a customer who was erased: nothing says
    /// any more how the tenant came to be.
    pub fn of(tenant: &Tenant) -> Option<Self> {
        let created = Timestamp::from(tenant.creation_timestamp()?.0);
        let status = tenant.status.as_ref();
        if status.is_some_and(|status| status.phase == Some(Phase::Deleted)) {
            return None;
        }
        let customer = Customer {
            namespace: tenant.namespace().unwrap_or_default(),
            name: tenant.name_any(),
            tenant_id: tenant.tenant_id().to_owned(),
            company: tenant.spec.company_name.clone(),
            email: tenant.spec.admin_email.clone(),
            plan: tenant.plan_in_force().to_owned(),
        };
        let mut journey = Self {
            customer,
            origin: Origin::of(tenant),
            variant: Variant::of(&tenant.uid().unwrap_or_default()),
            phase: status.and_then(|status| status.phase),
            signed_up: created,
            reached: [None; Milestone::COUNT],
        };
        for milestone in Milestone::iter() {
            journey.reached[milestone as usize] = match milestone {
                Milestone::Signup => Some(noted_signup(tenant).unwrap_or(created)),
                Milestone::Payment => status.and_then(|status| status.paid_at),
                Milestone::Provisioned => status.and_then(|status| status.provisioned_at),
                noted => reached_at(tenant, &noted.name().replace('_', "-")),
            };
        }
        // An object that was restored or moved is younger than what its customer reached.
        journey.signed_up = journey.reached.into_iter().flatten().min().unwrap_or(created);
        journey.reached[Milestone::Signup as usize] = Some(journey.signed_up);
        Some(journey)
    }

    /// When a milestone was reached, if it was.
    pub const fn reached(&self, milestone: Milestone) -> Option<Timestamp> {
        self.reached[milestone as usize]
    }

    /// The first answer with a source: on the samples or on a document of the customer's own.
    pub fn first_query(&self) -> Option<Timestamp> {
        let both = [self.reached(Milestone::SampleQuery), self.reached(Milestone::OwnQuery)];
        both.into_iter().flatten().min()
    }

    /// Whether the customer came by the pages. A tenant that was applied as a manifest may never use them.
    pub fn by_the_pages(&self) -> bool {
        self.origin != Origin::Manifest
    }
}

/// When the customer sent the form, as the record of the signup says.
fn noted_signup(tenant: &Tenant) -> Option<Timestamp> {
    let record: serde_json::Value = serde_json::from_str(tenant.annotations().get(SIGNUP_ANNOTATION)?).ok()?;
    record.get("at")?.as_str()?.parse().ok()
}

#[cfg(test)]
impl Journey {
    /// A customer who signed up at a moment and reached these milestones so many seconds later.
    pub fn example(name: &str, signed_up: i64, reached: &[(Milestone, i64)]) -> Self {
        let signed_up = Timestamp::from_second(signed_up);
        let customer = Customer {
            namespace: "tenants".into(),
            name: name.into(),
            tenant_id: format!("id-{name}"),
            company: "Example Ltd".into(),
            email: format!("{name}@example.com"),
            plan: "starter".into(),
        };
        let mut journey = Self {
            customer,
            origin: Origin::Signup,
            variant: Variant::Simple,
            phase: Some(Phase::Active),
            signed_up,
            reached: [None; Milestone::COUNT],
        };
        for (milestone, after) in [(Milestone::Signup, 0)].iter().chain(reached) {
            journey.reached[*milestone as usize] = Some(signed_up.plus(*after));
        }
        journey
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_customer_who_was_erased_is_in_no_figure() {
        let tenant = |phase: &str| {
            let tenant = json!({
                "apiVersion": "tenant-operator.dev/v1alpha1", "kind": "Tenant",
                "metadata": {"name": "t-1", "creationTimestamp": "2026-11-01T00:00:00Z"},
                "spec": {"companyName": "A", "adminEmail": "a@b.example"}, "status": {"phase": phase},
            });
            serde_json::from_value::<Tenant>(tenant).expect("a tenant")
        };
        assert!(Journey::of(&tenant("Active")).is_some());
        assert!(Journey::of(&tenant("Deleted")).is_none());
    }
}
