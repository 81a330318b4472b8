//! Questions without a pause, each of which must be answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::json;

use super::World;

/// Asks questions without a pause until it is stopped. Each must be answered.
pub struct Questions {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU32>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Questions {
    pub async fn begin(world: &World, name: &str) -> Self {
        let key = world.api_key(name).await;
        let usage = async || {
            let answer = world.http.get(format!("{}/v1/usage", world.web)).bearer_auth(&key).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        };
        world.until("web knows the tenant", usage).await;
        let (stop, answered) = (Arc::new(AtomicBool::default()), Arc::new(AtomicU32::default()));
        let (http, url) = (world.http.clone(), format!("{}/v1/query", world.web));
        let (stopped, counted) = (stop.clone(), answered.clone());
        let task = tokio::spawn(async move {
            let mut failures = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let asked = http.post(&url).bearer_auth(&key).json(&json!({"question": "What is RAG?"})).send().await;
                match asked {
                    Ok(answer) if answer.status() == 200 => drop(counted.fetch_add(1, Ordering::Relaxed)),
                    Ok(answer) => failures.push(format!("{}: {:?}", answer.status(), answer.text().await)),
                    Err(error) => failures.push(error.to_string()),
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            failures
        });
        Self { stop, answered, task }
    }

    /// Waits until so many more were answered.
    pub async fn more(&self, world: &World, wanted: u32) {
        let before = self.answered.load(Ordering::Relaxed);
        world.until("questions are answered", async || self.answered.load(Ordering::Relaxed) >= before + wanted).await;
    }

    pub async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.task.await.expect("it ends");
        assert!(failures.is_empty(), "{} questions failed: {}", failures.len(), failures[0]);
    }
}

pub async fn status_of_question(world: &World, key: &str) -> u16 {
    let request = world.http.post(format!("{}/v1/query", world.web)).bearer_auth(key);
    request.json(&json!({"question": "What is RAG?"})).send().await.expect("it answers").status().as_u16()
}
