//! One pass over one tenant: observe, decide, act, record, until there is nothing to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use kube::ResourceExt;
use kube::runtime::controller::Action;

use super::context::{Context, Settled, version};
use super::{act, record};
use crate::api::{Phase, STRIPE_EVENT_ANNOTATION, Tenant, Timestamp};
use crate::lifecycle::{Decision, Facts, Failure, Input, Outcome, View, decide};

/// Rounds of one pass, at most; a tenant needs about ten.
const ROUNDS: usize = 40;

/// What a pass may take beyond its attempt, to write down what came of it.
const RECORDING: Duration = Duration::from_secs(30);

/// Why a pass ended early. Every kind is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Kubernetes refused or could not be reached.
    #[error("Kubernetes: {0}")]
    Kube(#[from] kube::Error),
    /// The pass panicked.
    #[error("the pass broke off: {0}")]
    Broken(#[from] tokio::task::JoinError),
    /// Something never answered. Without an end, the tenant would not be looked at again.
    #[error("the pass took longer than an attempt may")]
    TooLong(#[from] tokio::time::error::Elapsed),
}

/// One pass, on a thread of its own choice.
pub async fn reconcile(tenant: Arc<Tenant>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let limit = attempt_limit(&context) + RECORDING;
    tokio::spawn(tokio::time::timeout(limit, pass(tenant, context))).await??
}

fn attempt_limit(context: &Context) -> Duration {
    Duration::from_secs(context.policy.attempt_limit.unsigned_abs())
}

/// The wait after an error. The signature is kube's.
#[allow(clippy::needless_pass_by_value)]
pub fn on_error(tenant: Arc<Tenant>, error: &ReconcileError, _: Arc<Context>) -> Action {
    let conflict = matches!(error, ReconcileError::Kube(kube::Error::Api(e)) if e.code == 409);
    if conflict {
        return Action::requeue(Duration::from_millis(200));
    }
    tracing::warn!(tenant = %tenant.name_any(), %error, "reconcile failed");
    Action::requeue(Duration::from_secs(3))
}

async fn pass(tenant: Arc<Tenant>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    // Both caches fill beside the tenants'.
    if !context.caches.filled().await {
        return Ok(Action::await_change());
    }
    let uid = tenant.uid().unwrap_or_default();
    let memory = context.recall(&uid);
    if version(&tenant) < memory.version {
        // The cache lags behind our own write; the newer object is on its way.
        return Ok(Action::requeue(Duration::from_secs(2)));
    }
    let plan = context.plan(&tenant.spec.plan);
    let seen = context.observe(&tenant, plan.as_deref());
    let now = Instant::now();
    if let Some((same, until)) = &memory.settled
        && *same == seen
        && until.is_none_or(|until| until > now)
    {
        return Ok(until.map_or(Action::await_change(), |until| Action::requeue(until - now)));
    }
    context.metrics.reconciles.inc();
    let active = |tenant: &Tenant| tenant.status.as_ref().and_then(|s| s.phase) == Some(Phase::Active);
    let mut provisioning = (!active(&tenant)).then(|| context.begin_provisioning());
    let mut facts =
        Facts { api_key: context.api_key(&tenant), resync: resync_due(&tenant, &context, &uid), ..Facts::default() };
    let mut object = (*tenant).clone();
    let deadline = tokio::time::Instant::now() + attempt_limit(&context);
    for _ in 0..ROUNDS {
        if !context.fence.holds() {
            return Ok(Action::requeue(Duration::from_secs(1)));
        }
        if active(&object) {
            drop(provisioning.take());
        }
        facts.busy = context.busy();
        let mut view = View::of(&object);
        view.labelled &= context.labelled_right(&object);
        let input = Input {
            tenant: &view,
            plan: plan.as_ref().map(|p| &p.spec),
            facts: &facts,
            now: Timestamp::now(),
            policy: &context.policy,
        };
        match decide(&input) {
            Decision::Wait(wait) => {
                // Of plan and Secret as this pass saw them: what changed meanwhile is another pass's.
                let secret = context.cached_secret(&object).and(context.verified_secret(&object)).or(seen.secret);
                let settled = Settled { version: version(&object), plan: seen.plan, secret };
                // While the Secret's cache lags, look again soon: it may have been deleted meanwhile.
                let wait = if settled.secret.is_none() && view.status.phase == Some(Phase::Active) {
                    Some(wait.unwrap_or(15).min(15))
                } else {
                    wait
                };
                let wait = wait.map(|s| Duration::from_secs(s.max(1).unsigned_abs()));
                context.remember(&uid, |m| {
                    m.version = m.version.max(settled.version);
                    m.settled = Some((settled, wait.map(|w| Instant::now() + w)));
                });
                return Ok(wait.map_or(Action::await_change(), Action::requeue));
            }
            Decision::Record(status) => {
                object = record::status(&context, &object, *status).await?;
                context.remember(&uid, |m| m.version = m.version.max(version(&object)));
                facts.recorded();
            }
            Decision::Act(effects) => {
                let done = join_all(effects.iter().map(|effect| {
                    let run = act::run(&context, &object, plan.as_deref(), &facts, effect);
                    async {
                        tokio::time::timeout_at(deadline, run)
                            .await
                            .unwrap_or_else(|_| Ok(act::Acted::from(too_late(effect))))
                    }
                }))
                .await;
                for (effect, acted) in effects.iter().zip(done) {
                    let acted = acted?;
                    if let Some(newer) = acted.object {
                        context.remember(&uid, |m| m.version = m.version.max(version(&newer)));
                        object = *newer;
                    }
                    if acted.gone {
                        context.forget(&uid);
                        return Ok(Action::await_change());
                    }
                    facts.learn(effect, acted.outcome);
                }
            }
        }
    }
    tracing::error!(tenant = %tenant.name_any(), "no end of decisions; this is a fault of the operator");
    Ok(Action::requeue(Duration::from_mins(1)))
}

fn too_late(effect: &crate::lifecycle::Effect) -> Outcome {
    Outcome::Failed(Failure {
        step: act::step(effect).into(),
        reason: "Timeout".into(),
        message: "the attempt took longer than its limit".into(),
        retryable: true,
        retry_after: None,
    })
}

/// Whether the truth is to be read back: a Stripe event asked for it, or it was not for a long time.
fn resync_due(tenant: &Tenant, context: &Context, uid: &str) -> bool {
    let event = tenant.annotations().get(STRIPE_EVENT_ANNOTATION).cloned();
    let memory = context.recall(uid);
    let limit = Duration::from_secs(context.policy.resync.unsigned_abs());
    let hinted = event != memory.stripe_event && memory.synced.is_some();
    let due = memory.synced.is_some_and(|at| at.elapsed() >= limit);
    if hinted || due || memory.synced.is_none() {
        context.remember(uid, |m| {
            m.synced = Some(Instant::now());
            m.stripe_event = event;
        });
    }
    hinted || due
}
