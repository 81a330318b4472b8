//! What a tenant's plan leaves: as the ledger said a moment ago, or counted now.

use std::sync::Arc;

use axum::http::HeaderValue;
use sha2::{Digest, Sha256};

use super::settings::Once;
use crate::web::App;
use crate::web::metering::{Metering, Queries};
use crate::web::serving::directory::Served;
use crate::web::serving::problem::Problem;

/// What is left of a tenant's queries. Refused where nothing is.
pub(super) async fn look_at_quota(app: &App, tenant: &Served) -> Result<Queries, Problem> {
    let queries = queries_left(app, tenant).await?;
    if queries.left.is_some_and(|left| left < 1) {
        return Err(Metering::no_query_left(tenant, app.now()));
    }
    Ok(queries)
}

async fn queries_left(app: &App, tenant: &Served) -> Result<Queries, Problem> {
    let now = app.now();
    if let Some(unlimited) = Metering::unlimited(tenant, now)? {
        return Ok(unlimited);
    }
    Metering::queries(tenant, app.standings.of(&app.metering, tenant, now).await, now)
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
    app.metering.consume(tenant, operation, queries, app.now()).await
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
}
