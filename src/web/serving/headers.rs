//! The security headers that every answer carries: a browser can open an error or an API's answer just as it opens a
//! page. Pages carry those of [`page`] as well.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
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

/// Scripts, styles and connections of our own only; no frames. Links, not forms, lead to Stripe.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// What pages carry beside the headers of every answer.
const PAGE: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::REFERRER_POLICY, "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=(), payment=()"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Adds what the handler did not set.
pub async fn secure(State(app): State<Arc<App>>, mut response: Response) -> Response {
    every(response.headers_mut(), app.secure());
    response
}

/// Adds what every answer carries and the handler did not set. `tls` says that browsers come by TLS.
pub fn every(headers: &mut HeaderMap, tls: bool) {
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, TRANSPORT);
    }
}

/// Sets what a page carries.
pub fn page(headers: &mut HeaderMap) {
    for (name, value) in PAGE {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
