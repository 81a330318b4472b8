//! A cache of watched objects, by namespace and name. Unlike kube's own store it takes several watches, one for each
//! watched namespace, and keeps only the needed parts of an object.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use tokio::sync::watch;

use crate::controller::Key;

type Known<V> = HashMap<Key, Arc<V>>;

/// Reads the cache.
pub struct Cache<V> {
    known: Arc<RwLock<Known<V>>>,
    /// How many watches have not listed everything yet.
    unlisted: watch::Receiver<usize>,
}

/// Fills the cache from one watch.
pub struct Filler<V> {
    known: Arc<RwLock<Known<V>>>,
    /// The namespace that is watched; all when absent.
    namespace: Option<String>,
    /// What a listing that is under way has shown so far.
    listing: Known<V>,
    listed: bool,
    unlisted: Arc<watch::Sender<usize>>,
}

impl<V> Clone for Cache<V> {
    fn clone(&self) -> Self {
        Self { known: self.known.clone(), unlisted: self.unlisted.clone() }
    }
}

/// An empty cache, and one filler for each scope: a namespace, or all of them.
pub fn cache<V>(scopes: &[Option<String>]) -> (Cache<V>, Vec<Filler<V>>) {
    let known = Arc::new(RwLock::new(Known::new()));
    let (sender, unlisted) = watch::channel(scopes.len());
    let sender = Arc::new(sender);
    let filler = |namespace: &Option<String>| Filler {
        known: known.clone(),
        namespace: namespace.clone(),
        listing: Known::new(),
        listed: false,
        unlisted: sender.clone(),
    };
    let fillers = scopes.iter().map(filler).collect();
    (Cache { known, unlisted }, fillers)
}

impl<V> Cache<V> {
    /// Waits for the first listing of every watch; false when the watches have ended.
    pub async fn filled(&self) -> bool {
        self.unlisted.clone().wait_for(|unlisted| *unlisted == 0).await.is_ok()
    }

    /// The object of that namespace and name.
    pub fn get(&self, key: &Key) -> Option<Arc<V>> {
        self.read().get(key).cloned()
    }

    /// All objects.
    pub fn all(&self) -> Vec<Arc<V>> {
        self.all_where(|_| true)
    }

    /// All objects of which this is true.
    pub fn all_where(&self, wanted: impl Fn(&V) -> bool) -> Vec<Arc<V>> {
        self.read().values().filter(|v| wanted(v)).cloned().collect()
    }

    /// Whether there is an object of that namespace and name.
    pub fn has(&self, key: &Key) -> bool {
        self.read().contains_key(key)
    }

