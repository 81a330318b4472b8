//! `Plan`: what is sold. Cluster-scoped, used by tenants of all namespaces.

// Each printcolumn repeats the names of its keys.
#![allow(clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Text;
use super::migration::EmbeddingSize;
pub use super::money::Money;
use super::quota::{LARGEST, QuotaRules, Unit};
use super::usage_prices::UsagePrice;

/// The feature of plans whose tenants may use the API with their keys.
pub const API_ACCESS: &str = "api_access";

/// Plan is what customers buy: price, limits, features, models, and the sample documents of a new tenant. A deleted
/// Plan stays until no tenant uses it any more.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "tenant-operator.dev",
    version = "v1alpha1",
    kind = "Plan",
    category = "tenant-operator",
    derive = "PartialEq",
    printcolumn(
        name = "Price",
        type_ = "integer",
        json_path = ".spec.monthlyPrice.amount",
        description = "Monthly price in the smallest unit of the currency"
    ),
    printcolumn(name = "Currency", type_ = "string", json_path = ".spec.monthlyPrice.currency"),
    printcolumn(name = "Trial", type_ = "integer", json_path = ".spec.trialDays", description = "Days of trial"),
    printcolumn(name = "Documents", type_ = "integer", json_path = ".spec.limits.documents"),
    printcolumn(name = "Queries", type_ = "integer", json_path = ".spec.limits.queriesPerMonth"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.usagePrices) || size(self.usagePrices) == 0 || has(self.stripePriceId)", "usagePrices needs stripePriceId: the metered prices become part of the subscription to it"))]
#[x_kube(validation = ("!has(self.usagePrices) || !has(self.stripePriceId) || self.usagePrices.all(p, p.stripePriceId != self.stripePriceId)", "usagePrices must not repeat stripePriceId: create metered prices of their own at Stripe"))]
#[x_kube(validation = ("self.sampleData == 'None' || size(self.sampleDocuments) > 0", "sampleDocuments must not be empty unless sampleData is None"))]
pub struct PlanSpec {
    /// The name that customers see; the object's name by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80))]
    pub display_name: Option<String>,
    /// The Stripe price of a subscription to this plan, such as `price_1PgafmB7WZ01zgkW6dKueIc5`. Leave it out for a
    /// plan with manual billing only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self.startsWith('price_')", "stripePriceId must be a Stripe price id, which starts with price_"))]
    #[schemars(length(max = 120))]
    pub stripe_price_id: Option<String>,
    /// What is charged for use, on the same invoice. The controller adds these prices to the subscriptions of the
    /// plan's tenants, and sends what they use to Stripe's meters every hour. Tenants with billing mode Manual are not
    /// charged for use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["unit".into()]), validation = ("self.all(x, self.exists_one(y, x.stripePriceId == y.stripePriceId))", "each entry of usagePrices must have a stripePriceId of its own: create a price at Stripe for each unit"))]
    pub usage_prices: Vec<UsagePrice>,
    /// The monthly price that pages show. The amount that Stripe charges is that of `stripePriceId`.
    pub monthly_price: Money,
    /// Days of trial before the first charge; 0 for no trial.
    #[serde(default = "default_trial_days")]
    #[schemars(range(min = 0, max = 730))]
    pub trial_days: u32,
    /// What a tenant may use.
    #[serde(default)]
    pub limits: Limits,
    /// How the limits are applied: which units are counted without being refused, and what happens while usage cannot
    /// be counted.
    #[serde(default)]
    pub quota: QuotaRules,
    /// Which tenants get edits of `limits`, `quota`, `features` and `sampleQuestion`: all tenants of the plan at once,
    /// or new tenants only. An existing tenant keeps its models.
    #[serde(default)]
    pub limit_changes: LimitChanges,
    /// When a tenant that upgrades to this plan gets its limits: once the price difference is paid, or at once.
    #[serde(default)]
    pub upgrades: Upgrades,
    /// When a tenant that downgrades to this plan gets its limits: at the end of the paid period, or at once. A
    /// downgrade at once is refused while the tenant has more documents than this plan allows.
    #[serde(default)]
    pub downgrades: Downgrades,
    /// What happens when Stripe bills one of this plan's tenants at another price, such as after a change in the
    /// customer portal. Alert: the tenant keeps its plan, and a condition and an alert show the difference. Follow: the
    /// tenant moves to the plan whose price is billed.
    #[serde(default)]
    pub price_changes: PriceChanges,
    /// How many days the data of a closed tenant is kept before it is erased.
    #[serde(default = "default_retention_days")]
    #[schemars(range(min = 30, max = 90))]
    pub retention_days: u32,
    /// What happens when a Tenant object of this plan is deleted, unless its `spec.deletionPolicy` is set: Retain or
    /// Erase. Default: Retain for a customer who has paid or has data, and Erase for a signup that was never paid for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// The features that the pricing page lists for this plan, such as `semantic_search`. `api_access` lets the plan's
    /// tenants use the API with their keys; without it, web refuses their keys with 403 and code `no_api_access`, and
    /// they use the pages. Other features are only shown.
    #[serde(default = "default_features")]
    #[schemars(length(max = 64))]
    pub features: Vec<Text>,
    /// The models that serve this plan's tenants.
    #[serde(default)]
    pub models: Models,
    /// The region where the tenants' data is stored. It cannot be changed. Create another Plan for another region: the
    /// data of a tenant that changes to that plan moves to its region.
    #[serde(default = "default_region")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = ("self == oldSelf", "region cannot be changed: make another Plan for another region"))]
    pub region: Text,
    /// Whether a tenant must have its sample documents before it is Active.
    #[serde(default)]
    pub sample_data: SampleData,
    /// The documents that each new tenant starts with.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub sample_documents: Vec<SampleDocument>,
    /// The question that pages and e-mails suggest to a new customer. The sample documents should answer it.
    #[serde(default = "default_question")]
    #[schemars(length(min = 1, max = 200))]
    pub sample_question: Text,
}

