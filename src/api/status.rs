//! The status of a `Tenant`: what was last observed of it.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::facts::{Awaiting, DisputeState, Held, SuspendedFor};
use super::migration::Migration;
use super::phase::{Phase, Transition};
use super::plan::{Limits, Models, PlanSpec};
use super::quota::{QuotaRules, Unit};
use super::usage::{CountedUsage, Quota, Reached, UsageSource};
use super::usage_prices::UsageBilling;
use super::{Condition, Text, Timestamp};

/// The state that the controller observed last. If it is lost, the controller rebuilds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
// Reading and writing are below.
#[serde(rename_all = "camelCase", default, remote = "Self")]
pub struct TenantStatus {
    /// The tenant's phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The present state in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Text>,
    /// The generation of the spec that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// One condition for each aspect of the tenant. Ready summarizes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The payment link, while it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkout: Option<Checkout>,
    /// What the tenant waits for before it is set up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub awaiting: Option<Awaiting>,
    /// Whether the customer has confirmed the e-mail address. Absent if no confirmation is required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_confirmed: Option<bool>,
    /// The status of the subscription at Stripe, such as `trialing`; `manual` with billing mode Manual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription: Option<Text>,
    /// When the trial ends and the first charge is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial_ends_at: Option<Timestamp>,
    /// When the payment that is missing became late. The grace period starts then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment_late_since: Option<Timestamp>,
    /// Why the tenant is suspended, which decides how it is resumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended_for: Option<SuspendedFor>,
    /// When the controller stopped charging a tenant that an admin suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collection_paused_since: Option<Timestamp>,
    /// When the renewal of the subscription of a closed tenant was stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal_stopped_at: Option<Timestamp>,
    /// The state of the customer's payment dispute, while one is open or lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dispute: Option<DisputeState>,
    /// The Stripe price that is billed, while it differs from the price of the plan in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_price: Option<Text>,
    /// When the controller first saw that Stripe bills a second subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surplus_since: Option<Timestamp>,
    /// When Stripe stopped answering for this tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billing_failing_since: Option<Timestamp>,
    /// The tenant's Pinecone namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The region where the tenant's data is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Text>,
    /// When the controller first saw that the namespace no longer exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_missing_since: Option<Timestamp>,
    /// When the controller first saw documents of the tenant in another namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_unclear_since: Option<Timestamp>,
    /// The Secret in the Tenant's namespace that holds the API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_secret: Option<String>,
    /// When the API key was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_created_at: Option<Timestamp>,
    /// The generation of the API key in the Secret. The key before it is accepted for a day after it was replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub api_key_generation: Option<u32>,
    /// The generation of the API key that Stripe stores for `tenant-operator recover`. Absent for the first generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub key_generation_at_stripe: Option<u32>,
    /// The plan's settings that apply to this tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<PlanConfig>,
    /// The e-mail address that Stripe, the login and e-mails use. It follows `spec.adminEmail`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_email: Option<String>,
    /// The requested change to another plan, or the last one that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_change: Option<PlanChange>,
    /// The current quota period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// What the ledger counted, as of `observedAt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<CountedUsage>,
    /// Which ledger `usage` was read from, and what it lacks. Absent for a ledger whose beginning is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_source: Option<Box<UsageSource>>,
    /// Since when the ledger has not answered the controller. `usage` is older.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger_away_since: Option<Timestamp>,
    /// The units of which 80 or 100 percent of the limit are used. A unit leaves the list when its usage is below 80
    /// percent again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    pub usage_reached: Vec<Reached>,
    /// How far usage was sent to Stripe. Absent for a tenant whose plan has no usage prices.
    // Few fields of many tenants: ten thousand are held in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_billing: Option<Box<UsageBilling>>,
    /// The attempts to provision, and the last error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provisioning: Option<Provisioning>,
    /// When provisioning began to take longer than normal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_since: Option<Timestamp>,
    /// When the payment was first seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paid_at: Option<Timestamp>,
    /// When the tenant became Active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provisioned_at: Option<Timestamp>,
    /// The refund to a customer whose tenant could not be provisioned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refund: Option<Refund>,
    /// Since when the refund is owed again, because the bank returned one that had succeeded. Absent once another one
    /// has succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refund_owed_since: Option<Timestamp>,
    /// When the customer's card is charged again, if it was declined when an admin's suspension ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collect_after: Option<Timestamp>,
    /// The change that the brake holds until an admin confirms it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// When the data of a closed tenant is erased. Until then, the tenant can be reopened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erases_at: Option<Timestamp>,
    /// What was erased. Set once the erasure has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erasure: Option<Erasure>,
    /// Whether the object is deleted while the customer's data, Secrets and subscription are kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub customer_kept: bool,
    /// The export that was requested last.
    // Few tenants have one, and ten thousand are held in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<Box<Export>>,
    /// The move of the tenant's data to another embedding model or region. Absent once the old vectors are deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration: Option<Box<Migration>>,
    /// The number of the last transition that was sent to the transition log, as of the last write of this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shipped_seq: Option<i64>,
    /// The changes of phase, oldest first: the last 50, and all that were not sent to the transition log yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transitions: Vec<Transition>,
}

impl Serialize for TenantStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for TenantStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // An earlier version kept some facts in the conditions alone.
        Self::deserialize(deserializer).map(Self::with_facts_of_conditions)
    }
}

