//! The HTTP API, with what no client of ours sends: wrong keys, bodies, names, paths. Every refusal is a problem with a
//! code and a sentence, and nothing of it is counted.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Api, Folder, KEY, Program, counted, period, reserve};

/// Sends a request that must be refused: its status and code.
async fn refused(request: RequestBuilder) -> (u16, String) {
    let answer = request.send().await.expect("it answers");
    let status = answer.status().as_u16();
    let kind = answer.headers().get(CONTENT_TYPE).cloned();
    let text = answer.text().await.expect("text");
    assert_eq!(kind, Some(HeaderValue::from_static("application/problem+json")), "{status} {text}");
    let problem: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(problem["status"], status, "{text}");
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{text}");
    assert!(problem["title"].is_string(), "{text}");
    let code = problem["code"].as_str().expect("a code").to_owned();
    assert_eq!(problem["type"], format!("https://tenant-operator.dev/ledger/{code}"));
    assert!(!text.contains(KEY), "{text}");
    (status, code)
}

const MALFORMED: fn() -> (u16, String) = || (400, "malformed".into());

fn request(api: &Api, method: &str, path: &str) -> RequestBuilder {
    api.http.request(method.parse().expect("a method"), format!("{}{path}", api.url)).bearer_auth(KEY)
}

/// A command with this body, as JSON.
fn sent(api: &Api, method: &str, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
    request(api, method, path).header(CONTENT_TYPE, "application/json").body(body)
}

/// Nothing was counted for any tenant.
async fn nothing_counted(api: &Api) {
    assert_eq!(api.get("/v1/days?from=2026-01-01&to=2027-01-31").await, (200, json!([])));
    assert_eq!(api.get("/v1/tenants/acme/periods").await, (200, json!([])));
}

#[tokio::test]
async fn only_the_key_as_it_is_opens_the_ledger() {
    let folder = Folder::new("keys");
    let program = Program::start(folder.path(), 0);
    let api = program.client();
    let (bearer, wrong) = (format!("Bearer {KEY}"), format!("Bearer {}", KEY.replace('5', "6")));
    let shown = [
        None,
        Some(String::new()),
        Some("Bearer".into()),
        Some("Bearer ".into()),
        Some(KEY.into()),
        Some(wrong),
        Some(bearer.to_uppercase()),
        Some(format!("Bearer {}", KEY.to_uppercase())),
        Some(format!("Bearer  {KEY}")),
        Some(format!("{bearer}0")),
        Some(bearer[..bearer.len() - 1].to_owned()),
        Some(format!("Basic {KEY}")),
        Some(format!("{bearer}, {bearer}")),
    ];
    let paths = [
        ("PUT", "/v1/operations/a"),
        ("POST", "/v1/operations/a/checkpoint"),
        ("POST", "/v1/operations/a/settle"),
        ("POST", "/v1/operations/a/void"),
        ("POST", "/v1/operations/a/release"),
        ("GET", "/v1/tenants/acme/usage"),
        ("GET", "/v1/tenants/acme/periods"),
        ("GET", "/v1/tenants/acme/days"),
        ("GET", "/v1/days"),
    ];
    for (method, path) in paths {
        for shown in &shown {
            let method: Method = method.parse().expect("a method");
            let mut request = api.http.request(method.clone(), format!("{}{path}", api.url));
            if let Some(shown) = shown {
                request = request.header(AUTHORIZATION, shown);
            }
            // The key comes before everything else: not even what is wrong with the body is told.
            let request = request.body("{");
            assert_eq!(refused(request).await, (401, "unauthorized".into()), "{method} {path} {shown:?}");
        }
    }
    nothing_counted(&api).await;
}

