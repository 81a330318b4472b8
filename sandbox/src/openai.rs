//! The `OpenAI` stand-in: lexical embeddings by feature hashing and an extractive answer. Deterministic, and no model.

use std::collections::HashMap;

use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Of all models but one, and the most that can be asked for of that one.
const DIMENSION: usize = 1536;
const LARGE: &str = "text-embedding-3-large";
const LARGE_DIMENSION: usize = 3072;
const STOP_WORDS: &[&str] =
    &["a", "an", "the", "is", "are", "of", "to", "in", "and", "or", "what", "how", "does", "do", "it", "s"];

pub(crate) fn routes() -> Router {
    Router::new().route("/v1/embeddings", post(embeddings)).route("/v1/chat/completions", post(chat)).route(
        "/v1/models",
        get(async || Json(json!({"object": "list", "data": [model("text-embedding-3-small"), model(LARGE), model("gpt-4o-mini")]}))),
    )
}

fn model(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": 0, "owned_by": "sandbox"})
}

fn refuse(message: &str) -> Response {
    let body = json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": null}});
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|w| !w.is_empty())
        .map(str::to_lowercase)
        .filter(|w| !STOP_WORDS.contains(&w.as_str()))
}

/// Each word adds to one dimension, chosen by its hash; the sum has unit length. Vectors of two models have nothing in
/// common.
fn embed(model: &str, dimension: usize, text: &str) -> Vec<f32> {
    let mut vector = vec![0f32; dimension];
    let salt = if model == "text-embedding-3-small" { "" } else { model };
    let mut counts: HashMap<String, f32> = HashMap::new();
    for word in words(text) {
        *counts.entry(word).or_default() += 1.0;
    }
    for (word, count) in counts {
        let digest = Sha256::digest(format!("{salt}{word}"));
        let slot = usize::from(u16::from_be_bytes([digest[0], digest[1]])) % dimension;
        vector[slot] += if digest[2] & 1 == 0 { count } else { -count };
    }
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if norm > 0.0 {
        for x in &mut vector {
            *x /= norm;
        }
    } else {
        vector[0] = 1.0;
    }
    vector
}

/// Tokens of one input and of one request, at most
/// (<https://platform.openai.com/docs/api-reference/embeddings/create#embeddings-create-input>).
const INPUT_TOKENS: usize = 8192;
const REQUEST_TOKENS: usize = 300_000;

/// Tokens of a text, as many as a hostile one has: a token for each byte of characters beyond ASCII, and for two of
/// others.
fn tokens(text: &str) -> usize {
    let ascii = text.bytes().filter(u8::is_ascii).count();
    text.len() - ascii + ascii.div_ceil(2)
}

/// What `OpenAI` answers to inputs that are empty or too long.
fn refuse_tokens(inputs: &[&str]) -> Option<Response> {
    if inputs.iter().any(|text| text.is_empty()) {
        return Some(refuse("'$.input' is invalid. input cannot be an empty string"));
    }
    if let Some(longest) = inputs.iter().map(|text| tokens(text)).max().filter(|count| *count > INPUT_TOKENS) {
        return Some(refuse(&format!(
            "This model's maximum context length is {INPUT_TOKENS} tokens, however you requested {longest} tokens. Please reduce your \
             prompt."
        )));
    }
    let all: usize = inputs.iter().map(|text| tokens(text)).sum();
    (all > REQUEST_TOKENS).then(|| refuse(&format!("Requested {all} tokens, max {REQUEST_TOKENS} tokens per request")))
}

