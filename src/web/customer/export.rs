//! `POST` and `GET /tenant/{id}/export`, and the download: a customer takes everything along.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::StreamExt;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::api::status::{Export, ExportState};
use crate::api::{CUSTOMER_REQUEST, Phase, Tenant, Timestamp};
use crate::export::{Archive, ExportError};
use crate::serve::reader::End;
use crate::web::App;
use crate::web::serving::extract::SignupToken;
use crate::web::serving::problem::{Code, Problem, ProblemBody};

/// Downloads of this replica at the same time.
pub const DOWNLOADS: usize = 8;
/// How long a download may take.
const DOWNLOAD_LIMIT: Duration = Duration::from_hours(1);
/// How long a link is good, in seconds.
const LINK_LIFE: i64 = 3600;
/// The least time between two exports that a customer asks for, in seconds.
const SPACING: i64 = 3600;
/// What a link is sealed for.
const PURPOSE: &str = "export";

/// How far an export is.
#[derive(Serialize, ToSchema)]
pub struct ExportAnswer {
    /// `none`, `waiting`, `running`, `ready`, `failed` or `expired`.
    #[schema(value_type = String, example = "ready")]
    state: ExportAnswerState,
    /// When it began.
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-12-09T17:31:36Z")]
    started_at: Option<Timestamp>,
    /// When it was complete.
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-12-09T17:33:02Z")]
    finished_at: Option<Timestamp>,
    /// When it is deleted.
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-12-16T17:33:02Z")]
    pub expires_at: Option<Timestamp>,
    /// Files that are written.
    #[schema(example = 12)]
    files: u64,
    /// Their size in bytes.
    #[schema(example = 483_120)]
    pub bytes: u64,
    /// Where to download it as a tar file, for an hour and without a token: who has the link has the data.
    #[schema(example = "https://example.com/exports/analytical-engines.0b8f6f0e.1764403200.c2VhbA")]
    download_url: Option<String>,
}

/// Asks for an export of everything that belongs to the account: profile, consent, documents with passages and vectors,
/// usage, invoices and history. One that runs, or was made within the last hour, is answered instead.
#[utoipa::path(
    post, path = "/tenant/{id}/export", operation_id = "make_export", tag = "account",
    params(("id" = String, Path, description = "The tenant's id", example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")), security(("signup_token" = [])),
    responses((status = 202, body = ExportAnswer, description = "It begins"),
        (status = 200, description = "There is one already", body = ExportAnswer),
        (status = 409, description = "There is nothing to export yet, or no longer", body = ProblemBody),
        (status = 501, description = "This service has no storage for exports", body = ProblemBody))
)]
pub async fn ask(
    State(app): State<Arc<App>>,
    SignupToken(tenant): SignupToken,
) -> Result<(StatusCode, Json<ExportAnswer>), Problem> {
    let (tenant, new) = ask_export(&app, &tenant).await?;
    let status = if new { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(export_of(&app, &tenant))))
}

/// How far the export is that was asked for last, and where it can be downloaded.
#[utoipa::path(
    get, path = "/tenant/{id}/export", operation_id = "get_export", tag = "account",
    params(("id" = String, Path, description = "The tenant's id", example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")), security(("signup_token" = [])),
    responses((status = 200, body = ExportAnswer))
)]
pub async fn show(State(app): State<Arc<App>>, SignupToken(tenant): SignupToken) -> Json<ExportAnswer> {
    Json(export_of(&app, &tenant))
}

/// Downloads an export as a tar file.
#[utoipa::path(
    get, path = "/exports/{link}", operation_id = "download_export", tag = "account",
    params(("link" = String, Path, description = "The end of `download_url`")),
    responses((status = 200, content_type = "application/x-tar", description = "The export"),
        (status = 404, description = "The link has expired, or the export is deleted", body = ProblemBody, example = json!(over().body())))
)]
pub async fn download(
    State(app): State<Arc<App>>,
    Path(link): Path<String>,
    Extension(end): Extension<End>,
) -> Result<Response, Problem> {
    let pass = app.open_pass(PURPOSE, &link).ok_or_else(over)?;
    let tenant = app.visited(&pass).await?.ok_or_else(over)?;
    send_export(&app, &tenant, &end).await
}

