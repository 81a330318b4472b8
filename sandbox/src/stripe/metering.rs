//! How the stand-in takes meter events: what it shows late, what it finds wrong late, and how many calls it takes at
//! once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::idempotency::{Run, Running};
use super::problem::Problem;
use super::{Account, form, meters};
use crate::{Shared, lock};

/// The settings of `POST /_sandbox/meters`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Summaries and previews show an event only so many milliseconds after its receipt.
    pub shown_after_ms: u32,
    /// Take events that are wrong, and report them by `v1.billing.meter.error_report_triggered`.
    pub report_errors_later: bool,
    /// How long a call takes, in milliseconds.
    pub takes_ms: u32,
    /// Calls for each second; more are refused. None: as many as come. Stripe takes 1,000 in live mode; in test mode
    /// the account's limit holds, 25 (<https://docs.stripe.com/rate-limits>).
    pub calls_per_second: Option<u32>,
}

/// Sets how events are taken from now on.
pub async fn configure(State(s): State<Arc<Shared>>, Json(settings): Json<Settings>) -> StatusCode {
    lock(&s.stripe.data).metering = settings;
    StatusCode::NO_CONTENT
}

/// The calls that run, and when the last ones came.
#[derive(Debug, Default)]
pub struct Calls {
    running: Running,
    times: Mutex<VecDeque<Instant>>,
}

/// A call that runs. No other one for its customer and meter may until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _run: Run,
    takes: Duration,
}

impl Turn {
    /// Waits for as long as the call takes.
    pub async fn take(&self) {
        if !self.takes.is_zero() {
            tokio::time::sleep(self.takes).await;
        }
    }
}

/// Begins a call, if it is one that sends a meter event. Stripe takes one concurrent call for each customer and meter
/// (<https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api#rate-limits>).
pub fn begin(
    (provider, account): (&str, &Account),
    method: &Method,
    path: &str,
    body: &[u8],
) -> Result<Option<Turn>, Problem> {
    if provider != "stripe" || method != Method::POST || path != "/v1/billing/meter_events" {
        return Ok(None);
    }
    let event = form::parse(&String::from_utf8_lossy(body));
    let name = event["event_name"].as_str().unwrap_or_default();
    let (settings, key) = {
        let data = lock(&account.data);
        let key = meters::active(&data, name).and_then(|m| m["customer_mapping"]["event_payload_key"].as_str());
        (data.metering.clone(), key.unwrap_or("stripe_customer_id").to_owned())
    };
    if let Some(limit) = settings.calls_per_second {
        account.metered_calls.count(limit)?;
    }
    let turn = format!("{name} {}", event["payload"][key].as_str().unwrap_or_default());
    let run = account.metered_calls.running.enter(turn).ok_or_else(locked)?;
    Ok(Some(Turn { _run: run, takes: Duration::from_millis(settings.takes_ms.into()) }))
}

impl Calls {
    /// Counts a call, unless there were too many within the last second.
    fn count(&self, limit: u32) -> Result<(), Problem> {
        let (mut times, now) = (lock(&self.times), Instant::now());
        while times.front().is_some_and(|first| now - *first >= Duration::from_secs(1)) {
            times.pop_front();
        }
        if times.len() >= limit as usize {
            // The header's values: <https://docs.stripe.com/rate-limits>
            let limited = Problem::new(StatusCode::TOO_MANY_REQUESTS, "Request rate limit exceeded.");
            return Err(Problem {
                code: Some("rate_limit"),
                executed: false,
                limited: Some("endpoint-rate"),
                ..limited
            });
        }
        times.push_back(now);
        Ok(())
    }
}

/// A lock is no rate limit: it has its own code, and no `Stripe-Rate-Limited-Reason`
/// (<https://docs.stripe.com/rate-limits#object-lock-timeouts>).
fn locked() -> Problem {
    Problem {
        code: Some("lock_timeout"),
        executed: false,
        should_retry: Some(true),
        ..Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "This object cannot be accessed right now because another API request or Stripe process is currently accessing \
             it. If you see this error intermittently, retry the request. If you see this error frequently and are making \
             multiple concurrent requests to a single object, make your requests serially or at a lower rate.",
        )
    }
}
