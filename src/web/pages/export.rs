//! `/account/export`: asks for an export of everything, and downloads it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;

use super::extract::{Button, CsrfForm, Customer};
use super::{PageResult, go};
use crate::serve::reader::End;
use crate::web::App;
use crate::web::customer::export::{ask_export, send_export};
use crate::web::serving::extract::Then;

/// Asks for one.
pub async fn ask(
    State(app): State<Arc<App>>,
    Then(_, Customer(tenant)): Then<CsrfForm<Button>, Customer>,
) -> PageResult {
    ask_export(&app, &tenant).await?;
    Ok(go("/account#export"))
}

/// Downloads it.
pub async fn download(
    State(app): State<Arc<App>>,
    Extension(end): Extension<End>,
    Customer(tenant): Customer,
) -> PageResult {
    Ok(send_export(&app, &tenant, &end).await?)
}
