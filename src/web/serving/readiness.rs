//! Whether web is ready for requests.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;

use crate::web::App;

/// How long an answer about Kubernetes stands: anyone may send a readiness request.
const STANDS: Duration = Duration::from_secs(1);
/// How long Kubernetes may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long web stays ready with what it knows while Kubernetes does not answer. API keys, suspensions and plans that
/// change meanwhile are not known.
const SERVES_ON: Duration = Duration::from_hours(1);

/// What Kubernetes answered lately.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<Seen>);

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    asked: Option<Instant>,
    answered: Option<Instant>,
}

impl Seen {
    fn stands(&self, now: Instant) -> bool {
        self.asked.is_some_and(|at| now.duration_since(at) < STANDS)
    }

    fn verdict(&self, now: Instant) -> (StatusCode, &'static str) {
        match self.answered.map(|at| now.duration_since(at)) {
            Some(_) if self.answered == self.asked => (StatusCode::OK, "ready"),
            Some(silent) if silent < SERVES_ON => {
                (StatusCode::OK, "ready, with what was known before Kubernetes stopped answering")
            }
            _ => (StatusCode::SERVICE_UNAVAILABLE, "Kubernetes cannot be reached"),
        }
    }
}

/// Ready when all that questions need was read once, Kubernetes has answered within the last hour, and the end was not asked for. An API
/// server that is away takes the replicas out of no Service: questions need none.
pub async fn ready(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    if *app.stopping.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping");
    }
    if !app.directory.is_complete() {
        return (StatusCode::SERVICE_UNAVAILABLE, "reading the Tenants");
    }
    if !app.api_keys.is_told() {
        return (StatusCode::SERVICE_UNAVAILABLE, "reading the public key of API keys");
    }
    // A check that fails counts: a provider that is away takes no replica out of its Service.
    if !app.indexes.all().all(|index| index.gate().is_checked()) {
        return (StatusCode::SERVICE_UNAVAILABLE, "checking the indexes of the vector store");
    }
    let seen = || app.readiness.0.lock().unwrap_or_else(PoisonError::into_inner);
    let mut known = *seen();
    if !known.stands(Instant::now()) {
        let answer = tokio::time::timeout(PATIENCE, app.client.apiserver_version()).await;
        let now = Instant::now();
        known =
            Seen { asked: Some(now), answered: if matches!(answer, Ok(Ok(_))) { Some(now) } else { known.answered } };
        *seen() = known;
    }
    known.verdict(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_serves_for_an_hour_without_kubernetes_and_not_before_it_answered() {
        let start = Instant::now();
        let at = |minutes| start + Duration::from_mins(minutes);
        let asked = |minutes, answered: Option<u64>| Seen { asked: Some(at(minutes)), answered: answered.map(at) };
        let status = |seen: Seen, minutes| seen.verdict(at(minutes)).0.as_u16();
        assert_eq!(status(Seen::default(), 0), 503);
        assert_eq!(status(asked(1, None), 1), 503);
        assert_eq!(asked(1, Some(1)).verdict(at(1)), (StatusCode::OK, "ready"));
        assert_eq!(status(asked(2, Some(1)), 2), 200);
        assert!(asked(2, Some(1)).verdict(at(2)).1.contains("before Kubernetes stopped"));
        assert_eq!(status(asked(60, Some(1)), 60), 200);
        assert_eq!(status(asked(61, Some(1)), 61), 503);
        assert_eq!(status(asked(62, Some(62)), 62), 200, "it is back");
    }

    #[test]
    fn an_answer_about_kubernetes_stands_for_a_second() {
        let now = Instant::now();
        let seen = Seen { asked: Some(now), answered: None };
        assert!(seen.stands(now + Duration::from_millis(999)) && !seen.stands(now + STANDS));
        assert!(!Seen::default().stands(now));
    }
}
