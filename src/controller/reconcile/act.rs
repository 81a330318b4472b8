//! Runs each effect by its step.

use std::sync::Arc;

use kube::ResourceExt;

use super::record;
use crate::api::{Plan, Tenant};
use crate::controller::Providers;
use crate::controller::context::Context;
use crate::controller::steps::erasure::Holders;
use crate::controller::steps::notices::{Plans, Senders};
use crate::controller::steps::samples::Samples;
use crate::controller::steps::{StepError, billing, data, erasure, identity, namespace, notices, secrets, usage};
use crate::controller::sweeps::leads;
use crate::controller::tasks::export_work;
use crate::controller::tasks::migrations::{self, Move};
use crate::lifecycle::{Blame, Effect, Failure, Notice, Observed, Outcome, Reason};

/// The outcome of an effect.
pub struct Acted {
    /// What the controller learned.
    pub outcome: Outcome,
    /// The object, if the effect wrote it.
    pub object: Option<Box<Tenant>>,
    /// Whether the object is on its way out, with nothing left to do.
    pub gone: bool,
}

impl From<Outcome> for Acted {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, object: None, gone: false }
    }
}

impl From<Tenant> for Acted {
    fn from(tenant: Tenant) -> Self {
        Self { outcome: Outcome::Done, object: Some(Box::new(tenant)), gone: false }
    }
}

/// Runs the effect. A refusal by a provider or Kubernetes goes into the next decision. Only an error that says nothing
/// about the effect (a conflict, an API server that is away) ends the reconcile.
pub async fn run(
    context: &Arc<Context>,
    tenant: &Tenant,
    observed: &Observed,
    effect: &Effect,
) -> Result<Acted, kube::Error> {
    tracing::debug!(?effect, "act");
    // From the switch on the customer stores in the namespace of the copy.
    if matches!(effect, Effect::RecordData { .. } | Effect::DropNamespace { .. }) {
        context.own_moves.end(&tenant.uid().unwrap_or_default());
    }
    match perform(context, tenant, observed, effect).await {
        Ok(acted) => {
            recovered(context, effect, &acted.outcome);
            Ok(acted)
        }
        Err(error) => {
            let failure = error.failure(effect.step())?;
            context.metrics.step_failures.get_or_create(&failure.reason.to_string().as_str().into()).inc();
            tracing::info!(tenant = %tenant.name_any(), reason = %failure.reason, message = failure.message, "step failed");
            if failure.blame == Blame::Admin && failure.reason != Reason::SecretConflict {
                context.incidents.raise(&failure).await;
            }
            Ok(Outcome::Failed(failure).into())
        }
    }
}

/// Closes the incidents that a success proves to be over.
fn recovered(context: &Context, effect: &Effect, outcome: &Outcome) {
    if let Some(provider) = effect.proves().filter(|_| *outcome != Outcome::NotYet) {
        context.incidents.clear(|reason| reason.provider() == Some(provider));
    }
}

/// Deletes the tenant's Secrets, and what its customer wrote before there was a tenant.
async fn delete_secrets(context: &Context, tenant: &Tenant) -> Result<Outcome, StepError> {
    secrets::delete(&context.kubernetes, &context.signer, tenant).await?;
    leads::erase(context, tenant).await?;
    Ok(Outcome::Done)
}

/// Deletes the namespaces of the tenant's data, and the answers from it that the ledger keeps for idempotency keys.
async fn delete_data(context: &Context, tenant: &Tenant) -> Result<Outcome, StepError> {
    data::delete_all(&context.providers.indexes, tenant).await?;
    context.ledger.erase_answers(tenant.tenant_id()).await?;
    Ok(Outcome::Done)
}