/// Embeds on a thread of its own: a request with much text keeps no other one waiting, as at the real provider.
async fn embeddings(Json(body): Json<Value>) -> Response {
    let answer = tokio::task::spawn_blocking(move || embedded(&body)).await;
    answer.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

fn embedded(body: &Value) -> Response {
    let inputs: Vec<&str> = match &body["input"] {
        Value::String(text) => vec![text],
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => return refuse("input must be a string or an array of strings"),
    };
    if inputs.is_empty() || inputs.len() > 2048 {
        return refuse("input must hold 1 to 2048 strings");
    }
    if let Some(refused) = refuse_tokens(&inputs) {
        return refused;
    }
    let model = body["model"].as_str().unwrap_or_default();
    let most = if model == LARGE { LARGE_DIMENSION } else { DIMENSION };
    let asked = body["dimensions"].as_u64().map_or(Some(most), |n| usize::try_from(n).ok());
    let Some(dimension) = asked.filter(|n| (1..=most).contains(n)) else {
        return refuse("dimensions must be a number from 1 to the model's own");
    };
    let base64 = body["encoding_format"] == "base64";
    let data: Vec<_> = inputs
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let vector = embed(model, dimension, text);
            let embedding = if base64 {
                let bytes: Vec<u8> = vector.iter().flat_map(|f| f.to_le_bytes()).collect();
                json!(base64::engine::general_purpose::STANDARD.encode(bytes))
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let tokens: usize = inputs.iter().map(|text| tokens(text)).sum();
    Json(json!({"object": "list", "data": data, "model": body["model"], "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})).into_response()
}

/// Models of these names reason before they answer.
const REASONING: [&str; 4] = ["o1", "o3", "o4", "gpt-5"];
/// Tokens that such a model spends before its answer.
const THOUGHT: u64 = 1000;

/// What `OpenAI` answers to a parameter that reasoning models do not take: seen in async-openai#424 and qwen-code#921.
fn refuse_parameter(body: &Value) -> Option<Response> {
    let refused = |param: &str, code: &str, message: &str| {
        let error = json!({"message": message, "type": "invalid_request_error", "param": param, "code": code});
        Some((StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response())
    };
    if body["temperature"].as_f64().is_some_and(|temperature| (temperature - 1.0).abs() > f64::EPSILON) {
        let message = "Unsupported value: 'temperature' does not support this value with this model. Only the default (1) value is \
                       supported.";
        return refused("temperature", "unsupported_value", message);
    }
    if !body["max_tokens"].is_null() {
        let message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
        return refused("max_tokens", "unsupported_parameter", message);
    }
    None
}

/// Answers with the passage that shares most words with the question, unless it only repeats it.
async fn chat(Json(body): Json<Value>) -> Response {
    if body["tools"].is_array() {
        return refuse("this stand-in has no tools");
    }
    let Some(user) = body["messages"].as_array().and_then(|m| m.last()).and_then(|m| m["content"].as_str()) else {
        return refuse("messages must hold at least one message with text");
    };
    let reasons = body["model"].as_str().is_some_and(|model| REASONING.iter().any(|name| model.starts_with(name)));
    if let Some(refused) = reasons.then(|| refuse_parameter(&body)).flatten() {
        return refused;
    }
    let spent = reasons && body["max_completion_tokens"].as_u64().is_some_and(|limit| limit <= THOUGHT);
    let (passages, question) = user.rsplit_once("Question:").unwrap_or((user, user));
    let wanted: Vec<_> = words(question).collect();
    let asked = question.trim().to_lowercase();
    let shared = |line: &str| words(line).filter(|w| wanted.contains(w)).count() * 1000 / (1 + words(line).count());
    let best = passages
        .lines()
        .filter(|l| l.starts_with('['))
        .max_by_key(|line| (!line.to_lowercase().contains(&asked) && shared(line) > 0, shared(line)));
    let text = match best.and_then(|line| line.split_once("] ")) {
        Some((number, passage)) => format!("{passage} {number}]"),
        None => format!("(sandbox stand-in, no model) You asked: {}", question.trim()),
    };
    // The limit is spent before the first word of the answer.
    let (text, reason) = if spent { (String::new(), "length") } else { (text, "stop") };
    let tokens = user.split_whitespace().count();
    let usage = json!({"prompt_tokens": tokens, "completion_tokens": text.split_whitespace().count(), "total_tokens": tokens + text.split_whitespace().count()});
    if body["stream"] == true {
        let usage = (body["stream_options"]["include_usage"] == true).then_some(usage);
        return streamed(&body["model"], &text, reason, usage);
    }
    Json(json!({
        "id": "chatcmpl-sandbox", "object": "chat.completion", "created": 0, "model": body["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text, "refusal": null}, "finish_reason": reason, "logprobs": null}],
        "usage": usage,
    }))
    .into_response()
}

/// The answer word by word, as server-sent events that end with `[DONE]`.
fn streamed(model: &Value, text: &str, reason: &str, usage: Option<Value>) -> Response {
    let chunk = |delta: Value, reason: Option<&str>| {
        json!({"id": "chatcmpl-sandbox", "object": "chat.completion.chunk", "created": 0, "model": model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], "usage": null})
    };
    let mut chunks = vec![chunk(json!({"role": "assistant", "content": ""}), None)];
    chunks.extend(text.split_inclusive(' ').map(|word| chunk(json!({"content": word}), None)));
    chunks.push(chunk(json!({}), Some(reason)));
    if let Some(usage) = usage {
        let mut last = chunk(json!({}), None);
        (last["choices"], last["usage"]) = (json!([]), usage);
        chunks.push(last);
    }
    let events = chunks.into_iter().map(|chunk| chunk.to_string()).chain(["[DONE]".to_owned()]);
    let events: Vec<_> = events.map(|data| Ok::<_, std::convert::Infallible>(Event::default().data(data))).collect();
    Sse::new(futures::stream::iter(events)).into_response()
}
