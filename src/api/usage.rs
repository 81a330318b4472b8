//! What a tenant may use of its plan in a period, and what it uses: as an annotation keeps it, and as the ledger
//! counted it.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::quota::Unit;
use super::{TAKEN_OVER_ANNOTATION, Tenant, Text, Timestamp, USAGE_ANNOTATION, months};

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

/// A quota period: Stripe's billing period for a tenant that pays by Stripe, and 30 days for any other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quota {
    /// When the period began.
    pub period_start: Timestamp,
    /// When the period ends and counting starts again at zero.
    pub period_end: Timestamp,
    /// The `billing_cycle_anchor` of the subscription at Stripe. It gives the periods their day of the month and their
    /// time of day, in UTC. In a shorter month they begin on its last day. Without it, periods have 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Timestamp>,
    /// Queries that the tenant may make in the period.
    pub queries_limit: i64,
    /// Documents that the tenant may store.
    pub documents_limit: i64,
}

/// The billing periods of a subscription at Stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cycle {
    /// Its `billing_cycle_anchor`: when it began, or when its trial ends.
    pub anchor: Timestamp,
    /// When its present period began.
    pub period_start: Timestamp,
}

/// Seconds by which Stripe's clock may be ahead of the cluster's. The ledger takes periods that begin within 5 minutes.
const AHEAD: i64 = 60;

/// A tenant that begins to pay by Stripe is seen within so many seconds.
const RECENT: i64 = 3600;

impl Quota {
    /// Seconds of a period of a tenant that does not pay by Stripe: 30 days.
    pub const PERIOD: i64 = 30 * 24 * 3600;

    /// The first period of a tenant, with nothing allowed yet.
    pub fn begin(cycle: Option<Cycle>, now: Timestamp) -> Self {
        let Some(Cycle { anchor, period_start }) = cycle else {
            let period_end = now.plus(Self::PERIOD);
            return Self { period_start: now, period_end, anchor: None, queries_limit: 0, documents_limit: 0 };
        };
        let begun = period_start.since(now) <= AHEAD;
        let (start, period_end) = months::around(anchor, if begun { now.max(period_start) } else { now });
        // A trial may begin in the middle of the month before the anchor.
        let start = if begun { start.max(period_start) } else { start };
        Self { period_start: start, period_end, anchor: Some(anchor), queries_limit: 0, documents_limit: 0 }
    }

    /// Begin and end of the period that a moment is in. Periods follow one another without a gap from the first one on.
    pub fn period_at(&self, now: Timestamp) -> (Timestamp, Timestamp) {
        if now < self.period_end {
            return (self.period_start, self.period_end);
        }
        match self.anchor {
            Some(anchor) => {
                let (start, end) = months::around(anchor, now);
                (start.max(self.period_end), end)
            }
            None => Self::days_from(self.period_end, now),
        }
    }

    /// The period of 30 days that a moment is in, if one of them begins here.
    pub fn days_from(begin: Timestamp, moment: Timestamp) -> (Timestamp, Timestamp) {
        let periods = moment.since(begin).div_euclid(Self::PERIOD);
        let start = begin.plus(periods.saturating_mul(Self::PERIOD));
        (start, start.plus(Self::PERIOD))
    }

    /// Moves on to the period that a moment is in.
    pub fn move_on(&mut self, now: Timestamp) {
        (self.period_start, self.period_end) = self.period_at(now);
    }

