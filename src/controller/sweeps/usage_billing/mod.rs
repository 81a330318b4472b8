//! Sends what tenants used to Stripe's meters: one event for each tenant, meter, closed hour and period, once. What the
//! ledger counted in an hour is closed when the hour is over, so an event never has to be corrected.
//!
//! How far it is stands in the Tenant's status, and Stripe's own sums are compared with it before anything is sent,
//! every hour. A status that is lost or older bills nothing twice: see [`decide`]. If the numbers do not agree, nothing
//! is sent, and a condition, a metric and an alert show them.
//!
//! What a plan includes is the first tier of its price at Stripe, and not taken off here: so Stripe's sums are the
//! ledger's to the unit, whatever the periods of the quota are. They are Stripe's billing periods, so that usage of the
//! hour in which one ends is on the invoice of its own period.

mod bill;
mod decide;
#[cfg(test)]
mod fixtures;
mod look;
mod meters;
mod queue;
mod reports;
mod send;
mod settle;
mod shown;
mod takeover;
mod trouble;
mod visit;
mod waiting;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use kube::ResourceExt;

use crate::api::tenant::BillingMode;
use crate::api::{Phase, Tenant, Timestamp};
use crate::controller::Key;
use crate::controller::context::Context;
use crate::providers::{Party, Priority};

use meters::Meters;
use queue::{Known, Schedule, Seen, spread};
use reports::Asked;
use visit::visit;

/// Passes after which all tenants are looked through, although no Plan has usage prices: one may have had them.
const ALL: u32 = 60;

/// How usage is sent.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How often the controller checks which tenants are due.
    pub every: Duration,
    /// How long the controller waits at most before it looks at a tenant again.
    pub again: Duration,
    /// How many tenants the controller looks at at the same time, at most.
    pub at_once: usize,
    /// Seconds for which Stripe's sums may lack what was sent.
    pub lag: i64,
}

/// Sends until the lease is lost: looks at each tenant once an hour, and where that is worth it.
pub async fn send(context: Arc<Context>, pace: Pace) {
    if !context.caches.filled().await {
        return;
    }
    let asked = Asked::default();
    tokio::join!(reports::watch(&context, &asked, pace.every), looks(&context, &asked, pace));
}

/// The tenants that are known, that are due, and that are looked at.
struct Sweep<'a> {
    context: &'a Context,
    started: Timestamp,
    known: HashMap<String, Known>,
    /// Those that are due, by uid, the next one first.
    due: VecDeque<(String, Key)>,
    /// Those that are looked at now: Stripe takes one call at a time for a customer and a meter.
    looking: HashSet<String>,
    /// Those that are to be looked at now, as far as that has not begun.
    asked: HashSet<String>,
    passes: u32,
}

async fn looks(context: &Context, asked: &Asked, pace: Pace) {
    let (meters, started) = (Meters::default(), context.clock.read().now);
    let (known, due, looking) = (HashMap::new(), VecDeque::new(), HashSet::new());
    let mut sweep = Sweep { context, started, known, due, looking, asked: HashSet::new(), passes: 0 };
    let (mut running, mut reasons) = (FuturesUnordered::<BoxFuture<'_, (String, Known)>>::new(), BTreeMap::new());
    let mut ticks = tokio::time::interval(pace.every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some((uid, known)) = running.next() => {
                sweep.looking.remove(&uid);
                sweep.known.insert(uid, known);
            }
            _ = ticks.tick() => {
                measure(context, &sweep.known, &mut reasons);
                sweep.asked.extend(asked.take());
                sweep.queue(pace);
            }
        }
        while running.len() < pace.at_once.max(1)
            && let Some((uid, tenant, before)) = sweep.take_next()
        {
            let meters = &meters;
            // On the heap: the future of a look is large.
            running.push(Box::pin(async move {
                let id = tenant.tenant_id().to_owned();
                let look = Priority::Resync.scope(visit(context, meters, &tenant, before, pace.lag));
                (uid, Box::pin(Party::scope(&id, look)).await)
            }));
        }
    }
}

