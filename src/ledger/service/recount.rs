//! What the controller needs to count again what was counted before the ledger began.

use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::Shared;
use super::answers::{ServiceProblem, check_page};
use super::extract::{Body, Name, Parameters};
use crate::ledger::wire::{OldDocument, Recounted};

/// Documents of one answer.
const MOST: u32 = 1000;

/// What is asked for: `?after=d-acme-0a-f7&most=1000`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct After {
    after: String,
    most: u32,
}

/// `GET /v1/tenants/{tenant}/documents`: those that were counted before the ledger began, in the order of their names.
pub async fn documents(
    State(shared): State<Arc<Shared>>,
    Name(tenant): Name,
    Parameters(After { after, most }): Parameters<After>,
) -> Result<Json<Vec<OldDocument>>, ServiceProblem> {
    check_page(most, MOST, "documents")?;
    Ok(Json(shared.store.old_documents(&tenant, &after, most).await?))
}

/// Which tenants are asked for: `?beginning=5f0c&after=acme&most=1000`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Since {
    beginning: String,
    after: String,
    most: u32,
}

/// `GET /v1/recounted`: the tenants that were counted again since a beginning, in the order of their ids.
pub async fn tenants(
    State(shared): State<Arc<Shared>>,
    Parameters(Since { beginning, after, most }): Parameters<Since>,
) -> Result<Json<Vec<String>>, ServiceProblem> {
    check_page(most, MOST, "tenants")?;
    Ok(Json(shared.store.recounted_tenants(&beginning, &after, most).await?))
}

/// `POST /v1/recounted`: a tenant is counted again, or all tenants of the moment are. Of another beginning it says
/// nothing.
pub async fn done(
    State(shared): State<Arc<Shared>>,
    Body(Recounted { beginning, tenant }): Body<Recounted>,
) -> Result<Json<()>, ServiceProblem> {
    if let Some(tenant) = tenant {
        shared.store.recounted_of(&beginning, &String::from(tenant)).await?;
        return Ok(Json(()));
    }
    let now = shared.clock.read().now;
    shared.store.recounted(&beginning, now).await?;
    let mut known = shared.beginning.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known.as_mut().filter(|known| known.id == beginning) {
        known.recounted.get_or_insert(now);
    }
    Ok(Json(()))
}
