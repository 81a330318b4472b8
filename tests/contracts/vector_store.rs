//! The contracts of a vector store.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use futures::future::LocalBoxFuture;
use serde_json::json;
use tenant_operator::lifecycle::{Blame, Fault, Provider};
use tenant_operator::providers::gate::Gate;
use tenant_operator::providers::pinecone::{Pinecone, PineconeConfig};
use tenant_operator::providers::vector_store::{IndexIdentity, Match, Values, Vector, VectorStore};
use tenant_operator::providers::{Caller, ProviderError};

use super::{Verdict, becomes, broken, calls, holds, sandbox, set};

/// What is judged.
struct Judged<'a> {
    /// An index that holds no namespace that begins with `contract-`.
    index: &'a dyn VectorStore,
    /// Takes the room for more namespaces from the account, or gives it back.
    fill: &'a dyn Fn(bool) -> LocalBoxFuture<'static, ()>,
}

type Contract = for<'a> fn(&'a Judged<'a>) -> LocalBoxFuture<'a, Verdict>;

const CONTRACTS: [(&str, Contract); 9] = [
    ("identity", |judged| Box::pin(identity(judged.index))),
    ("gate", |judged| Box::pin(gate(judged.index))),
    ("create", |judged| Box::pin(create(judged.index))),
    ("unknown", |judged| Box::pin(unknown(judged.index))),
    ("found", |judged| Box::pin(found(judged.index))),
    ("pages", |judged| Box::pin(pages(judged.index))),
    ("large", |judged| Box::pin(large(judged.index))),
    ("delete", |judged| Box::pin(delete(judged.index))),
    ("full", |judged| Box::pin(full(judged))),
];

