//! The security headers that every answer carries: a browser can open an error or an API's answer just as it opens a
//! page. What pages allow beyond this is in `pages/mod.rs`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;

use crate::web::App;

/// OWASP's REST Security Cheat Sheet names these for answers that are no pages: nothing in them is loaded, framed or
/// guessed.
const HEADERS: [(HeaderName, &str); 2] = [
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];
/// A year, as browsers' preload lists ask for at least (hstspreload.org).
const TRANSPORT: HeaderValue = HeaderValue::from_static("max-age=31536000; includeSubDomains");

/// Adds what the handler did not set.
pub async fn secure(State(app): State<Arc<App>>, mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if app.secure() {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, TRANSPORT);
    }
    response
}