impl Sweep<'_> {
    /// Queues the tenants that are due, those that used something first.
    fn queue(&mut self, pace: Pace) {
        let all = self.passes.is_multiple_of(ALL) || !self.known.is_empty();
        self.passes = self.passes.wrapping_add(1);
        let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX >> 1);
        let (context, now) = (self.context, self.context.clock.read().now);
        let mut there = HashMap::new();
        for tenant in billed(context, all) {
            there.insert(tenant.uid().unwrap_or_default(), (Key::of(&tenant), Seen::of(context, &tenant)));
        }
        self.known.retain(|uid, _| there.contains_key(uid));
        self.asked.retain(|uid| there.contains_key(uid));
        let (soon, again) = (seconds(pace.every), seconds(pace.again));
        let schedule = Schedule { started: self.started, spread: spread(there.len()), soon, again };
        let rank = |(uid, (key, seen)): (String, (Key, Seen))| {
            let rank = schedule.place(&uid, self.known.get(&uid), &seen, now);
            let rank = if self.asked.contains(&uid) { Some(i64::MIN) } else { rank };
            rank.filter(|_| !self.looking.contains(&uid)).map(|rank| (rank, uid, key))
        };
        let mut due: Vec<_> = there.into_iter().filter_map(rank).collect();
        due.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        self.due = due.into_iter().map(|(_, uid, key)| (uid, key)).collect();
    }

    /// The next tenant to look at, with what is known of it.
    fn take_next(&mut self) -> Option<(String, Arc<Tenant>, Known)> {
        while let Some((uid, key)) = self.due.pop_front() {
            let tenant = self.context.caches.tenant(&key).filter(|tenant| tenant.uid().as_ref() == Some(&uid));
            if let Some(tenant) = tenant {
                let created = tenant.creation_timestamp().map_or(self.started, |at| at.0.into());
                let known = self.known.get(&uid).cloned().unwrap_or_else(|| Known::new(self.started, created));
                self.asked.remove(&uid);
                self.looking.insert(uid.clone());
                return Some((uid, tenant, known));
            }
        }
        None
    }
}

/// The tenants that have something to do with usage prices. Without `all`, none where no Plan has any.
fn billed(context: &Context, all: bool) -> Vec<Arc<Tenant>> {
    let priced: Vec<_> =
        context.caches.all_plans().into_iter().filter(|plan| !plan.spec.usage_prices.is_empty()).collect();
    if priced.is_empty() && !all {
        return Vec::new();
    }
    let has = |tenant: &Tenant| {
        let recorded = tenant.status.as_ref().is_some_and(|status| status.usage_billing.is_some());
        recorded || priced.iter().any(|plan| plan.name_any() == tenant.plan_in_force())
    };
    context.caches.each_tenant().filter(|tenant| has(tenant) && is_billed(context, tenant)).collect()
}

/// Whether usage of a tenant may be billed: it is or was served, and is not erased.
fn is_billed(context: &Context, tenant: &Tenant) -> bool {
    let Some(status) = &tenant.status else { return false };
    let served = matches!(
        status.phase,
        Some(Phase::Active | Phase::Upgrading | Phase::Downgrading | Phase::Suspended | Phase::Deleting)
    );
    served
        && tenant.spec.billing.mode == BillingMode::Stripe
        && tenant.metadata.deletion_timestamp.is_none()
        && status.erasure.is_none()
        && context.claims.is_holder(tenant)
}

fn plan_of(context: &Context, tenant: &Tenant) -> (String, Option<i64>) {
    let name = tenant.plan_in_force().to_owned();
    let generation = context.caches.plan(&name).and_then(|plan| plan.metadata.generation);
    (name, generation)
}

/// Sets the metric of tenants whose usage is not sent.
fn measure(context: &Context, known: &HashMap<String, Known>, reasons: &mut BTreeMap<&'static str, i64>) {
    // A reason that was shown once goes back to 0.
    for tenants in reasons.values_mut() {
        *tenants = 0;
    }
    for reason in known.values().filter_map(|known| known.trouble) {
        *reasons.entry(reason).or_default() += 1;
    }
    for (reason, tenants) in reasons {
        context.metrics.usage_not_billed.get_or_create_owned(&(*reason).into()).set(*tenants);
    }
}
