//! Telling a Tenant that something happened at Stripe. Many events of one tenant become few patches: one is under way,
//! and those that come meanwhile share the next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::api::{STRIPE_EVENT_ANNOTATION, Tenant};

/// What Kubernetes may take for one read or patch.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// Which tenant an event speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub namespace: String,
    pub name: String,
    pub tenant_id: String,
}

/// What an event says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// The event's id.
    pub event: String,
    /// Customer and subscription of a completed checkout.
    pub ids: Option<(String, String)>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The Tenant knows.
    Taken,
    /// There is no such tenant any more, or not here. Repeating cannot help.
    Unmatched,
    /// Kubernetes is away.
    Unavailable,
}

/// The hints under way.
pub struct Hints {
    client: Client,
    lines: Mutex<HashMap<Target, Arc<Line>>>,
}

/// Those of one tenant.
#[derive(Default)]
struct Line {
    turn: tokio::sync::Mutex<()>,
    batch: Mutex<Batch>,
}

#[derive(Default)]
struct Batch {
    round: u64,
    next: Hint,
    results: HashMap<u64, Told>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hints {
    pub fn new(client: Client) -> Self {
        Self { client, lines: Mutex::default() }
    }

    /// Writes a hint on the tenant, in one write with all other hints that wait for it. Goes on to the end even if the
    /// client hangs up.
    pub async fn tell(self: &Arc<Self>, target: Target, hint: Hint) -> Told {
        let hints = self.clone();
        tokio::spawn(async move { hints.in_turn(target, hint).await }).await.unwrap_or(Told::Unavailable)
    }

    async fn in_turn(&self, target: Target, hint: Hint) -> Told {
        let line = lock(&self.lines).entry(target.clone()).or_default().clone();
        let round = {
            let mut batch = lock(&line.batch);
            batch.next.event = hint.event;
            batch.next.ids = hint.ids.or(batch.next.ids.take());
            batch.round
        };
        let told = {
            let _turn = line.turn.lock().await;
            let done = lock(&line.batch).results.get(&round).copied();
            match done {
                Some(told) => told,
                None => self.write_batch(&target, &line).await,
            }
        };
        let mut lines = lock(&self.lines);
        // Two references, the map's and this one: no other hint waits.
        if Arc::strong_count(&line) == 2 {
            lines.remove(&target);
        }
        told
    }

    async fn write_batch(&self, target: &Target, line: &Line) -> Told {
        let (round, hint) = {
            let mut batch = lock(&line.batch);
            batch.round += 1;
            (batch.round - 1, std::mem::take(&mut batch.next))
        };
        let told = self.write(target, &hint).await;
        lock(&line.batch).results.insert(round, told);
        told
    }

    /// Compares before it writes: an event of an earlier tenant of that name says nothing of this one.
    async fn write(&self, target: &Target, hint: &Hint) -> Told {
        let api: Api<Tenant> = Api::namespaced(self.client.clone(), &target.namespace);
        let tenant = match limited(api.get_opt(&target.name)).await {
            Ok(Some(tenant)) if tenant.tenant_id() == target.tenant_id => tenant,
            Ok(_) => return Told::Unmatched,
            Err(told) => return told,
        };
        let Some(change) = change(&tenant, hint) else { return Told::Taken };
        let params = PatchParams { field_manager: Some("tenant-operator-webhook".into()), ..PatchParams::default() };
        match limited(api.patch(&target.name, &params, &Patch::Merge(change))).await {
            Ok(_) => Told::Taken,
            Err(told) => told,
        }
    }
}

/// The patch of the very object that was compared. Ids that are there already are the controller's to correct.
fn change(tenant: &Tenant, hint: &Hint) -> Option<serde_json::Value> {
    let stripe = tenant.spec.billing.stripe.clone().unwrap_or_default();
    let fits = |there: &Option<String>, said: &str| there.as_ref().is_none_or(|id| id == said);
    let ids = hint.ids.as_ref().filter(|(customer, _)| fits(&stripe.customer_id, customer));
    let ids = ids.filter(|_| stripe.subscription_id.is_none());
    if tenant.annotations().get(STRIPE_EVENT_ANNOTATION) == Some(&hint.event) && ids.is_none() {
        return None;
    }
    let mut change = json!({
        "metadata": {"uid": tenant.metadata.uid, "annotations": {STRIPE_EVENT_ANNOTATION: hint.event}},
    });
    if let Some((customer, subscription)) = ids {
        let ids = json!({"customerId": customer, "subscriptionId": subscription});
        change["spec"] = json!({"billing": {"stripe": ids}});
    }
    Some(change)
}

async fn limited<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Told> {
    match tokio::time::timeout(CALL_LIMIT, call).await {
        Ok(Ok(value)) => Ok(value),
        // Gone, or a name that no object can have. A conflict says neither: Stripe sends the event again, and the next
        // read tells whether the object was replaced.
        Ok(Err(kube::Error::Api(e))) if matches!(e.code, 400 | 404 | 422) => Err(Told::Unmatched),
        Ok(Err(error)) => {
            tracing::warn!(%error, "a Stripe event was not noted");
            Err(Told::Unavailable)
        }
        Err(_) => Err(Told::Unavailable),
    }
}
