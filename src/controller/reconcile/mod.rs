//! One reconcile of one tenant: observe, decide, act, record, until there is nothing to do.

pub mod act;
pub mod brake;
pub mod disputes;
pub mod incidents;
pub mod mail_brake;
pub mod memory;
pub mod own_moves;
pub mod record;
mod settle;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::future::join_all;
use kube::ResourceExt;
use tracing::Instrument;

use super::Key;
use super::context::{Context, version};
use crate::api::{Phase, STRIPE_EVENT_ANNOTATION, Tenant, TenantStatus};
use crate::clock::Present;
use crate::lifecycle::{
    Decision, Effect, Harm, Input, Observed, Outcome, decide, harm, held as is_held, may_merge, may_precede,
    usage_mail_begins, usage_mail_is_held,
};
use crate::providers::Priority;
use crate::telemetry::{Span, trace_id};
use act::Acted;
use memory::{LastEvent, Remembered, Settled};

/// Rounds of one reconcile, at most; a tenant needs about ten.
const ROUNDS: usize = 40;
/// How long a reconcile may take beyond its attempt, to record the outcome.
const RECORDING: Duration = Duration::from_secs(30);
/// The first wait after an error that ended a reconcile early; it doubles with each in a row.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest such wait.
const LONGEST_RETRY: Duration = Duration::from_mins(2);
/// The wait after a write that was refused because the object had changed.
const CONFLICT: Duration = Duration::from_millis(200);
/// How long a status that may be merged with the next one waits for it. A person who looks at a tenant sees no shorter
/// phase.
const DELAY: Duration = Duration::from_millis(500);

/// Why a reconcile ended early. Every kind is retried.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Kubernetes refused something or could not be reached.
    #[error("Kubernetes: {0}")]
    Kube(#[from] kube::Error),
    /// A call never answered. Without a timeout, the tenant would never be reconciled again.
    #[error("the reconcile timed out")]
    TooLong(#[from] tokio::time::error::Elapsed),
}

/// When to look again: after a while at this priority, or when something changes.
pub type Next = Option<(Duration, Priority)>;

/// Reconciles the tenant of that key.
pub async fn reconcile(context: &Arc<Context>, key: &Key) -> Next {
    let tenant = context.caches.tenant(key)?;
    let uid = tenant.uid().unwrap_or_default();
    let limit = attempt_limit(context) + RECORDING;
    let started = Instant::now();
    let span = tracing::info_span!("reconcile", tenant = %key, trace_id = trace_id(&uid));
    let run = Box::pin(Reconcile::new(context, tenant).run()).instrument(span);
    let outcome = tokio::time::timeout(limit, run).await;
    context.metrics.reconcile_duration.observe(started.elapsed().as_secs_f64());
    let error = match outcome.map_err(ReconcileError::from).flatten() {
        Ok(next) => return next,
        Err(error) => error,
    };
    if matches!(&error, ReconcileError::Kube(kube::Error::Api(e)) if e.code == 409) {
        return Some((CONFLICT, Priority::Repair));
    }
    context.memory.remember(&uid, |m| m.failures += 1);
    let failures = context.memory.recall(&uid).failures;
    let wait = (FIRST_RETRY * (1 << failures.clamp(1, 8))).min(LONGEST_RETRY);
    tracing::warn!(tenant = %key, %error, failures, ?wait, "reconcile failed");
    Some((wait, Priority::Repair))
}

fn attempt_limit(context: &Context) -> Duration {
    Duration::from_secs(context.policy.attempt_limit.unsigned_abs())
}

struct Reconcile<'a> {
    context: &'a Arc<Context>,
    uid: String,
    object: Arc<Tenant>,
    seen: Settled,
    memory: Remembered,
    observed: Observed,
    /// The last Stripe event when the tenant was read. One that arrives with a write of ours belongs to the
    /// next reconcile: it may report a change that this one has not read.
    event: LastEvent,
    started: SystemTime,
    /// The tenant as it was last written, while `object` has a status that waits for the next one, and how long it may.
    last: Option<(Arc<Tenant>, tokio::time::Instant)>,
    /// Part of the tenant's trace: begun with the first effect on the way to Active or away from it.
    span: Option<Span>,
}

impl<'a> Reconcile<'a> {
    fn new(context: &'a Arc<Context>, tenant: Arc<Tenant>) -> Self {
        let uid = tenant.uid().unwrap_or_default();
        let event = LastEvent(tenant.annotations().get(STRIPE_EVENT_ANNOTATION).cloned());
        context.memory.remember(&uid, |m| {
            m.stripe_event.get_or_insert_with(|| event.clone());
        });
        let memory = context.memory.recall(&uid);
        let progress = memory.progress.clone();
        let observed = Observed {
            api_key: context.api_key(&tenant),
            // What is held rests on what the providers said, and goes when they say something else.
            resync: memory.hints > memory.hints_done
                || Some(&event) != memory.stripe_event.as_ref()
                || tenant.status.as_ref().is_some_and(|status| is_held(status).is_some()),
            failures: memory.failures,
            dispute: context.disputes.of(&tenant),
            shipped: memory.shipped,
            leftover: memory.leftover,
            capacity_missing: context.incidents.capacity_missing(),
            namespace: progress.as_ref().is_some_and(|p| p.namespace),
            samples: progress.as_ref().map(|p| p.samples).unwrap_or_default(),
            attempt_age: progress.map_or(0, |p| i64::try_from(p.since.elapsed().as_secs()).unwrap_or(i64::MAX)),
            ..Observed::default()
        };
        let seen = context.observe(&tenant);
        let started = SystemTime::now();
        Self { context, uid, object: tenant, seen, memory, observed, event, started, last: None, span: None }
    }