/// Judges an index by the contracts of these names.
async fn judge(judged: &Judged<'_>, wanted: impl Fn(&str) -> bool) -> BTreeSet<&'static str> {
    let mut verdicts = Vec::new();
    for (name, contract) in CONTRACTS.into_iter().filter(|(name, _)| wanted(name)) {
        verdicts.push((name, contract(judged).await));
        for left in judged.index.namespaces("contract-").await.unwrap_or_default().keys() {
            drop(judged.index.delete_namespace(left).await);
        }
    }
    broken(verdicts)
}

#[expect(clippy::needless_pass_by_value, reason = "the form that `map_err` takes")]
fn said(error: ProviderError) -> String {
    error.to_string()
}

/// A vector that points in one direction, and another one's neighbour where `lean` is not zero.
async fn values(index: &dyn VectorStore, direction: usize, lean: f32) -> Result<Values, String> {
    index.prepare().await.map_err(said)?;
    let length = index.dimension().and_then(|d| usize::try_from(d).ok()).ok_or("no dimension after `prepare`")?;
    let mut numbers = vec![0.0; length];
    numbers[direction % length] = 1.0;
    numbers[(direction + 1) % length] = lean;
    Values::encode(&numbers).map_err(said)
}

async fn vector(index: &dyn VectorStore, id: &str, direction: usize, text: &str) -> Result<Vector, String> {
    let metadata = BTreeMap::from([("text".to_owned(), json!(text)), ("bytes".to_owned(), json!(7))]);
    Ok(Vector { id: id.to_owned(), values: values(index, direction, 0.0).await?, metadata })
}

/// The index says which one it is, and its dimension is known once it was prepared.
async fn identity(index: &dyn VectorStore) -> Verdict {
    let there = index.identity().await.map_err(said)?;
    holds("the identity stays", index.identity().await.map_err(said)? == there)?;
    holds("it has a name, a host and a dimension", !there.index.is_empty() && !there.host.is_empty())?;
    index.prepare().await.map_err(said)?;
    holds("the dimension is that of the identity", index.dimension() == Some(there.dimension) && there.dimension > 0)
}

/// While the gate is closed, every call to vectors and namespaces fails with its reason.
async fn gate(index: &dyn VectorStore) -> Verdict {
    let why = ProviderError {
        reason: Fault::IndexMismatch,
        blame: Blame::Mismatch,
        ..ProviderError::garbage(Provider::VectorStore, "another index")
    };
    let there = index.identity().await.map_err(said)?;
    index.gate().close(why);
    let refused = |outcome: Option<ProviderError>| outcome.is_some_and(|error| error.reason == Fault::IndexMismatch);
    let all = [
        ("create", refused(index.create_namespace("contract-gate").await.err())),
        ("count", refused(index.count("contract-gate").await.err())),
        ("delete", refused(index.delete_namespace("contract-gate").await.err())),
        ("list", refused(index.list("contract-gate", "", 1, None).await.err())),
    ];
    holds("`admit` opens the gate", index.admit(&there) && !index.admit(&there))?;
    for (call, refused) in all {
        holds(&format!("{call} passes a closed gate"), refused)?;
    }
    index.count("contract-gate").await.map(drop).map_err(said)
}

/// A namespace can be created again, is listed by its prefix, and is empty at first.
async fn create(index: &dyn VectorStore) -> Verdict {
    index.create_namespace("contract-create").await.map_err(said)?;
    becomes("it is counted", async || Ok::<_, ProviderError>(index.count("contract-create").await? == Some(0))).await?;
    index.create_namespace("contract-create").await.map_err(|e| format!("creating it again: {e}"))?;
    becomes("it is listed", async || {
        Ok::<_, ProviderError>(index.namespaces("contract-c").await?.get("contract-create") == Some(&0))
    })
    .await?;
    holds("a prefix leaves out others", index.namespaces("contract-x").await.map_err(said)?.is_empty())
}

/// A namespace that does not exist holds nothing, and that is no error.
async fn unknown(index: &dyn VectorStore) -> Verdict {
    let (name, ids) = ("contract-unknown", ["a".to_owned()]);
    holds("it is not counted", index.count(name).await.map_err(said)?.is_none())?;
    holds("nothing is fetched", index.fetch(name, &ids).await.map_err(said)?.is_empty())?;
    holds("nothing is missing but what was asked for", index.missing(name, ids.to_vec()).await.map_err(said)? == ids)?;
    holds("nothing is listed", index.list(name, "", 10, None).await.map_err(said)? == (Vec::new(), None))?;
    let values = values(index, 0, 0.0).await?;
    holds("nothing is found", index.query(name, &values, 3).await.map_err(said)?.is_empty())?;
    index.delete(name, &ids).await.map_err(said)?;
    index.delete_namespace(name).await.map_err(said)
}

/// What was stored is counted, listed, fetched and found, nearest first, in its own namespace alone; the same id again
/// replaces.
async fn found(index: &dyn VectorStore) -> Verdict {
    let (name, other) = ("contract-found", "contract-found-other");
    index.create_namespace(name).await.map_err(said)?;
    index.create_namespace(other).await.map_err(said)?;
    let stored = [vector(index, "a", 0, "first").await?, vector(index, "b", 1, "second").await?];
    index.upsert(name, &stored).await.map_err(said)?;
    let foreign = [vector(index, "foreign", 0, "another tenant's").await?];
    index.upsert(other, &foreign).await.map_err(said)?;
    becomes("it is counted", async || Ok::<_, ProviderError>(index.count(name).await? == Some(2))).await?;
    let ids = ["a", "b", "c"].map(str::to_owned);
    becomes("it is fetched as it was stored", async || {
        let there = index.fetch(name, &ids).await?;
        let same =
            |v: &Vector| there.get(&v.id).is_some_and(|t| (&t.id, &t.metadata.len()) == (&v.id, &v.metadata.len()));
        let text = there.get("b").and_then(|vector| vector.text("text")) == Some("second");
        let bytes = there.get("b").and_then(|vector| vector.metadata.get("bytes")?.as_f64()) == Some(7.0);
        let numbers = |vector: &Vector| serde_json::from_str::<Vec<f32>>(vector.values.json()).ok();
        let values = there.get("b").and_then(numbers) == numbers(&stored[1]);
        Ok::<_, ProviderError>(there.len() == 2 && stored.iter().all(same) && text && bytes && values)
    })
    .await?;
    let near = values(index, 0, 0.5).await?;
    becomes("the foreign one is found at home", async || {
        Ok::<_, ProviderError>(index.query(other, &near, 9).await?.iter().any(|found| found.id == "foreign"))
    })
    .await?;
    becomes("both are found", async || Ok::<_, ProviderError>(index.query(name, &near, 9).await?.len() >= 2)).await?;
    let matches = index.query(name, &near, 9).await.map_err(said)?;
    let order: Vec<_> = matches.iter().map(|found| &*found.id).collect();
    holds(&format!("nearest first, of its own namespace: {order:?}"), order == ["a", "b"])?;
    holds("similarity is that of cosine", (matches[0].score - 0.894).abs() < 0.01)?;
    holds("metadata comes along", matches[0].metadata.get("text") == Some(&json!("first")))?;
    holds("no more than were asked for", index.query(name, &near, 1).await.map_err(said)?.len() == 1)?;
    index.upsert(name, &[vector(index, "a", 0, "again").await?]).await.map_err(said)?;
    becomes("the same id replaces", async || {
        let there = index.fetch(name, &ids).await?;
        Ok::<_, ProviderError>(there.len() == 2 && there.get("a").and_then(|v| v.text("text")) == Some("again"))
    })
    .await
}

/// Lists go on where a page ends, and name everything once.
async fn pages(index: &dyn VectorStore) -> Verdict {
    let name = "contract-pages";
    index.create_namespace(name).await.map_err(said)?;
    let one = values(index, 0, 0.0).await?;
    let made = |i: usize| Vector { id: format!("d/{i:03}"), values: one.clone(), metadata: BTreeMap::new() };
    let others = Vector { id: "c/0".into(), values: one.clone(), metadata: BTreeMap::new() };
    let stored: Vec<_> = (0..25).map(made).chain([others]).collect();
    index.upsert(name, &stored).await.map_err(said)?;
    becomes("they are counted", async || Ok::<_, ProviderError>(index.count(name).await? == Some(26))).await?;
    let (mut ids, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let (page, next) = index.list(name, "d/", 10, after.as_deref()).await.map_err(said)?;
        holds("a page holds no more than its limit", page.len() <= 10)?;
        ids.extend(page);
        (after, pages) = (next, pages + 1);
        if after.is_none() || pages > 9 {
            break;
        }
    }
    let wanted: Vec<_> = stored[..25].iter().map(|vector| vector.id.clone()).collect();
    ids.sort();
    holds(&format!("each id of the prefix is listed once: {}", ids.len()), ids == wanted)?;
    for i in 0..105 {
        index.create_namespace(&format!("contract-pages-{i}")).await.map_err(said)?;
    }
    becomes("all namespaces are listed", async || {
        Ok::<_, ProviderError>(index.namespaces("contract-pages-").await?.len() == 105)
    })
    .await
}

/// More than one call of the store takes is cut into several calls.
async fn large(index: &dyn VectorStore) -> Verdict {
    let name = "contract-large";
    index.create_namespace(name).await.map_err(said)?;
    let one = vector(index, "", 0, &"x".repeat(3000)).await?;
    let stored: Vec<_> = (0..1100).map(|i| Vector { id: i.to_string(), ..one.clone() }).collect();
    index.upsert(name, &stored).await.map_err(said)?;
    becomes("all are stored", async || Ok::<_, ProviderError>(index.count(name).await? == Some(1100))).await?;
    let ids: Vec<_> = stored.iter().map(|vector| vector.id.clone()).collect();
    holds("all are fetched", index.fetch(name, &ids[..300]).await.map_err(said)?.len() == 300)?;
    index.delete(name, &ids).await.map_err(said)?;
    becomes("all are deleted", async || Ok::<_, ProviderError>(index.count(name).await? == Some(0))).await
}

/// What was deleted is gone, and can be deleted again.
async fn delete(index: &dyn VectorStore) -> Verdict {
    let (name, ids) = ("contract-delete", ["a".to_owned()]);
    index.create_namespace(name).await.map_err(said)?;
    index.upsert(name, &[vector(index, "a", 0, "").await?, vector(index, "b", 0, "").await?]).await.map_err(said)?;
    becomes("both are there", async || Ok::<_, ProviderError>(index.count(name).await? == Some(2))).await?;
    index.delete(name, &ids).await.map_err(said)?;
    becomes("one is gone", async || Ok::<_, ProviderError>(index.fetch(name, &ids).await?.is_empty())).await?;
    index.delete(name, &ids).await.map_err(|e| format!("deleting it again: {e}"))?;
    becomes("the other stays", async || Ok::<_, ProviderError>(index.count(name).await? == Some(1))).await?;
    for _ in 0..2 {
        index.delete_namespace(name).await.map_err(|e| format!("deleting the namespace, maybe again: {e}"))?;
    }
    becomes("the namespace is gone", async || Ok::<_, ProviderError>(index.count(name).await?.is_none())).await?;
    becomes("its vectors are gone", async || Ok::<_, ProviderError>(index.list(name, "", 10, None).await?.0.is_empty()))
        .await
}

/// An account without room for another namespace is the operator's to enlarge, and no retry helps.
async fn full(judged: &Judged<'_>) -> Verdict {
    let index = judged.index;
    index.create_namespace("contract-full").await.map_err(said)?;
    (judged.fill)(true).await;
    let (again, more) =
        (index.create_namespace("contract-full").await, index.create_namespace("contract-full-2").await);
    (judged.fill)(false).await;
    let Err(error) = more else { return Err("a full account made another namespace".into()) };
    let told = (error.provider, error.reason, error.blame, error.retryable);
    let wanted = (Provider::VectorStore, Fault::QuotaExceeded, Blame::Admin, false);
    holds(&format!("a full account is told as such: {error:?}"), told == wanted)?;
    again.map_err(|e| format!("one that exists needs no room: {e}"))
}

/// What is wrong with an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seeded {
    AnotherDimension,
    OpenGate,
    CreatesOnce,
    AllPrefixes,
    CountsUnknown,
    CountsOneMore,
    DropsMetadata,
    KeepsTheOldVector,
    SharesNamespaces,
    OrdersByName,
    OnePageOfIds,
    OnePageOfNamespaces,
    OneBatch,
    FetchesOneBatch,
    DeletesOneBatch,
    KeepsVectors,
    KeepsNamespaces,
    RefusesToDeleteAgain,
    RetriesWhenFull,
    BlamesTheCallWhenFull,
}

