//! How events are written into a request, by its content type: one or many as `CloudEvents` JSON, one for each line, or
//! one in binary mode, with its attributes in headers
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>).

use std::borrow::Cow;

use axum::http::{HeaderMap, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::cloud_event::{self, CloudEvent, Refused, Told};
use super::{malformed, too_many_events};
use crate::ledger::wire::EVENTS;
use crate::web::serving::problem::{Code, Problem};

/// How the events of a request are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// One event.
    One,
    /// An array of events.
    Batch,
    /// An event in each line.
    Lines,
    /// The attributes in headers, the data in the body.
    Binary,
}

/// Each event of a request, or why it is not counted.
type Read = Vec<Result<Told, Refused>>;

/// Another content type.
pub fn other_type() -> Problem {
    let detail = "Send application/cloudevents+json, application/cloudevents-batch+json or application/x-ndjson in UTF-8, \
        or application/json with the headers ce-specversion, ce-type, ce-source, ce-id, ce-subject and ce-time.";
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::MediaType, detail)
}

impl Encoding {
    /// As the headers say.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let mut parts = kind.split(';').map(|part| part.trim().to_ascii_lowercase());
        let kind = parts.next().unwrap_or_default();
        let charset = parts.find_map(|part| part.strip_prefix("charset=").map(|set| set.trim_matches('"').to_owned()));
        if charset.is_some_and(|set| set != "utf-8") {
            return Err(other_type());
        }
        match kind.as_str() {
            "application/cloudevents+json" => Ok(Self::One),
            "application/cloudevents-batch+json" => Ok(Self::Batch),
            "application/x-ndjson" => Ok(Self::Lines),
            "application/json" if headers.contains_key("ce-specversion") => Ok(Self::Binary),
            _ => Err(other_type()),
        }
    }

    /// The events of a body.
    pub fn read(self, headers: &HeaderMap, body: &[u8]) -> Result<Read, Problem> {
        match self {
            Self::One => Ok(vec![cloud_event::read(json(body)?.get())]),
            Self::Batch => {
                let Batch { events, count } =
                    serde_json::from_slice(body).map_err(|error| malformed(&format!("the batch is {error}")))?;
                if count > EVENTS {
                    return Err(too_many_events(count));
                }
                Ok(events.into_iter().map(|event| cloud_event::read(event.get())).collect())
            }
            Self::Lines => lines(body),
            Self::Binary => {
                let data = json(body)?;
                Ok(vec![attributes(headers, data).and_then(CloudEvent::told)])
            }
        }
    }
}

fn json(body: &[u8]) -> Result<&RawValue, Problem> {
    serde_json::from_slice(body).map_err(|error| malformed(&format!("the body is not JSON: {error}")))
}

/// A batch: the events that may be counted, and how many there are in all. The others are only counted, so that
/// millions of them take no memory.
struct Batch<'a> {
    events: Vec<&'a RawValue>,
    count: usize,
}

impl<'de> Deserialize<'de> for Batch<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Events;

        impl<'de> Visitor<'de> for Events {
            type Value = Batch<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "an array of events")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut events = Vec::new();
                while events.len() < EVENTS {
                    let Some(event) = seq.next_element()? else { return Ok(Batch { count: events.len(), events }) };
                    events.push(event);
                }
                let mut count = events.len();
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Batch { events, count })
            }
        }

        deserializer.deserialize_seq(Events)
    }
}

/// One event in each line. Empty lines are none; a line that is not JSON spoils none of the others.
fn lines(body: &[u8]) -> Result<Read, Problem> {
    let lines = || body.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    let count = lines().count();
    if count > EVENTS {
        return Err(too_many_events(count));
    }
    let read = |(number, line): (usize, &[u8])| match serde_json::from_slice::<&RawValue>(line) {
        Ok(event) => cloud_event::read(event.get()),
        Err(error) => Err(Refused::malformed(None, &format!("line {} is not JSON: {error}", number + 1))),
    };
    Ok(lines().map(read).collect())
}

/// An event of headers.
fn attributes<'a>(headers: &HeaderMap, data: &'a RawValue) -> Result<CloudEvent<'a>, Refused> {
    let attribute = |name: &'static str| attribute(headers, name);
    Ok(CloudEvent {
        id: attribute("ce-id")?,
        specversion: attribute("ce-specversion")?,
        type_: attribute("ce-type")?,
        source: attribute("ce-source")?,
        subject: attribute("ce-subject")?,
        time: attribute("ce-time")?,
        data: Some(data),
        ..CloudEvent::default()
    })
}

/// An attribute: quotes are taken off, and what is percent-encoded is decoded once.
fn attribute(headers: &HeaderMap, name: &'static str) -> Result<Option<String>, Refused> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let refuse = |why: &str| Refused::malformed(None, &format!("{name} {why}"));
    if values.next().is_some() {
        return Err(refuse("comes twice"));
    }
    let value = value.to_str().map_err(|_| refuse("holds what is not ASCII: percent-encode it"))?;
    let value = unquoted(value);
    let decoded = percent_decode_str(&value).decode_utf8().map_err(|_| refuse("is not percent-encoded UTF-8"))?;
    Ok(Some(decoded.into_owned()))
}

