//! Events on the customers' way to their first useful answer, as an append-only stream: a file with one line for each
//! event, or the log if no file is set.
//!
//! Delivery is at least once: an event of a milestone has the same id however often it is written.

mod definitions;
mod file;

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use strum::IntoStaticStr;

use crate::api::phase::Transition;
use crate::api::{Phase, SIGNED_UP, SIGNUP_ANNOTATION, Tenant, Timestamp};
use crate::telemetry::{ActivationLabels, Metrics};

pub use definitions::{DEFINITIONS, Definition, page as definitions_page};
pub use file::EventLog;

/// Who reported the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Source {
    /// The server, which saw it.
    Server,
    /// A page or an app of the customer.
    Client,
}

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum EventOutcome {
    /// The customer tried.
    Attempt,
    /// It was done.
    Success,
    /// It came to nothing; the field `reason` of the metadata says why.
    Failure,
}

/// How a tenant came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Origin {
    /// The customer signed up on the pages or by the API.
    Signup,
    /// The sales team invited the customer.
    Invitation,
    /// The platform team applied a manifest. Such a tenant may never use the pages.
    Manifest,
}

impl Origin {
    /// Of an object. Signups and invitations are named by the hash of their address.
    pub fn of(tenant: &Tenant) -> Self {
        if tenant.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(SIGNUP_ANNOTATION)) {
            Self::Signup
        } else if tenant.metadata.name.as_ref().is_some_and(|name| name.starts_with(SIGNED_UP))
            && tenant.spec.login.is_some()
        {
            Self::Invitation
        } else {
            Self::Manifest
        }
    }
}

/// Whose event it is.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The object's uid.
    pub uid: &'a str,
    /// The tenant's id.
    pub tenant_id: &'a str,
    /// How the tenant came to be.
    pub origin: Origin,
}

impl<'a> From<&'a Tenant> for Subject<'a> {
    fn from(tenant: &'a Tenant) -> Self {
        let uid = tenant.metadata.uid.as_deref().unwrap_or_default();
        Self { uid, tenant_id: tenant.tenant_id(), origin: Origin::of(tenant) }
    }
}

/// How the pages guide a customer. It stays the same for a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// Steps alone.
    Simple,
    /// Steps with explanations.
    Detailed,
}

impl Variant {
    /// The variant of an object, by a hash of its uid.
    pub fn of(uid: &str) -> Self {
        let digest = Sha256::digest(["variant", uid].concat());
        if digest[0].is_multiple_of(2) { Self::Simple } else { Self::Detailed }
    }
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Names it: two lines with the same id are one event.
    pub id: String,
    /// The tenant.
    pub tenant_id: String,
    /// What happened, such as `sample_query`.
    pub event_type: String,
    /// How far it came.
    pub outcome: EventOutcome,
    /// Who reported it.
    pub source: Source,
    /// How the tenant came to be.
    pub origin: Origin,
    /// How the pages guided the customer.
    pub variant: Variant,
    /// When, by the clock of the part that saw it.
    pub timestamp: Timestamp,
    /// What else is known.
    pub metadata: Map<String, Value>,
}

impl Event {
    /// Something that a tenant reaches once.
    pub fn milestone(tenant: &Tenant, name: &str, now: Timestamp) -> Self {
        let subject = Subject::from(tenant);
        let id = format!("{}/{}", subject.uid, words(name));
        Self { id, ..Self::new(subject, name, EventOutcome::Success, Source::Server, now) }
    }

    /// The milestone that a transition is, if it is one.
    pub fn of_transition(tenant: &Tenant, transition: &Transition) -> Option<Self> {
        let name = match (transition.from_state, transition.to_state) {
            (None | Some(Phase::PendingPayment), Phase::Provisioning) => "payment",
            (Some(Phase::Provisioning), Phase::Active) => "provisioned",
            _ => return None,
        };
        Some(Self::milestone(tenant, name, transition.timestamp))
    }

    /// Something that a customer tried.
    pub fn attempt<'a>(subject: impl Into<Subject<'a>>, name: &str, now: Timestamp) -> Self {
        Self::new(subject.into(), name, EventOutcome::Attempt, Source::Server, now)
    }

    /// Something that came to nothing, for this reason.
    pub fn failure<'a>(subject: impl Into<Subject<'a>>, name: &str, reason: &str, now: Timestamp) -> Self {
        let metadata = [("reason".to_owned(), Value::from(reason))].into_iter().collect();
        Self { metadata, ..Self::new(subject.into(), name, EventOutcome::Failure, Source::Server, now) }
    }

    /// Something that happened, with what is known of it.
    pub fn of(tenant: &Tenant, name: &str, metadata: Map<String, Value>, now: Timestamp) -> Self {
        Self { metadata, ..Self::new(tenant.into(), name, EventOutcome::Success, Source::Server, now) }
    }

    /// Something that a client says.
    pub fn claim(tenant: &Tenant, name: &str, metadata: Map<String, Value>, now: Timestamp) -> Self {
        Self { metadata, ..Self::new(tenant.into(), name, EventOutcome::Success, Source::Client, now) }
    }

    fn new(subject: Subject<'_>, name: &str, outcome: EventOutcome, source: Source, now: Timestamp) -> Self {
        let Subject { uid, tenant_id, origin } = subject;
        Self {
            id: format!("{uid}/{}", hex::encode(rand::random::<[u8; 8]>())),
            tenant_id: tenant_id.into(),
            event_type: words(name),
            outcome,
            source,
            origin,
            variant: Variant::of(uid),
            timestamp: now,
            metadata: Map::new(),
        }
    }
}

impl EventLog {
    /// Writes an event down, and counts it.
    pub fn record(&self, metrics: &Metrics, event: &Event) {
        count(metrics, event);
        self.append(event);
    }

    /// Writes events that must not be lost, and returns whether they are on the disk. Without a file, they go to the
    /// log.
    pub async fn ship(&self, metrics: &Metrics, events: &[Event]) -> bool {
        if self.has_file() {
            let kept = events.is_empty() || self.keep(events).await;
            for event in events.iter().filter(|_| kept) {
                count(metrics, event);
            }
            return kept;
        }
        for event in events {
            self.record(metrics, event);
        }
        true
    }
}

fn count(metrics: &Metrics, event: &Event) {
    let labels = ActivationLabels {
        event: event.event_type.clone(),
        outcome: event.outcome.into(),
        origin: event.origin.into(),
        source: event.source.into(),
    };
    metrics.activation.get_or_create(&labels).inc();
}

/// A milestone's name as events have it.
fn words(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_stays_and_both_are_as_frequent() {
        let simple = (0..1000).filter(|n| Variant::of(&format!("uid-{n}")) == Variant::Simple).count();
        assert!((400..600).contains(&simple), "{simple} of 1000");
        assert_eq!(Variant::of("uid-1"), Variant::of("uid-1"));
    }
}
