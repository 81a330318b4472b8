//! Each answer of the tenant API and of `/authz` says what is left of the plan, once the tenant is known.

use std::collections::BTreeSet;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tenant_operator::api::Phase;
use tenant_operator::api::tenant::{BillingMode, Desired};
use tenant_operator::web::guard_table;
use tenant_operator_dev::apply_yaml;

use crate::support::{Lab, desire, plan_with};

const QUERIES: i64 = 40;
const EMBEDDED: i64 = 50_000;
const PERIOD: i64 = 30 * 24 * 3600;

/// What the headers say.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    queries: i64,
    embedded: i64,
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().expect("text"))
}

/// The whole number of a parameter of a policy in a list such as `"queries";r=7;t=60, "embedded_bytes";r=9;t=60`.
fn parameter(list: &str, policy: &str, name: &str) -> i64 {
    let item = list.split(", ").find_map(|item| item.strip_prefix(&format!("\"{policy}\";")));
    let item = item.unwrap_or_else(|| panic!("{policy} in {list}"));
    let value = item.split(';').find_map(|part| part.strip_prefix(&format!("{name}=")));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} of {policy} in {list}"))
}

/// Reads the headers, and judges that they agree with each other and with the plan.
fn left(what: &str, answer: &Response) -> Left {
    let header = |name: &str| {
        let values = answer.headers().get_all(name).iter().count();
        assert_eq!(values, 1, "{what} ({}): {name} in {:?}", answer.status(), answer.headers());
        text(answer.headers(), name).expect("there").to_owned()
    };
    let (policy, limit) = (header("ratelimit-policy"), header("ratelimit"));
    let of = |name: &str, parameter_name: &str| parameter(&limit, name, parameter_name);
    assert_eq!((parameter(&policy, "queries", "q"), parameter(&policy, "queries", "w")), (QUERIES, PERIOD), "{policy}");
    assert_eq!(parameter(&policy, "embedded_bytes", "q"), EMBEDDED, "{policy}");
    assert!(policy.contains("qu=\"requests\"") && policy.contains("qu=\"content-bytes\""), "{policy}");
    let told = Left { queries: of("queries", "r"), embedded: of("embedded_bytes", "r") };
    assert!((0..=QUERIES).contains(&told.queries) && (0..=EMBEDDED).contains(&told.embedded), "{what}: {limit}");
    assert!((1..=PERIOD).contains(&of("queries", "t")), "{what}: {limit}");
    let number = |name: &str| header(name).parse::<i64>().unwrap_or_else(|_| panic!("{what}: {name}"));
    assert_eq!((number("x-quota-limit"), number("x-quota-remaining")), (QUERIES, told.queries), "{what}");
    assert!((number("x-quota-reset") - of("queries", "t")).abs() <= 1, "{what}");
    told
}

fn says_nothing(what: &str, answer: &Response) {
    for name in ["ratelimit-policy", "ratelimit", "x-quota-limit", "x-quota-remaining", "x-quota-reset"] {
        assert_eq!(text(answer.headers(), name), None, "{what} ({}): {name}", answer.status());
    }
}

async fn sent(request: RequestBuilder) -> Response {
    request.send().await.expect("it answers")
}

fn plan(name: &str, documents: u32, extra: &str) -> String {
    let limits =
        format!("documents: {documents}, queriesPerMonth: {QUERIES}, bytes: 100000, embeddedBytesPerMonth: {EMBEDDED}");
    format!("{}{extra}", plan_with(name, &limits))
}

async fn tenant(lab: &Lab, name: &str) -> String {
    lab.world.create(name, name, BillingMode::Manual).await;
    lab.world.wait_phase(name, Phase::Active).await;
    lab.world.api_key(name).await
}

/// Requests to a replica with one key.
struct Caller<'a> {
    lab: &'a Lab,
    key: &'a str,
}

impl Caller<'_> {
    fn to(&self, method: Method, path: &str) -> RequestBuilder {
        self.lab.world.http.request(method, self.lab.url(path)).bearer_auth(self.key)
    }

    fn query(&self) -> RequestBuilder {
        self.to(Method::POST, "/v1/query").json(&json!({"question": "What is RAG?"}))
    }

    fn upload(&self, text: &str) -> RequestBuilder {
        self.to(Method::POST, "/v1/documents").header("content-type", "text/plain").body(text.to_owned())
    }
}