/// What a quoted string of RFC 9110 stands for.
fn unquoted(value: &str) -> Cow<'_, str> {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return value.into() };
    let (mut text, mut escaped) = (String::with_capacity(inner.len()), false);
    for character in inner.chars() {
        if character == '\\' && !escaped {
            escaped = true;
        } else {
            escaped = false;
            text.push(character);
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn event(id: &str) -> String {
        format!(
            r#"{{"specversion":"1.0","type":"{}","source":"s","id":"{id}","subject":"t","time":"2026-11-29T00:00:00Z","data":{{"queries":1}}}}"#,
            cloud_event::TYPE
        )
    }

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn ids(read: &Read) -> Vec<Option<&str>> {
        read.iter().map(|read| read.as_ref().ok().map(|told| told.id.as_str())).collect()
    }

    #[test]
    fn the_content_type_says_how_events_are_written() {
        let of = |kind| Encoding::of(&headers(&[("content-type", kind)])).map_err(|problem| problem.status().as_u16());
        assert_eq!(of("application/cloudevents+json"), Ok(Encoding::One));
        assert_eq!(of("Application/CloudEvents-Batch+JSON; charset=UTF-8"), Ok(Encoding::Batch));
        assert_eq!(of("application/x-ndjson;charset=\"utf-8\""), Ok(Encoding::Lines));
        for other in ["application/json", "text/plain", "", "application/cloudevents+json; charset=utf-16"] {
            assert_eq!(of(other), Err(415), "{other}");
        }
        let binary = headers(&[("content-type", "application/json"), ("ce-specversion", "1.0")]);
        assert_eq!(Encoding::of(&binary).map_err(|problem| problem.status()), Ok(Encoding::Binary));
    }

    #[test]
    fn a_bad_line_or_event_spoils_no_other_and_too_many_are_counted_and_refused() {
        let none = HeaderMap::new();
        let read = |encoding: Encoding, body: &str| encoding.read(&none, body.as_bytes());
        let lines = format!("{}\r\n\n{{\n{}", event("a"), event("b"));
        let lines = read(Encoding::Lines, &lines).expect("lines");
        assert_eq!(ids(&lines), [Some("a"), None, Some("b")]);
        let refused = lines[1].as_ref().expect_err("it is not JSON");
        assert!(refused.detail.starts_with("line 3 is not JSON"), "{refused:?}");
        let batch = format!("[{}, 7, {}]", event("a"), event("b"));
        assert_eq!(ids(&read(Encoding::Batch, &batch).expect("a batch")), [Some("a"), None, Some("b")]);
        assert!(read(Encoding::Batch, "[]").expect("an empty batch").is_empty());
        for (encoding, body) in
            [(Encoding::Batch, "[1"), (Encoding::Batch, "{}"), (Encoding::One, ""), (Encoding::One, "{} {}")]
        {
            assert_eq!(read(encoding, body).expect_err(body).status(), 400, "{body}");
        }
        let many = |separator: &str| vec!["1"; EVENTS + 1].join(separator);
        for (encoding, body) in [(Encoding::Batch, format!("[{}]", many(","))), (Encoding::Lines, many("\n"))] {
            let problem = read(encoding, &body).expect_err("too many");
            assert!(problem.detail().starts_with("10001 events"), "{}", problem.detail());
        }
    }

    #[test]
    fn an_event_of_headers_is_decoded_once() {
        let all = [
            ("ce-specversion", "1.0"),
            ("ce-type", cloud_event::TYPE),
            ("ce-source", "\"/a\\\"b\""),
            ("ce-id", "Euro%20%E2%82%AC%2525"),
            ("ce-subject", "t"),
            ("ce-time", "2026-11-29T00:00:00Z"),
        ];
        let read = |all: &[(&'static str, &'static str)]| {
            Encoding::Binary.read(&headers(all), br#"{"queries":1}"#).expect("JSON").remove(0)
        };
        let told = read(&all).expect("an event");
        assert_eq!((told.source.as_str(), told.id.as_str()), ("/a\"b", "Euro €%25"));
        for (name, value, wanted) in [
            ("ce-id", "twice", "ce-id comes twice"),
            ("ce-id", "a%0d%0ab", "id: use 1 to 512 bytes"),
            ("ce-id", "%FF", "ce-id is not percent-encoded UTF-8"),
        ] {
            let mut changed = all.to_vec();
            if value != "twice" {
                changed.retain(|(there, _)| *there != name);
            }
            changed.push((name, value));
            let refused = read(&changed).expect_err(value);
            assert!(refused.detail.starts_with(wanted), "{refused:?}");
        }
    }
}
