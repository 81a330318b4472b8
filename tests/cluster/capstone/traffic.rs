//! The tenants of the capstone, what they ask, and what each answer may hold.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Response;
use serde_json::{Value, json};
use tenant_operator::api::Timestamp;

use super::shape::{Kind, Request};
use crate::support::Ready;

pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const QUESTION: &str = "What is the code word of this company?";
const WORD: &str = "codeword";

/// A tenant, and what its requests came to.
pub struct Tenant {
    pub name: String,
    pub id: String,
    pub key: String,
    pub customer: String,
    /// Requests that need a query, and those of them that were answered.
    pub wanted: AtomicI64,
    pub answered: AtomicI64,
    /// Prompt tokens of its answers, and of the events of its service.
    pub tokens: AtomicI64,
    /// The latest batch of events, to be sent again.
    batch: Mutex<Option<String>>,
}

impl Tenant {
    pub fn new(name: String, id: String, key: String, customer: String) -> Self {
        Self {
            name,
            id,
            key,
            customer,
            wanted: AtomicI64::default(),
            answered: AtomicI64::default(),
            tokens: AtomicI64::default(),
            batch: Mutex::default(),
        }
    }

    fn word(&self) -> String {
        format!("{WORD}-{}", self.id)
    }

    /// What its one document says.
    pub fn document(&self) -> String {
        format!("The code word of this company is {}. Keep the code word to yourself.", self.word())
    }

    /// All that an answer says, and each passage that it rests on, is the tenant's own.
    fn is_its_own(&self, text: &str, sources: &Value) {
        let sources = sources.as_array().expect("sources");
        assert!(!sources.is_empty(), "{}: an answer without a source: {text}", self.name);
        for source in sources {
            assert_eq!(source["title"], *self.name, "{}: {source}", self.name);
        }
        assert!(text.contains(&self.word()), "{}: {text}", self.name);
        for rest in text.split(WORD).skip(1) {
            assert!(rest[1..].starts_with(&self.id), "{} sees {WORD}{rest}", self.name);
        }
    }
}

/// What all requests share.
pub struct Traffic {
    pub http: reqwest::Client,
    pub ready: Ready,
    pub tenants: Vec<Tenant>,
    names: AtomicUsize,
}

impl Traffic {
    pub fn new(http: reqwest::Client, ready: Ready, tenants: Vec<Tenant>) -> Self {
        Self { http, ready, tenants, names: AtomicUsize::default() }
    }

    /// One request, with its answer checked.
    pub async fn request(&self, Request { tenant, kind }: Request) {
        let (tenant, number) = (&self.tenants[tenant], self.names.fetch_add(1, Ordering::Relaxed));
        let web = self.ready.one(number).await;
        match kind {
            Kind::Question => self.ask(tenant, &web, false).await,
            Kind::Stream => self.ask(tenant, &web, true).await,
            Kind::Gateway => self.consume(tenant, &web).await,
            Kind::Report(events) => self.report(tenant, &web, (number, events)).await,
        }
    }

    /// The answer to a request that needs a query. None if the plan leaves none.
    async fn answered(tenant: &Tenant, answer: Response) -> Option<Response> {
        tenant.wanted.fetch_add(1, Ordering::Relaxed);
        if answer.status() == 429 {
            let problem: Value = answer.json().await.expect("JSON");
            assert_eq!(problem["code"], "quota_exceeded", "{}", tenant.name);
            return None;
        }
        assert_eq!(answer.status(), 200, "{}", tenant.name);
        tenant.answered.fetch_add(1, Ordering::Relaxed);
        Some(answer)
    }

    async fn ask(&self, tenant: &Tenant, web: &str, stream: bool) {
        let request = self.http.post(format!("{web}/v1/query")).bearer_auth(&tenant.key);
        let answer = request.json(&json!({"question": QUESTION, "stream": stream})).send().await.expect("it answers");
        let Some(answer) = Self::answered(tenant, answer).await else { return };
        let text = answer.text().await.expect("the whole answer");
        let (sources, usage) = if stream { ends_of(&text) } else { whole(&text) };
        tenant.is_its_own(&text, &sources);
        let tokens = usage["prompt_tokens"].as_i64().expect("a number of tokens");
        tenant.tokens.fetch_add(tokens, Ordering::Relaxed);
    }

    async fn consume(&self, tenant: &Tenant, web: &str) {
        let url = format!("{web}/authz?consume=queries&quota_status=429");
        let answer = self.http.get(url).bearer_auth(&tenant.key).send().await.expect("it answers");
        let Some(answer) = Self::answered(tenant, answer).await else { return };
        let header = |name: &str| answer.headers()[name].to_str().expect("text");
        assert_eq!(header("x-tenant-id"), tenant.id);
        assert!(header("x-tenant-namespace").contains(&tenant.id), "{}", header("x-tenant-namespace"));
    }

    /// Sends events as `docs/usage-events.md` asks services to: all of them again, later, where no place became free. A
    /// replica has 34 places, and a burst has more requests at once.
    async fn send(&self, batch: &str, web: &str) -> Response {
        loop {
            let request = self.http.post(format!("{web}/v1/usage/events")).bearer_auth(TOKEN);
            let request = request.header("content-type", "application/cloudevents-batch+json").body(batch.to_owned());
            let answer = request.send().await.expect("it answers");
            if answer.status() != 429 {
                return answer;
            }
            let later = answer.headers()["retry-after"].to_str().ok().and_then(|after| after.parse().ok());
            tokio::time::sleep(Duration::from_secs(later.expect("when to send them again"))).await;
        }
    }

    /// Reports events, and some of those before once more.
    async fn report(&self, tenant: &Tenant, web: &str, (number, events): (usize, u32)) {
        let again = if number.is_multiple_of(5) { tenant.batch.lock().expect("not poisoned").take() } else { None };
        let is_new = again.is_none();
        let batch = again.unwrap_or_else(|| {
            let event = |event: u32| {
                json!({
                    "specversion": "1.0", "type": "dev.tenant-operator.usage.v1", "source": "/services/chat",
                    "id": format!("{number}-{event}"), "subject": tenant.id, "time": Timestamp::now(),
                    "data": {"promptTokens": event},
                })
            };
            json!((1..=events).map(event).collect::<Vec<_>>()).to_string()
        });
        let answer = self.send(&batch, web).await;
        assert_eq!(answer.status(), 200);
        let told: Value = answer.json().await.expect("JSON");
        let told = [&told["accepted"], &told["duplicates"], &told["refused"]].map(|n| n.as_u64().expect("a number"));
        if is_new {
            assert_eq!(told, [u64::from(events), 0, 0]);
            tenant.tokens.fetch_add(i64::from(events * (events + 1) / 2), Ordering::Relaxed);
            *tenant.batch.lock().expect("not poisoned") = Some(batch);
        } else {
            assert!(told[0] == 0 && told[1] > 0 && told[2] == 0, "{told:?}");
        }
    }
}

/// The sources and the tokens of an answer.
fn whole(text: &str) -> (Value, Value) {
    let mut answer: Value = serde_json::from_str(text).expect("JSON");
    (answer["sources"].take(), answer["usage"].take())
}

/// The same of a stream that came to its end: its first and its last event.
fn ends_of(text: &str) -> (Value, Value) {
    let event = |name: &str| {
        let rest = text.split_once(&format!("event: {name}\ndata: ")).unwrap_or_else(|| panic!("no {name}: {text}")).1;
        serde_json::from_str(rest.lines().next().expect("data")).expect("JSON")
    };
    (event("sources"), event("done"))
}
