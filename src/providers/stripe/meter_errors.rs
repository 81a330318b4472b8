//! Meter events that Stripe took and found wrong later. It tells of them by thin events of its API v2, once for a meter
//! and some minutes: the events are without data, which is read by their id
//! (<https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api#handle-meter-event-errors>).

use serde::Deserialize;
use stripe_client_core::{RequestBuilder, StripeMethod};

use super::{PAGE, ProviderError, Stripe};
use crate::api::Timestamp;

/// Events of a meter that were wrong.
pub const ERROR_REPORT: &str = "v1.billing.meter.error_report_triggered";
/// Events that name no meter.
pub const NO_METER: &str = "v1.billing.meter.no_meter_found";

/// Whether an event tells of usage that Stripe found wrong.
pub fn is_meter_error(type_: &str) -> bool {
    type_ == ERROR_REPORT || type_ == NO_METER
}

/// A list of API v2, whose pages are linked.
#[derive(Deserialize)]
struct Page {
    #[serde(default = "Vec::new")]
    data: Vec<Told>,
}

/// An event without its data.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Told {
    /// `evt_...`
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
}

/// What Stripe found wrong.
#[derive(Debug, Deserialize)]
pub struct MeterErrors {
    /// `evt_...`
    pub id: String,
    #[serde(default)]
    related_object: Option<Related>,
    #[serde(default)]
    data: Data,
}

#[derive(Debug, Deserialize)]
struct Related {
    id: String,
}

#[derive(Debug, Default, Deserialize)]
struct Data {
    #[serde(default)]
    validation_start: Option<Timestamp>,
    #[serde(default)]
    validation_end: Option<Timestamp>,
    #[serde(default)]
    reason: Reason,
}

#[derive(Debug, Default, Deserialize)]
struct Reason {
    #[serde(default)]
    error_types: Vec<MeterError>,
}

/// One kind of mistake.
#[derive(Debug, Deserialize)]
pub struct MeterError {
    /// Stripe's word for it, such as `meter_event_customer_not_found`.
    pub code: String,
    /// How many events had it.
    #[serde(default)]
    pub error_count: u64,
    #[serde(default)]
    sample_errors: Vec<Sample>,
}

#[derive(Debug, Deserialize)]
struct Sample {
    #[serde(default)]
    error_message: String,
    #[serde(default)]
    request: Option<Request>,
}

#[derive(Debug, Deserialize)]
struct Request {
    #[serde(default)]
    identifier: String,
}

impl MeterError {
    /// Stripe's words on some of the events.
    pub fn messages(&self) -> impl Iterator<Item = &str> {
        self.sample_errors.iter().map(|sample| &*sample.error_message)
    }

    /// The identifiers of some of the events.
    pub fn identifiers(&self) -> impl Iterator<Item = &str> {
        self.sample_errors.iter().filter_map(|sample| Some(&*sample.request.as_ref()?.identifier))
    }
}

impl MeterErrors {
    /// The meter, unless the events name none.
    pub fn meter(&self) -> Option<&str> {
        self.related_object.as_ref().map(|object| &*object.id)
    }

    /// What was wrong.
    pub fn errors(&self) -> &[MeterError] {
        &self.data.reason.error_types
    }

    /// From when to when Stripe looked at events.
    pub fn span(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        (self.data.validation_start, self.data.validation_end)
    }

    /// Whether Stripe's words name a customer.
    pub fn names(&self, customer: &str) -> bool {
        let quoted = |message: &str| {
            message.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == customer)
        };
        self.errors().iter().flat_map(MeterError::messages).any(quoted)
    }

    /// Whether Stripe's words name any customer.
    pub fn names_any(&self) -> bool {
        self.errors().iter().flat_map(MeterError::messages).any(|message| message.contains("cus_"))
    }
}

impl Stripe {
    /// The newest events that tell of usage that Stripe found wrong.
    pub async fn meter_errors(&self) -> Result<Vec<Told>, ProviderError> {
        let query = format!("types[0]={ERROR_REPORT}&types[1]={NO_METER}&limit={PAGE}");
        self.core::<Page>("/events", &query).await.map(|page| page.data)
    }

    /// One of them, with what was wrong.
    pub async fn meter_error(&self, id: &str) -> Result<MeterErrors, ProviderError> {
        self.core(&format!("/events/{id}"), "").await
    }

    /// Reads something of API v2.
    async fn core<T: serde::de::DeserializeOwned>(&self, path: &str, query: &str) -> Result<T, ProviderError> {
        let mut request = RequestBuilder::new(StripeMethod::Get, format!("/v2/core{path}"));
        request.query = Some(query.to_owned()).filter(|query| !query.is_empty());
        self.send(&request, None).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_stripe_documents_it() {
        let report: MeterErrors = serde_json::from_value(serde_json::json!({
            "id": "evt_test_1", "object": "v2.core.event", "type": ERROR_REPORT, "created": "2026-11-29T12:00:00.000Z",
            "livemode": false, "context": null, "reason": null,
            "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"},
            "data": {
                "developer_message_summary": "There is 1 invalid event",
                "validation_start": "2026-11-29T11:59:00Z", "validation_end": "2026-11-29T12:00:00Z",
                "reason": {"error_count": 1, "error_types": [{
                    "code": "meter_event_customer_not_found", "error_count": 1,
                    "sample_errors": [{"error_message": "No such customer: 'cus_1'", "request": {"identifier": "usage-1"}}],
                }]},
            },
        }))
        .expect("it is read");
        assert_eq!(report.meter(), Some("mtr_1"));
        let [error] = report.errors() else { panic!("{report:#?}") };
        assert_eq!((&*error.code, error.error_count), ("meter_event_customer_not_found", 1));
        assert_eq!(error.identifiers().collect::<Vec<_>>(), ["usage-1"]);
        assert!(report.names("cus_1") && !report.names("cus_12") && !report.names("cus_") && report.names_any());
        let start = report.span().0.expect("a time");
        assert_eq!(start, "2026-11-29T11:59:00Z".parse().expect("a time"));
    }

    #[test]
    fn a_report_of_which_nothing_is_known_is_read_as_well() {
        let report: MeterErrors =
            serde_json::from_value(serde_json::json!({"id": "evt_1", "related_object": null})).expect("it is read");
        assert!(report.meter().is_none() && report.errors().is_empty() && !report.names_any());
    }
}
