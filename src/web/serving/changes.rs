//! What becomes of a Tenant, for requests that wait for it. Web's one watch of Tenants feeds them all: an open page
//! costs the API server one read, and no watch of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;
use tokio::sync::watch;

use crate::api::Tenant;

/// Tenants without a follower are forgotten when there are so many.
const KEPT: usize = 1000;

/// What the watch told last.
#[derive(Clone, Debug, Default)]
pub enum Change {
    /// Nothing yet.
    #[default]
    Nothing,
    /// The Tenant is like this.
    Now(Arc<Tenant>),
    /// The Tenant is gone.
    Gone,
}

/// Those who follow a Tenant, by its uid.
#[derive(Clone, Debug, Default)]
pub struct Changes(Arc<Mutex<HashMap<String, watch::Sender<Change>>>>);

impl Changes {
    fn followed(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Change>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the Tenant of this uid. What happened before is for the caller to read.
    pub fn follow(&self, uid: &str) -> watch::Receiver<Change> {
        let mut all = self.followed();
        if all.len() > KEPT {
            all.retain(|_, followers| followers.receiver_count() > 0);
        }
        all.entry(uid.to_owned()).or_default().subscribe()
    }

    fn tell(&self, uid: &str, change: Change) {
        let mut all = self.followed();
        match all.get(uid) {
            Some(followers) if followers.receiver_count() > 0 => drop(followers.send_replace(change)),
            Some(_) => drop(all.remove(uid)),
            None => {}
        }
    }

    /// The watch shows a Tenant.
    pub fn show(&self, tenant: Tenant) {
        if let Some(uid) = tenant.uid() {
            self.tell(&uid, Change::Now(tenant.into()));
        }
    }

    /// The watch shows it no more.
    pub fn lose(&self, uid: &str) {
        self.tell(uid, Change::Gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_who_follow_a_tenant_hear_of_it_and_of_no_other() {
        let changes = Changes::default();
        let spec = serde_json::json!({"companyName": "A", "adminEmail": "a@b.example"});
        let tenant = |uid: &str| {
            let mut tenant = Tenant::new(uid, serde_json::from_value(spec.clone()).expect("a spec"));
            tenant.metadata.uid = Some(uid.into());
            tenant
        };
        let (mut first, second) = (changes.follow("a"), changes.follow("a"));
        changes.show(tenant("b"));
        assert!(!first.has_changed().expect("open"));
        changes.show(tenant("a"));
        assert!(matches!(&*first.borrow_and_update(), Change::Now(tenant) if tenant.name_any() == "a"));
        changes.lose("a");
        assert!(matches!(&*second.borrow(), Change::Gone));
        drop((first, second));
        changes.show(tenant("a"));
        assert!(changes.followed().is_empty(), "nothing is kept for those who left");
    }
}
