//! Meter events: usage that is sent, once, within Stripe's limits
//! (<https://docs.stripe.com/api/billing/meter-event/create>).

use serde_json::{Value, json};

use super::fields::required;
use super::meter_errors::Defect;
use super::problem::{Events, Problem};
use super::usage::Reported;
use super::{Data, meters};

/// "Within the past 35 calendar days or up to 5 minutes in the future".
const BACK: i64 = 35 * 24 * 3600;
const AHEAD: i64 = 300;

/// For how long an identifier is unique: "a rolling period of at least 24 hours". The stand-in forgets it then, so that
/// no program relies on more.
const UNIQUE: i64 = 24 * 3600;

/// The longest names, identifiers and payload values, as in Stripe's description of its API.
const LONGEST: usize = 100;

/// The most digits of a value:
/// <https://docs.stripe.com/changelog/dahlia/2026-04-22/billing-meter-event-values-validation>
const DIGITS: usize = 15;

/// What an event says, once it is found right.
struct Checked {
    meter: Value,
    customer: String,
    value: i64,
}

/// Takes an event.
pub fn create(data: &mut Data, p: &Value, events: &mut Events) -> Result<Value, Problem> {
    let name = required(&p["event_name"], "event_name", LONGEST)?.to_owned();
    let payload = payload(p)?;
    let identifier = match &p["identifier"] {
        Value::Null => data.next_id("event"),
        given => required(given, "identifier", LONGEST)?.to_owned(),
    };
    let timestamp = match p["timestamp"].as_str() {
        None => None,
        Some(at) => Some(at.parse::<i64>().map_err(|_| Problem::invalid(format!("Invalid integer: {at}")))?),
    };
    is_new(data, &identifier)?;
    let now = customer_of(data, &name, payload).map_or_else(|| data.now(), |id| data.now_of(&json!(id)));
    let answer = json!({
        "object": "billing.meter_event", "created": now, "event_name": name, "identifier": identifier, "livemode": false,
        "payload": payload, "timestamp": timestamp.unwrap_or(now),
    });
    match check(data, &name, payload, (timestamp.unwrap_or(now), now)) {
        Ok(Checked { meter, customer, value }) => {
            let shown_ms = jiff::Timestamp::now().as_millisecond() + i64::from(data.metering.shown_after_ms);
            let timestamp = timestamp.unwrap_or(now);
            let event = Reported { identifier, timestamp, value, received: now, shown_ms, cancelled: false };
            data.usage.add(meter["id"].as_str().unwrap_or_default(), &customer, event);
        }
        Err(defect) if at_once(data, &defect) => return Err(defect.refusal()),
        Err(defect) => {
            let customer = customer_of(data, &name, payload).unwrap_or_default();
            data.usage.identify(&identifier, &customer, now);
            // "The request idempotency key", by Stripe's description of the report.
            let request = data.request.idempotency_key.clone().unwrap_or(identifier);
            events.push(defect.report(meters::named(data, &name).last(), &request, now));
        }
    }
    Ok(answer)
}

/// Names and texts.
fn payload(p: &Value) -> Result<&Value, Problem> {
    let payload = &p["payload"];
    let Some(fields) = payload.as_object() else {
        required(&Value::Null, "payload", LONGEST)?;
        return Ok(payload);
    };
    match fields.iter().find(|(_, value)| value.as_str().is_none_or(|text| text.chars().count() > LONGEST)) {
        None => Ok(payload),
        Some((key, _)) => {
            Err(Problem::invalid(format!("Invalid string: payload[{key}]; must be at most {LONGEST} characters")))
        }
    }
}

/// Refuses an identifier that was used within a day, in Stripe's words and without a code, and asks not to try again:
/// as langfuse/langfuse#16292 records it.
fn is_new(data: &Data, identifier: &str) -> Result<(), Problem> {
    let used = data.usage.identified(identifier);
    if used.is_none_or(|(customer, at)| data.now_of(&json!(customer)) - at >= UNIQUE) {
        return Ok(());
    }
    let message = format!("An event already exists with identifier {identifier}.");
    Err(Problem { should_retry: Some(false), ..Problem::bad(message) })
}

/// Whether Stripe finds a fault at once. A customer that was deleted is missed later.
fn at_once(data: &mut Data, defect: &Defect) -> bool {
    let deleted =
        |id: &str| data.list("customer").iter().any(|customer| customer["id"] == id && customer["deleted"] == true);
    match defect {
        Defect::UnknownCustomer(id) => !data.metering.report_errors_later && !deleted(id),
        _ => !data.metering.report_errors_later,
    }
}

