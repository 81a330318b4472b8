//! The items of subscriptions: which prices a customer pays, and how many of each.

use serde_json::{Value, json};

use super::prices::is_metered;
use super::problem::Problem;
use super::{Data, catalog};

/// "A list of up to 20 subscription items": Stripe's description of its API.
const MOST: usize = 20;

/// The items of a subscription.
pub fn of(subscription: &Value) -> &[Value] {
    subscription["items"]["data"].as_array().map_or(&[], Vec::as_slice)
}

/// How many of its price an item is for. Metered items have no quantity.
pub fn quantity(item: &Value) -> i64 {
    item["quantity"].as_i64().unwrap_or(1)
}

/// What a month of an item costs. Usage is not known in advance.
pub fn monthly(item: &Value) -> i64 {
    if is_metered(&item["price"]) {
        0
    } else {
        item["price"]["unit_amount"].as_i64().unwrap_or(0).saturating_mul(quantity(item))
    }
}

/// From when on an item's usage was not billed yet: since its price, or since the period began.
pub fn usage_from(item: &Value) -> i64 {
    let start = item["current_period_start"].as_i64().unwrap_or(0);
    item["_sandbox"]["usage_from"].as_i64().map_or(start, |from| from.max(start))
}

/// Sets the period of all items.
pub fn begin_period(subscription: &mut Value, (start, end): (i64, i64)) {
    for item in subscription["items"]["data"].as_array_mut().into_iter().flatten() {
        (item["current_period_start"], item["current_period_end"]) = (json!(start), json!(end));
        if let Some(fields) = item.as_object_mut() {
            fields.remove("_sandbox");
        }
    }
}

/// The parts of a list in a form, in their order.
fn listed(p: &Value) -> Vec<(String, Value)> {
    let mut all: Vec<_> = p.as_object().into_iter().flatten().map(|(i, v)| (i.clone(), v.clone())).collect();
    all.sort_by_key(|(i, _)| i.parse::<usize>().unwrap_or(usize::MAX));
    all
}

/// A quantity that a request gives, checked against its price.
fn given_quantity(given: &Value, price: &Value) -> Result<Option<i64>, Problem> {
    match given["quantity"].as_str() {
        None => Ok(None),
        // As Stripe's users see it, for example pay-rails/pay#193.
        Some(_) if is_metered(price) => Err(Problem::bad("You cannot set the quantity for metered plans.")),
        Some(text) => match text.parse() {
            Ok(quantity) if quantity >= 0 => Ok(Some(quantity)),
            _ => Err(Problem::invalid(format!("Invalid integer: {text}"))),
        },
    }
}

/// What a new subscription or a Checkout session is for: the prices with their quantities, each price once, in one
/// currency.
pub fn wanted(data: &Data, p: &Value) -> Result<Vec<(Value, Option<i64>)>, Problem> {
    let mut all: Vec<(Value, Option<i64>)> = Vec::new();
    for (_, given) in listed(p) {
        let price = known(data, &given)?;
        let quantity = given_quantity(&given, &price)?;
        all.push((price, quantity));
    }
    let prices: Vec<&Value> = all.iter().map(|(price, _)| price).collect();
    check(&prices)?;
    Ok(all)
}

fn known(data: &Data, given: &Value) -> Result<Value, Problem> {
    let name = given["price"].as_str().unwrap_or_default();
    catalog::price(data, name).ok_or_else(|| Problem::bad(format!("No such price: '{name}'")))
}

/// One item at least, twenty at most, each price once, and one currency.
fn check(prices: &[&Value]) -> Result<(), Problem> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let Some(first) = prices.first() else {
        return Err(Problem::bad("A subscription must have at least one active plan."));
    };
    if prices.len() > MOST {
        return Err(Problem::bad(format!("A subscription can have at most {MOST} items.")));
    }
    for (i, price) in prices.iter().enumerate() {
        if price["currency"] != first["currency"] {
            return Err(Problem::bad(format!(
                "The price specified only supports `{}`. This doesn't match the expected currency: `{}`.",
                text(&price["currency"]),
                text(&first["currency"])
            )));
        }
        // As Stripe's users see it: stripe-archive/submigrate#1.
        if prices[..i].iter().any(|before| before["id"] == price["id"]) {
            let message = format!("Cannot add multiple subscription items with the same plan: {}", text(&price["id"]));
            return Err(Problem::bad(message));
        }
    }
    Ok(())
}

/// An item. `usage_from`: from when on it bills usage, if that is not the period's start.
pub fn item(data: &mut Data, subscription: &str, price: Value, quantity: Option<i64>, period: (i64, i64)) -> Value {
    let mut item = json!({
        "id": data.next_id("si"), "object": "subscription_item", "created": data.now(), "subscription": subscription,
        "discounts": [], "metadata": {}, "current_period_start": period.0, "current_period_end": period.1,
    });
    if !is_metered(&price) {
        item["quantity"] = json!(quantity.unwrap_or(1));
    }
    item["price"] = price;
    item
}

/// What the items of a subscription become by a request: other prices and quantities, more items, or fewer.
pub fn planned(data: &mut Data, subscription: &Value, p: &Value, now: i64) -> Result<Vec<Value>, Problem> {
    let mut all = of(subscription).to_vec();
    let period = (now, all.first().and_then(|item| item["current_period_end"].as_i64()).unwrap_or(now));
    for (_, given) in listed(&p["items"]) {
        let Some(id) = given["id"].as_str() else {
            let price = known(data, &given)?;
            let quantity = given_quantity(&given, &price)?;
            let mut new = item(data, subscription["id"].as_str().unwrap_or_default(), price, quantity, period);
            new["_sandbox"]["usage_from"] = json!(now);
            all.push(new);
            continue;
        };
        let at = all.iter().position(|item| item["id"] == id);
        let at = at.ok_or_else(|| Problem::missing("subscription_item", id))?;
        if given["deleted"] == "true" {
            all.remove(at);
            continue;
        }
        let price = if given["price"].is_null() { all[at]["price"].clone() } else { known(data, &given)? };
        let quantity = given_quantity(&given, &price)?;
        if price["id"] != all[at]["price"]["id"] {
            all[at]["_sandbox"]["usage_from"] = json!(now);
        }
        let kept = all[at]["quantity"].as_i64();
        if let Some(fields) = all[at].as_object_mut() {
            fields.remove("quantity");
        }
        if !is_metered(&price) {
            all[at]["quantity"] = json!(quantity.or(kept).unwrap_or(1));
        }
        all[at]["price"] = price;
    }
    let prices: Vec<&Value> = all.iter().map(|item| &item["price"]).collect();
    check(&prices)?;
    Ok(all)
}
