//! Connections of clients that are slow, idle, or many.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{Api, Folder, Program, counted, reserve};

/// A connection to an address of the program.
async fn connect(url: &str) -> TcpStream {
    TcpStream::connect(url.trim_start_matches("http://")).await.expect("a connection")
}

/// The same by another client: one at 127.0.0.`host`.
async fn connect_from(host: u8, url: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, host], 0))).expect("a client's address");
    let address = url.trim_start_matches("http://").parse().expect("an address");
    socket.connect(address).await.expect("a connection")
}

/// Idle connections, by several clients in turn.
async fn idle(clients: &[u8], number: usize, url: &str) -> Vec<TcpStream> {
    join_all(clients.iter().cycle().take(number).map(|host| connect_from(*host, url))).await
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

/// Breaks the test unless the ledger answers some commands without delay.
async fn counts_at_once(api: &Api, names: &str) {
    let start = Instant::now();
    for number in 0..20 {
        api.must(&format!("{names}-{number}"), "settle", counted("acme", &json!({"queries": 1}))).await;
    }
    assert_eq!(api.probe("/readyz").await.0, 200);
    assert!(start.elapsed() < Duration::from_secs(5), "{names}: {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_idle_connections_do_not_stop_others() {
    let folder = Folder::new("idle");
    let program = Program::start(folder.path(), 0);
    let some = idle(&[2, 3], 500, &program.url).await;
    let api = program.client();
    counts_at_once(&api, "some").await;
    drop(some);
    // One client takes no more than its share: it need not show the key to open connections.
    let greedy = idle(&[7], 900, &program.url).await;
    counts_at_once(&program.client(), "greedy").await;
    drop(greedy);
    // More than there is room for: those that wait get their turn when the idle ones are closed, and probes do not
    // wait.
    let many = idle(&[4, 5, 6], 900, &program.url).await;
    let start = Instant::now();
    assert_eq!(api.probe("/readyz").await.0, 200);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let other = program.client();
    other.must("after-all", "settle", counted("acme", &json!({"queries": 1}))).await;
    drop(many);
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
