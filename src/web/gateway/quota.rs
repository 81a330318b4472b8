//! What a tenant's plan leaves: as the ledger said a moment ago, or counted now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use sha2::{Digest, Sha256};

use super::settings::Once;
use crate::api::Unit;
use crate::web::App;
use crate::web::metering::{Metering, Queries};
use crate::web::serving::directory::Served;
use crate::web::serving::problem::Problem;
use crate::web::serving::turns::Turns;

/// How long an answer of the ledger stands.
const STANDS: Duration = Duration::from_secs(2);
/// Tenants whose answers are kept.
const KEPT: usize = 10_000;

/// What the ledger said of the tenants' queries, by the tenants' ids.
#[derive(Default)]
pub struct Lefts {
    known: Mutex<HashMap<String, (Instant, Queries)>>,
    /// One request at a time asks for a tenant.
    asking: Turns,
}

impl Lefts {
    fn get(&self, tenant: &str) -> Option<Queries> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(tenant).filter(|(at, _)| at.elapsed() < STANDS).map(|(_, queries)| *queries)
    }

    fn note(&self, tenant: &str, queries: Queries) {
        // What is not known is asked for again.
        if queries.left.is_none() {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT && !known.contains_key(tenant) {
            known.retain(|_, (at, _)| at.elapsed() < STANDS);
        }
        if known.len() < KEPT || known.contains_key(tenant) {
            known.insert(tenant.to_owned(), (Instant::now(), queries));
        }
    }
}

/// What is left of a tenant's queries. Refused where nothing is.
pub(super) async fn look_at_quota(app: &App, tenant: &Served) -> Result<Queries, Problem> {
    let queries = queries_left(app, tenant).await?;
    if queries.left.is_some_and(|left| left < 1) {
        return Err(Metering::no_query_left(tenant, app.now()));
    }
    Ok(queries)
}

async fn queries_left(app: &App, tenant: &Served) -> Result<Queries, Problem> {
    // A plan that has changed, or a new period, is seen at once.
    let limit = tenant.config.as_ref().and_then(|config| config.hard_limit(Unit::Queries));
    let now = app.now();
    let known = || app.lefts.get(&tenant.id).filter(|known| known.limit == limit && now < known.end);
    if let Some(known) = known() {
        return Ok(known);
    }
    let _turn = app.lefts.asking.take(&tenant.id).await;
    // Another request may have asked meanwhile.
    if let Some(known) = known() {
        return Ok(known);
    }
    let queries = app.metering.queries(tenant, now).await?;
    app.lefts.note(&tenant.id, queries);
    Ok(queries)
}

/// Counts queries, under the name that the gateway gave the request or a random one.
pub(super) async fn consume(
    app: &App,
    tenant: &Arc<Served>,
    queries: i64,
    name: Option<(Once, &HeaderValue)>,
) -> Result<Queries, Problem> {
    let operation = match name {
        Some((once, name)) => operation(&tenant.id, queries, once, name),
        None => format!("a-{}", hex::encode(rand::random::<[u8; 16]>())),
    };
    let queries = app.metering.consume(tenant, operation, queries, app.now()).await?;
    app.lefts.note(&tenant.id, queries);
    Ok(queries)
}

/// The name of a request at the ledger: the same for the same request of the same tenant, and of no other one, whatever
/// is in the header.
fn operation(tenant: &str, queries: i64, once: Once, name: &HeaderValue) -> String {
    let once: &str = match once {
        Once::RequestId => "request",
        Once::IdempotencyKey => "idempotency",
    };
    let mut digest = Sha256::new();
    for part in [tenant.as_bytes(), once.as_bytes(), &queries.to_be_bytes(), name.as_bytes()] {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    format!("a-{}", hex::encode(digest.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Timestamp;

    #[test]
    fn a_request_has_a_name_of_its_own() {
        let named = |tenant: &str, queries, once, name: &'static str| {
            operation(tenant, queries, once, &HeaderValue::from_static(name))
        };
        let name = named("t1", 1, Once::RequestId, "a");
        assert_eq!(name, named("t1", 1, Once::RequestId, "a"));
        assert!(name.len() <= 128 && name.bytes().all(|b| b.is_ascii_graphic()));
        for other in [
            named("t2", 1, Once::RequestId, "a"),
            named("t1", 2, Once::RequestId, "a"),
            named("t1", 1, Once::IdempotencyKey, "a"),
            named("t1", 1, Once::RequestId, "b"),
        ] {
            assert_ne!(name, other);
        }
    }

    #[test]
    fn so_many_tenants_are_kept_and_what_is_not_known_is_not() {
        let lefts = Lefts::default();
        let queries = Queries { limit: Some(9), left: Some(3), end: Timestamp::from_second(1) };
        for i in 0..KEPT + 10 {
            lefts.note(&i.to_string(), queries);
        }
        assert_eq!(lefts.known.lock().expect("a lock").len(), KEPT);
        assert_eq!((lefts.get("0"), lefts.get(&KEPT.to_string())), (Some(queries), None));
        lefts.note("0", Queries { left: Some(2), ..queries });
        assert_eq!(lefts.get("0").and_then(|known| known.left), Some(2), "one that is kept already");
        lefts.note("0", Queries { left: None, ..queries });
        assert_eq!(lefts.get("0").and_then(|known| known.left), Some(2), "nothing new is known");
    }
}
