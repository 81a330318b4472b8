//! What a gateway is answered: headers for the service behind it, or a refusal with a status that it passes on.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::settings::Statuses;
use crate::api::Timestamp;
use crate::web::metering::Queries;
use crate::web::serving::directory::Served;
use crate::web::serving::problem::{Code, Problem};
use crate::web::serving::standing::{QUOTA_LIMIT, QUOTA_REMAINING, QUOTA_RESET};

const TENANT_ID: HeaderName = HeaderName::from_static("x-tenant-id");
const TENANT_NAMESPACE: HeaderName = HeaderName::from_static("x-tenant-namespace");
const TENANT_PLAN: HeaderName = HeaderName::from_static("x-tenant-plan");
const QUOTA_STATUS: HeaderName = HeaderName::from_static("x-quota-status");
const REFUSAL: HeaderName = HeaderName::from_static("x-refusal");

/// Names the tenant to the service. Status 200, because Envoy takes no other one for a yes. Every header is there, even
/// if it is empty: a gateway that sets what is there would let a client's own header through.
pub fn admitted(tenant: &Served, queries: Queries, now: Timestamp) -> Result<Response, Problem> {
    let Queries { limit, left, period } = queries;
    let plan = tenant.config.as_ref().map_or_else(String::new, |config| config.plan.to_string());
    let mut response = StatusCode::OK.into_response();
    let headers = response.headers_mut();
    for (name, text) in [(TENANT_ID, &tenant.id), (TENANT_NAMESPACE, &tenant.data), (TENANT_PLAN, &plan)] {
        let value = HeaderValue::try_from(text).map_err(|e| Problem::internal("a header of a tenant", &e))?;
        headers.insert(name, value);
    }
    let number = |number: Option<i64>| number.map_or(HeaderValue::from_static(""), HeaderValue::from);
    headers.insert(QUOTA_LIMIT, number(limit));
    headers.insert(QUOTA_REMAINING, number(left));
    headers.insert(QUOTA_RESET, number(Some(period.end.since(now).max(0))));
    let known = limit.is_none() || left.is_some();
    headers.insert(QUOTA_STATUS, HeaderValue::from_static(if known { "ok" } else { "unknown" }));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(standing) = queries.standing() {
        response.extensions_mut().insert(standing);
    }
    Ok(response)
}

/// Refuses. What is left of the quota is the problem's own to tell.
pub fn refused(problem: Problem, statuses: Statuses) -> Response {
    let status = match problem.status() {
        own @ (StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => own,
        own if statuses == Statuses::Own => own,
        _ => StatusCode::FORBIDDEN,
    };
    let (code, quota) = (problem.code(), quota_status(&problem));
    let mut response = problem.with_status(status).into_response();
    let headers = response.headers_mut();
    headers.insert(REFUSAL, HeaderValue::from_static(code));
    headers.extend(quota.map(|quota| (QUOTA_STATUS, HeaderValue::from_static(quota))));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What a refusal says of the quota, for gateways that show no body.
fn quota_status(problem: &Problem) -> Option<&'static str> {
    if problem.is(Code::QuotaExceeded) {
        Some("exceeded")
    } else if problem.is(Code::TooManyRequests) {
        Some("too_many_requests")
    } else if problem.status().is_server_error() {
        Some("unavailable")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// nginx turns every other status into 500.
    #[test]
    fn a_refusal_is_401_or_403_unless_the_gateway_passes_on_any_status() {
        let new = |status: u16, code| Problem::new(StatusCode::from_u16(status).expect("a status"), code, "x");
        for (problem, default, quota) in [
            (new(401, Code::Unauthorized), 401, None),
            (new(402, Code::Suspended), 403, None),
            (new(403, Code::QuotaExceeded), 403, Some("exceeded")),
            (new(409, Code::NotReady), 403, None),
            (new(410, Code::Closed), 403, None),
            (new(429, Code::QuotaExceeded), 403, Some("exceeded")),
            (Problem::too_many(Duration::from_secs(7)), 403, Some("too_many_requests")),
            (Problem::unavailable(), 403, Some("unavailable")),
        ] {
            for statuses in [Statuses::Forbidden, Statuses::Own] {
                let own = problem.status().as_u16();
                let refused = refused(problem.clone(), statuses);
                let expected = if statuses == Statuses::Own { own } else { default };
                assert_eq!(refused.status().as_u16(), expected, "{problem:?}");
                assert_eq!(refused.headers().get(QUOTA_STATUS).and_then(|v| v.to_str().ok()), quota, "{problem:?}");
                assert_eq!(refused.headers()[REFUSAL], problem.code());
                assert_eq!(refused.headers().contains_key(header::WWW_AUTHENTICATE), own == 401);
            }
        }
        let waits = refused(Problem::too_many(Duration::from_secs(7)), Statuses::Forbidden);
        assert_eq!(waits.headers()[header::RETRY_AFTER], "7");
    }
}
