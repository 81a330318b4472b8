//! A document that two replicas of web count while the ledger is away: one stores it and another one deletes, replaces
//! or completes it. Each has its part in a journal of its own. The levels are exact in whatever order the parts reach
//! the ledger, and what was embedded counts, although the document is gone.

use std::time::Duration;

use serde_json::{Value, json};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, Unit};
use tenant_operator_dev::apply_yaml;
use tokio::task::JoinHandle;

use crate::support::{Lab, Replicas, plan_with, report};

// The replica that stores a document, the one that deletes it, and the one that completes it.
const STORES: usize = 0;
const DELETES: usize = 1;
const COMPLETES: usize = 2;

/// Which journal reaches the ledger first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    StoredFirst,
    DeletedFirst,
    AtOnce,
    /// The replica that stored it is killed, and its journal is lost.
    StoredNever,
}

use Order::{AtOnce, DeletedFirst, StoredFirst, StoredNever};

/// Replicas with journals, and the tenant "acme".
struct Shop {
    lab: Lab,
    replicas: Replicas,
    key: String,
}

impl Shop {
    async fn start(name: &str, replicas: usize) -> Self {
        let mut lab = Lab::start(name, &[]).await;
        let plan = plan_with(name, "documents: 100, queriesPerMonth: 100, bytes: 10000000");
        apply_yaml(&lab.world.client, &plan).await.expect("the plan applies");
        lab.world.create("acme", name, BillingMode::Manual).await;
        lab.world.wait_phase("acme", Phase::Active).await;
        let args = ["--requests-per-second", "1000", "--ledger-patience", "300ms"];
        let replicas = Replicas::start(&mut lab.world, replicas, &args);
        replicas.all_ready(&lab.world).await;
        let key = lab.client("acme").await.key.clone();
        let shop = Self { lab, replicas, key };
        for replica in 0..shop.replicas.ready().addresses().len() {
            let knows = async || shop.call(replica, "GET", "/v1/usage", "").await.0 == 200;
            shop.lab.world.until("the replica knows the tenant", knows).await;
        }
        shop
    }

