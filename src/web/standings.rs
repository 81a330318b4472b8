//! Headers with what is left of a tenant's plan, on each answer of the tenant API and of `/authz` to a good API key,
//! refusals included. An answer that counted something has the ledger's numbers with it. Others have what the ledger
//! said within the last two seconds, or the last known numbers while the ledger does not answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::metering::Metering;
use super::serving::directory::Served;
use super::serving::problem::Problem;
use super::serving::standing::Standing;
use super::serving::tokens::bearer;
use super::serving::turns::Turns;
use super::{App, gateway};
use crate::api::Timestamp;

/// How long an answer of the ledger stands.
const STANDS: Duration = Duration::from_secs(2);
/// How long an answer waits for the ledger to say what is left.
const PATIENCE: Duration = Duration::from_millis(300);
/// Tenants whose standings are kept.
const KEPT: usize = 10_000;

/// What the ledger said of the tenants, by their ids.
#[derive(Default)]
pub struct Standings {
    known: Mutex<HashMap<String, Standing>>,
    /// One request at a time asks for a tenant.
    asking: Turns,
}

impl Standings {
    /// What is left, as the ledger said a moment ago or says now.
    pub async fn of(&self, metering: &Arc<Metering>, tenant: &Served, now: Timestamp) -> Result<Standing, Problem> {
        // A plan that has changed, or a new period, is seen at once.
        let fresh = || self.known(tenant, now).filter(|known| known.at().elapsed() < STANDS);
        if let Some(standing) = fresh() {
            return Ok(standing);
        }
        let _turn = self.asking.take(&tenant.id).await;
        // Another request may have asked meanwhile.
        if let Some(standing) = fresh() {
            return Ok(standing);
        }
        let standing = metering.standing(tenant, now).await?;
        self.note(&tenant.id, standing);
        Ok(standing)
    }

    /// Keeps what the ledger said of all units, unless it has said something later.
    fn note(&self, tenant: &str, standing: Standing) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT && !known.contains_key(tenant) {
            known.retain(|_, known| known.at().elapsed() < STANDS);
        }
        let has_room = known.len() < KEPT;
        match known.get_mut(tenant) {
            Some(known) if known.at() <= standing.at() => *known = standing,
            None if has_room => {
                known.insert(tenant.to_owned(), standing);
            }
            _ => {}
        }
    }

    /// Keeps what the ledger said later of some units, for as long as what it said of all units stands.
    fn refine(&self, tenant: &str, standing: Standing) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get_mut(tenant).filter(|known| known.at() <= standing.at()) {
            *known = standing.said_at(known.at());
        }
    }

    /// What the ledger said last of the tenant's present period and limits, however long ago.
    fn known(&self, tenant: &Served, now: Timestamp) -> Option<Standing> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&tenant.id).copied().filter(|known| Metering::is_present(tenant, known, now))
    }

    /// What the headers of an answer say. `exact` is what the answer itself counted.
    async fn told(
        &self,
        metering: &Arc<Metering>,
        tenant: &Served,
        exact: Option<Standing>,
        now: Timestamp,
    ) -> Option<Standing> {
        if let Some(exact) = exact.filter(|exact| Metering::is_present(tenant, exact, now)) {
            self.note(&tenant.id, exact);
            return Some(exact);
        }
        let asked = tokio::time::timeout(PATIENCE, self.of(metering, tenant, now)).await;
        let other = match asked {
            Ok(Ok(standing)) => Some(standing),
            // The ledger is away: what it said last, or else what the controller showed.
            _ => self.known(tenant, now).or_else(|| Metering::shown(tenant, now)),
        };
        match (exact, other) {
            (Some(exact), Some(other)) => {
                let whole = exact.over(&other);
                self.refine(&tenant.id, whole);
                Some(whole)
            }
            (exact, other) => exact.or(other),
        }
    }
}

/// The API key of a request to the tenant API or to `/authz`.
fn key_of<'a>(path: &str, headers: &'a HeaderMap) -> Option<&'a str> {
    if path == gateway::PATH || path.strip_prefix(gateway::PATH).is_some_and(|rest| rest.starts_with('/')) {
        return gateway::key(headers);
    }
    bearer(headers).filter(|_| path.starts_with("/v1/"))
}

/// Writes the headers, once the tenant is known. An answer to a wrong, revoked or replaced key has none.
pub async fn tell(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let key = key_of(request.uri().path(), request.headers()).map(str::to_owned);
    let mut response = next.run(request).await;
    let mut standing = response.extensions_mut().remove::<Standing>();
    let known = key.filter(|_| response.status() != StatusCode::UNAUTHORIZED).and_then(|key| app.holder(&key));
    if let Some(tenant) = known {
        standing = app.standings.told(&app.metering, &tenant, standing, app.now()).await;
    }
    if let Some(standing) = standing {
        standing.write(response.headers_mut(), app.now());
    }
    response
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::http::{HeaderValue, header};

    use super::*;
    use crate::api::Unit;
    use crate::ledger::account::Period;
    use crate::ledger::units::Limits;

    #[test]
    fn keys_are_read_where_the_route_reads_them() {
        let headers = HeaderMap::from_iter([
            (header::AUTHORIZATION, HeaderValue::from_static("Bearer sk_live_a")),
            (header::HeaderName::from_static("x-api-key"), HeaderValue::from_static("sk_live_b")),
        ]);
        let of = |path| key_of(path, &headers);
        assert_eq!((of("/v1/query"), of("/v1/nowhere")), (Some("sk_live_a"), Some("sk_live_a")));
        assert_eq!((of("/authz"), of("/authz/x")), (Some("sk_live_b"), Some("sk_live_b")));
        assert_eq!((of("/authzx"), of("/account"), of("/tenant/x")), (None, None, None));
    }

    #[test]
    fn so_many_tenants_are_kept() {
        let standings = Standings::default();
        let period = Period { start: Timestamp::from_second(0), end: Timestamp::from_second(1) };
        let standing = |left| Standing::of(|_| Some(9), &Limits::default().with(Unit::Queries, left), period);
        for i in 0..KEPT + 10 {
            standings.note(&i.to_string(), standing(3));
        }
        let left = |tenant: &str| {
            standings.known.lock().expect("a lock").get(tenant).and_then(|known| known.left(Unit::Queries))
        };
        assert_eq!((left("0"), left(&KEPT.to_string())), (Some(3), None));
        standings.note("0", standing(2));
        assert_eq!(left("0"), Some(2), "one that is kept already");
        let earlier = Instant::now().checked_sub(Duration::from_secs(1)).expect("a moment ago");
        standings.note("0", standing(3).said_at(earlier));
        standings.refine("0", standing(3).said_at(earlier));
        assert_eq!(left("0"), Some(2), "the answer to a question that took long");
        standings.refine("0", standing(1));
        assert_eq!(left("0"), Some(1), "what the ledger said later");
    }
}
