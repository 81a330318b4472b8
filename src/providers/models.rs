//! What the operator needs of the models: one that makes vectors of texts, and one that writes answers.
//! `tests/contracts` judges an implementation.

use std::fmt;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Caller, ProviderError};

/// Makes vectors of texts.
#[async_trait]
pub trait Embedder: fmt::Debug + Send + Sync {
    /// The calls to the provider, which show whether it is away.
    fn caller(&self) -> &Caller;

    /// Returns one vector for each text, in their order, of this dimension if the model can choose it. Embeds only the
    /// beginning of a text that is longer than the model accepts.
    async fn embed(&self, model: &str, dimension: Option<u64>, texts: &[&str]) -> Result<Embedded, ProviderError>;
}

/// Vectors of texts, and what they cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embedded {
    /// One vector for each text, in their order.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of the texts.
    pub tokens: u64,
    /// Whether the number is estimated from the texts' lengths, at least in part, because the provider's answer names
    /// none.
    pub estimated: bool,
}

impl Embedded {
    /// With the vectors of more texts.
    pub fn extend(&mut self, more: Self) {
        self.vectors.extend(more.vectors);
        self.tokens = self.tokens.saturating_add(more.tokens);
        self.estimated |= more.estimated;
    }
}

/// The pieces of an answer. The last one is its end or an error.
pub type Pieces = BoxStream<'static, Result<Piece, ProviderError>>;

/// Writes answers.
#[async_trait]
pub trait ChatModel: fmt::Debug + Send + Sync {
    /// The model's answer to a system message and a user message. An answer without text is an error.
    async fn chat(&self, model: &str, system: &str, user: &str) -> Result<(String, End), ProviderError>;

    /// Tokens of an answer of this model, at most.
    fn longest_answer(&self, model: &str) -> u64;

    /// The same answer, piece by piece as the model writes it.
    async fn chat_stream(&self, model: &str, system: &str, user: &str) -> Result<Pieces, ProviderError>;
}

/// What a chat cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    /// Tokens of the question and its passages.
    #[serde(default)]
    #[schema(example = 412)]
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    #[serde(default)]
    #[schema(example = 18)]
    pub completion_tokens: u64,
    /// Whether the numbers are estimated from the texts' lengths, because the provider's answer names none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schema(example = false)]
    pub estimated: bool,
}

impl Tokens {
    /// Estimates from the lengths of the texts: 4 bytes a token, as is usual for English text
    /// (<https://platform.openai.com/docs/concepts#tokens>).
    pub fn estimate(prompt: usize, answer: usize) -> Self {
        Self { prompt_tokens: estimate(prompt), completion_tokens: estimate(answer), estimated: true }
    }
}

/// Tokens of a text of so many bytes, as [`Tokens::estimate`] has it.
pub fn estimate(bytes: usize) -> u64 {
    u64::try_from(bytes.div_ceil(4)).unwrap_or(u64::MAX)
}

/// How an answer ended, and what it cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// What it cost.
    pub tokens: Tokens,
    /// Whether the answer stops in the middle, because it reached the limit of its length.
    pub truncated: bool,
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// More of its text.
    Text(String),
    /// The last piece.
    End(End),
}
