//! `/openapi.json`, made from the handlers. `/docs` shows it to people.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr};

use crate::rag::ExtractError;
use crate::web::App;
use crate::web::serving::problem::{Code, PROBLEM_JSON, Problem};

const API_KEY: &str = "api_key";
const SIGNUP_TOKEN: &str = "signup_token";
const USAGE_EVENTS_TOKEN: &str = "usage_events_token";

/// What is the same for all paths.
#[derive(OpenApi)]
#[openapi(
    info(title = "API", description = include_str!("openapi.md")),
    modifiers(&Security),
    tags(
        (name = "tenant API", description = "Documents, questions and usage, with the API key"),
        (name = "account", description = "From the signup to the end: payment, plan, export"),
        (name = "setup", description = "The first steps of a new customer"),
        (name = "webhooks", description = "What Stripe calls"),
        (name = "gateways", description = "What a gateway in front of another service asks"),
        (name = "usage events", description = "What your own services report"),
    )
)]
pub struct Doc;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, doc: &mut utoipa::openapi::OpenApi) {
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let token = token.description(Some("A token of `POST /signup` or `POST /tenant/token`")).build();
        let key = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let key = key.description(Some("The tenant's API key, `sk_live_...`")).build();
        let service = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let service = service.description(Some("A token of your own services, `USAGE_EVENTS_TOKEN`")).build();
        let components = doc.components.get_or_insert_default();
        components.add_security_scheme(API_KEY, SecurityScheme::Http(key));
        components.add_security_scheme(SIGNUP_TOKEN, SecurityScheme::Http(token));
        components.add_security_scheme(USAGE_EVENTS_TOKEN, SecurityScheme::Http(service));
        // That of this program is not one for what customers do with the API.
        doc.info.license = None;
    }
}

/// Adds what handlers do not repeat: the errors of every key and token, and the text, content type and example of each
/// error. The first sentence of an operation becomes its title.
pub fn complete(mut doc: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    for item in doc.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post, &mut item.put, &mut item.delete].into_iter().flatten() {
            if let Some(text) = operation.summary.take() {
                // A title is plain text.
                operation.summary = text.split(". ").next().map(|title| title.trim_end_matches('.').replace('`', ""));
                operation.description = Some(
                    [Some(text), operation.description.take()].into_iter().flatten().collect::<Vec<_>>().join("\n\n"),
                );
            }
            for status in usual(operation) {
                operation.responses.responses.entry((*status).into()).or_insert_with(|| RefOr::T(Default::default()));
            }
            for (status, response) in &mut operation.responses.responses {
                if let RefOr::T(response) = response {
                    complete_response(status, response);
                }
            }
        }
    }
    doc
}

/// The errors that every operation has that takes the same key or token.
fn usual(operation: &Operation) -> &'static [&'static str] {
    let security = serde_json::to_value(&operation.security).unwrap_or_default();
    let takes = |scheme: &str| security.as_array().is_some_and(|all| all.iter().any(|one| one.get(scheme).is_some()));
    if takes(API_KEY) {
        &["401", "402", "409", "410", "429", "503"]
    } else if takes(SIGNUP_TOKEN) {
        &["404", "429", "503"]
    } else {
        &["429", "503"]
    }
}

fn complete_response(status: &str, response: &mut utoipa::openapi::Response) {
    if let Some((meaning, problem)) = error(status) {
        let own = response.content.values().find_map(|content| match content {
            RefOr::T(content) => content.example.clone(),
            RefOr::Ref(_) => None,
        });
        let mut content = Content::new(Some(Ref::from_schema_name("ProblemBody")));
        content.example = own.or_else(|| serde_json::to_value(problem.body()).ok());
        response.content = [(PROBLEM_JSON.to_owned(), RefOr::T(content))].into();
        if response.description.is_empty() {
            meaning.clone_into(&mut response.description);
        }
    } else if response.description.is_empty() {
        "Done".clone_into(&mut response.description);
    }
}

