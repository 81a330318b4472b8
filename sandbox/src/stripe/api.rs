//! The API's objects: what each call makes, answers and refuses.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::fields::update;
use super::problem::{Events, Problem};
use super::{
    Data, TEST_CLOCK, catalog, clock, customers, disputes, event_summaries, hosted, invoice_lines, invoices,
    meter_events, meters, pages, parameters, portal, previews, prices, refunds, sessions, subscriptions,
};

/// Does one call.
pub fn handle(
    data: &mut Data,
    url: &str,
    method: &Method,
    path: &[&str],
    p: &Value,
    events: &mut Events,
) -> Result<Value, Problem> {
    parameters::check(method, path, p)?;
    match (method.as_str(), path) {
        ("POST", ["customers"]) => customers::create(data, p),
        ("POST", ["customers", id]) => update(data, "customer", id, p, &["email", "name"]),
        ("POST", ["checkout", "sessions"]) => sessions::create(data, url, p),
        ("POST", ["checkout", "sessions", id, "expire"]) => sessions::expire(data, id, events),
        ("POST", ["billing_portal", "sessions"]) => portal::create(data, url, p),
        ("POST", ["subscriptions"]) => subscriptions::subscribe(data, p, events),
        ("POST", ["subscriptions", id]) => subscriptions::update(data, id, p, events),
        ("POST", ["subscriptions", id, "migrate"]) => subscriptions::migrate(data, id, p, events),
        ("DELETE", ["subscriptions", id]) => subscriptions::cancel(data, id, p, events),
        ("DELETE", ["customers", id]) => customers::delete(data, id, events),
        ("POST", ["disputes", id]) => disputes::update(data, id, p, events),
        ("POST", ["disputes", id, "close"]) => disputes::close(data, id, events),
        ("POST", ["refunds"]) => refunds::create(data, p, events),
        ("GET", ["account"]) => Ok(
            json!({"id": data.owner.account, "object": "account", "charges_enabled": true, "country": "US", "default_currency": "usd"}),
        ),
        ("POST", ["products"]) => catalog::create_product(data, p),
        ("POST", ["prices"]) => prices::create(data, p),
        ("GET", ["prices", id]) => prices::retrieve(data, id, p),
        ("POST", ["billing", "meters"]) => meters::create(data, p, events),
        ("POST", ["billing", "meters", id]) => meters::update(data, id, p, events),
        ("POST", ["billing", "meters", id, "deactivate"]) => meters::deactivate(data, id, events),
        ("POST", ["billing", "meters", id, "reactivate"]) => meters::reactivate(data, id, events),
        ("GET", ["billing", "meters"]) => Ok(list(data, meters::METER, path, p)),
        ("GET", ["billing", "meters", id]) => data.find(meters::METER, id).cloned(),
        ("GET", ["billing", "meters", id, "event_summaries"]) => event_summaries::list(data, id, p),
        ("POST", ["billing", "meter_events"]) => meter_events::create(data, p, events),
        ("POST", ["billing", "meter_event_adjustments"]) => meter_events::adjust(data, p),
        ("POST", ["webhook_endpoints"]) => catalog::create_endpoint(data, p),
        ("DELETE", ["webhook_endpoints", id]) => catalog::delete_endpoint(data, id),
        ("POST", ["test_helpers", "test_clocks"]) => clock::create(data, p),
        ("POST", ["test_helpers", "test_clocks", id, "advance"]) => clock::advance(data, id, p, events),
        ("GET", ["test_helpers", "test_clocks"]) => Ok(list(data, TEST_CLOCK, path, p)),
        ("GET", ["test_helpers", "test_clocks", id]) => data.find(TEST_CLOCK, id).cloned(),
        ("POST", ["invoices", "create_preview"]) => previews::create(data, p),
        ("POST", ["invoices", id, "finalize"]) => invoices::finalize(data, id, events),
        ("POST", ["invoices", id, "void"]) => hosted::void(data, id, events),
        ("POST", ["invoices", id]) => invoices::update(data, id, p, events),
        ("GET", ["billing_portal", "configurations"]) => Ok(portal::configurations()),
        ("GET", ["invoices", id]) => data.find("invoice", id).cloned().map(|mut invoice| {
            invoice["hosted_invoice_url"] = json!(format!("{url}/i/{id}"));
            invoice
        }),
        ("GET", ["invoices", id, "lines"]) => invoice_lines::list(data, id, p),
        ("GET", ["checkout", "sessions"]) => Ok(list(data, "checkout.session", path, p)),
        ("GET", ["checkout", "sessions", id]) => data.find("checkout.session", id).cloned(),
        ("GET", ["disputes"]) => {
            let mut all = list(data, "dispute", path, p);
            disputes::expand(data, p, &mut all);
            Ok(all)
        }
        ("GET", [plural]) => kind(plural).map(|kind| list(data, kind, path, p)).ok_or_else(|| unknown(method, path)),
        ("GET", [plural, id]) => {
            let kind = kind(plural).ok_or_else(|| unknown(method, path))?;
            let object = data.find(kind, id)?;
            Ok(if object["deleted"] == true { customers::deleted(id) } else { object.clone() })
        }
        _ => Err(unknown(method, path)),
    }
}

fn unknown(method: &Method, path: &[&str]) -> Problem {
    let message = format!("Unrecognized request URL ({method}: /v1/{}).", path.join("/"));
    Problem { executed: false, ..Problem::new(StatusCode::NOT_FOUND, message) }
}

fn kind(plural: &str) -> Option<&'static str> {
    Some(match plural {
        "customers" => "customer",
        "subscriptions" => "subscription",
        "invoices" => "invoice",
        "invoice_payments" => "invoice_payment",
        "payment_intents" => "payment_intent",
        "payment_methods" => "payment_method",
        "refunds" => "refund",
        "disputes" => "dispute",
        "events" => "event",
        "products" => "product",
        "prices" => "price",
        "webhook_endpoints" => "webhook_endpoint",
        _ => return None,
    })
}

/// A page of objects, newest first, that have every value that the query asks for.
fn list(data: &Data, kind: &str, path: &[&str], p: &Value) -> Value {
    let wanted = |o: &&Value| {
        p.as_object().is_none_or(|p| {
            p.iter().all(|(key, value)| match (key.as_str(), value.as_str()) {
                ("limit" | "starting_after" | "expand", _) | ("status", Some("all")) => true,
                ("created", None) => value["gte"]
                    .as_str()
                    .and_then(|from| from.parse::<i64>().ok())
                    .is_none_or(|from| o["created"].as_i64().is_some_and(|at| at >= from)),
                ("types", None) => value.as_object().is_none_or(|types| types.values().any(|t| *t == o["type"])),
                ("subscription", Some(v)) => o["parent"]["subscription_details"]["subscription"] == v || o[key] == v,
                (_, Some(v)) => o[key] == v,
                _ => true,
            })
        })
    };
    let now = jiff::Timestamp::now().as_millisecond();
    let visible = |o: &&Value| {
        o["deleted"] != true
            && o["_sandbox"]["listed_at_ms"].as_i64().is_none_or(|at| at <= now)
            && (kind != "subscription" || p.get("status").is_some() || o["status"] != "canceled")
    };
    let all = data.list(kind).iter().rev().filter(visible).filter(wanted).cloned().collect();
    pages::page(all, &format!("/v1/{}", path.join("/")), p)
}
