//! Callers that never stop: questions, questions with a key, streams, a gateway that has queries counted, and a service
//! that reports usage. Each repeats what got no answer, as a good client does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tenant_operator::api::Timestamp;

use super::customer::{Call, Came, Customer};
use crate::support::Ready;

pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const QUESTION: &str = "What is RAG?";
/// After an answer that says that something is away.
const PAUSE: Duration = Duration::from_millis(100);
/// A call that is repeated until it has an answer has one by then: everything was back long before.
const LONGEST: Duration = Duration::from_mins(1);

/// What a call saw.
pub struct Seen {
    sent: Instant,
    done: Instant,
    /// 0 without an answer.
    pub status: u16,
    code: String,
    pub replayed: bool,
    kept: bool,
    pub body: String,
}

impl Seen {
    fn is_used_up(&self) -> bool {
        self.status == 429 && self.code == "quota_exceeded"
    }

    fn call(&self, came: Came) -> Call {
        Call { sent: self.sent, done: self.done, came }
    }

    /// What a question came to. The whole answer has a text, and the passages that it rests on.
    fn question(&self) -> Came {
        match self.status {
            200 => {
                let answer: Value = serde_json::from_str(&self.body).expect("an answer is JSON");
                let whole = answer["answer"].as_str().is_some_and(|text| !text.is_empty());
                assert!(whole && answer["sources"][0]["title"].is_string(), "{answer}");
                Came::Answer
            }
            429 if self.is_used_up() => Came::Refusal,
            409 => Came::Nothing,
            _ => Came::Unknown,
        }
    }
}

/// What all callers share.
pub struct Load {
    pub http: reqwest::Client,
    pub ready: Ready,
    pub customers: Vec<Arc<Customer>>,
    pub over: AtomicBool,
    /// How often each kind of call came to what.
    pub tally: Mutex<BTreeMap<String, u32>>,
    /// Batches of events that were taken.
    pub batches: Mutex<Vec<String>>,
    names: AtomicUsize,
}

impl Load {
    pub fn new(ready: Ready, customers: Vec<Arc<Customer>>) -> Self {
        Self {
            http: reqwest::Client::builder().timeout(Duration::from_secs(30)).build().expect("a client"),
            ready,
            customers,
            over: AtomicBool::default(),
            tally: Mutex::default(),
            batches: Mutex::default(),
            names: AtomicUsize::default(),
        }
    }

