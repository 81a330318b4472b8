//! `/authz`: what a gateway asks before it lets a request through to another service. The recipes of docs/gateways.md,
//! with a real nginx, a real Traefik and a real Envoy in front of a small service.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use kube::api::Patch;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tenant_operator::api::tenant::{BillingMode, Desired};
use tenant_operator::api::{Phase, Unit};
use tenant_operator_dev::apply_yaml;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Gateway, Lab, Service, begin, desire, got, plan_with};

/// The headers that the service may rely on.
const NAMES: [&str; 7] = [
    "x-tenant-id",
    "x-tenant-namespace",
    "x-tenant-plan",
    "x-quota-limit",
    "x-quota-remaining",
    "x-quota-reset",
    "x-quota-status",
];

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

async fn sent(request: RequestBuilder) -> Response {
    request.send().await.expect("it answers")
}

fn authz(lab: &Lab, settings: &str, key: &str) -> RequestBuilder {
    lab.world.http.get(lab.url(&format!("/authz{settings}"))).bearer_auth(key)
}

/// Status, what it says of the quota, and why it refuses.
async fn told(lab: &Lab, settings: &str, key: &str) -> (u16, String, String) {
    let answer = sent(authz(lab, settings, key)).await;
    let header = |name| header(&answer, name).to_owned();
    (answer.status().as_u16(), header("x-quota-status"), header("x-refusal"))
}

/// Queries of a tenant that are counted.
async fn counted(lab: &Lab, key: &str) -> i64 {
    lab.client_with(key).usage().await["queries"]["used"].as_i64().expect("a number")
}

async fn namespace_and_id(lab: &Lab, tenant: &str) -> (String, String) {
    let tenant = lab.world.tenants().get(tenant).await.expect("it is there");
    (tenant.data_namespace(), tenant.spec.tenant_id.expect("an id"))
}

#[tokio::test]
async fn a_check_names_the_tenant_and_counts_nothing_and_consuming_counts_exactly() {
    let lab = Lab::start("authz", &[("acme", "few"), ("other", "enterprise")]).await;
    let acme = lab.client("acme").await;
    let (namespace, id) = namespace_and_id(&lab, "acme").await;
    let written = async || {
        let tenant = lab.world.tenants().get("acme").await.expect("it is there");
        let annotations = tenant.metadata.annotations.unwrap_or_default();
        // The controller notes on the object what it sent.
        let usage: Vec<_> = annotations.into_iter().filter(|(name, _)| name.contains("/usage")).collect();
        (usage, lab.world.counted("acme").await)
    };
    let before = written().await;
    for request in [
        authz(&lab, "", &acme.key),
        lab.world.http.get(lab.url("/authz")).header("X-API-Key", &acme.key),
        lab.world.http.post(lab.url("/authz")).bearer_auth(&acme.key).body("x".repeat(100_000)),
        authz(&lab, "/check/search?consume=queries:7", &acme.key),
        lab.world.http.request(Method::OPTIONS, lab.url("/authz/check/x")).bearer_auth(&acme.key),
        lab.world.http.head(lab.url("/authz/")).bearer_auth(&acme.key),
    ] {
        let answer = sent(request).await;
        assert_eq!(answer.status(), 200, "Envoy takes no other status for a yes");
        let told = NAMES.map(|name| header(&answer, name).to_owned());
        assert_eq!(told[..5], [id.clone(), namespace.clone(), "few".into(), "7".into(), "7".into()]);
        assert!(told[5].parse::<i64>().is_ok_and(|seconds| (1..=31 * 24 * 3600).contains(&seconds)), "{told:?}");
        assert_eq!((told[6].as_str(), answer.text().await.expect("text")), ("ok", String::new()));
    }
    assert_eq!(written().await, before, "checks write nothing");
    assert_eq!(counted(&lab, &acme.key).await, 0);

    // Seven in all: one, the same one again, three, and then too many.
    let consume = async |settings: &str, id: Option<&str>| {
        let mut request = authz(&lab, &format!("?consume={settings}"), &acme.key);
        if let Some(id) = id {
            request = request.header("X-Request-Id", id).header("Idempotency-Key", id);
        }
        let answer = sent(request).await;
        (answer.status().as_u16(), header(&answer, "x-quota-remaining").to_owned())
    };
    assert_eq!(consume("queries&once=x-request-id", Some("a")).await, (200, "6".into()));
    for _ in 0..5 {
        assert_eq!(consume("queries&once=x-request-id", Some("a")).await.0, 200, "the same one");
    }
    assert_eq!(counted(&lab, &acme.key).await, 1);
    assert_eq!(consume("queries:3", None).await, (200, "3".into()));
    assert_eq!(counted(&lab, &acme.key).await, 4);
    assert_eq!(consume("queries:4", None).await, (403, "3".into()), "too few are left");
    assert_eq!(consume("queries&once=idempotency-key", Some("a")).await, (200, "2".into()), "another header");
    assert_eq!(consume("queries", Some("a")).await, (200, "1".into()), "no header is named, so each request counts");
    assert_eq!(consume("queries", Some("a")).await, (200, "0".into()));
    assert_eq!(consume("queries", Some("b")).await, (403, "0".into()));
    assert_eq!(counted(&lab, &acme.key).await, 7);

    // The same as the tenant API, and told to those who pass it on.
    lab.world.until("a check sees it", async || sent(authz(&lab, "", &acme.key)).await.status() == 403).await;
    for settings in ["?quota_status=429", "?consume=queries&quota_status=429", "/quota_status=429/search"] {
        let refused = sent(authz(&lab, settings, &acme.key)).await;
        assert_eq!((refused.status().as_u16(), header(&refused, "x-quota-status")), (429, "exceeded"), "{settings}");
        assert!(header(&refused, "retry-after").parse::<i64>().is_ok_and(|wait| wait > 1000), "{settings}");
        let body: Value = refused.json().await.expect("JSON");
        assert_eq!((&body["code"], &body["status"]), (&json!("quota_exceeded"), &json!(429)));
    }
    assert_eq!(acme.ask("What is RAG?").await.status(), 429);

    // Many at once, by two replicas: as many as the plan has.
    let upgraded = json!({"spec": {"plan": "enterprise"}});
    lab.world.tenants().patch("acme", &Default::default(), &Patch::Merge(upgraded)).await.expect("patched");
    lab.world.until("the new plan is seen", async || sent(authz(&lab, "", &acme.key)).await.status() == 200).await;
    let before = counted(&lab, &acme.key).await;
    let all = (0..100).map(|i| {
        let request = authz(&lab, "?consume=queries&once=x-request-id", &acme.key);
        sent(request.header("X-Request-Id", format!("r{}", i % 50)))
    });
    assert!(futures::future::join_all(all).await.iter().all(|answer| answer.status() == 200));
    assert_eq!(counted(&lab, &acme.key).await, before + 50, "each request twice, and counted once");
}

