//! Documents on the customer's page.

use std::sync::Arc;

use axum::extract::{FromRequest, Multipart, Path, Request, State};
use axum::http::{HeaderMap, StatusCode};

use super::account::{self, Shown};
use super::extract::{ActiveCustomer, Button, CsrfForm};
use super::{PageResult, go};
use crate::web::App;
use crate::web::api::documents;
use crate::web::api::file::{self, File};
use crate::web::api::removal::{self, Removal};
use crate::web::serving::extract::Then;
use crate::web::serving::places::UploadPlace;
use crate::web::serving::problem::{Code, Problem};

/// The policy that a customer can try with one click.
const POLICY: &[u8] = include_bytes!("assets/policy.pdf");

/// Stores a file from the page's form. The customer is checked before the body is read, because it is large: a signup
/// that is not paid for takes no place of those who upload.
pub async fn upload(
    State(app): State<Arc<App>>,
    ActiveCustomer { served, .. }: ActiveCustomer,
    headers: HeaderMap,
    request: Request,
) -> PageResult {
    let place = app.uploads.take(&served.uid).await?;
    let (csrf, file) = place.deadline.arrived(request, form).await?;
    app.check_form(&headers, &csrf)?;
    let customer = ActiveCustomer::of(&app, &headers).await?;
    Box::pin(store(&app, &headers, customer, file, place)).await
}

/// Stores the policy that comes with the product.
pub async fn policy(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Then(_, customer): Then<CsrfForm<Button>, ActiveCustomer>,
) -> PageResult {
    let place = app.uploads.take(&customer.served.uid).await?;
    let file = File::new("Travel and vacation policy.pdf", POLICY.to_vec());
    Box::pin(store(&app, &headers, customer, file, place)).await
}

async fn form(request: Request) -> Result<(String, File), Problem> {
    let malformed =
        || Problem::new(StatusCode::BAD_REQUEST, Code::Malformed, "The form cannot be read. Please try again.");
    let mut form = Multipart::from_request(request, &()).await.map_err(|_| malformed())?;
    let (mut csrf, mut file) = (String::new(), File::new("", Vec::new()));
    while let Some(field) = form.next_field().await.map_err(|_| malformed())? {
        match field.name() {
            Some("csrf") => csrf = field.text().await.map_err(|_| malformed())?,
            Some("file") => file = file::field(field).await?,
            _ => {}
        }
    }
    Ok((csrf, file))
}

async fn store(
    app: &Arc<App>,
    headers: &HeaderMap,
    ActiveCustomer { tenant, served }: ActiveCustomer,
    file: File,
    place: UploadPlace,
) -> PageResult {
    match documents::stored(app, &served, file, None, place).await {
        Ok(_) => Ok(go("/account#documents")),
        Err(problem) => {
            let shown = Shown {
                status: Some(problem.status()),
                document_error: Some(problem.detail().to_owned()),
                ..Shown::default()
            };
            account::page(app, headers, &tenant, shown).await
        }
    }
}

/// Deletes a document.
pub async fn delete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Then(_, customer): Then<CsrfForm<Button>, ActiveCustomer>,
) -> PageResult {
    removal::remove(&app, &customer.served, &id, Removal::Asked).await?;
    Ok(go("/account#documents"))
}
