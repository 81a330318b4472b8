//! The Secrets that carry our label, without their contents. Kube's own cache keeps all metadata, which is ten times as
//! much with ten thousand tenants.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use super::Key;
use crate::api::{COMPONENT_LABEL, LOGIN_COMPONENT, TENANT_LABEL, Timestamp, login_secret};

type Known = HashMap<Key, Arc<SeenSecret>>;

/// What is kept of a Secret.
#[derive(Debug, PartialEq, Eq)]
pub struct SeenSecret {
    /// Its resource version.
    pub version: Box<str>,
    /// What the sweep of orphans wants to know of a login Secret.
    pub login: Option<LoginSecret>,
}

/// A Secret that a signup made.
#[derive(Debug, PartialEq, Eq)]
pub struct LoginSecret {
    /// The Tenant that it is for.
    pub tenant: String,
    /// Its uid.
    pub uid: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Reads the cache.
#[derive(Clone)]
pub struct SecretCache {
    known: Arc<RwLock<Known>>,
    filled: watch::Receiver<bool>,
}

/// Fills the cache from a watch.
pub struct SecretCacheWriter {
    known: Arc<RwLock<Known>>,
    /// What a listing that is under way has shown so far.
    listing: Known,
    filled: watch::Sender<bool>,
}

/// An empty cache and its writer.
pub fn secret_cache() -> (SecretCache, SecretCacheWriter) {
    let known = Arc::<RwLock<Known>>::default();
    let (sender, filled) = watch::channel(false);
    (SecretCache { known: known.clone(), filled }, SecretCacheWriter { known, listing: Known::new(), filled: sender })
}

impl SecretCache {
    /// Waits for the first listing; false when the watch has ended.
    pub async fn filled(&self) -> bool {
        self.filled.clone().wait_for(|filled| *filled).await.is_ok()
    }

    /// The Secret of that namespace and name.
    pub fn get(&self, key: &Key) -> Option<Arc<SeenSecret>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// All login Secrets.
    pub fn logins(&self) -> Vec<(Key, Arc<SeenSecret>)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter(|(_, s)| s.login.is_some()).map(|(key, s)| (key.clone(), s.clone())).collect()
    }
}

impl SecretCacheWriter {
    /// Takes in an event.
    pub fn apply(&mut self, event: &Event<PartialObjectMeta<Secret>>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Apply(secret) => {
                known.insert(key(secret), seen(secret));
            }
            Event::Delete(secret) => {
                known.remove(&key(secret));
            }
            Event::Init => self.listing = Known::new(),
            Event::InitApply(secret) => {
                self.listing.insert(key(secret), seen(secret));
            }
            Event::InitDone => {
                *known = std::mem::take(&mut self.listing);
                self.filled.send_replace(true);
            }
        }
    }
}

fn key(secret: &PartialObjectMeta<Secret>) -> Key {
    Key { namespace: secret.namespace().unwrap_or_default(), name: secret.name_any() }
}

fn seen(secret: &PartialObjectMeta<Secret>) -> Arc<SeenSecret> {
    let version = secret.resource_version().unwrap_or_default().into();
    Arc::new(SeenSecret { version, login: login(secret) })
}

fn login(secret: &PartialObjectMeta<Secret>) -> Option<LoginSecret> {
    let labels = secret.labels();
    let tenant = labels.get(TENANT_LABEL)?;
    let made = labels.get(COMPONENT_LABEL)? == LOGIN_COMPONENT && secret.name_any() == login_secret(tenant);
    made.then_some(LoginSecret {
        tenant: tenant.clone(),
        uid: secret.uid()?,
        created_at: secret.creation_timestamp()?.0.into(),
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp as Time;
    use kube::core::ObjectMeta;

    use super::*;

    fn secret(name: &str, version: &str, component: &str) -> PartialObjectMeta<Secret> {
        let labels = [(TENANT_LABEL, "acme"), (COMPONENT_LABEL, component)];
        PartialObjectMeta {
            metadata: ObjectMeta {
                namespace: Some("tenants".into()),
                name: Some(name.into()),
                uid: Some("uid".into()),
                resource_version: Some(version.into()),
                creation_timestamp: Some(Time::UNIX_EPOCH.into()),
                labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
                ..ObjectMeta::default()
            },
            ..PartialObjectMeta::default()
        }
    }

    fn version(cache: &SecretCache, name: &str) -> Option<String> {
        let key = Key { namespace: "tenants".into(), name: name.into() };
        cache.get(&key).map(|s| s.version.to_string())
    }

    #[tokio::test]
    async fn follows_a_watch_and_replaces_everything_when_it_is_listed_again() {
        let (cache, mut writer) = secret_cache();
        writer.apply(&Event::Init);
        writer.apply(&Event::InitApply(secret("a", "1", "")));
        assert_eq!(version(&cache, "a"), None, "half a listing is not known yet");
        writer.apply(&Event::InitDone);
        assert!(cache.filled().await);
        assert_eq!(version(&cache, "a").as_deref(), Some("1"));
        writer.apply(&Event::Apply(secret("a", "2", "")));
        writer.apply(&Event::Apply(secret("b", "3", "")));
        writer.apply(&Event::Delete(secret("b", "4", "")));
        assert_eq!((version(&cache, "a").as_deref(), version(&cache, "b")), (Some("2"), None));
        writer.apply(&Event::Init);
        assert_eq!(version(&cache, "a").as_deref(), Some("2"), "the old state serves until the new one is whole");
        writer.apply(&Event::InitDone);
        assert_eq!(version(&cache, "a"), None);
    }

    #[tokio::test]
    async fn knows_the_login_secrets_and_that_a_watch_has_ended() {
        let (cache, mut writer) = secret_cache();
        writer.apply(&Event::Apply(secret("acme-login", "1", LOGIN_COMPONENT)));
        writer.apply(&Event::Apply(secret("acme-api-key", "2", "")));
        writer.apply(&Event::Apply(secret("other-login", "3", LOGIN_COMPONENT)));
        let logins: Vec<_> = cache.logins().into_iter().map(|(key, _)| key.name).collect();
        assert_eq!(logins, ["acme-login"], "the name must follow from the tenant's");
        drop(writer);
        assert!(!cache.filled().await);
    }
}
