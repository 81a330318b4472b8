//! Prices: for a month, or for what a meter counts (<https://docs.stripe.com/api/prices/create>).

use serde_json::{Value, json};

use super::decimals::Cents;
use super::fields::{metadata, required, text};
use super::meters::METER;
use super::problem::Problem;
use super::{Data, catalog};

/// Whether a price is for what a meter counts.
pub fn is_metered(price: &Value) -> bool {
    price["recurring"]["usage_type"] == "metered"
}

pub fn create(data: &mut Data, p: &Value) -> Result<Value, Problem> {
    let product = required(&p["product"], "product", 5000)?;
    data.find("product", product)?;
    if p["recurring"]["interval"] != "month" {
        return Err(Problem::bad("the sandbox has prices with recurring[interval]=month only"));
    }
    let meter = meter(data, &p["recurring"])?;
    let currency = required(&p["currency"], "currency", 3)?.to_owned();
    let (unit, tiers) = match p["billing_scheme"].as_str() {
        None | Some("per_unit") if p["tiers"].is_null() => (Some(unit_amount(p, "")?), Value::Null),
        Some("tiered") if meter.is_null() => {
            return Err(Problem::bad("the sandbox has tiers for metered prices only"));
        }
        Some("tiered") => (None, tiers(p)?),
        _ => return Err(Problem::bad("`tiers` requires `billing_scheme` to be set to `tiered`.")),
    };
    let id = data.next_id("price");
    let mut price = catalog::insert_price(data, &id, &p["product"], 0, &currency);
    price["unit_amount"] = json!(unit.and_then(Cents::whole));
    price["unit_amount_decimal"] = json!(unit.map(|unit| unit.to_string()));
    (price["metadata"], price["nickname"]) = (metadata(p), text(p, "nickname"));
    if !meter.is_null() {
        price["recurring"]["usage_type"] = json!("metered");
        price["recurring"]["meter"] = meter;
    }
    if !tiers.is_null() {
        (price["billing_scheme"], price["tiers_mode"]) = (json!("tiered"), p["tiers_mode"].clone());
        price["_sandbox"] = json!({"tiers": tiers});
    }
    data.find("price", &id)?.clone_from(&price);
    Ok(price)
}

/// A price, with its tiers if the request expands them: Stripe leaves them out otherwise.
pub fn retrieve(data: &mut Data, id: &str, p: &Value) -> Result<Value, Problem> {
    let mut price = data.find("price", id)?.clone();
    let asked = p["expand"].as_object().is_some_and(|all| all.values().any(|path| path == "tiers"));
    if asked && price["_sandbox"]["tiers"].is_array() {
        price["tiers"] = price["_sandbox"]["tiers"].clone();
    }
    Ok(price)
}

/// The active meter of a metered price; null for another price. Since 2025-03-31.basil, a metered price must have one
/// (<https://docs.stripe.com/changelog/basil/2025-03-31/deprecate-legacy-usage-based-billing>).
fn meter(data: &mut Data, recurring: &Value) -> Result<Value, Problem> {
    match (recurring["usage_type"].as_str(), recurring["meter"].as_str()) {
        (None | Some("licensed"), None) => Ok(Value::Null),
        (None | Some("licensed"), Some(_)) => {
            Err(Problem::bad("`recurring[meter]` can only be set where `recurring[usage_type]` is `metered`."))
        }
        (Some("metered"), Some(id)) => {
            if data.find(METER, id)?["status"] != "active" {
                return Err(Problem::bad(format!("The meter {id} is not active and cannot be attached to a price.")));
            }
            Ok(json!(id))
        }
        (Some("metered"), None) => Err(Problem::bad(
            "Starting with Stripe version `2025-03-31.basil`, metered prices must be backed by meters.",
        )),
        (Some(other), _) => Err(Problem::invalid(format!("Invalid recurring[usage_type]: {other}"))),
    }
}

/// "Only one of `unit_amount` and `unit_amount_decimal` can be set", in a price and in each of its tiers.
fn unit_amount(p: &Value, of: &str) -> Result<Cents, Problem> {
    match (p["unit_amount"].as_str(), p["unit_amount_decimal"].as_str()) {
        (Some(_), Some(_)) => Err(Problem::bad(format!(
            "You may only specify one of these parameters: {of}unit_amount, {of}unit_amount_decimal."
        ))),
        (Some(whole), None) => Cents::parse(whole)
            .filter(|cents| cents.whole().is_some() && !whole.contains('.'))
            .ok_or_else(|| Problem::invalid(format!("Invalid integer: {of}unit_amount"))),
        (None, Some(decimal)) => {
            Cents::parse(decimal).ok_or_else(|| Problem::invalid(format!("Invalid decimal: {of}unit_amount_decimal")))
        }
        (None, None) => Err(Problem::invalid(format!("Missing required param: {of}unit_amount."))),
    }
}