    async fn call(&self, replica: usize, method: &str, path: &str, text: &str) -> (u16, Value) {
        let url = format!("{}{path}", self.replicas.address(replica).await);
        let request = self.lab.world.http.request(method.parse().expect("a method"), url).bearer_auth(&self.key);
        let request = request.header("content-type", "text/plain").body(text.to_owned());
        let answer = request.send().await.expect("it answers");
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    async fn store(&self, replica: usize, path: &str, text: &str) -> String {
        let (status, document) = self.call(replica, "POST", path, text).await;
        assert_eq!(status, 201, "{document}");
        document["id"].as_str().expect("an id").to_owned()
    }

    /// A document on its way.
    async fn storing(&self, replica: usize, text: &str) -> JoinHandle<reqwest::Result<reqwest::Response>> {
        let url = format!("{}/v1/documents", self.replicas.address(replica).await);
        let request = self.lab.world.http.post(url).bearer_auth(&self.key).header("content-type", "text/plain");
        tokio::spawn(request.body(text.to_owned()).send())
    }

    async fn delete(&self, replica: usize, id: &str) {
        let (status, said) = self.call(replica, "DELETE", &format!("/v1/documents/{id}"), "").await;
        assert_eq!(status, 204, "{said}");
    }

    /// The ledger is back, and the journals reach it, each after the one before.
    async fn deliver(&mut self, order: Order) {
        let (first, then) = match order {
            StoredFirst => (STORES, Some(DELETES)),
            DeletedFirst => (DELETES, Some(STORES)),
            AtOnce => (STORES, None),
            StoredNever => (DELETES, None),
        };
        if order == StoredNever {
            self.replicas.end(STORES);
            self.replicas.lose_journal(STORES);
        } else if let Some(then) = then {
            self.replicas.end(then);
        }
        self.lab.world.start_ledger();
        self.emptied(first).await;
        for other in [then, (order == AtOnce).then_some(DELETES), (order == StoredNever).then_some(STORES)] {
            let Some(other) = other else { continue };
            if order != AtOnce {
                self.replicas.begin(&self.lab.world, other);
            }
            self.emptied(other).await;
        }
    }

    async fn emptied(&self, replica: usize) {
        self.replicas.address(replica).await;
        let waiting = async || self.replicas.metric_of(&self.lab.world, replica, "ledger_journal_entries").await == 0;
        self.lab.world.until("the journal is delivered", waiting).await;
        let refused = self.replicas.metric_of(&self.lab.world, replica, "ledger_journal_refused_entries").await;
        assert_eq!(refused, 0);
    }

    /// Documents, their bytes, and bytes that were embedded.
    async fn counted(&self) -> [i64; 3] {
        self.lab.world.settled("acme", Unit::Documents).await;
        let used = self.lab.world.counted("acme").await.map(|usage| usage.used).unwrap_or_default();
        [Unit::Documents, Unit::Bytes, Unit::EmbeddedBytes].map(|unit| used[unit])
    }
}

fn text(name: &str) -> String {
    format!("Every employee has thirty days of vacation a year, says the policy {name:0>30}.")
}

fn length(text: &str) -> i64 {
    i64::try_from(text.len()).expect("a length")
}

#[tokio::test]
async fn a_document_that_another_replica_deletes_leaves_what_was_embedded_and_no_level() {
    let mut shop = Shop::start("journals-deleted", 2).await;
    let each = length(&text(""));
    let [_, _, mut embedded] = shop.counted().await;
    let others = shop.store(STORES, "/v1/documents", &text("others")).await;
    embedded += each;
    assert_eq!(shop.counted().await, [1, each, embedded], "the ledger is there");
    for (order, counts) in [(StoredFirst, each), (DeletedFirst, each), (AtOnce, each), (StoredNever, 0)] {
        shop.lab.world.kill_ledger();
        let id = shop.store(STORES, "/v1/documents", &text(&format!("{order:?}"))).await;
        shop.delete(DELETES, &id).await;
        shop.deliver(order).await;
        embedded += counts;
        assert_eq!(shop.counted().await, [1, each, embedded], "{order:?}");
    }
    shop.delete(DELETES, &others).await;
    assert_eq!(shop.counted().await, [0, 0, embedded], "nothing is left");
}

/// It was set aside and noted before the ledger went away.
#[tokio::test]
async fn a_document_that_was_noted_before_counts_as_noted_although_its_replica_never_comes_back() {
    let mut shop = Shop::start("journals-noted", 2).await;
    let each = length(&text(""));
    let [_, _, mut embedded] = shop.counted().await;
    for order in [DeletedFirst, StoredNever] {
        let slow = json!({"provider": "openai", "path": "/v1/embeddings", "delay_ms": 2500, "times": 1});
        shop.lab.world.fault(slow).await;
        let text = text(&format!("noted-{order:?}"));
        let storing = shop.storing(STORES, &text).await;
        let aside = async || shop.lab.world.counted("acme").await.is_some_and(|usage| !usage.reserved.is_zero());
        shop.lab.world.until("it is set aside", aside).await;
        // What follows at once: it is noted.
        tokio::time::sleep(Duration::from_millis(500)).await;
        shop.lab.world.kill_ledger();
        let document: Value = storing.await.expect("it ends").expect("it answers").json().await.expect("JSON");
        shop.delete(DELETES, document["id"].as_str().expect("an id")).await;
        shop.deliver(order).await;
        embedded += each;
        assert_eq!(shop.counted().await, [0, 0, embedded], "{order:?}");
    }
}

#[tokio::test]
async fn a_document_that_another_replica_replaces_leaves_the_levels_of_its_successor() {
    let mut shop = Shop::start("journals-replaced", 2).await;
    let each = length(&text(""));
    let [_, _, mut embedded] = shop.counted().await;
    for order in [StoredFirst, DeletedFirst, AtOnce] {
        shop.lab.world.kill_ledger();
        let old = shop.store(STORES, "/v1/documents?title=policy", &text(&format!("old-{order:?}"))).await;
        let path = format!("/v1/documents?title=policy&replace={old}");
        let new = shop.store(DELETES, &path, &text(&format!("new-{order:?}"))).await;
        shop.deliver(order).await;
        embedded += 2 * each;
        assert_eq!(shop.counted().await, [1, each, embedded], "{order:?}");
        shop.delete(STORES, &new).await;
        assert_eq!(shop.counted().await, [0, 0, embedded], "{order:?}");
    }
}

/// The replica that stores a document is killed in the middle, a second one completes it, and a third one deletes it.
#[tokio::test]
async fn a_document_that_another_replica_completes_counts_once_and_leaves_no_level() {
    let mut shop = Shop::start("journals-completed", 3).await;
    for [first, then, last] in
        [[DELETES, COMPLETES, STORES], [COMPLETES, DELETES, STORES], [STORES, COMPLETES, DELETES]]
    {
        shop.lab.world.kill_ledger();
        let text = report(4000 + first);
        let slow = json!({"provider": "openai", "path": "/v1/embeddings", "delay_ms": 1500, "times": 2});
        shop.lab.world.fault(slow).await;
        let listed = async || {
            let (_, page) = shop.call(DELETES, "GET", "/v1/documents", "").await;
            page["documents"].as_array().is_some_and(|documents| !documents.is_empty())
        };
        let storing = shop.storing(STORES, &text).await;
        shop.lab.world.until("its first passages are stored", listed).await;
        shop.replicas.end(STORES);
        assert!(storing.await.expect("it ends").is_err(), "it was killed in the middle");
        let id = shop.store(COMPLETES, "/v1/documents", &text).await;
        shop.delete(DELETES, &id).await;
        for replica in [COMPLETES, DELETES] {
            shop.replicas.end(replica);
        }
        shop.lab.world.start_ledger();
        for replica in [first, then, last] {
            shop.replicas.begin(&shop.lab.world, replica);
            shop.emptied(replica).await;
        }
        let [documents, bytes, _] = shop.counted().await;
        assert_eq!([documents, bytes], [0, 0], "{first} before {then} before {last}");
    }
}
