//! `Tenant`: one customer of the service, and what its spec may say.

// Each printcolumn repeats the names of its keys.
#![allow(clippy::duplicated_attributes)]

use std::fmt;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::Display;

use super::migration::{Data, EmbeddingSize};
use super::plan::DeletionPolicy;
use super::status::TenantStatus;
use super::{ERASE_ANNOTATION, Text, Timestamp};

/// The API server's message to a user who changes the plan while another change is running.
const PLAN_CHANGE_REFUSED: &str = "oldSelf.status.phase in ['Upgrading', 'Downgrading'] && has(oldSelf.status.planChange) ? \
     'spec.plan cannot be changed now: a change to plan ' + oldSelf.status.planChange.plan + ' is running since ' + \
     oldSelf.status.planChange.since + '. Wait until status.phase is Active' : \
     'spec.plan cannot be changed in phase ' + oldSelf.status.phase + '. Wait until status.phase is Active'";

/// Tenant is one customer of the service: who they are, which plan they bought, and how they pay.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "tenant-operator.dev",
    version = "v1alpha1",
    kind = "Tenant",
    namespaced,
    shortname = "tn",
    category = "tenant-operator",
    status = "TenantStatus",
    derive = "PartialEq",
    validation = ("!has(self.spec.login) || self.spec.login.secretName == self.metadata.name + '-login'", "spec.login.secretName must be the Tenant's name followed by -login"),
    validation = Rule::new("self.spec.plan == oldSelf.spec.plan || !has(oldSelf.status) || !has(oldSelf.status.phase) || oldSelf.status.phase in ['PendingPayment', 'Active', 'Suspended']").message(Message::Expression(PLAN_CHANGE_REFUSED.into())),
    validation = ("self.spec.desired == oldSelf.spec.desired || !has(oldSelf.status) || !has(oldSelf.status.erasure)", "spec.desired cannot be changed any more: the erasure of the tenant has begun. Create a new Tenant"),
    validation = ("!has(self.status) || !has(self.status.planChange) || timestamp(self.status.planChange.since).getFullYear() > 0", "status.planChange.since must be a time"),
    validation = ("size(self.metadata.name) <= 63", "metadata.name must have at most 63 characters: it becomes a label of the tenant's Secrets"),
    printcolumn(name = "Company", type_ = "string", json_path = ".spec.companyName"),
    printcolumn(name = "Plan", type_ = "string", json_path = ".spec.plan"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Pinecone Namespace", type_ = "string", json_path = ".status.namespace", priority = 1),
    printcolumn(name = "Region", type_ = "string", json_path = ".status.region", priority = 1),
    printcolumn(name = "Subscription", type_ = "string", json_path = ".status.subscription", priority = 1),
    printcolumn(
        name = "Used",
        type_ = "integer",
        json_path = ".status.usage.queries.used",
        description = "Queries used in the quota period",
        priority = 1
    ),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("!has(oldSelf.tenantId) || (has(self.tenantId) && self.tenantId == oldSelf.tenantId)", "tenantId cannot be changed once it is set: it is the tenant's identity at every provider"),
    validation = ("self.billing.mode == oldSelf.billing.mode", "billing.mode cannot be changed on an existing Tenant. Delete it and create it again")
)]
pub struct TenantSpec {
    /// The customer's name as it appears in e-mails and on pages.
    #[schemars(length(min = 1, max = 120))]
    #[x_kube(validation = ("self.trim() != ''", "companyName must not be blank"))]
    pub company_name: String,
    /// The e-mail address for the welcome and all notices, such as `ada@example.com`.
    #[schemars(length(min = 3, max = 254))]
    #[x_kube(validation = (r"self.matches('^[^@\\s<>,;]+@[^@\\s<>,;.]+(\\.[^@\\s<>,;.]+)+$')", "adminEmail must be one e-mail address, such as ada@example.com"))]
    pub admin_email: String,
    /// The name of the Plan. Change it to move the tenant to another plan; `status.planChange` shows the progress. It
    /// cannot be changed while the tenant is being provisioned, changes plans, is Failed, or is being deleted.
    #[serde(default = "default_plan")]
    #[schemars(length(min = 1, max = 253))]
    pub plan: String,
    /// The name of the Plan that is paid for and in force; `plan` may already name the next one. Set by the controller.
    /// Backups must keep it, so that a Tenant that is restored without its status keeps its plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub plan_in_force: Option<String>,
    /// How the customer pays.
    #[serde(default)]
    pub billing: Billing,
    /// The tenant's identity at every provider. Leave it empty: the controller sets it to the object's uid. Backups
    /// must keep it together with the annotation `tenant-operator.dev/identity-proof`, so that a restored Tenant finds
    /// its data, keys and customer. The controller does not accept an id that it did not issue to this namespace and
    /// name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub tenant_id: Option<String>,
    /// Where the tenant's data is stored. Set by the controller when the data moves to another embedding model or
    /// region. If it is absent, the data is in the tenant's first namespace, embedded with the model in
    /// `status.config`. Backups must keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// The login of a customer who signed up. Set by web.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
    /// The terms that the customer accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
    /// Active, Suspended or Deleted. A suspended tenant is not served and not charged; its data is kept. A deleted
    /// tenant is closed at once, and its data is erased after the retention of its plan. Until then, Active reopens it.
    #[serde(default, skip_serializing_if = "Desired::is_active")]
    pub desired: Desired,
    /// Who requested the present value of `desired`. Set by web for customers, and by `kubectl tenant` for admins. If
    /// this record is absent or is about another value, the request counts as an admin's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<Wish>,
    /// An admin's suspension. The customer cannot end it by closing and reopening the account, paying, or signing up
    /// again. `kubectl tenant suspend` sets it and `kubectl tenant resume` removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspension: Option<Wish>,
    /// The customer's settings for documents.
    #[serde(default, skip_serializing_if = "Settings::is_default")]
    pub settings: Settings,
    /// Increase this number to replace the API key. The same number always gives the same key.
    #[serde(default = "default_generation")]
    #[schemars(range(min = 1))]
    pub api_key_generation: u32,
    /// What happens when this object is deleted: Retain or Erase. Default: the Plan's value; without one, Retain for a
    /// customer who has paid or has data, and Erase for a signup that was never paid for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// The name of an export of everything that belongs to the tenant, such as a date. A new name starts a new export,
    /// which replaces the previous one; `status.export` shows its progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$"))]
    pub export_request: Option<String>,
}

