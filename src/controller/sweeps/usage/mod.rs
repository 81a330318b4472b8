//! Shows in each tenant's status what the ledger counted: at most one write a minute and tenant, and only for tenants
//! whose usage has changed. The controller decides nothing by it but when to warn customers; what must be exact is read
//! from the ledger.
//!
//! After the ledger lost its data, the controller first reports to it what the statuses show, and then follows it again.

mod before;
mod shown;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::ResourceExt;

use crate::api::{Phase, Tenant, TenantStatus, Timestamp};
use crate::controller::context::Context;
use crate::ledger::beginning::Beginning;
use crate::ledger::client::CallError;
use crate::ledger::wire::TenantUsage;

use before::Before;

/// Tenants a page of the ledger's answer.
const PAGE: u32 = 1000;
/// Statuses that one pass writes. The next pass goes on with the others, so that a busy minute of ten thousand tenants
/// does not fill the API server.
const WRITES: usize = 600;

/// Passes after which the ledger is read from its beginning: one that was restored from a snapshot numbers its lines
/// anew.
const ALL: u32 = 60;

/// How soon it is seen that a ledger began again: until it knows what was used before, it refuses nothing for it.
const LOOK: Duration = Duration::from_secs(5);

/// What the ledger told and no status shows yet, by the tenants' ids.
#[derive(Default)]
struct Told {
    /// How the ledger began that told it.
    beginning: Option<Beginning>,
    /// The number up to which the ledger was read.
    after: i64,
    waiting: BTreeMap<String, TenantUsage>,
    /// What an earlier ledger told, and no status showed before it was lost.
    lost: BTreeMap<String, TenantUsage>,
    /// What the ledger was told that tenants had used before it began, by the tenants' ids.
    known: HashMap<String, Before>,
    /// Whether it was told that of all tenants in this pass.
    knows_all: bool,
    /// The tenant that was tried last. The next pass goes on after it.
    last: String,
    /// Since when the ledger has not answered.
    away: Option<(Instant, Timestamp)>,
    /// Whether statuses may show that the ledger is away that is back.
    clears: bool,
}

impl Told {
    /// Whether all was read from the ledger that began so.
    fn is_of(&self, beginning: Option<&Beginning>) -> bool {
        self.beginning.as_ref().map(|known| &known.id) == beginning.map(|began| &began.id)
    }

    /// Takes in how the ledger began. One that began again numbers its lines anew, and may know nothing of before.
    fn begin(&mut self, beginning: Option<Beginning>) {
        if !self.is_of(beginning.as_ref()) {
            self.after = 0;
            self.known.clear();
            self.knows_all = false;
            self.lost.append(&mut self.waiting);
        }
        self.beginning = beginning;
    }
}

/// Reads the ledger and writes the statuses, again and again, until the lease is lost.
pub async fn show(context: Arc<Context>, every: Duration) {
    if !context.caches.filled().await {
        return;
    }
    let mut told = Told { clears: true, ..Told::default() };
    for pass in 0_u32.. {
        if pass.is_multiple_of(ALL) {
            told.after = 0;
        }
        // A backup may have brought back a status since.
        told.knows_all = false;
        let read = read(&context, &mut told).await;
        note(&context, &mut told, read);
        write(&context, &mut told, every).await;
        let begun = Instant::now();
        while let Some(left) = every.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
            tokio::time::sleep(left.min(LOOK)).await;
            // An error is seen by the next pass.
            drop(look(&context, &mut told).await);
        }
    }
}

/// Notes whether the ledger answers.
fn note(context: &Context, told: &mut Told, read: Result<(), CallError>) {
    match read {
        Ok(()) => told.clears |= told.away.take().is_some(),
        Err(error) if told.away.is_none() => {
            told.away = Some((Instant::now(), context.clock.read().now));
            tracing::warn!(%error, "the ledger does not answer; statuses show no new usage until it does");
        }
        Err(_) => {}
    }
}

/// Finds out how the ledger began, and tells it what was used before.
async fn look(context: &Context, told: &mut Told) -> Result<(), CallError> {
    told.begin(context.ledger.status().await?.beginning);
    if !told.knows_all {
        before::tell(context, told).await?;
        told.knows_all = true;
    }
    Ok(())
}

