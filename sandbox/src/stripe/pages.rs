//! The pages of lists (<https://docs.stripe.com/api/pagination>).

use serde_json::{Value, json};

/// The page of a list that a query asks for.
pub fn page(mut all: Vec<Value>, url: &str, p: &Value) -> Value {
    let limit = p["limit"].as_str().and_then(|l| l.parse().ok()).unwrap_or(10usize);
    let start = p["starting_after"].as_str();
    if let Some(at) = start.and_then(|id| all.iter().position(|o| o["id"] == id)) {
        all.drain(..=at);
    }
    let more = all.len() > limit;
    all.truncate(limit);
    json!({"object": "list", "url": url, "has_more": more, "data": all})
}
