//! API keys. A secret key may do everything; a restricted one (`rk_`) what it was given, each resource to read or to
//! write, as in Stripe's dashboard (<https://docs.stripe.com/keys#limit-access>).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::problem::Problem;
use crate::{Shared, lock};

/// What a key may do with a resource. Permission to write includes permission to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    Read,
    Write,
}

/// What a restricted key may do, by the names of the dashboard.
pub type Permissions = BTreeMap<String, Level>;

/// The key for the customer portal that tests and the documentation use: what `docs/providers.md` says of it.
const PORTAL: &str = "rk_test_portal";

/// The restricted keys that there are.
pub fn known() -> BTreeMap<String, Permissions> {
    let portal = [("Customers".to_owned(), Level::Read), ("Customer portal".to_owned(), Level::Write)];
    [(PORTAL.to_owned(), portal.into())].into()
}

#[derive(Deserialize)]
pub struct Made {
    key: String,
    permissions: Permissions,
}

/// Creates a restricted key, as an admin does in Stripe's dashboard.
pub async fn add(State(s): State<Arc<Shared>>, Json(made): Json<Made>) -> Result<StatusCode, (StatusCode, String)> {
    if let Some(unknown) = made.permissions.keys().find(|name| !RESOURCES.iter().any(|(_, known, _)| known == name)) {
        return Err((StatusCode::BAD_REQUEST, format!("there is no resource {unknown:?}")));
    }
    lock(&s.stripe.restricted).insert(made.key, made.permissions);
    Ok(StatusCode::CREATED)
}

/// The beginning of a path, the resource's name in the dashboard, and its name in refusals.
const RESOURCES: [(&str, &str, &str); 20] = [
    ("account", "Account", "accounts_kyc_basic"),
    ("billing/meter_event_adjustments", "Billing Meter Event Adjustments", "billing_meter_event_adjustment"),
    ("billing/meter_events", "Billing Meter Events", "billing_meter_event"),
    ("billing/meters", "Billing Meters", "billing_meter"),
    ("billing_portal", "Customer portal", "customer_portal"),
    ("checkout", "Checkout Sessions", "checkout_session"),
    ("customers", "Customers", "customer"),
    ("disputes", "Disputes", "dispute"),
    ("events", "Events", "event"),
    ("invoice_payments", "Invoices", "invoice"),
    ("invoices", "Invoices", "invoice"),
    ("payment_intents", "Payment Intents", "payment_intent"),
    ("payment_methods", "Payment Methods", "payment_method"),
    ("prices", "Prices", "plan"),
    ("products", "Products", "product"),
    ("refunds", "Charges and Refunds", "charge"),
    ("subscription_items", "Subscriptions", "subscription"),
    ("subscriptions", "Subscriptions", "subscription"),
    ("test_helpers", "Test Clocks", "test_clock"),
    ("webhook_endpoints", "Webhook Endpoints", "webhook"),
];

/// Refuses a call with an unknown restricted key, and with one that lacks the permission: for what is called, and for
/// what is to be expanded.
pub fn authorize(
    restricted: &BTreeMap<String, Permissions>,
    (method, path): (&Method, &[&str]),
    key: &str,
    p: &Value,
) -> Result<(), Problem> {
    if !key.starts_with("rk_") {
        return Ok(());
    }
    let Some(permissions) = restricted.get(key) else {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "Invalid API Key provided."));
    };
    let wanted = if method == Method::GET { Level::Read } else { Level::Write };
    let expanded = p["expand"].as_object().into_iter().flat_map(serde_json::Map::values).filter_map(Value::as_str);
    let expanded = expanded.map(|path| (path.rsplit('.').next().unwrap_or(path).to_owned() + "s", Level::Read));
    let called = match path {
        ["billing", resource, ..] => Some(format!("billing/{resource}")),
        _ => path.first().map(|first| (*first).to_owned()),
    };
    let called = called.map(|resource| (resource, wanted));
    for (resource, wanted) in called.into_iter().chain(expanded) {
        let Some((_, name, short)) = RESOURCES.iter().find(|(plural, ..)| *plural == resource) else { continue };
        if permissions.get(*name).is_none_or(|level| *level < wanted) {
            let right = if wanted == Level::Read { "read" } else { "write" };
            let message = format!(
                "The provided key '{}***' does not have the required permissions for this endpoint on account 'acct_sandbox'. \
                 Having the 'rak_{short}_{right}' permission would allow this request to continue.",
                key.chars().take(8).collect::<String>()
            );
            return Err(Problem { executed: false, ..Problem::new(StatusCode::FORBIDDEN, message) });
        }
    }
    Ok(())
}
