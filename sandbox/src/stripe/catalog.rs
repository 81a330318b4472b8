//! Products, prices, and the webhook endpoints of the account.

use serde_json::{Value, json};

use super::Data;
use super::fields::{metadata, text};
use super::problem::Problem;

/// A monthly price.
pub fn insert_price(data: &mut Data, id: &str, product: &Value, amount: i64, currency: &str) -> Value {
    let price = json!({
        "id": id, "object": "price", "active": true, "created": data.now(), "currency": currency,
        "unit_amount": amount, "unit_amount_decimal": amount.to_string(), "billing_scheme": "per_unit", "tiers_mode": null,
        "type": "recurring", "product": product, "livemode": false, "metadata": {}, "nickname": null,
        "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed", "meter": null},
    });
    data.remove("price", id);
    data.insert("price", price.clone());
    price
}

/// The price of that id.
pub fn price(data: &Data, id: &str) -> Option<Value> {
    data.list("price").iter().find(|p| p["id"] == id).cloned()
}

pub fn create_product(data: &mut Data, p: &Value) -> Result<Value, Problem> {
    if !p["name"].is_string() {
        return Err(Problem::invalid("Missing required param: name."));
    }
    let product = json!({
        "id": data.next_id("prod"), "object": "product", "active": true, "created": data.now(), "livemode": false,
        "name": text(p, "name"), "description": text(p, "description"), "metadata": metadata(p),
    });
    data.insert("product", product.clone());
    Ok(product)
}

/// Registers an endpoint; it gets the events that it asked for, signed with a secret of its own.
pub fn create_endpoint(data: &mut Data, p: &Value) -> Result<Value, Problem> {
    let url =
        p["url"].as_str().filter(|u| u.starts_with("http")).ok_or_else(|| Problem::invalid("Invalid URL: url"))?;
    let enabled: Vec<_> = p["enabled_events"].as_object().into_iter().flat_map(|e| e.values()).cloned().collect();
    if enabled.is_empty() {
        return Err(Problem::invalid("Missing required param: enabled_events."));
    }
    let endpoint = json!({
        "id": data.next_id("we"), "object": "webhook_endpoint", "created": data.now(), "livemode": false,
        "url": url, "enabled_events": enabled, "status": "enabled", "metadata": metadata(p),
        "_sandbox": {"secret": format!("whsec_{}", hex::encode(rand::random::<[u8; 16]>()))},
    });
    data.insert("webhook_endpoint", endpoint.clone());
    // Stripe shows the secret in this one answer and never again.
    let mut shown = endpoint;
    shown["secret"] = shown["_sandbox"]["secret"].take();
    Ok(shown)
}

pub fn delete_endpoint(data: &mut Data, id: &str) -> Result<Value, Problem> {
    data.find("webhook_endpoint", id)?;
    data.remove("webhook_endpoint", id);
    Ok(json!({"id": id, "object": "webhook_endpoint", "deleted": true}))
}
