//! What tenants use is counted through the ledger: each unit once, and no limit is passed, whatever fails in between.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures::{StreamExt, future, stream};
use serde_json::{Value, json};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, Unit};
use tenant_operator_dev::apply_yaml;

use crate::support::{Lab, folder, plan_with};

const QUESTION: &str = "What is RAG?";

/// A lab with the tenant "acme" on a plan of its own with so many queries.
async fn lab_with(name: &str, queries: i64) -> Lab {
    let lab = Lab::start(name, &[]).await;
    set_queries(&lab, name, queries).await;
    lab.world.create("acme", name, BillingMode::Manual).await;
    lab.world.wait_phase("acme", Phase::Active).await;
    lab
}

async fn set_queries(lab: &Lab, plan: &str, queries: i64) {
    let limits = format!("documents: 100, queriesPerMonth: {queries}, bytes: 1000000");
    apply_yaml(&lab.world.client, &plan_with(plan, &limits)).await.expect("the plan applies");
}

/// The status of a question to one replica.
async fn ask(lab: &Lab, web: &str, key: &str) -> u16 {
    let request = lab.world.http.post(format!("{web}/v1/query")).bearer_auth(key);
    request.json(&json!({"question": QUESTION})).send().await.expect("it answers").status().as_u16()
}

#[tokio::test]
async fn of_four_replicas_with_one_query_left_one_answers() {
    let mut lab = lab_with("count-last", 1).await;
    let mut webs = vec![lab.world.web.clone()];
    for _ in 0..3 {
        lab.world.start_web(&["--requests-per-second", "1000"]);
        webs.push(lab.world.web.clone());
    }
    let acme = lab.client("acme").await;
    for web in &webs {
        let known = async || {
            let request = lab.world.http.get(format!("{web}/v1/usage")).bearer_auth(&acme.key);
            request.send().await.expect("it answers").status() == 200
        };
        lab.world.until("each replica knows the tenant", known).await;
    }
    let answers = future::join_all(webs.iter().cycle().take(12).map(|web| ask(&lab, web, &acme.key))).await;
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 1, "{answers:?}");
    assert!(answers.iter().all(|status| matches!(status, 200 | 429)), "{answers:?}");
    assert_eq!(lab.world.settled("acme", Unit::Queries).await, 1);
}

#[tokio::test]
async fn a_limit_that_is_raised_lets_exactly_the_difference_through() {
    let lab = lab_with("count-raised", 10).await;
    let acme = lab.client("acme").await;
    let web = lab.world.web.clone();
    let answered = async || {
        let answers = future::join_all((0..50).map(|_| ask(&lab, &web, &acme.key))).await;
        assert!(answers.iter().all(|status| matches!(status, 200 | 429)), "{answers:?}");
        answers.iter().filter(|status| **status == 200).count()
    };
    assert_eq!(answered().await, 10);
    let refused = acme.ask(QUESTION).await;
    let header = |name: &str| refused.headers()[name].to_str().expect("text").to_owned();
    assert_eq!(
        (refused.status().as_u16(), header("x-quota-limit"), header("x-quota-remaining")),
        (429, "10".into(), "0".into())
    );
    assert!(header("ratelimit-policy").starts_with("\"queries\";q=10;"), "{}", header("ratelimit-policy"));
    assert!(header("ratelimit").starts_with("\"queries\";r=0;t="), "{}", header("ratelimit"));
    set_queries(&lab, "count-raised", 20).await;
    let raised = async || lab.client("acme").await.usage().await["queries"]["limit"] == 20;
    lab.world.until("web knows the limit", raised).await;
    assert_eq!(answered().await, 10);
    assert_eq!(lab.world.settled("acme", Unit::Queries).await, 20);
    assert_eq!(acme.usage().await["queries"], json!({"used": 20, "limit": 20}));
}

