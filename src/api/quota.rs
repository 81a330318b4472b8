//! The units that are counted for a tenant, and the rules of a Plan for counting them.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumCount, EnumIter, EnumString, IntoStaticStr};

/// Something that is counted. A flow starts at zero in each period; a level is what is stored at the moment, whatever
/// the period.
// The CRDs write `promptTokens`; the ledger's API and database write `prompt_tokens`.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Display,
    EnumCount,
    EnumIter,
    EnumString,
    IntoStaticStr,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "camelCase")]
#[strum(serialize_all = "snake_case")]
pub enum Unit {
    /// Questions that were answered.
    Queries,
    /// Tokens that a chat model read.
    PromptTokens,
    /// Tokens that a chat model wrote.
    CompletionTokens,
    /// Tokens that an embedding model read.
    EmbeddingTokens,
    /// Bytes of text that were embedded.
    EmbeddedBytes,
    /// Documents that are stored; a level.
    Documents,
    /// Bytes of the files of documents that are stored; a level.
    Bytes,
}

impl Unit {
    /// Whether it is what is stored at the moment, and not what was used in a period.
    pub const fn is_level(self) -> bool {
        matches!(self, Self::Documents | Self::Bytes)
    }

    /// Its name in Plans, which is what admins read: `promptTokens`.
    pub const fn in_plans(self) -> &'static str {
        match self {
            Self::Queries => "queries",
            Self::PromptTokens => "promptTokens",
            Self::CompletionTokens => "completionTokens",
            Self::EmbeddingTokens => "embeddingTokens",
            Self::EmbeddedBytes => "embeddedBytes",
            Self::Documents => "documents",
            Self::Bytes => "bytes",
        }
    }

    /// What customers call it. Sizes are an amount "of" it.
    pub const fn for_customers(self) -> &'static str {
        match self {
            Self::Queries => "questions",
            Self::PromptTokens => "tokens that the chat model reads",
            Self::CompletionTokens => "tokens that the chat model writes",
            Self::EmbeddingTokens => "tokens that the embedding model reads",
            Self::EmbeddedBytes => "text read from documents",
            Self::Documents | Self::Bytes => "stored documents",
        }
    }

    /// Its name, as the ledger's API and database write it.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// The largest amount of one unit: the largest whole number that Stripe's meters take (15 digits). No sum of accounts
/// overflows with it.
pub const LARGEST: i64 = 999_999_999_999_999;

/// How a plan's limits are applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaRules {
    /// What happens to a question while usage cannot be counted because the ledger does not answer. Serve: the question
    /// is answered, and its usage is counted later, even beyond a limit. Refuse: the question is refused with status
    /// 503 until the ledger answers again.
    #[serde(default)]
    pub when_unavailable: WhenUnavailable,
    /// The units that are counted but never refused, even where `limits` names a limit for them. All other units that
    /// have a limit are refused beyond it. Each unit may be listed once.
    #[serde(default)]
    #[schemars(length(max = 7))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub soft: Vec<Unit>,
    /// Whether customers get an e-mail when they have used 80 and 100 percent of a limit, once each in a period. Email:
    /// they do. None: they do not.
    #[serde(default)]
    pub notify: UsageNotices,
}

impl QuotaRules {
    /// Whether a unit is counted but never refused.
    pub fn is_soft(&self, unit: Unit) -> bool {
        self.soft.contains(&unit)
    }
}

/// What happens to a question while usage cannot be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum WhenUnavailable {
    /// The question is answered, and its usage is counted later.
    #[default]
    Serve,
    /// The question is refused with status 503 until usage can be counted.
    Refuse,
}

/// Whether the controller e-mails customers who approach a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum UsageNotices {
    /// By e-mail, at 80 and 100 percent of a limit.
    #[default]
    Email,
    /// Not at all.
    None,
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use strum::IntoEnumIterator;

    use super::*;
    use crate::api::{PlanSpec, TenantStatus};

    #[test]
    fn rules_are_written_with_the_names_of_the_status() {
        let rules = QuotaRules {
            when_unavailable: WhenUnavailable::Refuse,
            soft: Unit::iter().collect(),
            notify: UsageNotices::None,
        };
        let written = serde_json::to_value(&rules).expect("JSON");
        let units =
            ["queries", "promptTokens", "completionTokens", "embeddingTokens", "embeddedBytes", "documents", "bytes"];
        assert_eq!(written, json!({"whenUnavailable": "Refuse", "soft": units, "notify": "None"}));
        assert!(Unit::iter().map(Unit::in_plans).eq(units));
        assert_eq!(serde_json::from_value::<QuotaRules>(written).expect("rules"), rules);
        assert!(rules.is_soft(Unit::Bytes) && !QuotaRules::default().is_soft(Unit::Bytes));
    }

    #[test]
    fn rules_that_are_left_out_serve_and_refuse_beyond_each_limit() {
        let rules: QuotaRules = serde_json::from_str("{}").expect("rules");
        assert_eq!(
            rules,
            QuotaRules { when_unavailable: WhenUnavailable::Serve, soft: vec![], notify: UsageNotices::Email }
        );
    }

    #[test]
    fn a_plan_and_a_status_of_revision_8_are_read_with_the_defaults() {
        let limits = json!({"documents": 7, "queriesPerMonth": 8, "bytes": 9, "embeddedBytesPerMonth": 10});
        let status = json!({
            "phase": "Active",
            "config": {
                "plan": "starter", "limits": limits, "models": {"embedding": "e", "chat": "c"}, "features": ["basic_rag"],
                "sampleQuestion": "What is RAG?",
            },
        });
        let status: TenantStatus = serde_json::from_value(status).expect("a status");
        let config = status.config.expect("a config");
        let plan = json!({"monthlyPrice": {"amount": 1}, "limits": limits, "models": {"embedding": "e", "chat": "c"}});
        let plan: PlanSpec = serde_json::from_value(plan).expect("a plan");
        assert_eq!((&config.limits, &config.quota), (&plan.limits, &plan.quota));
        assert_eq!((plan.quota, status.usage), (QuotaRules::default(), None));
        let limits = Unit::iter().map(|unit| config.hard_limit(unit));
        assert_eq!(limits.collect::<Vec<_>>(), [Some(8), None, None, None, Some(10), Some(7), Some(9)]);
    }
}
