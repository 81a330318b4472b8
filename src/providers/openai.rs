//! Any OpenAI-compatible API: embeddings and chat.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use async_trait::async_trait;
use axum::body::Bytes;
use eventsource_stream::Eventsource;
use futures::{Stream, StreamExt};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

use super::chat_answer::{Completion, Reading};
use super::models::{ChatModel, Embedded, Embedder, End, Pieces, estimate};
use super::{CallLimits, Caller, ProviderError};
use crate::lifecycle::Provider;

const PROVIDER: Provider = Provider::Models;
/// Models whose vectors can be made shorter; others refuse the field
/// (<https://platform.openai.com/docs/api-reference/embeddings/create#embeddings-create-dimensions>).
const ANY_DIMENSION: &str = "text-embedding-3-";

/// Where the API is.
#[derive(Clone, Debug)]
pub struct OpenAiConfig {
    /// The base URL with its version, such as `https://api.openai.com/v1`.
    pub url: String,
    /// The API key.
    pub api_key: SecretString,
    /// How it may be called.
    pub calls: CallLimits,
}

/// A client.
#[derive(Debug)]
pub struct OpenAi {
    config: OpenAiConfig,
    caller: Caller,
    /// Models that refused a temperature. They reason before they answer, and get more tokens for it.
    reasoning: RwLock<HashSet<String>>,
}

#[derive(Deserialize)]
struct Embeddings {
    data: Vec<Embedding>,
    usage: Option<EmbeddingUsage>,
}
#[derive(Deserialize)]
struct EmbeddingUsage {
    total_tokens: Option<u64>,
}
#[derive(Deserialize)]
struct Embedding {
    index: usize,
    embedding: Vec<f32>,
}

/// Tokens of one input and of one request, at most
/// (<https://platform.openai.com/docs/api-reference/embeddings/create#embeddings-create-input>). The models' tokenizers
/// work on bytes, so no text has more tokens than bytes, and a text of at most this many bytes fits for certain.
const INPUT_TOKENS: usize = 8192;
const REQUEST_TOKENS: usize = 300_000;
/// Inputs of one request, at most.
const REQUEST_INPUTS: usize = 2048;

/// As much of a text as one input may hold.
fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(INPUT_TOKENS)]
}

/// The texts in requests that are small enough.
fn batches<'a, 'b>(texts: &'a [&'b str]) -> impl Iterator<Item = &'a [&'b str]> {
    let mut rest = texts;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |text: &&&str| {
            bytes += text.len();
            bytes <= REQUEST_TOKENS
        };
        let count = rest.iter().take(REQUEST_INPUTS).take_while(fits).count();
        let (batch, others) = rest.split_at(count);
        rest = others;
        (!batch.is_empty()).then_some(batch)
    })
}

impl OpenAi {
    /// A client; nothing is called yet.
    pub fn new(config: OpenAiConfig) -> Self {
        let caller = Caller::new(PROVIDER, config.calls);
        Self { config, caller, reasoning: RwLock::default() }
    }

    async fn embed_batch(
        &self,
        model: &str,
        dimension: Option<u64>,
        texts: &[&str],
    ) -> Result<Embedded, ProviderError> {
        let url = format!("{}/embeddings", self.config.url);
        let mut body = json!({"model": model, "input": texts, "encoding_format": "float"});
        if let Some(dimension) = dimension.filter(|_| model.starts_with(ANY_DIMENSION)) {
            body["dimensions"] = dimension.into();
        }
        let mut answer: Embeddings = self
            .caller
            .repeatable_json(|c| c.post(&url).bearer_auth(self.config.api_key.expose_secret()).json(&body))
            .await?;
        answer.data.sort_by_key(|e| e.index);
        if answer.data.len() != texts.len() || answer.data.iter().any(|e| e.embedding.is_empty()) {
            return Err(ProviderError::garbage(PROVIDER, "not one embedding for each text"));
        }
        let told = answer.usage.and_then(|usage| usage.total_tokens);
        let tokens = told.unwrap_or_else(|| texts.iter().map(|text| estimate(text.len())).sum());
        let vectors = answer.data.into_iter().map(|e| e.embedding).collect();
        Ok(Embedded { vectors, tokens, estimated: told.is_none() })
    }

    fn chat_body(&self, model: &str, system: &str, user: &str) -> serde_json::Value {
        let messages = [json!({"role": "system", "content": system}), json!({"role": "user", "content": user})];
        let limit = self.longest_answer(model);
        let mut body = json!({"model": model, "max_completion_tokens": limit, "messages": messages});
        if !self.reasons(model) {
            body["temperature"] = 0.into();
        }
        body
    }

