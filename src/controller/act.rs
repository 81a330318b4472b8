//! Which step does which effect.

use super::context::Context;
use super::steps::{api_key, billing, cleanup, identity, namespace, notices, samples};
use crate::api::{Plan, Tenant};
use crate::lifecycle::{Effect, Facts, Failure, Outcome};
use crate::providers::ProviderError;

/// What came of an effect.
pub struct Acted {
    /// What was learned.
    pub outcome: Outcome,
    /// The object, where it was written.
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

/// The step that an effect belongs to, by its name in conditions.
pub fn step(effect: &Effect) -> &'static str {
    match effect {
        Effect::EnsureNamespace | Effect::DeleteNamespace => "Namespace",
        Effect::EnsureApiKey | Effect::DeleteSecrets => "ApiKey",
        Effect::StoreSamples | Effect::VerifySamples => "SampleData",
        Effect::Notify(_) | Effect::MarkSent(_) => "Notice",
        Effect::AssignIdentity | Effect::RemoveFinalizer | Effect::DeleteTenant => "Identity",
        _ => "Billing",
    }
}

/// Does it. A failure of Kubernetes ends the pass; a failure of a provider is something to decide on.
pub async fn run(
    context: &Context,
    tenant: &Tenant,
    plan: Option<&Plan>,
    facts: &Facts,
    effect: &Effect,
) -> Result<Acted, kube::Error> {
    tracing::debug!(?effect, "act");
    let outcome = match effect {
        Effect::AssignIdentity => return identity::assign(context, tenant).await.map(Acted::from),
        Effect::NextCheckout { attempt } => {
            return billing::next_checkout(context, tenant, *attempt).await.map(Acted::from);
        }
        Effect::StoreStripeIds { customer, subscription } => {
            return billing::store_ids(context, tenant, customer, subscription).await.map(Acted::from);
        }
        Effect::MarkSent(sent) => return notices::mark(context, tenant, sent).await.map(Acted::from),
        Effect::RemoveFinalizer => {
            identity::remove_finalizer(context, tenant).await?;
            return Ok(Acted { gone: true, ..Acted::from(Outcome::Done) });
        }
        Effect::DeleteTenant => {
            identity::delete(context, tenant).await?;
            return Ok(Acted { gone: true, ..Acted::from(Outcome::Done) });
        }
        Effect::EnsureApiKey => {
            api_key::ensure(context, tenant).await?;
            Ok(Outcome::Done)
        }
        Effect::DeleteSecrets => {
            cleanup::secrets(context, tenant).await?;
            Ok(Outcome::Done)
        }
        Effect::ReadBilling => billing::read(context, tenant).await,
        Effect::OpenCheckout { attempt } => billing::open_checkout(context, tenant, plan, *attempt).await,
        Effect::Refund => billing::refund(context, tenant, facts).await,
        Effect::PauseCollection => billing::collect(context, facts, false).await,
        Effect::ResumeCollection => billing::collect(context, facts, true).await,
        Effect::CancelBilling => billing::cancel(context, tenant).await,
        Effect::EnsureNamespace => namespace::ensure(context, tenant).await,
        Effect::DeleteNamespace => cleanup::namespace(context, tenant).await,
        Effect::StoreSamples => samples::store(context, tenant, plan).await,
        Effect::VerifySamples => samples::verify(context, tenant, plan).await,
        Effect::Notify(notice) => notices::send(context, tenant, plan, notice).await,
    };
    Ok(outcome.unwrap_or_else(|error| Outcome::Failed(failure(step(effect), &error))).into())
}

fn failure(step: &str, error: &ProviderError) -> Failure {
    Failure {
        step: step.into(),
        reason: format!("{}{}", error.provider.replace(' ', ""), error.reason),
        message: error.to_string(),
        retryable: error.retryable,
        retry_after: error.retry_after.and_then(|d| i64::try_from(d.as_secs()).ok()),
    }
}
