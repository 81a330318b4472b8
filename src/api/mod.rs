//! The custom resources, and nothing else. Their doc comments are what `kubectl explain` prints.

pub mod conditions;
mod definitions;
mod earlier;
pub mod facts;
pub mod identity;
mod mail_request;
pub mod migration;
pub mod money;
pub mod months;
pub mod phase;
pub mod plan;
pub mod quota;
pub mod reserved;
mod size;
pub mod status;
pub mod tenant;
mod text;
pub mod timestamp;
pub mod usage;
pub mod usage_prices;

pub use conditions::{Condition, ConditionStatus};
pub use definitions::{CRD_REVISION, CRD_REVISION_ANNOTATION, definitions};
pub use identity::{
    PASSWORD_HASH, Place, SIGNED_UP, api_key_secret, data_namespace, data_of, embedding, lead_secret, login_secret,
    region, signed_up,
};
pub use mail_request::{LinkKind, MailRequest, mail_requests};
pub use migration::Data;
pub use phase::{EventType, Phase, TriggeredBy};
pub use plan::{Plan, PlanSpec, SampleData, SampleDocument};
pub use quota::Unit;
pub use size::size;
pub use status::TenantStatus;
pub use tenant::{Tenant, TenantSpec};
pub use text::Text;
pub use timestamp::Timestamp;
pub use usage::{TakenOver, Usage};
pub use usage_prices::{UsageBilling, UsagePrice};

/// The API group of both kinds.
pub const GROUP: &str = "tenant-operator.dev";
/// Keeps a deleted Tenant until its resources at the providers are gone.
pub const FINALIZER: &str = "tenant-operator.dev/cleanup";
/// A new value starts provisioning over, of a Failed tenant or of one whose namespace is gone.
pub const RETRY_ANNOTATION: &str = "tenant-operator.dev/retry";
/// How the value of such an annotation, and of `spec.exportRequest`, begins where the customer asked for it.
pub const CUSTOMER_REQUEST: &str = "customer-";
/// `"true"` completes a deletion although a provider cannot be reached. An Event names what is left behind.
pub const FORCE_DELETE_ANNOTATION: &str = "tenant-operator.dev/force-delete";
/// The tenant's id on a Tenant says that its deletion is meant to erase the customer: namespace, Secrets, subscription.
/// Without it, deleting the object of a customer who has paid or has data erases nothing.
pub const ERASE_ANNOTATION: &str = "tenant-operator.dev/erase";
/// Why a tenant may not be erased for now, such as a case number. Nothing of it is erased while this is there.
pub const LEGAL_HOLD_ANNOTATION: &str = "tenant-operator.dev/legal-hold";
/// The id of a dispute that was settled with the customer: it counts no more.
pub const ACCEPT_DISPUTE_ANNOTATION: &str = "tenant-operator.dev/accept-dispute";
/// What a person decides of usage that differs at Stripe or waits for a price, with the numbers and the object's uid:
/// `kubectl tenant settle-usage` writes it.
pub const SETTLE_USAGE_ANNOTATION: &str = "tenant-operator.dev/settle-usage";
/// The refund that a person settles outside of the operator, as the conditions name it: the tenant's id, when the
/// present run of provisioning began, and the Stripe invoice, with dots between them. The controller makes none, and the
/// deletion of the tenant waits for it no more.
pub const WAIVE_REFUND_ANNOTATION: &str = "tenant-operator.dev/waive-refund";
/// The generation of the data that a person chose, a dot, and the object's uid: questions are answered from that
/// generation, and the namespaces of the others are deleted. `kubectl tenant data choose` writes it.
pub const CHOOSE_DATA_ANNOTATION: &str = "tenant-operator.dev/choose-data";
/// The id of a customer that Stripe does not know. With this, an admin confirms that the customer is gone for good.
pub const CUSTOMER_GONE_ANNOTATION: &str = "tenant-operator.dev/customer-gone";
/// Names the decision that the brake holds because it would affect many tenants at once, and that an admin has
/// confirmed for this tenant.
pub const CONFIRM_ANNOTATION: &str = "tenant-operator.dev/confirm";
/// On a login Secret: its Tenant was deleted without the wish to erase the customer, so the Secret is kept for its
/// return.
pub const KEPT_ANNOTATION: &str = "tenant-operator.dev/kept";
/// The record of the erasure, as JSON. Nothing else of an erased tenant is kept.
pub const ERASED_ANNOTATION: &str = "tenant-operator.dev/erased";
/// `"true"` on a Tenant keeps its data, Secrets and subscription when the object is deleted, as for a move.
pub const KEEP_DATA_ANNOTATION: &str = "tenant-operator.dev/keep-data";
/// The e-mails and alerts that were sent, comma-separated. Kept outside the status, so that a lost status repeats none.
pub const SENT_ANNOTATION: &str = "tenant-operator.dev/sent";
/// The last Stripe event that named this tenant: a hint to read Stripe again.
pub const STRIPE_EVENT_ANNOTATION: &str = "tenant-operator.dev/stripe-event";
/// Asks for a new payment link where the one before has expired: the number of the Checkout session that is to make it,
/// one more than `spec.billing.stripe.checkoutAttempt` (1 when absent). Any other number asks for nothing.
pub const PAYMENT_LINK_ANNOTATION: &str = "tenant-operator.dev/payment-link";
/// Keyed hash of the normalised e-mail address.
pub const EMAIL_LABEL: &str = "tenant-operator.dev/email-hash";
/// Proof that this operator issued `spec.tenantId` to this namespace and name. Backups must keep it.
pub const PROOF_ANNOTATION: &str = "tenant-operator.dev/identity-proof";
/// Who signed up, when, from which address, by which request and under which terms, as JSON.
pub const SIGNUP_ANNOTATION: &str = "tenant-operator.dev/signup";
/// What a tenant used in its quota period, as JSON. Written by web.
pub const USAGE_ANNOTATION: &str = "tenant-operator.dev/usage";
/// The part of the usage annotation that the ledger has counted already, as the same JSON. Written by web.
pub const TAKEN_OVER_ANNOTATION: &str = "tenant-operator.dev/usage-taken-over";
/// The hash of the e-mail address that the customer proved to read; compared with the label of the present address.
pub const VERIFIED_ANNOTATION: &str = "tenant-operator.dev/verified-address";
/// The e-mails that the customer asked for, the last of each kind, such as
/// `login-link.1764108000,verify-email.1764107000`. Written by web, sent by the controller.
pub const MAIL_REQUESTS_ANNOTATION: &str = "tenant-operator.dev/mail-requests";
/// The links that were used, the last of each kind: it, and those that were asked for before it, are no longer valid.
pub const LINKS_USED_ANNOTATION: &str = "tenant-operator.dev/links-used";
/// Sessions from before this moment, in seconds since 1970, are no longer valid: the password was changed.
pub const SESSIONS_ANNOTATION: &str = "tenant-operator.dev/sessions-since";
/// `"true"` when the customer wants no e-mails beyond those that the service needs.
pub const UNSUBSCRIBED_ANNOTATION: &str = "tenant-operator.dev/unsubscribed";
/// `"true"` while the customer does not want to see the setup.
pub const SETUP_SKIPPED_ANNOTATION: &str = "tenant-operator.dev/setup-skipped";
/// The milestones of a customer, in their order. Each is noted once with its time, in an annotation of its own.
pub const MILESTONES: [&str; 7] =
    ["email-verified", "first-login", "sample-query", "first-document", "own-query", "ten-queries", "completed"];