async fn read(context: &Context, told: &mut Told) -> Result<(), CallError> {
    look(context, told).await?;
    let (mut after, mut pages) = (told.after, Vec::new());
    loop {
        let page = context.ledger.usage_after(after, PAGE).await?;
        let more = page.len() >= PAGE as usize;
        after = page.iter().map(|usage| usage.seq).fold(after, i64::max);
        pages.extend(page);
        if !more {
            break;
        }
    }
    // A ledger never has the name of an earlier one again, so this answer holds for all pages.
    if !told.is_of(context.ledger.status().await?.beginning.as_ref()) {
        return Err(CallError::Unavailable("it began again meanwhile".into()));
    }
    told.after = after;
    told.waiting.extend(pages.into_iter().map(|usage| (usage.tenant.clone(), usage)));
    Ok(())
}

/// What became of a write.
enum Written {
    Done,
    /// The next pass looks again.
    Later,
    /// The API server takes no writes.
    Stop,
}

async fn write(context: &Context, told: &mut Told, every: Duration) {
    let mut writes = 0;
    if told.away.is_none() {
        write_usage(context, told, &mut writes).await;
    }
    let away = told.away.filter(|(since, _)| since.elapsed() >= every).map(|(_, at)| at);
    if away.is_some() || (told.away.is_none() && told.clears) {
        let done = write_away(context, away, &mut writes).await;
        told.clears = away.is_some() || !done;
    }
}

/// Shows what the ledger told.
async fn write_usage(context: &Context, told: &mut Told, writes: &mut usize) {
    let now = context.clock.read().now;
    let (mut done, mut last) = (Vec::new(), told.last.clone());
    let (from, up_to) = (Bound::Excluded(told.last.clone()), Bound::Included(told.last.clone()));
    let after = told.waiting.range((from, Bound::Unbounded));
    for (id, usage) in after.chain(told.waiting.range((Bound::Unbounded, up_to))) {
        if *writes >= WRITES {
            break;
        }
        last.clone_from(id);
        let Some(tenant) = context.claims.holder(id).and_then(|key| context.caches.tenant(&key)) else {
            // Erased, or not watched by this controller.
            done.push(id.clone());
            continue;
        };
        let beginning = told.beginning.as_ref();
        // Its status is all that is known of before.
        if beginning.is_some_and(|beginning| before::is_to_be_told(&tenant, beginning, &told.known)) {
            told.knows_all = false;
            continue;
        }
        let shows = shows_usage(&tenant).and_then(|status| shown::usage(&tenant, status, usage, beginning, now));
        let Some(status) = shows else {
            done.push(id.clone());
            continue;
        };
        *writes += 1;
        let missing = shown::lost(&tenant, &status);
        match put(context, &tenant, status).await {
            Written::Done => {
                if let Some(said) = missing {
                    context.events.warn(&*tenant, "UsageMissing", said);
                }
                done.push(id.clone());
            }
            Written::Later => {}
            Written::Stop => break,
        }
    }
    told.last = last;
    for id in done {
        told.waiting.remove(&id);
    }
}

/// Shows since when the ledger is away, or that it is back. Answers whether all statuses show it.
async fn write_away(context: &Context, away: Option<Timestamp>, writes: &mut usize) -> bool {
    let (now, mut all) = (context.clock.read().now, true);
    for tenant in context.caches.each_tenant() {
        let Some(status) = shows_usage(&tenant).and_then(|status| shown::away(&tenant, status, away, now)) else {
            continue;
        };
        if *writes >= WRITES {
            return false;
        }
        *writes += 1;
        match put(context, &tenant, status).await {
            Written::Done => {}
            // One whose write is refused holds up no other one.
            Written::Later => all = false,
            Written::Stop => return false,
        }
    }
    all
}

async fn put(context: &Context, tenant: &Tenant, status: TenantStatus) -> Written {
    match context.kubernetes.replace_status(tenant, "usage", status).await {
        Ok(_) => Written::Done,
        // The object has changed or is gone. The next pass looks again.
        Err(kube::Error::Api(e)) if matches!(e.code, 404 | 409) => Written::Later,
        Err(error) => {
            tracing::warn!(%error, tenant = %tenant.name_any(), "the usage was not written; the next pass tries again");
            // What the API server refuses of one object says nothing about the others.
            let of_one = matches!(&error, kube::Error::Api(e) if (400..500).contains(&e.code) && e.code != 429);
            if of_one { Written::Later } else { Written::Stop }
        }
    }
}

/// The status, if it shows usage: the tenant is set up and not over.
fn shows_usage(tenant: &Tenant) -> Option<&TenantStatus> {
    let status = tenant.status.as_ref()?;
    let over = status.phase == Some(Phase::Deleted) || status.erasure.is_some();
    (status.config.is_some() && !over).then_some(status)
}