impl PlanSpec {
    /// Whether the plan's tenants may use the API with their keys.
    pub fn has_api_access(&self) -> bool {
        self.features.iter().any(|feature| **feature == *API_ACCESS)
    }
}

impl Plan {
    /// What customers read as its name.
    pub fn title(&self) -> String {
        self.spec.display_name.clone().unwrap_or_else(|| self.name_any())
    }
}

/// What a tenant may use.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Documents that a tenant may store.
    #[schemars(range(min = 0))]
    pub documents: i64,
    /// Queries that a tenant may make in a quota period.
    #[schemars(range(min = 0))]
    pub queries_per_month: i64,
    /// Bytes of documents that a tenant may store.
    #[schemars(range(min = 0))]
    pub bytes: i64,
    /// Bytes of text that may be embedded for a tenant in a quota period. Each upload counts, even if the
    /// document is deleted later.
    #[schemars(range(min = 0))]
    pub embedded_bytes_per_month: i64,
    /// Tokens that the chat model may read for a tenant in a quota period. Without it, they are counted and
    /// not limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = LARGEST))]
    pub prompt_tokens_per_month: Option<i64>,
    /// Tokens that the chat model may write for a tenant in a quota period. Without it, they are counted and
    /// not limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = LARGEST))]
    pub completion_tokens_per_month: Option<i64>,
    /// Tokens that the embedding model may read for a tenant in a quota period, of documents and of
    /// questions. Without it, they are counted and not limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = LARGEST))]
    pub embedding_tokens_per_month: Option<i64>,
}

impl Limits {
    /// The limit of a unit. None where it is counted only.
    pub const fn of(&self, unit: Unit) -> Option<i64> {
        match unit {
            Unit::Queries => Some(self.queries_per_month),
            Unit::PromptTokens => self.prompt_tokens_per_month,
            Unit::CompletionTokens => self.completion_tokens_per_month,
            Unit::EmbeddingTokens => self.embedding_tokens_per_month,
            Unit::EmbeddedBytes => Some(self.embedded_bytes_per_month),
            Unit::Documents => Some(self.documents),
            Unit::Bytes => Some(self.bytes),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            documents: 1000,
            queries_per_month: 10_000,
            bytes: 1 << 30,
            embedded_bytes_per_month: 5 << 30,
            prompt_tokens_per_month: None,
            completion_tokens_per_month: None,
            embedding_tokens_per_month: None,
        }
    }
}

