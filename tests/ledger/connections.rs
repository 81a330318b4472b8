//! Connections of clients that are slow, idle, or many.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Folder, Program, counted, reserve};

/// A connection to an address of the program.
async fn connect(url: &str) -> TcpStream {
    TcpStream::connect(url.trim_start_matches("http://")).await.expect("a connection")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_its_headers_slowly_is_closed() {
    let folder = Folder::new("slow-headers");
    let program = Program::start(folder.path(), 0);
    let slow = [&program.url, &program.metrics].map(|url| async {
        let mut stream = connect(url).await;
        let start = Instant::now();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: ledger\r\n").await.expect("written");
        loop {
            if stream.write_all(b"x: y\r\n").await.is_err() {
                break;
            }
            let mut byte = [0];
            match tokio::time::timeout(Duration::from_secs(1), stream.read(&mut byte)).await {
                Ok(Ok(0) | Err(_)) => break,
                _ => assert!(start.elapsed() < Duration::from_secs(25), "it is still open"),
            }
        }
        start.elapsed()
    });
    for after in join_all(slow).await {
        assert!(after > Duration::from_secs(5), "closed after {after:?}: an honest client may take a moment");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_idle_connections_do_not_stop_others() {
    let folder = Folder::new("idle");
    let program = Program::start(folder.path(), 0);
    let idle = join_all((0..500).map(|_| connect(&program.url))).await;
    let start = Instant::now();
    let api = program.client();
    for number in 0..20 {
        api.must(&format!("q-{number}"), "settle", counted("acme", &json!({"queries": 1}))).await;
    }
    assert_eq!(api.probe("/readyz").await.0, 200);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop(idle);
    // More than there is room for: those that wait get their turn when the idle ones are closed, and probes do not
    // wait.
    let idle = join_all((0..900).map(|_| connect(&program.url))).await;
    let start = Instant::now();
    assert_eq!(api.probe("/readyz").await.0, 200);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let other = program.client();
    other.must("after-all", "settle", counted("acme", &json!({"queries": 1}))).await;
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_that_comes_again_after_its_end_is_not_awaited() {
    let folder = Folder::new("repeats");
    let program = Program::start(folder.path(), 0);
    let api = program.client();
    let one = json!({"queries": 1});
    let body = reserve("acme", &one, &json!({"queries": 9}), 3600);
    for name in ["a", "b"] {
        for _ in 0..3 {
            api.must(name, "reserve", body.clone()).await;
        }
    }
    assert_eq!(api.pending().await, 2);
    api.must("a", "settle", counted("acme", &one)).await;
    assert_eq!(api.pending().await, 1);
    assert_eq!(api.must("a", "reserve", body.clone()).await["state"], "reserved");
    assert_eq!(api.pending().await, 1, "its answer was lost, and it has ended");
}
