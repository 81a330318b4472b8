//! An answer of an OpenAI-compatible chat model, event by event or at once.

use serde::Deserialize;

use super::ProviderError;
use super::models::{End, Piece, Tokens};
use crate::lifecycle::{Blame, Fault, Provider};

const PROVIDER: Provider = Provider::Models;

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

/// A whole answer.
#[derive(Deserialize)]
pub struct Completion {
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

impl Completion {
    /// Its text and its end. `prompt` is the size of the question with its passages.
    pub fn read(self, prompt: usize) -> Result<(String, End), ProviderError> {
        let choice = self.choices.into_iter().next();
        let choice = choice.ok_or_else(|| ProviderError::garbage(PROVIDER, "no choice in the completion"))?;
        let text = choice.message.content.unwrap_or_default();
        let (answer, tokens, finish_reason) = (text.len(), self.usage, choice.finish_reason);
        Ok((text, Reading { prompt, answer, tokens, finish_reason }.end()?))
    }
}

type Event = Result<eventsource_stream::Event, eventsource_stream::EventStreamError<ProviderError>>;

/// What is known of an answer while it comes.
pub struct Reading {
    /// Bytes of the question with its passages.
    prompt: usize,
    /// Bytes of the answer so far.
    answer: usize,
    tokens: Option<Tokens>,
    finish_reason: Option<String>,
}

impl Reading {
    /// Nothing of the answer has come yet. `prompt` is the size of the question with its passages.
    pub fn new(prompt: usize) -> Self {
        Self { prompt, answer: 0, tokens: None, finish_reason: None }
    }

    /// What one event of the stream holds, or its end (None), and whether that was the last.
    pub fn take(&mut self, event: Option<Event>) -> (Vec<Result<Piece, ProviderError>>, bool) {
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
        let tokens = self.tokens.unwrap_or_else(|| Tokens::estimate(self.prompt, self.answer));
        if self.answer == 0 {
            return Err(empty(reason, tokens));
        }
        Ok(End { tokens, truncated: reason == Some("length") })
    }
}

/// An answer without text, in words that name the cause. It took tokens all the same.
fn empty(finish_reason: Option<&str>, tokens: Tokens) -> ProviderError {
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
        tokens: Some(tokens),
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

    #[test]
    fn an_answer_without_text_says_what_it_took() {
        let usage = r#"{"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 400}}"#;
        let told = Tokens { prompt_tokens: 7, completion_tokens: 400, estimated: false };
        let estimated = Tokens { prompt_tokens: 10, completion_tokens: 0, estimated: true };
        for (events, tokens) in [(vec![event(LENGTH), event(usage)], told), (vec![event(LENGTH)], estimated)] {
            let error = read(events).pop().expect("a last piece").expect_err("an error");
            assert_eq!((error.reason, error.tokens), (Fault::EmptyAnswer, Some(tokens)));
        }
        for (usage, tokens) in [(r#", "usage": {"prompt_tokens": 7, "completion_tokens": 400}"#, told), ("", estimated)]
        {
            let answer = format!(
                r#"{{"choices": [{{"message": {{"content": null}}, "finish_reason": "content_filter"}}]{usage}}}"#
            );
            let answer: Completion = serde_json::from_str(&answer).expect("JSON");
            let error = answer.read(40).expect_err("no text");
            assert_eq!((error.reason, error.tokens), (Fault::EmptyAnswer, Some(tokens)));
        }
    }
}