/// The payment link.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Checkout {
    /// The Checkout session, `cs_...`.
    pub session_id: String,
    /// Where the customer pays.
    pub url: String,
    /// When the link expires. The controller replaces it a few times; after that, the customer or an admin requests a
    /// new one.
    pub expires_at: Timestamp,
}

/// The plan's settings that apply to this tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanConfig {
    /// The plan's name.
    pub plan: Text,
    /// What the tenant may use.
    pub limits: Limits,
    /// How the limits are applied.
    #[serde(default)]
    pub quota: QuotaRules,
    /// The models that serve it.
    pub models: Models,
    /// The features of the plan.
    pub features: Vec<Text>,
    /// Whether the tenant may use the API with its keys. Empty if an earlier version wrote it, which let every tenant
    /// use its keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_access: Option<bool>,
    /// The question that pages and e-mails suggest to a new customer.
    #[serde(default = "super::plan::default_question")]
    pub sample_question: Text,
}

impl PlanConfig {
    /// What a plan of that name gives.
    pub fn of(name: &str, plan: &PlanSpec) -> Self {
        Self {
            plan: name.into(),
            limits: plan.limits.clone(),
            quota: plan.quota.clone(),
            models: plan.models.clone(),
            features: plan.features.clone(),
            api_access: Some(plan.has_api_access()),
            sample_question: plan.sample_question.clone(),
        }
    }

    /// Whether the tenant may use the API with its keys.
    pub fn has_api_access(&self) -> bool {
        self.api_access.unwrap_or(true)
    }

    /// The limit beyond which a unit is refused. None where it is counted only: a soft unit, or one without a limit.
    pub fn hard_limit(&self, unit: Unit) -> Option<i64> {
        self.limits.of(unit).filter(|_| !self.quota.is_soft(unit))
    }
}

/// A change to another plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanChange {
    /// The previous plan.
    #[schemars(length(max = 253))]
    pub from: Text,
    /// The plan that the tenant changes to.
    #[schemars(length(max = 253))]
    pub plan: Text,
    /// The state of the change. The condition `PlanInForce` says why.
    pub state: PlanChangeState,
    /// When the change entered this state.
    // A plain string of limited length, for the API server's message: what a time becomes as text has no limit there. A
    // rule of Tenant says that it is a time.
    #[schemars(with = "String", length(max = 40), regex(pattern = super::timestamp::ACCEPTED))]
    pub since: Timestamp,
    /// When a scheduled change takes effect, or when the time to confirm the payment of an unconfirmed change ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_at: Option<Timestamp>,
    /// The page at Stripe where the customer confirms the payment of an unconfirmed change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2000))]
    pub confirm_url: Option<String>,
    /// The value of the annotation `tenant-operator.dev/retry` when the change was declined. A new value tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_token: Option<String>,
}

/// The state of a change to another plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PlanChangeState {
    /// The change cannot begin. The condition `PlanInForce` names the reason, and the change begins once the reason is
    /// gone.
    Blocked,
    /// The controller is scheduling the change at Stripe for the end of the period.
    Preparing,
    /// The change takes effect at `effectiveAt`.
    Scheduled,
    /// The controller is changing the price at Stripe. The limits change afterwards.
    Running,
    /// The new plan is in force.
    Applied,
    /// The customer's bank requires a confirmation of the payment, at `confirmUrl`. The plan changes once the customer
    /// confirms.
    Unconfirmed,
    /// Stripe declined the change, for example because the card was declined. The previous plan stays in force.
    Declined,
}

/// An export of everything that belongs to a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Export {
    /// The value of `spec.exportRequest` that requested this export.
    pub request: Text,
    /// The state of the export. The condition `ExportReady` says why.
    pub state: ExportState,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// When its files are deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The folder of its files in the export storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Text>,
    /// The number of files.
    #[serde(default)]
    pub files: u64,
    /// Their size in bytes.
    #[serde(default)]
    pub bytes: u64,
}

/// The state of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ExportState {
    /// The files are being written.
    Running,
    /// The export is complete and can be downloaded.
    Ready,
    /// The export failed. A new value of `spec.exportRequest` tries again.
    Failed,
    /// The files were deleted.
    Expired,
}

/// The attempts to provision.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Provisioning {
    /// Attempts that failed.
    pub attempts: u32,
    /// When the first attempt began.
    pub started_at: Timestamp,
    /// When the next attempt begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_retry_at: Option<Timestamp>,
    /// When provisioning was put on hold, because a provider does not answer or an admin must fix something. No
    /// attempts are counted while it is on hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_since: Option<Timestamp>,
    /// The step that failed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_step: Option<String>,
    /// The reason, as one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The reason, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The value of the annotation `tenant-operator.dev/retry` that started this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_token: Option<String>,
}

/// A refund.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refund {
    /// The amount in the smallest unit of the currency; 0 if nothing had been paid, as in a trial.
    pub amount: i64,
    /// The currency, if something was refunded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// When the refund was made.
    pub at: Timestamp,
    /// Whether a person settles the refund outside of the operator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waived: bool,
}

/// The record of an erasure: what was counted at each provider before and after it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Erasure {
    /// When the erasure began. It cannot be undone.
    pub started_at: Timestamp,
    /// When the controller confirmed that everything is erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased_at: Option<Timestamp>,
    /// One entry for each kind of data.
    #[schemars(length(max = 16))]
    pub lines: Vec<ErasureLine>,
}

/// One kind of data that was erased.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErasureLine {
    /// The provider that stored it.
    pub provider: Text,
    /// The kind of data.
    pub what: Text,
    /// How many there were before the erasure.
    pub before: u64,
    /// How many were left after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}
