//! What an e-mail says of the limits that a customer has reached.

use crate::api::money::thousands;
use crate::api::tenant::BillingMode;
use crate::api::usage::{CountedUsage, Reached};
use crate::api::{Plan, Tenant, Timestamp, Unit, size};
use crate::providers::mail::{Mail, Template, UsageLine, Values};

/// The e-mail. It leads to the plans if the customer has pages.
pub fn letter(mail: &Mail, tenant: &Tenant, plan: Option<&Plan>, percent: u8, what: &[Reached]) -> (Template, Values) {
    let template = if percent < 100 { Template::UsageNear } else { Template::UsageReached };
    let pages = tenant.spec.login.is_some() && mail.has_pages(tenant.place().namespace);
    let path = if pages { "/account/plan".to_owned() } else { String::new() };
    let usage = what.iter().filter_map(|reached| line(tenant, plan, reached)).collect();
    (template, Values { path, usage, ..Values::default() })
}

/// One limit, with what is used now.
fn line(tenant: &Tenant, plan: Option<&Plan>, Reached { unit, limit, .. }: &Reached) -> Option<UsageLine> {
    let status = tenant.status.as_ref()?;
    let (usage, config) = status.usage.as_ref().zip(status.config.as_ref())?;
    let limit = config.limits.of(*unit).unwrap_or(*limit);
    let used = usage.of(*unit).used;
    let (one_refused, refused) = refused(*unit);
    let then = if config.quota.is_soft(*unit) {
        format!("Nothing is refused: you can go on beyond the limit. {}", charged(tenant, plan, *unit))
    } else if used >= limit {
        format!("{refused} are refused {}.", until(*unit, usage))
    } else {
        format!("{one_refused} that does not fit into the limit any more is refused {}.", until(*unit, usage))
    };
    let written = if unit.is_size() { size } else { thousands };
    Some(UsageLine { unit: words(*unit), used: written(used), limit: written(limit), then })
}

/// Whether use beyond a limit costs the customer anything. Only customers who pay by Stripe are charged for use.
fn charged(tenant: &Tenant, plan: Option<&Plan>, unit: Unit) -> &'static str {
    let Some(plan) = plan else { return "Your plan says whether it is charged." };
    let has_price = plan.spec.usage_prices.iter().any(|price| price.unit == unit);
    if has_price && tenant.spec.billing.mode == BillingMode::Stripe {
        "It is charged at the price for use of your plan."
    } else {
        "It costs nothing extra."
    }
}

/// Until when a hard limit refuses.
fn until(unit: Unit, usage: &CountedUsage) -> String {
    if unit.is_level() {
        return "until you delete documents or change to a larger plan".into();
    }
    format!("until {}, when counting starts again, or until you change to a larger plan", minute(usage.period_end))
}

/// What customers call a unit, after an amount: "5 documents", "5 MB of stored documents".
fn words(unit: Unit) -> String {
    let of = if unit.is_size() { "of " } else { "" };
    format!("{of}{}", unit.for_customers())
}

/// What a hard limit of a unit refuses: one, and all of them.
fn refused(unit: Unit) -> (&'static str, &'static str) {
    match unit {
        Unit::Queries | Unit::PromptTokens | Unit::CompletionTokens => ("A question", "Questions"),
        Unit::EmbeddingTokens => ("A question or a new document", "Questions and new documents"),
        Unit::EmbeddedBytes | Unit::Documents | Unit::Bytes => ("A new document", "New documents"),
    }
}

/// `2026-12-25 09:30 UTC`.
fn minute(at: Timestamp) -> String {
    let text = at.to_string();
    let minute: String = text.chars().take(16).collect();
    format!("{} UTC", minute.replace('T', " "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tenant(soft: &[&str], queries: i64, documents: i64) -> Tenant {
        let spec = json!({"companyName": "A", "adminEmail": "a@b.example"});
        let mut tenant = Tenant::new("a", serde_json::from_value(spec).expect("a spec"));
        let end = "2026-12-25T09:30:00Z";
        let usage = json!({
            "observedAt": end, "periodStart": end, "periodEnd": end, "queries": {"used": queries}, "documents": {"used": documents},
        });
        let limits = json!({"queriesPerMonth": 10_000, "documents": 10});
        let config =
            json!({"plan": "starter", "limits": limits, "features": [], "models": {}, "quota": {"soft": soft}});
        let status = json!({"usage": usage, "config": config});
        tenant.status = Some(serde_json::from_value(status).expect("a status"));
        tenant
    }

    fn told(tenant: &Tenant, unit: Unit) -> UsageLine {
        told_of(tenant, None, unit)
    }

    fn told_of(tenant: &Tenant, plan: Option<&Plan>, unit: Unit) -> UsageLine {
        let at = Timestamp::from_second(0);
        line(tenant, plan, &Reached { unit, percent: 80, limit: 1, period_start: at, since: at }).expect("a line")
    }

    #[test]
    fn a_line_about_a_soft_unit_says_whether_it_is_charged() {
        let prices = json!([{"unit": "queries", "stripePriceId": "price_1"}]);
        let [with_price, without] = [prices, json!([])].map(|prices| {
            let spec = json!({"monthlyPrice": {"amount": 4900}, "usagePrices": prices});
            Plan::new("starter", serde_json::from_value(spec).expect("a spec"))
        });
        let mut soft = tenant(&["queries", "documents"], 10_500, 10);
        let said = |tenant: &Tenant, plan, unit| told_of(tenant, plan, unit).then;
        assert!(
            said(&soft, Some(&with_price), Unit::Queries).ends_with("It is charged at the price for use of your plan.")
        );
        assert!(said(&soft, Some(&with_price), Unit::Documents).ends_with("It costs nothing extra."), "another unit");
        assert!(said(&soft, Some(&without), Unit::Queries).ends_with("It costs nothing extra."));
        assert!(said(&soft, None, Unit::Queries).ends_with("Your plan says whether it is charged."), "it is gone");
        soft.spec.billing.mode = BillingMode::Manual;
        assert!(said(&soft, Some(&with_price), Unit::Queries).ends_with("It costs nothing extra."), "no use is billed");
    }

    #[test]
    fn bytes_are_sizes() {
        let mut full = tenant(&[], 0, 0);
        let status = full.status.as_mut().expect("a status");
        status.usage.as_mut().expect("usage").embedded_bytes.used = 4_300_000_000;
        let line = told(&full, Unit::EmbeddedBytes);
        assert_eq!((&*line.used, &*line.limit, &*line.unit), ("4.3 GB", "5.4 GB", "of text read from documents"));
    }

    #[test]
    fn a_line_says_what_is_used_and_what_happens_at_the_limit() {
        let queries = told(&tenant(&[], 8_000, 8), Unit::Queries);
        assert_eq!((&*queries.used, &*queries.limit, &*queries.unit), ("8,000", "10,000", "questions"));
        assert!(
            queries.then.starts_with("A question that does not fit")
                && queries.then.contains("until 2026-12-25 09:30 UTC"),
            "{queries:?}"
        );
        let full = tenant(&[], 10_000, 11);
        assert!(told(&full, Unit::Queries).then.starts_with("Questions are refused until 2026-12-25 09:30 UTC"));
        let documents = told(&full, Unit::Documents).then;
        assert!(
            documents.starts_with("New documents are refused until you delete"),
            "a level has no reset: {documents}"
        );
        let soft = told(&tenant(&["queries"], 10_500, 0), Unit::Queries).then;
        assert!(soft.starts_with("Nothing is refused"), "{soft}");
    }
}
