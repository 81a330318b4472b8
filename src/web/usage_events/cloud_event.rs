//! A `CloudEvent` (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>) as JSON, and what it tells of
//! a tenant's use. `tests/conformance/usage_events.py` judges what is accepted by the spec's own JSON schema.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::units::{self, UnitsBody, quoted};
use crate::api::Timestamp;
use crate::ledger::units::Amounts;

/// The type of the events that are counted.
pub const TYPE: &str = "dev.tenant-operator.usage.v1";
/// The longest source and id, in bytes.
const LONGEST: usize = 512;
/// The longest text of a refusal, in characters: what a sender wrote is not sent back at length.
const LONGEST_DETAIL: usize = 300;

/// One event. Attributes of your own are allowed and not read.
#[derive(ToSchema)]
#[schema(as = UsageEvent)]
#[allow(dead_code, reason = "it describes what `CloudEvent` reads")]
pub struct CloudEventBody {
    /// `1.0`.
    #[schema(example = "1.0")]
    specversion: String,
    /// `dev.tenant-operator.usage.v1`.
    #[schema(rename = "type", example = "dev.tenant-operator.usage.v1")]
    type_: String,
    /// The service that reports it, as a URI reference: 1 to 512 bytes.
    #[schema(example = "/services/chat", max_length = 512)]
    source: String,
    /// The event's name at that service: 1 to 512 bytes. The same source and id are the same event.
    #[schema(example = "request-7f3a", max_length = 512)]
    id: String,
    /// The tenant's id, as `X-Tenant-Id` tells it.
    #[schema(example = "3f0c8a52-7a51-4c0e-9d4e-2f6f1f0a7c11")]
    subject: String,
    /// When it happened: at most 35 days ago.
    #[schema(format = DateTime, example = "2026-12-01T10:00:00Z")]
    time: String,
    /// `application/json`, if it is there.
    #[schema(example = "application/json")]
    datacontenttype: Option<String>,
    /// What was used.
    data: UnitsBody,
}

/// An event as it was sent. An attribute that is null is not there, as the spec's schema says.
#[derive(Default, Deserialize)]
pub struct CloudEvent<'a> {
    pub specversion: Option<String>,
    #[serde(rename = "type")]
    pub type_: Option<String>,
    pub source: Option<String>,
    pub id: Option<String>,
    pub subject: Option<String>,
    pub time: Option<String>,
    pub datacontenttype: Option<String>,
    pub dataschema: Option<String>,
    #[serde(borrow)]
    pub data: Option<&'a RawValue>,
    pub data_base64: Option<IgnoredAny>,
}

/// What an event tells.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    /// The service.
    pub source: String,
    /// Its name there.
    pub id: String,
    /// The tenant's id.
    pub tenant: String,
    /// When it happened.
    pub time: Timestamp,
    /// What was used.
    pub amounts: Amounts,
}

/// An event that is not counted.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its id, if that can be read.
    pub id: Option<String>,
    /// The kind of refusal.
    pub code: &'static str,
    /// The reason in words.
    pub detail: String,
}

impl Refused {
    /// An event that makes no sense.
    pub fn malformed(id: Option<String>, detail: &str) -> Self {
        Self { id, code: "malformed", detail: detail.chars().take(LONGEST_DETAIL).collect() }
    }
}

/// Reads one event.
pub fn read(text: &str) -> Result<Told, Refused> {
    let event: CloudEvent<'_> =
        serde_json::from_str(text).map_err(|error| Refused::malformed(None, &error.to_string()))?;
    event.told()
}

impl CloudEvent<'_> {
    /// What the event tells, or why it is not counted.
    pub fn told(self) -> Result<Told, Refused> {
        let id = named("id", self.id.as_deref());
        let readable = id.as_ref().ok().cloned();
        let malformed = |why: String| Refused::malformed(readable.clone(), &why);
        let missing = |name: &str| malformed(format!("{name}: it is missing"));
        let id = id.map_err(&malformed)?;
        match self.specversion.as_deref() {
            Some("1.0") => {}
            Some(other) => return Err(malformed(format!("specversion is {}: send 1.0", quoted(other)))),
            None => return Err(missing("specversion")),
        }
        let source = named("source", self.source.as_deref()).map_err(&malformed)?;
        let type_ = self.type_.ok_or_else(|| missing("type"))?;
        if type_ != TYPE {
            let detail = format!("type is {}: send {TYPE}", quoted(&type_));
            return Err(Refused { code: "unknown_type", ..malformed(detail) });
        }
        let tenant = self
            .subject
            .filter(|subject| !subject.is_empty())
            .ok_or_else(|| malformed("subject: it is missing. Send the tenant's id, as X-Tenant-Id tells it".into()))?;
        let time = self.time.ok_or_else(|| missing("time"))?;
        let time = time.parse().map_err(|_| {
            malformed(format!("time is {}: send a time of RFC 3339, such as 2026-12-01T10:00:00Z", quoted(&time)))
        })?;
        if let Some(kind) = self.datacontenttype.filter(|kind| !is_json(kind)) {
            return Err(malformed(format!("datacontenttype is {}: send application/json", quoted(&kind))));
        }
        if self.dataschema.is_some_and(|schema| schema.is_empty()) {
            return Err(malformed("dataschema: it is empty. Leave it out".into()));
        }
        if self.data_base64.is_some() {
            return Err(malformed("data_base64: send data as a JSON object".into()));
        }
        let data = self.data.ok_or_else(|| missing("data"))?;
        let amounts = units::amounts(data.get()).map_err(&malformed)?;
        Ok(Told { source, id, tenant, time, amounts })
    }
}