fn over() -> Problem {
    let detail = "This download is not available any more. Ask for a new export.";
    Problem::new(StatusCode::NOT_FOUND, Code::ExportNotFound, detail)
}

impl From<ExportError> for Problem {
    fn from(error: ExportError) -> Self {
        tracing::error!(%error, "export");
        Problem::unavailable()
    }
}

/// Whether there is a storage for the tenant's exports.
fn has_export_storage(app: &App, tenant: &Tenant) -> bool {
    app.exports.of(tenant.region()).is_some()
}

/// Whether the tenant's customer can be offered an export.
pub fn offers_export(app: &App, tenant: &Tenant) -> bool {
    has_export_storage(app, tenant) && exportable(tenant)
}

/// Asks for an export, unless there is one already. True for a new one.
pub async fn ask_export(app: &App, tenant: &Tenant) -> Result<(Tenant, bool), Problem> {
    if !has_export_storage(app, tenant) {
        let detail = "You cannot make an export here. Please write to us.";
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, Code::NoExports, detail));
    }
    if !exportable(tenant) {
        let detail = "There is nothing to export: the account was not set up yet, or its data is erased.";
        return Err(Problem::new(StatusCode::CONFLICT, Code::NothingToExport, detail));
    }
    let Some(changed) = app.change_tenant(tenant, |tenant| Ok(wanted(tenant, app.now()))).await? else {
        return Ok((tenant.clone(), false));
    };
    tracing::info!(target: "audit", event = "export_asked", tenant = tenant.name_any());
    Ok((changed, true))
}

/// How far it is.
pub fn export_of(app: &App, tenant: &Tenant) -> ExportAnswer {
    let export = tenant.status.as_ref().and_then(|status| status.export.as_deref());
    let state = state(tenant, app.now());
    let ready = state == ExportAnswerState::Ready && !app.exports.is_empty();
    let link = || {
        let pass = app.pass(PURPOSE, tenant, LINK_LIFE);
        format!("{}/exports/{pass}", app.config.frontend_url.trim_end_matches('/'))
    };
    ExportAnswer {
        state,
        started_at: export.map(|export| export.started_at),
        finished_at: export.and_then(|export| export.finished_at),
        expires_at: export.and_then(|export| export.expires_at),
        files: export.map_or(0, |export| export.files),
        bytes: export.map_or(0, |export| export.bytes),
        download_url: ready.then(link),
    }
}

/// The complete export as a tar file.
pub async fn send_export(app: &App, tenant: &Tenant, end: &End) -> Result<Response, Problem> {
    let export = tenant.status.as_ref().and_then(|status| status.export.as_deref());
    let export = export.filter(|_| state(tenant, app.now()) == ExportAnswerState::Ready).ok_or_else(over)?;
    let store = export.path.as_deref().and_then(|folder| app.exports.holding(folder)).ok_or_else(over)?;
    // One a tenant: a customer who reads slowly does not keep others from their downloads.
    let own = app.downloading.try_take(&tenant.uid().unwrap_or_default());
    let (Some(own), Ok(place)) = (own, app.downloads.clone().try_acquire_owned()) else {
        return Err(Problem::too_many(Duration::from_secs(30)));
    };
    let archive = Archive::open(store, tenant.tenant_id(), &export.request).await?.ok_or_else(over)?;
    tracing::info!(target: "audit", event = "export_downloaded", tenant = tenant.name_any());
    let headers = [
        (header::CONTENT_TYPE, "application/x-tar".to_owned()),
        (header::CONTENT_LENGTH, archive.bytes().to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"export-{}.tar\"", export.request)),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    // The stream ends between two pieces. A client that does not read the last one is hung up on by its connection.
    let at = tokio::time::Instant::now() + DOWNLOAD_LIMIT;
    let ending = end.at(at);
    let pieces = archive.stream().take_until(Box::pin(tokio::time::sleep_until(at))).inspect(move |piece| {
        let _held = (&own, &place, &ending);
        if let Err(error) = piece {
            tracing::error!(%error, "a download broke off");
        }
    });
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// Whether there is anything to export.
fn exportable(tenant: &Tenant) -> bool {
    let Some(status) = &tenant.status else { return false };
    status.provisioned_at.is_some() && status.erasure.is_none() && status.phase != Some(Phase::Deleted)
}

/// How far an export is, as the customer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum ExportAnswerState {
    None,
    Waiting,
    Running,
    Ready,
    Failed,
    Expired,
}

