//! The figures for programs, as JSON and CSV. `docs/funnel.md` defines each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;

use super::Admin;
use super::computing::ComputeError;
use super::session::Reader;
use crate::analytics::{ActivationMetrics, Funnel, Journey, Span, Stuck, stuck};
use crate::api::Timestamp;
use crate::plain::{CsvError, plain};
use crate::web::serving::problem::{Code, Problem};

/// Days that a span of signups has where the request says none.
pub const DAYS: i64 = 30;
/// The most days: ten years.
pub const MOST_DAYS: i64 = 3650;
/// When to ask again while the Tenants are not known yet.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest name of a parameter that an answer repeats, in characters.
const LONGEST_NAME: usize = 40;

/// The paths of the figures.
pub fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/analytics/activation-funnel", get(activation_funnel))
        .route("/analytics/stuck-customers", get(stuck_customers))
        .route("/activation/metrics", get(activation_metrics))
}

/// In which form a figure is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Csv,
}

impl Format {
    /// Of a request that names none in its URL.
    fn accepted(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        if accept.contains("text/csv") { Self::Csv } else { Self::Json }
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    /// Of how many days the signups are. Only paths of figures with a span take it.
    days: i64,
    /// None where the URL says none.
    format: Option<Format>,
}

/// What a path takes, by name.
const WITH_DAYS: &[&str] = &["days", "format"];
const WITHOUT_DAYS: &[&str] = &["format"];

impl Asked {
    /// Reads the parameters. One that the path does not take, or takes once and gets twice, is refused: it would be
    /// passed over otherwise, and the figures be those of something else.
    fn of(query: &str, known: &'static [&'static str]) -> Result<Self, Problem> {
        let mut asked = Self { days: DAYS, format: None };
        let mut seen = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let Some(name) = known.iter().find(|known| **known == name) else {
                return Err(unknown(&name, known));
            };
            if seen.contains(name) {
                return Err(wrong(name, "appears more than once"));
            }
            seen.push(*name);
            if *name == "days" {
                let days = value.parse().ok().filter(|days| (1..=MOST_DAYS).contains(days));
                let range = || wrong(name, &format!("must be a whole number from 1 to {MOST_DAYS}"));
                asked.days = days.ok_or_else(range)?;
            } else {
                asked.format = Some(match &*value {
                    "json" => Format::Json,
                    "csv" => Format::Csv,
                    _ => return Err(wrong(name, "must be json or csv")),
                });
            }
        }
        Ok(asked)
    }
}

/// The question of a caller who may ask it, about figures with a span of time or without one.
struct Question<const SPAN: bool> {
    days: i64,
    format: Format,
}

impl<const SPAN: bool> FromRequestParts<Arc<Admin>> for Question<SPAN> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Self, Response> {
        Reader::from_request_parts(parts, admin).await?;
        let known = if SPAN { WITH_DAYS } else { WITHOUT_DAYS };
        let asked = Asked::of(parts.uri.query().unwrap_or_default(), known).map_err(IntoResponse::into_response)?;
        let format = asked.format.unwrap_or_else(|| Format::accepted(&parts.headers));
        Ok(Self { days: asked.days, format })
    }
}

fn wrong(name: &'static str, why: &str) -> Problem {
    Problem::invalid(BTreeMap::from([(name, why.to_owned())]))
}

fn unknown(name: &str, known: &[&str]) -> Problem {
    let name: String = plain(name).chars().take(LONGEST_NAME).collect();
    let detail = format!("There is no parameter {name:?} here. This path takes: {}.", known.join(", "));
    Problem::new(StatusCode::BAD_REQUEST, Code::Invalid, detail)
}

impl Admin {
    /// Figures of all customers, and of the present.
    pub async fn figures<T: Send + 'static>(
        &self,
        of: impl FnOnce(&[Journey], Timestamp) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        if self.tenants.is_old() {
            let detail = "The API server has not answered for minutes, so the figures would be old. The log of the ledger says why.";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, Code::NotReady, detail).after(AGAIN));
        }
        let figures = self.computed(|tenants, now| {
            let journeys: Vec<_> = tenants.iter().filter_map(|tenant| Journey::of(tenant)).collect();
            of(&journeys, now)
        });
        figures.await.map_err(|error| match error {
            ComputeError::NotFilled => {
                let not_filled = Problem::new(StatusCode::SERVICE_UNAVAILABLE, Code::NotReady, error.to_string());
                not_filled.after(AGAIN)
            }
            ComputeError::Stopped(error) => Problem::internal("figures", &error),
        })
    }
}

