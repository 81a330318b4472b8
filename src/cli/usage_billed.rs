//! `kubectl tenant usage NAME --billed`: how far the usage of a tenant was sent to Stripe.

use comfy_table::{CellAlignment, Table, presets};
use kube::ResourceExt;

use crate::api::conditions::{self, USAGE_BILLED};
use crate::api::{Condition, Tenant, UsageBilling};

/// What is shown of a tenant. None for one whose usage is not billed.
pub fn shown(tenant: &Tenant) -> Option<String> {
    let status = tenant.status.as_ref()?;
    let condition = conditions::get(&status.conditions, USAGE_BILLED);
    if status.usage_billing.is_none() && condition.is_none() {
        return None;
    }
    let billing = status.usage_billing.as_deref().cloned().unwrap_or_default();
    Some(text(&tenant.name_any(), &billing, condition))
}

fn text(name: &str, billing: &UsageBilling, condition: Option<&Condition>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["UNIT", "SENT", "SINCE", "UP TO", "PRICE", "METER"]);
    for usage in &billing.meters {
        let unit = serde_json::json!(usage.unit).as_str().unwrap_or_default().to_owned();
        let (since, through) = (usage.since.to_string(), usage.through.to_string());
        table.add_row([unit, usage.sent.to_string(), since, through, usage.price.to_string(), usage.meter.to_string()]);
    }
    if let Some(sent) = table.column_mut(1) {
        sent.set_cell_alignment(CellAlignment::Right);
    }
    let said = condition.map_or("not compared with Stripe yet".into(), |c| format!("{}: {}", c.reason, c.message));
    let next = billing.replace_at.map(|at| format!("\nThe prices follow the plan after {at}")).unwrap_or_default();
    let more = decided(billing);
    format!("{name}, subscription {}\n{said}{next}{more}\n{table}", billing.subscription)
}

/// What waits, and what a person decided last.
fn decided(billing: &UsageBilling) -> String {
    let waits = billing.waiting.iter().filter(|waiting| waiting.amount > 0).map(|waiting| {
        format!(
            "\n{} {} of subscription {} wait for a price",
            waiting.amount,
            waiting.usage.unit.in_plans(),
            waiting.subscription
        )
    });
    let last = billing.decision.as_ref().map(|decision| {
        let (unit, ledger, stripe) = (decision.unit.in_plans(), decision.ledger, decision.stripe);
        format!(
            "\nDecided at {}: keep {} of {unit}, sent or waiting {ledger}, at Stripe {stripe}",
            decision.at, decision.keep
        )
    });
    waits.chain(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::usage_prices::MeteredUsage;
    use crate::api::{Timestamp, Unit};

    #[test]
    fn each_unit_has_a_line_with_what_was_sent() {
        let at = Timestamp::from_second;
        let usage = MeteredUsage {
            unit: Unit::PromptTokens,
            price: "price_1".into(),
            meter: "mtr_1".into(),
            since: at(0),
            through: at(7200),
            sent: 42,
            unpriced: None,
        };
        let billing = UsageBilling { subscription: "sub_1".into(), meters: vec![usage], ..UsageBilling::default() };
        let said = text("acme", &billing, None);
        let line = said.lines().last().expect("a line").split_whitespace().collect::<Vec<_>>();
        assert_eq!(line, ["promptTokens", "42", "1970-01-01T00:00:00Z", "1970-01-01T02:00:00Z", "price_1", "mtr_1"]);
        assert!(said.starts_with("acme, subscription sub_1\nnot compared"), "{said}");
    }
}