/// The annotation that says when a milestone was reached.
pub fn reached_annotation(milestone: &str) -> String {
    format!("tenant-operator.dev/reached-{milestone}")
}

/// When a milestone was reached first.
pub fn reached_at(tenant: &Tenant, milestone: &str) -> Option<Timestamp> {
    tenant.metadata.annotations.as_ref()?.get(&reached_annotation(milestone))?.parse().ok()
}

/// Seconds from Active to the completed setup.
pub fn time_to_activate(tenant: &Tenant) -> Option<i64> {
    let active = tenant.status.as_ref()?.provisioned_at?;
    Some(reached_at(tenant, "completed")?.since(active).max(0))
}

/// What a customer asks first.
pub const SAMPLE_QUESTION: &str = "What is RAG?";

/// Says what a Secret is for.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// A Secret with the message of a visitor who is not a customer yet.
pub const LEAD_COMPONENT: &str = "lead";
/// What such a Secret is about: `sales` or `waitlist`.
pub const LEAD_LABEL: &str = "tenant-operator.dev/lead";
/// The kinds of leads.
pub const LEAD_KINDS: [&str; 2] = ["sales", "waitlist"];
/// The `ConfigMap` in the operator's namespace that says how many leads there are.
pub const LEAD_COUNT_MAP: &str = "tenant-operator-leads";
/// Where the count is in it.
pub const LEAD_COUNT: &str = "count";
/// On such a Secret: since when its writer may sign up.
pub const ADMITTED_ANNOTATION: &str = "tenant-operator.dev/admitted";
/// On such a Secret: whether the e-mail that tells its writer is `requested`, `sent` or `refused`.
pub const ADMISSION_MAIL_ANNOTATION: &str = "tenant-operator.dev/admission-mail";
/// A Secret with the password hash of a signup.
pub const LOGIN_COMPONENT: &str = "tenant-login";
/// Marks the Secrets that belong to a Tenant, with its name as the value.
pub const TENANT_LABEL: &str = "tenant-operator.dev/tenant";
