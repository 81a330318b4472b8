//! All namespaces at the vector store, compared with the tenants whose data they hold.

use std::collections::{HashMap, HashSet};

use kube::ResourceExt;

use super::hints::{hint_all, phase};
use crate::api::{Phase, Tenant, Timestamp, data_of};
use crate::controller::context::Context;
use crate::lifecycle::Provider;
use crate::providers::{Priority, ProviderError};

/// Compares all namespaces.
pub async fn compare(context: &Context) -> Result<(), ProviderError> {
    let started = context.clock.read().now;
    // An index that was created again since is empty, which proves nothing about the tenants.
    context.keeper.check_indexes(&context.providers.indexes).await;
    let mut namespaces = HashSet::new();
    for index in context.providers.indexes.all() {
        namespaces.extend(index.namespaces("").await?.into_keys());
    }
    let generations = generations(&namespaces);
    let unowned: Vec<_> = generations.keys().filter(|id| !is_owned(context, id)).collect();
    context.metrics.unowned_namespaces.set(i64::try_from(unowned.len()).unwrap_or(i64::MAX));
    if let Some(one) = unowned.first() {
        let (count, store) = (unowned.len(), Provider::VectorStore);
        tracing::warn!(count, one = %one, "namespaces at {store} belong to no Tenant: `kubectl tenant data unowned` lists them");
    }
    hint_all(context, "namespaces", namespaces.len(), |tenant| {
        let leftover = left_behind(tenant, &generations);
        if leftover.is_some() {
            context.memory.remember(&tenant.uid().unwrap_or_default(), |m| m.leftover = leftover);
        }
        namespace_differs(tenant, &namespaces, started).or(leftover.map(|_| Priority::Resync))
    })
    .await;
    Ok(())
}

/// Whether the namespace is gone without the status saying so, or back.
fn namespace_differs(tenant: &Tenant, namespaces: &HashSet<String>, as_of: Timestamp) -> Option<Priority> {
    let status = tenant.status.as_ref().filter(|s| s.phase == Some(Phase::Active))?;
    if status.provisioned_at.is_none_or(|at| at >= as_of) {
        return None;
    }
    let missing = status.namespace_missing_since.is_some();
    let there = namespaces.contains(&tenant.data_namespace());
    (there == missing).then_some(Priority::Repair)
}

/// Whether an object claims the tenant id. The record of a tenant that was erased owns nothing.
fn is_owned(context: &Context, tenant_id: &str) -> bool {
    let holder = context.claims.holder(tenant_id).and_then(|key| context.caches.tenant(&key));
    holder.is_some_and(|tenant| phase(&tenant) != Some(Phase::Deleted))
}

/// The generations of each tenant's data that have a namespace, by the tenants' ids.
fn generations(namespaces: &HashSet<String>) -> HashMap<&str, Vec<u32>> {
    let mut all: HashMap<&str, Vec<u32>> = HashMap::new();
    for (id, generation) in namespaces.iter().filter_map(|name| data_of(name)) {
        all.entry(id).or_default().push(generation);
    }
    all
}

/// A generation of the tenant's data that is not the one in use, and of which no move tells: the status of the move was
/// lost, or the object is older than its data.
fn left_behind(tenant: &Tenant, generations: &HashMap<&str, Vec<u32>>) -> Option<u32> {
    let status = tenant.status.as_ref().filter(|s| s.phase == Some(Phase::Active))?;
    if status.migration.is_some() {
        return None;
    }
    let in_use = tenant.data_generation();
    generations.get(tenant.tenant_id())?.iter().copied().filter(|generation| *generation != in_use).max()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, tenant};
    use super::*;
    use crate::api::data_namespace;

    #[test]
    fn a_namespace_that_no_move_tells_of_is_left_behind() {
        let all: HashSet<_> = [data_namespace("t", 1), data_namespace("t", 2), data_namespace("other", 3)].into();
        let left_behind = |tenant: &Tenant, all: &HashSet<String>| super::left_behind(tenant, &generations(all));
        let mut active = tenant(Some(Phase::Active));
        assert_eq!(left_behind(&active, &all), Some(2), "a copy that was never finished");
        active.spec.data =
            Some(serde_json::from_value(serde_json::json!({"generation": 2, "embedding": "m"})).expect("data"));
        assert_eq!(left_behind(&active, &all), Some(1), "the one before");
        assert_eq!(left_behind(&active, &[data_namespace("t", 2)].into()), None, "the one in use");
        let migration = serde_json::json!({"generation": 2, "embedding": "m", "state": "Switched", "vectors": 1,
            "startedAt": NOW, "since": NOW});
        let status = active.status.as_mut().expect("a status");
        status.migration = Some(serde_json::from_value(migration).expect("a move"));
        assert_eq!(left_behind(&active, &all), None, "it goes when its time is up");
        assert_eq!(left_behind(&tenant(Some(Phase::Provisioning)), &all), None);
        let older = tenant(Some(Phase::Active));
        assert_eq!(
            left_behind(&older, &[data_namespace("t", 5)].into()),
            Some(5),
            "an object much older than its data"
        );
    }

    #[test]
    fn a_namespace_that_is_gone_or_back_is_seen_once() {
        let there: HashSet<_> = [data_namespace("t", 1)].into();
        let mut active = tenant(Some(Phase::Active));
        assert_eq!(namespace_differs(&active, &there, NOW), None);
        assert_eq!(namespace_differs(&active, &HashSet::new(), NOW), Some(Priority::Repair));
        assert_eq!(namespace_differs(&active, &HashSet::new(), Timestamp::from_second(50)), None);
        active.status.as_mut().expect("a status").namespace_missing_since = Some(NOW);
        assert_eq!(namespace_differs(&active, &HashSet::new(), NOW), None, "it is shown already");
        assert_eq!(namespace_differs(&active, &there, NOW), Some(Priority::Repair));
        assert_eq!(namespace_differs(&tenant(Some(Phase::Failed)), &HashSet::new(), NOW), None);
    }
}
