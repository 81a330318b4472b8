//! Event summaries: what a customer used within a time
//! (<https://docs.stripe.com/api/billing/meter-event-summary/list>). They lag behind the events, as Stripe aggregates
//! asynchronously.

use serde_json::{Value, json};

use super::fields::required;
use super::problem::Problem;
use super::usage::Seen;
use super::{Data, meters};

/// Times end with the year 9999.
const FAR: i64 = 253_402_300_800;

/// The most hours or days that are looked at for one answer: more than a year of hours.
const MOST: i64 = 10_000;

/// A page: one summary for the whole time, or one for each hour or day with events, newest first.
pub fn list(data: &mut Data, id: &str, p: &Value) -> Result<Value, Problem> {
    let meter = data.find(meters::METER, id)?.clone();
    let customer = required(&p["customer"], "customer", 100)?.to_owned();
    data.find("customer", &customer)?;
    let (grouped, unit) = match p["value_grouping_window"].as_str() {
        None => (None, 60),
        Some("hour") => (Some(3600), 3600),
        Some("day") => (Some(24 * 3600), 24 * 3600),
        Some(_) => return Err(Problem::invalid("Invalid value_grouping_window: must be one of day, hour")),
    };
    let (start, end) = (aligned(p, "start_time", unit)?, aligned(p, "end_time", unit)?);
    if end <= start {
        return Err(Problem::bad("end_time must be after start_time."));
    }
    let limit =
        p["limit"].as_str().map_or(Some(10), |limit| limit.parse().ok()).filter(|limit| (1..=100).contains(limit));
    let limit: usize = limit.ok_or_else(|| Problem::invalid("Invalid limit: must be between 1 and 100"))?;
    let length = grouped.unwrap_or(end - start);
    let seen = Seen::now();
    let summary = |from: i64| {
        let (value, events) = data.usage.total(&meter, &customer, (from, from + length), seen);
        #[expect(clippy::cast_precision_loss, reason = "Stripe's values are floating-point numbers")]
        let value = value as f64;
        let summary = json!({
            "id": format!("mtrusg_test_{}{from}", customer.trim_start_matches("cus_")), "object": "billing.meter_event_summary",
            "aggregated_value": value, "start_time": from, "end_time": from + length, "livemode": false, "meter": id,
        });
        (events > 0 || grouped.is_none()).then_some(summary)
    };
    let windows = (end - start) / length;
    if windows > MOST {
        return Err(Problem::bad("The time from start_time to end_time is too long for this value_grouping_window."));
    }
    let mut all: Vec<Value> = (0..windows).rev().filter_map(|i| summary(start + i * length)).collect();
    if let Some(at) = p["starting_after"].as_str().and_then(|id| all.iter().position(|s| s["id"] == id)) {
        all.drain(..=at);
    }
    let more = all.len() > limit;
    all.truncate(limit);
    let url = format!("/v1/billing/meters/{id}/event_summaries");
    Ok(json!({"object": "list", "url": url, "has_more": more, "data": all}))
}

/// A time that begins a minute, an hour or a day: "start and end times must align with hour boundaries", or "UTC day
/// boundaries", or else "with minute boundaries" (Stripe's description of its API).
fn aligned(p: &Value, name: &str, unit: i64) -> Result<i64, Problem> {
    let text = required(&p[name], name, 100)?;
    let time = text.parse().ok().filter(|time: &i64| (0..FAR).contains(time));
    let time = time.ok_or_else(|| Problem::invalid(format!("Invalid integer: {text}")))?;
    if time.rem_euclid(unit) == 0 {
        return Ok(time);
    }
    let unit = match unit {
        60 => "minute",
        3600 => "hour",
        _ => "UTC day",
    };
    Err(Problem::bad(format!("{name} must be aligned with {unit} boundaries.")))
}