/// What an error of this status means where the handler says no more, and an example of it.
fn error(status: &str) -> Option<(&'static str, Problem)> {
    let new = |status, code, detail: &str| Problem::new(status, code, detail);
    Some(match status {
        "400" => (
            "The request is not valid. `fields` says what is wrong with each field",
            Problem::invalid([("email", "is not an e-mail address".to_owned())].into()),
        ),
        "401" => (
            "The key or token is missing or wrong",
            new(
                StatusCode::UNAUTHORIZED,
                Code::Unauthorized,
                "Send your API key as Authorization: Bearer sk_live_... It is missing, wrong, or was replaced.",
            ),
        ),
        "402" => (
            "The account is suspended",
            new(StatusCode::PAYMENT_REQUIRED, Code::Suspended, "This account is suspended; its documents are kept."),
        ),
        "403" => (
            "The plan does not allow this",
            new(StatusCode::FORBIDDEN, Code::QuotaExceeded, "Your plan holds 100 documents. Delete some, or upgrade."),
        ),
        "404" => ("There is no such account, or the token is of another one", Problem::not_found()),
        "408" => (
            "The file took too long to arrive",
            new(StatusCode::REQUEST_TIMEOUT, Code::Slow, "The file took too long to arrive."),
        ),
        "409" => (
            "Not possible in this state. `detail` says what to wait for",
            new(StatusCode::CONFLICT, Code::NotReady, "This account is not ready to be used."),
        ),
        "410" => ("The account is closed", new(StatusCode::GONE, Code::Closed, "This account is closed.")),
        "413" => (
            "The file is larger than 10 MB, or was not stored within the limit",
            new(
                StatusCode::PAYLOAD_TOO_LARGE,
                Code::TooLarge,
                "The file is larger than 10 MB. Split it and upload the parts.",
            ),
        ),
        "415" => (
            "The file is neither a PDF nor plain text",
            new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Code::Unreadable(ExtractError::UnknownKind),
                "This file is neither a PDF nor plain text. Save it as one of them and upload it again.",
            ),
        ),
        "422" => (
            "The file gives no text. `code` says why",
            new(
                StatusCode::UNPROCESSABLE_ENTITY,
                Code::Unreadable(ExtractError::Empty),
                "This file holds no text. If it is a scan, run it through text recognition (OCR) first.",
            ),
        ),
        "429" => (
            "Too many requests: `Retry-After` says when to try again. With the code `quota_exceeded`, the plan's limit of \
             the period is used up, for up to 31 days",
            Problem::too_many(Duration::from_secs(2)),
        ),
        "501" => (
            "This service does not offer it",
            new(StatusCode::NOT_IMPLEMENTED, Code::NoExports, "You cannot make an export here. Please write to us."),
        ),
        "502" => ("A provider did not answer. Try again", Problem::provider()),
        "503" => ("Not possible at the moment. Try again", Problem::unavailable()),
        _ => return None,
    })
}

/// `GET /openapi.json`
pub async fn json(State(app): State<Arc<App>>) -> Response {
    Json(&app.openapi).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::web::api_document;

    /// Whether the document is valid, and its examples fit, is for tests/browser/reference.mjs.
    #[test]
    fn every_operation_has_a_name_of_its_own_a_tag_and_answers_that_are_described() {
        let document = serde_json::to_value(api_document()).expect("JSON");
        let tags = document["tags"].as_array().expect("tags").iter().map(|tag| tag["name"].clone()).collect::<Vec<_>>();
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("operations") {
                let place = format!("{method} {path}");
                let name = operation["operationId"].as_str().expect("a name");
                assert!(names.insert(name.to_owned()), "{place}: another operation is called {name}");
                assert!(tags.contains(&operation["tags"][0]), "{place}: its tag has no description");
                let title = operation["summary"].as_str().expect("a title");
                assert!(!title.is_empty() && !title.contains('`'), "{place}: {title}");
                for (status, answer) in operation["responses"].as_object().expect("answers") {
                    assert_ne!(answer["description"], "", "{place}: {status}");
                    if status.as_str() >= "400" {
                        let example = &answer["content"][PROBLEM_JSON]["example"];
                        assert_eq!(example["status"].to_string(), *status, "{place}: {answer}");
                    }
                }
                let takes_key = operation["security"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|one| one.get(API_KEY).is_some()));
                let of_a_service = path == "/v1/usage/events";
                assert_eq!(takes_key, path.starts_with("/v1/") && !of_a_service || path == "/authz", "{place}");
                assert!(!takes_key || operation["responses"]["402"] != Value::Null, "{place}: a suspended account");
            }
        }
    }
}
