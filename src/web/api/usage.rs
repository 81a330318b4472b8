//! What a tenant has used of its plan, the same for all replicas: an annotation of the Tenant. A replica changes the annotation only
//! with the latest version of the object.
//!
//! A write for each query would be too many, so a replica takes a block of queries at once and counts it down by itself. It
//! gives back what is left when it ends in order; when it is killed, one in 500 of the plan is lost at most.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use futures::{StreamExt, stream};
use kube::Api;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::keys::Admitted;
use crate::api::plan::Limits;
use crate::api::{Tenant, Timestamp, USAGE_ANNOTATION, Usage};
use crate::web::App;
use crate::web::serving::directory::Served;
use crate::web::serving::optimistic::patch;
use crate::web::serving::problem::{Code, Problem};
use crate::web::serving::turns::Turns;

/// Writes that are tried before the tenant has to.
const TRIES: u32 = 12;
/// A block is so small a part of the plan.
const PART: i64 = 500;
/// Queries of a block, at most.
const LARGEST_BLOCK: i64 = 50;
/// Blocks that are given back at the same time.
const GIVEN_BACK: usize = 16;

/// A block of queries that this replica may answer.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    period: i64,
    left: i64,
}

/// The blocks, by the tenants' uids.
#[derive(Default)]
pub struct Ledger {
    blocks: Mutex<HashMap<String, Block>>,
    /// One at a time writes for a tenant, so that its own requests do not collide.
    writing: Turns,
}

/// One query that was taken. It is given back when it is dropped before it is sent to the providers.
pub struct Taken {
    ledger: Arc<Ledger>,
    uid: String,
    counts: bool,
}

impl Taken {
    /// The providers are asked from now on. The query counts, even if the client hangs up.
    pub fn sent(mut self) -> Self {
        self.counts = true;
        self
    }

    /// The customer got no answer. The query does not count.
    pub fn give_back(mut self) {
        self.counts = false;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.counts
            && let Some(block) = self.ledger.blocks().get_mut(&self.uid)
        {
            block.left += 1;
        }
    }
}

impl Ledger {
    fn blocks(&self) -> std::sync::MutexGuard<'_, HashMap<String, Block>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one from this replica's block.
    fn from_block(self: &Arc<Self>, uid: &str, period: i64) -> Option<Taken> {
        let mut blocks = self.blocks();
        let block = blocks.get_mut(uid).filter(|block| block.period == period && block.left > 0)?;
        block.left -= 1;
        Some(Taken { ledger: self.clone(), uid: uid.to_owned(), counts: false })
    }
}

fn used_up(limit: i64, end: Timestamp, now: Timestamp) -> Problem {
    let wait = Duration::from_secs(end.since(now).max(1).unsigned_abs());
    let detail = format!("Your plan's {limit} queries of this period are used up. Upgrade, or wait until {end}.");
    Problem::new(StatusCode::TOO_MANY_REQUESTS, Code::QuotaExceeded, detail).after(wait)
}

fn embedded_up(limit: i64, end: Timestamp, now: Timestamp) -> Problem {
    let wait = Duration::from_secs(end.since(now).max(1).unsigned_abs());
    let detail = format!(
        "Your plan embeds {limit} bytes of text in a period, and this document has more than what is left. Upgrade, or wait until {end}."
    );
    Problem::new(StatusCode::TOO_MANY_REQUESTS, Code::QuotaExceeded, detail).after(wait)
}

fn full(what: &str, limit: i64) -> Problem {
    let detail = format!("Your plan holds {limit} {what}. Delete some, or upgrade.");
    Problem::new(StatusCode::FORBIDDEN, Code::QuotaExceeded, detail)
}

/// Whether the plan holds one more document: the bytes of its file, unless they are counted already, and those of its text.
fn fits(
    used: &Usage,
    limits: &Limits,
    (bytes, text): (Option<i64>, i64),
    (end, now): (Timestamp, Timestamp),
) -> Result<(), Problem> {
    if used.embedded + text > limits.embedded_bytes_per_month {
        return Err(embedded_up(limits.embedded_bytes_per_month, end, now));
    }
    match bytes {
        Some(_) if used.documents >= limits.documents => Err(full("documents", limits.documents)),
        Some(bytes) if used.bytes + bytes > limits.bytes => Err(full("bytes of documents", limits.bytes)),
        _ => Ok(()),
    }
}

/// Begin and end of the tenant's present period.
fn period(tenant: &Served, now: Timestamp) -> (Timestamp, Timestamp) {
    tenant.quota.as_ref().map_or((now, now), |quota| quota.period_at(now))
}