/// The real client with a fault.
#[derive(Debug)]
struct Faulty<'a> {
    index: &'a dyn VectorStore,
    has: Seeded,
    gate: Gate,
}

fn failed() -> ProviderError {
    ProviderError::garbage(Provider::VectorStore, "a seeded fault")
}

#[async_trait]
impl VectorStore for Faulty<'_> {
    fn caller(&self) -> &Caller {
        self.index.caller()
    }

    fn gate(&self) -> &Gate {
        if self.has == Seeded::OpenGate { &self.gate } else { self.index.gate() }
    }

    async fn identity(&self) -> Result<IndexIdentity, ProviderError> {
        self.index.identity().await
    }

    fn admit(&self, index: &IndexIdentity) -> bool {
        if self.has == Seeded::OpenGate { self.gate.open() } else { self.index.admit(index) }
    }

    async fn prepare(&self) -> Result<(), ProviderError> {
        self.index.prepare().await
    }

    fn dimension(&self) -> Option<u64> {
        self.index.dimension().map(|dimension| dimension + u64::from(self.has == Seeded::AnotherDimension))
    }

    async fn create_namespace(&self, name: &str) -> Result<(), ProviderError> {
        if self.has == Seeded::CreatesOnce && self.index.count(name).await?.is_some() {
            return Err(failed());
        }
        self.index.create_namespace(name).await.map_err(|error| match self.has {
            Seeded::RetriesWhenFull => ProviderError { retryable: true, ..error },
            Seeded::BlamesTheCallWhenFull => ProviderError { blame: Blame::Call, ..error },
            _ => error,
        })
    }

    async fn namespaces(&self, prefix: &str) -> Result<BTreeMap<String, u64>, ProviderError> {
        let all = self.index.namespaces(if self.has == Seeded::AllPrefixes { "" } else { prefix }).await?;
        let page = if self.has == Seeded::OnePageOfNamespaces { 100 } else { usize::MAX };
        Ok(all.into_iter().take(page).collect())
    }

    async fn count(&self, namespace: &str) -> Result<Option<u64>, ProviderError> {
        let count = self.index.count(namespace).await?;
        match self.has {
            Seeded::CountsUnknown => Ok(count.or(Some(0))),
            Seeded::CountsOneMore => Ok(count.map(|count| if count > 0 { count + 1 } else { 0 })),
            _ => Ok(count),
        }
    }

    async fn delete_namespace(&self, name: &str) -> Result<(), ProviderError> {
        if self.has == Seeded::KeepsNamespaces { Ok(()) } else { self.index.delete_namespace(name).await }
    }

    async fn upsert(&self, namespace: &str, vectors: &[Vector]) -> Result<(), ProviderError> {
        let mut stored = vectors.to_vec();
        match self.has {
            Seeded::OneBatch => stored.truncate(1000),
            Seeded::DropsMetadata => stored.iter_mut().for_each(|vector| vector.metadata.clear()),
            Seeded::KeepsTheOldVector => {
                let ids: Vec<_> = stored.iter().map(|vector| vector.id.clone()).collect();
                let there = self.index.fetch(namespace, &ids).await?;
                stored.retain(|vector| !there.contains_key(&vector.id));
            }
            _ => {}
        }
        self.index.upsert(namespace, &stored).await
    }

    async fn fetch(&self, namespace: &str, ids: &[String]) -> Result<BTreeMap<String, Vector>, ProviderError> {
        let batch = if self.has == Seeded::FetchesOneBatch { 50 } else { ids.len() };
        self.index.fetch(namespace, &ids[..batch.min(ids.len())]).await
    }

    async fn list(
        &self,
        namespace: &str,
        prefix: &str,
        limit: usize,
        after: Option<&str>,
    ) -> Result<(Vec<String>, Option<String>), ProviderError> {
        let (ids, next) = self.index.list(namespace, prefix, limit, after).await?;
        Ok((ids, next.filter(|_| self.has != Seeded::OnePageOfIds)))
    }

    async fn delete(&self, namespace: &str, ids: &[String]) -> Result<(), ProviderError> {
        match self.has {
            Seeded::KeepsVectors => Ok(()),
            Seeded::DeletesOneBatch => self.index.delete(namespace, &ids[..ids.len().min(1000)]).await,
            Seeded::RefusesToDeleteAgain if self.index.fetch(namespace, ids).await?.is_empty() => Err(failed()),
            _ => self.index.delete(namespace, ids).await,
        }
    }

    async fn query(&self, namespace: &str, vector: &Values, top_k: usize) -> Result<Vec<Match>, ProviderError> {
        let mut found = self.index.query(namespace, vector, top_k).await?;
        match self.has {
            Seeded::SharesNamespaces => {
                for other in self.index.namespaces("contract-").await?.keys().filter(|other| *other != namespace) {
                    found.extend(self.index.query(other, vector, top_k).await?);
                }
            }
            Seeded::OrdersByName => found.sort_by(|a, b| b.id.cmp(&a.id)),
            _ => {}
        }
        Ok(found)
    }
}