/// Which tenants get edited limits and features of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum LimitChanges {
    /// All tenants of the plan, at once.
    #[default]
    Immediately,
    /// Only tenants that are provisioned after the edit.
    NewTenants,
}

/// When a tenant that upgrades to a plan gets its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Upgrades {
    /// Once the price difference for the rest of the period is paid. If the card is declined, nothing changes.
    #[default]
    AfterPayment,
    /// At once. The difference is on the next invoice.
    Immediately,
}

/// When a tenant that downgrades to a plan gets its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Downgrades {
    /// At the end of the paid period. Nothing is refunded.
    #[default]
    AtPeriodEnd,
    /// At once. The difference is credited to the next invoice.
    Immediately,
}

/// What happens when Stripe bills another price than the plan's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PriceChanges {
    /// The tenant keeps its plan. The condition `PriceAsPlanned` and an alert show the difference.
    #[default]
    Alert,
    /// The tenant moves to the plan that has the billed price. If no Plan has it, the tenant keeps its plan.
    Follow,
}

/// The models that serve a plan's tenants, by the names of an OpenAI-compatible API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Models {
    /// The embedding model. Its dimension must match the index.
    pub embedding: Text,
    /// A second embedding model, which a tenant chooses with `spec.settings.embedding: Large`. Its dimension must match
    /// the index as well. Leave it out for a plan without this choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub embedding_large: Option<Text>,
    /// The chat model that writes answers.
    pub chat: Text,
}

impl Models {
    /// All embedding models.
    pub fn embeddings(&self) -> impl Iterator<Item = &Text> {
        std::iter::once(&self.embedding).chain(self.embedding_large.as_ref())
    }

    /// These, and what the Plan offers beside them by now.
    #[must_use]
    pub fn with_offer(&self, plan: Option<&Self>) -> Self {
        let offered = || plan?.embedding_large.clone();
        Self { embedding_large: self.embedding_large.clone().or_else(offered), ..self.clone() }
    }

    /// The embedding model of this size. The small one if the Plan has no large one.
    pub fn embedding_of(&self, size: EmbeddingSize) -> &Text {
        self.embedding_large.as_ref().filter(|_| size == EmbeddingSize::Large).unwrap_or(&self.embedding)
    }
}

impl Default for Models {
    fn default() -> Self {
        Self { embedding: "text-embedding-3-small".into(), embedding_large: None, chat: "gpt-4o-mini".into() }
    }
}

/// Whether a tenant must have its sample documents before it is Active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SampleData {
    /// The tenant is not Active until a query finds them.
    #[default]
    Required,
    /// The tenant becomes Active without them if they cannot be loaded. The condition `SampleDataReady` says why.
    BestEffort,
    /// No sample documents.
    None,
}

/// A document that each new tenant starts with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SampleDocument {
    /// The vector's id in the tenant's namespace.
    #[schemars(length(min = 1, max = 512))]
    pub id: String,
    /// The text.
    #[schemars(length(min = 1, max = 8000))]
    pub text: String,
    /// Metadata of the vector.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// What happens when the Tenant object is deleted. Retain: nothing is deleted at Pinecone and Stripe, and you get an
/// alert. Erase: the tenant's namespaces, Secrets and subscription are deleted as well. A Tenant's value replaces its
/// Plan's. Default: Retain for a customer who has paid or has data, Erase for a signup that was never paid for. With
/// Retain, the annotation `tenant-operator.dev/erase` with the tenant's id erases the customer all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Nothing is deleted at Pinecone and Stripe, and you get an alert. The annotation `tenant-operator.dev/erase` with
    /// the tenant's id erases the customer all the same.
    Retain,
    /// Namespace, Secrets and subscription are deleted with the object.
    Erase,
}

pub(super) fn default_question() -> Text {
    super::SAMPLE_QUESTION.into()
}
fn default_trial_days() -> u32 {
    14
}
fn default_retention_days() -> u32 {
    30
}
fn default_features() -> Vec<Text> {
    vec!["basic_rag".into(), "semantic_search".into(), API_ACCESS.into()]
}
fn default_region() -> Text {
    "us-east-1".into()
}