#[tokio::test]
async fn keys_are_judged_as_by_the_tenant_api_and_a_refusal_tells_no_more() {
    let mut lab = Lab::start("authz-keys", &[("acme", "enterprise"), ("other", "enterprise")]).await;
    lab.world.start_web(&["--requests-per-second", "1000", "--client-requests-per-second", "1000"]);
    let acme = lab.client("acme").await;
    let other = lab.client("other").await.key;
    let parts: Vec<_> = acme.key.trim_start_matches("sk_live_").split('.').map(str::to_owned).collect();
    let none = BASE64.encode(r#"{"alg":"none","typ":"JWT"}"#);
    let claims = String::from_utf8(BASE64.decode(&parts[1]).expect("base64")).expect("text");
    let (_, id) = namespace_and_id(&lab, "other").await;
    let theirs = BASE64.encode(claims.replace(&namespace_and_id(&lab, "acme").await.1, &id));
    let injected = BASE64.encode(r#"{"sub":"a\r\nX-Tenant-Id: b","ns":"n","plan":"p","kid":"1"}"#);
    let signature = other.rsplit_once('.').expect("three parts").1.to_owned();
    let wrong = [
        String::new(),
        "sk_live_".into(),
        format!("sk_live_{none}.{}.", parts[1]),
        format!("sk_live_{none}.{}.{}", parts[1], parts[2]),
        format!("sk_live_{}.{theirs}.{}", parts[0], parts[2]),
        format!("sk_live_{}.{}.{signature}", parts[0], parts[1]),
        format!("sk_live_{}.{injected}.{}", parts[0], parts[2]),
        format!("{}x", acme.key),
        acme.key.replacen("sk_live_", "sk_test_", 1),
        "x".repeat(20_000),
    ];
    let mut bodies = std::collections::BTreeSet::new();
    for key in &wrong {
        for request in
            [authz(&lab, "?consume=queries", key), lab.world.http.get(lab.url("/authz")).header("X-API-Key", key)]
        {
            let refused = sent(request).await;
            assert_eq!((refused.status().as_u16(), header(&refused, "www-authenticate")), (401, "Bearer"), "{key}");
            assert!(NAMES.iter().all(|name| header(&refused, name).is_empty()), "{key}");
            bodies.insert(refused.text().await.expect("text"));
        }
    }
    let twice = authz(&lab, "", &acme.key).header("Authorization", format!("Bearer {other}"));
    assert_eq!(sent(twice).await.status(), 401, "the service may read the other one");
    assert_eq!(sent(lab.world.http.get(lab.url("/authz"))).await.status(), 401);
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    for mistake in ["?consum=queries", "?consume=queries:0", "?once=x-request-id", "/consume=tokens/x"] {
        assert_eq!(sent(authz(&lab, mistake, &acme.key)).await.status(), 400, "{mistake}");
    }
    assert_eq!(counted(&lab, &acme.key).await, 0);

    // A body that never arrives is not waited for.
    let head = format!(
        "POST /authz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 100000\r\n\r\n",
        acme.key
    );
    let mut stream =
        tokio::net::TcpStream::connect(lab.world.web.trim_start_matches("http://")).await.expect("connected");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut start = [0; 15];
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut start)).await;
    read.expect("at once").expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 200 OK");

    // A key that was replaced is good for a day, and one that was replaced twice is not.
    let generation = async |generation: u32| {
        let patch = Patch::Merge(json!({"spec": {"apiKeyGeneration": generation}}));
        lab.world.tenants().patch("acme", &Default::default(), &patch).await.expect("patched");
        lab.world.wait("acme", "replaced", |s| s.api_key_generation == Some(generation)).await;
    };
    generation(2).await;
    assert_eq!(sent(authz(&lab, "", &acme.key)).await.status(), 200);
    generation(4).await;
    lab.world.until("it is refused", async || sent(authz(&lab, "", &acme.key)).await.status() == 401).await;

    // Suspended, and closed.
    desire(&lab.world, "other", Desired::Suspended).await.expect("patched");
    lab.world.until("it is refused", async || sent(authz(&lab, "", &other)).await.status() == 403).await;
    let refused = sent(authz(&lab, "?consume=queries", &other)).await;
    assert_eq!((header(&refused, "x-refusal"), header(&refused, "x-quota-status")), ("suspended", ""));
    assert_eq!(sent(authz(&lab, "?quota_status=429", &other)).await.status(), 402);
    desire(&lab.world, "other", Desired::Deleted).await.expect("patched");
    let closed = async || sent(authz(&lab, "?quota_status=429", &other)).await.status() == 410;
    lab.world.until("it is closed", closed).await;
}

