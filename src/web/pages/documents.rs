//! Documents on the customer's page.

use std::sync::Arc;

use axum::Form;
use axum::extract::{FromRequest, Multipart, Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::account::{Confirm, Customer, Shown};
use crate::web::App;
use crate::web::api::documents::{self, File};
use crate::web::places::Place;
use crate::web::problem::Problem;

/// The policy that a customer can try with one click.
const POLICY: &[u8] = include_bytes!("assets/policy.pdf");

/// Stores a file from the page's form.
pub async fn upload(State(app): State<Arc<App>>, headers: HeaderMap, request: Request) -> Response {
    // Before the body is read: it is large.
    let tenant = match app.customer(&headers).await {
        Ok(tenant) => tenant,
        Err(other) => return other,
    };
    // A signup that is not paid for takes no place of those who upload.
    let Some(served) = app.served(&tenant) else { return super::go("/account") };
    let place = match app.uploads.take(&served.uid).await {
        Ok(place) => place,
        Err(problem) => return app.sorry(&headers, problem),
    };
    let (csrf, file) = match place.deadline.arrived(request, form).await {
        Ok(form) => form,
        Err(problem) => return app.sorry(&headers, problem),
    };
    match app.active_customer(&headers, &csrf).await {
        Ok(customer) => store(&app, &headers, customer, file, place).await,
        Err(other) => other,
    }
}

/// Stores the policy that comes with the product.
pub async fn policy(State(app): State<Arc<App>>, headers: HeaderMap, Form(form): Form<Confirm>) -> Response {
    let customer = match app.active_customer(&headers, form.csrf()).await {
        Ok(customer) => customer,
        Err(other) => return other,
    };
    match app.uploads.take(&customer.served.uid).await {
        Ok(place) => {
            store(&app, &headers, customer, File::new("Travel and vacation policy.pdf", POLICY.to_vec()), place).await
        }
        Err(problem) => app.sorry(&headers, problem),
    }
}

async fn form(request: Request) -> Result<(String, File), Problem> {
    let malformed = || Problem::new(StatusCode::BAD_REQUEST, "malformed", "The form cannot be read. Please try again.");
    let mut form = Multipart::from_request(request, &()).await.map_err(|_| malformed())?;
    let (mut csrf, mut file) = (String::new(), File::new("", Vec::new()));
    while let Some(field) = form.next_field().await.map_err(|_| malformed())? {
        match field.name() {
            Some("csrf") => csrf = field.text().await.map_err(|_| malformed())?,
            Some("file") => file = documents::field(field).await?,
            _ => {}
        }
    }
    Ok((csrf, file))
}

async fn store(app: &Arc<App>, headers: &HeaderMap, customer: Customer, file: File, place: Place) -> Response {
    let Customer { tenant, served } = customer;
    match documents::stored(app, &served, file, None, place).await {
        Ok(_) => super::go("/account#documents"),
        Err(problem) => {
            let shown = Shown {
                status: Some(problem.status()),
                document_error: Some(problem.detail().to_owned()),
                ..Shown::default()
            };
            app.account(headers, &tenant, shown).await
        }
    }
}

/// Deletes a document.
pub async fn delete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(form): Form<Confirm>,
) -> Response {
    let served = match app.active_customer(&headers, form.csrf()).await {
        Ok(customer) => customer.served,
        Err(other) => return other,
    };
    match documents::remove(&app, &served, &id).await {
        Ok(_) => super::go("/account#documents"),
        Err(problem) => app.sorry(&headers, problem),
    }
}
