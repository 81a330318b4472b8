//! What a tenant may use of its plan in a period, and what it uses: as an annotation keeps it, and as the ledger
//! counted it.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::quota::Unit;
use super::{TAKEN_OVER_ANNOTATION, Tenant, Text, Timestamp, USAGE_ANNOTATION};

/// What a tenant uses of its plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// When the period began, in Unix seconds.
    pub period: i64,
    /// Queries of the period.
    pub queries: i64,
    /// Queries of all periods before it.
    #[serde(skip_serializing_if = "is_zero")]
    pub earlier_queries: i64,
    /// Documents that are stored.
    pub documents: i64,
    /// Their bytes.
    pub bytes: i64,
    /// Bytes of text that were embedded in the period.
    #[serde(skip_serializing_if = "is_zero")]
    pub embedded: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

impl Usage {
    /// Reads the annotation. An unreadable one counts as no usage.
    pub fn of(tenant: &Tenant) -> Self {
        annotated(tenant, USAGE_ANNOTATION)
    }

    /// What the ledger counted, as the status shows it. Before the controller shows it for the first time, what
    /// versions before the ledger counted.
    pub fn shown(tenant: &Tenant) -> Self {
        let Some(counted) = tenant.status.as_ref().and_then(|status| status.usage) else { return Self::of(tenant) };
        Self {
            period: counted.period_start.as_second(),
            queries: counted.queries.used,
            documents: counted.documents.used,
            bytes: counted.bytes.used,
            embedded: counted.embedded_bytes.used,
            ..Self::default()
        }
    }
}

/// What an annotation holds. Nothing if it is missing or unreadable.
fn annotated<T: DeserializeOwned + Default>(tenant: &Tenant, annotation: &str) -> T {
    let text = tenant.metadata.annotations.as_ref().and_then(|annotations| annotations.get(annotation));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The part of that annotation that the ledger has counted, as an annotation beside it. Versions before the ledger
/// write the first one; web writes the second one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct TakenOver {
    /// What the ledger has.
    #[serde(flatten)]
    pub usage: Usage,
    /// How often web took something over.
    pub times: u32,
    /// Names what web sends to the ledger this time, but for the first time. The name is chosen when the mark is written,
    /// so an object that is restored from a backup in between has it, and no later one has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<u64>,
    /// What the ledger had before. Absent once web has sent the difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Usage>,
}

impl TakenOver {
    /// Reads the annotation.
    pub fn of(tenant: &Tenant) -> Self {
        annotated(tenant, TAKEN_OVER_ANNOTATION)
    }

    /// The mark of an object that takes the place of one that is lost, and knows nothing of what that one counted. The
    /// ledger has it. What is counted from now on is no first take-over, whose name the lost object has used.
    pub const fn by_another_object() -> Self {
        let none = Usage { period: 0, queries: 0, earlier_queries: 0, documents: 0, bytes: 0, embedded: 0 };
        Self { usage: none, times: 1, nonce: None, from: None }
    }

    /// The name of what web sends to the ledger. An object that is restored from a backup without a mark was taken over
    /// before, so the first time has the same name for every object of a tenant.
    pub fn name(&self, kind: &str, tenant_id: &str, uid: &str) -> String {
        match (self.times, self.nonce) {
            (1, _) => format!("{kind}-{tenant_id}-1"),
            (_, Some(nonce)) => format!("{kind}-{tenant_id}-{nonce:016x}"),
            // A mark that an earlier version wrote.
            (times, None) => format!("{kind}-{tenant_id}-{uid}-{times}"),
        }
    }

    /// Whether the ledger has all of it. Queries that a version before the ledger gives back are no news to it.
    pub fn covers(&self, usage: &Usage) -> bool {
        self.from.is_none() && self.with(usage) == self.usage
    }

    /// What the ledger is to have. It never takes back what was used in a period.
    pub fn with(&self, usage: &Usage) -> Usage {
        let known = if usage.period == self.usage.period { self.usage } else { Usage::default() };
        Usage {
            queries: usage.queries.max(known.queries),
            embedded: usage.embedded.max(known.embedded),
            earlier_queries: 0,
            ..*usage
        }
    }