#[tokio::test]
async fn a_tenant_has_its_rate_and_a_client_that_guesses_keys_keeps_no_other_out() {
    let mut lab = Lab::start("authz-rate", &[("acme", "enterprise"), ("other", "enterprise")]).await;
    let (acme, other) = (lab.client("acme").await.key, lab.client("other").await.key);
    lab.world.start_web(&["--requests-per-second", "5", "--client-requests-per-second", "5"]);
    lab.world.until("web knows them", async || sent(authz(&lab, "", &other)).await.status() == 200).await;
    let mut told = std::collections::BTreeMap::<_, u32>::new();
    for _ in 0..40 {
        let answer = sent(authz(&lab, "", &acme)).await;
        *told.entry((answer.status().as_u16(), header(&answer, "x-quota-status").to_owned())).or_default() += 1;
    }
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[&(200, "ok".into())] >= 10 && told[&(403, "too_many_requests".into())] >= 10, "{told:?}");
    let mut wrong = Vec::new();
    for i in 0..40 {
        let answer = sent(authz(&lab, "?quota_status=429", &format!("sk_live_a.b.c{i}"))).await;
        wrong.push(answer.status().as_u16());
    }
    assert!(wrong.contains(&401) && wrong.contains(&429), "{wrong:?}");
    assert_eq!(sent(authz(&lab, "", &other)).await.status(), 200, "of the same address, with a real key");
}

