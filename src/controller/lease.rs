//! Leader election by a Lease. The holder stops its work before another controller may take the lease: it works only
//! for two thirds of the lease's duration after its last renewal.
//!
//! Our own, because kube has no leader election, and work asks the fence whether the lease is still safe.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

/// The Lease of the controller that leads, in the operator's namespace.
pub const LEASE: &str = "tenant-operator-controller";
/// How often one that stands by looks: a lease that was given up is taken within this time.
const LOOK: Duration = Duration::from_millis(500);

/// How the lease is held.
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    /// Who holds it: unique to this process.
    pub identity: String,
    /// How long others wait after the last renewal.
    pub duration: Duration,
}

/// Says whether work may go on.
#[derive(Clone, Default)]
pub struct Fence(Arc<Mutex<Option<Instant>>>);

impl Fence {
    /// Whether the lease is safely held now.
    pub fn holds(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() < until)
    }

    fn until(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = until;
    }
}

/// The lease.
pub struct Lease {
    api: Api<LeaseObject>,
    config: LeaseConfig,
    fence: Fence,
}

impl Lease {
    pub fn new(client: Client, namespace: &str, config: LeaseConfig) -> Self {
        Self { api: Api::namespaced(client, namespace), config, fence: Fence::default() }
    }

    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Waits until the lease is ours.
    pub async fn acquire(&self) {
        let mut seen: Option<(Option<String>, Instant)> = None;
        loop {
            match self.try_acquire(&mut seen).await {
                Ok(true) => return,
                Ok(false) => {}
                // Another was faster.
                Err(kube::Error::Api(e)) if e.code == 409 => {}
                Err(error) => tracing::warn!(%error, "cannot read or write the lease"),
            }
            tokio::time::sleep(LOOK.min(self.config.duration / 6)).await;
        }
    }

    /// Expiry is judged by our own clock: the lease must stand unchanged for its duration while we watch.
    async fn try_acquire(&self, seen: &mut Option<(Option<String>, Instant)>) -> Result<bool, kube::Error> {
        let start = Instant::now();
        let Some(mut lease) = self.api.get_opt(LEASE).await? else {
            let lease = LeaseObject {
                metadata: ObjectMeta { name: Some(LEASE.into()), ..ObjectMeta::default() },
                spec: Some(self.spec(0)),
            };
            self.api.create(&PostParams::default(), &lease).await?;
            self.renewed(start);
            return Ok(true);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let version = lease.metadata.resource_version.clone();
        let since = match seen {
            Some((before, at)) if *before == version => *at,
            _ => start,
        };
        *seen = Some((version, since));
        let duration = Duration::from_secs(spec.lease_duration_seconds.unwrap_or(15).max(1).unsigned_abs().into());
        if !holder.is_empty() && holder != self.config.identity && since.elapsed() < duration {
            return Ok(false);
        }
        lease.spec = Some(self.spec(spec.lease_transitions.unwrap_or(0) + 1));
        self.api.replace(LEASE, &PostParams::default(), &lease).await?;
        self.renewed(start);
        Ok(true)
    }

    fn spec(&self, transitions: i32) -> LeaseSpec {
        let now = MicroTime(jiff::Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.config.duration.as_secs()).unwrap_or(15)),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    fn renewed(&self, start: Instant) {
        self.fence.set(Some(start + self.config.duration * 2 / 3));
    }

    /// Renews until the lease is lost or the fence is reached. At the fence the work stops at once, even while a
    /// renewal hangs.
    pub async fn keep(&self) {
        while let Some(until) = self.fence.until() {
            match tokio::time::timeout_at(until.into(), self.renewed_again()).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    tracing::warn!("the lease was not renewed in time");
                    break;
                }
            }
        }
        self.fence.set(None);
    }

    /// Tries until the lease is renewed. False if another controller holds it.
    async fn renewed_again(&self) -> bool {
        loop {
            tokio::time::sleep(self.config.duration / 5).await;
            let start = Instant::now();
            match tokio::time::timeout(self.config.duration / 3, self.renew()).await {
                Ok(Ok(true)) => {
                    self.renewed(start);
                    return true;
                }
                Ok(Ok(false)) => return false,
                Ok(Err(error)) => tracing::warn!(%error, "the lease was not renewed; trying again"),
                Err(_) => tracing::warn!("the lease was not renewed in time; trying again"),
            }
        }
    }

    async fn renew(&self) -> Result<bool, kube::Error> {
        let mut lease = self.api.get(LEASE).await?;
        let Some(spec) = lease.spec.as_mut() else { return Ok(false) };
        if spec.holder_identity.as_ref() != Some(&self.config.identity) {
            return Ok(false);
        }
        spec.renew_time = Some(MicroTime(jiff::Timestamp::now()));
        self.api.replace(LEASE, &PostParams::default(), &lease).await?;
        Ok(true)
    }

    /// Gives the lease up.
    pub async fn release(&self) {
        self.fence.set(None);
        let Ok(mut lease) = self.api.get(LEASE).await else { return };
        let Some(spec) = lease.spec.as_mut() else { return };
        if spec.holder_identity.as_ref() == Some(&self.config.identity) {
            spec.holder_identity = Some(String::new());
            drop(self.api.replace(LEASE, &PostParams::default(), &lease).await);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An API server that takes connections and says nothing.
    #[tokio::test]
    async fn work_ends_at_the_fence_while_a_renewal_hangs() {
        drop(rustls::crypto::ring::default_provider().install_default());
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", silent.local_addr().expect("an address")).parse().expect("a URL");
        let client = Client::try_from(kube::Config::new(url)).expect("a client");
        let duration = Duration::from_millis(1500);
        let lease = Lease::new(client, "default", LeaseConfig { identity: "me".into(), duration });
        let start = Instant::now();
        lease.renewed(start);
        lease.keep().await;
        let ended = start.elapsed();
        assert!(!lease.fence.holds());
        assert!(ended >= duration * 2 / 3 && ended < duration * 5 / 6, "it ended after {ended:?}");
    }
}
