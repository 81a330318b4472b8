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
/// A watch that is silent for longer than this does not work: a working one receives a bookmark about each minute.
const LATE: Duration = Duration::from_mins(5);

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

    /// What web says when it is ready. `age` is that of its Tenants.
    fn verdict(&self, age: Duration) -> &'static str {
        if self.answered.is_none() || self.answered != self.asked {
            "ready, with what was known before Kubernetes stopped answering"
        } else if age > LATE {
            "ready, with the Tenants as known five minutes ago or longer: the watch is silent"
        } else {
            "ready"
        }
    }
}

/// Ready when all that questions need was read once and is not too old to serve by ([`super::trust`]), and the end was
/// not asked for. An API server that is away takes the replicas out of no Service until then: questions need none.
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
    if app.trust.is_over() {
        let why = "Kubernetes has not confirmed the Tenants or the public key of API keys for too long";
        return (StatusCode::SERVICE_UNAVAILABLE, why);
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
    (StatusCode::OK, known.verdict(app.trust.age_of_tenants()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_what_is_silent() {
        let now = Instant::now();
        let seen = |answered| Seen { asked: Some(now), answered };
        let minutes = Duration::from_mins;
        assert_eq!(seen(Some(now)).verdict(minutes(1)), "ready");
        assert!(seen(Some(now)).verdict(minutes(6)).contains("the watch is silent"));
        let before = now.checked_sub(minutes(1));
        for answered in [None, before] {
            assert!(seen(answered).verdict(minutes(6)).contains("before Kubernetes stopped"));
        }
    }

    #[test]
    fn an_answer_about_kubernetes_stands_for_a_second() {
        let now = Instant::now();
        let seen = Seen { asked: Some(now), answered: None };
        assert!(seen.stands(now + Duration::from_millis(999)) && !seen.stands(now + STANDS));
        assert!(!Seen::default().stands(now));
    }
}
