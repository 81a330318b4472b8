//! The Pinecone stand-in: control plane and data planes of two indexes, exact cosine search, delayed visibility.

mod index;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use index::{Kept, Namespace, make};

pub(crate) use index::{Index, Snapshot};

use super::Shared;

/// The indexes that are there: their names and regions.
pub(crate) const INDEXES: [(&str, &str); 2] =
    [("multi-tenant-rag", "us-east-1"), ("multi-tenant-rag-eu", "eu-central-1")];
const DIMENSION: usize = 1536;

/// The control plane, which knows all indexes.
pub(crate) fn control(indexes: [Arc<Index>; 2]) -> Router {
    let list = async |State(all): State<[Arc<Index>; 2]>| {
        Json(json!({"indexes": all.iter().map(|index| index.description()).collect::<Vec<_>>()}))
    };
    Router::new().route("/indexes", get(list)).route("/indexes/{name}", get(describe_index)).with_state(indexes)
}

/// The data plane of one index.
pub(crate) fn data(index: Arc<Index>) -> Router {
    Router::new()
        .route("/namespaces", get(list_namespaces).post(create_namespace))
        .route("/namespaces/{name}", get(describe_namespace).delete(delete_namespace))
        .route("/vectors/upsert", post(upsert))
        .route("/vectors/fetch", get(fetch))
        .route("/vectors/list", get(list_vectors))
        .route("/vectors/delete", post(delete_vectors))
        .route("/query", post(query))
        .route("/describe_index_stats", post(stats))
        .layer(middleware::from_fn_with_state(index.clone(), units))
        .layer(axum::middleware::from_fn_with_state(index.clone(), refuse_retired))
        .with_state(index)
}

/// The host of an index that was deleted serves nothing.
async fn refuse_retired(
    State(index): State<Arc<Index>>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    let host = request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
    if index.is_retired(host) { error(StatusCode::NOT_FOUND, "Index not found") } else { next.run(request).await }
}

#[derive(Deserialize)]
pub(crate) struct Recreate {
    index: String,
}

