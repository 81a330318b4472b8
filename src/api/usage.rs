//! What a tenant uses of its plan, as an annotation keeps it.

use serde::{Deserialize, Serialize};

use super::{Tenant, USAGE_ANNOTATION};

/// What a tenant uses of its plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// When the period began, in Unix seconds.
    pub period: i64,
    /// Queries of the period.
    pub queries: i64,
    /// Queries of all periods before it.
    #[serde(skip_serializing_if = "is_zero")]
    pub earlier_queries: i64,
    /// Documents that are stored.
    pub documents: i64,
    /// Their bytes.
    pub bytes: i64,
    /// Bytes of text that were embedded in the period.
    #[serde(skip_serializing_if = "is_zero")]
    pub embedded: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

impl Usage {
    /// Reads the annotation. An unreadable one counts as no usage.
    pub fn of(tenant: &Tenant) -> Self {
        let text = tenant.metadata.annotations.as_ref().and_then(|a| a.get(USAGE_ANNOTATION));
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }
}