fn state(tenant: &Tenant, now: Timestamp) -> ExportAnswerState {
    let export = tenant.status.as_ref().and_then(|status| status.export.as_deref());
    let Some(asked) = &tenant.spec.export_request else { return ExportAnswerState::None };
    let Some(export) = export.filter(|export| &*export.request == asked) else { return ExportAnswerState::Waiting };
    match export.state {
        ExportState::Running => ExportAnswerState::Running,
        ExportState::Failed => ExportAnswerState::Failed,
        ExportState::Ready if exportable(tenant) && export.expires_at.is_some_and(|at| now < at) => {
            ExportAnswerState::Ready
        }
        ExportState::Ready | ExportState::Expired => ExportAnswerState::Expired,
    }
}

/// The change that asks for an export; None where there is one.
fn wanted(tenant: &Tenant, now: Timestamp) -> Option<Value> {
    let export = tenant.status.as_ref().and_then(|status| status.export.as_deref());
    let recent = |export: &Export| now.since(export.finished_at.unwrap_or(export.started_at)) < SPACING;
    let enough = match state(tenant, now) {
        ExportAnswerState::Waiting | ExportAnswerState::Running => true,
        ExportAnswerState::Ready => export.is_some_and(recent),
        ExportAnswerState::None | ExportAnswerState::Failed | ExportAnswerState::Expired => false,
    };
    (!enough).then(|| json!({"spec": {"exportRequest": format!("{CUSTOMER_REQUEST}{}", now.as_second())}}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TenantStatus;

    const NOW: Timestamp = Timestamp::from_second(100_000);

    fn tenant(export: Option<(ExportState, i64)>) -> Tenant {
        let spec = json!({"companyName": "A", "adminEmail": "a@b.example", "exportRequest": "customer-1"});
        let mut tenant = Tenant::new("a", serde_json::from_value(spec).expect("a spec"));
        let export = export.map(|(state, finished)| {
            Box::new(Export {
                request: "customer-1".into(),
                state,
                started_at: Timestamp::from_second(finished - 5),
                finished_at: (state == ExportState::Ready).then(|| Timestamp::from_second(finished)),
                expires_at: Some(Timestamp::from_second(finished + 50_000)),
                path: None,
                files: 1,
                bytes: 1,
            })
        });
        tenant.status =
            Some(TenantStatus { provisioned_at: Some(Timestamp::from_second(1)), export, ..TenantStatus::default() });
        tenant
    }

    #[test]
    fn a_customer_gets_one_export_an_hour() {
        let asks = |export| wanted(&tenant(export), NOW).is_some();
        assert!(!asks(None), "one was asked for and has not begun");
        assert!(!asks(Some((ExportState::Running, 99_000))));
        assert!(!asks(Some((ExportState::Ready, 96_401))), "an hour is not over");
        assert!(asks(Some((ExportState::Ready, 96_400))));
        assert!(asks(Some((ExportState::Failed, 99_999))));
        assert!(asks(Some((ExportState::Expired, 40_000))));
        let mut never = tenant(None);
        never.spec.export_request = None;
        let change = wanted(&never, NOW).expect("one");
        assert_eq!(change["spec"]["exportRequest"], "customer-100000");
    }

    #[test]
    fn a_download_ends_with_its_time_and_with_the_data() {
        assert_eq!(state(&tenant(Some((ExportState::Ready, 60_000))), NOW), ExportAnswerState::Ready);
        assert_eq!(state(&tenant(Some((ExportState::Ready, 50_000))), NOW), ExportAnswerState::Expired);
        let mut erased = tenant(Some((ExportState::Ready, 60_000)));
        let status = erased.status.as_mut().expect("a status");
        status.erasure = Some(crate::api::status::Erasure { started_at: NOW, erased_at: None, lines: Vec::new() });
        assert_eq!(state(&erased, NOW), ExportAnswerState::Expired);
        assert!(!exportable(&erased));
    }
}
