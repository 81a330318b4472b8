//! The accounts and indexes that the tenants are in. The controller checks them before it calls a provider, and alerts
//! the platform team if the keys belong to others.

use std::sync::Arc;

use crate::controller::context::Context;
use crate::controller::queue::urgency::priority;
use crate::controller::steps::StepError;
use crate::controller::watch::waits_for_provider;
use crate::controller::{Key, Providers};
use crate::lifecycle::{Provider, Step};
use crate::providers::ProviderError;
use crate::providers::gate::Gate;
use crate::telemetry::ProviderLabel;

/// Nothing is called before it was checked.
pub fn guard(providers: &Providers) {
    gates(providers).for_each(Gate::guard);
}

fn gates(providers: &Providers) -> impl Iterator<Item = &Gate> {
    let indexes = providers.indexes.each().into_iter().map(|(_, index)| index.gate());
    std::iter::once(providers.stripe.gate()).chain(indexes)
}

/// Returns once the first check has ended, with any result.
pub async fn checked(context: &Context) {
    futures::future::join_all(gates(&context.providers).map(Gate::checked)).await;
}

/// Checks until the controller ends.
pub async fn keep(context: Arc<Context>) {
    let Providers { stripe, indexes, .. } = &context.providers;
    context.keeper.keep(Some(stripe), indexes, || changed(&context)).await;
}

fn refused(context: &Context) -> Vec<ProviderError> {
    gates(&context.providers).filter_map(Gate::refusal).collect()
}

/// What is refused, a line each.
pub fn refusals(context: &Context) -> Vec<String> {
    refused(context).iter().map(ToString::to_string).collect()
}

/// Alerts the platform team, and lets tenants that wait try again.
fn changed(context: &Arc<Context>) {
    for error in refused(context) {
        tracing::error!(%error, "calls are refused");
        let context = context.clone();
        tokio::spawn(async move {
            if let Ok(failure) = StepError::from(error).failure(Step::Pin) {
                context.incidents.raise(&failure).await;
            }
        });
    }
    for tenant in context.caches.each_tenant().filter(|tenant| waits_for_provider(tenant)) {
        context.queue.add(Key::of(&tenant), priority(&tenant));
    }
}

/// Sets the metric.
pub fn measure(context: &Context) {
    let refused = refused(context);
    for provider in [Provider::Stripe, Provider::VectorStore] {
        let is_refused = refused.iter().any(|error| error.provider == provider);
        let label = ProviderLabel { provider: provider.into() };
        context.metrics.pin_mismatch.get_or_create_owned(&label).set(is_refused.into());
    }
}