/// The requested state of a tenant.
#[derive(Clone, Copy, Debug, Default, Display, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Desired {
    /// The tenant is served, as long as it is paid for.
    #[default]
    Active,
    /// The tenant is not served until this is Active again.
    Suspended,
    /// The tenant is closed, and its data is erased after the retention of its plan.
    Deleted,
}

impl Desired {
    // serde asks by reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_active(&self) -> bool {
        *self == Self::Active
    }
}

/// Who requested a state of a tenant, when, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Wish {
    /// The requested state.
    pub desired: Desired,
    /// Who requested it: Customer or Admin.
    pub by: WishedBy,
    /// The Kubernetes user, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub user: Option<Text>,
    /// The reason that the admin gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub reason: Option<Text>,
    /// When it was requested.
    pub at: Timestamp,
}

/// Who requested a state of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum WishedBy {
    /// The customer, on the pages or by the API.
    Customer,
    /// A user of Kubernetes.
    Admin,
}

impl Wish {
    /// A wish of the customer.
    pub fn of_customer(desired: Desired, at: Timestamp) -> Self {
        Self { desired, by: WishedBy::Customer, user: None, reason: None, at }
    }

    /// A wish of an admin.
    pub fn of_admin(desired: Desired, user: Option<&str>, reason: Option<&str>, at: Timestamp) -> Self {
        let text = |text: &str, longest| text.chars().take(longest).collect::<String>().as_str().into();
        let (user, reason) = (user.map(|user| text(user, 253)), reason.map(|reason| text(reason, 500)));
        Self { desired, by: WishedBy::Admin, user, reason, at }
    }

    /// The record for a merge patch, which replaces every field of an earlier one.
    pub fn patch(&self) -> serde_json::Value {
        let Self { desired, by, user, reason, at } = self;
        serde_json::json!({"desired": desired, "by": by, "user": user, "reason": reason, "at": at})
    }
}

impl fmt::Display for Wish {
    /// As part of a sentence: `the customer`, or `admin alice@example.com (abuse)`.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match (self.by, &self.user) {
            (WishedBy::Customer, _) => f.write_str("the customer")?,
            (WishedBy::Admin, Some(user)) => write!(f, "admin {user}")?,
            (WishedBy::Admin, None) => f.write_str("an admin")?,
        }
        self.reason.as_ref().map_or(Ok(()), |reason| write!(f, " ({reason})"))
    }
}

