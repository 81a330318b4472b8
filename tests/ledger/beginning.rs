//! How a ledger began, what it says about that, and what it notes about the time before.

use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tenant_operator::ledger::account::State;
use tenant_operator::ledger::beginning::used_before;
use tenant_operator::ledger::decision::{Action, Answer};
use tenant_operator::ledger::names;
use tenant_operator::ledger::snapshots::Snapshots;
use tenant_operator::ledger::store::Store;
use tenant_operator::ledger::store::sqlite::Sqlite;
use tenant_operator::ledger::units::{Amounts, Limits, Unit};

use crate::conformance::{Client, DAY, NOON, at, period, queries};
use crate::support::{Folder, Program, period as named_period};

fn document() -> Amounts {
    Amounts::of(Unit::Documents, 1).with(Unit::Bytes, 70)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_begins_once_and_one_that_is_restored_begins_again() {
    let (folder, storage) = (Folder::new("beginning"), Folder::new("beginning-snapshots"));
    let url = format!("file://{}", storage.path().display());
    let snapshots = Snapshots::open(&url, Duration::from_mins(5)).expect("a folder");
    let open = async || Arc::new(Sqlite::open_or_restore(folder.path(), &snapshots).await.expect("a ledger"));
    let ledger = open().await;
    let first = ledger.begin(at(NOON)).await.expect("begun").expect("it is new");
    assert_eq!((first.began.at, first.began.snapshot, first.recounted), (at(NOON), None, None));
    ledger.recounted("another", at(NOON + 1)).await.expect("noted");
    assert_eq!(ledger.begin(at(NOON + 9)).await.expect("begun"), Some(first.clone()), "it stays as it is");
    ledger.recounted(&first.id, at(NOON + 1)).await.expect("noted");
    ledger.recounted(&first.id, at(NOON + 2)).await.expect("noted");
    for (beginning, tenant) in [("another", "lost"), (&first.id, "acme"), (&first.id, "beta"), (&first.id, "acme")] {
        ledger.recounted_of(beginning, tenant).await.expect("noted");
    }
    drop(ledger);
    let ledger = open().await;
    let tenants =
        async |beginning: &str, after: &str| ledger.recounted_tenants(beginning, after, 9).await.expect("listed");
    assert_eq!(tenants(&first.id, "").await, ["acme", "beta"]);
    assert_eq!(tenants(&first.id, "acme").await, ["beta"]);
    assert!(tenants("another", "").await.is_empty());
    let again = ledger.begin(at(NOON + 9)).await.expect("begun").expect("known");
    assert_eq!((&again.id, again.began, again.recounted), (&first.id, first.began, Some(at(NOON + 1))));

    let store: Arc<dyn Store> = ledger.clone();
    let acme = Client::of(&store, "acme");
    acme.settle("questions", queries(30)).await.expect("settled");
    let limits = Limits::default();
    for (upload, ends) in [("stored", true), ("deleted", true), ("under way", false)] {
        let name = names::document("acme", upload, "f7").replace(' ', "-");
        acme.reserve(&name, document(), limits).await.expect("reserved");
        if ends {
            acme.settle(&name, document()).await.expect("settled");
        }
    }
    acme.release(&names::gone("d-acme-deleted-f7"), document()).await.expect("released");
    snapshots.take(&ledger, at(NOON + 60)).await.expect("a snapshot");
    drop((acme, store, ledger));
    std::fs::remove_dir_all(folder.path()).expect("lost");

    let restored = open().await;
    let beginning = restored.begin(at(NOON + DAY)).await.expect("begun").expect("it begins again");
    assert_ne!(beginning.id, first.id);
    assert_eq!((beginning.began.at, beginning.began.snapshot), (at(NOON + DAY), Some(at(NOON + 60))));
    assert_eq!(beginning.recounted, None);
    for beginning in [&first.id, &beginning.id] {
        let counted = restored.recounted_tenants(beginning, "", 9).await.expect("listed");
        assert!(counted.is_empty(), "no tenant is counted since it began again");
    }
    let old = restored.old_documents("acme", "", 10).await.expect("listed");
    let listed: Vec<_> = old.iter().map(|old| (old.operation.as_str(), old.pending, old.amounts)).collect();
    assert_eq!(listed, [("d-acme-stored-f7", false, document()), ("d-acme-under-way-f7", true, document())]);
    assert_eq!(restored.old_documents("acme", "d-acme-stored-f7", 10).await.expect("listed").len(), 1);
    assert!(restored.old_documents("ac", "", 10).await.expect("listed").is_empty(), "of another tenant");

    // The ledger adds only what the report has beyond the snapshot. What comes later is no part of that.
    let store: Arc<dyn Store> = restored.clone();
    let acme = Client { now: NOON + DAY + 60, ..Client::of(&store, "acme") };
    acme.settle("new question", queries(1)).await.expect("settled");
    acme.reserve(&names::document("acme", "new", "f7"), document(), limits).await.expect("reserved");
    assert_eq!(restored.old_documents("acme", "", 10).await.expect("listed").len(), 2, "it is no document of before");
    let name = used_before(&beginning.id, "acme", period(0).start);
    for _ in 0..2 {
        let action = Action::Recount { period: period(0), amounts: queries(40), began: Some(beginning.began) };
        let answer = acme.apply(&name, action).await.expect("counted");
        assert_eq!(answer, Answer::Settled { posted: queries(40), excess: Amounts::ZERO });
    }
    let used = acme.usage().await.expect("usage").expect("known").1.used;
    assert_eq!(used, queries(41).plus(document()), "{:?}", State::Expired);
}

#[tokio::test]
async fn the_status_tells_how_the_ledger_began_and_whether_it_was_counted_again() {
    let folder = Folder::new("began");
    let program = Program::start(folder.path(), 0);
    let api = program.client();
    let (_, status) = api.get("/v1/status").await;
    let id = status["beginning"]["id"].as_str().expect("a beginning").to_owned();
    assert_eq!((&status["beginning"]["snapshot"], &status["beginning"]["recounted"]), (&json!(null), &json!(null)));
    let recounting = async || {
        let metrics = reqwest::get(format!("{}/metrics", program.metrics)).await.expect("metrics");
        metrics.text().await.expect("text").contains("\nledger_recounting 1")
    };
    assert!(recounting().await);

    let body = json!({"tenant": "acme", "period": named_period(), "amounts": {"documents": 1, "bytes": 70},
        "at": "2026-01-02T00:00:00Z"});
    for _ in 0..2 {
        let answer = api.must("d-acme-0a-f7", "recount", body.clone()).await;
        assert_eq!(answer["posted"], json!({"documents": 1, "bytes": 70}), "{answer}");
    }
    assert_eq!(api.account("acme", "documents").await, [1, 0]);

    let wrong = api.get("/v1/tenants/acme/documents?after=&most=0").await;
    assert_eq!((wrong.0, &wrong.1["code"]), (400, &json!("malformed")));
    assert_eq!(api.get("/v1/tenants/acme/documents?after=&most=9").await, (200, json!([])), "it counted them itself");

    let counted = format!("/v1/recounted?beginning={id}&after=&most=9");
    assert_eq!(api.get(&counted).await, (200, json!([])));
    let body = json!({"beginning": id, "tenant": "acme"});
    assert_eq!(api.ask("POST", "/v1/recounted", body).await.expect("an answer").0, 200);
    assert_eq!(api.get(&counted).await, (200, json!(["acme"])));
    assert!(recounting().await, "not all are");

    for (beginning, done) in [("another", false), (id.as_str(), true)] {
        let (status, _) = api.ask("POST", "/v1/recounted", json!({"beginning": beginning})).await.expect("an answer");
        assert_eq!(status, 200);
        let (_, status) = api.get("/v1/status").await;
        assert_eq!(status["beginning"]["recounted"].is_string(), done, "{status}");
    }
    assert!(!recounting().await);
}