/// Models that write one word of an answer, and then nothing or a word now and then. All else is the sandbox's.
struct SlowModels {
    /// The pause before each further word.
    pause: Option<Duration>,
    sandbox: String,
    http: reqwest::Client,
    chats: AtomicU32,
}

impl SlowModels {
    /// Answers their address.
    async fn start(sandbox: String, pause: Option<Duration>) -> String {
        let sandbox = sandbox.trim_end_matches("/v1").to_owned();
        let models = Self { pause, sandbox, http: reqwest::Client::new(), chats: AtomicU32::new(0) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let routes = Router::new()
            .route("/v1/chat/completions", post(Self::chat))
            .fallback(Self::forward)
            .with_state(std::sync::Arc::new(models));
        tokio::spawn(axum::serve(listener, routes).into_future());
        url
    }

    #[allow(clippy::unused_async, reason = "axum takes async handlers")]
    async fn chat(State(models): State<std::sync::Arc<Self>>, Json(_): Json<Value>) -> Response {
        models.chats.fetch_add(1, Ordering::Relaxed);
        let word = json!({"choices": [{"delta": {"content": "Retrieval "}, "finish_reason": null}]});
        let word = Bytes::from(format!("data: {word}\n\n"));
        let first = stream::iter([Ok::<_, std::convert::Infallible>(word.clone())]);
        let pause = models.pause;
        let more = stream::repeat(word).then(move |word| async move {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
            Ok(word)
        });
        let body = Body::from_stream(first.chain(more));
        ([("content-type", "text/event-stream")], body).into_response()
    }

    async fn forward(State(models): State<std::sync::Arc<Self>>, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 24).await.expect("a body");
        let url = format!("{}{}", models.sandbox, parts.uri);
        let sent = models.http.request(parts.method, url).headers(parts.headers).body(body).send().await;
        let answer = sent.expect("the sandbox answers");
        let (status, kind) = (answer.status(), answer.headers().get("content-type").cloned());
        let mut response = (status, answer.bytes().await.expect("a body")).into_response();
        response.headers_mut().extend(kind.map(|kind| (axum::http::header::CONTENT_TYPE, kind)));
        response
    }
}

/// A lab of which web asks slow models, and whose streams expire after ten seconds.
async fn slow_lab(name: &str, pause: Option<Duration>) -> Lab {
    let mut lab = lab_with(name, 100).await;
    let models = SlowModels::start(lab.world.sandbox.openai_url.clone(), pause).await;
    lab.world.environment("OPENAI_BASE_URL", &models);
    lab.world.start_web(&["--requests-per-second", "1000", "--question-expiry", "2s"]);
    lab
}

/// A stream that was asked for.
async fn stream_of(lab: &Lab, key: &str) -> reqwest::Response {
    let request = lab.world.http.post(lab.url("/v1/query")).bearer_auth(key);
    request.json(&json!({"question": QUESTION, "stream": true})).send().await.expect("it answers")
}

#[tokio::test]
async fn a_reader_that_leaves_a_stream_leaves_nothing_set_aside() {
    let mut lab = lab_with("count-left", 100).await;
    let models = SlowModels::start(lab.world.sandbox.openai_url.clone(), None).await;
    lab.world.environment("OPENAI_BASE_URL", &models);
    lab.world.start_web(&["--requests-per-second", "1000"]);
    let acme = lab.client("acme").await;

    // Before its sources are known: nothing was answered, and nothing counts.
    lab.world.fault(json!({"provider": "openai", "path": "/v1/embeddings", "delay_ms": 3000, "times": 1})).await;
    let left = tokio::time::timeout(Duration::from_secs(1), stream_of(&lab, &acme.key)).await;
    assert!(left.is_err(), "it came at once");
    let reserved = async || lab.world.counted("acme").await.is_some_and(|usage| usage.reserved.is_zero());
    lab.world.until("it is given back", reserved).await;
    assert_eq!(lab.world.settled("acme", Unit::Queries).await, 0);

    // After its first word: it counts, with the tokens that it took so far.
    let mut answer = stream_of(&lab, &acme.key).await.bytes_stream();
    let mut seen = String::new();
    while !seen.contains("event: text") {
        seen += &String::from_utf8_lossy(&answer.next().await.expect("an event").expect("bytes"));
    }
    let open = lab.world.counted("acme").await.expect("it is known");
    assert_eq!((open.used[Unit::Queries], open.reserved[Unit::Queries]), (0, 1));
    drop(answer);
    lab.world.until("it is given back", reserved).await;
    let used = lab.world.counted("acme").await.expect("it is known").used;
    assert_eq!(used[Unit::Queries], 1);
    assert!(used[Unit::PromptTokens] > 10 && used[Unit::EmbeddingTokens] > 0, "{used:?}");
    assert_eq!(used[Unit::CompletionTokens], 3, "ten bytes");
}

