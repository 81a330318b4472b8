//! `/log-level` beside the metrics: `GET` returns the level, `PUT` changes it for a while. Only from the pod itself,
//! which is where `kubectl exec` and `kubectl port-forward` come from: a neighbour could fill the disk with logs
//! otherwise.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Query};
use axum::http::StatusCode;
use axum::routing::get;
use serde::Deserialize;
use tokio::task::JoinHandle;

use super::logs;

/// The longest time that a changed level lasts.
pub const LONGEST: Duration = Duration::from_hours(24);

/// Puts the level back that the process started with.
static BACK: Mutex<Option<(String, JoinHandle<()>)>> = Mutex::new(None);

#[derive(Deserialize)]
struct For {
    /// Seconds until the level is as it was; 10 minutes when absent.
    #[serde(default = "ten_minutes")]
    seconds: u64,
}

const fn ten_minutes() -> u64 {
    600
}

/// The route.
pub fn routes() -> Router {
    Router::new().route("/log-level", get(async || logs::current() + "\n").put(put))
}

async fn put(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Query(time): Query<For>,
    body: String,
) -> Result<String, (StatusCode, String)> {
    if !peer.ip().to_canonical().is_loopback() {
        let why = "the log level can be changed from inside the pod only: use kubectl exec or kubectl port-forward\n";
        return Err((StatusCode::FORBIDDEN, why.into()));
    }
    let level: tracing::Level = body.trim().parse().map_err(|_| {
        let why = "the body must be one of error, warn, info, debug, trace\n";
        (StatusCode::BAD_REQUEST, why.to_owned())
    })?;
    let time = Duration::from_secs(time.seconds);
    if time.is_zero() || time > LONGEST {
        return Err((StatusCode::BAD_REQUEST, "seconds must be between 1 and 86400\n".into()));
    }
    change(level, time);
    tracing::info!(%level, seconds = time.as_secs(), "log level changed");
    Ok(format!("{} for {} s\n", logs::current(), time.as_secs()))
}

/// Changes the level; a later change replaces an earlier one, and the first level comes back at the end.
fn change(level: tracing::Level, time: Duration) {
    let mut back = BACK.lock().unwrap_or_else(PoisonError::into_inner);
    let before = match back.take() {
        Some((before, task)) if !task.is_finished() => {
            task.abort();
            before
        }
        _ => logs::current(),
    };
    let restored = before.clone();
    let task = tokio::spawn(async move {
        tokio::time::sleep(time).await;
        logs::restore(&restored);
        tracing::info!(filter = restored, "log level restored");
    });
    logs::set_level(level);
    *back = Some((before, task));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_pod_itself_changes_it() {
        let from = |peer: &str| ConnectInfo(peer.parse().expect("an address"));
        let ask = async |peer: &str| put(from(peer), Query(For { seconds: 1 }), "debug".into()).await;
        for peer in ["10.244.0.7:1", "[2001:db8::1]:1", "[::ffff:10.0.0.1]:1"] {
            assert_eq!(ask(peer).await.expect_err("refused").0, StatusCode::FORBIDDEN, "{peer}");
        }
        for peer in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(ask(peer).await.is_ok(), "{peer}");
        }
    }
}