/// A source or an id that names something.
fn named(what: &str, value: Option<&str>) -> Result<String, String> {
    let value = value.ok_or_else(|| format!("{what}: it is missing"))?;
    if value.is_empty() || value.len() > LONGEST || value.chars().any(char::is_control) {
        return Err(format!("{what}: use 1 to {LONGEST} bytes without control characters"));
    }
    Ok(value.to_owned())
}

/// Whether a content type is that of JSON.
pub fn is_json(kind: &str) -> bool {
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Unit;

    const WHOLE: &str = r#"{"specversion":"1.0","type":"dev.tenant-operator.usage.v1","source":"/chat","id":"a","subject":"t",
        "time":"2026-11-29T11:00:00.123456+01:00","datacontenttype":"application/json; charset=utf-8","data":{"queries":2},
        "dataschema":null,"traceparent":"00-1","sampled":true}"#;

    #[test]
    fn an_event_tells_what_a_tenant_used_and_may_have_attributes_of_its_own() {
        let time = "2026-11-29T10:00:00Z".parse().expect("a time");
        let amounts = Amounts::of(Unit::Queries, 2);
        let told = Told { source: "/chat".into(), id: "a".into(), tenant: "t".into(), time, amounts };
        assert_eq!(read(WHOLE), Ok(told));
    }

    #[test]
    fn what_is_wrong_with_an_event_is_said_with_its_id() {
        let long = format!("\"{}\"", "x".repeat(LONGEST + 1));
        for (from, to, code, wanted) in [
            ("\"specversion\":\"1.0\",", "", "malformed", "specversion: it is missing"),
            ("\"1.0\"", "\"0.3\"", "malformed", "specversion is \"0.3\": send 1.0"),
            ("usage.v1", "usage.v2", "unknown_type", "type is \"dev.tenant-operator.usage.v2\": send dev."),
            ("\"/chat\"", "\"\"", "malformed", "source: use 1 to 512 bytes"),
            ("\"/chat\"", &long, "malformed", "source: use 1 to 512 bytes"),
            ("\"subject\":\"t\"", "\"subject\":null", "malformed", "subject: it is missing"),
            ("\"t\"", "\"\"", "malformed", "subject: it is missing"),
            ("2026-11-29T", "yesterday ", "malformed", "time is \"yesterday 11:00"),
            ("application/json;", "text/plain;", "malformed", "datacontenttype is \"text/plain; charset=utf-8\""),
            ("\"dataschema\":null", "\"dataschema\":\"\"", "malformed", "dataschema: it is empty"),
            ("\"data\":", "\"date\":", "malformed", "data: it is missing"),
            ("\"data\":", "\"data_base64\":\"e30=\",\"data\":", "malformed", "data_base64: send data"),
            ("\"queries\":2", "\"queries\":-2", "malformed", "data: queries is negative"),
        ] {
            let refused = read(&WHOLE.replace(from, to)).expect_err(to);
            assert_eq!((refused.id.as_deref(), refused.code), (Some("a"), code), "{to}: {refused:?}");
            assert!(refused.detail.starts_with(wanted), "{to}: {refused:?}");
        }
    }

    #[test]
    fn an_id_that_names_nothing_is_not_sent_back() {
        for id in ["\"\"", "\"a\\u0000b\"", "\"a\\r\\nb\"", "null", "7", &format!("\"{}\"", "x".repeat(LONGEST + 1))] {
            let refused = read(&WHOLE.replace("\"a\"", id)).expect_err(id);
            assert_eq!((refused.id.as_deref(), refused.code), (None, "malformed"), "{id}: {refused:?}");
        }
        let text = format!("\"{}\"", "x".repeat(1 << 20));
        let refused = read(&text).expect_err("a string");
        assert!(refused.detail.len() <= LONGEST_DETAIL, "{}", refused.detail.len());
    }
}
