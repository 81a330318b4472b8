//! `Idempotency-Key`: a request that comes again under its key gets the first one's answer, and counts nothing.
//! <https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>
//!
//! Only answers that succeeded are kept. Refusals and failures free the key, so a retry runs again.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use sha2::{Digest, Sha256};
use tracing::Instrument;

use crate::ledger::answers::LARGEST;
use crate::ledger::wire::KeptAnswer;
use crate::web::App;
use crate::web::metering::{Attempt, Begun, KeyedRequest};
use crate::web::serving::problem::{Code, Problem};
use crate::web::serving::shares::Shares;

/// The header with the key.
pub const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that the answer is that of an earlier request.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Says that an answer is not kept.
pub const KEPT: HeaderName = HeaderName::from_static("idempotency-kept");

/// The header's name in problems.
const NAME: &str = "Idempotency-Key";
/// The longest key, in characters.
const LONGEST: usize = 255;
/// When to ask again for a request that is being served.
const AGAIN: Duration = Duration::from_secs(1);

/// Requests with a key that are served to their end where their clients hang up, at the same time. Beyond them, one
/// whose client hangs up ends, and its key is free.
const FINISHING: usize = 256;
/// Those of one tenant.
const FINISHING_OWN: usize = 32;

/// Places of requests with a key that are served to their end, by the tenants' ids. None waits for a place.
#[derive(Debug)]
pub struct KeyedPlaces(Shares<String>);

impl Default for KeyedPlaces {
    fn default() -> Self {
        Self(Shares::new(FINISHING, FINISHING_OWN, 0, Duration::ZERO))
    }
}

/// A key that a client has chosen.
#[derive(Debug, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// The key of a request.
    fn of(headers: &HeaderMap) -> Result<Option<Self>, &'static str> {
        let mut values = headers.get_all(KEY).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err("is there more than once");
        }
        // What is no text is no visible ASCII either.
        Self::parse(value.to_str().unwrap_or_default()).map(Some)
    }

    /// A string of structured fields (RFC 9651), as the draft asks for, or the bare key, as many clients send it.
    fn parse(value: &str) -> Result<Self, &'static str> {
        let key = match value.strip_prefix('"') {
            None => value.to_owned(),
            Some(quoted) => unquoted(quoted).ok_or("begins with a quotation mark and is no quoted string")?,
        };
        if (1..=LONGEST).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(key))
        } else {
            Err("must have 1 to 255 visible ASCII characters and no space")
        }
    }

    /// What the key stands for: a request of a tenant with this content.
    pub fn stands_for(&self, tenant: &str, operation: &str, content: &[&[u8]]) -> KeyedRequest {
        KeyedRequest {
            tenant: tenant.to_owned(),
            key: hash(&[self.0.as_bytes()]),
            request: hash(&[&[operation.as_bytes()], content].concat()),
        }
    }
}

/// The text of a quoted string without its first quotation mark. None if it is not well formed.
fn unquoted(quoted: &str) -> Option<String> {
    let (mut text, mut rest) = (String::new(), quoted.chars());
    loop {
        match rest.next()? {
            '"' => return rest.next().is_none().then_some(text),
            '\\' => text.push(rest.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            other => text.push(other),
        }
    }
}

/// One hash of several parts, each with its length: no part runs into the next.
fn hash(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

/// The key of a request, if it has one.
pub struct IdempotencyKey(pub Option<Key>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Key::of(&parts.headers).map(Self).map_err(invalid)
    }
}

/// A key that web does not take.
pub fn invalid(why: &str) -> Problem {
    Problem::invalid([(NAME, why.to_owned())].into())
}

/// Another request with the key is being served.
pub fn in_progress() -> Problem {
    let detail = "The first request with this Idempotency-Key is still being served. Send it again in a second.";
    Problem::new(StatusCode::CONFLICT, Code::IdempotencyInProgress, detail).after(AGAIN)
}

/// The key belongs to another request.
pub fn reused() -> Problem {
    let detail = "This Idempotency-Key belongs to a request with other content. Use a new key for each request.";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, Code::IdempotencyKeyReused, detail)
}

impl App {
    /// Serves a request, unless it was served before under its key. The work goes on to its end where the client hangs
    /// up: a retry then gets its answer, and nothing counts twice.
    pub async fn once(
        &self,
        begun: Begun,
        work: BoxFuture<'static, Result<Response, Problem>>,
    ) -> Result<Response, Problem> {
        let attempt = match begun {
            Begun::Now(attempt) => attempt,
            Begun::InProgress => return Err(in_progress()),
            Begun::OtherRequest => return Err(reused()),
            Begun::Answered(answer) => return replayed(&answer),
        };
        let place = self.keyed.0.try_take(attempt.tenant().to_owned());
        let served = served(attempt, work);
        let Some(place) = place else { return served.await };
        let to_its_end = async move {
            let served = served.await;
            drop(place);
            served
        };
        let ended = self.metering.to_its_end(to_its_end.in_current_span()).await;
        ended.map_err(|e| Problem::internal("a request with an idempotency key", &e))?
    }
}

