//! A Tenant as the cache holds it: its JSON, compressed with a dictionary of the text that all Tenants share, and
//! beside it the fields that are read of all Tenants at once. Ten thousand unpacked ones would take most of the
//! controller's memory, and a settled tenant is rarely read.

use std::sync::{Arc, LazyLock};

use crate::api::Tenant;

/// Why a Tenant can always be written.
const JSON: &str = "a Tenant is JSON: each of its maps has strings for keys";

/// The text that most Tenants have in common, in the order in which it is written: fields, conditions, sentences. The
/// cache stores it once instead of in each of them.
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let typical: Vec<Tenant> =
        serde_json::from_str(include_str!("packed.json")).expect("packed.json holds Tenants: a test packs with it");
    typical.iter().flat_map(|tenant| serde_json::to_vec(tenant).expect(JSON)).collect()
});

/// A packed Tenant.
#[derive(Debug)]
pub struct PackedTenant {
    /// The plan that its spec names.
    plan: Box<str>,
    /// The plan that is in force, if it differs.
    in_force: Option<Box<str>>,
    /// LZ4 with the dictionary, behind its length.
    json: Box<[u8]>,
}

/// Why a packed Tenant cannot be unpacked: a bug, or broken memory.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Compression(#[from] lz4_flex::block::DecompressError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl PackedTenant {
    /// Packs a Tenant.
    pub fn of(tenant: &Tenant) -> Self {
        let (plan, in_force) = (tenant.spec.plan.as_str(), tenant.plan_in_force());
        let json = serde_json::to_vec(tenant).expect(JSON);
        Self {
            plan: plan.into(),
            in_force: (in_force != plan).then(|| in_force.into()),
            json: lz4_flex::block::compress_prepend_size_with_dict(&json, &DICTIONARY).into(),
        }
    }

    /// Whether its spec names this plan, or the plan is in force.
    pub fn uses(&self, plan: &str) -> bool {
        self.plans().any(|used| used == plan)
    }

    /// The plan that its spec names, and the one in force if it differs.
    pub fn plans(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.plan).chain(self.in_force.as_deref())
    }

    /// The Tenant.
    pub fn unpack(&self) -> Option<Arc<Tenant>> {
        match self.read() {
            Ok(tenant) => Some(Arc::new(tenant)),
            Err(error) => {
                tracing::error!(%error, "a Tenant in the cache cannot be read; this is a bug in the operator");
                None
            }
        }
    }

    fn read(&self) -> Result<Tenant, Broken> {
        Ok(serde_json::from_slice(&lz4_flex::block::decompress_size_prepended_with_dict(&self.json, &DICTIONARY)?)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tenant(status: &serde_json::Value) -> Tenant {
        let tenant = json!({
            "apiVersion": "tenant-operator.dev/v1alpha1",
            "kind": "Tenant",
            "metadata": {"namespace": "x", "name": "acme", "resourceVersion": "7", "labels": {"a": "b"}, "finalizers": ["f"]},
            "spec": {"companyName": "Acmé", "adminEmail": "it@acme.example", "plan": "enterprise", "exportRequest": "one"},
            "status": status,
        });
        serde_json::from_value(tenant).expect("as it was written")
    }

    #[test]
    fn nothing_is_lost_by_packing() {
        let status = json!({
            "phase": "Active",
            "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "Ready.", "lastTransitionTime": "2026-11-26T10:00:00Z"}],
            "transitions": [{"tenant_id": "a", "event_type": "signup", "to_state": "Active", "timestamp": "2026-11-26T10:00:00Z", "triggered_by": "user", "reason": "x", "seq": 1}],
        });
        let tenant = tenant(&status);
        assert_eq!(*PackedTenant::of(&tenant).unpack().expect("as it was written"), tenant);
    }

    #[test]
    fn what_tenants_have_in_common_takes_little_room() {
        let typical: Vec<Tenant> = serde_json::from_str(include_str!("packed.json")).expect("Tenants");
        for tenant in typical {
            let json = serde_json::to_string(&tenant).expect("JSON");
            // Another one, of another day.
            let other = json.replace("2026-11-26T11", "2027-03-02T08").replace("d55b", "0a17").replace("25ab", "91fe");
            let other: Tenant = serde_json::from_str(&other).expect("a Tenant");
            let packed = PackedTenant::of(&other);
            assert_eq!(*packed.unpack().expect("as it was written"), other);
            assert!(packed.json.len() * 4 < json.len(), "{} of {}", packed.json.len(), json.len());
        }
    }

    #[test]
    fn a_tenant_uses_the_plan_of_its_spec_and_the_one_in_force() {
        let mut tenant = tenant(&json!({}));
        assert_eq!(PackedTenant::of(&tenant).plans().collect::<Vec<_>>(), ["enterprise"]);
        let config = json!({"config": {"plan": "starter", "models": {"embedding": "e", "chat": "c"}, "features": [], "limits": {}}});
        tenant.status = serde_json::from_value(config).expect("as it was written");
        let packed = PackedTenant::of(&tenant);
        assert!(packed.uses("enterprise") && packed.uses("starter") && !packed.uses("other"));
    }

    #[test]
    fn broken_memory_is_no_tenant() {
        let mut packed = PackedTenant::of(&tenant(&json!({})));
        packed.json = packed.json[..packed.json.len() / 2].into();
        assert!(packed.unpack().is_none());
    }
}