/// Tiers in ascending order, the last one without an end
/// (<https://docs.stripe.com/products-prices/pricing-models#tiered-pricing>).
fn tiers(p: &Value) -> Result<Value, Problem> {
    if !matches!(p["tiers_mode"].as_str(), Some("graduated" | "volume")) {
        return Err(Problem::bad("`tiers_mode` must be `graduated` or `volume` where `billing_scheme` is `tiered`."));
    }
    if !p["unit_amount"].is_null() || !p["unit_amount_decimal"].is_null() {
        return Err(Problem::bad("`unit_amount` cannot be set where `billing_scheme` is `tiered`."));
    }
    let given = p["tiers"].as_object().filter(|tiers| !tiers.is_empty());
    let given = given.ok_or_else(|| Problem::bad("Missing required param: tiers."))?;
    let (mut all, mut before) = (Vec::new(), Some(0));
    for i in 0..given.len() {
        let (tier, name) = (&given.get(&i.to_string()).cloned().unwrap_or_default(), format!("tiers[{i}]"));
        let up_to = match tier["up_to"].as_str() {
            Some("inf") => None,
            Some(bound) => {
                Some(bound.parse::<i64>().map_err(|_| Problem::invalid(format!("Invalid integer: {name}[up_to]")))?)
            }
            None => return Err(Problem::invalid(format!("Missing required param: {name}[up_to]."))),
        };
        if before.is_none_or(|before| up_to.is_some_and(|bound| bound <= before)) {
            return Err(Problem::bad(
                "Tiers must be in ascending order by `up_to`, and only the last one can be `inf`.",
            ));
        }
        before = up_to;
        let unit = unit_amount(tier, &format!("{name}."))?;
        all.push(json!({
            "up_to": up_to, "unit_amount": unit.whole(), "unit_amount_decimal": unit.to_string(), "flat_amount": null,
            "flat_amount_decimal": null,
        }));
    }
    if before.is_some() {
        return Err(Problem::bad("The last tier must have `up_to` set to `inf`."));
    }
    Ok(json!(all))
}

/// What a quantity costs: a part for each tier that it reaches, with the tier's price. Stripe lists each of them on a
/// line.
pub fn parts(price: &Value, quantity: i64) -> Vec<(i64, Cents)> {
    let unit = |of: &Value| of["unit_amount_decimal"].as_str().and_then(Cents::parse).unwrap_or_default();
    let Some(tiers) = price["_sandbox"]["tiers"].as_array() else { return vec![(quantity, unit(price))] };
    let end = |tier: &Value| tier["up_to"].as_i64().unwrap_or(i64::MAX);
    if price["tiers_mode"] == "volume" {
        let tier = tiers.iter().find(|tier| quantity <= end(tier));
        return vec![(quantity, tier.map(unit).unwrap_or_default())];
    }
    let (mut parts, mut before) = (Vec::new(), 0);
    for tier in tiers {
        let within = quantity.min(end(tier)) - before;
        if within > 0 || parts.is_empty() {
            parts.push((within.max(0), unit(tier)));
        }
        before = end(tier);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graduated_tiers_charge_each_part_and_volume_tiers_all_at_one_price() {
        let tiers = json!([{"up_to": 100, "unit_amount_decimal": "0"}, {"up_to": 200, "unit_amount_decimal": "0.5"},
            {"up_to": null, "unit_amount_decimal": "0.25"}]);
        let cents = |mode: &str, quantity| {
            let price = json!({"tiers_mode": mode, "_sandbox": {"tiers": tiers}});
            parts(&price, quantity).into_iter().map(|(part, unit)| (part, unit.times(part))).collect::<Vec<_>>()
        };
        assert_eq!(cents("graduated", 0), [(0, 0)]);
        assert_eq!(cents("graduated", 100), [(100, 0)]);
        assert_eq!(cents("graduated", 101), [(100, 0), (1, 1)]);
        assert_eq!(cents("graduated", 1000), [(100, 0), (100, 50), (800, 200)]);
        assert_eq!(cents("volume", 1000), [(1000, 250)]);
    }
}