    /// The object, where the API server itself has an older one than was written: etcd was restored from a backup.
    /// Resource versions compare as numbers (KEP-5504), and a read of the API server is never older than a write before
    /// it.
    async fn restored(&self) -> Result<Option<Tenant>, ReconcileError> {
        let there = self.context.kubernetes.tenants(&self.object).get_opt(&self.object.name_any()).await?;
        let older =
            there.filter(|there| version(there) < self.memory.version && there.uid().as_ref() == Some(&self.uid));
        if older.is_some() {
            tracing::warn!(tenant = %self.object.name_any(), "the API server has an older object than was written: etcd was restored");
        }
        Ok(older)
    }

    async fn run(mut self) -> Result<Next, ReconcileError> {
        if version(&self.object) < self.memory.version {
            let restored = if self.memory.version_lags() { self.restored().await? } else { None };
            let Some(object) = restored else {
                // The cache lags behind our own write; the newer object is on its way.
                return Ok(Some((Duration::from_secs(2), Priority::Repair)));
            };
            // The restore has undone the writes that were remembered.
            self.context.memory.forget(&self.uid);
            self = Self::new(self.context, object.into());
        }
        if let Some(next) = self.settled() {
            return Ok(next);
        }
        let context = self.context;
        context.metrics.reconciles.inc();
        let mut provisioning = (!self.active()).then(|| context.begin_provisioning());
        let deadline = tokio::time::Instant::now() + attempt_limit(context);
        for _ in 0..ROUNDS {
            if !context.fence.holds() {
                return Ok(Some((Duration::from_secs(1), Priority::Repair)));
            }
            if self.active() {
                drop(provisioning.take());
            }
            self.observed.overloaded = context.overloaded();
            self.observed.held = braked(context, &self.uid);
            self.observed.usage_mails_held =
                context.mail_brake.holds(&self.uid, context.clock.read().now, || tenants(context));
            match self.decide() {
                Decision::Wait(_) if self.last.is_some() => self.write_delayed().await?,
                Decision::Wait(wait) => {
                    if let Some(held) = context.mail_brake.incident(&self.uid) {
                        context.incidents.raise(&held).await;
                    }
                    return Ok(self.settle(wait));
                }
                Decision::Record(status) => self.record(*status).await?,
                Decision::Act(effects) if self.last.is_some() && !may_precede(&effects) => self.write_delayed().await?,
                Decision::Act(effects) if !self.has_place_for(&effects) => {
                    return Ok(Some((Duration::ZERO, Priority::Provisioning)));
                }
                Decision::Act(effects) => {
                    if self.span.is_none() && !self.active() {
                        self.span = Some(self.begin_span());
                    }
                    if self.act(&effects, deadline).await? {
                        return Ok(None);
                    }
                }
            }
        }
        tracing::error!(tenant = %self.object.name_any(), "the reconcile did not converge; this is a bug in the operator");
        Ok(Some((Duration::from_mins(1), Priority::Repair)))
    }

    /// A call to the vector store or the models may hang until the breaker opens. It takes no place that a signup's
    /// payment link needs. Without a place among the others, nothing of this reconcile is lost: what it held back is
    /// decided again.
    fn has_place_for(&self, effects: &[Effect]) -> bool {
        let stores = |effect: &Effect| {
            matches!(
                effect,
                Effect::FindData
                    | Effect::EnsureNamespace
                    | Effect::CheckNamespace
                    | Effect::StoreSamples
                    | Effect::VerifySamples
                    | Effect::DropNamespace { .. }
                    | Effect::DeleteNamespace
                    | Effect::CountHoldings
            )
        };
        !effects.iter().any(stores) || self.context.queue.step_down(&Key::of(&self.object), Priority::Provisioning)
    }

    /// Writes a status, or delays it until the next one.
    async fn record(&mut self, status: TenantStatus) -> Result<(), ReconcileError> {
        let before = self.object.status.clone().unwrap_or_default();
        self.observed.recorded(&before, &status);
        if self.last.is_none() && may_merge(&before, &status) {
            let object = Tenant { status: Some(status), ..Tenant::clone(&self.object) };
            let last = std::mem::replace(&mut self.object, object.into());
            self.last = Some((last, tokio::time::Instant::now() + DELAY));
            return Ok(());
        }
        let last = self.last.as_ref().map(|(last, _)| &**last);
        let newly = is_held(&before) != is_held(&status);
        let written = record::status(self.context, last, &self.object, status).await?;
        let incident = written.status.as_ref().filter(|_| newly).and_then(|status| self.context.brake.incident(status));
        if let Some(incident) = incident {
            self.context.incidents.raise(&incident).await;
        }
        self.written(written);
        Ok(())
    }