    fn reasons(&self, model: &str) -> bool {
        self.reasoning.read().unwrap_or_else(PoisonError::into_inner).contains(model)
    }

    /// Whether a model refused the request because it takes no temperature, as reasoning models do
    /// (<https://platform.openai.com/docs/guides/reasoning>). The next request to it has none. No list of names decides
    /// that: the names differ between the servers that speak this protocol.
    fn learns_to_reason(&self, model: &str, error: &ProviderError) -> bool {
        let refused = error.status == Some(400) && error.message.contains("temperature");
        refused && self.reasoning.write().unwrap_or_else(PoisonError::into_inner).insert(model.to_owned())
    }

    async fn complete(&self, model: &str, system: &str, user: &str) -> Result<(String, End), ProviderError> {
        let url = format!("{}/chat/completions", self.config.url);
        let body = self.chat_body(model, system, user);
        let answer: Completion = self
            .caller
            .repeatable_json(|c| c.post(&url).bearer_auth(self.config.api_key.expose_secret()).json(&body))
            .await?;
        answer.read(system.len() + user.len())
    }

    async fn open_chat(
        &self,
        model: &str,
        system: &str,
        user: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, ProviderError>> + use<>, ProviderError> {
        let url = format!("{}/chat/completions", self.config.url);
        let mut body = self.chat_body(model, system, user);
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
        self.caller
            .open(self.caller.client.post(&url).bearer_auth(self.config.api_key.expose_secret()).json(&body))
            .await
    }
}

#[async_trait]
impl Embedder for OpenAi {
    fn caller(&self) -> &Caller {
        &self.caller
    }

    async fn embed(&self, model: &str, dimension: Option<u64>, texts: &[&str]) -> Result<Embedded, ProviderError> {
        let texts: Vec<_> = texts.iter().map(|text| beginning(text)).collect();
        let mut embedded = Embedded::default();
        for batch in batches(&texts) {
            embedded.extend(self.embed_batch(model, dimension, batch).await?);
        }
        Ok(embedded)
    }
}

#[async_trait]
impl ChatModel for OpenAi {
    async fn chat(&self, model: &str, system: &str, user: &str) -> Result<(String, End), ProviderError> {
        match self.complete(model, system, user).await {
            Err(error) if self.learns_to_reason(model, &error) => self.complete(model, system, user).await,
            answer => answer,
        }
    }

    fn longest_answer(&self, model: &str) -> u64 {
        if self.reasons(model) { LONGEST_ANSWER + LONGEST_REASONING } else { LONGEST_ANSWER }
    }

    async fn chat_stream(&self, model: &str, system: &str, user: &str) -> Result<Pieces, ProviderError> {
        let bytes = match self.open_chat(model, system, user).await {
            Err(error) if self.learns_to_reason(model, &error) => self.open_chat(model, system, user).await,
            opened => opened,
        }?;
        let events = bytes.eventsource().map(Some).chain(futures::stream::iter([None]));
        let pieces = events.scan(Some(Reading::new(system.len() + user.len())), |reading, event| {
            std::future::ready(reading.take().map(|mut open| {
                let (pieces, ended) = open.take(event);
                *reading = (!ended).then_some(open);
                pieces
            }))
        });
        Ok(pieces.flat_map(futures::stream::iter).boxed())
    }
}

/// Tokens of an answer, at most: a page of text.
const LONGEST_ANSWER: u64 = 800;
/// Tokens that a reasoning model may spend before its answer. They count against the same limit of the request.
const LONGEST_REASONING: u64 = 4000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_input_and_no_request_has_too_many_tokens() {
        let (long, short) = ("規".repeat(5000), "a".repeat(1200));
        assert_eq!(beginning(&long).len(), 8190, "whole characters");
        assert_eq!(beginning(&short), short);
        let texts: Vec<_> =
            std::iter::repeat_n(beginning(&long), 100).chain(std::iter::repeat_n(&*short, 2500)).collect();
        let cut: Vec<_> = batches(&texts).collect();
        assert_eq!(cut.concat(), texts, "each once, in their order");
        for batch in &cut {
            let bytes: usize = batch.iter().map(|text| text.len()).sum();
            assert!(bytes <= REQUEST_TOKENS && batch.len() <= REQUEST_INPUTS, "{bytes} bytes of {}", batch.len());
        }
        assert_eq!(batches(&[&*short; 96]).count(), 1, "what documents send at a time is one request");
        assert_eq!(batches(&vec![""; 5000]).count(), 3);
    }
}