impl App {
    /// Takes one query of the tenant's plan.
    pub async fn take_query(&self, tenant: &Served) -> Result<Taken, Problem> {
        let (start, end) = period(tenant, self.now());
        let start = start.as_second();
        if let Some(taken) = self.ledger.from_block(&tenant.uid, start) {
            return Ok(taken);
        }
        let _turn = self.ledger.writing.take(&tenant.uid).await;
        // Another request may have taken a block meanwhile.
        if let Some(taken) = self.ledger.from_block(&tenant.uid, start) {
            return Ok(taken);
        }
        let limit = tenant.config.as_ref().map_or(0, |c| c.limits.queries_per_month);
        let size =
            self.change_usage(tenant, |used| block(used, limit).ok_or_else(|| used_up(limit, end, self.now()))).await?;
        self.ledger.blocks().insert(tenant.uid.clone(), Block { period: start, left: size });
        self.ledger.from_block(&tenant.uid, start).ok_or_else(Problem::unavailable)
    }

    /// Whether the plan holds a document of so many bytes, and at least some text, before its file is read. The file of a document
    /// that was begun before has been counted: no bytes.
    pub async fn has_room(&self, tenant: &Served, bytes: Option<i64>) -> Result<(), Problem> {
        let object = match self.object_of(tenant).await {
            Err(kube::Error::Api(e)) if is_passing(e.code) => return Ok(()),
            object => object?,
        };
        // Where there is no object, `count_document` says what becomes of the document.
        let Some(object) = object else { return Ok(()) };
        let (start, end) = period(tenant, self.now());
        fits(&read(&object, start.as_second()), &tenant.limits(), (bytes, 1), (end, self.now()))
    }

    /// Counts a document before it is stored: the bytes of its file, unless it was counted before, and those of its text. The text
    /// counts as embedded, whatever becomes of the document.
    pub async fn count_document(&self, tenant: &Served, bytes: Option<i64>, text: i64) -> Result<(), Problem> {
        let limits = tenant.limits();
        let end = period(tenant, self.now()).1;
        let _turn = self.ledger.writing.take(&tenant.uid).await;
        self.change_usage(tenant, |used| {
            fits(used, &limits, (bytes, text), (end, self.now()))?;
            used.embedded += text;
            if let Some(bytes) = bytes {
                (used.documents, used.bytes) = (used.documents + 1, used.bytes + bytes);
            }
            Ok(())
        })
        .await
    }

    /// A document that is gone, or was never stored.
    pub async fn forget_document(&self, tenant: &Served, bytes: i64) -> Result<(), Problem> {
        let _turn = self.ledger.writing.take(&tenant.uid).await;
        self.change_usage(tenant, |used| {
            (used.documents, used.bytes) = ((used.documents - 1).max(0), (used.bytes - bytes).max(0));
            Ok(())
        })
        .await
    }

    /// Gives back what is left of this replica's blocks, when it ends in order.
    pub async fn give_back_blocks(&self) {
        let blocks: Vec<_> = self.ledger.blocks().drain().filter(|(_, block)| block.left > 0).collect();
        let given = stream::iter(blocks).map(|(uid, block)| async move {
            let Some(tenant) = self.directory.by_uid(&uid) else { return };
            let give = |used: &mut Usage| {
                if used.period == block.period {
                    used.queries = (used.queries - block.left).max(0);
                }
                Ok(())
            };
            if self.change_usage(&tenant, give).await.is_err() {
                tracing::warn!(tenant = tenant.name, queries = block.left, "queries were not given back");
            }
        });
        given.buffer_unordered(GIVEN_BACK).collect::<()>().await;
    }

    /// Changes the usage that is written on the Tenant. Reads it again and retries where another writer changed the object first.
    async fn change_usage<T>(
        &self,
        tenant: &Served,
        change: impl Fn(&mut Usage) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let api: Api<Tenant> = Api::namespaced(self.client.clone(), &tenant.namespace);
        for attempt in 0..TRIES {
            let object = match self.object_of(tenant).await {
                Err(kube::Error::Api(e)) if is_passing(e.code) => {
                    tokio::time::sleep(wait_after(attempt)).await;
                    continue;
                }
                object => object?,
            };
            let Some(object) = object else {
                // Without an object there is no place for the usage. The customer is served all the same, unless the account was
                // erased: the directory no longer has it then.
                self.directory.get(&tenant.id).ok_or_else(Problem::not_found)?;
                return change(&mut Usage { period: period(tenant, self.now()).0.as_second(), ..Usage::default() });
            };
            let mut used = read(&object, period(tenant, self.now()).0.as_second());
            let answer = change(&mut used)?;
            let text = serde_json::to_string(&used).map_err(|e| Problem::internal("usage", &e))?;
            let annotated = json!({"metadata": {"annotations": {USAGE_ANNOTATION: text}}});
            match patch(&api, &object, "tenant-operator-usage", annotated).await {
                Ok(_) => return Ok(answer),
                Err(kube::Error::Api(e)) if is_passing(e.code) => tokio::time::sleep(wait_after(attempt)).await,
                Err(e) => return Err(e.into()),
            }
        }
        Err(Problem::unavailable())
    }
}

/// Whether the API server's answer passes: another writer changed the object, the object or its definition was deleted after it was
/// read, or its storage begins anew because the definition came back.
const fn is_passing(code: u16) -> bool {
    matches!(code, 404 | 405 | 409 | 429 | 503)
}

fn wait_after(attempt: u32) -> Duration {
    Duration::from_millis(rand::random_range(5..(20u64 << attempt.min(5))))
}

