//! Requests to web, some a second, each on a connection of its own, as from many clients: none may fail.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Clients at the same time.
const CLIENTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(20);

/// Requests that go on until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// Starts them.
    pub fn start(url: &str) -> Self {
        let mut load = Self { stop: Arc::default(), sent: Arc::default(), failed: Arc::default(), clients: Vec::new() };
        for _ in 0..CLIENTS {
            let (stop, sent, failed, url) = (load.stop.clone(), load.sent.clone(), load.failed.clone(), url.to_owned());
            load.clients.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let http = reqwest::Client::builder().timeout(Duration::from_secs(15)).build().expect("a client");
                    let answer = http.get(&url).send().await.and_then(reqwest::Response::error_for_status);
                    sent.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = answer {
                        failed.lock().expect("unpoisoned").push(format!("{error:?}"));
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }));
        }
        load
    }

    /// Ends the requests and returns their number. None may have failed.
    pub async fn stop(self, during: &str) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("the client ends");
        }
        let (sent, failed) = (self.sent.load(Ordering::Relaxed), self.failed.lock().expect("unpoisoned"));
        assert!(failed.is_empty(), "{} of {sent} requests failed during {during}: {}", failed.len(), failed[0]);
        assert!(sent > 20, "only {sent} requests during {during} prove nothing");
        sent
    }
}