/// Every route of the tenant API and every path of gateways answers with the headers, and two answers that count follow
/// each other.
#[tokio::test(flavor = "multi_thread")]
async fn every_route_says_what_is_left_and_counts_down() {
    let lab = Lab::start("quota-headers", &[]).await;
    apply_yaml(&lab.world.client, &plan("acme", 3, "")).await.expect("the plan applies");
    let key = tenant(&lab, "acme").await;
    lab.client("acme").await;
    let acme = Caller { lab: &lab, key: &key };

    let first = left("a question", &sent(acme.query()).await);
    let second = left("a question", &sent(acme.query()).await);
    assert_eq!((first.queries, second.queries), (QUERIES - 1, QUERIES - 2));
    let third = left("a query of a gateway", &sent(acme.to(Method::GET, "/authz?consume=queries")).await);
    assert_eq!(third.queries, QUERIES - 3);
    let stored = sent(acme.upload("Every employee has thirty days of vacation.")).await;
    assert_eq!(stored.status(), 201);
    let fourth = left("an upload", &stored);
    assert!(fourth.embedded < third.embedded && fourth.queries == third.queries, "{third:?} {fourth:?}");
    let id = stored.json::<Value>().await.expect("JSON")["id"].as_str().expect("an id").to_owned();

    let document = format!("/v1/documents/{id}");
    let mut open: BTreeSet<String> = guard_table()
        .into_iter()
        .filter(|[_, caller, ..]| caller.contains("API key"))
        .map(|[route, ..]| route)
        .collect();
    let streamed = acme.to(Method::POST, "/v1/query").json(&json!({"question": "What is RAG?", "stream": true}));
    for (route, request, status) in [
        ("GET /v1/documents", acme.to(Method::GET, "/v1/documents"), 200),
        ("GET /v1/documents/{id}", acme.to(Method::GET, &document), 200),
        ("GET /v1/usage", acme.to(Method::GET, "/v1/usage?days=3"), 200),
        ("POST /v1/query", streamed, 200),
        ("POST /v1/documents", acme.upload("Every employee has thirty days of vacation."), 200),
        ("DELETE /v1/documents/{id}", acme.to(Method::DELETE, &document), 204),
        ("ANY /authz", acme.to(Method::GET, "/authz"), 200),
        ("ANY /authz", lab.world.http.get(lab.url("/authz")).header("X-API-Key", &key), 200),
        ("ANY /authz/", acme.to(Method::OPTIONS, "/authz/"), 200),
        ("ANY /authz/{*rest}", acme.to(Method::POST, "/authz/consume=queries/x"), 200),
    ] {
        let answer = sent(request).await;
        assert_eq!(answer.status().as_u16(), status, "{route}");
        let told = left(route, &answer);
        assert!(told.queries <= QUERIES - 3 && told.embedded == fourth.embedded, "{route}: {told:?}");
        open.remove(route);
    }
    assert_eq!(open, BTreeSet::new(), "routes that were not asked");

    says_nothing("no key", &sent(lab.world.http.get(lab.url("/v1/usage"))).await);
    for path in ["/v1/usage", "/v1/documents", "/authz", "/v1/nowhere"] {
        let wrong = Caller { lab: &lab, key: "sk_live_a.b.c" };
        says_nothing(path, &sent(wrong.to(Method::GET, path)).await);
    }
    says_nothing("another's page", &sent(acme.to(Method::GET, "/pricing")).await);
}