#[tokio::test]
async fn a_revoked_key_takes_none_of_its_tenants_requests() {
    let mut lab = Lab::start("authz-revoked", &[("acme", "enterprise")]).await;
    let revoked = lab.client("acme").await.key;
    lab.world.start_web(&["--requests-per-second", "20"]);
    let replaced_twice = Patch::Merge(json!({"spec": {"apiKeyGeneration": 3}}));
    lab.world.tenants().patch("acme", &Default::default(), &replaced_twice).await.expect("patched");
    lab.world.wait("acme", "replaced", |s| s.api_key_generation == Some(3)).await;
    let acme = lab.client("acme").await;
    lab.world.until("it is revoked", async || sent(authz(&lab, "", &revoked)).await.status() == 401).await;

    // Five times the tenant's rate, for four seconds.
    let (lab, revoked) = (&lab, revoked.as_str());
    let flood = (0..400).map(|i| async move {
        tokio::time::sleep(Duration::from_millis(10 * i)).await;
        sent(authz(lab, "?quota_status=429", revoked)).await.status().as_u16()
    });
    let own = async {
        let mut statuses = Vec::new();
        for _ in 0..16 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            statuses.push(sent(authz(lab, "?quota_status=429", &acme.key)).await.status().as_u16());
            statuses.push(acme.get("/v1/usage").await.status().as_u16());
        }
        statuses
    };
    let (flood, own) = tokio::join!(futures::future::join_all(flood), own);
    assert_eq!(own, [200; 32], "at the gateway, and at the tenant API");
    let count = |status: u16| flood.iter().filter(|told| **told == status).count();
    assert!(count(401) > 0 && count(429) > 0 && count(401) + count(429) == 400, "it has a limit itself: {flood:?}");
}

/// Whatever comes after the headers of such a request may be its body, or the next request.
#[tokio::test]
async fn a_connection_ends_with_the_answer_to_a_body_that_was_not_read() {
    let lab = Lab::start("authz-unread", &[("acme", "enterprise")]).await;
    let key = lab.client("acme").await.key;
    // What web answers on one connection until it hangs up.
    let answers = async |settings: &str, key: &str, announced: &str| {
        let head = format!("POST /authz{settings} HTTP/1.1\r\nAuthorization: Bearer {key}\r\n{announced}");
        let next = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let mut stream = begin(&lab.world.web, &head, next.as_bytes()).await;
        let mut all = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut all)).await;
        ended.expect("web hangs up").expect("all of it arrives");
        String::from_utf8(all).expect("text").to_lowercase()
    };
    for (settings, key, status) in [
        ("", key.as_str(), "200 ok"),
        ("", "sk_live_a.b.c", "401 unauthorized"),
        ("?consum=queries", key.as_str(), "400 bad request"),
    ] {
        for announced in ["Content-Length: 100000", "Expect: 100-continue\r\nContent-Length: 100000"] {
            let told = answers(settings, key, announced).await;
            assert!(told.starts_with(&format!("http/1.1 {status}\r\n")), "{told}");
            assert!(
                told.contains("\r\nconnection: close\r\n"),
                "the gateway must not send its next request here: {told}"
            );
            assert_eq!(told.matches("http/1.1 ").count(), 1, "{told}");
        }
    }
    // A connection without such a body is kept.
    let told = answers("", &key, "Content-Length: 0").await;
    assert_eq!(told.matches("http/1.1 200 ok").count(), 2, "{told}");
    let (first, _) = told.split_once("\r\n\r\n").expect("its headers");
    assert!(!first.contains("connection: close"), "{first}");
}

#[tokio::test]
async fn while_the_ledger_is_away_the_plan_decides_and_nginx_is_told_403() {
    let mut lab = Lab::start("authz-away", &[("acme", "few")]).await;
    let careful = plan_with("careful", "documents: 3, queriesPerMonth: 7, bytes: 100000");
    let careful = format!("{careful}  quota: {{whenUnavailable: Refuse}}\n");
    apply_yaml(&lab.world.client, &careful).await.expect("the plan applies");
    lab.world.create("careful", "careful", BillingMode::Manual).await;
    lab.world.wait_phase("careful", Phase::Active).await;
    let (acme, careful) = (lab.client("acme").await.key, lab.client("careful").await.key);
    assert_eq!(sent(authz(&lab, "?consume=queries", &acme)).await.status(), 200);
    lab.world.kill_ledger();
    // What was known a moment ago is forgotten.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let unavailable = |status| (status, "unavailable".to_owned(), "ledger_unavailable".to_owned());
    assert_eq!(told(&lab, "", &acme).await, (200, "unknown".into(), String::new()));
    assert_eq!(told(&lab, "", &careful).await, unavailable(403));
    assert_eq!(told(&lab, "?quota_status=429", &careful).await, unavailable(503));
    assert_eq!(told(&lab, "?consume=queries&quota_status=429", &careful).await, unavailable(503));
    assert_eq!(sent(authz(&lab, "", "sk_live_a.b.c")).await.status(), 401, "a key needs no ledger");
    // What is consumed meanwhile is in web's journal, and counted later, once.
    for _ in 0..2 {
        let same = authz(&lab, "?consume=queries:2&once=x-request-id", &acme).header("X-Request-Id", "later");
        let answer = sent(same).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "x-quota-status")), (200, "unknown"));
    }
    lab.world.start_ledger();
    let all = async || lab.world.counted("acme").await.is_some_and(|usage| usage.used[Unit::Queries] == 3);
    lab.world.until("it is counted", all).await;
    lab.world.until("it counts again", async || told(&lab, "?consume=queries", &careful).await.0 == 200).await;
    assert_eq!((counted(&lab, &acme).await, counted(&lab, &careful).await), (3, 1));
}

