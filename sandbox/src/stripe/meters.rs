//! Billing meters: what is counted, and how events are added up (<https://docs.stripe.com/api/billing/meter>). A meter
//! cannot be changed but for its display name
//! (<https://docs.stripe.com/billing/subscriptions/usage-based/meters/configure>).

use serde_json::{Value, json};

use super::Data;
use super::fields::required;
use super::problem::{Events, Problem};

/// The kind of object.
pub const METER: &str = "billing.meter";

/// The longest names, as in Stripe's description of its API of `POST /v1/billing/meters`.
const LONGEST_NAME: usize = 250;
const LONGEST_KEY: usize = 100;

/// One of a few words.
fn word<'a>(value: &'a Value, name: &str, words: &[&str]) -> Result<&'a str, Problem> {
    let text = required(value, name, LONGEST_KEY)?;
    if words.contains(&text) {
        return Ok(text);
    }
    Err(Problem::invalid(format!("Invalid {name}: must be one of {}", words.join(", "))))
}

/// The active meter of an event's name.
pub fn active<'a>(data: &'a Data, event_name: &str) -> Option<&'a Value> {
    named(data, event_name).find(|meter| meter["status"] == "active")
}

/// All meters that ever had this event's name.
pub fn named<'a>(data: &'a Data, event_name: &str) -> impl Iterator<Item = &'a Value> {
    data.list(METER).iter().filter(move |meter| meter["event_name"] == event_name)
}

pub fn create(data: &mut Data, p: &Value, events: &mut Events) -> Result<Value, Problem> {
    let display_name = required(&p["display_name"], "display_name", LONGEST_NAME)?;
    let event_name = required(&p["event_name"], "event_name", LONGEST_KEY)?;
    let formula =
        word(&p["default_aggregation"]["formula"], "default_aggregation[formula]", &["count", "last", "sum"])?;
    let window = match &p["event_time_window"] {
        Value::Null => Value::Null,
        window => json!(word(window, "event_time_window", &["day", "hour"])?),
    };
    let mut customer_key = "stripe_customer_id";
    if let mapping @ Value::Object(_) = &p["customer_mapping"] {
        customer_key = required(&mapping["event_payload_key"], "customer_mapping[event_payload_key]", LONGEST_KEY)?;
        word(&mapping["type"], "customer_mapping[type]", &["by_id"])?;
    }
    let value_key = match &p["value_settings"] {
        Value::Null => "value",
        settings => required(&settings["event_payload_key"], "value_settings[event_payload_key]", LONGEST_KEY)?,
    };
    is_free(data, event_name)?;
    let now = data.now();
    let meter = json!({
        "id": data.next_id("mtr_test"), "object": METER, "created": now, "updated": now, "livemode": false,
        "display_name": display_name, "event_name": event_name, "event_time_window": window, "status": "active",
        "status_transitions": {"deactivated_at": null}, "default_aggregation": {"formula": formula},
        "customer_mapping": {"type": "by_id", "event_payload_key": customer_key},
        "value_settings": {"event_payload_key": value_key},
    });
    data.insert(METER, meter.clone());
    events.push(("billing.meter.created", meter.clone()));
    Ok(meter)
}

/// "You can only use an event name with a single meter":
/// <https://docs.stripe.com/billing/subscriptions/usage-based/meters/configure>
fn is_free(data: &Data, event_name: &str) -> Result<(), Problem> {
    match active(data, event_name) {
        None => Ok(()),
        Some(meter) => Err(Problem::bad(format!(
            "An active meter with event_name {event_name} already exists: {}.",
            meter["id"].as_str().unwrap_or_default()
        ))),
    }
}

/// Changes the display name. Stripe knows no other parameter here, so the rest is refused before.
pub fn update(data: &mut Data, id: &str, p: &Value, events: &mut Events) -> Result<Value, Problem> {
    let now = data.now();
    let meter = data.find(METER, id)?;
    if !p["display_name"].is_null() {
        meter["display_name"] = json!(required(&p["display_name"], "display_name", LONGEST_NAME)?);
        meter["updated"] = json!(now);
    }
    events.push(("billing.meter.updated", meter.clone()));
    Ok(meter.clone())
}

/// An inactive meter takes no events, and no price can use it (Stripe's description of its API, `deactivate`).
pub fn deactivate(data: &mut Data, id: &str, events: &mut Events) -> Result<Value, Problem> {
    let now = data.now();
    let meter = data.find(METER, id)?;
    if meter["status"] == "inactive" {
        return Err(Problem::bad("This meter is already inactive."));
    }
    (meter["status"], meter["updated"]) = (json!("inactive"), json!(now));
    meter["status_transitions"]["deactivated_at"] = json!(now);
    events.push(("billing.meter.deactivated", meter.clone()));
    Ok(meter.clone())
}

pub fn reactivate(data: &mut Data, id: &str, events: &mut Events) -> Result<Value, Problem> {
    let now = data.now();
    let meter = data.find(METER, id)?.clone();
    if meter["status"] == "active" {
        return Err(Problem::bad("This meter is already active."));
    }
    is_free(data, meter["event_name"].as_str().unwrap_or_default())?;
    let meter = data.find(METER, id)?;
    (meter["status"], meter["updated"]) = (json!("active"), json!(now));
    meter["status_transitions"]["deactivated_at"] = Value::Null;
    events.push(("billing.meter.reactivated", meter.clone()));
    Ok(meter.clone())
}