#[tokio::test]
async fn a_question_whose_web_is_killed_counts_as_it_was_noted() {
    let mut lab = slow_lab("count-killed", None).await;
    let acme = lab.client("acme").await;
    let mut answer = stream_of(&lab, &acme.key).await.bytes_stream();
    answer.next().await.expect("an event").expect("bytes");
    lab.world.kill_last_web();
    let open = lab.world.counted("acme").await.expect("it is known");
    assert_eq!(
        (open.used[Unit::Queries], open.reserved[Unit::Queries]),
        (0, 1),
        "it is not known yet what became of it"
    );
    assert_eq!(lab.world.settled("acme", Unit::Queries).await, 1);
    let used = lab.world.counted("acme").await.expect("it is known").used;
    assert!(used[Unit::PromptTokens] > 10, "{used:?}");
    assert_eq!(used[Unit::CompletionTokens], 0, "nothing else");
}

#[tokio::test]
async fn what_was_written_counts_though_web_is_killed_and_an_answer_in_pieces_outlives_one_in_one_piece() {
    let mut lab = slow_lab("count-written", Some(Duration::from_millis(200))).await;
    let acme = lab.client("acme").await;
    let begun = std::time::Instant::now();
    let mut answer = stream_of(&lab, &acme.key).await.bytes_stream();
    // A note every 2 seconds at least.
    while begun.elapsed() < Duration::from_secs(5) {
        answer.next().await.expect("an event").expect("bytes");
    }
    let open = lab.world.counted("acme").await.expect("it is known");
    assert_eq!((open.used[Unit::Queries], open.reserved[Unit::Queries]), (0, 1), "it has not expired");
    lab.world.kill_last_web();
    assert_eq!(lab.world.settled("acme", Unit::Queries).await, 1);
    let used = lab.world.counted("acme").await.expect("it is known").used;
    assert!(used[Unit::CompletionTokens] > 3, "more than its first word: {used:?}");
}

#[tokio::test]
async fn a_tenant_that_is_erased_while_it_asks_leaves_nothing_set_aside_and_no_answer() {
    let lab = slow_lab("count-erased", Some(Duration::from_millis(200))).await;
    let acme = lab.client("acme").await;
    let id = lab.world.tenants().get("acme").await.expect("it is there").spec.tenant_id.expect("an id");
    let mut streamed = stream_of(&lab, &acme.key).await.bytes_stream();
    streamed.next().await.expect("an event").expect("bytes");
    // One whose answer is kept under its key, and comes after the end of its tenant.
    lab.world.fault(json!({"provider": "openai", "path": "/v1/embeddings", "delay_ms": 8000, "times": 1})).await;
    let request = lab.world.http.post(lab.url("/v1/query")).bearer_auth(&acme.key).header("Idempotency-Key", "late");
    let kept = tokio::spawn(request.json(&json!({"question": QUESTION})).send());
    let ledger = lab.world.ledger();
    let usage = async || ledger.usage(&id).await.expect("the ledger answers").expect("it is known");
    lab.world.until("both are under way", async || usage().await.reserved[Unit::Queries] == 2).await;
    lab.world.erase("acme").await;
    lab.world.wait_gone("acme").await;
    assert!(!kept.is_finished(), "the key's question ends after its tenant");
    let late = kept.await.expect("it ends").expect("web answers").status();
    assert_ne!(late, 500);
    drop(streamed);
    lab.world.until("nothing is set aside", async || usage().await.reserved.is_zero()).await;
    let left = ledger.erase_answers(&id).await.expect("the ledger answers");
    assert_eq!(left.erased, 0, "an answer of an erased tenant is kept");
}

