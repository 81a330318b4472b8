//! The Tenants and Plans of the cluster, as a watch keeps them: no page and no figure asks the API server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{Lookup, Store, store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinSet;

use crate::api::{Plan, Tenant};
use crate::watches;

/// What is known of the Tenants and Plans.
#[derive(Clone, Debug)]
pub struct Tenants {
    /// One store for each namespace in scope, or one for all.
    scopes: Vec<Store<Tenant>>,
    plans: Store<Plan>,
    progress: Arc<Progress>,
}

/// How all watches do.
#[derive(Debug)]
struct Progress {
    /// Listings that are not complete yet.
    missing: AtomicUsize,
    silence: Mutex<Option<Silence>>,
}

/// Watches that fail, again and again.
#[derive(Clone, Copy, Debug)]
struct Silence {
    began: Instant,
    last: Instant,
}

/// Between two failures of a watch that cannot go on, at most. kube waits for 30 seconds at most.
const FAILS_AGAIN: Duration = Duration::from_mins(2);
/// After which what is known is too old for figures.
const OLD: Duration = Duration::from_mins(5);

/// A watch has failed. One that fails again soon is the same silence.
fn failed(before: Option<Silence>, now: Instant) -> Silence {
    let same = before.filter(|silence| now.duration_since(silence.last) < FAILS_AGAIN);
    Silence { began: same.map_or(now, |silence| silence.began), last: now }
}

/// How long a silence lasts, if it is not over.
fn lasts(silence: Option<Silence>, now: Instant) -> Option<Duration> {
    let silence = silence.filter(|silence| now.duration_since(silence.last) < FAILS_AGAIN)?;
    Some(now.duration_since(silence.began))
}

impl Tenants {
    /// Begins to follow the Plans, and the Tenants of these namespaces or of all. What follows them runs in `tasks`, and
    /// begins again by itself when the API server was away.
    pub fn start(tasks: &mut JoinSet<()>, client: &Client, namespaces: &[String]) -> Self {
        let all = [Api::<Tenant>::all(client.clone())];
        let some = namespaces.iter().map(|namespace| Api::<Tenant>::namespaced(client.clone(), namespace));
        let apis: Vec<_> = if namespaces.is_empty() { all.into() } else { some.collect() };
        let progress = Progress { missing: AtomicUsize::new(apis.len() + 1), silence: Mutex::default() };
        let progress = Arc::new(progress);
        let scopes = apis.into_iter().map(|api| follow(tasks, api, "Tenants", &progress)).collect();
        let plans = follow(tasks, Api::<Plan>::all(client.clone()), "Plans", &progress);
        Self { scopes, plans, progress }
    }

    /// Every Tenant in scope, by namespace and name.
    pub fn all(&self) -> Vec<Arc<Tenant>> {
        let mut all: Vec<_> = self.scopes.iter().flat_map(Store::state).collect();
        all.sort_by(|one, other| place(one).cmp(&place(other)));
        all
    }

    /// A Tenant by its namespace and name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Tenant>> {
        self.scopes.iter().find_map(|store| store.find(|tenant| place(tenant) == (Some(namespace), Some(name))))
    }

    /// Every Plan, by name.
    pub fn plans(&self) -> Vec<Arc<Plan>> {
        let mut all = self.plans.state();
        all.sort_by_key(|plan| plan.name_any());
        all
    }

    /// For how long the API server has not told what changes, if that is so: nothing of it would be seen.
    pub fn silent_for(&self) -> Option<Duration> {
        let silence = *self.progress.silence.lock().unwrap_or_else(PoisonError::into_inner);
        lasts(silence, Instant::now())
    }

    /// Whether what is known is too old for figures.
    pub fn is_old(&self) -> bool {
        self.silent_for().is_some_and(|silent| silent >= OLD)
    }

    /// Whether everything was listed once. From then on it is as new as the API server has told.
    pub fn is_filled(&self) -> bool {
        self.progress.missing.load(Ordering::Relaxed) == 0
    }
}

fn place(tenant: &Tenant) -> (Option<&str>, Option<&str>) {
    (tenant.metadata.namespace.as_deref(), tenant.metadata.name.as_deref())
}

/// A store, and a task that keeps it as the API server has the objects.
fn follow<K>(tasks: &mut JoinSet<()>, api: Api<K>, what: &'static str, progress: &Arc<Progress>) -> Store<K>
where
    K: kube::Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
    K: serde::de::DeserializeOwned,
{
    let (reader, writer) = store();
    tasks.spawn(keep(api, writer, what, progress.clone()));
    reader
}

async fn keep<K>(api: Api<K>, mut writer: Writer<K>, what: &'static str, progress: Arc<Progress>)
where
    K: kube::Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
    K: serde::de::DeserializeOwned,
{
    let mut events = std::pin::pin!(watches::watch(api, watcher::Config::default().any_semantic()));
    let mut first = true;
    while let Some(event) = events.next().await {
        match event.map(slim) {
            Ok(event) => {
                writer.apply_watcher_event(&event);
                if matches!(event, Event::InitDone) && std::mem::take(&mut first) {
                    progress.missing.fetch_sub(1, Ordering::Relaxed);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the watch of {what} for /admin broke off; it resumes");
                let mut silence = progress.silence.lock().unwrap_or_else(PoisonError::into_inner);
                *silence = Some(failed(*silence, Instant::now()));
            }
        }
    }
}

/// Who wrote which field is half of an object, and nothing here reads it.
fn slim<K: kube::Resource>(mut event: Event<K>) -> Event<K> {
    if let Event::Apply(object) | Event::InitApply(object) = &mut event {
        object.meta_mut().managed_fields = None;
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_lasts_while_watches_fail_and_is_over_once_they_do_not() {
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(lasts(None, began), None);
        let mut silence = Some(failed(None, began));
        for n in 1..=10 {
            silence = Some(failed(silence, began + second * 30 * n));
        }
        assert_eq!(lasts(silence, began + second * 310), Some(second * 310));
        assert_eq!(lasts(silence, began + second * 421), None, "no failure for two minutes");
        let again = Some(failed(silence, began + second * 600));
        assert_eq!(lasts(again, began + second * 601), Some(second), "another silence");
    }
}
