//! The contracts of an embedder and a chat model.

use std::collections::BTreeSet;

use async_trait::async_trait;
use futures::future::LocalBoxFuture;
use futures::{StreamExt, stream};
use serde_json::json;
use tenant_operator::lifecycle::{Blame, Fault, Provider};
use tenant_operator::providers::models::{ChatModel, Embedded, Embedder, End, Piece, Pieces};
use tenant_operator::providers::openai::{OpenAi, OpenAiConfig};
use tenant_operator::providers::{Caller, ProviderError};

use super::{Verdict, broken, calls, holds, sandbox, set};

/// What is judged.
struct Judged<'a> {
    embedder: &'a dyn Embedder,
    /// A model of it whose vectors can be made shorter.
    embedding: &'a str,
    chat: &'a dyn ChatModel,
    /// A model of it.
    writer: &'a str,
    /// Makes the provider refuse the key of the next call.
    refuse: &'a dyn Fn() -> LocalBoxFuture<'static, ()>,
}

type Contract = for<'a> fn(&'a Judged<'a>) -> LocalBoxFuture<'a, Verdict>;

const CONTRACTS: [(&str, Contract); 6] = [
    ("order", |judged| Box::pin(order(judged))),
    ("dimension", |judged| Box::pin(dimension(judged))),
    ("large", |judged| Box::pin(large(judged))),
    ("answer", |judged| Box::pin(answer(judged))),
    ("stream", |judged| Box::pin(streams(judged))),
    ("key", |judged| Box::pin(key(judged))),
];

async fn judge(judged: &Judged<'_>, wanted: impl Fn(&str) -> bool) -> BTreeSet<&'static str> {
    let mut verdicts = Vec::new();
    for (name, contract) in CONTRACTS.into_iter().filter(|(name, _)| wanted(name)) {
        verdicts.push((name, contract(judged).await));
    }
    broken(verdicts)
}

#[expect(clippy::needless_pass_by_value, reason = "the form that `map_err` takes")]
fn said(error: ProviderError) -> String {
    error.to_string()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    product(a, b) / (product(a, a) * product(b, b)).sqrt()
}

/// One vector for each text, in their order; texts that say the same are near each other.
async fn order(judged: &Judged<'_>) -> Verdict {
    let embed = async |texts: &[&str]| judged.embedder.embed(judged.embedding, None, texts).await.map_err(said);
    let embedded = embed(&["Employees get thirty days of vacation.", "The office closes at noon."]).await?;
    holds("it says what it cost", embedded.tokens > 0)?;
    let both = embedded.vectors;
    holds("one vector for each text", both.len() == 2)?;
    let again = embed(&["Employees get thirty days of vacation."]).await?.vectors;
    holds("in the order of the texts", cosine(&both[0], &again[0]) > 0.98 && cosine(&both[1], &again[0]) < 0.9)?;
    holds("no texts, no vectors", embed(&[]).await?.vectors.is_empty())
}

/// A model that can choose its dimension follows the index.
async fn dimension(judged: &Judged<'_>) -> Verdict {
    for wanted in [256, 512] {
        let made = judged.embedder.embed(judged.embedding, Some(wanted), &["text"]).await.map_err(said)?.vectors;
        holds("the dimension is the one that was asked for", made.iter().all(|vector| vector.len() as u64 == wanted))?;
    }
    Ok(())
}

/// A text that is too long is cut, and more texts than one call takes are cut into several calls.
async fn large(judged: &Judged<'_>) -> Verdict {
    let (long, short) = ("word ".repeat(20_000), "word".to_owned());
    let texts: Vec<_> = [&*long].into_iter().chain(std::iter::repeat_n(&*short, 2100)).collect();
    let made = judged.embedder.embed(judged.embedding, Some(16), &texts).await.map_err(said)?;
    holds("one vector for each text", made.vectors.len() == texts.len())
}

/// An answer has text, and says what it cost.
async fn answer(judged: &Judged<'_>) -> Verdict {
    let (text, end) = judged.chat.chat(judged.writer, "Answer with one word.", "Ready?").await.map_err(said)?;
    holds("it has text", !text.trim().is_empty())?;
    holds("it says what it cost", end.tokens.prompt_tokens > 0 && end.tokens.completion_tokens > 0)?;
    holds("it is whole", !end.truncated)
}

/// Piece by piece, an answer has text, and one end, which comes last.
async fn streams(judged: &Judged<'_>) -> Verdict {
    let pieces = judged.chat.chat_stream(judged.writer, "Answer with one word.", "Ready?").await.map_err(said)?;
    let pieces: Vec<_> = pieces.collect().await;
    let pieces = pieces.into_iter().collect::<Result<Vec<_>, _>>().map_err(said)?;
    let Some((Piece::End(end), texts)) = pieces.split_last() else { return Err("the end does not come last".into()) };
    holds("it says what it cost", end.tokens.completion_tokens > 0)?;
    let text = |piece: &Piece| if let Piece::Text(text) = piece { Some(text.clone()) } else { None };
    let texts: Option<String> = texts.iter().map(text).collect();
    holds("all before the end is text", texts.is_some_and(|text| !text.trim().is_empty()))
}

/// A refused key is the operator's to correct, and no retry helps.
async fn key(judged: &Judged<'_>) -> Verdict {
    (judged.refuse)().await;
    let embedded = judged.embedder.embed(judged.embedding, None, &["text"]).await.err();
    (judged.refuse)().await;
    let answered = judged.chat.chat(judged.writer, "Answer with one word.", "Ready?").await.err();
    (judged.refuse)().await;
    let streamed = judged.chat.chat_stream(judged.writer, "Answer with one word.", "Ready?").await.err();
    for error in [embedded, answered, streamed] {
        let error = error.ok_or("a refused key is an error")?;
        let told = (error.provider, error.reason, error.blame, error.retryable);
        let wanted = (Provider::Models, Fault::Unauthorized, Blame::Admin, false);
        holds(&format!("a refused key is told as such: {error:?}"), told == wanted)?;
    }
    Ok(())
}

/// What is wrong with a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seeded {
    Reverses,
    OwnDimension,
    OneBatch,
    NoText,
    NoCost,
    NoEnd,
    EndsFirst,
    BlamesTheCall,
}