/// Every refusal says so as well, whatever part of web refuses.
#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_says_what_is_left() {
    let lab = Lab::start("quota-refusals", &[]).await;
    let plans = [plan("acme", 1, ""), plan("other", 3, ""), plan("pages", 3, "  features: [basic_rag]\n")];
    for plan in &plans {
        apply_yaml(&lab.world.client, plan).await.expect("the plan applies");
    }
    let (key, other, pages) = (tenant(&lab, "acme").await, tenant(&lab, "other").await, tenant(&lab, "pages").await);
    lab.client("acme").await;
    lab.client("other").await;
    let acme = Caller { lab: &lab, key: &key };
    let asked = |text: &str| {
        acme.to(Method::POST, "/v1/query").header("content-type", "application/json").body(text.to_owned())
    };
    let keyed = |question: &str| {
        let body = json!({"question": question});
        acme.to(Method::POST, "/v1/query").header("Idempotency-Key", "one").json(&body)
    };
    assert_eq!(sent(keyed("What is RAG?")).await.status(), 200);
    let full = sent(acme.upload("Every employee has thirty days of vacation.")).await;
    assert_eq!(full.status(), 201);
    let nothing = "DELETE /v1/documents/x of another id";
    for (what, request, status, code) in [
        ("no JSON", asked("{"), 400, "malformed"),
        ("no question", asked("{\"question\": \"\"}"), 400, "invalid"),
        (
            "another type",
            acme.to(Method::POST, "/v1/query").header("content-type", "text/plain").body("{}"),
            415,
            "media_type",
        ),
        ("no question at all", asked("{}"), 422, "malformed"),
        ("too large", asked(&" ".repeat(70 << 10)), 413, "too_large"),
        ("another request with the key", keyed("What is a vector?"), 422, "idempotency_key_reused"),
        ("no such document", acme.to(Method::GET, "/v1/documents/0123456789abcdef"), 404, "no_document"),
        (nothing, acme.to(Method::DELETE, "/v1/documents/0123456789abcdef"), 404, "no_document"),
        ("no such path", acme.to(Method::GET, "/v1/nowhere"), 404, "no_such_path"),
        ("another method", acme.to(Method::PUT, "/v1/query"), 405, "method_not_allowed"),
        ("an empty file", acme.upload(""), 400, "no_file"),
        ("days", acme.to(Method::GET, "/v1/usage?days=0"), 400, "invalid"),
        ("a full plan", acme.upload("Another policy."), 403, "quota_exceeded"),
        ("a wrong setting", acme.to(Method::GET, "/authz?consume=words"), 400, "malformed"),
        ("too many", acme.to(Method::GET, "/authz?consume=queries:1000&quota_status=429"), 429, "quota_exceeded"),
        ("too many, by default", acme.to(Method::GET, "/authz?consume=queries:1000"), 403, "quota_exceeded"),
    ] {
        let answer = sent(request).await;
        let (found, told) = (answer.status().as_u16(), left(what, &answer));
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!((found, body["code"].as_str().unwrap_or_default()), (status, code), "{what}: {body}");
        assert_eq!(told.queries, QUERIES - 1, "{what}");
    }

    // The models are away: 502, and nothing is counted.
    lab.world.sandbox_post("/_sandbox/faults", json!({"provider": "openai", "status": 500, "times": 100})).await;
    let failed = sent(acme.query()).await;
    assert_eq!(failed.status(), 502);
    left("a provider that fails", &failed);
    lab.world.clear_faults().await;

    // Without access by key, suspended, closed.
    let refused = async |key: &str, path: &str| {
        let of = Caller { lab: &lab, key };
        sent(of.to(Method::GET, path)).await
    };
    for (path, status) in [("/v1/usage", 403), ("/authz?quota_status=429", 403)] {
        lab.world.until("web knows the tenant", async || refused(&pages, path).await.status() == status).await;
        assert_eq!(left(path, &refused(&pages, path).await).queries, QUERIES);
    }
    for (desired, status) in [(Desired::Suspended, 402), (Desired::Deleted, 410)] {
        desire(&lab.world, "other", desired).await.expect("patched");
        for path in ["/v1/usage", "/authz?quota_status=429"] {
            lab.world.until("it is refused", async || refused(&other, path).await.status() == status).await;
            left(path, &refused(&other, path).await);
        }
    }
}

/// So do refusals of a replica that is asked too often, and of one whose ledger is away: they tell what is known last,
/// or what the tenant's status shows where the replica has just begun.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_a_busy_replica_and_without_the_ledger_say_what_is_left() {
    let mut lab = Lab::start("quota-away", &[]).await;
    let refuses = plan("acme", 1, "  quota: {whenUnavailable: Refuse}\n");
    apply_yaml(&lab.world.client, &refuses).await.expect("the plan applies");
    let key = tenant(&lab, "acme").await;
    lab.client("acme").await;

    lab.world.start_web(&["--requests-per-second", "2"]);
    let acme = Caller { lab: &lab, key: &key };
    let known = async || sent(acme.to(Method::GET, "/v1/usage")).await.status() == 200;
    lab.world.until("web knows the tenant", known).await;
    for path in ["/v1/usage", "/authz?quota_status=429"] {
        let mut last = sent(acme.to(Method::GET, path)).await;
        for _ in 0..20 {
            left(path, &last);
            last = sent(acme.to(Method::GET, path)).await;
        }
        assert_eq!(last.status(), 429, "{path}");
        left(path, &last);
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }

    let known = left("a question", &sent(acme.query()).await);
    lab.world.kill_ledger();
    let acme = Caller { lab: &lab, key: &key };
    let away = sent(acme.query()).await;
    assert_eq!((away.status().as_u16(), left("a ledger that is away", &away).queries), (503, known.queries));
    // A replica that starts has the ledger started as well.
    lab.world.start_web(&["--requests-per-second", "1000"]);
    lab.world.kill_ledger();
    let acme = Caller { lab: &lab, key: &key };
    lab.world.until("web knows the tenant", async || sent(acme.query()).await.status() == 503).await;
    for request in [acme.query(), acme.to(Method::GET, "/authz?consume=queries&quota_status=429")] {
        let away = sent(request).await;
        assert_eq!(away.status(), 503);
        left("a replica that never heard of the ledger", &away);
    }
}
