//! One HTTP call to a provider: rate limit, timeout, quick retries, and an error that knows whether a retry can help.

use std::num::NonZeroU32;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;

/// The longest answer that is read.
const BODY_LIMIT: usize = 32 << 20;
/// A `Retry-After` up to this long is waited for inside the call.
const SHORT_WAIT: Duration = Duration::from_secs(5);

/// Why a provider did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{provider}: {message}")]
pub struct ProviderError {
    /// Which provider.
    pub provider: &'static str,
    /// The HTTP status, when there was an answer.
    pub status: Option<u16>,
    /// One word for programs: `RateLimited`, `Unauthorized`, `Unreachable`, ...
    pub reason: &'static str,
    /// A sentence for people; it holds no secret.
    pub message: String,
    /// Whether trying again can help.
    pub retryable: bool,
    /// The provider's own wish.
    pub retry_after: Option<Duration>,
}

impl ProviderError {
    /// An answer that is not of the protocol.
    pub fn garbage(provider: &'static str, what: impl std::fmt::Display) -> Self {
        Self {
            provider,
            status: None,
            reason: "BadAnswer",
            message: format!("answered something that is not of its protocol: {what}"),
            retryable: true,
            retry_after: None,
        }
    }

    /// Whether the provider said that the thing is not there.
    pub fn is_not_found(&self) -> bool {
        self.status == Some(404)
    }
}

/// How a provider may be called.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// Calls per second, at most.
    pub per_second: NonZeroU32,
    /// The longest that one call may take.
    pub timeout: Duration,
    /// Quick retries inside a call, where they can help.
    pub retries: usize,
}

/// Calls one provider.
#[derive(Debug)]
pub struct Caller {
    provider: &'static str,
    /// The connection pool.
    pub client: reqwest::Client,
    limiter: DefaultDirectRateLimiter,
    retries: usize,
}

impl Caller {
    /// Calls a provider within these limits.
    pub fn new(provider: &'static str, limits: CallLimits) -> Self {
        let client = reqwest::Client::builder()
            .timeout(limits.timeout)
            .connect_timeout(Duration::from_secs(5))
            .pool_idle_timeout(Duration::from_mins(1))
            .tcp_nodelay(true)
            .user_agent(concat!("tenant-operator/", env!("CARGO_PKG_VERSION")))
            .build()
            .unwrap_or_default();
        let limiter = RateLimiter::direct(Quota::per_second(limits.per_second));
        Self { provider, client, limiter, retries: limits.retries }
    }

    /// Sends what `build` makes, again if that can help, and answers the status and the JSON.
    pub async fn json<T: DeserializeOwned>(
        &self,
        build: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<T, ProviderError> {
        let bytes = self.bytes(build).await?;
        serde_json::from_slice(&bytes).map_err(|e| ProviderError::garbage(self.provider, e))
    }

    /// Sends what `build` makes, again if that can help, and answers the body.
    pub async fn bytes(&self, build: impl Fn(&reqwest::Client) -> RequestBuilder) -> Result<Vec<u8>, ProviderError> {
        let mut waits = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_jitter()
            .with_max_times(self.retries)
            .build();
        loop {
            self.limiter.until_ready().await;
            let error = match self.once(build(&self.client)).await {
                Ok(body) => return Ok(body),
                Err(error) => error,
            };
            let wished = error.retry_after.unwrap_or_default();
            match waits.next() {
                Some(wait) if error.retryable && wished <= SHORT_WAIT => tokio::time::sleep(wait.max(wished)).await,
                _ => return Err(error),
            }
        }
    }

    async fn once(&self, request: RequestBuilder) -> Result<Vec<u8>, ProviderError> {
        let mut response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let (status, retry_after) = (response.status(), retry_after(&response));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unreachable(&e))? {
            if body.len() + chunk.len() > BODY_LIMIT {
                return Err(ProviderError::garbage(self.provider, "an answer of more than 32 MiB"));
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() { Ok(body) } else { Err(self.refused(status, retry_after, &body)) }
    }

    fn unreachable(&self, error: &reqwest::Error) -> ProviderError {
        let (reason, what) = if error.is_timeout() {
            ("Timeout", "gave no answer in time")
        } else {
            ("Unreachable", "cannot be reached")
        };
        ProviderError {
            provider: self.provider,
            status: None,
            reason,
            message: what.into(),
            retryable: true,
            retry_after: None,
        }
    }

    fn refused(&self, status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> ProviderError {
        let (reason, retryable) = match status.as_u16() {
            401 | 403 => ("Unauthorized", false),
            408 => ("Timeout", true),
            404 => ("NotFound", false),
            409 => ("Conflict", true),
            429 => ("RateLimited", true),
            500.. => ("ProviderError", true),
            _ => ("Refused", false),
        };
        ProviderError {
            provider: self.provider,
            status: Some(status.as_u16()),
            reason,
            message: format!("answered {status}{}", detail(body)),
            retryable,
            retry_after,
        }
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    response.headers().get("retry-after")?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// The message of an error answer, in the shapes of Stripe and `OpenAI` (`error.message`) and Pinecone (`message`).
fn detail(body: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let message = json["error"]["message"].as_str().or(json["message"].as_str()).unwrap_or_default();
    let short: String = message.chars().take(200).collect();
    if short.is_empty() { short } else { format!(": {short}") }
}