    async fn write_delayed(&mut self) -> Result<(), ReconcileError> {
        if let Some((last, _)) = &self.last {
            let written = delayed(self.context, last, &self.object).await?;
            self.written(written);
        }
        Ok(())
    }

    /// What the API server has now.
    fn written(&mut self, object: Tenant) {
        self.last = None;
        self.take(object);
    }

    /// A write answers the object as it is now, with what others have written meanwhile: perhaps the wish for another
    /// key.
    fn take(&mut self, object: Tenant) {
        let about_key = |t: &Tenant| (t.spec.api_key_generation, t.plan_in_force().to_owned());
        if about_key(&object) != about_key(&self.object) {
            self.observed.api_key = self.context.api_key(&object);
        }
        self.object = object.into();
        self.note_version();
    }

    fn begin_span(&self) -> Span {
        let span = Span::of_tenant(&self.uid, "reconcile", self.started);
        span.set("tenant.name", self.object.name_any());
        span.set("tenant.phase", self.phase().map_or_else(String::new, |p| p.to_string()));
        span
    }

    fn phase(&self) -> Option<Phase> {
        self.object.status.as_ref().and_then(|s| s.phase)
    }

    fn active(&self) -> bool {
        self.phase() == Some(Phase::Active)
    }

    fn note_version(&self) {
        let version = version(&self.object);
        self.context.memory.remember(&self.uid, |m| m.saw(version));
    }

    fn decide(&self) -> Decision {
        let view = self.context.view(&self.object);
        let (plan, wanted) = self.context.plans(&self.object);
        let Present { now, earliest } = self.context.clock.read();
        let input = Input {
            tenant: &view,
            plan: plan.as_ref().map(|p| &p.spec),
            wanted: wanted.as_ref().map(|p| &p.spec),
            observed: &self.observed,
            now,
            earliest,
            policy: &self.context.policy,
        };
        let decision = decide(&input);
        self.context.mail_brake.waits(&self.uid, usage_mail_is_held(&input));
        if let Decision::Record(status) = &decision
            && usage_mail_begins(&view, status)
        {
            self.context.mail_brake.count(&self.uid, now);
        }
        if let Decision::Record(status) = &decision
            && let Some(harm) = harm(&view, status)
        {
            self.context.brake.count(harm, &self.uid, now);
        }
        decision
    }

    /// Does the effects side by side. True when the object is gone.
    async fn act(&mut self, effects: &[Effect], deadline: tokio::time::Instant) -> Result<bool, ReconcileError> {
        let (done, written) = {
            let (context, object, observed) = (self.context, &self.object, &self.observed);
            let span = self.span.as_ref();
            let all = join_all(effects.iter().map(|effect| async move {
                let part = span.map(|span| span.part(|| effect.name().to_owned()));
                let run = act::run(context, object, observed, effect);
                let done = tokio::time::timeout_at(deadline, run).await.unwrap_or_else(|_| Ok(act::too_late(effect)));
                if let (Some(part), Ok(Acted { outcome: Outcome::Failed(failure), .. })) = (part, &done) {
                    part.fail(format!("{}: {}", failure.reason, failure.message));
                }
                done
            }));
            while_delayed(context, self.last.as_ref(), object, all).await?
        };
        if let Some(written) = written {
            self.written(written);
        }
        for (effect, acted) in effects.iter().zip(done) {
            let acted = acted?;
            if let Some(newer) = acted.object {
                self.take(*newer);
            }
            if acted.gone {
                return Ok(true);
            }
            self.observed.learn(effect, acted.outcome);
        }
        Ok(false)
    }
}

/// What must not happen to this tenant now.
fn braked(context: &Context, uid: &str) -> BTreeSet<Harm> {
    context.brake.held(uid, context.clock.read().now, || tenants(context))
}

/// How many tenants there are.
fn tenants(context: &Context) -> usize {
    let mut count = 0;
    context.caches.tenants.visit(|_, _| count += 1);
    count
}

/// Writes a status that was delayed.
async fn delayed(context: &Context, last: &Tenant, object: &Tenant) -> Result<Tenant, kube::Error> {
    record::status(context, None, last, object.status.clone().unwrap_or_default()).await
}

/// Waits for effects. If they take so long that a user could look meanwhile, writes the status that is delayed.
async fn while_delayed<T>(
    context: &Context,
    last: Option<&(Arc<Tenant>, tokio::time::Instant)>,
    object: &Tenant,
    effects: impl Future<Output = T>,
) -> Result<(T, Option<Tenant>), kube::Error> {
    let mut effects = std::pin::pin!(effects);
    let Some((last, until)) = last else { return Ok((effects.await, None)) };
    if let Ok(done) = tokio::time::timeout_at(*until, &mut effects).await {
        return Ok((done, None));
    }
    let (written, done) = tokio::join!(delayed(context, last, object), effects);
    Ok((done, Some(written?)))
}