/// A service behind a gateway, whose clients are a tenant with seven queries and another one.
struct Behind<'a> {
    lab: &'a Lab,
    gateway: &'a Gateway,
    service: &'a Service,
    key: String,
}

/// What each gateway must do, whatever it is called.
async fn through(lab: &Lab, gateway: &Gateway, service: &Service) {
    let behind = Behind { lab, gateway, service, key: lab.client("acme").await.key };
    behind.the_service_learns_whose_a_request_is_from_web_alone().await;
    behind.nothing_passes_without_a_key().await;
    behind.each_request_counts_until_the_plan_is_used_up().await;
    behind.a_suspended_tenant_is_refused().await;
}

impl Behind<'_> {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.lab.world.http.request(method, format!("{}{path}", self.gateway.url))
    }

    fn get(&self) -> RequestBuilder {
        self.request(Method::GET, "/").bearer_auth(&self.key)
    }

    async fn the_service_learns_whose_a_request_is_from_web_alone(&self) {
        let (namespace, id) = namespace_and_id(self.lab, "acme").await;
        let path = "/v1/search?q=1&consume=queries:100";
        let post = || lies(self.request(Method::POST, path).body("a body"));
        for (request, left) in [(post().bearer_auth(&self.key), "6"), (post().header("X-API-Key", &self.key), "5")] {
            let answer = sent(request).await;
            assert_eq!(answer.status(), 200);
            let answer: Value = answer.json().await.expect("JSON");
            let same = (&answer["method"], &answer["uri"], &answer["body"]);
            assert_eq!(same, (&json!("POST"), &json!(path), &json!(6)), "the request itself passes as it is");
            let values = NAMES.map(|name| got(&answer, name));
            assert!(values.iter().all(|values| values.len() == 1), "{values:?}");
            let values = values.concat();
            assert_eq!(values[..5], [id.clone(), namespace.clone(), "few".into(), "7".into(), left.into()]);
            assert!(values[5].parse::<i64>().is_ok_and(|seconds| seconds > 0) && values[6] == "ok", "{values:?}");
        }
        assert_eq!(counted(self.lab, &self.key).await, 2, "one for each request");
        // What a server such as WSGI takes for the same name does not reach the service either.
        let answer = sent(self.get().header("X_Tenant_Id", "a lie")).await;
        if answer.status() == 200 {
            let answer: Value = answer.json().await.expect("JSON");
            assert_eq!(got(&answer, "x_tenant_id"), [""; 0]);
        }
    }

    async fn nothing_passes_without_a_key(&self) {
        let seen = self.service.seen();
        for method in [Method::GET, Method::OPTIONS, Method::HEAD, Method::PUT] {
            let refused = sent(lies(self.request(method.clone(), "/v1/search"))).await;
            assert_eq!(refused.status(), 401, "{method}");
        }
        let preflight = self.request(Method::OPTIONS, "/").header("Origin", "http://x");
        assert_eq!(sent(preflight.header("Access-Control-Request-Method", "GET")).await.status(), 401);
        let refused = sent(self.request(Method::GET, "/").bearer_auth("sk_live_a.b.c")).await;
        assert_eq!((refused.status().as_u16(), header(&refused, "www-authenticate")), (401, "Bearer"));
        // It may hang up before it has read all of it.
        let huge = self.get().header("X-Large", "x".repeat(100_000)).send().await;
        assert!(huge.is_err() || huge.is_ok_and(|answer| answer.status().is_client_error()));
        assert_eq!(self.service.seen(), seen);
    }

    async fn each_request_counts_until_the_plan_is_used_up(&self) {
        let used = counted(self.lab, &self.key).await;
        // A client cannot make two requests one.
        for _ in 0..2 {
            let same = self.get().header("X-Request-Id", "1").header("Idempotency-Key", "1");
            assert_eq!(sent(same).await.status(), 200);
        }
        assert_eq!(counted(self.lab, &self.key).await, used + 2);
        for _ in used + 2..7 {
            assert_eq!(sent(self.get()).await.status(), 200);
        }
        let seen = self.service.seen();
        let refused = sent(self.get()).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "the client is told the truth");
        assert!(header(&refused, "retry-after").parse::<i64>().is_ok_and(|wait| wait > 1000));
        assert_eq!(header(&refused, "content-type"), "application/problem+json");
        let body: Value = refused.json().await.expect("JSON");
        assert_eq!((&body["code"], &body["status"]), (&json!("quota_exceeded"), &json!(429)));
        assert_eq!((counted(self.lab, &self.key).await, self.service.seen()), (7, seen));
    }

    async fn a_suspended_tenant_is_refused(&self) {
        let key = self.lab.client("other").await.key;
        let ask = async || sent(self.request(Method::GET, "/").bearer_auth(&key)).await;
        assert_eq!(ask().await.status(), 200);
        desire(&self.lab.world, "other", Desired::Suspended).await.expect("patched");
        self.lab.world.until("it is refused", async || ask().await.status() != 200).await;
        let refused = ask().await;
        assert!([402, 403].contains(&refused.status().as_u16()));
        assert_eq!(refused.json::<Value>().await.expect("JSON")["code"], "suspended");
    }
}