/// Deletes an index and makes another one of that name, at a host of its own.
pub(crate) async fn recreate(State(s): State<Arc<Shared>>, Json(which): Json<Recreate>) -> StatusCode {
    let Some(index) = s.pinecone.iter().find(|index| index.name == which.index).cloned() else {
        return StatusCode::NOT_FOUND;
    };
    match super::another_host(&s, index.clone()).await {
        Ok(url) => {
            index.recreate(url);
            StatusCode::NO_CONTENT
        }
        Err(error) => {
            tracing::error!(%error, "no port for the new index");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

fn error(status: StatusCode, message: impl Into<String>) -> Response {
    let code = match status {
        StatusCode::NOT_FOUND => 5,
        StatusCode::CONFLICT => 6,
        _ => 3,
    };
    (status, Json(json!({"code": code, "message": message.into(), "details": []}))).into_response()
}

async fn describe_index(State(all): State<[Arc<Index>; 2]>, Path(name): Path<String>) -> Response {
    if let Some(index) = all.iter().find(|index| index.name == name) {
        Json(index.description()).into_response()
    } else {
        let body =
            json!({"status": 404, "error": {"code": "NOT_FOUND", "message": format!("Resource {name} not found")}});
        (StatusCode::NOT_FOUND, Json(body)).into_response()
    }
}

/// Refuses what costs units while those of the month are used up
/// (<https://docs.pinecone.io/reference/api/database-limits>).
async fn units(State(s): State<Arc<Index>>, request: Request, next: Next) -> Response {
    let kind = match request.uri().path() {
        "/vectors/upsert" | "/vectors/delete" => Some(("write", "writing")),
        "/query" | "/vectors/fetch" | "/vectors/list" => Some(("read", "reading")),
        _ => None,
    };
    if let Some((kind, doing)) = kind.filter(|_| s.month_used_up.load(Ordering::Relaxed)) {
        let message = format!(
            "You've reached your {kind} unit limit for the current month (1000000). To continue {doing} data, upgrade your plan."
        );
        return error(StatusCode::TOO_MANY_REQUESTS, message);
    }
    next.run(request).await
}

fn describe(name: &str, namespace: &Namespace) -> Value {
    json!({"name": name, "record_count": namespace.seen(Instant::now()).count().to_string()})
}

async fn create_namespace(State(s): State<Arc<Index>>, Json(body): Json<Value>) -> Response {
    let Some(name) = body["name"].as_str() else {
        return error(StatusCode::BAD_REQUEST, "name is required");
    };
    let mut namespaces = s.write();
    let is_there = |n: &Namespace| n.there.now.is_some();
    if namespaces.get(name).is_some_and(is_there) {
        return error(StatusCode::CONFLICT, format!("Namespace {name} already exists"));
    }
    let capacity = s.capacity.load(Ordering::Relaxed);
    if u64::try_from(namespaces.values().filter(|n| is_there(n)).count()).is_ok_and(|count| count >= capacity) {
        let message = format!(
            "You've reached the max namespaces allowed per index ({capacity}). To add more, upgrade your plan."
        );
        let body = json!({"error": {"code": "QUOTA_EXCEEDED", "message": message}, "status": 403});
        return (StatusCode::FORBIDDEN, Json(body)).into_response();
    }
    s.created.fetch_add(1, Ordering::Relaxed);
    make(&mut namespaces, name, s.visible_at());
    Json(json!({"name": name, "record_count": "0"})).into_response()
}

/// A page of namespaces in the order of their names; the token is the last name of the page before.
async fn list_namespaces(State(s): State<Arc<Index>>, Query(params): Query<Vec<(String, String)>>) -> Json<Value> {
    let limit = param(&params, "limit").parse().map_or(100, |limit: usize| limit.clamp(1, 100));
    let (after, prefix) = (param(&params, "paginationToken"), param(&params, "prefix"));
    let (namespaces, now) = (s.read(), Instant::now());
    let seen = || namespaces.iter().filter(|(name, n)| name.starts_with(prefix) && n.there.seen(now).is_some());
    let mut rest = seen().filter(|(name, _)| name.as_str() > after);
    let list: Vec<_> = rest.by_ref().take(limit).map(|(name, n)| describe(name, n)).collect();
    let mut page = json!({"namespaces": list, "total_count": seen().count()});
    if rest.next().is_some() {
        page["pagination"] = json!({"next": list.last().map(|last| &last["name"])});
    }
    Json(page)
}

async fn describe_namespace(State(s): State<Arc<Index>>, Path(name): Path<String>) -> Response {
    match s.read().get(&name).filter(|n| n.there.seen(Instant::now()).is_some()) {
        Some(namespace) => Json(describe(&name, namespace)).into_response(),
        None => error(StatusCode::NOT_FOUND, "Namespace not found"),
    }
}

async fn delete_namespace(State(s): State<Arc<Index>>, Path(name): Path<String>) -> Response {
    let visible_at = s.visible_at();
    let mut namespaces = s.write();
    let Some(namespace) = namespaces.get_mut(&name).filter(|n| n.there.now.is_some()) else {
        return error(StatusCode::NOT_FOUND, "Namespace not found");
    };
    namespace.there.write(None, visible_at);
    for vector in namespace.vectors.values_mut() {
        vector.write(None, visible_at);
    }
    namespaces.retain(|_, n| !n.there.is_over());
    Json(json!({})).into_response()
}

#[derive(Deserialize)]
struct Upsert {
    vectors: Vec<UpsertVector>,
    #[serde(default)]
    namespace: String,
}
#[derive(Deserialize)]
struct UpsertVector {
    id: String,
    values: Vec<f32>,
    #[serde(default)]
    metadata: Value,
}

async fn upsert(State(s): State<Arc<Index>>, Json(body): Json<Upsert>) -> Response {
    if body.vectors.is_empty() || body.vectors.len() > 1000 {
        return error(StatusCode::BAD_REQUEST, "between 1 and 1000 vectors are allowed");
    }
    if let Some(bad) = body.vectors.iter().find(|v| v.values.len() != DIMENSION) {
        let message =
            format!("Vector dimension {} does not match the dimension of the index {DIMENSION}", bad.values.len());
        return error(StatusCode::BAD_REQUEST, message);
    }
    if body.vectors.iter().any(|v| v.id.is_empty() || v.id.len() > 512) {
        return error(StatusCode::BAD_REQUEST, "vector ids have 1 to 512 characters");
    }
    if let Some(bad) = body.vectors.iter().find(|v| !v.id.is_ascii()) {
        return error(StatusCode::BAD_REQUEST, format!("Vector ID must be ASCII, but got '{}'", bad.id));
    }
    let (visible_at, count) = (s.visible_at(), body.vectors.len());
    let mut namespaces = s.write();
    let namespace = make(&mut namespaces, &body.namespace, visible_at);
    for v in body.vectors {
        namespace.write(v.id, Some(Kept { values: v.values, metadata: v.metadata }), visible_at);
    }
    Json(json!({"upsertedCount": count})).into_response()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QueryBody {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    vector: Vec<f32>,
    id: Option<String>,
    top_k: usize,
    #[serde(default)]
    include_values: bool,
    #[serde(default)]
    include_metadata: bool,
}

async fn query(State(s): State<Arc<Index>>, Json(body): Json<QueryBody>) -> Response {
    let namespaces = s.read();
    let now = Instant::now();
    let namespace = namespaces.get(&body.namespace);
    let vector = match &body.id {
        Some(id) => namespace.and_then(|n| n.vectors.get(id)?.seen(now)).map(|v| v.values.clone()).unwrap_or_default(),
        None => body.vector,
    };
    if vector.len() != DIMENSION && body.id.is_none() {
        return error(
            StatusCode::BAD_REQUEST,
            format!("Vector dimension {} does not match the dimension of the index {DIMENSION}", vector.len()),
        );
    }
    let mut hits: Vec<_> =
        namespace.into_iter().flat_map(|n| n.seen(now)).map(|(id, v)| (cosine(&vector, &v.values), id, v)).collect();
    hits.sort_by(|a, b| b.0.total_cmp(&a.0));
    let matches: Vec<_> = hits
        .into_iter()
        .take(body.top_k)
        .map(|(score, id, v)| {
            let mut hit = json!({"id": id, "score": score, "values": []});
            if body.include_values {
                hit["values"] = json!(v.values);
            }
            if body.include_metadata {
                hit["metadata"] = v.metadata.clone();
            }
            hit
        })
        .collect();
    Json(json!({"matches": matches, "namespace": body.namespace, "usage": {"readUnits": 1}})).into_response()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot: f32 = a.iter().zip(b).map(|(x, y)| x * y).sum();
    let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
    let product = norm(a) * norm(b);
    if product > 0.0 { dot / product } else { 0.0 }
}

async fn fetch(State(s): State<Arc<Index>>, Query(params): Query<Vec<(String, String)>>) -> Json<Value> {
    let name = param(&params, "namespace");
    let (namespaces, now) = (s.read(), Instant::now());
    let found: serde_json::Map<_, _> = params
        .iter()
        .filter(|(key, _)| key == "ids")
        .flat_map(|(_, ids)| ids.split(','))
        .filter_map(|id| {
            let v = namespaces.get(name)?.vectors.get(id)?.seen(now)?;
            Some((id.to_owned(), json!({"id": id, "values": v.values, "metadata": v.metadata})))
        })
        .collect();
    Json(json!({"vectors": found, "namespace": name, "usage": {"readUnits": 1}}))
}

/// A page of ids in their order; the token is the last id of the page before.
async fn list_vectors(State(s): State<Arc<Index>>, Query(params): Query<Vec<(String, String)>>) -> Json<Value> {
    let (name, prefix) = (param(&params, "namespace"), param(&params, "prefix"));
    let limit = param(&params, "limit").parse().map_or(100, |limit: usize| limit.clamp(1, 100));
    let after = param(&params, "paginationToken");
    let now = Instant::now();
    let namespaces = s.read();
    let vectors = namespaces.get(name).into_iter().flat_map(|n| n.seen(now));
    let mut rest = vectors.map(|(id, _)| id).filter(|id| id.starts_with(prefix) && id.as_str() > after);
    let ids: Vec<_> = rest.by_ref().take(limit).map(|id| json!({"id": id})).collect();
    let mut page = json!({"vectors": ids, "namespace": name, "usage": {"readUnits": 1}});
    if rest.next().is_some() {
        page["pagination"] = json!({"next": ids.last().map(|last| &last["id"])});
    }
    Json(page)
}

fn param<'a>(params: &'a [(String, String)], key: &str) -> &'a str {
    params.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeleteBody {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    ids: Vec<String>,
    #[serde(default)]
    delete_all: bool,
}

async fn delete_vectors(State(s): State<Arc<Index>>, Json(body): Json<DeleteBody>) -> Response {
    let visible_at = s.visible_at();
    let mut namespaces = s.write();
    let Some(namespace) = namespaces.get_mut(&body.namespace).filter(|n| n.there.now.is_some()) else {
        return error(StatusCode::NOT_FOUND, "Namespace not found");
    };
    let ids = if body.delete_all { namespace.vectors.keys().cloned().collect() } else { body.ids };
    for id in ids {
        namespace.write(id, None, visible_at);
    }
    namespace.vectors.retain(|_, vector| !vector.is_over());
    Json(json!({})).into_response()
}

async fn stats(State(s): State<Arc<Index>>) -> Json<Value> {
    let (namespaces, now) = (s.read(), Instant::now());
    let there = || namespaces.iter().filter(|(_, n)| n.there.seen(now).is_some());
    let each: serde_json::Map<_, _> =
        there().map(|(name, n)| (name.clone(), json!({"vectorCount": n.seen(now).count()}))).collect();
    let total: usize = there().map(|(_, n)| n.seen(now).count()).sum();
    Json(
        json!({"namespaces": each, "dimension": DIMENSION, "indexFullness": 0, "totalVectorCount": total, "metric": "cosine", "vectorType": "dense"}),
    )
}

/// Counts for tests: how many namespaces were ever made, and what is in each.
pub(crate) async fn state(State(s): State<Arc<Shared>>) -> Json<Value> {
    let [first, second] = s.pinecone.each_ref().map(|index| {
        let namespaces = index.read();
        let there = namespaces.iter().filter(|(_, n)| n.there.now.is_some());
        there.map(|(name, n)| (name.clone(), n.written().count())).collect::<BTreeMap<_, _>>()
    });
    let created: u64 = s.pinecone.iter().map(|index| index.created.load(Ordering::Relaxed)).sum();
    Json(json!({"created": created, "namespaces": first, (INDEXES[1].0): {"namespaces": second}}))
}

#[derive(Deserialize)]
pub(crate) struct Behaviour {
    /// How long a write takes until reads show it.
    visibility_ms: Option<u64>,
    /// Whether the account's read and write units of the month are used up.
    month_used_up: Option<bool>,
    /// How many namespaces the account's plan allows.
    max_namespaces: Option<u64>,
}

/// Sets how the indexes behave from now on.
pub(crate) async fn configure(State(s): State<Arc<Shared>>, Json(b): Json<Behaviour>) -> StatusCode {
    for index in &s.pinecone {
        if let Some(visibility) = b.visibility_ms {
            index.visibility_ms.store(visibility, Ordering::Relaxed);
        }
        if let Some(used_up) = b.month_used_up {
            index.month_used_up.store(used_up, Ordering::Relaxed);
        }
        if let Some(capacity) = b.max_namespaces {
            index.capacity.store(capacity, Ordering::Relaxed);
        }
    }
    StatusCode::NO_CONTENT
}