    /// Changes the present period when Stripe's billing cycle changes. If the customer pays for a billing period that has
    /// begun since the present period began, counting restarts there. Otherwise the present period goes on and ends when
    /// Stripe's does: what was used since then counts towards the limit only once.
    pub fn follow(&mut self, cycle: Cycle, now: Timestamp) {
        if self.anchor == Some(cycle.anchor) {
            return;
        }
        self.move_on(now);
        let before = self.anchor.replace(cycle.anchor);
        let ahead = cycle.period_start.since(now);
        let present = if ahead <= AHEAD { now.max(cycle.period_start) } else { now };
        let end = months::around(cycle.anchor, present).1;
        // A period that begins before the anchor is a trial, which is free.
        let paid = cycle.period_start >= cycle.anchor && ahead <= AHEAD && cycle.period_start > self.period_start;
        // Versions before the anchor was noted counted 30 days: their customers have used this billing period already.
        if paid && (before.is_some() || -ahead <= RECENT) {
            (self.period_start, self.period_end) = (cycle.period_start, end);
        } else {
            self.period_end = if before.is_some() { end } else { end.min(self.period_end) };
        }
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
    /// When that ledger began. Absent in what an earlier version wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Timestamp>,
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
    fn periods_of_30_days_follow_one_another() {
        let begun = at("2027-01-31T10:23:45Z");
        let mut quota = Quota::begin(None, begun);
        let second = begun.plus(Quota::PERIOD);
        assert_eq!(quota.period_at(second.plus(-1)), (begun, second));
        assert_eq!(quota.period_at(second), (second, second.plus(Quota::PERIOD)));
        assert_eq!(quota.period_at(begun.plus(-1)), (begun, second), "a clock that runs behind");
        quota.move_on(second.plus(3 * Quota::PERIOD));
        assert_eq!(quota.period_start, second.plus(3 * Quota::PERIOD));
    }

    #[test]
    fn quota_periods_follow_one_another() {
        let quota = at_stripe("2027-01-31T10:23:45Z");
        let period = |now: &str| period_of(&quota, now);
        let [january, february] = [("01-31", "02-28"), ("02-28", "03-31")];
        assert_eq!(["2027-01-31T10:23:45Z", "2027-02-28T10:23:44Z"].map(period), [january, january].map(days));
        assert_eq!(["2027-02-28T10:23:45Z", "2027-03-31T10:23:44Z"].map(period), [february, february].map(days));
        assert_eq!(period("2026-12-31T00:00:00Z"), days(january), "a clock that runs behind");
    }

    /// The controller writes each period into the status, and the next one is computed from there.
    #[test]
    fn the_day_of_a_quota_does_not_drift() {
        let mut quota = at_stripe("2027-01-31T10:23:45Z");
        let mut seen = Vec::new();
        for _ in 0..4 {
            let end = quota.period_end;
            quota.move_on(end);
            assert_eq!(quota.period_start, end, "no gap and no overlap");
            seen.push(quota.period_start.to_string());
        }
        let days = ["2027-02-28", "2027-03-31", "2027-04-30", "2027-05-31"].map(|day| format!("{day}T10:23:45Z"));
        assert_eq!(seen, days);
    }

    #[test]
    fn a_quota_has_the_periods_of_its_subscription() {
        let cycle = |anchor: &str, start: &str| Some(Cycle { anchor: at(anchor), period_start: at(start) });
        let begun = |cycle, now: &str| period_of(&Quota::begin(cycle, at(now)), now);
        let paid = cycle("2027-01-31T10:23:45Z", "2027-01-31T10:23:45Z");
        assert_eq!(begun(paid, "2027-01-31T10:24:00Z"), days(("01-31", "02-28")));
        assert_eq!(begun(paid, "2027-01-31T10:23:40Z"), days(("01-31", "02-28")), "Stripe's clock is ahead");
        assert_eq!(begun(paid, "2027-03-05T00:00:00Z"), days(("02-28", "03-31")), "after a lost status");
        let trial = cycle("2027-02-14T10:23:45Z", "2027-01-31T10:23:45Z");
        assert_eq!(begun(trial, "2027-01-31T10:24:00Z"), days(("01-31", "02-14")));
        assert_eq!(begun(trial, "2027-02-14T10:23:45Z"), days(("02-14", "03-14")));
        let long = cycle("2027-05-01T10:23:45Z", "2027-01-31T10:23:45Z");
        assert_eq!(begun(long, "2027-02-27T00:00:00Z"), days(("02-01", "03-01")), "a long trial has months as well");
        let far = cycle("2027-06-30T10:23:45Z", "2027-06-30T10:23:45Z");
        assert_eq!(begun(far, "2027-03-05T00:00:00Z"), days(("02-28", "03-30")), "a test clock that is far ahead");
    }

    #[test]
    fn a_quota_follows_another_subscription() {
        let mut quota = Quota::begin(None, at("2027-01-31T10:23:45Z"));
        follow(&mut quota, ("2027-02-12T10:23:45Z", "2027-02-12T10:23:45Z"), "2027-02-12T10:24:00Z");
        assert_eq!(period_of(&quota, "2027-02-12T10:24:00Z"), days(("02-12", "03-12")), "a month that was paid for");
        follow(&mut quota, ("2027-04-10T10:23:45Z", "2027-02-20T00:00:00Z"), "2027-02-20T00:00:00Z");
        assert_eq!(period_of(&quota, "2027-02-20T00:00:00Z"), days(("02-12", "03-10")), "a trial goes on as it was");
        assert_eq!(period_of(&quota, "2027-03-10T10:23:45Z"), days(("03-10", "04-10")));
        follow(&mut quota, ("2027-03-20T10:23:45Z", "2027-03-20T10:23:45Z"), "2027-03-20T10:23:00Z");
        assert_eq!(period_of(&quota, "2027-03-20T10:23:50Z"), days(("03-20", "04-20")), "Stripe's clock is ahead");
    }

    /// The customer has used the billing period that began before the upgrade.
    #[test]
    fn a_period_of_30_days_ends_with_the_billing_period() {
        for (begun, paid, now, end) in [
            ("02-14", "02-15", "02-20", "03-15"),
            ("01-31", "01-15", "02-10", "02-15"),
            ("01-25", "02-15", "02-20", "02-24"),
        ] {
            let mut quota = Quota::begin(None, at(&format!("2027-{begun}T10:23:45Z")));
            let paid = format!("2027-{paid}T10:23:45Z");
            follow(&mut quota, ("2027-01-15T10:23:45Z", &paid), &format!("2027-{now}T00:00:00Z"));
            assert_eq!(period_of(&quota, "2027-02-10T00:00:00Z"), days((begun, end)));
        }
    }

    fn follow(quota: &mut Quota, (anchor, period_start): (&str, &str), now: &str) {
        quota.follow(Cycle { anchor: at(anchor), period_start: at(period_start) }, at(now));
    }

    /// The quota of a subscription that begins at this moment.
    fn at_stripe(begins: &str) -> Quota {
        Quota::begin(Some(Cycle { anchor: at(begins), period_start: at(begins) }), at(begins))
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    /// Start and end of the period of a moment.
    fn period_of(quota: &Quota, now: &str) -> (Timestamp, Timestamp) {
        quota.period_at(at(now))
    }

    /// Two days of 2027, at the time of all periods here.
    fn days((start, end): (&str, &str)) -> (Timestamp, Timestamp) {
        (at(&format!("2027-{start}T10:23:45Z")), at(&format!("2027-{end}T10:23:45Z")))
    }
}
