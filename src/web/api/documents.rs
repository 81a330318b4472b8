//! `/v1/documents`: a tenant's own documents.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use serde::Deserialize;
use utoipa::IntoParams;

use super::file::{File, FileForm, clean_title, file};
use super::idempotency::{IdempotencyKey, Key};
use super::keys::Admitted;
use super::removal::{self, Removal};
use super::shelf::Shelf;
use crate::api::Timestamp;
use crate::providers::Party;
use crate::providers::models::estimate;
use crate::rag::{self, Document, Extract, ExtractError, Kind, Page, State as DocumentState};
use crate::web::App;
use crate::web::metering::{Counting, KeyedRequest, NewDocument, new_upload};
use crate::web::serving::deadline::Deadline;
use crate::web::serving::directory::Served;
use crate::web::serving::places::UploadPlace;
use crate::web::serving::problem::{Code, Problem, ProblemBody};
use crate::web::serving::standing::Standing;

/// A file, and what its uploader says of it.
#[derive(Deserialize, IntoParams)]
pub struct Upload {
    /// The document's name; the file's name when absent.
    #[param(example = "Vacation policy")]
    title: Option<String>,
    /// The id of a document that this one takes the place of. It is deleted once this one is ready.
    replace: Option<String>,
}

/// Stores a document: as the field `file` of a form, or as the body itself. The same content again is the same
/// document.
#[utoipa::path(
    post, path = "/v1/documents", tag = "tenant API", security(("api_key" = [])),
    params(Upload, ("Idempotency-Key" = Option<String>, Header, example = "8e03978e-40d5-43dd-bc93-6894a57f9324",
        description = "A key of your own, for this upload alone: 1 to 255 visible ASCII characters. The same upload with the same key \
            within 24 hours gets the same answer, with `Idempotency-Replayed: true`, and stores and counts nothing")),
    request_body(content = FileForm, content_type = "multipart/form-data"),
    responses((status = 201, body = Document, description = "Stored; questions find it"),
        (status = 200, body = Document, description = "This content is stored already"),
        (status = 400, body = ProblemBody),
        (status = 403, body = ProblemBody, description = "The plan is full"),
        (status = 408, body = ProblemBody), (status = 413, body = ProblemBody),
        (status = 422, body = ProblemBody,
            description = "The file gives no text, or the idempotency key belongs to another request; `code` says which"),
        (status = 415, body = ProblemBody), (status = 502, body = ProblemBody),
        (status = 503, body = ProblemBody, description = "Usage cannot be counted at the moment"))
)]
pub async fn store_document(
    State(app): State<Arc<App>>,
    Query(upload): Query<Upload>,
    Admitted(tenant): Admitted,
    IdempotencyKey(key): IdempotencyKey,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    // Before the body is read: many bodies at once would fill the memory.
    let place = app.uploads.take(&tenant.uid).await?;
    app.index(&tenant).await?;
    let mut file = place.deadline.arrived(request, |request| file(&headers, request)).await?;
    if let Some(title) = upload.title.as_deref().filter(|t| !t.trim().is_empty()) {
        file.title = clean_title(title);
    }
    let Some(key) = key else { return store_once(app, tenant, file, upload.replace, place).await };
    let (file, request) = keyed(key, &tenant, file, upload.replace.as_deref()).await?;
    let begun = app.metering.begin_upload(request).await?;
    let storing = store_once(app.clone(), tenant, file, upload.replace, place);
    app.once(begun, storing.boxed()).await
}

/// What an upload's key stands for: its content, and not the bytes of its form, whose boundary differs each time.
async fn keyed(key: Key, tenant: &Served, file: File, replace: Option<&str>) -> Result<(File, KeyedRequest), Problem> {
    let (tenant, replace) = (tenant.id.clone(), replace.unwrap_or_default().to_owned());
    let hashed = tokio::task::spawn_blocking(move || {
        let content = [file.title.as_bytes(), replace.as_bytes(), &file.bytes];
        let request = key.stands_for(&tenant, "POST /v1/documents", &content);
        (file, request)
    });
    hashed.await.map_err(|e| Problem::internal("an upload", &e))
}

async fn store_once(
    app: Arc<App>,
    tenant: Arc<Served>,
    file: File,
    replace: Option<String>,
    place: UploadPlace,
) -> Result<Response, Problem> {
    let Stored { document, counted, standing } = stored(&app, &tenant, file, replace, place).await?;
    let status = if counted { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, standing, Json(document)).into_response())
}

/// A document that is stored.
pub struct Stored {
    /// The document.
    pub document: Document,
    /// Whether it was counted. It is not where it was there before.
    pub counted: bool,
    /// How much of the plan is left. None where nothing was counted, or the ledger was away.
    pub standing: Option<Standing>,
}