async fn perform(
    context: &Arc<Context>,
    tenant: &Tenant,
    observed: &Observed,
    effect: &Effect,
) -> Result<Acted, StepError> {
    let (in_force, wanted) = context.plans(tenant);
    let (plan, wanted) = (in_force.as_deref(), wanted.as_deref());
    let kubernetes = &context.kubernetes;
    let (stripe, indexes) = (&context.providers.stripe, &context.providers.indexes);
    let region = tenant.region().or_else(|| plan.map(|plan| &*plan.spec.region));
    let place = tenant.data_namespace();
    let embedding = tenant.embedding().map(|embedding| &**embedding);
    let samples = || {
        let (embedder, embeddings) = (&*context.providers.embedder, &context.embeddings);
        indexes.of(region).map(|index| Samples { embedder, index, embeddings, plan, embedding })
    };
    let gone = || Acted { gone: true, ..Acted::from(Outcome::Done) };
    if !writers_stopped(context, tenant, effect).await {
        return Ok(still_written(effect));
    }
    Ok(match effect {
        Effect::AssignIdentity { plan } => {
            identity::assign(kubernetes, &context.identity, tenant, plan.as_deref()).await?.into()
        }
        Effect::NextCheckout { attempt } => billing::next_checkout(kubernetes, tenant, *attempt).await?.into(),
        Effect::StoreStripeIds { customer, subscription } => {
            billing::store_ids(kubernetes, tenant, customer, subscription.as_deref()).await?.into()
        }
        Effect::FollowPaidPlan { plan } => billing::follow_plan(kubernetes, tenant, plan).await?.into(),
        Effect::RecordPlan { plan } => billing::record_plan(kubernetes, tenant, plan).await?.into(),
        Effect::MarkSent(sent) => notices::mark(kubernetes, tenant, sent).await?.into(),
        Effect::RemoveFinalizer => {
            secrets::keep_login(kubernetes, tenant).await?;
            identity::remove_finalizer(kubernetes, tenant).await.map(|()| gone())?
        }
        Effect::DeleteTenant => identity::delete(kubernetes, tenant).await.map(|()| gone())?,
        Effect::EnsureApiKey => ensure_api_key(context, tenant).await?.into(),
        Effect::DeleteSecrets => delete_secrets(context, tenant).await?.into(),
        Effect::ReadBilling => billing::read(stripe, tenant, &context.caches.all_plans()).await?.into(),
        Effect::OpenCheckout { attempt } => billing::open_checkout(stripe, tenant, wanted, *attempt).await?.into(),
        Effect::SwitchPrice { plan, proration } => match context.caches.plan(plan) {
            Some(plan) => billing::switch_price(stripe, observed, &plan, *proration).await?.into(),
            // Deleted since it was decided; the next decision sees that.
            None => Outcome::Done.into(),
        },
        Effect::WaiveRefund => billing::waive_refund(stripe, tenant, observed).await?.into(),
        Effect::Refund => billing::refund(stripe, tenant, observed).await?.into(),
        Effect::PauseCollection => billing::pause(stripe, observed).await?.into(),
        Effect::ResumeCollection => billing::resume(stripe, observed).await?.into(),
        Effect::CollectAnew => billing::collect_anew(stripe, observed).await?.into(),
        Effect::UpdateCustomer => billing::update_customer(stripe, tenant).await?.into(),
        Effect::ExpireCheckout => billing::expire_checkout(stripe, tenant).await?.into(),
        Effect::StopRenewal => billing::stop_renewal(stripe, tenant).await?.into(),
        Effect::RenewAgain => billing::renew_again(stripe, observed).await?.into(),
        Effect::ForgetClosing => billing::forget_closing(stripe, observed).await?.into(),
        Effect::EraseBilling => billing::erase(stripe, tenant).await?.into(),
        Effect::Export => Outcome::Export(export_work::go_on(context, tenant)).into(),
        Effect::DeleteExports => {
            context.exports.delete(tenant).await?;
            Outcome::Done.into()
        }
        Effect::ShipTransitions => record::ship(context, tenant, observed).await.into(),
        Effect::CountHoldings => {
            let holders = Holders { stripe, indexes, exports: &context.exports };
            let leads = leads::count(context, tenant).await?;
            erasure::count(kubernetes, &context.signer, holders, tenant, leads).await?.into()
        }
        Effect::CountStored => usage::count_stored(&context.ledger, tenant).await.into(),
        Effect::EraseIdentity => erasure::erase_identity(kubernetes, tenant).await?.into(),
        Effect::CancelBilling => billing::cancel(stripe, tenant).await?.into(),
        Effect::EnsureNamespace => namespace::ensure(indexes.of(region)?, &place).await?.into(),
        Effect::CheckNamespace => namespace::check(indexes.of(region)?, &place).await?.into(),
        Effect::DeleteNamespace => delete_data(context, tenant).await?.into(),
        Effect::RecordData { generation, embedding, region } => {
            data::record(kubernetes, tenant, *generation, embedding, region.as_deref()).await?.into()
        }
        Effect::Migrate { generation, embedding, region, last } => {
            let (embedding, region) = (embedding.clone(), region.clone());
            let to = Move { generation: *generation, embedding, region, last: *last };
            Outcome::Migration(migrations::go_on(context, tenant, to)).into()
        }
        Effect::DropNamespace { generation } => {
            data::drop(kubernetes, indexes, tenant, observed, *generation).await?.into()
        }
        Effect::FindData => {
            let plans = context.caches.plans.all();
            data::find(indexes, &each(&plans), tenant).await?.into()
        }
        Effect::ServeFrom { generation } => {
            let (plans, embedder) = (context.caches.plans.all(), &*context.providers.embedder);
            data::serve_from(kubernetes, indexes, embedder, &each(&plans), tenant, *generation).await?.into()
        }
        Effect::ForgetChoice => data::forget_choice(kubernetes, tenant).await?.into(),
        Effect::StoreSamples => samples()?.store(&place).await?.into(),
        Effect::VerifySamples => samples()?.verify(&place).await?.into(),
        Effect::Notify(Notice::KeptAlert) => alert_of_kept(context, tenant).await?.into(),
        Effect::Notify(notice) => {
            let Providers { mail, alerts, .. } = &context.providers;
            let senders = Senders { mail, alerts, identity: &context.identity, now: context.clock.read().now };
            notices::send(senders, tenant, Plans { in_force: plan, wanted }, notice).await?.into()
        }
    })
}