#[tokio::test]
async fn a_ledger_that_is_killed_and_comes_back_loses_nothing_and_refuses_nobody() {
    let mut lab = lab_with("count-restart", 10_000).await;
    let key = lab.client("acme").await.key.clone();
    let (web, http) = (lab.world.web.clone(), lab.world.http.clone());
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let askers: Vec<_> = (0..8)
        .map(|_| {
            let (web, http, key, over) = (web.clone(), http.clone(), key.clone(), over.clone());
            tokio::spawn(async move {
                let mut answers = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let request = http.post(format!("{web}/v1/query")).bearer_auth(&key);
                    let answer = request.json(&json!({"question": QUESTION})).send().await.expect("it answers");
                    answers.push(answer.status().as_u16());
                }
                answers
            })
        })
        .collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        lab.world.kill_ledger();
        lab.world.start_ledger();
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    over.store(true, Ordering::Relaxed);
    let answers: Vec<u16> =
        future::join_all(askers).await.into_iter().flat_map(|answers| answers.expect("it ends")).collect();
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    let answered = i64::try_from(answers.len()).expect("a few");
    assert!(answered > 20, "{answered}");
    assert_eq!(lab.world.settled("acme", Unit::Queries).await, answered);
}

#[tokio::test]
async fn a_ledger_that_stays_away_is_told_as_such_and_no_request_waits_for_it() {
    let mut lab = lab_with("count-away", 100).await;
    // A replica without a journal.
    lab.world.environment("LEDGER_JOURNAL", "");
    lab.world.start_web(&[]);
    let acme = lab.client("acme").await;
    let key = acme.key.clone();
    let web = lab.world.web.clone();
    assert_eq!(ask(&lab, &web, &key).await, 200);
    lab.world.kill_ledger();
    let begun = std::time::Instant::now();
    let answers = future::join_all((0..20).map(|_| ask(&lab, &web, &key))).await;
    assert!(answers.iter().all(|status| *status == 503), "{answers:?}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let begun = std::time::Instant::now();
    let client = lab.client_with(&key);
    for answer in [client.ask(QUESTION).await, client.get("/v1/usage").await] {
        assert!(answer.headers().contains_key("retry-after"));
        assert_eq!(answer.status(), 503);
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(body["code"], "ledger_unavailable", "{body}");
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "once it is known, no request waits: {:?}", begun.elapsed());
    lab.world.start_ledger();
    lab.world.until("it is found again", async || ask(&lab, &web, &key).await == 200).await;
    assert_eq!(lab.world.settled("acme", Unit::Queries).await, 2);
}

#[tokio::test]
async fn while_the_ledger_is_away_the_plan_says_whether_questions_are_served_and_all_are_counted_later() {
    let mut lab = lab_with("count-journal", 4).await;
    let journal = folder("count-journal-entries").display().to_string();
    lab.world.start_web(&["--requests-per-second", "1000", "--ledger-journal", &journal, "--ledger-patience", "1s"]);
    let key = lab.client("acme").await.key.clone();
    let web = lab.world.web.clone();
    assert_eq!(ask(&lab, &web, &key).await, 200);
    lab.world.kill_ledger();
    for _ in 0..5 {
        assert_eq!(ask(&lab, &web, &key).await, 200, "the plan serves without the ledger, beyond its limit");
    }
    let acme = lab.client_with(&key);
    let document = acme.store("holidays.txt", "Every employee has thirty days of vacation a year.").await;
    acme.store("laptops.txt", "Laptops are replaced after four years.").await;
    assert_eq!(acme.delete(document["id"].as_str().expect("an id")).await, 204);
    let waiting = async || {
        let text =
            lab.world.http.get(&lab.world.web_metrics).send().await.expect("metrics").text().await.expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix("ledger_journal_entries ")).expect("the metric");
        line.parse::<u32>().expect("a number")
    };
    assert!(waiting().await >= 8, "{}", waiting().await);

    let refuse = kube::api::Patch::Merge(json!({"spec": {"quota": {"whenUnavailable": "Refuse"}}}));
    let plans: kube::Api<tenant_operator::api::Plan> = kube::Api::all(lab.world.client.clone());
    plans.patch("count-journal", &Default::default(), &refuse).await.expect("patched");
    lab.world.until("the plan refuses", async || ask(&lab, &web, &key).await == 503).await;

    lab.world.start_ledger();
    let counted = async || lab.world.counted("acme").await.map(|usage| usage.used);
    lab.world
        .until("the journal is delivered", async || {
            counted().await.is_some_and(|used| used[Unit::Queries] >= 6 && used[Unit::Documents] == 1)
        })
        .await;
    let text = lab.world.http.get(&lab.world.web_metrics).send().await.expect("metrics").text().await.expect("text");
    assert!(text.lines().any(|line| line == "ledger_journal_refused_entries 0"));
    lab.world.until("it refuses by the limit again", async || ask(&lab, &web, &key).await == 429).await;
}

