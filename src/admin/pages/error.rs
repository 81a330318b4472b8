//! What a handler answers where it has no page to show.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use minijinja::context;

use super::parameters::ParameterError;
use super::render;
use crate::admin::computing::ComputeError;
use crate::plain::CsvError;
use crate::web::serving::problem::Problem;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// A parameter is not what the page takes.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// There is no such Tenant.
    #[error("There is no Tenant {name} in namespace {namespace}. It was deleted, or the address is wrong.")]
    NoSuchTenant {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// There is no such file.
    #[error("There is no such file. Reload the page that names it.")]
    NoSuchFile,
    /// Nothing was computed.
    #[error(transparent)]
    Computing(#[from] ComputeError),
    /// A template does not fit its values.
    #[error(transparent)]
    Template(#[from] minijinja::Error),
    /// The table cannot be written.
    #[error(transparent)]
    Csv(#[from] CsvError),
}

impl PageError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Parameter(_) => StatusCode::BAD_REQUEST,
            Self::NoSuchTenant { .. } | Self::NoSuchFile => StatusCode::NOT_FOUND,
            Self::Computing(ComputeError::NotFilled) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Template(_) | Self::Csv(_) | Self::Computing(ComputeError::Stopped(_)) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let status = self.status();
        let title = match status {
            StatusCode::BAD_REQUEST => "This address has a wrong parameter",
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::SERVICE_UNAVAILABLE => "Please try again in a moment",
            // It is logged, and says nothing of itself.
            _ => return Problem::internal("a page", &self).into_response(),
        };
        match render("admin/message.html", context! { title, text => self.to_string(), menu => true }) {
            Ok(page) => (status, page).into_response(),
            Err(error) => Problem::internal("a page", &error).into_response(),
        }
    }
}
