//! The status of a `Tenant`: what was last observed of it.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::facts::{Awaiting, DisputeState, Held, SuspendedFor};
use super::migration::Migration;
use super::phase::{Phase, Transition};
use super::plan::{Limits, Models, PlanSpec};
use super::quota::{QuotaRules, Unit};
use super::usage::{CountedUsage, Quota};
use super::{Condition, Text, Timestamp};

/// The observed state. If it is lost, the controller rebuilds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
// Reading and writing are below.
#[serde(rename_all = "camelCase", default, remote = "Self")]
pub struct TenantStatus {
    /// The tenant's phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// What is going on, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Text>,
    /// The generation of the spec that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// One for each step. Ready summarizes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The payment link, while it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkout: Option<Checkout>,
    /// What the tenant waits for before it is set up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub awaiting: Option<Awaiting>,
    /// Whether the customer has confirmed the e-mail address. Not there where no confirmation is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_confirmed: Option<bool>,
    /// The status of the subscription at Stripe, such as `trialing`; `manual` with billing mode Manual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription: Option<Text>,
    /// When the trial ends and the first charge is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial_ends_at: Option<Timestamp>,
    /// Since when a payment is late. The grace period begins then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment_late_since: Option<Timestamp>,
    /// Why the tenant is suspended, and so what brings it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended_for: Option<SuspendedFor>,
    /// Since when nothing is charged for a tenant that is suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collection_paused_since: Option<Timestamp>,
    /// When the renewal of the subscription of a closed tenant was stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal_stopped_at: Option<Timestamp>,
    /// The dispute of a payment, while there is one that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dispute: Option<DisputeState>,
    /// The price that Stripe bills instead of that of the plan in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_price: Option<Text>,
    /// Since when Stripe bills a second subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surplus_since: Option<Timestamp>,
    /// Since when Stripe does not answer for the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billing_failing_since: Option<Timestamp>,
    /// The tenant's Pinecone namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The region where the tenant's data is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Text>,
    /// Since when the namespace no longer exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_missing_since: Option<Timestamp>,
    /// Since when another namespace holds documents of the tenant too, or instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_unclear_since: Option<Timestamp>,
    /// The Secret in the Tenant's namespace that holds the API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_secret: Option<String>,
    /// When the API key was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_created_at: Option<Timestamp>,
    /// The generation of the API key that is in the Secret. The one before stays good for a day after it was replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub api_key_generation: Option<u32>,
    /// The generation that is noted at Stripe, from where `tenant-operator recover` reads it. Not there while it is the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub key_generation_at_stripe: Option<u32>,
    /// The plan's settings that apply to this tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<PlanConfig>,
    /// The e-mail address that is followed everywhere: at Stripe, at log-in, in e-mails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_email: Option<String>,
    /// The last change to another plan, or one that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_change: Option<PlanChange>,
    /// The current quota period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// What the ledger counted, as of `observedAt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<CountedUsage>,
    /// The attempts to provision, and the last error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provisioning: Option<Provisioning>,
    /// Since when provisioning takes longer than normal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_since: Option<Timestamp>,
    /// When the payment was first seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paid_at: Option<Timestamp>,
    /// When the tenant became Active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provisioned_at: Option<Timestamp>,
    /// The refund for a tenant that could not be served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refund: Option<Refund>,
    /// When the customer's card is charged again, after it was declined at the end of a suspension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collect_after: Option<Timestamp>,
    /// The change that the brake holds until an admin confirms it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// When the data of a tenant that leaves is erased. Until then it can be taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erases_at: Option<Timestamp>,
    /// What was erased, once that has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erasure: Option<Erasure>,
    /// Whether the object goes and its customer is kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub customer_kept: bool,
    /// The export that was asked for last.
    // Few tenants have one, and ten thousand are held in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<Box<Export>>,
    /// The move of the tenant's data to another embedding model or region, until the old vectors are deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration: Option<Box<Migration>>,
    /// The number of the last transition that was shipped, as it was known at the last write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shipped_seq: Option<i64>,
    /// Every change of phase, oldest first. The last 50 are kept, and all that are not shipped yet.
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
    /// When the link expires. A new one follows for a while, and later when it is asked for.
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
    /// The features that are switched on.
    pub features: Vec<Text>,
    /// What a customer is invited to ask first.
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
            sample_question: plan.sample_question.clone(),
        }
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
    /// The plan before.
    #[schemars(length(max = 253))]
    pub from: Text,
    /// The plan that is changed to.
    #[schemars(length(max = 253))]
    pub plan: Text,
    /// Where the change stands. The condition `PlanInForce` says why.
    pub state: PlanChangeState,
    /// Since when it is in this state.
    // A plain string of limited length, for the API server's message: what a time becomes as text has no limit there.
    #[schemars(with = "String", length(max = 40))]
    pub since: Timestamp,
    /// When a scheduled change takes effect, or until when the payment of an unconfirmed one can be confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_at: Option<Timestamp>,
    /// Stripe's page on which the customer confirms the payment of an unconfirmed change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2000))]
    pub confirm_url: Option<String>,
    /// The value of the annotation `tenant-operator.dev/retry` when the change was declined. A new value tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_token: Option<String>,
}

/// Where a change to another plan stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PlanChangeState {
    /// Something prevents it, which the condition `PlanInForce` names. It goes on by itself once that is gone.
    Blocked,
    /// Stripe is told of a change that is to take effect later.
    Preparing,
    /// It takes effect at `effectiveAt`.
    Scheduled,
    /// Stripe is told, and the limits follow.
    Running,
    /// The plan is in force.
    Applied,
    /// The customer's bank asks them to confirm the payment, at `confirmUrl`. The plan changes once they have.
    Unconfirmed,
    /// Stripe declined it, as for a card that was declined. The plan before stays in force.
    Declined,
}

/// An export of everything that belongs to a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Export {
    /// The value of `spec.exportRequest` that it answers.
    pub request: Text,
    /// How far it is. The condition `ExportReady` says why.
    pub state: ExportState,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// When its files are deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The folder of its files in the export storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Text>,
    /// How many files are written.
    #[serde(default)]
    pub files: u64,
    /// Their size in bytes.
    #[serde(default)]
    pub bytes: u64,
}

/// How far an export is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ExportState {
    /// Its files are being written.
    Running,
    /// It is complete, and can be downloaded.
    Ready,
    /// It failed. A new `spec.exportRequest` tries again.
    Failed,
    /// Its files were deleted.
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
    /// Since when provisioning is on hold, because a provider does not answer or an admin must fix
    /// something. On hold, no attempts are counted.
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
    /// The amount in the smallest unit of the currency; 0 when nothing had been paid, as in a trial.
    pub amount: i64,
    /// The currency, when something was refunded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// When the refund was made.
    pub at: Timestamp,
}

/// What was erased: counted at each provider before and after.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Erasure {
    /// When it began. From then on there is no way back.
    pub started_at: Timestamp,
    /// When everything was seen to be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased_at: Option<Timestamp>,
    /// What there was, and what is left of it.
    #[schemars(length(max = 16))]
    pub lines: Vec<ErasureLine>,
}

/// One kind of thing that was erased.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErasureLine {
    /// Who held it.
    pub provider: Text,
    /// What it is.
    pub what: Text,
    /// How many there were.
    pub before: u64,
    /// How many were seen afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}