// The ledger comes back while the test waits for web's process.
#[tokio::test(flavor = "multi_thread")]
async fn web_that_stops_waits_for_the_ledger_to_take_its_journal() {
    let mut lab = lab_with("count-drain", 100).await;
    let key = lab.client("acme").await.key.clone();
    lab.world.start_web(&["--ledger-patience", "500ms", "--ledger-drain", "60s"]);
    assert_eq!(ask(&lab, &lab.world.web, &key).await, 200);
    lab.world.kill_ledger();
    assert_eq!(ask(&lab, &lab.world.web, &key).await, 200, "the plan serves without the ledger");
    let web = lab.world.last_web();
    web.signal("TERM");
    // Longer than web takes to end with an empty journal: nothing shows that it goes on waiting.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(web.runs(), "its journal would end with it");
    lab.world.start_ledger();
    assert_eq!(lab.world.last_web().exit_code().await, Some(0));
    assert_eq!(lab.world.settled("acme", Unit::Queries).await, 2);

    // A ledger that stays away holds it up for so long and no longer.
    lab.world.start_web(&["--ledger-patience", "500ms", "--ledger-drain", "1s"]);
    assert_eq!(ask(&lab, &lab.world.web, &key).await, 200);
    lab.world.kill_ledger();
    assert_eq!(ask(&lab, &lab.world.web, &key).await, 200);
    lab.world.last_web().signal("TERM");
    assert_eq!(lab.world.last_web().exit_code().await, Some(0));
}