/// Judges the client of Pinecone, at a sandbox of its own that shows writes a moment later, with a fault or without.
async fn judged(seeded: Option<Seeded>, wanted: impl Fn(&str) -> bool) -> BTreeSet<&'static str> {
    let sandbox = sandbox().await;
    set(&sandbox, "pinecone", json!({"visibility_ms": 100})).await;
    let index = Pinecone::new(PineconeConfig {
        url: sandbox.pinecone_url.clone(),
        api_key: "pc-contracts".into(),
        index: "multi-tenant-rag".into(),
        calls: calls(),
    });
    let fill = move |full: bool| -> LocalBoxFuture<'static, ()> {
        let (sandbox, room) = (sandbox.clone(), if full { 1 } else { 100_000 });
        Box::pin(async move { set(&sandbox, "pinecone", json!({"max_namespaces": room})).await })
    };
    match seeded {
        None => judge(&Judged { index: &index, fill: &fill }, wanted).await,
        Some(has) => {
            let faulty = Faulty { index: &index, has, gate: Gate::new(Provider::VectorStore) };
            judge(&Judged { index: &faulty, fill: &fill }, wanted).await
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_keeps_every_contract() {
    assert!(judged(None, |_| true).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_contract_can_be_broken() {
    let seeded = [
        (Seeded::AnotherDimension, "identity"),
        (Seeded::OpenGate, "gate"),
        (Seeded::CreatesOnce, "create"),
        (Seeded::AllPrefixes, "create"),
        (Seeded::CountsUnknown, "unknown"),
        (Seeded::CountsOneMore, "found"),
        (Seeded::DropsMetadata, "found"),
        (Seeded::KeepsTheOldVector, "found"),
        (Seeded::SharesNamespaces, "found"),
        (Seeded::OrdersByName, "found"),
        (Seeded::OnePageOfIds, "pages"),
        (Seeded::OnePageOfNamespaces, "pages"),
        (Seeded::OneBatch, "large"),
        (Seeded::FetchesOneBatch, "large"),
        (Seeded::DeletesOneBatch, "large"),
        (Seeded::KeepsVectors, "delete"),
        (Seeded::KeepsNamespaces, "delete"),
        (Seeded::RefusesToDeleteAgain, "delete"),
        (Seeded::RetriesWhenFull, "full"),
        (Seeded::BlamesTheCallWhenFull, "full"),
    ];
    let all: BTreeSet<_> = CONTRACTS.map(|(name, _)| name).into();
    assert_eq!(seeded.iter().map(|(_, contract)| *contract).collect::<BTreeSet<_>>(), all);
    let judged = seeded.map(|(has, contract)| async move {
        let broken = judged(Some(has), |name| name == contract).await;
        assert!(broken.contains(contract), "{has:?} does not break {contract}");
    });
    futures::future::join_all(judged).await;
}