/// The real client with a fault.
#[derive(Debug)]
struct Faulty<'a> {
    client: &'a OpenAi,
    has: Seeded,
}

impl Faulty<'_> {
    fn told(&self, error: ProviderError) -> ProviderError {
        if self.has == Seeded::BlamesTheCall { ProviderError { blame: Blame::Call, ..error } } else { error }
    }
}

#[async_trait]
impl Embedder for Faulty<'_> {
    fn caller(&self) -> &Caller {
        self.client.caller()
    }

    async fn embed(&self, model: &str, dimension: Option<u64>, texts: &[&str]) -> Result<Embedded, ProviderError> {
        let dimension = dimension.filter(|_| self.has != Seeded::OwnDimension);
        let mut made = self.client.embed(model, dimension, texts).await.map_err(|e| self.told(e))?;
        match self.has {
            Seeded::Reverses => made.vectors.reverse(),
            Seeded::OneBatch => made.vectors.truncate(2048),
            _ => {}
        }
        Ok(made)
    }
}

#[async_trait]
impl ChatModel for Faulty<'_> {
    async fn chat(&self, model: &str, system: &str, user: &str) -> Result<(String, End), ProviderError> {
        let (text, end) = self.client.chat(model, system, user).await.map_err(|e| self.told(e))?;
        Ok(match self.has {
            Seeded::NoText => (String::new(), end),
            Seeded::NoCost => (text, End::default()),
            _ => (text, end),
        })
    }

    fn longest_answer(&self, model: &str) -> u64 {
        self.client.longest_answer(model)
    }

    async fn chat_stream(&self, model: &str, system: &str, user: &str) -> Result<Pieces, ProviderError> {
        let pieces = self.client.chat_stream(model, system, user).await.map_err(|e| self.told(e))?;
        let mut pieces: Vec<_> = pieces.collect().await;
        match self.has {
            Seeded::NoEnd => drop(pieces.pop()),
            Seeded::EndsFirst => pieces.reverse(),
            _ => {}
        }
        Ok(stream::iter(pieces).boxed())
    }
}

/// Judges the client of the OpenAI-compatible API at a sandbox of its own, with a fault or without.
async fn judged(seeded: Option<Seeded>, wanted: impl Fn(&str) -> bool) -> BTreeSet<&'static str> {
    let sandbox = sandbox().await;
    let config = OpenAiConfig { url: sandbox.openai_url.clone(), api_key: "sk-contracts".into(), calls: calls() };
    let client = OpenAi::new(config);
    let refuse = move || -> LocalBoxFuture<'static, ()> {
        let sandbox = sandbox.clone();
        let refusal =
            json!({"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}).to_string();
        let fault = json!({"provider": "openai", "status": 401, "body": refusal});
        Box::pin(async move { set(&sandbox, "faults", fault).await })
    };
    let faulty = seeded.map(|has| Faulty { client: &client, has });
    let (embedder, chat): (&dyn Embedder, &dyn ChatModel) = match &faulty {
        Some(faulty) => (faulty, faulty),
        None => (&client, &client),
    };
    let (embedding, writer) = ("text-embedding-3-small", "gpt-4o-mini");
    judge(&Judged { embedder, embedding, chat, writer, refuse: &refuse }, wanted).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_keeps_every_contract() {
    assert!(judged(None, |_| true).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_contract_can_be_broken() {
    let seeded = [
        (Seeded::Reverses, "order"),
        (Seeded::OwnDimension, "dimension"),
        (Seeded::OneBatch, "large"),
        (Seeded::NoText, "answer"),
        (Seeded::NoCost, "answer"),
        (Seeded::NoEnd, "stream"),
        (Seeded::EndsFirst, "stream"),
        (Seeded::BlamesTheCall, "key"),
    ];
    let all: BTreeSet<_> = CONTRACTS.map(|(name, _)| name).into();
    assert_eq!(seeded.iter().map(|(_, contract)| *contract).collect::<BTreeSet<_>>(), all);
    for (has, contract) in seeded {
        assert!(
            judged(Some(has), |name| name == contract).await.contains(contract),
            "{has:?} does not break {contract}"
        );
    }
}
