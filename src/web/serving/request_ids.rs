//! An id for each request, which the log and the answer carry. A client does not choose it.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::Response;
use tower_http::request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};

/// The header that carries it.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The request id that came with a request.
#[derive(Clone, Debug)]
pub struct GivenRequestId(pub HeaderValue);

#[derive(Clone, Copy)]
struct RandomId;

impl MakeRequestId for RandomId {
    fn make_request_id<B>(&mut self, _: &axum::http::Request<B>) -> Option<RequestId> {
        HeaderValue::from_str(&hex::encode(rand::random::<[u8; 12]>())).ok().map(RequestId::new)
    }
}

/// Gives each request of these routes an id.
pub fn numbered<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(SetRequestIdLayer::new(REQUEST_ID, RandomId))
        .layer(middleware::from_fn(forget))
}

/// A client does not choose what the audit log says. For a gateway, the id that it chose stays beside the request.
async fn forget(mut request: Request, next: Next) -> Response {
    if let Some(given) = request.headers_mut().remove(REQUEST_ID) {
        request.extensions_mut().insert(GivenRequestId(given));
    }
    next.run(request).await
}