impl TenantSpec {
    /// Whether an admin suspended the tenant. The customer cannot undo this.
    pub fn is_suspended(&self) -> bool {
        self.suspension.is_some() || self.desired == Desired::Suspended
    }

    /// Whether the tenant is to be served: it is neither closed nor suspended by an admin.
    pub fn is_wanted(&self) -> bool {
        self.desired == Desired::Active && !self.is_suspended()
    }

    /// Who asked for the present value of `desired`, where that is recorded.
    pub fn wisher(&self) -> Option<&Wish> {
        self.wish.as_ref().filter(|wish| wish.desired == self.desired)
    }
}

/// The customer's settings for documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// How documents are cut into passages. Leave it out for the default. A change applies to documents that are
    /// uploaded afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunking: Option<Chunking>,
    /// Small or Large: the plan's embedding model that finds passages. After a change, the controller embeds all
    /// documents again, and questions are answered from the old vectors until it is done; `status.migration` shows the
    /// progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding: Option<EmbeddingSize>,
}

impl Settings {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How documents are cut into passages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.overlapCharacters * 2 <= self.maxCharacters", "overlapCharacters must be at most half of maxCharacters"))]
pub struct Chunking {
    /// The length of the longest passage, in characters.
    #[schemars(range(min = 200, max = 4000))]
    pub max_characters: u32,
    /// How many characters a passage shares with the next one.
    #[schemars(range(min = 0, max = 1000))]
    pub overlap_characters: u32,
}

impl Default for Chunking {
    /// Some 300 tokens, so that four passages leave a model room to answer, and enough in common that a sentence at the
    /// border is found by either.
    fn default() -> Self {
        Self { max_characters: 1200, overlap_characters: 150 }
    }
}

/// How the customer pays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Billing {
    /// Stripe or Manual. It cannot be changed later.
    pub mode: BillingMode,
    /// With mode Manual: set to true when the contract is signed, to start provisioning.
    pub approved: bool,
    /// The customer's ids at Stripe. Set by the controller and by web.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stripe: Option<StripeRefs>,
}

/// Who bills the customer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum BillingMode {
    /// The customer pays through Stripe Checkout at `status.checkout.url`.
    #[default]
    Stripe,
    /// You bill the customer yourself; `approved: true` starts provisioning.
    Manual,
}

impl Billing {
    /// The number of the present Checkout session.
    pub fn checkout_attempt(&self) -> u32 {
        self.stripe.as_ref().and_then(|refs| refs.checkout_attempt).unwrap_or(1)
    }
}

/// The customer's ids at Stripe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StripeRefs {
    /// The Stripe customer, `cus_...`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_id: Option<String>,
    /// The Stripe subscription, `sub_...`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_id: Option<String>,
    /// The number of the current Checkout session. It increases when a session expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub checkout_attempt: Option<u32>,
}

/// The login of a customer who signed up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Login {
    /// The Secret in the Tenant's namespace that holds the password hash (argon2id) under the key `password-hash`. Its
    /// name must be the Tenant's name followed by `-login`.
    pub secret_name: String,
}

/// The terms that the customer accepted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Terms {
    /// When the customer accepted them.
    pub accepted_at: Timestamp,
    /// The version of the terms.
    #[schemars(length(max = 64))]
    pub version: String,
}

impl Tenant {
    /// Whether its deletion is meant to erase the customer.
    pub fn is_to_be_erased(&self) -> bool {
        let meant = self.metadata.annotations.as_ref().and_then(|a| a.get(ERASE_ANNOTATION));
        meant.is_some_and(|id| id == self.tenant_id())
    }

    /// The number of the Checkout session that follows the present one.
    pub fn next_checkout(&self) -> u32 {
        self.spec.billing.checkout_attempt().saturating_add(1)
    }

    /// The name of the plan that is in force: the one that the tenant was set up with, or changed to last.
    pub fn plan_in_force(&self) -> &str {
        plan_in_force(&self.spec, self.status.as_ref())
    }
}

/// The name of the plan that is in force.
pub fn plan_in_force<'a>(spec: &'a TenantSpec, status: Option<&'a TenantStatus>) -> &'a str {
    let recorded = spec.plan_in_force.as_ref().unwrap_or(&spec.plan);
    status.and_then(|s| s.config.as_ref()).map_or(recorded, |config| &config.plan)
}

fn default_plan() -> String {
    "starter".into()
}
fn default_generation() -> u32 {
    1
}
