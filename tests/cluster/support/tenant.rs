//! The Tenant that tests and benchmarks create.

use tenant_operator::api::tenant::{Billing, BillingMode};
use tenant_operator::api::{Tenant, TenantSpec};

/// A Tenant of a plan. One that is billed by hand is approved.
pub fn tenant(name: &str, plan: &str, mode: BillingMode) -> Tenant {
    Tenant::new(
        name,
        TenantSpec {
            export_request: None,
            wish: None,
            suspension: None,
            plan_in_force: None,
            data: None,
            deletion_policy: None,
            company_name: "Analytical Engines".into(),
            admin_email: format!("{name}@example.com"),
            plan: plan.into(),
            billing: Billing { mode, approved: mode == BillingMode::Manual, stripe: None },
            tenant_id: None,
            login: None,
            terms: None,
            desired: Default::default(),
            settings: Default::default(),
            api_key_generation: 1,
        },
    )
}