    /// Queries of the period that the ledger has, and that were given back since.
    pub fn given_back(&self, usage: &Usage, period: i64) -> i64 {
        if usage.period == period && self.usage.period == period {
            (self.usage.queries - usage.queries).max(0)
        } else {
            0
        }
    }
}

/// A quota period.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quota {
    /// When the period began.
    pub period_start: Timestamp,
    /// When the period ends and counting starts again at zero.
    pub period_end: Timestamp,
    /// Queries that the tenant may make in the period.
    pub queries_limit: i64,
    /// Documents that the tenant may store.
    pub documents_limit: i64,
}

impl Quota {
    /// The length of a period in seconds: 30 days.
    pub const PERIOD: i64 = 30 * 24 * 3600;

    /// Begin and end of the period that a moment is in. Periods follow one another without a gap from the first one on.
    pub fn period_at(&self, now: Timestamp) -> (Timestamp, Timestamp) {
        let periods = now.since(self.period_start).div_euclid(Self::PERIOD).max(0);
        let start = self.period_start.plus(periods * Self::PERIOD);
        (start, start.plus(Self::PERIOD))
    }
}

/// What the ledger counted, as of `observedAt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CountedUsage {
    /// When the controller read it from the ledger. Later usage is not included.
    pub observed_at: Timestamp,
    /// When the period began that the usage belongs to.
    pub period_start: Timestamp,
    /// When the period ends.
    pub period_end: Timestamp,
    /// Questions that were answered in the period.
    #[serde(default)]
    pub queries: Used,
    /// Tokens that the chat model read in the period.
    #[serde(default)]
    pub prompt_tokens: Used,
    /// Tokens that the chat model wrote in the period.
    #[serde(default)]
    pub completion_tokens: Used,
    /// Tokens that the embedding model read in the period, of documents and of questions.
    #[serde(default)]
    pub embedding_tokens: Used,
    /// Bytes of text that were embedded in the period.
    #[serde(default)]
    pub embedded_bytes: Used,
    /// Documents that are stored.
    #[serde(default)]
    pub documents: Used,
    /// Bytes of the files of the stored documents.
    #[serde(default)]
    pub bytes: Used,
}

/// Which ledger the usage was read from, and what it lacks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageSource {
    /// The ledger, as it calls its beginning. A ledger that lost its data begins again under another name.
    pub ledger: Text,
    /// What was used in this period from then on is missing, as far as `usage` did not show it before. Absent if nothing
    /// is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_since: Option<Timestamp>,
    /// Until when it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_until: Option<Timestamp>,
}

impl CountedUsage {
    /// How much of a unit is used.
    pub const fn of(&self, unit: Unit) -> Used {
        match unit {
            Unit::Queries => self.queries,
            Unit::PromptTokens => self.prompt_tokens,
            Unit::CompletionTokens => self.completion_tokens,
            Unit::EmbeddingTokens => self.embedding_tokens,
            Unit::EmbeddedBytes => self.embedded_bytes,
            Unit::Documents => self.documents,
            Unit::Bytes => self.bytes,
        }
    }
}

/// How much of a unit is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Used {
    /// The amount that is used.
    pub used: i64,
    /// The limit. Absent for a unit that is counted and not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
}

/// A share of a limit that a customer has reached. The controller sends one e-mail about it. It decides by this record
/// alone whether that e-mail is still due, because it replaces the counted usage every minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reached {
    /// The unit.
    pub unit: Unit,
    /// The share of the limit, in percent: 80 or 100.
    #[schemars(range(min = 80, max = 100))]
    pub percent: u8,
    /// The limit at that time.
    pub limit: i64,
    /// When the period began in which it was reached.
    pub period_start: Timestamp,
    /// When the controller saw it.
    pub since: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_periods_follow_one_another() {
        let at = Timestamp::from_second;
        let quota = Quota { period_start: at(1000), period_end: at(0), queries_limit: 1, documents_limit: 1 };
        let period = |now: i64| quota.period_at(at(now)).0.as_second();
        let second = 1000 + Quota::PERIOD;
        assert_eq!([1000, second - 1, second, second + Quota::PERIOD - 1].map(period), [1000, 1000, second, second]);
        assert_eq!(period(0), 1000, "a clock that runs behind");
        assert_eq!(quota.period_at(at(second)).1.as_second(), second + Quota::PERIOD);
    }
}