#[tokio::test]
async fn bodies_that_make_no_sense_are_refused_with_a_sentence_and_count_nothing() {
    let folder = Folder::new("bodies");
    let program = Program::start(folder.path(), 0);
    let api = program.client();
    let whole =
        json!({"tenant": "acme", "period": period(), "amounts": {"queries": 1}, "limits": {}, "expires_after": 60});
    let with = |field: &str, value: Value| {
        let mut body = whole.clone();
        body[field] = value;
        body.to_string()
    };
    let text = whole.to_string();
    let mut bodies = vec![String::new(), "{".into(), "null".into(), "[]".into(), "7".into(), format!("{text}{text}")];
    bodies.extend(["\u{0}", "{\"tenant\":\"\\ud800\"}", "{\"a\":1e999}"].map(str::to_owned));
    bodies.push("[".repeat(10_000));
    bodies.push(text.replacen('{', "{\"tenant\":\"acme\",", 1));
    for field in ["tenant", "period", "amounts", "limits", "expires_after"] {
        bodies.push(with(field, Value::Null));
        let mut without = whole.clone();
        without.as_object_mut().expect("an object").remove(field);
        bodies.push(without.to_string());
    }
    bodies.push(with("more", json!(1)));
    for amounts in
        ["-1", "0.5", "1.0", "1e2", "1000000000000000", "9223372036854775808", "1e400", "\"1\"", "true", "NaN"]
    {
        bodies.push(text.replace("{\"queries\":1}", &format!("{{\"queries\":{amounts}}}")));
        bodies.push(text.replace("\"limits\":{}", &format!("\"limits\":{{\"queries\":{amounts}}}")));
    }
    for amounts in [json!({}), json!({"queries": 0}), json!({"questions": 1}), json!({"QUERIES": 1}), json!([1])] {
        bodies.push(with("amounts", amounts));
    }
    bodies.push(text.replace("{\"queries\":1}", "{\"queries\":1,\"queries\":1}"));
    for seconds in [json!(0), json!(-1), json!(86_401), json!(1.5), json!("60"), json!(u64::MAX)] {
        bodies.push(with("expires_after", seconds));
    }
    let (start, end) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
    for period in [
        json!({"start": start, "end": start}),
        json!({"start": end, "end": start}),
        json!({"start": "1970-01-01T00:00:00Z", "end": end}),
        json!({"start": "-001000-01-01T00:00:00Z", "end": end}),
        json!({"start": start, "end": "10000-01-01T00:00:00Z"}),
        json!({"start": "2026-13-01T00:00:00Z", "end": end}),
        json!({"start": 1, "end": 2}),
        json!({"start": start}),
        json!({"start": start, "end": end, "zone": "UTC"}),
    ] {
        bodies.push(with("period", period));
    }
    for body in bodies {
        assert_ne!(body, text, "this body makes sense");
        let answer = refused(sent(&api, "PUT", "/v1/operations/a", body.clone())).await;
        assert_eq!(answer, MALFORMED(), "{}", &body[..body.len().min(300)]);
    }
    for action in ["checkpoint", "settle", "void", "release"] {
        for body in ["{", "{}", &text] {
            let path = format!("/v1/operations/a/{action}");
            assert_eq!(refused(sent(&api, "POST", &path, body.to_owned())).await, MALFORMED(), "{action} {body}");
        }
    }
    let flow = counted("acme", &json!({"queries": 1}));
    assert_eq!(refused(request(&api, "POST", "/v1/operations/a/release").json(&flow)).await, MALFORMED());
    // A body of a megabyte is not read: the connection may be gone before the client has read the answer.
    let large = with("tenant", json!("x".repeat(1 << 20)));
    if let Ok(answer) = sent(&program.client(), "PUT", "/v1/operations/a", large).send().await {
        assert!([400, 413].contains(&answer.status().as_u16()), "{answer:?}");
    }
    // Without a content type, and with a wrong one.
    assert_eq!(refused(request(&api, "PUT", "/v1/operations/a").body(text.clone())).await, MALFORMED());
    let form = request(&api, "PUT", "/v1/operations/a").header(CONTENT_TYPE, "text/plain").body(text.clone());
    assert_eq!(refused(form).await, MALFORMED());
    nothing_counted(&api).await;
    // And the one that makes sense.
    let answer = sent(&api, "PUT", "/v1/operations/a", text).send().await.expect("it answers");
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn names_are_visible_ascii_of_at_most_128_characters_and_nothing_else() {
    let folder = Folder::new("names");
    let program = Program::start(folder.path(), 0);
    let api = program.client();
    let body = counted("acme", &json!({"queries": 1}));
    let long = "x".repeat(129);
    for name in
        ["%00", "a%00b", "%20", "a%20b", "%09", "%0A", "%7F", "%C3%A9", "é", "%FF", "%ED%A0%80", "%F0%9F%98%80", &long]
    {
        for path in [format!("/v1/operations/{name}/settle"), format!("/v1/operations/{name}/release")] {
            assert_eq!(refused(request(&api, "POST", &path).json(&body)).await, MALFORMED(), "{path}");
        }
        for of in ["usage", "periods", "days?from=2026-01-01&to=2026-01-01"] {
            let path = format!("/v1/tenants/{name}/{of}");
            assert_eq!(refused(request(&api, "GET", &path)).await, MALFORMED(), "{path}");
        }
    }
    for tenant in ["", " ", "a b", "é", "\u{0}", "\n", &long] {
        let body = counted(tenant, &json!({"queries": 1}));
        let answer = refused(request(&api, "POST", "/v1/operations/a/settle").json(&body)).await;
        assert_eq!(answer, MALFORMED(), "{tenant:?}");
    }
    nothing_counted(&api).await;

    let longest = "x".repeat(128);
    let odd =
        ["'; DROP TABLE line; --".replace(' ', "+"), "a/b".into(), "..a".into(), "%2F".into(), "a?b#c".into(), longest];
    for (number, tenant) in (1..).zip(&odd) {
        let escaped = tenant.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
        api.must(&escaped, "settle", counted(tenant, &json!({"queries": number}))).await;
        let repeated = api.must(&escaped, "settle", counted(tenant, &json!({"queries": number}))).await;
        assert_eq!(repeated["posted"], json!({"queries": number}), "{tenant}");
        assert_eq!(api.account(&escaped, "queries").await, [number, 0], "{tenant}");
    }
}

#[tokio::test]
async fn paths_methods_and_days_that_do_not_exist_are_told_as_problems() {
    let folder = Folder::new("paths");
    let program = Program::start(folder.path(), 0);
    let api = program.client();
    for path in [
        "/",
        "/v1",
        "/v1/operations",
        "/v1/operations/",
        "/v1/operations/a/b",
        "/v1/tenants/acme",
        "/metrics",
        "/log-level",
        "/v2/days",
    ] {
        assert_eq!(refused(request(&api, "GET", path)).await, (404, "no_such_path".into()), "{path}");
    }
    for (method, path) in [
        ("GET", "/v1/operations/a"),
        ("DELETE", "/v1/operations/a"),
        ("PUT", "/v1/operations/a/settle"),
        ("POST", "/v1/days"),
        ("PUT", "/readyz"),
        ("BREW", "/healthz"),
    ] {
        assert_eq!(refused(request(&api, method, path)).await, (405, "method_not_allowed".into()), "{method} {path}");
    }
    for query in [
        "",
        "?from=2026-01-01",
        "?from=2026-01-02&to=2026-01-01",
        "?from=2026-01-01&to=2027-02-05",
        "?from=2026-02-30&to=2026-03-01",
        "?from=x&to=y",
        "?from=2026-01-01&to=2026-01-01&by=hour",
        "?from=-009999-01-01&to=9999-12-31",
    ] {
        for path in ["/v1/days", "/v1/tenants/acme/days"] {
            assert_eq!(refused(request(&api, "GET", &format!("{path}{query}"))).await, MALFORMED(), "{path}{query}");
        }
    }
    for days in ["from=2026-01-01&to=2027-02-04", "from=9999-12-29&to=9999-12-30", "from=1969-12-31&to=1970-01-01"] {
        assert_eq!(api.get(&format!("/v1/days?{days}")).await, (200, json!([])), "{days}");
    }
    assert_eq!(refused(request(&api, "GET", "/v1/tenants/acme/usage")).await, (404, "unknown_tenant".into()));
}

#[tokio::test]
async fn what_the_rules_refuse_has_a_code_and_the_numbers() {
    let folder = Folder::new("rules");
    let program = Program::start(folder.path(), 0);
    let api = program.client();
    let (one, two, limits) = (json!({"queries": 1}), json!({"queries": 2}), json!({"queries": 2}));
    let answer = api.must("a", "reserve", reserve("acme", &one, &limits, 60)).await;
    assert_eq!(answer, json!({"state": "reserved", "period": period(), "left": {"queries": 1}}));
    let (status, problem) = api.command("b", "reserve", reserve("acme", &two, &limits, 60)).await.expect("an answer");
    assert_eq!((status, &problem["code"]), (409, &json!("limit_reached")));
    let numbers = ["unit", "limit", "left", "asked"].map(|name| problem[name].clone());
    assert_eq!(numbers, [json!("queries"), json!(2), json!(1), json!(2)]);
    assert_eq!(problem["detail"], "the limit of 2 queries leaves 1, and 2 are asked for");
    for (operation, action, body, wanted) in [
        ("a", "reserve", reserve("acme", &two, &limits, 60), (409, "other_parameters")),
        ("a", "settle", counted("other", &one), (409, "other_parameters")),
        ("x", "checkpoint", json!({"tenant": "acme", "amounts": one}), (404, "unknown_operation")),
        ("y", "settle", counted("acme", &json!({"queries": 999_999_999_999_999_i64})), (422, "too_much")),
    ] {
        let (status, problem) = api.command(operation, action, body).await.expect("an answer");
        assert_eq!((status, problem["code"].as_str()), (wanted.0, Some(wanted.1)), "{operation} {action}: {problem}");
    }
    // What another ledger counted has no time of its own, and only a settlement takes it.
    let moved = |more: Value| {
        let mut body = counted("acme", &json!({"documents": 1}));
        body["moved"] = json!(true);
        body.as_object_mut().expect("a map").extend(more.as_object().cloned().unwrap_or_default());
        body
    };
    for (action, body) in [("settle", moved(json!({"at": "2026-11-01T00:00:00Z"}))), ("release", moved(json!({})))] {
        let (status, problem) = api.command("moved", action, body).await.expect("an answer");
        assert_eq!((status, problem["code"].as_str()), (400, Some("malformed")), "{action}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|why| why.contains("moved")), "{problem}");
    }
    // A client whose clock is ahead closes no period.
    let ahead = json!({"start": "2999-01-01T00:00:00Z", "end": "2999-02-01T00:00:00Z"});
    for (action, mut body) in [
        ("reserve", reserve("acme", &one, &limits, 60)),
        ("settle", counted("acme", &one)),
        ("void", json!({"tenant": "acme"})),
        ("release", counted("acme", &json!({"documents": 1}))),
    ] {
        body["period"] = ahead.clone();
        let (status, problem) = api.command("early", action, body).await.expect("an answer");
        assert_eq!((status, problem["code"].as_str()), (409, Some("period_ahead")), "{action}: {problem}");
    }
    assert_eq!(
        api.must("a", "settle", counted("acme", &two)).await,
        json!({"state": "settled", "posted": one, "excess": one})
    );
    let void = json!({"tenant": "acme", "period": period()});
    let (status, problem) = api.command("a", "void", void.clone()).await.expect("an answer");
    assert_eq!(
        (status, &problem["code"], &problem["detail"]),
        (409, &json!("ended"), &json!("the operation has ended before: it is settled"))
    );
    let (_, metrics) = api.probe("/metrics").await;
    assert!(metrics.contains("ledger_pending_operations 0"), "{metrics}");
    for counted in ["{action=\"reserve\",outcome=\"refused\"} 3", "{action=\"settle\",outcome=\"done\"} 1"] {
        assert!(metrics.contains(&format!("ledger_commands_total{counted}")), "{counted}: {metrics}");
    }
}

#[tokio::test]
async fn nothing_secret_is_in_logs_and_metrics_even_at_the_lowest_level() {
    let folder = Folder::new("logs");
    let program = Program::start(folder.path(), 0);
    let api = program.client();
    let url = format!("{}/log-level", api.metrics);
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(api.probe(path).await.0, 200, "{path} without the key");
    }
    // As at the other parts: from the pod itself, without a key.
    for (body, seconds, status) in
        [("loud", "60", 400), ("trace", "0", 400), ("trace", "86401", 400), ("trace", "60", 200)]
    {
        let answer = api.http.put(&url).query(&[("seconds", seconds)]).body(body).send().await.expect("it answers");
        assert_eq!(answer.status(), status, "{body} {seconds}");
    }
    assert!(
        api.http
            .get(&url)
            .send()
            .await
            .expect("it answers")
            .text()
            .await
            .expect("text")
            .contains("tenant_operator=trace")
    );
    let wrong = KEY.replace('5', "6");
    let shown = api.http.get(format!("{}/v1/days", api.url)).bearer_auth(&wrong).send().await.expect("it answers");
    assert_eq!(shown.status(), 401);
    api.must("op-of-acme", "reserve", reserve("tenant-of-acme", &json!({"queries": 1}), &json!({}), 1)).await;
    api.nothing_reserved("tenant-of-acme", "queries", Duration::from_secs(5)).await;
    refused(sent(&api, "PUT", "/v1/operations/a", "{\"tenant\":7}")).await;
    let (_, metrics) = api.probe("/metrics").await;
    let logs = program.logs();
    assert!(logs.contains("log level changed") && logs.contains("an operation expired"), "{logs}");
    for (place, text) in [("logs", &logs), ("metrics", &metrics)] {
        for secret in [KEY, &wrong, "Bearer"] {
            assert!(!text.contains(secret), "{secret} is in the {place}");
        }
    }
    // Labels are of a few values: a tenant's name makes no time series.
    assert!(!metrics.contains("acme"), "{metrics}");
}

#[tokio::test]
async fn a_request_whose_body_never_comes_ends_with_a_problem() {
    let folder = Folder::new("stalled");
    let program = Program::start(folder.path(), 0);
    let mut stream = TcpStream::connect(program.url.trim_start_matches("http://")).await.expect("a connection");
    let head = format!(
        "PUT /v1/operations/a HTTP/1.1\r\nhost: ledger\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n\
         content-length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut answer = vec![0; 4096];
    let read =
        tokio::time::timeout(Duration::from_secs(15), stream.read(&mut answer)).await.expect("an answer in time");
    let answer = String::from_utf8_lossy(&answer[..read.expect("an answer")]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 503 ") || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
}
