//! The documents of the tenant "acme", through the tenant API.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::World;

/// Stores a text, and answers its id.
pub async fn upload(world: &World, title: &str, text: &str) -> String {
    let key = world.api_key("acme").await;
    let url = format!("{}/v1/documents?title={title}", world.web);
    let mut id = String::new();
    for _ in 0..50 {
        let request = world.http.post(&url).bearer_auth(&key).header("content-type", "text/plain");
        let answer = request.body(text.to_owned()).send().await.expect("an answer");
        let (status, body) = (answer.status(), answer.json::<Value>().await.expect("JSON"));
        if status.is_success() {
            body["id"].as_str().expect("an id").clone_into(&mut id);
            return id;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("{title} is not taken");
}

/// The titles of all documents.
pub async fn document_titles(world: &World) -> BTreeSet<String> {
    let url = format!("{}/v1/documents", world.web);
    let answer = world.http.get(&url).bearer_auth(world.api_key("acme").await).send().await.expect("an answer");
    let body: Value = answer.json().await.expect("JSON");
    let all = body["documents"].as_array().expect("documents");
    all.iter().map(|document| document["title"].as_str().expect("a title").to_owned()).collect()
}

/// The titles of the passages that answer a question.
pub async fn found(world: &World, question: &str) -> Vec<String> {
    let url = format!("{}/v1/query", world.web);
    let key = world.api_key("acme").await;
    let body = loop {
        let asked = world.http.post(&url).bearer_auth(&key).json(&json!({"question": question}));
        let answer = asked.send().await.expect("an answer");
        match answer.status().as_u16() {
            429 => tokio::time::sleep(Duration::from_millis(200)).await,
            status => {
                let body: Value = answer.json().await.expect("JSON");
                assert_eq!(status, 200, "{body}");
                break body;
            }
        }
    };
    let sources = body["sources"].as_array().cloned().unwrap_or_default();
    sources.iter().map(|source| source["title"].as_str().expect("a title").to_owned()).collect()
}

/// A text of so many sentences.
pub fn report(sentences: usize) -> String {
    let sentences: Vec<_> = (0..sentences).map(|n| format!("Sentence number {n} of a long report on cats.")).collect();
    sentences.join(" ")
}