/// Stores a file. The work goes on to its end even if the client hangs up, so that no half-stored document stays.
pub async fn stored(
    app: &Arc<App>,
    tenant: &Served,
    file: File,
    replace: Option<String>,
    place: UploadPlace,
) -> Result<Stored, Problem> {
    app.stores(tenant);
    let stored = stored_at(app, tenant, file, replace, place).await;
    match &stored {
        Ok(_) => app.has_stored(tenant).await,
        Err(problem) => app.stored_in_vain(tenant, problem.code()),
    }
    stored
}

async fn stored_at(
    app: &Arc<App>,
    tenant: &Served,
    file: File,
    replace: Option<String>,
    place: UploadPlace,
) -> Result<Stored, Problem> {
    if file.bytes.is_empty() {
        let detail = "Send a file as the field `file` of a form, or as the body.";
        return Err(Problem::new(StatusCode::BAD_REQUEST, Code::NoFile, detail));
    }
    app.index(tenant).await?;
    let (app, tenant) = (app.clone(), tenant.clone());
    let deadline = place.deadline;
    let stored = tokio::spawn(deadline.ended(async move {
        let stored = store(&app, &tenant, file, replace.as_deref(), deadline);
        let stored = Party::scope(&tenant.uid, stored).await?;
        drop(place);
        app.carry(&tenant, &stored.document).await?;
        Ok(stored)
    }));
    stored.await.map_err(|e| Problem::internal("an upload", &e))?
}

impl From<ExtractError> for Problem {
    fn from(error: ExtractError) -> Self {
        let status = match error {
            ExtractError::Unavailable => return Self::unavailable(),
            ExtractError::UnknownKind => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, Code::Unreadable(error), error.to_string())
    }
}

/// Reads the text of a file. One file of a tenant at a time: one that takes long keeps no other tenant's from being
/// read.
async fn extract(app: &App, tenant: &Served, file: &File, deadline: Deadline) -> Result<Extract, Problem> {
    let extract = deadline.worked(async {
        let _reading = app.reading.take(&tenant.uid).await;
        rag::extract(&file.bytes, tenant.chunking).await
    });
    // Where web itself cannot read files, that does not count against the tenant.
    let refuse = || app.refusals.note(&tenant.uid);
    let extract = extract.await.inspect_err(|_| refuse())?;
    let extract = extract.inspect_err(|error| {
        if !matches!(error, ExtractError::Unavailable) {
            refuse();
        }
    });
    Ok(extract?)
}

/// Stores a file, counted before.
async fn store(
    app: &Arc<App>,
    tenant: &Served,
    file: File,
    replace: Option<&str>,
    deadline: Deadline,
) -> Result<Stored, Problem> {
    // Ten megabytes take some milliseconds of a thread, which answers no question meanwhile.
    let hashed = tokio::task::spawn_blocking(move || (rag::document_id(&file.bytes), file)).await;
    let (id, file) = hashed.map_err(|e| Problem::internal("an upload", &e))?;
    // Of two uploads of the same file, the second one finds the first one's document.
    let turn = app.storing.take(&format!("{}/{id}", tenant.uid)).await;
    let shelf = Shelf::of(app, tenant).await?;
    let documents = shelf.documents();
    let there = documents.get(&id, app.now()).await?;
    if let Some(document) = there.as_ref().filter(|d| d.state == DocumentState::Ready) {
        return Ok(Stored { document: document.clone(), counted: false, standing: None });
    }
    app.refusals.check(&tenant.uid).map_err(Problem::too_many)?;
    if replace.is_some() {
        removal::allowed(app, tenant)?;
    }
    // The file of one that was begun before has been counted.
    let counts = there.is_none().then_some(size(&file.bytes));
    app.metering.has_room(tenant, counts, app.now()).await?;
    let extract = extract(app, tenant, &file, deadline).await?;
    let passages = extract.passages();
    let mut document = begun(id, file, passages.len(), app.now());
    if let Some(before) = &there {
        app.metering.begun_before(tenant, before, app.now()).await?;
        // The document's own name is that of the upload that counted it, however long ago that was.
        (document.upload, document.counted_at) = (before.upload.clone(), before.counted_at);
    }
    let counting = count(app, tenant, (&document, counts.is_some()), &passages).await?;
    let on_tokens = |tokens| counting.embedded(tokens);
    let stored = deadline.worked(documents.store(&document, &passages, &on_tokens)).await;
    let standing = counting.standing();
    let document = match stored.and_then(|stored| stored.map_err(Problem::from)) {
        Ok(document) => {
            counting.stored().await;
            document
        }
        Err(error) => {
            // Nothing of it stays, and it counts for nothing; where that fails as well, it is listed as failed, and
            // counts.
            match documents.delete(&document).await {
                Ok(()) => {
                    counting.nothing_stays().await;
                    if let Some(before) = &there {
                        app.metering.forget(tenant, before, app.now()).await?;
                    }
                }
                Err(_) => counting.stored().await,
            }
            return Err(error);
        }
    };
    // Two uploads that replace each other would wait for one another. The document is stored, and needs its turn no
    // more.
    drop(turn);
    if let Some(old) = replace.filter(|old| *old != document.id) {
        // In its turn: a deletion of the same document at the same time must not count it twice.
        removal::remove(app, tenant, old, Removal::Replaced).await?;
    }
    app.metrics.documents.inc();
    Ok(Stored { document, counted: true, standing })
}