/// The figures in the form that was asked for. `name` is that of the file which a browser saves.
fn answer<F: Serialize>(
    figures: &F,
    csv: impl Fn(&F) -> Result<String, CsvError>,
    name: &str,
    format: Format,
) -> Result<Response, Problem> {
    let (text, kind) = match format {
        Format::Json => (
            serde_json::to_string_pretty(figures).map_err(|error| Problem::internal("figures as JSON", &error))? + "\n",
            "application/json",
        ),
        Format::Csv => {
            (csv(figures).map_err(|error| Problem::internal("figures as CSV", &error))?, "text/csv; charset=utf-8")
        }
    };
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if format == Format::Csv
        && let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}.csv\""))
    {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// `GET /analytics/activation-funnel`
async fn activation_funnel(
    State(admin): State<Arc<Admin>>,
    Question { days, format }: Question<true>,
) -> Result<Response, Problem> {
    let funnel = admin.figures(move |all, now| Funnel::of(all, Span::days_before(now, days))).await?;
    answer(&funnel, Funnel::csv, "activation-funnel", format)
}

/// `GET /analytics/stuck-customers`
async fn stuck_customers(
    State(admin): State<Arc<Admin>>,
    Question { format, .. }: Question<false>,
) -> Result<Response, Problem> {
    answer(&admin.figures(stuck).await?, Stuck::csv, "stuck-customers", format)
}

/// `GET /activation/metrics`
async fn activation_metrics(
    State(admin): State<Arc<Admin>>,
    Question { days, format }: Question<true>,
) -> Result<Response, Problem> {
    let metrics = admin.figures(move |all, now| ActivationMetrics::of(all, Span::days_before(now, days))).await?;
    answer(&metrics, ActivationMetrics::csv, "activation-metrics", format)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(query: &str, known: &'static [&'static str]) -> String {
        let problem = Asked::of(query, known).expect_err(query);
        assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
        problem.detail().to_owned()
    }

    #[test]
    fn days_have_a_default_and_a_range() {
        let days = |query| Asked::of(query, WITH_DAYS).expect(query).days;
        assert_eq!((days(""), days("days=1"), days("days=3650")), (30, 1, 3650));
        for query in [
            "days=0",
            "days=-1",
            "days=3651",
            "days=9999999",
            "days=abc",
            "days=",
            "days=1.5",
            "days=99999999999999999999",
        ] {
            assert_eq!(refused(query, WITH_DAYS), "days must be a whole number from 1 to 3650", "{query}");
        }
        assert_eq!(refused("days=1&days=2", WITH_DAYS), "days appears more than once");
    }

    #[test]
    fn what_a_path_does_not_take_is_named() {
        assert_eq!(refused("day=1", WITH_DAYS), "There is no parameter \"day\" here. This path takes: days, format.");
        assert!(refused("days=1", WITHOUT_DAYS).contains("This path takes: format."));
        let long = refused(&format!("%1b[2J{}=1", "a".repeat(5000)), WITH_DAYS);
        assert!(long.len() < 120 && !long.contains('\u{1b}'), "{long}");
    }

    #[test]
    fn the_url_says_the_form_or_else_the_header_does() {
        let format = |query| Asked::of(query, WITH_DAYS).expect(query).format;
        assert_eq!(
            (format("format=csv"), format("format=json"), format("days=1")),
            (Some(Format::Csv), Some(Format::Json), None)
        );
        assert_eq!(refused("format=xml", WITH_DAYS), "format must be json or csv");
        let accepted = |accept: &'static str| {
            Format::accepted(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
        };
        assert_eq!((accepted("text/csv"), accepted("*/*")), (Format::Csv, Format::Json));
        assert_eq!(Format::accepted(&HeaderMap::new()), Format::Json);
    }
}
