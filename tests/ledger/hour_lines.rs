//! The ledger's own lines of an hour, page by page, among many of other tenants and of other hours.

use std::time::Duration;

use serde_json::{Value, json};
use tenant_operator::api::Timestamp;

use crate::support::{Api, Folder, Program, counted, period};

const HOUR: i64 = 3600;

/// Other systems report so many events of a tenant.
async fn reported(api: &Api, tenant: &str, count: usize) {
    for first in (0..count).step_by(10_000) {
        let event = |number: usize| {
            json!({"source": tenant, "id": number.to_string(), "tenant": tenant, "amounts": {"queries": 1},
                "time": Timestamp::now().to_string(), "period": period()})
        };
        let events: Vec<_> = (first..count.min(first + 10_000)).map(event).collect();
        let (status, answer) = api.ask("POST", "/v1/events", json!({"events": events})).await.expect("an answer");
        assert_eq!(status, 200, "{answer}");
    }
}

/// The lines of `acme` in an hour, and how many calls they took.
async fn lines(api: &Api, hour: Timestamp, most: u32) -> (Vec<Value>, usize) {
    let (mut all, mut after, mut calls) = (Vec::new(), json!(0), 0);
    loop {
        let path = format!("/v1/tenants/acme/hours/lines?hour={hour}&after={after}&most={most}");
        let (status, answer) = api.get(&path).await;
        assert_eq!(status, 200, "{answer}");
        let page = answer["lines"].as_array().expect("a list");
        assert!(page.len() <= most as usize, "{answer}");
        all.extend(page.clone());
        calls += 1;
        if answer["next"].is_null() {
            return (all, calls);
        }
        after = answer["next"].clone();
    }
}

/// A tenant's lines are found among many others, a call reads a bounded number of lines, and earlier hours are passed over.
#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_an_hour_are_found_among_many() {
    let folder = Folder::new("hour-lines");
    let program = Program::start(folder.path(), 0);
    let api = program.client();
    let left = HOUR - Timestamp::now().as_second().rem_euclid(HOUR);
    if left < 60 {
        tokio::time::sleep(Duration::from_secs(left.unsigned_abs() + 1)).await;
    }
    let hour = Timestamp::now().hour();
    api.must("before", "settle", counted("acme", &json!({"queries": 9}))).await;
    reported(&api, "past", 30_000).await;
    let past = format!("UPDATE line SET at = at - {}", 48 * HOUR);
    let file = rusqlite::Connection::open(folder.path().join("data/ledger.db")).expect("the ledger's file");
    file.busy_timeout(Duration::from_secs(10)).expect("set");
    assert_eq!(file.execute(&past, []).expect("written"), 30_001);
    api.must("first", "settle", counted("acme", &json!({"queries": 1}))).await;
    reported(&api, "other", 25_000).await;
    for number in 2..=4 {
        api.must(&format!("a{number}"), "settle", counted("acme", &json!({"queries": number}))).await;
    }
    let (found, calls) = lines(&api, hour, 1000).await;
    let told: Vec<_> =
        found.iter().map(|line| (line["operation"].clone(), line["counted"]["queries"].clone())).collect();
    let wanted = [("first", 1), ("a2", 2), ("a3", 3), ("a4", 4)].map(|(name, queries)| (json!(name), json!(queries)));
    assert_eq!(told, wanted, "{found:?}");
    assert_eq!(calls, 2, "30,000 earlier lines are not read, and 25,000 of others in two calls");
    assert!(found.iter().all(|line| line["kind"] == "unreserved" && line["hour"] == hour.to_string()), "{found:?}");
    let (one_by_one, _) = lines(&api, hour, 1).await;
    assert_eq!(one_by_one, found);
    let earlier = hour.plus(-48 * HOUR);
    assert_eq!(lines(&api, earlier, 1000).await.0[0]["operation"], "before");
    assert_eq!(lines(&api, hour.plus(HOUR), 1000).await.0, Vec::<Value>::new());
    assert_eq!(lines(&api, hour.plus(-HOUR), 1000).await.0, Vec::<Value>::new());
    for wrong in ["hour=2026-12-01T13:30:00Z&most=1", "hour=2026-12-01T13:00:00Z&most=0", "most=1"] {
        let (status, answer) = api.get(&format!("/v1/tenants/acme/hours/lines?{wrong}")).await;
        assert_eq!((status, &answer["code"]), (400, &json!("malformed")), "{wrong}");
    }
}
