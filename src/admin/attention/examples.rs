//! Tenants for tests.

use serde_json::{Value, json};

use crate::api::{Tenant, Timestamp};

/// The time of all tests.
pub const NOW: &str = "2026-11-30T12:00:00Z";

/// The time of all tests.
pub fn now() -> Timestamp {
    at(NOW)
}

/// A moment.
pub fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// A customer who signed up two hours ago, and what the status says of the tenant beside its phase.
pub fn tenant(name: &str, phase: &str, more: Value) -> Tenant {
    let mut status = json!({
        "phase": phase, "message": format!("The tenant is {phase}"),
        "transitions": [{
            "tenant_id": format!("id-{name}"), "event_type": "signup", "to_state": phase, "triggered_by": "user",
            "timestamp": "2026-11-30T11:00:00Z", "reason": "The Tenant was created", "seq": 1,
        }],
    });
    let (Value::Object(into), Value::Object(more)) = (&mut status, more) else { panic!("an object") };
    into.extend(more);
    let tenant = json!({
        "apiVersion": "tenant-operator.dev/v1alpha1", "kind": "Tenant",
        "metadata": {
            "name": name, "namespace": "rag-tenants", "uid": format!("uid-{name}"),
            "creationTimestamp": "2026-11-30T10:00:00Z",
            "annotations": {"tenant-operator.dev/signup": "{\"at\":\"2026-11-30T10:00:00Z\"}"},
        },
        "spec": {
            "companyName": format!("{name} Ltd"), "adminEmail": format!("{name}@example.com"), "plan": "starter",
            "tenantId": format!("id-{name}"),
            "billing": {"mode": "Stripe", "stripe": {"customerId": "cus_1", "subscriptionId": "sub_1"}},
            "login": {"secretName": format!("{name}-login")},
        },
        "status": status,
    });
    serde_json::from_value(tenant).expect("a Tenant")
}

/// A tenant in service without a fault.
pub fn sound(name: &str) -> Tenant {
    tenant(name, "Active", json!({"subscription": "active"}))
}

/// A condition.
pub fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-11-30T11:30:00Z",
    })
}

/// Notes that a customer reached a milestone.
pub fn reached(tenant: &mut Tenant, milestone: &str, at: &str) {
    let annotations = tenant.metadata.annotations.get_or_insert_default();
    annotations.insert(crate::api::reached_annotation(milestone), at.to_owned());
}
