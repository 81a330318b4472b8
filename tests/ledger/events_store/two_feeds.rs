//! Two replicas of a ledger in Postgres, which both feed the events store while both count: each line is there once, and
//! none is passed over, although sequence numbers of Postgres commit out of order and a replica is killed again and
//! again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tenant_operator::ledger::events::Feed;
use tenant_operator::ledger::store::Store;
use tenant_operator::ledger::store::postgres::Postgres;

use super::clickhouse::{Database, Engine};
use super::feeding::{agree, stored};
use super::sqlite::File;
use super::{Place, feed, feed_all};
use crate::conformance::postgres::Server;
use crate::conformance::reading::all_lines;
use crate::conformance::{Client, NOON, queries};
use crate::support::{Api, Folder, LIMIT, Program, counted, free_port};

/// What counts at once.
const WRITERS: i64 = 8;
/// What each of them counts.
const EACH: i64 = 120;
/// How often a feed is killed.
const KILLS: u64 = 12;

async fn open(url: &SecretString) -> Arc<dyn Store> {
    Arc::new(Postgres::connect(url).await.expect("a ledger"))
}

async fn write(ledger: &Arc<dyn Store>, writer: i64) {
    for number in 0..EACH {
        let tenant = ["acme", "globex"][usize::from((writer + number) % 3 == 0)];
        let client = Client { now: NOON + number * 7, ..Client::of(ledger, tenant) };
        client.settle(&format!("w-{writer}-{number}"), queries(1 + number % 4)).await.expect("settled");
        if number % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
}

/// Feeds until the end, each feed for a moment only: it ends at whatever it waits for, as one that is killed. The next
/// one knows nothing of it.
async fn feed_and_die(url: &SecretString, place: &dyn Place, seed: u64, over: &AtomicBool) {
    for life in 0.. {
        if over.load(Ordering::Relaxed) && life >= KILLS {
            return;
        }
        let one = feed(&open(url).await, place.open()).await;
        let life = Duration::from_millis(5 + (life * 37 + seed * 53) % 90);
        drop(tokio::time::timeout(life, rounds(&one)).await);
    }
}

async fn rounds(feed: &Feed) {
    loop {
        // One that is refused because the other one was faster is tried again.
        drop(feed.round().await);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Both feed while both count.
async fn both(url: &SecretString, place: &dyn Place) {
    let ledgers = [open(url).await, open(url).await];
    let generation = place.open().position(&ledgers[0].id().await.expect("an id")).await.expect("a store").generation;
    let over = AtomicBool::new(false);
    let counting = async {
        join_all((0..WRITERS).map(|writer| write(&ledgers[usize::from(writer % 2 == 0)], writer))).await;
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(counting, feed_and_die(url, place, 0, &over), feed_and_die(url, place, 1, &over));
    let events = place.open();
    let last = feed(&ledgers[0], events.clone()).await;
    feed_all(&last).await.expect("fed");
    let lines = all_lines(&ledgers[0], 1000).await.expect("lines");
    assert_eq!(lines.len(), usize::try_from(WRITERS * EACH).expect("a number"), "each is counted");
    agree("two feeds that are killed", &ledgers[0], &events).await.expect("each line once");
    let position = events.position(&last.id).await.expect("a position");
    assert_eq!((position.generation, position.begun), (generation, None), "neither took the other for another ledger");
}

/// A line whose number is smaller than that of another one and that is committed later. With `locked`, as a replica
/// writes it.
async fn late_line(server: &Server, place: &dyn Place, locked: bool) -> Result<(), String> {
    let database = server.new_database();
    // Whatever the database does by default.
    assert!(server.sql(&format!("ALTER DATABASE {database} SET default_transaction_isolation = 'repeatable read'")));
    let url = server.url(&database);
    let (ledger, events) = (open(&url).await, place.open());
    let client = Client::of(&ledger, "acme");
    client.settle("first", queries(1)).await?;
    let mut session = server.session(&database);
    let mut late = |sql: &str| tokio::task::block_in_place(|| session.sql(sql));
    late("BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED");
    if locked {
        late("SELECT pg_advisory_xact_lock_shared(92832755875842)");
    }
    late(
        "INSERT INTO line (operation, tenant, period_start, at, kind, queries, prompt_tokens, completion_tokens,
             embedding_tokens, embedded_bytes, documents, bytes)
         SELECT 'late', tenant, period_start, at, kind, 5, 0, 0, 0, 0, 0, 0 FROM line LIMIT 1",
    );
    // It takes the next number, and is committed at once.
    client.settle("second", queries(1)).await?;
    let feeding = tokio::spawn({
        let feed = feed(&ledger, events.clone()).await;
        async move { feed_all(&feed).await }
    });
    // The feed has asked for the last line before the commit.
    tokio::time::sleep(Duration::from_millis(500)).await;
    late("COMMIT");
    feeding.await.expect("it ends")?;
    feed_all(&feed(&ledger, events.clone()).await).await?;
    assert_eq!(all_lines(&ledger, 1000).await?.len(), 3);
    agree("a line that is committed late", &ledger, &events).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_feeds_from_postgres_to_sqlite_lose_and_double_nothing() {
    let server = Server::start();
    let place = File::place();
    both(&server.url(&server.new_database()), &*place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_feeds_from_postgres_to_clickhouse_lose_and_double_nothing() {
    let (server, folder) = (Server::start(), Folder::new("clickhouse"));
    let engine = Arc::new(Engine::start(&folder, free_port()));
    let place = Database::new(&engine).await;
    both(&server.url(&server.new_database()), &place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_waits_for_a_line_with_a_smaller_number_that_is_committed_later() {
    let server = Server::start();
    late_line(&server, &*File::place(), true).await.expect("none is passed over");
    // A writer that does not hold the lock is passed over: this test would see it.
    late_line(&server, &*File::place(), false).await.expect_err("the line is passed over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_killed_again_and_again_loses_and_doubles_no_line() {
    let (server, data) = (Server::start(), Folder::new("clickhouse"));
    let engine = Arc::new(Engine::start(&data, free_port()));
    let database = Database::new(&engine).await;
    let (url, events) = (server.url(&server.new_database()), engine.url(&database.name));
    let folders = [Folder::new("replica"), Folder::new("replica")];
    let ports = [free_port(), free_port()];
    let stays = Program::replica(folders[0].path(), url.expose_secret(), &events, ports[0]);
    let mut dies = Program::replica(folders[1].path(), url.expose_secret(), &events, ports[1]);
    let apis = [stays.client(), dies.client()];
    let over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..6_usize)
        .map(|writer| {
            let (api, over): (Api, _) = (apis[writer % 2].clone(), over.clone());
            tokio::spawn(async move {
                let mut number = 0;
                while !over.load(Ordering::Relaxed) {
                    let tenant = ["acme", "globex"][number % 2];
                    let body = counted(tenant, &json!({"queries": 1}));
                    let (status, said) = api.insist(&format!("r-{writer}-{number}"), "settle", body).await;
                    assert_eq!(status, 200, "{said}");
                    number += 1;
                }
                number
            })
        })
        .collect();
    for life in 0..4 {
        tokio::time::sleep(Duration::from_millis(2100 + 431 * life)).await;
        dies.kill();
        dies = Program::replica(folders[1].path(), url.expose_secret(), &events, ports[1]);
    }
    over.store(true, Ordering::Relaxed);
    let number: usize = join_all(writers).await.into_iter().map(|writer| writer.expect("it ends")).sum();
    let ledger = open(&url).await;
    assert_eq!(all_lines(&ledger, 1000).await.expect("lines").len(), number);
    let store = database.open();
    let (start, id) = (Instant::now(), ledger.id().await.expect("an id"));
    while stored(&id, &store).await.expect("lines").len() < number {
        assert!(start.elapsed() < 2 * LIMIT, "the store lacks lines: {}", stays.logs());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    agree("a replica that is killed", &ledger, &store).await.expect("each line once");
    for program in [&stays, &dies] {
        assert!(!program.logs().contains("made anew"), "{}", program.logs());
    }
}
