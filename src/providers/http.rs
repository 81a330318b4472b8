//! One HTTP call to a provider: rate limit, timeout and quick retries.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use backon::{BackoffBuilder, ExponentialBuilder};
use futures::{Stream, StreamExt, TryStreamExt};
use reqwest::redirect::Policy;
use reqwest::{RequestBuilder, Response};
use serde::de::DeserializeOwned;

use super::breaker::Breaker;
use super::error::ProviderError;
use super::rate::Rate;
use super::retry_after::retry_after;
use crate::lifecycle::{Blame, Fault, Provider};

/// The longest answer that is read.
const BODY_LIMIT: usize = 32 << 20;
/// How much of an error is read.
const ERROR_LIMIT: usize = 64 << 10;
/// The longest answer that comes in pieces, in time.
pub const LONGEST_STREAM: Duration = Duration::from_mins(5);
/// And in bytes: some 2,000 bytes for each token of the longest answer. This limits what the reader of the pieces
/// holds, even if a line never ends.
const STREAM_LIMIT: usize = 2 << 20;
/// A call waits by itself for a `Retry-After` up to this long. A longer one is returned to the caller, which holds
/// nothing while it waits.
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// How a provider may be called.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// Calls per second, at most.
    pub per_second: NonZeroU32,
    /// The longest that one call may take.
    pub timeout: Duration,
    /// Quick retries inside a call, if they can help.
    pub retries: usize,
}

/// Calls one provider.
#[derive(Debug)]
pub struct Caller {
    provider: Provider,
    /// The connection pool.
    pub client: reqwest::Client,
    rate: Rate,
    breaker: Breaker,
    timeout: Duration,
    retries: usize,
    calls: Calls,
}

/// How many calls there were.
#[derive(Debug, Default)]
struct Calls {
    ok: AtomicU64,
    failed: AtomicU64,
}

impl Caller {
    /// Calls a provider within these limits.
    ///
    /// # Panics
    ///
    /// Where no TLS provider is installed, as the program does at its start.
    pub fn new(provider: Provider, limits: CallLimits) -> Self {
        let client = reqwest::Client::builder()
            .timeout(limits.timeout)
            .connect_timeout(Duration::from_secs(5))
            .pool_idle_timeout(Duration::from_mins(1))
            .tcp_nodelay(true)
            // A redirect would carry the key on: reqwest removes `Authorization` for another host, but not `Api-Key`.
            .redirect(Policy::none())
            .user_agent(concat!("tenant-operator/", env!("CARGO_PKG_VERSION")))
            .build()
            .expect("the program installs a TLS provider at its start, and no other setting can fail");
        Self {
            provider,
            client,
            rate: Rate::new(limits.per_second),
            breaker: Breaker::new(limits.timeout / 4),
            timeout: limits.timeout,
            retries: limits.retries,
            calls: Calls::default(),
        }
    }

    /// The provider's name.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Calls that were answered well so far, and those that were not.
    pub fn calls(&self) -> [u64; 2] {
        [&self.calls.ok, &self.calls.failed].map(|count| count.load(Ordering::Relaxed))
    }

    /// Whether the provider is known to be away.
    pub fn is_away(&self) -> bool {
        self.breaker.is_open()
    }

    /// Waits until a provider that was away is back.
    pub async fn back(&self) {
        self.breaker.back().await;
    }

