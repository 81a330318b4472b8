//! What a status shows of the usage: pure.

use strum::IntoEnumIterator;

use crate::api::conditions::{self, USAGE_COUNTED};
use crate::api::usage::{CountedUsage, UsageSource, Used};
use crate::api::{Condition, ConditionStatus, Tenant, TenantStatus, Timestamp, Unit};
use crate::ledger::beginning::Beginning;
use crate::ledger::wire::TenantUsage;

/// The status with what the ledger told. None if it shows it already.
pub fn usage(
    tenant: &Tenant,
    status: &TenantStatus,
    told: &TenantUsage,
    beginning: Option<&Beginning>,
    now: Timestamp,
) -> Option<TenantStatus> {
    let config = status.config.as_ref()?;
    let used = |unit: Unit| Used { used: told.used[unit], limit: config.limits.of(unit) };
    let shown = CountedUsage {
        observed_at: now,
        period_start: told.period.start,
        period_end: told.period.end,
        queries: used(Unit::Queries),
        prompt_tokens: used(Unit::PromptTokens),
        completion_tokens: used(Unit::CompletionTokens),
        embedding_tokens: used(Unit::EmbeddingTokens),
        embedded_bytes: used(Unit::EmbeddedBytes),
        documents: used(Unit::Documents),
        bytes: used(Unit::Bytes),
    };
    let source = beginning.map(|beginning| Box::new(source(status, told.period.start, beginning)));
    let same = status.usage.is_some_and(|there| {
        there.period_start == shown.period_start && Unit::iter().all(|unit| there.of(unit) == shown.of(unit))
    });
    // A new name of the ledger is no news by itself.
    if same && lacks(source.as_deref()) == lacks(status.usage_source.as_deref()) && status.ledger_away_since.is_none() {
        return None;
    }
    let next = TenantStatus { usage: Some(shown), usage_source: source, ledger_away_since: None, ..status.clone() };
    Some(with_condition(tenant, next, now))
}

/// From when to when usage is missing.
fn lacks(source: Option<&UsageSource>) -> Option<(Timestamp, Timestamp)> {
    let source = source?;
    source.missing_since.zip(source.missing_until)
}

/// Which ledger told it, and what that one lacks of the period.
fn source(status: &TenantStatus, period_start: Timestamp, beginning: &Beginning) -> UsageSource {
    let before = status.usage_source.as_deref();
    let (ledger, began) = (beginning.id.as_str().into(), Some(beginning.began.at));
    let nothing = UsageSource { ledger, began, missing_since: None, missing_until: None };
    let Some(usage) = status.usage else { return nothing };
    if let Some(before) = before.filter(|before| *before.ledger == *beginning.id) {
        return if usage.period_start == period_start { before.clone() } else { nothing };
    }
    let began = beginning.began;
    let earlier = before.filter(|_| usage.period_start == period_start).and_then(|before| before.missing_since);
    let known = usage.observed_at.max(began.snapshot.unwrap_or(usage.observed_at)).max(period_start);
    if known >= began.at {
        return nothing;
    }
    UsageSource { missing_since: Some(earlier.unwrap_or(known)), missing_until: Some(began.at), ..nothing }
}

/// The status with since when the ledger is away. None if it shows it already.
pub fn away(tenant: &Tenant, status: &TenantStatus, since: Option<Timestamp>, now: Timestamp) -> Option<TenantStatus> {
    if status.ledger_away_since.is_some() == since.is_some() {
        return None;
    }
    Some(with_condition(tenant, TenantStatus { ledger_away_since: since, ..status.clone() }, now))
}

/// What an Event says where a status is about to show for the first time that usage is missing.
pub fn lost(tenant: &Tenant, next: &TenantStatus) -> Option<String> {
    let since = |status: &TenantStatus| lacks(status.usage_source.as_deref());
    let missing = since(next)?;
    (tenant.status.as_ref().and_then(since) != Some(missing)).then(|| words_of_missing(missing))
}

fn words_of_missing((since, until): (Timestamp, Timestamp)) -> String {
    format!(
        "The ledger lost its data. Usage from {since} to {until} may be missing. Hours that were not sent to Stripe before \
         the loss are not on the invoice, also hours before {since}"
    )
}

