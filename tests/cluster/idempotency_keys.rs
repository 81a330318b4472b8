//! Customers' requests with an `Idempotency-Key`: served and counted once, whatever happens meanwhile.

use std::time::Duration;

use futures::future;
use reqwest::header::HeaderValue;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tenant_operator::api::Unit;
use tokio::io::AsyncReadExt;

use crate::support::{Lab, begin};

const QUESTION: &str = "What is RAG?";

/// An answer, as far as it concerns keys.
#[derive(Debug, PartialEq)]
struct Seen {
    status: u16,
    kind: String,
    replayed: bool,
    /// Of a problem.
    code: String,
    body: String,
}

impl Seen {
    async fn of(response: Response) -> Self {
        let header = |name: &str| {
            response.headers().get(name).map(|value| value.to_str().expect("text").to_owned()).unwrap_or_default()
        };
        let (status, kind) = (response.status(), header("content-type"));
        let replayed = header("idempotency-replayed") == "true";
        assert!(status != StatusCode::CONFLICT || header("retry-after") == "1", "{}", header("retry-after"));
        assert!(!replayed || response.headers().contains_key("ratelimit"), "a replay says what is left now");
        let body = response.text().await.expect("text");
        let code = serde_json::from_str::<Value>(&body).ok().and_then(|body| Some(body["code"].as_str()?.to_owned()));
        Self { status: status.as_u16(), kind, replayed, code: code.unwrap_or_default(), body }
    }

    fn said(&self) -> (u16, &str) {
        (self.status, &self.code)
    }

    /// Whether it is the same answer, once more.
    fn repeats(&self, first: &Self) -> bool {
        self.replayed && (self.status, &self.kind, &self.body) == (first.status, &first.kind, &first.body)
    }
}

async fn ask(lab: &Lab, api_key: &str, key: impl TryInto<HeaderValue>, body: Value) -> Seen {
    let key: HeaderValue = key.try_into().unwrap_or_else(|_| panic!("HTTP takes no such header"));
    let request = lab.world.http.post(lab.url("/v1/query")).bearer_auth(api_key).header("idempotency-key", key);
    Seen::of(request.json(&body).send().await.expect("it answers")).await
}

async fn upload(lab: &Lab, api_key: &str, key: &str, (boundary, text): (&str, &str)) -> Seen {
    let part = "Content-Disposition: form-data; name=\"file\"; filename=\"holidays.txt\"";
    let form = format!("--{boundary}\r\n{part}\r\n\r\n{text}\r\n--{boundary}--\r\n");
    let request = lab.world.http.post(lab.url("/v1/documents")).bearer_auth(api_key).header("idempotency-key", key);
    let request = request.header("content-type", format!("multipart/form-data; boundary={boundary}"));
    Seen::of(request.body(form).send().await.expect("it answers")).await
}

async fn chats(lab: &Lab) -> usize {
    lab.world.calls(|request| request["path"] == "/v1/chat/completions").await
}

fn question() -> Value {
    json!({"question": QUESTION})
}