    /// Shows every object. The cache is locked meanwhile.
    pub fn visit(&self, mut visitor: impl FnMut(&Key, &V)) {
        for (key, value) in &*self.read() {
            visitor(key, value);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Known<V>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Filler<V> {
    /// Takes in an event; `keep` makes of an object what is kept. Answers what a new listing no longer has: only the
    /// listing shows that an object vanished while the watch was broken.
    pub fn apply<K: Resource>(&mut self, event: &Event<K>, keep: impl Fn(&K) -> V) -> Vec<(Key, Arc<V>)> {
        let mut gone = Vec::new();
        match event {
            Event::Apply(object) => {
                let kept = Arc::new(keep(object));
                self.write(|known| drop(known.insert(key(object), kept)));
            }
            Event::Delete(object) => self.write(|known| drop(known.remove(&key(object)))),
            Event::Init => self.listing = Known::new(),
            Event::InitApply(object) => drop(self.listing.insert(key(object), Arc::new(keep(object)))),
            Event::InitDone => {
                let (listing, namespace) = (std::mem::take(&mut self.listing), self.namespace.clone());
                self.write(|known| {
                    let vanished = known.iter().filter(|(key, _)| {
                        namespace.as_ref().is_none_or(|ns| key.namespace == *ns) && !listing.contains_key(*key)
                    });
                    gone = vanished.map(|(key, value)| (key.clone(), value.clone())).collect();
                    for (key, _) in &gone {
                        known.remove(key);
                    }
                    known.extend(listing);
                });
                if !std::mem::replace(&mut self.listed, true) {
                    self.unlisted.send_modify(|unlisted| *unlisted -= 1);
                }
            }
        }
        gone
    }

    fn write(&self, change: impl FnOnce(&mut Known<V>)) {
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner));
    }
}

fn key(object: &impl Resource) -> Key {
    Key { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::core::ObjectMeta;

    use super::*;

    fn object(namespace: &str, name: &str, version: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                namespace: Some(namespace.into()),
                name: Some(name.into()),
                resource_version: Some(version.into()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    fn version(object: &ConfigMap) -> String {
        object.resource_version().unwrap_or_default()
    }

    fn known(cache: &Cache<String>) -> Vec<String> {
        let mut all: Vec<_> = cache.all().iter().map(ToString::to_string).collect();
        all.sort();
        all
    }

    fn list(filler: &mut Filler<String>, objects: &[ConfigMap]) {
        filler.apply(&Event::<ConfigMap>::Init, version);
        for object in objects {
            filler.apply(&Event::InitApply(object.clone()), version);
        }
        filler.apply(&Event::<ConfigMap>::InitDone, version);
    }

    #[tokio::test]
    async fn follows_a_watch_and_replaces_everything_when_it_is_listed_again() {
        let (cache, mut fillers) = cache::<String>(&[None]);
        let filler = &mut fillers[0];
        filler.apply(&Event::<ConfigMap>::Init, version);
        filler.apply(&Event::InitApply(object("x", "a", "1")), version);
        assert!(known(&cache).is_empty(), "half a listing is not known yet");
        filler.apply(&Event::<ConfigMap>::InitDone, version);
        assert!(cache.filled().await);
        filler.apply(&Event::Apply(object("x", "a", "2")), version);
        filler.apply(&Event::Apply(object("y", "b", "3")), version);
        assert_eq!(known(&cache), ["2", "3"]);
        filler.apply(&Event::Delete(object("y", "b", "4")), version);
        filler.apply(&Event::<ConfigMap>::Init, version);
        assert_eq!(known(&cache), ["2"], "the old state serves until the new one is whole");
        filler.apply(&Event::<ConfigMap>::InitDone, version);
        assert!(known(&cache).is_empty());
    }

    #[tokio::test]
    async fn a_listing_of_one_namespace_leaves_the_others_alone_and_all_must_be_listed_once() {
        let (cache, mut fillers) = cache::<String>(&[Some("x".into()), Some("y".into())]);
        list(&mut fillers[0], &[object("x", "a", "1"), object("x", "b", "2")]);
        list(&mut fillers[0], &[object("x", "a", "1")]);
        assert!(futures::FutureExt::now_or_never(cache.filled()).is_none(), "the other one is not listed");
        list(&mut fillers[1], &[object("y", "a", "3")]);
        assert!(cache.filled().await);
        assert_eq!(known(&cache), ["1", "3"]);
        filler_gone(&mut fillers[0]);
        assert_eq!(known(&cache), ["3"]);
        let key = Key { namespace: "y".into(), name: "a".into() };
        assert_eq!(cache.get(&key).as_deref().map(String::as_str), Some("3"));
    }

    /// Lists nothing any more, and sees that the one object that was there is told as gone.
    fn filler_gone(filler: &mut Filler<String>) {
        filler.apply(&Event::<ConfigMap>::Init, version);
        let gone = filler.apply(&Event::<ConfigMap>::InitDone, version);
        let gone: Vec<_> = gone.iter().map(|(key, version)| (key.to_string(), version.as_str())).collect();
        assert_eq!(gone, [("x/a".to_owned(), "1")], "of its own namespace alone");
    }

    #[tokio::test]
    async fn says_that_a_watch_has_ended() {
        let (cache, fillers) = cache::<String>(&[None]);
        drop(fillers);
        assert!(!cache.filled().await);
    }
}
