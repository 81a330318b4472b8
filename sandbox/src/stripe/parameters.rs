//! The parameters that each call takes here. Stripe refuses those that it does not know (`parameter_unknown`); the
//! sandbox also refuses those that it does not model, so that no request relies on what is not there.

use axum::http::Method;
use serde_json::Value;

use super::problem::Problem;

/// What pages of a list are cut by.
const PAGING: [&str; 4] = ["limit", "starting_after", "created", "expand"];

/// The parameters of a call that is about usage: meters, their events, prices, and previews of what they come to.
fn of_usage(method: &Method, path: &[&str]) -> Option<&'static [&'static str]> {
    Some(match (method.as_str(), path) {
        ("POST", ["invoices", "create_preview"]) => &["customer", "subscription"],
        ("POST", ["prices"]) => &[
            "product",
            "unit_amount",
            "unit_amount_decimal",
            "currency",
            "nickname",
            "metadata",
            "recurring.interval",
            "recurring.usage_type",
            "recurring.meter",
            "billing_scheme",
            "tiers_mode",
            "tiers.*.up_to",
            "tiers.*.unit_amount",
            "tiers.*.unit_amount_decimal",
        ],
        ("POST", ["billing", "meters"]) => &[
            "display_name",
            "event_name",
            "event_time_window",
            "default_aggregation.formula",
            "customer_mapping.event_payload_key",
            "customer_mapping.type",
            "value_settings.event_payload_key",
        ],
        ("POST", ["billing", "meters", _]) => &["display_name"],
        ("POST", ["billing", "meter_events"]) => &["event_name", "payload", "identifier", "timestamp"],
        ("POST", ["billing", "meter_event_adjustments"]) => &["event_name", "type", "cancel.identifier"],
        ("GET", ["billing", "meters"]) => &["status"],
        ("GET", ["billing", "meters", _, "event_summaries"]) => {
            &["customer", "start_time", "end_time", "value_grouping_window"]
        }
        ("POST", ["billing", "meters", _, "deactivate" | "reactivate"]) => &[],
        _ => return None,
    })
}

/// The parameters of a call; None for one that does not exist. `a.b` is `a[b]`, and `a.*.b` is `a[0][b]`.
fn known(method: &Method, path: &[&str]) -> Option<&'static [&'static str]> {
    if let Some(parameters) = of_usage(method, path) {
        return Some(parameters);
    }
    Some(match (method.as_str(), path) {
        ("POST", ["customers"]) => &["email", "name", "metadata", "test_clock"],
        ("POST", ["customers", _]) => &["email", "name", "metadata"],
        ("POST", ["checkout", "sessions"]) => &[
            "mode",
            "customer",
            "customer_email",
            "client_reference_id",
            "line_items.*.price",
            "line_items.*.quantity",
            "payment_method_collection",
            "success_url",
            "cancel_url",
            "metadata",
            "subscription_data.metadata",
            "subscription_data.trial_period_days",
            "subscription_data.billing_mode.type",
            "allow_promotion_codes",
        ],
        ("POST", ["billing_portal", "sessions"]) => &["customer", "return_url"],
        ("POST", ["subscriptions"]) => {
            &["customer", "items.*.price", "items.*.quantity", "trial_period_days", "metadata", "billing_mode.type"]
        }
        ("POST", ["subscriptions", _, "migrate"]) => &["billing_mode.type"],
        ("DELETE", ["subscriptions", _]) => &["invoice_now"],
        ("POST", ["subscriptions", _]) => &[
            "items.*.id",
            "items.*.price",
            "items.*.quantity",
            "items.*.deleted",
            "metadata",
            "default_payment_method",
            "proration_behavior",
            "payment_behavior",
            "billing_cycle_anchor",
            "pause_collection.behavior",
            "pause_collection",
            "cancel_at_period_end",
            "cancel_at",
        ],
        ("POST", ["invoices", _]) => &["auto_advance", "metadata"],
        ("POST", ["disputes", _]) => &["evidence", "submit", "metadata"],
        ("POST", ["refunds"]) => &["payment_intent", "amount", "metadata"],
        ("POST", ["products"]) => &["name", "description", "metadata"],
        ("POST", ["webhook_endpoints"]) => &["url", "enabled_events", "metadata"],
        ("POST", ["test_helpers", "test_clocks"]) => &["frozen_time", "name"],
        ("POST", ["test_helpers", "test_clocks", _, "advance"]) => &["frozen_time"],
        ("GET", ["customers"]) => &["email"],
        ("GET", ["subscriptions"]) => &["customer", "status"],
        ("GET", ["checkout", "sessions"]) => &["customer", "subscription", "payment_intent"],
        ("GET", ["invoices"]) => &["customer", "subscription", "status"],
        ("GET", ["invoice_payments"]) => &["invoice", "status"],
        ("GET", ["payment_intents"]) => &["customer"],
        ("GET", ["payment_methods"]) => &["customer", "type"],
        ("GET", ["refunds" | "disputes"]) => &["payment_intent"],
        ("GET", ["events"]) => &["types", "type"],
        ("GET", ["prices"]) => &["product", "active", "currency", "type"],
        ("GET", ["products"]) => &["active"],
        ("GET", ["billing_portal", "configurations"]) => &["active", "is_default"],
        (
            "POST",
            ["checkout", "sessions", _, "expire"] | ["disputes", _, "close"] | ["invoices", _, "finalize" | "void"],
        )
        | ("DELETE", ["customers" | "webhook_endpoints", _])
        | ("GET", _) => &[],
        _ => return None,
    })
}