/// Serves a request and keeps its answer if it succeeded.
async fn served(attempt: Attempt, work: BoxFuture<'static, Result<Response, Problem>>) -> Result<Response, Problem> {
    match work.await {
        Ok(response) if response.status().is_success() => kept(attempt, response).await,
        refused => {
            attempt.finish(None).await;
            refused
        }
    }
}

async fn kept(attempt: Attempt, response: Response) -> Result<Response, Problem> {
    let (mut parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.map_err(|e| Problem::internal("an answer", &e))?;
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let answer = (bytes.len() <= LARGEST).then(|| KeptAnswer {
        status: parts.status.as_u16(),
        headers: kind.map(|kind| (header::CONTENT_TYPE.to_string(), kind.to_owned())).into_iter().collect(),
        body: STANDARD.encode(&bytes),
    });
    if !attempt.finish(answer).await {
        parts.headers.insert(KEPT, HeaderValue::from_static("no"));
    }
    Ok(Response::from_parts(parts, bytes.into()))
}

/// The answer of an earlier request.
fn replayed(answer: &KeptAnswer) -> Result<Response, Problem> {
    let unreadable = |error: &dyn std::fmt::Display| Problem::internal("a kept answer", error);
    let body = STANDARD.decode(&answer.body).map_err(|e| unreadable(&e))?;
    let mut response = Response::builder().status(answer.status).header(REPLAYED, "true");
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(body)).map_err(|e| unreadable(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&[u8]]) -> Result<Option<String>, &'static str> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(KEY, HeaderValue::from_bytes(value).expect("HTTP takes it"));
        }
        Key::of(&headers).map(|key| key.map(|Key(key)| key))
    }

    #[test]
    fn a_key_is_a_quoted_string_or_bare() {
        let longest = "k".repeat(LONGEST);
        for (value, key) in [
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            (r#"a"b\c"#, r#"a"b\c"#),
            (&longest, &longest),
            (&format!("\"{longest}\""), &longest),
        ] {
            assert_eq!(of(&[value.as_bytes()]), Ok(Some(key.to_owned())), "{value}");
        }
        assert_eq!(of(&[]), Ok(None));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long = "k".repeat(LONGEST + 1);
        for value in ["", "\"\"", "a b", "\"a b\"", "\"a", "\"", "\"a\"b", "\"a\";p=1", r#""a\b""#, r#""a\"#, &long] {
            assert!(of(&[value.as_bytes()]).is_err(), "{value:?}");
        }
        assert!(of(&["schl\u{fc}ssel".as_bytes()]).is_err(), "not ASCII");
        assert!(of(&[b"\xff\xfe"]).is_err(), "no UTF-8");
        assert!(of(&[b"a\tb"]).is_err(), "a tab");
        assert!(of(&[b"a", b"a"]).is_err(), "two keys");
        let problem = invalid("is there more than once");
        assert_eq!((problem.status(), problem.code()), (StatusCode::BAD_REQUEST, "invalid"));
        assert!(problem.detail().contains(NAME), "{}", problem.detail());
    }

    #[test]
    fn one_tenant_leaves_places_for_others() {
        let places = KeyedPlaces::default();
        let take = |tenant: &str| places.0.try_take(tenant.to_owned());
        let mut held: Vec<_> = (0..1000).map_while(|_| take("flood")).collect();
        assert_eq!(held.len(), FINISHING_OWN);
        assert!(take("other").is_some());
        held.pop();
        assert!(take("flood").is_some(), "a place that was given back");
        held.extend((0..1000).map_while(|number| take(&number.to_string())));
        assert_eq!(held.len(), FINISHING);
        assert!(take("late").is_none());
    }

    #[test]
    fn a_key_stands_for_one_request_and_no_part_of_it_runs_into_the_next() {
        let key = |text: &str| Key(text.into());
        let hash = |content: &[&[u8]]| key("k").stands_for("acme", "POST /v1/query", content).request;
        assert_eq!(hash(&[b"ab", b"c"]), hash(&[b"ab", b"c"]));
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_ne!(hash(&[b"ab"]), key("k").stands_for("acme", "POST /v1/documents", &[b"ab"]).request);
        let (a, b) = (key("a").stands_for("acme", "x", &[]), key("b").stands_for("acme", "x", &[]));
        assert_ne!(a.key, b.key);
        assert_eq!(a.key.len(), 64, "the ledger takes it as a name");
    }
}
