//! Any OpenAI-compatible API: embeddings and chat.

use eventsource_stream::Eventsource;
use futures::{Stream, StreamExt};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{CallLimits, Caller, ProviderError};

const PROVIDER: &str = "OpenAI";
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
}

#[derive(Deserialize)]
struct Embeddings {
    data: Vec<Embedding>,
}
#[derive(Deserialize)]
struct Embedding {
    index: usize,
    embedding: Vec<f32>,
}
/// What a chat cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    /// Tokens of the question and its passages.
    #[serde(default)]
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    #[serde(default)]
    pub completion_tokens: u64,
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// More of its text.
    Text(String),
    /// What it cost; the last piece.
    Tokens(Tokens),
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    choices: Vec<DeltaChoice>,
    usage: Option<Tokens>,
}
#[derive(Deserialize)]
struct DeltaChoice {
    delta: ChoiceMessage,
}
#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Tokens,
}
#[derive(Deserialize)]
struct Choice {
    message: ChoiceMessage,
}
#[derive(Deserialize)]
struct ChoiceMessage {
    content: Option<String>,
}

impl OpenAi {
    /// A client; nothing is called yet.
    pub fn new(config: OpenAiConfig) -> Self {
        let caller = Caller::new(PROVIDER, config.calls);
        Self { config, caller }
    }

    /// The provider's calls, for whoever wants to know whether it is away.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// One vector for each text, in their order; of this dimension, where the model can choose it.
    pub async fn embed(
        &self,
        model: &str,
        dimension: Option<u64>,
        texts: &[&str],
    ) -> Result<Vec<Vec<f32>>, ProviderError> {
        let url = format!("{}/embeddings", self.config.url);
        let mut body = json!({"model": model, "input": texts, "encoding_format": "float"});
        if let Some(dimension) = dimension.filter(|_| model.starts_with(ANY_DIMENSION)) {
            body["dimensions"] = dimension.into();
        }
        let mut answer: Embeddings =
            self.caller.json(|c| c.post(&url).bearer_auth(self.config.api_key.expose_secret()).json(&body)).await?;
        answer.data.sort_by_key(|e| e.index);
        if answer.data.len() != texts.len() || answer.data.iter().any(|e| e.embedding.is_empty()) {
            return Err(ProviderError::garbage(PROVIDER, "not one embedding for each text"));
        }
        Ok(answer.data.into_iter().map(|e| e.embedding).collect())
    }

    fn chat_body(model: &str, system: &str, user: &str) -> serde_json::Value {
        json!({
            "model": model,
            "temperature": 0,
            "max_completion_tokens": LONGEST_ANSWER,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
        })
    }

    /// The model's answer to a system message and a user message.
    pub async fn chat(&self, model: &str, system: &str, user: &str) -> Result<(String, Tokens), ProviderError> {
        let url = format!("{}/chat/completions", self.config.url);
        let body = Self::chat_body(model, system, user);
        let answer: Completion =
            self.caller.json(|c| c.post(&url).bearer_auth(self.config.api_key.expose_secret()).json(&body)).await?;
        let text = answer.choices.into_iter().next().and_then(|c| c.message.content);
        let text = text.ok_or_else(|| ProviderError::garbage(PROVIDER, "no choice in the completion"))?;
        Ok((text, answer.usage))
    }

    /// The same answer, piece by piece as the model writes it.
    pub async fn chat_stream(
        &self,
        model: &str,
        system: &str,
        user: &str,
    ) -> Result<impl Stream<Item = Result<Piece, ProviderError>> + use<>, ProviderError> {
        let url = format!("{}/chat/completions", self.config.url);
        let mut body = Self::chat_body(model, system, user);
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
        let bytes = self
            .caller
            .open(self.caller.client.post(&url).bearer_auth(self.config.api_key.expose_secret()).json(&body))
            .await?;
        let events = bytes.eventsource().take_while(|event| {
            let done = event.as_ref().is_ok_and(|event| event.data == "[DONE]");
            std::future::ready(!done)
        });
        Ok(events.flat_map(|event| futures::stream::iter(pieces(event))))
    }
}

/// Tokens of an answer, at most: a page of text.
const LONGEST_ANSWER: u32 = 800;

type Event = Result<eventsource_stream::Event, eventsource_stream::EventStreamError<ProviderError>>;

/// What one event of the stream holds.
fn pieces(event: Event) -> Vec<Result<Piece, ProviderError>> {
    use eventsource_stream::EventStreamError::Transport;
    let event = match event {
        Ok(event) => event,
        Err(Transport(error)) => return vec![Err(error)],
        Err(error) => return vec![Err(ProviderError::garbage(PROVIDER, error))],
    };
    let delta: Delta = match serde_json::from_str(&event.data) {
        Ok(delta) => delta,
        Err(error) => return vec![Err(ProviderError::garbage(PROVIDER, error))],
    };
    let texts = delta.choices.into_iter().filter_map(|choice| choice.delta.content).filter(|text| !text.is_empty());
    texts.map(Piece::Text).chain(delta.usage.map(Piece::Tokens)).map(Ok).collect()
}
