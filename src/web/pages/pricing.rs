//! `GET /pricing`: the Plans that are sold.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use kube::ResourceExt;
use minijinja::{Value, context};

use super::PageResult;
use crate::api::Plan;
use crate::api::money::{Money, thousands};
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
        queries => thousands(spec.limits.queries_per_month),
        features,
        by_card => spec.stripe_price_id.is_some(),
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
    use super::*;

    #[test]
    fn prices_and_names_are_written_as_people_do() {
        let money = |amount, currency: &str| price(&Money { amount, currency: currency.into() });
        assert_eq!(
            [money(4900, "usd"), money(123_456, "eur"), money(500_000, "jpy"), money(5, "chf")],
            ["$49", "€1,234.56", "500,000 JPY", "0.05 CHF"]
        );
        assert_eq!(["basic_rag", "api_access", "starter"].map(words), ["Basic RAG", "API access", "Starter"]);
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
