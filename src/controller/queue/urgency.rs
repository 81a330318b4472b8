//! How urgent it is to look at a tenant: a person who waits comes first.

use kube::ResourceExt;

use crate::api::{MAIL_REQUESTS_ANNOTATION, Phase, SENT_ANNOTATION, Tenant};
use crate::providers::Priority;

/// How urgent it is to look at a tenant that changed.
pub fn priority(tenant: &Tenant) -> Priority {
    if tenant.metadata.deletion_timestamp.is_some() || awaits_mail(tenant) || is_wished(tenant) {
        return Priority::Person;
    }
    match tenant.status.as_ref().and_then(|s| s.phase) {
        None
        | Some(Phase::PendingPayment | Phase::Suspended | Phase::Deleting | Phase::Upgrading | Phase::Downgrading) => {
            Priority::Person
        }
        Some(Phase::Provisioning) => Priority::Provisioning,
        Some(Phase::Active | Phase::Failed | Phase::Deleted) => Priority::Repair,
    }
}

/// Whether the customer asked for an e-mail that was not sent.
fn awaits_mail(tenant: &Tenant) -> bool {
    let annotation = |name: &str| tenant.annotations().get(name);
    let sent = |key: &str| annotation(SENT_ANNOTATION).is_some_and(|list| list.split(',').any(|s| s == key));
    annotation(MAIL_REQUESTS_ANNOTATION).is_some_and(|list| list.split(',').any(|request| !sent(request)))
}

/// Whether the customer or an admin has just asked for another plan, a suspension or a deletion. Once the controller
/// has seen the request, it is not urgent any more: a blocked request can stay in the spec for long.
fn is_wished(tenant: &Tenant) -> bool {
    let Some(status) = &tenant.status else { return false };
    let unseen = status.observed_generation < tenant.metadata.generation;
    unseen && (tenant.spec.plan != tenant.plan_in_force() || !tenant.spec.is_wanted())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::tenant::Desired;

    fn active(change: impl FnOnce(&mut Tenant)) -> Priority {
        let spec = json!({"companyName": "A", "adminEmail": "a@b.example", "plan": "starter"});
        let mut tenant = Tenant::new("a", serde_json::from_value(spec).expect("a spec"));
        let config = json!({"plan": "starter", "limits": {}, "features": [], "models": {}});
        let status = json!({"phase": "Active", "observedGeneration": 1, "config": config});
        tenant.status = Some(serde_json::from_value(status).expect("a status"));
        tenant.metadata.generation = Some(1);
        change(&mut tenant);
        priority(&tenant)
    }

    #[test]
    fn a_new_request_goes_before_repairs() {
        assert_eq!(active(|_| {}), Priority::Repair);
        assert_eq!(active(|t| t.metadata.generation = Some(2)), Priority::Repair, "an edited name");
        let wish = |t: &mut Tenant| (t.spec.plan, t.metadata.generation) = ("pro".into(), Some(2));
        assert_eq!(active(wish), Priority::Person);
        assert_eq!(active(|t| t.spec.plan = "pro".into()), Priority::Repair, "it is blocked, and known to be");
        for desired in [Desired::Suspended, Desired::Deleted] {
            let leave = |t: &mut Tenant| (t.spec.desired, t.metadata.generation) = (desired, Some(2));
            assert_eq!(active(leave), Priority::Person);
        }
    }
}