/// A document that is being stored. The bytes of its file are dropped.
fn begun(id: String, file: File, passages: usize, now: Timestamp) -> Document {
    Document {
        id,
        title: file.title,
        media_type: Kind::of(&file.bytes).media_type().into(),
        bytes: size(&file.bytes),
        passages,
        state: DocumentState::Processing,
        uploaded_at: now,
        upload: Some(new_upload()),
        counted_at: now,
    }
}

fn size(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

/// Counts a document and the text that is embedded of it. A plan that holds no more has it read in vain.
async fn count(
    app: &App,
    tenant: &Served,
    (document, counts): (&Document, bool),
    passages: &[&str],
) -> Result<Counting, Problem> {
    let text = i64::try_from(passages.iter().map(|passage| passage.len()).sum::<usize>()).unwrap_or(i64::MAX);
    let tokens = passages.iter().map(|passage| estimate(passage.len())).sum();
    let new = NewDocument { document, counts, text, tokens };
    app.metering.document(tenant, new, app.now()).await.inspect_err(|problem| {
        if problem.is(Code::QuotaExceeded) {
            app.refusals.note(&tenant.uid);
        }
    })
}

/// The first page of a tenant's documents.
pub async fn first_page(app: &App, tenant: &Served) -> Result<Vec<Document>, Problem> {
    Ok(list(app, tenant, None).await?.documents)
}

async fn list(app: &App, tenant: &Served, after: Option<&str>) -> Result<Page, Problem> {
    let shelf = Shelf::of(app, tenant).await?;
    Ok(Party::scope(&tenant.uid, shelf.documents().list(after, app.now())).await?)
}

fn no_document() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, Code::NoDocument, "There is no document with this id.")
}

/// Which page.
#[derive(Deserialize, IntoParams)]
pub struct PageQuery {
    /// `next` of the page before.
    after: Option<String>,
}

/// Lists the tenant's documents, 100 a page.
#[utoipa::path(
    get, path = "/v1/documents", tag = "tenant API", params(PageQuery), security(("api_key" = [])),
    responses((status = 200, body = Page), (status = 502, body = ProblemBody))
)]
pub async fn list_documents(
    State(app): State<Arc<App>>,
    Query(page): Query<PageQuery>,
    Admitted(tenant): Admitted,
) -> Result<Json<Page>, Problem> {
    list(&app, &tenant, page.after.as_deref()).await.map(Json)
}

/// One document.
#[utoipa::path(
    get, path = "/v1/documents/{id}", tag = "tenant API", security(("api_key" = [])),
    params(("id" = String, Path, description = "The document's id", example = "9f86d081884c7d659a2feaa0c55ad015")),
    responses((status = 200, body = Document),
        (status = 404, description = "There is no document with this id", body = ProblemBody, example = json!(no_document().body())),
        (status = 502, body = ProblemBody))
)]
pub async fn get_document(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Admitted(tenant): Admitted,
) -> Result<Json<Document>, Problem> {
    let shelf = Shelf::of(&app, &tenant).await?;
    Party::scope(&tenant.uid, shelf.documents().get(&id, app.now())).await?.map(Json).ok_or_else(no_document)
}

/// Deletes a document and all its passages.
#[utoipa::path(
    delete, path = "/v1/documents/{id}", tag = "tenant API", security(("api_key" = [])),
    params(("id" = String, Path, description = "The document's id", example = "9f86d081884c7d659a2feaa0c55ad015")),
    responses((status = 204, description = "It is deleted"),
        (status = 404, description = "There is no document with this id", body = ProblemBody, example = json!(no_document().body())),
        (status = 502, body = ProblemBody))
)]
pub async fn delete_document(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Admitted(tenant): Admitted,
) -> Result<StatusCode, Problem> {
    if removal::remove(&app, &tenant, &id, Removal::Asked).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(no_document())
    }
}
