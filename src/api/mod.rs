//! The custom resources, and nothing else. Their doc comments are what `kubectl explain` prints.

pub mod conditions;
pub mod identity;
pub mod phase;
pub mod plan;
pub mod reserved;
pub mod tenant;
pub mod timestamp;

pub use conditions::{Condition, ConditionStatus};
pub use identity::{Place, api_key_secret, login_secret, pinecone_namespace};
pub use phase::{EventType, Phase, TriggeredBy};
pub use plan::{Plan, PlanSpec, SampleData, SampleDocument};
pub use tenant::{Tenant, TenantSpec, TenantStatus};
pub use timestamp::Timestamp;

/// The API group of both kinds.
pub const GROUP: &str = "tenant-operator.dev";
/// Keeps a Tenant until its provider resources are gone.
pub const FINALIZER: &str = "tenant-operator.dev/cleanup";
/// A new value starts provisioning over, of a Failed tenant or of one whose Pinecone namespace is gone.
pub const RETRY_ANNOTATION: &str = "tenant-operator.dev/retry";
/// `"true"` lets a deletion finish although a provider cannot be reached; what is left behind is said in an Event.
pub const FORCE_DELETE_ANNOTATION: &str = "tenant-operator.dev/force-delete";
/// The e-mails and alerts that were sent, comma-separated. Kept outside status so that a lost status repeats none.
pub const SENT_ANNOTATION: &str = "tenant-operator.dev/sent";
/// The last Stripe event that named this tenant: a hint to read Stripe again.
pub const STRIPE_EVENT_ANNOTATION: &str = "tenant-operator.dev/stripe-event";
/// Keyed hash of the normalised e-mail address.
pub const EMAIL_LABEL: &str = "tenant-operator.dev/email-hash";
/// Proof that this operator issued `spec.tenantId` to this namespace and name. Backups must keep it.
pub const PROOF_ANNOTATION: &str = "tenant-operator.dev/identity-proof";
/// Who signed up, when, from which address, by which request and under which terms, as JSON.
pub const SIGNUP_ANNOTATION: &str = "tenant-operator.dev/signup";
/// Says what a Secret is for.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// A Secret with the password hash of a signup.
pub const LOGIN_COMPONENT: &str = "tenant-login";
/// Marks the Secrets that belong to a Tenant, with its name as the value.
pub const TENANT_LABEL: &str = "tenant-operator.dev/tenant";
