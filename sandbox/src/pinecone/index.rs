//! What an index holds, and what reads show of it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::DIMENSION;

/// Something that was written, and what every read shows instead until the write is visible. Pinecone promises
/// freshness of no read: <https://docs.pinecone.io/guides/index-data/check-data-freshness>
#[derive(Clone, Debug)]
pub(super) struct Written<T> {
    pub(super) now: Option<T>,
    pub(super) before: Option<T>,
    pub(super) visible_at: Instant,
}

impl<T: Clone> Written<T> {
    pub(super) fn new(now: T, visible_at: Instant) -> Self {
        Self { now: Some(now), before: None, visible_at }
    }

    pub(super) fn seen(&self, at: Instant) -> Option<&T> {
        if self.visible_at <= at { self.now.as_ref() } else { self.before.as_ref() }
    }

    /// Writes something else, or deletes it.
    pub(super) fn write(&mut self, now: Option<T>, visible_at: Instant) {
        self.before = self.seen(Instant::now()).cloned();
        (self.now, self.visible_at) = (now, visible_at);
    }

    /// Whether no read shows it any more.
    pub(super) fn is_over(&self) -> bool {
        self.now.is_none() && self.visible_at <= Instant::now()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) values: Vec<f32>,
    pub(super) metadata: Value,
}

#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) there: Written<()>,
    pub(super) vectors: BTreeMap<String, Written<Kept>>,
}

impl Namespace {
    pub(super) fn new(visible_at: Instant) -> Self {
        Self { there: Written::new((), visible_at), vectors: BTreeMap::new() }
    }

    /// The vectors as reads show them.
    pub(super) fn seen(&self, at: Instant) -> impl Iterator<Item = (&String, &Kept)> {
        self.vectors.iter().filter_map(move |(id, vector)| Some((id, vector.seen(at)?)))
    }

    /// The vectors as they were written.
    pub(super) fn written(&self) -> impl Iterator<Item = (&String, &Kept)> {
        self.vectors.iter().filter_map(|(id, vector)| Some((id, vector.now.as_ref()?)))
    }

    /// Writes a vector, or deletes it.
    pub(super) fn write(&mut self, id: String, kept: Option<Kept>, visible_at: Instant) {
        match (self.vectors.entry(id), kept) {
            (Entry::Occupied(mut there), kept) => there.get_mut().write(kept, visible_at),
            (Entry::Vacant(place), Some(kept)) => drop(place.insert(Written::new(kept, visible_at))),
            (Entry::Vacant(_), None) => {}
        }
    }
}

/// An index as it is kept on disk.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Snapshot {
    pub(super) created: u64,
    pub(super) namespaces: BTreeMap<String, BTreeMap<String, (Vec<f32>, Value)>>,
}

/// An index.
#[derive(Debug)]
pub struct Index {
    pub(super) name: &'static str,
    pub(super) region: &'static str,
    pub(super) url: RwLock<String>,
    /// The hosts of indexes of this name that were deleted.
    pub(super) retired: RwLock<BTreeSet<String>>,
    pub(super) namespaces: RwLock<BTreeMap<String, Namespace>>,
    pub(super) visibility_ms: AtomicU64,
    /// Whether the account's read and write units of the month are used up.
    pub(super) month_used_up: AtomicBool,
    /// Namespaces that the account's plan allows.
    pub(super) capacity: AtomicU64,
    pub(super) created: AtomicU64,
}

impl Index {
    pub(crate) fn new((name, region): (&'static str, &'static str), url: String) -> Self {
        Self {
            name,
            region,
            url: url.into(),
            retired: RwLock::default(),
            namespaces: RwLock::default(),
            visibility_ms: 0.into(),
            month_used_up: false.into(),
            capacity: 100_000.into(),
            created: 0.into(),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let plain =
            |n: &Namespace| n.written().map(|(id, v)| (id.clone(), (v.values.clone(), v.metadata.clone()))).collect();
        let namespaces = self.read();
        let there = namespaces.iter().filter(|(_, n)| n.there.now.is_some());
        Snapshot {
            created: self.created.load(Ordering::Relaxed),
            namespaces: there.map(|(name, n)| (name.clone(), plain(n))).collect(),
        }
    }

    pub(crate) fn restore(&self, snapshot: Snapshot) {
        let visible_at = Instant::now();
        let stored = |(id, (values, metadata))| (id, Written::new(Kept { values, metadata }, visible_at));
        let namespace = |n: BTreeMap<_, _>| Namespace {
            there: Written::new((), visible_at),
            vectors: n.into_iter().map(stored).collect(),
        };
        self.created.store(snapshot.created, Ordering::Relaxed);
        *self.write() = snapshot.namespaces.into_iter().map(|(name, n)| (name, namespace(n))).collect();
    }

    pub(super) fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Namespace>> {
        self.namespaces.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// When reads show what is written now.
    pub(super) fn visible_at(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.visibility_ms.load(Ordering::Relaxed))
    }

    pub(super) fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<String, Namespace>> {
        self.namespaces.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn host(&self) -> String {
        self.url.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Deletes the index with its data, and makes another one of that name. As at Pinecone, it has another host.
    pub(super) fn recreate(&self, url: String) {
        let before = std::mem::replace(&mut *self.url.write().unwrap_or_else(std::sync::PoisonError::into_inner), url);
        let mut retired = self.retired.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        retired.extend(before.split_once("://").map(|(_, host)| host.to_owned()));
        self.write().clear();
    }

    pub(super) fn is_retired(&self, host: &str) -> bool {
        self.retired.read().unwrap_or_else(std::sync::PoisonError::into_inner).contains(host)
    }

    pub(super) fn description(&self) -> Value {
        json!({
            "name": self.name, "dimension": DIMENSION, "metric": "cosine", "host": self.host(), "vector_type": "dense",
            "spec": {"serverless": {"cloud": "aws", "region": self.region}},
            // The shape since 2026-07 beside the one that 2026-04 has.
            "schema": {"fields": {"_values": {"type": "dense_vector", "dimension": DIMENSION, "metric": "cosine"}}},
            "deployment": {"deployment_type": "managed", "cloud": "aws", "region": self.region},
            "status": {"ready": true, "state": "Ready"}, "deletion_protection": "disabled", "tags": {},
        })
    }
}

/// The namespace of that name. Creates it if it does not exist.
pub(super) fn make<'a>(
    namespaces: &'a mut BTreeMap<String, Namespace>,
    name: &str,
    visible_at: Instant,
) -> &'a mut Namespace {
    namespaces.retain(|_, n| !n.there.is_over());
    let namespace = namespaces.entry(name.to_owned()).or_insert_with(|| Namespace::new(visible_at));
    if namespace.there.now.is_none() {
        namespace.there.write(Some(()), visible_at);
    }
    namespace.vectors.retain(|_, vector| !vector.is_over());
    namespace
}
