//! Shows in each tenant's status what the ledger counted: at most one write a minute and tenant, and only for tenants
//! whose usage has changed. The controller decides nothing by it but when to warn customers; what must be exact is read
//! from the ledger.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use strum::IntoEnumIterator;

use crate::api::usage::{CountedUsage, Used};
use crate::api::{Phase, Tenant, TenantStatus, Timestamp, Unit};
use crate::controller::context::Context;
use crate::ledger::client::CallError;
use crate::ledger::wire::TenantUsage;

/// Tenants a page of the ledger's answer.
const PAGE: u32 = 1000;
/// Statuses that one pass writes. The next pass goes on with the others, so that a busy minute of ten thousand tenants
/// does not fill the API server.
const WRITES: usize = 600;

/// Passes after which the ledger is read from its beginning: one that was restored from a snapshot numbers its lines
/// anew.
const ALL: u32 = 60;

/// What the ledger told and no status shows yet, by the tenants' ids.
#[derive(Default)]
struct Told {
    /// The number up to which the ledger was read.
    after: i64,
    waiting: BTreeMap<String, TenantUsage>,
    /// The tenant that was tried last. The next pass goes on after it.
    last: String,
}

/// Reads the ledger and writes the statuses, again and again, until the lease is lost.
pub async fn show(context: Arc<Context>, every: Duration) {
    if !context.caches.filled().await {
        return;
    }
    let mut told = Told::default();
    let mut answers = true;
    for pass in 0_u32.. {
        if pass.is_multiple_of(ALL) {
            told.after = 0;
        }
        match read(&context, &mut told).await {
            Ok(()) => answers = true,
            Err(error) if answers => {
                answers = false;
                tracing::warn!(%error, "the ledger does not answer; statuses show no new usage until it does");
            }
            Err(_) => {}
        }
        write(&context, &mut told).await;
        tokio::time::sleep(every).await;
    }
}

async fn read(context: &Context, told: &mut Told) -> Result<(), CallError> {
    loop {
        let page = context.ledger.usage_after(told.after, PAGE).await?;
        let more = page.len() >= PAGE as usize;
        told.after = page.iter().map(|usage| usage.seq).fold(told.after, i64::max);
        told.waiting.extend(page.into_iter().map(|usage| (usage.tenant.clone(), usage)));
        if !more {
            return Ok(());
        }
    }
}

async fn write(context: &Context, told: &mut Told) {
    let now = context.clock.read().now;
    let (mut done, mut last, mut writes) = (Vec::new(), told.last.clone(), 0);
    let (from, up_to) = (Bound::Excluded(told.last.clone()), Bound::Included(told.last.clone()));
    let after = told.waiting.range((from, Bound::Unbounded));
    for (id, usage) in after.chain(told.waiting.range((Bound::Unbounded, up_to))) {
        if writes >= WRITES {
            break;
        }
        last.clone_from(id);
        let Some(tenant) = context.claims.holder(id).and_then(|key| context.caches.tenant(&key)) else {
            // Erased, or not watched by this controller.
            done.push(id.clone());
            continue;
        };
        let Some(shown) = shown(&tenant, usage, now) else {
            done.push(id.clone());
            continue;
        };
        writes += 1;
        match context.kubernetes.replace_status(&tenant, "usage", shown).await {
            Ok(_) => done.push(id.clone()),
            // The object has changed or is gone. The next pass looks again.
            Err(kube::Error::Api(e)) if matches!(e.code, 404 | 409) => {}
            Err(error) => {
                tracing::warn!(%error, tenant = %tenant.name_any(), "the usage was not written; the next pass tries again");
                // What the API server refuses of one object says nothing about the others.
                if !matches!(&error, kube::Error::Api(e) if (400..500).contains(&e.code) && e.code != 429) {
                    break;
                }
            }
        }
    }
    told.last = last;
    for id in done {
        told.waiting.remove(&id);
    }
}

/// What the status is to show. None if it shows it already, or the tenant is not set up or is over.
fn shown(tenant: &Tenant, usage: &TenantUsage, now: Timestamp) -> Option<TenantStatus> {
    let status = tenant.status.as_ref()?;
    let config = status.config.as_ref()?;
    if status.phase == Some(Phase::Deleted) || status.erasure.is_some() {
        return None;
    }
    let used = |unit: Unit| Used { used: usage.used[unit], limit: config.limits.of(unit) };
    let shown = CountedUsage {
        observed_at: now,
        period_start: usage.period.start,
        period_end: usage.period.end,
        queries: used(Unit::Queries),
        prompt_tokens: used(Unit::PromptTokens),
        completion_tokens: used(Unit::CompletionTokens),
        embedding_tokens: used(Unit::EmbeddingTokens),
        embedded_bytes: used(Unit::EmbeddedBytes),
        documents: used(Unit::Documents),
        bytes: used(Unit::Bytes),
    };
    let same = status.usage.is_some_and(|there| {
        there.period_start == shown.period_start && Unit::iter().all(|unit| there.of(unit) == shown.of(unit))
    });
    (!same).then(|| TenantStatus { usage: Some(shown), ..status.clone() })
}
