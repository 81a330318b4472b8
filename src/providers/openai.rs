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

use super::models::{ChatModel, Embedded, Embedder, End, Piece, Pieces, Tokens, estimate};
use super::{CallLimits, Caller, ProviderError};
use crate::lifecycle::{Blame, Fault, Provider};

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
#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    choices: Vec<DeltaChoice>,
    usage: Option<Tokens>,
    /// An error after the answer began.
    error: Option<serde_json::Value>,
}
#[derive(Deserialize)]
struct DeltaChoice {
    #[serde(default)]
    delta: ChoiceMessage,
    finish_reason: Option<String>,
}
#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
    usage: Option<Tokens>,
}
#[derive(Deserialize)]
struct Choice {
    message: ChoiceMessage,
    finish_reason: Option<String>,
}
#[derive(Default, Deserialize)]
struct ChoiceMessage {
    content: Option<String>,
}

/// Tokens of one input and of one request, at most
/// (<https://platform.openai.com/docs/api-reference/embeddings/create#embeddings-create-input>). The models' tokenizers work on
/// bytes, so no text has more tokens than bytes, and a text of at most this many bytes fits for certain.
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
    /// (<https://platform.openai.com/docs/guides/reasoning>). The next request to it has none. No list of names decides that:
    /// the names differ between the servers that speak this protocol.
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
        let choice = answer.choices.into_iter().next();
        let choice = choice.ok_or_else(|| ProviderError::garbage(PROVIDER, "no choice in the completion"))?;
        let text = choice.message.content.unwrap_or_default();
        let mut reading = Reading::new(system.len() + user.len());
        (reading.answer, reading.tokens, reading.finish_reason) = (text.len(), answer.usage, choice.finish_reason);
        Ok((text, reading.end()?))
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

type Event = Result<eventsource_stream::Event, eventsource_stream::EventStreamError<ProviderError>>;

/// What is known of an answer while it comes.
struct Reading {
    /// Bytes of the question with its passages.
    prompt: usize,
    /// Bytes of the answer so far.
    answer: usize,
    tokens: Option<Tokens>,
    finish_reason: Option<String>,
}

impl Reading {
    fn new(prompt: usize) -> Self {
        Self { prompt, answer: 0, tokens: None, finish_reason: None }
    }

    /// What one event of the stream holds, or its end (None), and whether that was the last.
    fn take(&mut self, event: Option<Event>) -> (Vec<Result<Piece, ProviderError>>, bool) {
        use eventsource_stream::EventStreamError::Transport;
        let last = |error| (vec![Err(error)], true);
        let event = match event {
            Some(Ok(event)) if event.data == "[DONE]" => return (vec![self.end().map(Piece::End)], true),
            Some(Ok(event)) => event,
            Some(Err(Transport(error))) => return last(error),
            Some(Err(error)) => return last(ProviderError::garbage(PROVIDER, error)),
            // Some servers leave out `[DONE]`. An answer without a reason for its end is not complete.
            None if self.finish_reason.is_some() => return (vec![self.end().map(Piece::End)], true),
            None => return last(ProviderError::garbage(PROVIDER, "the answer broke off")),
        };
        match serde_json::from_str(&event.data) {
            Ok(Delta { error: Some(error), .. }) => last(reported(&error)),
            Ok(delta) => (self.texts(delta), false),
            Err(error) => last(ProviderError::garbage(PROVIDER, error)),
        }
    }

    fn texts(&mut self, delta: Delta) -> Vec<Result<Piece, ProviderError>> {
        self.tokens = delta.usage.or(self.tokens);
        let mut pieces = Vec::new();
        for choice in delta.choices {
            self.finish_reason = choice.finish_reason.or(self.finish_reason.take());
            let text = choice.delta.content.unwrap_or_default();
            self.answer += text.len();
            if !text.is_empty() {
                pieces.push(Ok(Piece::Text(text)));
            }
        }
        pieces
    }