    fn name(&self, kind: &str) -> String {
        format!("{kind}-{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Sends a request to one of the replicas, and reads all of its answer.
    async fn send(&self, kind: &str, number: usize, request: impl Fn(&str) -> RequestBuilder) -> Seen {
        let url = self.ready.one(number).await;
        let sent = Instant::now();
        let mut seen =
            Seen { sent, done: sent, status: 0, code: String::new(), replayed: false, kept: true, body: String::new() };
        if let Ok(answer) = request(&url).send().await {
            let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
            let refusal = header("x-refusal").to_owned();
            (seen.replayed, seen.kept) = (header("idempotency-replayed") == "true", header("idempotency-kept") != "no");
            let status = answer.status().as_u16();
            if let Ok(body) = answer.text().await {
                let problem = serde_json::from_str::<Value>(&body).unwrap_or_default();
                seen.code = problem["code"].as_str().map_or(refusal, str::to_owned);
                (seen.status, seen.body) = (status, body);
            }
        }
        seen.done = Instant::now();
        let what = format!("{kind} {} {}", seen.status, seen.code);
        *self.tally.lock().expect("not poisoned").entry(what).or_default() += 1;
        assert!(matches!(seen.status, 0 | 200 | 409 | 429 | 503), "{kind}: {} {}", seen.status, seen.body);
        seen
    }

    async fn ask(&self, customer: &Customer, number: usize, key: Option<&str>) -> Seen {
        let kind = if key.is_some() { "key" } else { "question" };
        self.send(kind, number, |url| {
            let request = self.http.post(format!("{url}/v1/query")).bearer_auth(&customer.key);
            let request = request.json(&json!({"question": QUESTION}));
            key.into_iter().fold(request, |request, key| request.header("idempotency-key", key))
        })
        .await
    }

    async fn question(&self, customer: &Customer, number: usize) -> Came {
        let seen = self.ask(customer, number, None).await;
        customer.saw(seen.call(seen.question()));
        seen.question()
    }

    /// A question with a key, again and again until it has an answer, or for as long as a client has patience.
    async fn keyed(&self, customer: &Customer, number: usize) -> Came {
        let key = self.name("key");
        let mut calls: Vec<Call> = Vec::new();
        for attempt in 0..6 {
            let seen = self.ask(customer, number + attempt, Some(&key)).await;
            let came = seen.question();
            if seen.replayed {
                // One of the attempts before was answered and counted; its answer was lost.
                let first = calls.iter_mut().find(|call| call.came == Came::Unknown);
                first.expect("an answer to an attempt before").came = Came::Answer;
            } else {
                calls.push(seen.call(came));
            }
            if came == Came::Answer && seen.kept {
                customer.kept.lock().expect("not poisoned").push((key.clone(), seen.body.clone()));
            }
            if matches!(came, Came::Answer | Came::Refusal) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let last = calls.last().map_or(Came::Nothing, |call| call.came);
        for call in calls {
            customer.saw(call);
        }
        last
    }

    /// A stream, read to its end or left after some of it.
    async fn stream(&self, customer: &Customer, number: usize, leave: bool) -> Came {
        let request = |url: &str| {
            let request = self.http.post(format!("{url}/v1/query")).bearer_auth(&customer.key);
            request.json(&json!({"question": QUESTION, "stream": true}))
        };
        if leave {
            let url = self.ready.one(number).await;
            let sent = Instant::now();
            if let Ok(mut answer) = request(&url).send().await {
                drop(answer.chunk().await);
            }
            customer.saw(Call { sent, done: Instant::now(), came: Came::Unknown });
            return Came::Unknown;
        }
        let seen = self.send("stream", number, request).await;
        let came = match seen.status {
            200 if seen.body.contains("event: done") && seen.body.contains("event: text") => Came::Answer,
            429 if seen.is_used_up() => Came::Refusal,
            _ => Came::Unknown,
        };
        customer.saw(seen.call(came));
        came
    }

    /// Has a query counted under a name, as a gateway does.
    pub async fn consume(&self, customer: &Customer, number: usize, name: &str) -> Seen {
        self.send("consume", number, |url| {
            let url = format!("{url}/authz?consume=queries&once=x-request-id&quota_status=429");
            self.http.get(url).bearer_auth(&customer.key).header("x-request-id", name)
        })
        .await
    }

    /// The same, until it is counted or refused for want of queries.
    pub async fn decided(&self, customer: &Customer, number: usize, name: &str) -> Seen {
        let begun = Instant::now();
        for attempt in number.. {
            let seen = self.consume(customer, attempt, name).await;
            if seen.status == 200 || seen.is_used_up() {
                return seen;
            }
            assert!(begun.elapsed() < LONGEST, "{}: {} {}", customer.name, seen.status, seen.body);
            tokio::time::sleep(PAUSE).await;
        }
        unreachable!("it is decided or fails")
    }

    /// A query that a gateway has counted. Some are asked for again afterwards: they are counted, so they pass.
    async fn gateway(&self, customer: &Customer, number: usize, again: bool) -> Came {
        let (name, begun) = (self.name("consume"), Instant::now());
        let seen = self.decided(customer, number, &name).await;
        if seen.is_used_up() {
            customer.saw(seen.call(Came::Refusal));
            return Came::Refusal;
        }
        customer.saw(Call { sent: begun, done: seen.done, came: Came::Answer });
        if again {
            let seen = self.consume(customer, number + 1, &name).await;
            assert!(!seen.is_used_up(), "{}: a query that is counted is refused", customer.name);
        }
        customer.consumed.lock().expect("not poisoned").push(name);
        Came::Answer
    }

    /// One caller of one customer, until it is over.
    pub async fn call(self: Arc<Self>, customer: Arc<Customer>, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        while !self.is_over() {
            let (kind, number) = (rng.random_range(0..10), rng.random_range(0..1000));
            let came = match kind {
                0..3 => self.question(&customer, number).await,
                3..5 => self.keyed(&customer, number).await,
                5..7 => self.stream(&customer, number, rng.random_bool(0.2)).await,
                _ => self.gateway(&customer, number, rng.random_bool(0.3)).await,
            };
            match came {
                Came::Answer => {}
                Came::Refusal => tokio::time::sleep(3 * PAUSE).await,
                Came::Nothing | Came::Unknown => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// A service that reports usage of all customers, until it is over. Some of its batches come again.
    pub async fn report(self: Arc<Self>, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        while !self.is_over() {
            let mut amounts = Vec::new();
            let events: Vec<_> = (0..rng.random_range(1..30))
                .map(|_| {
                    let customer = rng.random_range(0..self.customers.len());
                    let bytes = rng.random_range(1..1000);
                    amounts.push((customer, bytes));
                    let time = Timestamp::now().plus(-rng.random_range(0..33 * 24 * 3600));
                    json!({
                        "specversion": "1.0", "type": "dev.tenant-operator.usage.v1", "source": "/services/load",
                        "id": self.name("event"), "subject": self.customers[customer].id, "time": time,
                        "data": {"embeddedBytes": bytes},
                    })
                })
                .collect();
            let batch = json!(events).to_string();
            self.deliver(&batch, rng.random_range(0..1000)).await;
            for (customer, bytes) in amounts {
                *self.customers[customer].reported.lock().expect("not poisoned") += bytes;
            }
            let again = {
                let mut batches = self.batches.lock().expect("not poisoned");
                batches.push(batch);
                rng.random_bool(0.3).then(|| batches[rng.random_range(0..batches.len())].clone())
            };
            if let Some(batch) = again {
                let accepted = self.deliver(&batch, rng.random_range(0..1000)).await;
                assert_eq!(accepted, 0, "events that were counted before");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends a batch until there is an answer: how many of its events are new.
    pub async fn deliver(&self, batch: &str, number: usize) -> u64 {
        let begun = Instant::now();
        for attempt in number.. {
            let seen = self
                .send("events", attempt, |url| {
                    let request = self.http.post(format!("{url}/v1/usage/events")).bearer_auth(TOKEN);
                    request.header("content-type", "application/cloudevents-batch+json").body(batch.to_owned())
                })
                .await;
            if seen.status == 200 {
                let told: Value = serde_json::from_str(&seen.body).expect("JSON");
                assert_eq!(told["refused"], 0, "{told}");
                return told["accepted"].as_u64().expect("a number");
            }
            assert!(begun.elapsed() < LONGEST, "{} {}", seen.status, seen.body);
            tokio::time::sleep(PAUSE).await;
        }
        unreachable!("it has an answer or fails")
    }

    /// Asks once more under each key whose answer is kept, and has each query counted once more under its name, at most
    /// so many of each. Nothing counts again.
    pub async fn repeat(&self, customer: &Customer, most: usize) {
        let begun = Instant::now();
        let kept = customer.kept.lock().expect("not poisoned").clone();
        for (number, (key, body)) in kept.iter().rev().take(most).enumerate() {
            let mut seen = self.ask(customer, number, Some(key)).await;
            while matches!(seen.status, 0 | 503) && begun.elapsed() < LONGEST {
                seen = self.ask(customer, number, Some(key)).await;
            }
            assert!(seen.status == 200 && seen.replayed && seen.body == *body, "{key}: {} {}", seen.status, seen.body);
        }
        let consumed = customer.consumed.lock().expect("not poisoned").clone();
        for (number, name) in consumed.iter().rev().take(most).enumerate() {
            let seen = self.decided(customer, number, name).await;
            assert_eq!(seen.status, 200, "{name}: {}", seen.body);
        }
    }
}
