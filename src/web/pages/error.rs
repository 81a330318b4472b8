//! What a page's handler answers where it cannot do what was asked.

use axum::Extension;
use axum::extract::rejection::FormRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::go;
use crate::web::App;
use crate::web::serving::problem::{Code, Problem};

/// A page, or why there is none.
pub type PageResult = Result<Response, PageError>;

/// Why a page's handler gives up.
#[derive(Debug)]
pub enum PageError {
    /// Sends the browser to another page.
    Go(&'static str),
    /// The form was open for too long, or comes from another site.
    Stale,
    /// A page says what is wrong.
    Problem(Problem),
    /// The form cannot be read.
    Form(FormRejection),
}

impl From<Problem> for PageError {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<kube::Error> for PageError {
    fn from(error: kube::Error) -> Self {
        Self::Problem(error.into())
    }
}

impl From<FormRejection> for PageError {
    fn from(rejection: FormRejection) -> Self {
        Self::Form(rejection)
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        match self {
            Self::Go(to) => go(to),
            Self::Stale => Sorry::stale().into_response(),
            Self::Problem(problem) => Sorry::of(problem).into_response(),
            Self::Form(rejection) => rejection.into_response(),
        }
    }
}

/// A page that says what went wrong. As a response it has no body yet: a page carries its visitor's cookie and token,
/// so `routes::shape`, which knows the request, renders it.
#[derive(Clone, Debug)]
pub struct Sorry {
    title: &'static str,
    text: String,
    problem: Problem,
}

impl Sorry {
    fn of(problem: Problem) -> Self {
        let title = match problem.status() {
            StatusCode::TOO_MANY_REQUESTS => "Please wait a moment",
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::GONE => "This link is no longer valid",
            status if status.is_server_error() => "This did not work",
            _ => "That is not possible",
        };
        Self { title, text: problem.detail().to_owned(), problem }
    }

    fn stale() -> Self {
        let text = "This page was open for too long. Go back, reload it, and try again.";
        let problem = Problem::new(StatusCode::FORBIDDEN, Code::Stale, text);
        Self { title: "Please try again", text: text.into(), problem }
    }

    /// What the framework refused of a browser.
    pub fn of_framework(problem: Problem) -> Self {
        let (title, text) = match problem.status() {
            StatusCode::NOT_FOUND => ("Not found", "There is nothing at this address. Please check the link."),
            StatusCode::PAYLOAD_TOO_LARGE => {
                ("That is not possible", "What you sent is too large. Shorten it, then try again.")
            }
            status if status.is_server_error() => ("This did not work", problem.detail()),
            _ => ("That is not possible", "The form could not be read. Go back, reload the page, and try again."),
        };
        Self { title, text: text.to_owned(), problem }
    }
}

impl IntoResponse for Sorry {
    fn into_response(self) -> Response {
        (self.problem.status(), Extension(self)).into_response()
    }
}

/// Renders what went wrong for the visitor of a request.
pub fn show_sorry(app: &App, headers: &HeaderMap, Sorry { title, text, problem }: Sorry) -> Response {
    let page = app.message(problem.status(), headers, title, &text);
    page.unwrap_or_else(|_| problem.into_response())
}
