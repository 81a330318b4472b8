//! What is wrong with a meter event: refused at once, or reported later by an event of its own, with Stripe's codes
//! (<https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api#handle-meter-event-errors>).

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::problem::Problem;

/// A fault of a meter event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Defect {
    NoMeter(String),
    ArchivedMeter(String),
    NoCustomer(String),
    UnknownCustomer(String),
    NoValue(String),
    InvalidValue(String),
    TooManyDigits(String),
    TooOld,
    InFuture,
}

impl Defect {
    /// Stripe's code in reports. It has none for a value that is missing any more, so that counts as an invalid one.
    /// By hand: two variants share a code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoMeter(_) => "no_meter",
            Self::ArchivedMeter(_) => "archived_meter",
            Self::NoCustomer(_) => "meter_event_no_customer_defined",
            Self::UnknownCustomer(_) => "meter_event_customer_not_found",
            Self::NoValue(_) | Self::InvalidValue(_) => "meter_event_invalid_value",
            Self::TooManyDigits(_) => "meter_event_value_too_many_digits",
            Self::TooOld => "timestamp_too_far_in_past",
            Self::InFuture => "timestamp_in_future",
        }
    }

    /// Stripe's words where they are known: no meter and no customer as its users see them, digits as in its changelog
    /// (<https://docs.stripe.com/changelog/dahlia/2026-04-22/billing-meter-event-values-validation>).
    pub fn message(&self) -> String {
        match self {
            Self::NoMeter(name) | Self::ArchivedMeter(name) => {
                format!("No active meter found for event name \"{name}\".")
            }
            Self::NoCustomer(key) => format!("The event payload has no customer: it must contain the key {key}."),
            Self::UnknownCustomer(id) => format!("No such customer: '{id}'"),
            Self::NoValue(key) => format!("The event payload has no value: it must contain the key {key}."),
            Self::InvalidValue(value) => {
                format!("The value in the event payload must be a whole number. Received {value}.")
            }
            Self::TooManyDigits(value) => {
                format!("The value in the event payload can have at most 15 digits. Received {value}.")
            }
            Self::TooOld => "The timestamp must be within the past 35 calendar days.".into(),
            Self::InFuture => "The timestamp must not be more than 5 minutes in the future.".into(),
        }
    }

    /// The refusal, where Stripe validates at once. Its refusals of meter events have no code, but for unknown
    /// customers.
    pub fn refusal(&self) -> Problem {
        let code = matches!(self, Self::UnknownCustomer(_)).then_some("resource_missing");
        Problem { code, ..Problem::new(StatusCode::BAD_REQUEST, self.message()) }
    }

    /// The report, where Stripe validates later: the type of the event, and the event without what all events have.
    pub fn report(&self, meter: Option<&Value>, request: &str, now: i64) -> (&'static str, Value) {
        let minute = now - now.rem_euclid(60);
        let at = |seconds: i64| jiff::Timestamp::from_second(seconds).map(|t| t.to_string()).unwrap_or_default();
        let sample = json!({"error_message": self.message(), "request": {"identifier": request}});
        let error = json!({"code": self.code(), "error_count": 1, "sample_errors": [sample]});
        let data = json!({
            "developer_message_summary": "There is 1 invalid event", "validation_start": at(minute),
            "validation_end": at(minute + 60), "reason": {"error_count": 1, "error_types": [error]},
        });
        match meter.and_then(|meter| meter["id"].as_str()) {
            None => ("v1.billing.meter.no_meter_found", json!({"data": data})),
            Some(id) => {
                let related = json!({"id": id, "type": "billing.meter", "url": format!("/v1/billing/meters/{id}")});
                ("v1.billing.meter.error_report_triggered", json!({"data": data, "related_object": related}))
            }
        }
    }
}