    /// The end of an answer. An answer without text is an error, even with a good status.
    fn end(&self) -> Result<End, ProviderError> {
        let reason = self.finish_reason.as_deref();
        if self.answer == 0 {
            return Err(empty(reason));
        }
        let tokens = self.tokens.unwrap_or_else(|| Tokens::estimate(self.prompt, self.answer));
        Ok(End { tokens, truncated: reason == Some("length") })
    }
}

/// An answer without text, in words that name the cause.
fn empty(finish_reason: Option<&str>) -> ProviderError {
    let message = match finish_reason {
        Some("length") => {
            "the model spent its limit of tokens before it wrote an answer. Choose a model that reasons less in the Plan's \
             models.chat"
        }
        Some("content_filter") => "the provider's content filter withheld the answer",
        _ => "the model's answer is empty",
    };
    ProviderError {
        provider: PROVIDER,
        status: None,
        reason: Fault::EmptyAnswer,
        message: message.into(),
        blame: Blame::Call,
        retryable: false,
        retry_after: None,
    }
}

/// An error that comes as an event of the stream, where the status was 200 already.
fn reported(error: &serde_json::Value) -> ProviderError {
    let message = error["message"].as_str().or(error.as_str()).unwrap_or("no message");
    let short: String = message.chars().take(200).collect();
    ProviderError {
        reason: Fault::StreamError,
        message: format!("ended its answer with an error: {short}"),
        ..ProviderError::garbage(PROVIDER, "")
    }
}

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

    fn event(data: &str) -> eventsource_stream::Event {
        eventsource_stream::Event { data: data.into(), ..Default::default() }
    }

    /// Reads events one by one, as the stream does.
    fn read(events: Vec<eventsource_stream::Event>) -> Vec<Result<Piece, ProviderError>> {
        let mut reading = Reading::new(40);
        let mut all = Vec::new();
        for event in events.into_iter().map(|event| Some(Ok(event))).chain([None]) {
            let (pieces, ended) = reading.take(event);
            all.extend(pieces);
            if ended {
                break;
            }
        }
        all
    }

    fn last_reason(events: Vec<eventsource_stream::Event>) -> Fault {
        read(events).pop().expect("a last piece").expect_err("an error").reason
    }

    const TEXT: &str = r#"{"choices": [{"delta": {"content": "Thirty days."}, "finish_reason": null}]}"#;
    const STOP: &str = r#"{"choices": [{"delta": {}, "finish_reason": "stop"}]}"#;
    const LENGTH: &str = r#"{"choices": [{"delta": {}, "finish_reason": "length"}]}"#;

    #[test]
    fn an_error_inside_a_stream_is_an_error() {
        let failed = r#"{"error": {"message": "The server had an error", "type": "server_error"}}"#;
        assert_eq!(last_reason(vec![event(TEXT), event(failed), event("[DONE]")]), Fault::StreamError);
    }

    #[test]
    fn a_stream_that_breaks_off_is_an_error() {
        assert_eq!(last_reason(vec![event(TEXT)]), Fault::BadAnswer);
    }

    #[test]
    fn tokens_are_estimated_and_said_to_be_when_the_provider_names_none() {
        let end = read(vec![event(TEXT), event(STOP), event("[DONE]")]).pop().expect("a piece").expect("an end");
        let tokens = Tokens { prompt_tokens: 10, completion_tokens: 3, estimated: true };
        assert_eq!(end, Piece::End(End { tokens, truncated: false }));
        let usage = r#"{"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}"#;
        let end = read(vec![event(TEXT), event(STOP), event(usage)]).pop().expect("a piece").expect("an end");
        let tokens = Tokens { prompt_tokens: 7, completion_tokens: 2, estimated: false };
        assert_eq!(end, Piece::End(End { tokens, truncated: false }), "without [DONE] as well");
    }

    #[test]
    fn an_answer_that_reached_its_limit_says_so_and_one_without_text_is_an_error() {
        let end = read(vec![event(TEXT), event(LENGTH), event("[DONE]")]).pop().expect("a piece").expect("an end");
        assert!(matches!(end, Piece::End(End { truncated: true, .. })));
        assert_eq!(last_reason(vec![event(LENGTH), event("[DONE]")]), Fault::EmptyAnswer);
    }
}
