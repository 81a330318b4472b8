//! Kubernetes Events: sent beside the work, never waited for, dropped when there are too many.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use governor::{Quota, RateLimiter};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tokio::sync::mpsc;

use crate::telemetry::Metrics;

const QUEUE: usize = 256;
/// Events per second, as a client-go controller's broadcaster also keeps them few.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// While many tenants are being provisioned, what is ordinary waits, this long at most: their requests come first.
const HOLD: Duration = Duration::from_secs(20);
/// How often it is looked whether that is over.
const LOOK: Duration = Duration::from_millis(200);

type Told = (Event, k8s_openapi::api::core::v1::ObjectReference);

/// The way to tell of something.
pub struct Events {
    normal: mpsc::Sender<Told>,
    warnings: mpsc::Sender<Told>,
}

impl Events {
    /// Starts the senders.
    pub fn start(
        client: Client,
        metrics: &Arc<Metrics>,
        overloaded: impl Fn() -> bool + Clone + Send + 'static,
    ) -> Self {
        let reporter = Reporter { controller: "tenant-operator".into(), instance: std::env::var("POD_NAME").ok() };
        let recorder = Arc::new(Recorder::new(client, reporter));
        let limiter = Arc::new(RateLimiter::direct(Quota::per_second(PER_SECOND)));
        let sender = |hold: bool| {
            let (sender, mut queue) = mpsc::channel::<Told>(QUEUE);
            let (recorder, limiter, metrics, overloaded) =
                (recorder.clone(), limiter.clone(), metrics.clone(), overloaded.clone());
            tokio::spawn(async move {
                while let Some((event, reference)) = queue.recv().await {
                    let begun = Instant::now();
                    while hold && overloaded() && begun.elapsed() < HOLD {
                        tokio::time::sleep(LOOK).await;
                    }
                    limiter.until_ready().await;
                    metrics.events.inc();
                    if let Err(error) = recorder.publish(&event, &reference).await {
                        tracing::debug!(%error, "an Event was not written");
                    }
                }
            });
            sender
        };
        Self { normal: sender(true), warnings: sender(false) }
    }

    pub fn normal(&self, object: &impl Resource<DynamicType = ()>, reason: &str, note: String) {
        Self::send(&self.normal, object, EventType::Normal, reason, note);
    }

    pub fn warn(&self, object: &impl Resource<DynamicType = ()>, reason: &str, note: String) {
        Self::send(&self.warnings, object, EventType::Warning, reason, note);
    }

    fn send(
        to: &mpsc::Sender<Told>,
        object: &impl Resource<DynamicType = ()>,
        type_: EventType,
        reason: &str,
        note: String,
    ) {
        let event =
            Event { type_, reason: reason.into(), note: Some(note), action: "Reconcile".into(), secondary: None };
        drop(to.try_send((event, object.object_ref(&()))));
    }
}
