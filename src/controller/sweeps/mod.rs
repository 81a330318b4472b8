//! Work that concerns all tenants and comes round by the clock, beside the reconciles of single tenants.

pub mod lead_config;
pub mod leads;
pub mod orphans;
pub mod pins;
pub mod plans;
pub mod recount;
pub mod resync;
pub mod usage;
pub mod usage_billing;