/// The id of the customer that an event names, by the meter's mapping.
fn customer_of(data: &Data, name: &str, payload: &Value) -> Option<String> {
    let key = meters::named(data, name).last()?["customer_mapping"]["event_payload_key"].as_str()?;
    payload[key].as_str().map(str::to_owned)
}

fn check(data: &Data, name: &str, payload: &Value, (timestamp, now): (i64, i64)) -> Result<Checked, Defect> {
    let Some(meter) = meters::active(data, name).cloned() else {
        let archived = meters::named(data, name).next().is_some();
        return Err(if archived { Defect::ArchivedMeter(name.into()) } else { Defect::NoMeter(name.into()) });
    };
    let key = |setting: &str| meter[setting]["event_payload_key"].as_str().unwrap_or_default().to_owned();
    let field = |key: &str| payload[key].as_str().filter(|text| !text.is_empty());
    let (customer_key, value_key) = (key("customer_mapping"), key("value_settings"));
    let customer = field(&customer_key).ok_or(Defect::NoCustomer(customer_key.clone()))?.to_owned();
    let known = |found: &Value| found["id"] == customer.as_str() && found["deleted"] != true;
    if !data.list("customer").iter().any(known) {
        return Err(Defect::UnknownCustomer(customer));
    }
    let value = match field(&value_key) {
        Some(text) => whole_number(text)?,
        None if meter["default_aggregation"]["formula"] == "count" => 1,
        None => return Err(Defect::NoValue(value_key)),
    };
    if timestamp < now - BACK {
        return Err(Defect::TooOld);
    }
    if timestamp > now + AHEAD {
        return Err(Defect::InFuture);
    }
    Ok(Checked { meter, customer, value })
}

/// "The numerical usage value in the payload only accepts whole number values", negative ones too:
/// <https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api#usage-values>
fn whole_number(text: &str) -> Result<i64, Defect> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Defect::InvalidValue(text.into()));
    }
    if digits.trim_start_matches('0').len() > DIGITS {
        return Err(Defect::TooManyDigits(text.into()));
    }
    text.parse().map_err(|_| Defect::InvalidValue(text.into()))
}

/// Cancels an event, "within 24 hours of Stripe receiving" it
/// (<https://docs.stripe.com/api/billing/meter-event-adjustment/create>).
pub fn adjust(data: &mut Data, p: &Value) -> Result<Value, Problem> {
    let name = required(&p["event_name"], "event_name", LONGEST)?.to_owned();
    if required(&p["type"], "type", LONGEST)? != "cancel" {
        return Err(Problem::invalid("Invalid type: must be cancel"));
    }
    let identifier = required(&p["cancel"]["identifier"], "cancel[identifier]", LONGEST)?.to_owned();
    let meter = meters::active(data, &name).cloned().ok_or_else(|| Defect::NoMeter(name.clone()).refusal())?;
    let now =
        data.usage.identified(&identifier).map_or_else(|| data.now(), |(customer, _)| data.now_of(&json!(customer)));
    let missing = || Problem::bad(format!("No event found with identifier {identifier}."));
    let event = data.usage.find(meter["id"].as_str().unwrap_or_default(), &identifier).ok_or_else(missing)?;
    if event.cancelled {
        return Err(Problem::bad(format!("The event with identifier {identifier} is already cancelled.")));
    }
    if now - event.received > UNIQUE {
        return Err(Problem::bad("You can only cancel events within 24 hours of Stripe receiving them."));
    }
    event.cancelled = true;
    Ok(json!({
        "object": "billing.meter_event_adjustment", "event_name": name, "livemode": false, "type": "cancel",
        "cancel": {"identifier": identifier}, "status": "pending",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_whole_numbers_of_at_most_fifteen_digits() {
        for (text, value) in [("0", 0), ("25", 25), ("-3", -3), ("999999999999999", 999_999_999_999_999), ("007", 7)] {
            assert_eq!(whole_number(text), Ok(value), "{text}");
        }
        for text in ["", "-", "1.0", "1e3", "+1", " 1", "1,000", "0x10", "NaN", "٣"] {
            assert_eq!(whole_number(text), Err(Defect::InvalidValue(text.into())), "{text}");
        }
        for text in ["1000000000000000", "-1234567890123456"] {
            assert_eq!(whole_number(text), Err(Defect::TooManyDigits(text.into())), "{text}");
        }
    }
}
