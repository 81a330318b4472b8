//! The controller: watch, observe, decide, act, record.

mod act;
mod context;
mod events;
mod health;
mod lease;
mod reconcile;
mod record;
mod steps;

use std::sync::Arc;
use std::time::Duration;

use futures::{Future, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{Controller, WatchStreamExt, controller, watcher};
use kube::{Api, Client, ResourceExt};

use crate::api::{Plan, TENANT_LABEL, Tenant};
use crate::lifecycle::Policy;
use crate::operator_keys::{IdentityKey, signing_key};
use crate::providers::alerts::Alerts;
use crate::providers::mail::Mail;
use crate::providers::openai::OpenAi;
use crate::providers::pinecone::Pinecone;
use crate::providers::stripe::Stripe;

pub use context::Context;
pub use lease::LeaseConfig;

/// The clients of all providers.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Providers {
    pub stripe: Stripe,
    pub pinecone: Pinecone,
    pub openai: OpenAi,
    pub mail: Mail,
    pub alerts: Alerts,
}

/// How the controller runs.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// Watch this namespace alone; all when absent.
    pub namespace: Option<String>,
    /// Where the operator's own Secrets and Lease are.
    pub operator_namespace: String,
    /// Waits and limits.
    pub policy: Policy,
    /// Tenants worked on at the same time.
    pub concurrency: u16,
    /// Where health and metrics are served.
    pub listen: Option<std::net::SocketAddr>,
    /// Leader election.
    pub lease: LeaseConfig,
}

/// Why the controller ended.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// Kubernetes refused something at the start.
    #[error("Kubernetes: {0}")]
    Kube(#[from] kube::Error),
    /// The health server could not start.
    #[error("cannot listen: {0}")]
    Listen(#[from] std::io::Error),
    /// Another controller took over.
    #[error("the lease was lost; another controller may be at work")]
    LeaseLost,
}

/// Runs until `stop`, or until the lease is lost.
pub async fn run(
    client: Client,
    config: ControllerConfig,
    providers: Providers,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) -> Result<(), ControllerError> {
    let health = health::Health::default();
    let ns = &config.operator_namespace;
    let identity = IdentityKey::load(&client, ns).await?;
    let signer = signing_key(&client, ns).await?;
    let (tenants, tenant_writer) = reflector::store();
    let (plans, plan_writer) = reflector::store();
    let (secrets, secret_writer) = reflector::store();
    let lease = lease::Lease::new(client.clone(), ns, config.lease.clone());
    let context = Arc::new(Context::new(
        client.clone(),
        providers,
        config.policy.clone(),
        context::Caches::new(tenants.clone(), plans, secrets),
        identity,
        signer,
        lease.fence(),
    ));
    if let Some(addr) = config.listen {
        health::serve(addr, health.clone(), context.metrics.clone()).await?;
    }
    tracing::info!("waiting for the lease");
    let stop = futures::FutureExt::shared(stop);
    tokio::select! {
        () = lease.acquire() => {}
        () = stop.clone() => return Ok(()),
    }
    tracing::info!("leading");
    health.set_ready();

    let scoped = config.namespace.clone();
    let tenant_api: Api<Tenant> =
        scoped.as_ref().map_or_else(|| Api::all(client.clone()), |ns| Api::namespaced(client.clone(), ns));
    let secret_api: Api<PartialObjectMeta<Secret>> =
        scoped.as_ref().map_or_else(|| Api::all(client.clone()), |ns| Api::namespaced(client.clone(), ns));
    let tenant_stream = watcher(tenant_api, watcher::Config::default().any_semantic())
        .default_backoff()
        .modify(|t| t.managed_fields_mut().clear())
        .reflect(tenant_writer)
        .applied_objects();
    let plan_stream = watcher(Api::<Plan>::all(client.clone()), watcher::Config::default().any_semantic())
        .default_backoff()
        .modify(|p| p.managed_fields_mut().clear())
        .reflect(plan_writer)
        .touched_objects();
    let secret_stream = watcher(secret_api, watcher::Config::default().any_semantic().labels(TENANT_LABEL))
        .default_backoff()
        .modify(|s| s.managed_fields_mut().clear())
        .reflect(secret_writer)
        .touched_objects();
    let of_plan = move |plan: Plan| {
        let name = plan.name_any();
        let all = tenants.state().into_iter().filter(move |t| t.spec.plan == name);
        all.map(|t| ObjectRef::from_obj(t.as_ref())).collect::<Vec<_>>()
    };
    let reader = context.caches.tenants.clone();
    let work = Controller::for_stream(tenant_stream, reader)
        .with_config(controller::Config::default().concurrency(config.concurrency))
        .owns_stream(secret_stream)
        .watches_stream(plan_stream, of_plan)
        .graceful_shutdown_on(stop.clone())
        .run(reconcile::reconcile, reconcile::on_error, context)
        .for_each(|result| async {
            if let Err(error) = result {
                tracing::debug!(%error, "reconcile");
            }
        });
    let outcome = tokio::select! {
        () = work => Ok(()),
        () = lease.keep() => Err(ControllerError::LeaseLost),
    };
    if outcome.is_ok() {
        // A successor can take over at once.
        drop(tokio::time::timeout(Duration::from_secs(2), lease.release()).await);
    }
    outcome
}
