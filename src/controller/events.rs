//! Kubernetes Events: sent beside the work, never waited for, dropped when there are too many.

use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{Quota, RateLimiter};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tokio::sync::mpsc;

use crate::telemetry::Metrics;

const QUEUE: usize = 256;
/// Events per second, as a client-go controller's broadcaster also keeps them few.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// The way to tell of something.
pub struct Events(mpsc::Sender<(Event, k8s_openapi::api::core::v1::ObjectReference)>);

impl Events {
    /// Starts the sender.
    pub fn start(client: Client, metrics: Arc<Metrics>) -> Self {
        let (sender, mut queue) = mpsc::channel(QUEUE);
        let reporter = Reporter { controller: "tenant-operator".into(), instance: std::env::var("POD_NAME").ok() };
        let recorder = Recorder::new(client, reporter);
        tokio::spawn(async move {
            let limiter = RateLimiter::direct(Quota::per_second(PER_SECOND));
            while let Some((event, reference)) = queue.recv().await {
                limiter.until_ready().await;
                metrics.events.inc();
                if let Err(error) = recorder.publish(&event, &reference).await {
                    tracing::debug!(%error, "an Event was not written");
                }
            }
        });
        Self(sender)
    }

    pub fn normal(&self, object: &impl Resource<DynamicType = ()>, reason: &str, note: String) {
        self.send(object, EventType::Normal, reason, note);
    }

    pub fn warn(&self, object: &impl Resource<DynamicType = ()>, reason: &str, note: String) {
        self.send(object, EventType::Warning, reason, note);
    }

    fn send(&self, object: &impl Resource<DynamicType = ()>, type_: EventType, reason: &str, note: String) {
        let event =
            Event { type_, reason: reason.into(), note: Some(note), action: "Reconcile".into(), secondary: None };
        drop(self.0.try_send((event, object.object_ref(&()))));
    }
}
