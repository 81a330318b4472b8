//! How the ledger is: for the kubelet, for monitors, and for the preflight checks.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;

use super::Shared;
use super::answers::ServiceProblem;
use crate::api::Timestamp;
use crate::ledger::wire::{SnapshotStatus, Status};
use crate::telemetry::METRICS_TYPE;

/// How long a scrape waits for the store: the rest of the metrics tells why it is away.
const STORE_LIMIT: Duration = Duration::from_secs(2);

/// `GET /readyz`: 200 while the ledger's database answers.
pub async fn ready(State(shared): State<Arc<Shared>>) -> Result<StatusCode, ServiceProblem> {
    shared.store.ready().await?;
    Ok(StatusCode::OK)
}

/// `GET /v1/status`: what the preflight checks compare.
pub async fn status(State(shared): State<Arc<Shared>>) -> Result<Json<Status>, ServiceProblem> {
    shared.store.ready().await?;
    let snapshots = shared.snapshots_every.map(|every| SnapshotStatus {
        every_seconds: every.as_secs(),
        latest: Some(shared.metrics.ledger_snapshot.get()).filter(|at| *at > 0).map(Timestamp::from_second),
    });
    Ok(Json(Status { now: shared.clock.read().now, snapshots, beginning: shared.beginning() }))
}

/// `GET /metrics`
pub async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let metrics = &shared.metrics;
    let ready = tokio::time::timeout(STORE_LIMIT, shared.store.ready()).await.is_ok_and(|ready| ready.is_ok());
    metrics.ledger_ready.set(ready.into());
    metrics.ledger_pending.set(number(shared.orphans.count()));
    let open = shared.beginning().is_some_and(|beginning| beginning.recounted.is_none());
    metrics.ledger_recounting.set(open.into());
    metrics.clock_skew.set(shared.clock.ahead());
    metrics.ledger_snapshot_interval.set(shared.snapshots_every.map_or(0, |every| number(every.as_secs())));
    if let Some(Ok(volume)) = shared.folder.as_deref().map(rustix::fs::statvfs) {
        metrics.ledger_volume_free.set(number(volume.f_bavail.saturating_mul(volume.f_frsize)));
        metrics.ledger_volume_size.set(number(volume.f_blocks.saturating_mul(volume.f_frsize)));
    }
    ([("content-type", METRICS_TYPE)], metrics.encode())
}

fn number<T: TryInto<i64>>(count: T) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}