/// What a client says that wants to be taken for another one.
fn lies(mut request: RequestBuilder) -> RequestBuilder {
    for name in NAMES {
        request = request.header(name, "a lie").header(name, "another");
    }
    request
}

#[tokio::test]
async fn nginx_with_the_recipe_lets_a_service_know_its_tenants() {
    let mut lab = Lab::start("authz-nginx", &[("acme", "few"), ("other", "enterprise")]).await;
    let service = Service::start().await;
    let Some(nginx) = Gateway::nginx(&lab.world, &service).await else { return };
    through(&lab, &nginx, &service).await;
    let hidden = lab.world.http.get(format!("{}/authz", nginx.url)).bearer_auth(lab.world.api_key("acme").await);
    assert_eq!(sent(hidden).await.status(), 404, "only nginx itself asks");
    // Without web, nothing passes.
    lab.world.first_web().signal("KILL");
    lab.world.first_web().exit_code().await;
    let seen = service.seen();
    let refused = sent(lab.world.http.get(&nginx.url).bearer_auth("x")).await;
    assert_eq!((refused.status().as_u16(), service.seen()), (503, seen));
    assert_eq!(refused.json::<Value>().await.expect("JSON")["code"], "unavailable");
}

#[tokio::test]
async fn envoy_with_the_filters_lets_a_service_know_its_tenants() {
    let mut lab = Lab::start("authz-envoy", &[("acme", "few"), ("other", "enterprise")]).await;
    let service = Service::start().await;
    let envoy = Gateway::envoy(&lab.world, &service).await;
    through(&lab, &envoy, &service).await;
    lab.world.first_web().signal("KILL");
    lab.world.first_web().exit_code().await;
    let seen = service.seen();
    let refused = sent(lab.world.http.get(&envoy.url).bearer_auth("x")).await;
    assert_eq!((refused.status().as_u16(), service.seen()), (503, seen), "without web, nothing passes");
}

#[tokio::test]
async fn traefik_with_the_middleware_lets_a_service_know_its_tenants() {
    let mut lab = Lab::start("authz-traefik", &[("acme", "few"), ("other", "enterprise")]).await;
    let service = Service::start().await;
    let traefik = Gateway::traefik(&lab.world, &service).await;
    through(&lab, &traefik, &service).await;
    lab.world.first_web().signal("KILL");
    lab.world.first_web().exit_code().await;
    let seen = service.seen();
    let refused = sent(lab.world.http.get(&traefik.url).bearer_auth("x")).await;
    assert_eq!((refused.status().is_server_error(), service.seen()), (true, seen), "without web, nothing passes");
}