    /// Sends the request that `build` makes, and returns the JSON. Retries if that can help and does no harm.
    pub async fn json<T: DeserializeOwned>(
        &self,
        build: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<T, ProviderError> {
        self.parse(&self.bytes(build).await?)
    }

    /// Sends an idempotent POST, and returns the JSON. Retries if that can help.
    pub async fn repeatable_json<T: DeserializeOwned>(
        &self,
        build: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<T, ProviderError> {
        self.parse(&self.repeatable(build).await?)
    }

    fn parse<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, ProviderError> {
        serde_json::from_slice(bytes).map_err(|e| ProviderError::garbage(self.provider, e))
    }

    /// Sends the request that `build` makes, and returns the body. Retries if that can help. A POST without an
    /// idempotency key is retried only if the provider said that it did not execute it: without an answer, it may have
    /// been executed.
    pub async fn bytes(&self, build: impl Fn(&reqwest::Client) -> RequestBuilder) -> Result<Vec<u8>, ProviderError> {
        let harmless = |error: &ProviderError| error.not_begun() || is_harmless(&build(&self.client));
        self.resending(&build, harmless).await
    }

    /// Sends an idempotent POST, and returns the body. Retries if that can help.
    pub async fn repeatable(
        &self,
        build: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Vec<u8>, ProviderError> {
        self.resending(&build, |_| true).await
    }

    async fn resending(
        &self,
        build: &impl Fn(&reqwest::Client) -> RequestBuilder,
        harmless: impl Fn(&ProviderError) -> bool,
    ) -> Result<Vec<u8>, ProviderError> {
        let mut first: Option<ProviderError> = None;
        let mut waits = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_jitter()
            .with_max_times(self.retries)
            .build();
        loop {
            let error = match self.guarded(build).await {
                Ok(body) => return Ok(body),
                // Saved from the first try of this very call, after which the caller has not looked yet.
                Err(error) if error.is_saved() => return Err(first.unwrap_or(error)),
                Err(error) => error,
            };
            first.get_or_insert_with(|| error.clone());
            let wished = error.retry_after.unwrap_or_default();
            let quick = error.retryable && error.blame == Blame::Call && wished <= SHORT_WAIT;
            match waits.next() {
                Some(wait) if quick && harmless(&error) => tokio::time::sleep(wait.max(wished)).await,
                _ => return Err(error),
            }
        }
    }

    /// Opens an answer that comes in pieces. It is not sent again: some of it may have been read.
    pub async fn open(
        &self,
        request: RequestBuilder,
    ) -> Result<impl Stream<Item = Result<Bytes, ProviderError>> + use<>, ProviderError> {
        let away = |away| ProviderError::away(self.provider, away);
        self.breaker.check().map_err(away)?;
        self.rate.turn().await;
        let permit = self.breaker.enter().map_err(away)?;
        let request = request.timeout(LONGEST_STREAM).send();
        let opened = match tokio::time::timeout(self.timeout, request).await {
            Ok(opened) => opened.map_err(|e| ProviderError::unreachable(self.provider, &e)),
            Err(_) => Err(self.silent()),
        };
        let response = match opened {
            Ok(response) if response.status().is_success() => response,
            Ok(response) => {
                let (status, retry_after) = (response.status(), retry_after(response.headers()));
                let error = ProviderError::refused(self.provider, status, retry_after, &self.beginning(response).await);
                self.calls.failed.fetch_add(1, Ordering::Relaxed);
                if status.is_server_error() {
                    permit.failed();
                } else {
                    permit.answered();
                }
                return Err(error);
            }
            Err(error) => {
                self.calls.failed.fetch_add(1, Ordering::Relaxed);
                permit.failed();
                return Err(error);
            }
        };
        permit.answered();
        self.calls.ok.fetch_add(1, Ordering::Relaxed);
        let (broken, silent) = (self.broken(), self.silent());
        let pieces = response.bytes_stream().map_err(move |_| broken.clone());
        let pieces = tokio_stream::StreamExt::timeout(pieces, self.timeout);
        let pieces = pieces.map(move |piece| piece.unwrap_or_else(|_| Err(silent.clone())));
        Ok(bounded(self.provider, pieces))
    }

    /// What an error says, as far as it comes.
    async fn beginning(&self, mut response: Response) -> Vec<u8> {
        let mut body = Vec::new();
        while let Ok(Ok(Some(chunk))) = tokio::time::timeout(self.timeout, response.chunk()).await {
            body.extend_from_slice(&chunk[..chunk.len().min(ERROR_LIMIT - body.len())]);
            if body.len() == ERROR_LIMIT {
                break;
            }
        }
        body
    }

    fn silent(&self) -> ProviderError {
        ProviderError { reason: Fault::Timeout, message: "gave no answer in time".into(), ..self.broken() }
    }

    fn broken(&self) -> ProviderError {
        ProviderError {
            provider: self.provider,
            status: None,
            reason: Fault::Unreachable,
            message: "broke off its answer".into(),
            blame: Blame::Call,
            retryable: true,
            retry_after: None,
            tokens: None,
        }
    }

    /// One call, unless the provider is away; ended early when it turns out to be.
    async fn guarded(&self, build: impl Fn(&reqwest::Client) -> RequestBuilder) -> Result<Vec<u8>, ProviderError> {
        let away = |away| ProviderError::away(self.provider, away);
        self.breaker.check().map_err(away)?;
        self.rate.turn().await;
        let permit = self.breaker.enter().map_err(away)?;
        let outcome = tokio::select! {
            outcome = self.once(build(&self.client)) => outcome,
            overtaken = permit.overtaken() => return Err(away(overtaken)),
        };
        let counter = if outcome.is_ok() { &self.calls.ok } else { &self.calls.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        let down = matches!(&outcome, Err(error) if !error.is_saved() && error.status.is_none_or(|s| s >= 500));
        if !down {
            permit.answered();
            return outcome;
        }
        permit.failed();
        // If the breaker is open now, this call found the provider away. It is part of the outage and no failed attempt
        // of the tenant.
        self.breaker.check().map_err(away).and(outcome)
    }

    async fn once(&self, request: RequestBuilder) -> Result<Vec<u8>, ProviderError> {
        let mut response = request.send().await.map_err(|e| ProviderError::unreachable(self.provider, &e))?;
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        let saved = response.headers().get("idempotent-replayed").is_some_and(|replayed| replayed == "true");
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| ProviderError::unreachable(self.provider, &e))? {
            if body.len() + chunk.len() > BODY_LIMIT {
                return Err(ProviderError::garbage(self.provider, "an answer of more than 32 MiB"));
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(body);
        }
        let error = ProviderError::refused(self.provider, status, retry_after, &body);
        Err(if saved { ProviderError { reason: Fault::SavedAnswer, ..error } } else { error })
    }
}

/// The pieces up to [`STREAM_LIMIT`]; what goes beyond is an error, and the last piece.
fn bounded(
    provider: Provider,
    pieces: impl Stream<Item = Result<Bytes, ProviderError>>,
) -> impl Stream<Item = Result<Bytes, ProviderError>> {
    pieces.scan(Some(0), move |read, piece| {
        let next = read.map(|before| match piece {
            Ok(bytes) if before + bytes.len() > STREAM_LIMIT => {
                *read = None;
                Err(ProviderError::garbage(provider, "a stream of more than 2 MiB"))
            }
            Ok(bytes) => {
                *read = Some(before + bytes.len());
                Ok(bytes)
            }
            Err(error) => Err(error),
        });
        std::future::ready(next)
    })
}

/// Whether a request that may have been executed can be sent again: it changes nothing, deletes, or carries a key by
/// which the provider executes it once.
fn is_harmless(request: &RequestBuilder) -> bool {
    let request = request.try_clone().and_then(|request| request.build().ok());
    request.is_some_and(|r| r.method() != reqwest::Method::POST || r.headers().contains_key("idempotency-key"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn caller() -> Caller {
        let per_second = NonZeroU32::MIN.saturating_add(99);
        crate::cli::install_crypto();
        Caller::new(Provider::VectorStore, CallLimits { per_second, timeout: Duration::from_secs(10), retries: 0 })
    }

    /// A server that counts its requests and answers each with `head`, and then with `body` again and again, for as
    /// long as the client reads.
    async fn server(head: String, body: &'static [u8]) -> (String, Arc<AtomicU64>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(AtomicU64::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                drop(stream.read(&mut [0; 4096]).await);
                drop(stream.write_all(head.as_bytes()).await);
                while !body.is_empty() && stream.write_all(body).await.is_ok() {}
            }
        });
        (url, asked)
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed_and_no_key_travels() {
        let (elsewhere, asked) = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".into(), b"").await;
        for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
            let head = format!("HTTP/1.1 {status}\r\nlocation: {elsewhere}/x\r\ncontent-length: 0\r\n\r\n");
            let (url, _) = server(head, b"").await;
            let error = caller().bytes(|c| c.get(&url).header("api-key", "secret")).await.expect_err("a redirect");
            assert_eq!(
                (error.reason, error.blame, error.retryable),
                (Fault::Redirected, Blame::Admin, false),
                "{error}"
            );
            assert!(error.message.contains("set its URL"), "{error}");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 0, "the other server was called");
    }

    #[tokio::test]
    async fn a_stream_without_an_end_is_read_up_to_its_limit() {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: ".to_owned();
        let (url, _) = server(head, &[b'x'; 16 << 10]).await;
        let caller = caller();
        let pieces = caller.open(caller.client.get(&url)).await.expect("it opens");
        let pieces: Vec<_> = pieces.collect().await;
        let read: usize = pieces.iter().flatten().map(Bytes::len).sum();
        assert!(read <= STREAM_LIMIT && read > STREAM_LIMIT / 2, "{read}");
        let last = pieces.last().and_then(|piece| piece.as_ref().err()).expect("an error ends it");
        assert!(last.message.contains("more than 2 MiB"), "{last}");
    }

    #[tokio::test]
    async fn an_answer_without_an_end_is_read_up_to_its_limit() {
        let (url, _) = server("HTTP/1.1 200 OK\r\n\r\n".into(), vec![b'x'; 64 << 10].leak()).await;
        let error = caller().bytes(|c| c.get(&url)).await.expect_err("too long");
        assert!(error.message.contains("more than 32 MiB"), "{error}");
    }
}
