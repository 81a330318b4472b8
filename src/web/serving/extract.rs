//! Extractors: who calls a handler. A handler that takes one runs only where the check has passed. `pages/extract.rs`
//! has those of pages.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use crate::api::Tenant;
use crate::web::App;

/// Reads the body `B`, then checks the caller `C`. axum by itself extracts the body last; with `Then`, a malformed form
/// or a stale one takes no request from its caller's limit.
pub struct Then<B, C>(pub B, pub C);

impl<B, C> FromRequest<Arc<App>> for Then<B, C>
where
    B: FromRequest<Arc<App>> + Send,
    C: FromRequestParts<Arc<App>>,
{
    type Rejection = Response;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let mut caller = parts.clone();
        let body = B::from_request(Request::from_parts(parts, body), app).await.map_err(IntoResponse::into_response)?;
        let caller = C::from_request_parts(&mut caller, app).await.map_err(IntoResponse::into_response)?;
        Ok(Self(body, caller))
    }
}

/// The tenant of the path `/tenant/{id}`, which the bearer's signup token opens.
pub struct SignupToken(pub Tenant);

impl FromRequestParts<Arc<App>> for SignupToken {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let path = Path::<String>::from_request_parts(parts, app).await;
        let Path(id) = path.map_err(IntoResponse::into_response)?;
        app.by_token(&parts.headers, &id).await.map(Self).map_err(Problem::into_response)
    }
}
