//! Any OpenAI-compatible API: embeddings and chat.

use serde::Deserialize;
use serde_json::json;

use super::{CallLimits, Caller, ProviderError};

const PROVIDER: &str = "OpenAI";

/// Where the API is.
#[derive(Clone, Debug)]
pub struct OpenAiConfig {
    /// The base URL with its version, such as `https://api.openai.com/v1`.
    pub url: String,
    /// The API key.
    pub api_key: String,
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
#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
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

    /// One vector for each text, in their order.
    pub async fn embed(&self, model: &str, texts: &[&str]) -> Result<Vec<Vec<f32>>, ProviderError> {
        let url = format!("{}/embeddings", self.config.url);
        let body = json!({"model": model, "input": texts, "encoding_format": "float"});
        let mut answer: Embeddings =
            self.caller.json(|c| c.post(&url).bearer_auth(&self.config.api_key).json(&body)).await?;
        answer.data.sort_by_key(|e| e.index);
        if answer.data.len() != texts.len() || answer.data.iter().any(|e| e.embedding.is_empty()) {
            return Err(ProviderError::garbage(PROVIDER, "not one embedding for each text"));
        }
        Ok(answer.data.into_iter().map(|e| e.embedding).collect())
    }

    /// The model's answer to a system message and a user message.
    pub async fn chat(&self, model: &str, system: &str, user: &str) -> Result<String, ProviderError> {
        let url = format!("{}/chat/completions", self.config.url);
        let body = json!({
            "model": model,
            "temperature": 0,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
        });
        let answer: Completion =
            self.caller.json(|c| c.post(&url).bearer_auth(&self.config.api_key).json(&body)).await?;
        let text = answer.choices.into_iter().next().and_then(|c| c.message.content);
        text.ok_or_else(|| ProviderError::garbage(PROVIDER, "no choice in the completion"))
    }
}
