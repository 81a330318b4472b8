//! Which path is whose on the admin port, and what all of them have in common.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use tower_http::timeout::TimeoutLayer;

use super::{Admin, figures, pages, session};
use crate::web::serving::problem::{self, Code, Problem};
use crate::web::serving::{headers, request_ids};

/// The longest body: the form to log in has some hundred bytes.
const BODY: usize = 16 << 10;
/// The longest time until an answer begins.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Everything that the port serves.
pub fn routes(admin: Arc<Admin>) -> Router {
    let all = Router::new()
        .route("/", get(async || Redirect::to("/admin")))
        .route("/admin/login", get(session::show).post(session::log_in))
        .route("/admin/logout", post(session::log_out))
        .route("/healthz", get(async || StatusCode::OK))
        .route("/readyz", get(ready))
        .merge(pages::routes())
        .merge(figures::routes())
        // A browser sends the session's cookie to paths below /admin alone.
        .nest("/admin", figures::routes())
        .fallback(no_such_path)
        .layer(DefaultBodyLimit::max(BODY))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, ANSWER_LIMIT))
        .layer(middleware::map_response_with_state(admin.clone(), shape));
    request_ids::numbered(all).with_state(admin)
}

/// Whether the Tenants are known.
async fn ready(State(admin): State<Arc<Admin>>) -> (StatusCode, &'static str) {
    if !admin.tenants.is_filled() {
        (StatusCode::SERVICE_UNAVAILABLE, "reading the Tenants")
    } else if admin.tenants.is_old() {
        (StatusCode::SERVICE_UNAVAILABLE, "the API server does not answer")
    } else {
        (StatusCode::OK, "ready")
    }
}

async fn no_such_path() -> Problem {
    let detail = "There is nothing at this path. The pages begin at /admin.";
    Problem::new(StatusCode::NOT_FOUND, Code::NoSuchPath, detail)
}

/// Gives the framework's own refusals the form of all others, and each answer its headers. Nothing but the files of
/// pages, which say so themselves, is kept by a browser or a proxy.
async fn shape(State(admin): State<Arc<Admin>>, response: Response) -> Response {
    let mut response = match problem::framework(&response) {
        Some(problem) => problem::keep_headers(&response, worded(problem).into_response()),
        None => response,
    };
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_page = kind.is_some_and(|kind| kind.starts_with("text/html"));
    let headers = response.headers_mut();
    if is_page {
        headers::page(headers);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers::every(headers, admin.tls);
    response
}

/// Web's words lead to its API's description, which this port does not have.
fn worded(problem: Problem) -> Problem {
    if problem.is(Code::Malformed) {
        let detail = "The parameters are not what this path accepts.";
        return Problem::new(problem.status(), Code::Malformed, detail);
    }
    problem
}