#[tokio::test]
async fn a_request_with_a_key_is_served_and_counted_once() {
    let lab = Lab::start("keys", &[("acme", "enterprise"), ("other", "enterprise")]).await;
    let (acme, other) = (lab.client("acme").await.key.clone(), lab.client("other").await.key.clone());
    let (queries, slow) = (async || lab.world.settled("acme", Unit::Queries).await, "/v1/embeddings");

    // Eight at once: one is served, and the others get its answer or are told to wait.
    lab.world.fault(json!({"provider": "openai", "path": slow, "delay_ms": 1000, "times": 1})).await;
    let all = future::join_all((0..8).map(|_| ask(&lab, &acme, "click", question()))).await;
    let (first, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|seen| seen.status == 200 && !seen.replayed);
    let [first] = &first[..] else { panic!("{first:?}") };
    let waits = |seen: &Seen| seen.said() == (409, "idempotency_in_progress");
    assert!(others.iter().all(|seen| seen.repeats(first) || waits(seen)), "{others:?}");
    assert!(others.iter().any(waits), "none came while it was served: {others:?}");
    let again = ask(&lab, &acme, "\"click\"", question()).await;
    assert!(again.repeats(first), "{again:?} is not {first:?}");
    assert_eq!((queries().await, chats(&lab).await), (1, 1));

    // A key stands for one request of one tenant.
    let seen = ask(&lab, &acme, "click", json!({"question": "What are cats?"})).await;
    assert_eq!(seen.said(), (422, "idempotency_key_reused"));
    assert_eq!(upload(&lab, &acme, "click", ("x", "Text.")).await.said(), (422, "idempotency_key_reused"));
    let seen = ask(&lab, &other, "click", question()).await;
    assert_eq!((seen.status, seen.replayed), (200, false), "{seen:?}");
    assert_eq!((queries().await, lab.world.settled("other", Unit::Queries).await), (1, 1));

    // A failure frees the key.
    lab.world.fault(json!({"provider": "openai", "path": "/v1/chat/completions", "status": 400, "times": 1})).await;
    assert_eq!(ask(&lab, &acme, "failed", question()).await.said(), (502, "provider"));
    let seen = ask(&lab, &acme, "failed", question()).await;
    assert_eq!((seen.status, seen.replayed), (200, false), "{seen:?}");
    assert_eq!(queries().await, 2);

    // What is no key, and where none is taken.
    let long = "k".repeat(10_000);
    let not_ascii = HeaderValue::from_bytes(b"\xc3\xa4\xff").expect("HTTP takes it");
    for key in ["", "a b", "\"a", "\"a\";b=1", &*long] {
        let seen = ask(&lab, &acme, key, question()).await;
        assert_eq!(seen.said(), (400, "invalid"), "{key:?}");
        assert!(seen.body.contains("Idempotency-Key"), "{}", seen.body);
    }
    assert_eq!(ask(&lab, &acme, not_ascii, question()).await.said(), (400, "invalid"));
    let seen = ask(&lab, &acme, "stream", json!({"question": QUESTION, "stream": true})).await;
    assert_eq!(seen.said(), (400, "invalid"), "{seen:?}");
    for split in ["a\rb", "a\r\n\tb", "a\0b", "a\r\nIdempotency-Key: b"] {
        let head = format!("POST /v1/query HTTP/1.1\r\nAuthorization: Bearer {acme}\r\nIdempotency-Key: {split}");
        let body = question().to_string();
        let head = format!("{head}\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
        let mut answer = [0; 12];
        let mut stream = begin(&lab.world.web, &head, body.as_bytes()).await;
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 400", "{split:?}");
    }
    assert_eq!(queries().await, 2);

    // An upload, and the same one in another form: nothing is stored again, not even after the document is gone.
    let text = "Every employee has thirty days of vacation a year.";
    let first = upload(&lab, &acme, "file", ("one", text)).await;
    assert_eq!((first.status, first.replayed), (201, false), "{first:?}");
    let again = upload(&lab, &acme, "file", ("two", text)).await;
    assert!(again.repeats(&first), "{again:?}");
    assert_eq!(lab.world.settled("acme", Unit::Documents).await, 1);
    let embedded = lab.world.settled("acme", Unit::EmbeddedBytes).await;
    let document: Value = serde_json::from_str(&first.body).expect("JSON");
    assert_eq!(lab.client_with(&acme).delete(document["id"].as_str().expect("an id")).await, 204);
    let again = upload(&lab, &acme, "file", ("three", text)).await;
    assert!(again.repeats(&first), "{again:?}");
    assert_eq!(upload(&lab, &acme, "file", ("one", "Other text.")).await.said(), (422, "idempotency_key_reused"));
    let counted = [Unit::Documents, Unit::EmbeddedBytes].map(|unit| lab.world.settled("acme", unit));
    assert_eq!(future::join_all(counted).await, [0, embedded]);
}

#[tokio::test]
async fn a_key_outlives_a_client_that_hangs_up_and_is_freed_by_a_web_that_is_killed() {
    let mut lab = Lab::start("keys-killed", &[("acme", "enterprise")]).await;
    let key = lab.client("acme").await.key.clone();
    let slow = json!({"provider": "openai", "path": "/v1/embeddings", "delay_ms": 2000, "times": 1});

    // The client hangs up, asks again, and gets the answer of the first question.
    lab.world.fault(slow.clone()).await;
    let hung_up = tokio::time::timeout(Duration::from_secs(1), ask(&lab, &key, "left", question())).await;
    assert!(hung_up.is_err(), "it came at once");
    assert_eq!(ask(&lab, &key, "left", question()).await.said(), (409, "idempotency_in_progress"));
    lab.world.until("it is answered", async || ask(&lab, &key, "left", question()).await.replayed).await;
    assert_eq!((lab.world.settled("acme", Unit::Queries).await, chats(&lab).await), (1, 1));

    // Web is killed: the key is in progress at every replica until its time is over, and then the question runs again.
    let first = lab.world.web.clone();
    lab.world.start_web(&["--requests-per-second", "1000", "--question-expiry", "5s"]);
    lab.client("acme").await;
    lab.world.fault(slow).await;
    let killed = tokio::time::timeout(Duration::from_secs(1), ask(&lab, &key, "killed", question())).await;
    assert!(killed.is_err(), "it came at once");
    lab.world.kill_last_web();
    lab.world.web = first;
    assert_eq!(ask(&lab, &key, "killed", question()).await.said(), (409, "idempotency_in_progress"));
    let answered = async || {
        let seen = ask(&lab, &key, "killed", question()).await;
        assert!(matches!(seen.status, 200 | 409), "{seen:?}");
        seen.status == 200
    };
    lab.world.until("the key is free", answered).await;
    assert!(ask(&lab, &key, "killed", question()).await.replayed);
    assert_eq!((lab.world.settled("acme", Unit::Queries).await, chats(&lab).await), (2, 2));
}

#[tokio::test]
async fn without_the_ledger_no_key_is_taken_and_an_erased_tenant_leaves_no_answer() {
    let mut lab = Lab::start("keys-away", &[("acme", "enterprise")]).await;
    let acme = lab.client("acme").await;
    let key = acme.key.clone();
    let first = ask(&lab, &key, "kept", question()).await;
    assert_eq!(first.status, 200, "{first:?}");
    lab.world.kill_ledger();
    for _ in 0..2 {
        assert_eq!(ask(&lab, &key, "kept", question()).await.said(), (503, "ledger_unavailable"));
    }
    let before = chats(&lab).await;
    assert_eq!(lab.client_with(&key).ask(QUESTION).await.status(), 200, "without a key, the plan decides");
    assert_eq!(chats(&lab).await, before + 1);
    lab.world.start_ledger();
    lab.world.until("the ledger is back", async || ask(&lab, &key, "kept", question()).await.repeats(&first)).await;

    let id = lab.world.tenants().get("acme").await.expect("it is there").spec.tenant_id.expect("an id");
    lab.world.erase("acme").await;
    lab.world.wait_gone("acme").await;
    let left = lab.world.ledger().erase_answers(&id).await.expect("the ledger answers");
    assert_eq!(left.erased, 0, "the controller erased them");
}
