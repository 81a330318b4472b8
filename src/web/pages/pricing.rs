//! `GET /pricing`: the Plans that are sold.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use kube::ResourceExt;
use minijinja::{Value, context};

use super::PageResult;
use crate::api::money::{Money, thousands};

use crate::api::{Plan, PlanSpec, Unit, UsagePrice, size};
use crate::web::App;
use crate::web::serving::offers::for_sale;

/// Shows the Plans, the cheapest first.
pub async fn show(State(app): State<Arc<App>>, headers: HeaderMap) -> PageResult {
    let plans: Vec<Value> = for_sale(&app).await?.iter().map(offer).collect();
    app.page(StatusCode::OK, "pricing.html", &headers, context! { plans })
}

/// What a page says of a Plan.
pub fn offer(plan: &Plan) -> Value {
    let spec = &plan.spec;
    let features: Vec<_> = spec.features.iter().map(|f| words(f)).collect();
    context! {
        name => plan.name_any(),
        title => spec.display_name.clone().unwrap_or_else(|| words(&plan.name_any())),
        price => price(&spec.monthly_price),
        trial_days => spec.trial_days,
        documents => thousands(spec.limits.documents),
        queries => questions(spec),
        features,
        charged => spec.usage_prices.iter().map(charged).collect::<Vec<_>>(),
        by_card => spec.stripe_price_id.is_some(),
    }
}

/// How many questions a plan has. None if it is charged by use without a limit.
fn questions(plan: &PlanSpec) -> Option<String> {
    let limit = format!("{} questions a month", thousands(plan.limits.queries_per_month));
    let charged = plan.usage_prices.iter().any(|price| price.unit == Unit::Queries);
    match (charged, plan.quota.is_soft(Unit::Queries)) {
        (true, true) => None,
        (true, false) => Some(limit + " at most"),
        (false, _) => Some(limit),
    }
}

/// What a customer pays by use. Stripe has the price, and shows it in Checkout.
fn charged(price: &UsagePrice) -> String {
    let unit = price.unit.for_customers();
    match price.included {
        0 => format!("Charged by use: {unit}"),
        included if price.unit.is_size() => {
            format!("{} of {unit} a month included, more is charged by use", size(included))
        }
        included => format!("{} {unit} a month included, more are charged by use", thousands(included)),
    }
}

/// An amount as people write it.
fn price(money: &Money) -> String {
    let (whole, cents) = money.parts();
    let amount = match cents {
        Some(cents @ 1..) => format!("{}.{cents:02}", thousands(whole)),
        _ => thousands(whole),
    };
    match money.currency.as_str() {
        "usd" => format!("${amount}"),
        "eur" => format!("€{amount}"),
        "gbp" => format!("£{amount}"),
        other => format!("{amount} {}", other.to_uppercase()),
    }
}

/// `basic_rag` as "Basic RAG".
fn words(name: &str) -> String {
    let known = |word: &str| match word {
        "rag" | "api" | "sso" => word.to_uppercase(),
        _ => word.to_owned(),
    };
    let text = name.split(['_', '-']).map(known).collect::<Vec<_>>().join(" ");
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_charged_by_use_is_said() {
        let price = |unit, included| charged(&UsagePrice { unit, stripe_price_id: "price_1".into(), included });
        assert_eq!(price(Unit::Queries, 10_000), "10,000 questions a month included, more are charged by use");
        assert_eq!(price(Unit::CompletionTokens, 0), "Charged by use: tokens that the chat model writes");
        assert_eq!(
            price(Unit::EmbeddedBytes, 5_000_000_000),
            "5.0 GB of text read from documents a month included, more is charged by use"
        );
        let questions = |quota: serde_json::Value, prices: serde_json::Value| {
            let plan = json!({"monthlyPrice": {"amount": 1, "currency": "usd"}, "stripePriceId": "price_0", "quota": quota,
                              "usagePrices": prices, "limits": {"documents": 1, "queriesPerMonth": 5000, "bytes": 1}});
            questions(&serde_json::from_value(plan).expect("a plan"))
        };
        let (metered, soft) = (json!([{"unit": "queries", "stripePriceId": "price_1"}]), json!({"soft": ["queries"]}));
        assert_eq!(questions(json!({}), json!([])).as_deref(), Some("5,000 questions a month"));
        assert_eq!(questions(json!({}), metered.clone()).as_deref(), Some("5,000 questions a month at most"));
        assert_eq!(questions(soft, metered), None);
    }

    #[test]
    fn prices_and_names_are_written_as_people_do() {
        let money = |amount, currency: &str| price(&Money { amount, currency: currency.into() });
        assert_eq!(
            [money(4900, "usd"), money(123_456, "eur"), money(500_000, "jpy"), money(5, "chf")],
            ["$49", "€1,234.56", "500,000 JPY", "0.05 CHF"]
        );
        assert_eq!(["basic_rag", "api_access", "starter"].map(words), ["Basic RAG", "API access", "Starter"]);
    }
}