/// Refuses a call with a parameter that is not known.
pub fn check(method: &Method, path: &[&str], p: &Value) -> Result<(), Problem> {
    let Some(known) = known(method, path) else { return Ok(()) };
    let paging: &[&str] = if method == Method::GET { &PAGING } else { &PAGING[3..] };
    let unknown = p
        .as_object()
        .into_iter()
        .flatten()
        .find_map(|(name, value)| if paging.contains(&name.as_str()) { None } else { unknown(known, name, value) });
    match unknown {
        None => Ok(()),
        Some(name) => Err(Problem {
            code: Some("parameter_unknown"),
            ..Problem::invalid(format!("Received unknown parameter: {name}"))
        }),
    }
}

/// The first part of a parameter that is not known. What a name without parts holds is not looked at.
fn unknown(known: &[&str], name: &str, value: &Value) -> Option<String> {
    if known.contains(&name) && !known.iter().any(|k| k.starts_with(&format!("{name}."))) {
        return None;
    }
    let Some(parts) = value.as_object() else {
        return (!known.contains(&name)).then(|| name.to_owned());
    };
    parts.iter().find_map(|(part, value)| {
        let part = if part.bytes().all(|b| b.is_ascii_digit()) { "*" } else { part };
        unknown(known, &format!("{name}.{part}"), value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(method: &Method, path: &[&str], form: &str) -> Option<String> {
        check(method, path, &super::super::form::parse(form)).err().map(|problem| problem.message)
    }

    #[test]
    fn what_is_modelled_is_taken_and_nothing_else() {
        let subscription = ["subscriptions", "sub_1"];
        for form in [
            "items[0][id]=si_1&items[0][price]=p&metadata[a]=b",
            "pause_collection=",
            "pause_collection[behavior]=void",
            "expand[]=customer",
        ] {
            assert_eq!(refused(&Method::POST, &subscription, form), None, "{form}");
        }
        for (form, name) in [
            ("cancel_at_period_ends=true", "cancel_at_period_ends"),
            ("items[0][metered]=1", "items.*.metered"),
            ("pause_collection[until]=1", "pause_collection.until"),
            ("limit=1", "limit"),
        ] {
            let message = refused(&Method::POST, &subscription, form);
            assert_eq!(message, Some(format!("Received unknown parameter: {name}")), "{form}");
        }
        assert_eq!(refused(&Method::GET, &["refunds"], "payment_intent=pi_1&limit=100"), None);
        assert!(refused(&Method::GET, &["refunds"], "customer=cus_1").is_some());
        assert!(
            refused(&Method::POST, &["prices"], "recurring[interval]=month&transform_quantity[round]=up").is_some()
        );
        let meter = ["billing", "meters", "mtr_1"];
        assert_eq!(refused(&Method::POST, &meter, "display_name=Queries"), None);
        let message = refused(&Method::POST, &meter, "event_name=queries");
        assert_eq!(message, Some("Received unknown parameter: event_name".into()), "meters are immutable");
    }
}