/// The condition that shows both. It is set once one of them was so.
fn with_condition(tenant: &Tenant, mut status: TenantStatus, now: Timestamp) -> TenantStatus {
    let missing = lacks(status.usage_source.as_deref());
    let (value, reason, message) = match (status.ledger_away_since, missing) {
        (Some(since), _) => (
            ConditionStatus::False,
            "LedgerUnavailable",
            format!("The ledger has not answered since {since}. What is used meanwhile is counted once it is back"),
        ),
        (None, Some(missing)) => (ConditionStatus::False, "UsageMissing", words_of_missing(missing)),
        (None, None) => (ConditionStatus::True, "Counted", "The ledger has all usage of the period".to_owned()),
    };
    if value == ConditionStatus::True && conditions::get(&status.conditions, USAGE_COUNTED).is_none() {
        return status;
    }
    let condition = Condition {
        type_: USAGE_COUNTED.into(),
        status: value,
        reason: reason.into(),
        message: message.into(),
        last_transition_time: now,
        observed_generation: tenant.metadata.generation,
    };
    conditions::show(&mut status.conditions, condition);
    status
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ledger::account::Period;
    use crate::ledger::beginning::Began;
    use crate::ledger::units::Amounts;

    const PERIOD: i64 = 1_800_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(PERIOD + seconds)
    }

    fn tenant() -> Tenant {
        let spec = json!({"companyName": "A", "adminEmail": "a@b.example"});
        let mut tenant = Tenant::new("a", serde_json::from_value(spec).expect("a spec"));
        let status =
            json!({"config": {"plan": "starter", "limits": {}, "models": {"embedding": "small"}, "features": []}});
        tenant.status = Some(serde_json::from_value(status).expect("a status"));
        tenant
    }

    fn beginning(id: &str, at_second: i64, snapshot: Option<i64>) -> Beginning {
        Beginning { id: id.into(), began: Began { at: at(at_second), snapshot: snapshot.map(at) }, recounted: None }
    }

    /// The tenant once its status shows what a ledger told at a moment, if that is news.
    fn told(tenant: &mut Tenant, (queries, period): (i64, i64), ledger: Option<&Beginning>, now: i64) -> bool {
        let period = Period { start: at(period), end: at(period + 1000) };
        let (used, tenant_id) = (Amounts::of(Unit::Queries, queries), "t".to_owned());
        let told = TenantUsage { tenant: tenant_id, period, used, reserved: Amounts::ZERO, seq: 1 };
        let next = usage(tenant, tenant.status.as_ref().expect("a status"), &told, ledger, at(now));
        let news = next.is_some();
        tenant.status = next.or(tenant.status.take());
        news
    }

    fn missing(tenant: &Tenant) -> Option<(Timestamp, Timestamp)> {
        let source = tenant.status.as_ref()?.usage_source.as_ref()?;
        source.missing_since.zip(source.missing_until)
    }

    fn condition(tenant: &Tenant) -> Option<(ConditionStatus, String)> {
        let shown = conditions::get(&tenant.status.as_ref()?.conditions, USAGE_COUNTED)?;
        Some((shown.status, shown.reason.to_string()))
    }

    #[test]
    fn what_a_ledger_lost_is_shown_until_the_period_ends() {
        let mut acme = tenant();
        let first = beginning("one", 0, None);
        assert!(told(&mut acme, (5, 0), Some(&first), 50) && !told(&mut acme, (5, 0), Some(&first), 60));
        assert_eq!((missing(&acme), condition(&acme)), (None, None), "nothing was lost");
        let second = beginning("two", 100, None);
        assert!(told(&mut acme, (5, 0), Some(&second), 110), "the same number of another ledger is news");
        assert_eq!(missing(&acme), Some((at(50), at(100))));
        assert_eq!(condition(&acme), Some((ConditionStatus::False, "UsageMissing".into())));
        assert!(told(&mut acme, (6, 0), Some(&second), 170));
        assert_eq!(missing(&acme), Some((at(50), at(100))), "it stays missing");
        // Lost once more: what was missing before is missing still.
        assert!(told(&mut acme, (6, 0), Some(&beginning("three", 200, Some(190))), 210));
        assert_eq!(missing(&acme), Some((at(50), at(200))));
        assert!(told(&mut acme, (0, 1000), Some(&beginning("three", 200, Some(190))), 1010));
        assert_eq!((missing(&acme), condition(&acme)), (None, Some((ConditionStatus::True, "Counted".into()))));
    }

    #[test]
    fn a_snapshot_that_is_later_than_the_status_has_what_was_used_until_then() {
        let mut acme = tenant();
        told(&mut acme, (5, 0), Some(&beginning("one", 0, None)), 50);
        told(&mut acme, (9, 0), Some(&beginning("two", 100, Some(80))), 110);
        assert_eq!(missing(&acme), Some((at(80), at(100))));
    }

    #[test]
    fn a_ledger_whose_beginning_is_not_known_has_lost_nothing() {
        let mut acme = tenant();
        assert!(told(&mut acme, (5, 0), None, 50) && !told(&mut acme, (5, 0), None, 60));
        assert_eq!((missing(&acme), condition(&acme)), (None, None));
        // A tenant of a version that does not note the ledger, and the same ledger.
        assert!(!told(&mut acme, (5, 0), Some(&beginning("one", 0, None)), 70));
    }

    #[test]
    fn that_the_ledger_is_away_is_shown_once_and_goes_with_the_next_usage() {
        let mut acme = tenant();
        told(&mut acme, (5, 0), None, 50);
        let shown = |acme: &Tenant, since| away(acme, acme.status.as_ref().expect("a status"), since, at(70));
        acme.status = shown(&acme, Some(at(60)));
        assert_eq!(condition(&acme), Some((ConditionStatus::False, "LedgerUnavailable".into())));
        assert_eq!(shown(&acme, Some(at(65))), None, "it is shown already");
        assert!(told(&mut acme, (5, 0), None, 80), "the ledger answers");
        assert_eq!(condition(&acme), Some((ConditionStatus::True, "Counted".into())));
        assert_eq!(shown(&acme, None), None);
    }
}
