//! Events of other systems, by HTTP.

use serde_json::{Value, json};

use crate::support::{Folder, KEY, Program, period, reserve};

/// So many seconds ago.
fn ago(seconds: i64) -> String {
    tenant_operator::api::Timestamp::now().plus(-seconds).to_string()
}

fn event(id: &str, ago_: i64) -> Value {
    json!({"source": "test", "id": id, "tenant": "acme", "amounts": {"queries": 1}, "time": ago(ago_), "period": period()})
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_of_a_batch_is_answered_and_those_that_make_no_sense_spoil_no_others() {
    let folder = Folder::new("events");
    let program = Program::start(folder.path(), 0);
    let api = program.client();
    let mut odd = event("odd", 0);
    odd["amounts"] = json!({"queries": -1});
    let mut other_source = event("a", 0);
    other_source["source"] = json!("another");
    let day = 24 * 3600;
    let sent = json!({"events": [event("a", 0), odd, event("a", 5), other_source, event("old", 36 * day), event("late", 34 * day),
        event("ahead", -600), 7, {}]});
    for (turn, new) in [(1, "accepted"), (2, "duplicate")] {
        let (status, answer) = api.ask("POST", "/v1/events", sent.clone()).await.expect("an answer");
        assert_eq!(status, 200, "{answer}");
        let told: Vec<_> =
            answer["events"].as_array().expect("a list").iter().map(|one| one["state"].clone()).collect();
        let refused = "refused";
        let wanted = [new, refused, "duplicate", new, refused, new, refused, refused, refused];
        assert_eq!(told, wanted.map(Value::from), "turn {turn}: {answer}");
        let codes: Vec<_> = [1, 4, 6, 7].map(|at: usize| answer["events"][at]["code"].clone()).to_vec();
        assert_eq!(codes, ["malformed", "too_old", "time_ahead", "malformed"].map(Value::from), "{answer}");
        assert!(answer["events"][1]["detail"].as_str().is_some_and(|why| why.contains("queries is -1")), "{answer}");
    }
    assert_eq!(api.account("acme", "queries").await, [3, 0]);
    let (_, metrics) = api.probe("/metrics").await;
    assert!(metrics.contains("ledger_commands_total{action=\"event\",outcome=\"refused\"} 10"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_counts_by_calendar_months_gives_a_customer_no_second_quota() {
    let folder = Folder::new("months");
    let program = Program::start(folder.path(), 0);
    let api = program.client();
    let quota = json!({"queries": 10});
    api.must("all", "reserve", reserve("acme", &quota, &quota, 3600)).await;
    let mut told = event("month", 0);
    told["period"] = json!({"start": ago(3600), "end": ago(-30 * 24 * 3600)});
    let (status, answer) = api.ask("POST", "/v1/events", json!({"events": [told]})).await.expect("an answer");
    assert_eq!((status, &answer["events"][0]["state"]), (200, &json!("accepted")), "{answer}");
    assert_eq!(api.account("acme", "queries").await, [0, 10], "the customer's own period is the present one");
    let more = reserve("acme", &json!({"queries": 1}), &quota, 3600);
    let (status, answer) = api.command("more", "reserve", more).await.expect("an answer");
    assert_eq!((status, &answer["code"]), (409, &json!("limit_reached")), "{answer}");
    let (_, periods) = api.get("/v1/tenants/acme/periods").await;
    assert_eq!(periods[0]["used"], json!({"queries": 1}), "it counts in the period that it names: {periods}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_events_are_a_batch_and_more_are_refused() {
    let folder = Folder::new("many-events");
    let program = Program::start(folder.path(), 0);
    let api = program.client();
    let mut events: Vec<_> = (0..10_000).map(|number| event(&number.to_string(), 0)).collect();
    let (status, answer) = api.ask("POST", "/v1/events", json!({"events": events})).await.expect("an answer");
    assert_eq!((status, answer["events"].as_array().map(Vec::len)), (200, Some(10_000)));
    assert_eq!(api.account("acme", "queries").await, [10_000, 0]);
    events.push(event("one-more", 0));
    let (status, answer) = api.ask("POST", "/v1/events", json!({"events": events})).await.expect("an answer");
    assert_eq!((status, &answer["code"]), (400, &json!("malformed")), "{answer}");
    for body in [json!({}), json!([]), json!({"events": 1}), json!({"events": [], "more": 1})] {
        let (status, answer) = api.ask("POST", "/v1/events", body).await.expect("an answer");
        assert_eq!((status, &answer["code"]), (400, &json!("malformed")), "{answer}");
    }
    assert_eq!(api.account("acme", "queries").await, [10_000, 0]);
    // A body that is too long is not read: the connection may be gone before the client has read the answer.
    let request = api.http.post(format!("{}/v1/events", api.url)).bearer_auth(KEY);
    let large = format!("{{\"events\": [\"{}\"]}}", "x".repeat(20 << 20));
    if let Ok(answer) = request.header("content-type", "application/json").body(large).send().await {
        assert!([400, 413].contains(&answer.status().as_u16()), "{answer:?}");
    }
    let unknown = api.http.post(format!("{}/v1/events", api.url)).json(&json!({"events": []})).send().await;
    assert_eq!(unknown.expect("an answer").status(), 401);
}