/// Tells the platform team how many customers were kept although their objects were deleted.
async fn alert_of_kept(context: &Context, tenant: &Tenant) -> Result<Outcome, StepError> {
    let Some(count) = context.incidents.kept() else { return Ok(Outcome::Done) };
    let told = notices::kept(&context.providers.alerts, tenant, count).await;
    Ok(told.inspect_err(|_| context.incidents.untold())?)
}

async fn ensure_api_key(context: &Context, tenant: &Tenant) -> Result<Outcome, StepError> {
    let known = context.caches.api_key_secret(tenant).is_some();
    secrets::ensure_api_key(&context.kubernetes, &context.signer, &context.memory, tenant, known).await?;
    Ok(Outcome::Done)
}

fn each(plans: &[Arc<Plan>]) -> Vec<&Plan> {
    plans.iter().map(|plan| &**plan).collect()
}

/// An effect that did not end within its attempt.
pub fn too_late(effect: &Effect) -> Acted {
    again(effect, Reason::Timeout, "The attempt took longer than its limit")
}

/// Ends the task that writes what an effect deletes. False while it still does.
async fn writers_stopped(context: &Context, tenant: &Tenant, effect: &Effect) -> bool {
    let uid = tenant.uid().unwrap_or_default();
    match effect {
        Effect::DeleteExports => context.exports.tasks.stop(&uid).await,
        // A task that writes during the count would make the count wrong.
        Effect::DeleteNamespace | Effect::DropNamespace { .. } | Effect::FindData => {
            context.migrations.stop(&uid).await
        }
        _ => true,
    }
}

/// A deletion of what a task is still writing. It has been told to stop.
fn still_written(effect: &Effect) -> Acted {
    again(effect, Reason::StillWritten, "A task still writes what is to be deleted; it is deleted once that has ended")
}

/// A retryable failure: the effect timed out, or a task is still writing. A later reconcile tries it again.
fn again(effect: &Effect, reason: Reason, message: &str) -> Acted {
    Outcome::Failed(Failure::new(effect.step(), reason, message, Blame::Call)).into()
}