/// What the object says, with nothing counted yet in a new period.
fn read(tenant: &Tenant, period: i64) -> Usage {
    let used = Usage::of(tenant);
    if used.period == period {
        return used;
    }
    Usage { period, queries: 0, embedded: 0, earlier_queries: used.earlier_queries + used.queries, ..used }
}

/// Takes a block of the plan, as far as there is so much.
fn block(used: &mut Usage, limit: i64) -> Option<i64> {
    let size = (limit / PART).clamp(1, LARGEST_BLOCK).min(limit - used.queries);
    (size > 0).then(|| {
        used.queries += size;
        size
    })
}

/// Something that the plan limits.
#[derive(Serialize, ToSchema)]
struct Limited {
    /// What is used.
    #[schema(example = 120)]
    used: i64,
    /// What the plan allows.
    #[schema(example = 10000)]
    limit: i64,
}

/// What a tenant has used.
#[derive(Serialize, ToSchema)]
pub struct UsageAnswer {
    /// The plan.
    #[schema(example = "starter")]
    plan: String,
    /// When the period began.
    #[schema(value_type = String, format = DateTime, example = "2026-12-01T00:00:00Z")]
    period_start: Timestamp,
    /// When it ends, and queries are counted anew.
    #[schema(value_type = String, format = DateTime, example = "2027-01-01T00:00:00Z")]
    period_end: Timestamp,
    /// Queries of the period. Replicas take them in blocks, so this can be ahead by one in 500.
    queries: Limited,
    /// Documents that are stored.
    documents: Limited,
    /// Their bytes.
    bytes: Limited,
    /// Bytes of text that were embedded in the period, also of documents that are gone.
    embedded_bytes: Limited,
    /// Queries of all earlier periods.
    #[serde(skip)]
    earlier_queries: i64,
}

impl UsageAnswer {
    /// Queries since the account began.
    pub fn all_queries(&self) -> i64 {
        self.earlier_queries + self.queries.used
    }
}

/// What the tenant has used of its plan.
#[utoipa::path(
    get, path = "/v1/usage", tag = "tenant API", security(("api_key" = [])),
    responses((status = 200, body = UsageAnswer))
)]
pub async fn show_usage(State(app): State<Arc<App>>, Admitted(tenant): Admitted) -> Result<Json<UsageAnswer>, Problem> {
    let api: Api<Tenant> = Api::namespaced(app.client.clone(), &tenant.namespace);
    let object = api.get_opt(&tenant.name).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(of(&app, &tenant, &object)))
}

/// What a tenant has used, as this replica knows it.
pub fn of(app: &App, tenant: &Served, object: &Tenant) -> UsageAnswer {
    let (period_start, period_end) = period(tenant, app.now());
    let start = period_start.as_second();
    let used = read(object, start);
    let left = app.ledger.blocks().get(&tenant.uid).filter(|b| b.period == start).map_or(0, |b| b.left);
    let limits = tenant.limits();
    UsageAnswer {
        plan: tenant.config.as_ref().map_or_else(String::new, |c| c.plan.to_string()),
        period_start,
        period_end,
        queries: Limited { used: (used.queries - left).max(0), limit: limits.queries_per_month },
        documents: Limited { used: used.documents, limit: limits.documents },
        bytes: Limited { used: used.bytes, limit: limits.bytes },
        embedded_bytes: Limited { used: used.embedded, limit: limits.embedded_bytes_per_month },
        earlier_queries: used.earlier_queries,
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;

    use super::*;

    #[test]
    fn blocks_add_up_to_the_plan_and_never_to_more() {
        for limit in [0, 1, 5, 99, 100, 101, 10_000, 10_037] {
            let mut used = Usage::default();
            let mut total = 0;
            while let Some(size) = block(&mut used, limit) {
                assert!((1..=LARGEST_BLOCK).contains(&size));
                total += size;
            }
            assert_eq!((total, used.queries), (limit, limit));
        }
        // A plan that became smaller.
        assert_eq!(block(&mut Usage { queries: 50, ..Usage::default() }, 10), None);
    }

    #[test]
    fn a_new_period_counts_queries_anew_and_keeps_documents() {
        let mut tenant = Tenant::new(
            "a",
            serde_json::from_value(json!({"companyName": "A", "adminEmail": "a@b.example"})).expect("a spec"),
        );
        assert_eq!(read(&tenant, 7), Usage { period: 7, ..Usage::default() });
        tenant
            .annotations_mut()
            .insert(USAGE_ANNOTATION.into(), r#"{"period":7,"queries":3,"documents":2,"bytes":9,"embedded":5}"#.into());
        assert_eq!((read(&tenant, 7).queries, read(&tenant, 7).embedded), (3, 5));
        let next = Usage { period: 8, queries: 0, earlier_queries: 3, documents: 2, bytes: 9, embedded: 0 };
        assert_eq!(read(&tenant, 8), next);
        tenant.annotations_mut().insert(USAGE_ANNOTATION.into(), "nonsense".into());
        assert_eq!(read(&tenant, 7).queries, 0);
    }
}