#[tokio::test]
async fn what_the_version_before_counted_is_taken_over_once() {
    let mut lab = lab_with("count-before", 100).await;
    let start = lab.world.status("acme").await.quota.expect("a quota").period_start.as_second();
    let annotate = async |lab: &Lab, queries: i64, documents: i64| {
        let usage = json!({"period": start, "queries": queries, "earlier_queries": 7, "documents": documents, "bytes": 10 * documents, "embedded": 500});
        lab.world.annotate("acme", "tenant-operator.dev/usage", &usage.to_string()).await;
    };
    annotate(&lab, 90, 3).await;
    let first = lab.world.web.clone();
    lab.world.start_web(&["--requests-per-second", "1000"]);
    let second = lab.world.web.clone();
    let key = lab.world.api_key("acme").await;
    let read = async |lab: &Lab, web: &str| {
        let request = lab.world.http.get(format!("{web}/v1/usage")).bearer_auth(&key);
        request.send().await.expect("it answers").json::<Value>().await.expect("JSON")
    };
    // Both replicas at once, again and again.
    let answers = future::join_all([&first, &second].into_iter().cycle().take(20).map(|web| read(&lab, web))).await;
    lab.world.until("it is taken over", async || read(&lab, &first).await["queries"]["used"] == 90).await;
    drop(answers);
    let used = lab.world.counted("acme").await.expect("it is known").used;
    let of = |unit: Unit| used[unit];
    assert_eq!([of(Unit::Queries), of(Unit::Documents), of(Unit::Bytes), of(Unit::EmbeddedBytes)], [90, 3, 30, 500]);

    // A replica of the version before goes on during the rollout, and gives back its block when it ends.
    annotate(&lab, 98, 2).await;
    lab.world.until("the rest is taken over", async || read(&lab, &second).await["queries"]["used"] == 98).await;
    annotate(&lab, 95, 2).await;
    lab.world.until("the rest is given back", async || read(&lab, &second).await["queries"]["used"] == 95).await;
    lab.world.until("by both", async || read(&lab, &first).await["queries"]["used"] == 95).await;
    let answers =
        future::join_all([&first, &second].into_iter().cycle().take(12).map(|web| ask(&lab, web, &key))).await;
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 5, "{answers:?}");
    let used = lab.world.counted("acme").await.expect("it is known").used;
    assert_eq!([used[Unit::Queries], used[Unit::Documents], used[Unit::Bytes]], [103, 2, 20]);
    assert_eq!(read(&lab, &first).await["queries"], json!({"used": 100, "limit": 100}));
}

#[tokio::test]
async fn documents_count_once_whoever_hangs_up_and_however_often_they_are_deleted() {
    let mut lab = lab_with("count-documents", 100).await;
    let first = lab.world.web.clone();
    lab.world.start_web(&["--requests-per-second", "1000"]);
    let second = lab.world.web.clone();
    let acme = lab.client("acme").await;
    let document = acme.store("holidays.txt", "Every employee has thirty days of vacation a year.").await;
    acme.store("laptops.txt", "Laptops are replaced after four years.").await;
    assert_eq!(lab.world.settled("acme", Unit::Documents).await, 2);
    let id = document["id"].as_str().expect("an id");
    let delete = async |web: &str| {
        let request = lab.world.http.delete(format!("{web}/v1/documents/{id}")).bearer_auth(&acme.key);
        request.send().await.expect("it answers").status().as_u16()
    };
    let answers = future::join_all([&first, &second, &first, &second].map(|web| delete(web))).await;
    assert!(answers.contains(&204) && answers.iter().all(|status| matches!(status, 204 | 404)), "{answers:?}");
    assert_eq!(lab.world.settled("acme", Unit::Documents).await, 1);

    // Clients that hang up: before the file is there, nothing counts; afterwards, the document is stored and counts.
    drop(acme.begin_upload("/v1/documents").await);
    lab.world.fault(json!({"provider": "openai", "path": "/v1/embeddings", "delay_ms": 2000, "times": 1})).await;
    let hung_up = acme.upload("/v1/documents", "travel.txt", "A hotel may cost 140 euros a night.");
    assert!(tokio::time::timeout(Duration::from_secs(1), hung_up).await.is_err(), "it came at once");
    lab.world.until("it is stored", async || lab.world.settled("acme", Unit::Documents).await == 2).await;
    let page: Value = acme.get("/v1/documents").await.json().await.expect("JSON");
    assert_eq!(page["documents"].as_array().map(Vec::len), Some(2), "{page}");
    let bytes: i64 = page["documents"].as_array().expect("a list").iter().filter_map(|d| d["bytes"].as_i64()).sum();
    assert_eq!(lab.world.settled("acme", Unit::Bytes).await, bytes);
    assert_eq!(acme.usage().await["documents"]["used"], 2);
}
