//! Which path is whose, and what all of them have in common.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::json;
use tokio::sync::Semaphore;
use tower_http::cors::CorsLayer;
use tower_http::timeout::TimeoutLayer;
use tracing::Instrument;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{documents, idempotency, jwks, openapi, query, usage};
use super::customer::{export, leaving, payment_link, plan, setup, tenant, track};
use super::pages::{PageError, Sorry, show_sorry, wants_page};
use super::serving::bodies::{self, Sender};
use super::serving::problem::Problem;
use super::serving::readiness::ready;
use super::serving::request_ids::{self, REQUEST_ID};
use super::serving::{guards, headers, linger, problem, standing, tokens};
use super::{App, gateway, pages, standings, usage_events, webhooks};
use crate::telemetry::{METRICS_TYPE, log_level};

/// The longest body of a signup or question.
const BODY_LIMIT: usize = 64 << 10;
/// The longest time until an answer begins.
pub const ANSWER_LIMIT: Duration = Duration::from_mins(1);
/// Changes of accounts that are finished where their clients hang up, at the same time.
pub const FINISHING: u32 = 256;

/// The API, and what it says of itself.
fn documented() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(openapi::Doc::openapi())
        .routes(routes!(pages::signup::signup))
        .routes(routes!(pages::links::verify_email))
        .routes(routes!(tokens::log_in))
        .routes(routes!(tenant::verification_email))
        .routes(routes!(tenant::show))
        .routes(routes!(tenant::ticket))
        .routes(routes!(setup::show))
        .routes(routes!(setup::sample_query))
        .routes(routes!(setup::complete))
        .routes(routes!(setup::skip))
        .routes(routes!(plan::change))
        .routes(routes!(payment_link::make))
        .routes(routes!(leaving::delete))
        .routes(routes!(leaving::reactivate))
        .routes(routes!(export::ask, export::show))
        .routes(routes!(export::download))
        .routes(routes!(track::track))
        .routes(routes!(tenant::events))
        .routes(routes!(query::query))
        .routes(routes!(documents::list_documents))
        .routes(routes!(documents::get_document, documents::delete_document))
        .routes(routes!(usage::show_usage))
        .routes(routes!(webhooks::stripe))
}

/// Its calls that take longer than others.
fn uploads() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(documents::store_document)).routes(routes!(setup::upload_document))
}

/// What the owner's other services call. The handler reads the body, once it knows the caller.
fn services() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(usage_events::count))
}

/// The pages for people.
fn site() -> Router<Arc<App>> {
    let to = |path: &'static str| get(async move || Redirect::to(path));
    Router::new()
        .route("/", to("/pricing"))
        .route("/pricing", get(pages::pricing::show))
        // `POST /signup` is the API's, and sends browsers here.
        .route("/signup", get(pages::signup::show))
        .route("/sales", get(pages::leads::sales).post(pages::leads::ask_sales))
        .route("/waitlist", get(pages::leads::waitlist).post(pages::leads::join_waitlist))
        .route("/onboarding/success", to("/account"))
        .route("/login", get(pages::login::show).post(pages::login::submit))
        .route("/logout", post(pages::login::leave))
        .route("/login/mail", get(pages::links::ask_login).post(pages::links::send_login))
        .route("/login/link", get(pages::links::login).post(pages::links::login_submit))
        .route("/password/forgot", get(pages::links::ask_reset).post(pages::links::send_reset))
        .route("/password/new", get(pages::password::show).post(pages::password::submit))
        .route("/invitation", get(pages::password::invitation).post(pages::password::accept))
        // `POST /verify-email` is the API's, and sends browsers here.
        .route("/verify-email", get(pages::links::verify))
        .route("/unsubscribe", get(pages::links::unsubscribe).post(pages::links::unsubscribe_submit))
        .route("/account/verify-email", post(pages::links::resend))
        .route("/account/billing", post(pages::account::billing))
        .route("/account/pay", post(pages::account::pay))
        .route("/account/plan", get(pages::plan::show).post(pages::plan::change))
        .route("/account/close", get(pages::leaving::show).post(pages::leaving::close))
        .route("/account/export", get(pages::export::download).post(pages::export::ask))
        .route("/account/reactivate", post(pages::leaving::reactivate))
        .route("/account/retry", post(pages::account::retry))
        .route("/account", get(pages::account::show))
        .route("/account/events", get(pages::account::events))
        .route("/account/ask", post(pages::account::ask))
        .route("/account/key", post(pages::account::key))
        .route("/account/key/replace", post(pages::account::replace_key))
        .route("/account/setup", post(pages::account::setup))
        .route("/settings/advanced", get(pages::settings::show).post(pages::settings::save))
        .route("/account/documents/policy", post(pages::documents::policy))
        .route("/account/documents/{id}/delete", post(pages::documents::delete))
        .route("/assets/{name}", get(pages::assets::asset))
}

/// What gateways ask. It stands beside the layers that others share: CORS would answer each `OPTIONS` with a yes, and a
/// gateway may send its client's method. No body is waited for.
fn gateways(app: &Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route("/authz", any(gateway::authz))
        .route("/authz/", any(gateway::authz))
        .route("/authz/{*rest}", any(gateway::authz))
        .layer(middleware::from_fn_with_state(app.clone(), standings::tell))
        .layer(middleware::map_response_with_state(app.clone(), last_answer))
}

/// The whole API, for its reference.
pub fn all() -> OpenApiRouter<Arc<App>> {
    documented().merge(uploads()).merge(services()).merge(OpenApiRouter::with_openapi(gateway::Doc::openapi()))
}

/// Everything that the internet reaches.
pub fn public(app: Arc<App>) -> Router {
    let (documented, uploads) = (Router::from(documented()), Router::from(uploads()));
    let plain = Router::new()
        .route("/openapi.json", get(openapi::json))
        .route("/docs", get(pages::api::show))
        .route("/.well-known/jwks.json", get(jwks::jwks))
        .merge(site())
        .route("/health", get(health))
        .route("/healthz", get(async || StatusCode::OK))
        .route("/readyz", get(ready));
    let from = app.config.client_ip.clone();
    let others = documented
        .merge(plain)
        .layer(middleware::from_fn_with_state(app.clone(), finish))
        .layer(middleware::from_fn_with_state(app.clone(), arrive))
        // An event stream begins at once and is not cut by this.
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, ANSWER_LIMIT))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .merge(
            uploads
                .route("/account/documents", post(pages::documents::upload))
                .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, app.config.upload_limit))
                .layer(DefaultBodyLimit::max(bodies::LARGEST_FILE + bodies::FORM)),
        )
        .merge(
            Router::from(services())
                .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, ANSWER_LIMIT)),
        )
        .layer(middleware::from_fn_with_state(app.clone(), guards::limit))
        .layer(middleware::from_fn_with_state(app.clone(), linger::linger))
        .layer(middleware::from_fn_with_state(app.clone(), standings::tell))
        .layer(middleware::from_fn(guards::find))
        .layer(middleware::from_fn_with_state(app.clone(), shape))
        .layer(middleware::map_response_with_state(app.clone(), last_answer))
        .layer(cors(&app.config.frontend_url));
    let all = gateways(&app)
        .merge(others)
        .layer(middleware::map_response_with_state(app.clone(), headers::secure))
        .layer(from.into_extension());
    request_ids::numbered(all).with_state(app)
}

/// Reads a whole body before its handler runs, within a short time and so many of a sender at once: most handlers read
/// it before they know the caller. An API key is checked first, so that strangers take no place of a tenant. The
/// webhook reads its own.
async fn arrive(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() || request.uri().path() == "/webhooks/stripe" {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let sender = if guards::takes_key(&parts) {
        match app.by_api_key(&mut parts).await {
            Ok(tenant) => Sender::Tenant(tenant.uid.clone()),
            Err(problem) => {
                app.lingers.short(&parts.headers, body);
                return problem.into_response();
            }
        }
    } else {
        Sender::client(guards::client(&mut parts).await.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
    };
    match app.bodies.request(sender, body, BODY_LIMIT).await {
        Ok(body) => next.run(Request::from_parts(parts, body.into())).await,
        Err(problem) if !wants_page(&parts.headers) => problem.into_response(),
        Err(problem) if problem.status() == StatusCode::TOO_MANY_REQUESTS => PageError::from(problem).into_response(),
        Err(problem) => Sorry::of_framework(problem).into_response(),
    }
}

/// Finishes what changes an account, also where the client hangs up: a change that is written is audited too. What
/// anyone may ask for, such as to check a password, ends with its connection, or it would cost a client nothing to
/// leave much of it behind. So does a change where too many are under way, as while Kubernetes does not answer.
async fn finish(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if !guards::changes_account(&request) {
        return next.run(request).await;
    }
    let Ok(place) = app.finishing.clone().try_acquire_owned() else { return next.run(request).await };
    let change = async move {
        let answer = tokio::time::timeout(ANSWER_LIMIT, next.run(request)).await;
        drop(place);
        answer
    };
    match tokio::spawn(change.in_current_span()).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Problem::unavailable().into_response(),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(_) => Problem::unavailable().into_response(),
        },
    }
}

/// Waits for the changes whose clients have hung up.
pub async fn finished(finishing: &Semaphore) {
    drop(finishing.acquire_many(FINISHING).await);
}

/// Renders the pages that say what went wrong, and gives the framework's own refusals (wrong method, body too large,
/// not JSON, no such path) the form of all others: a page for a browser, a problem for a program.
async fn shape(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let asked = request.headers().clone();
    let mut response = next.run(request).await;
    if let Some(sorry) = response.extensions_mut().remove::<Sorry>() {
        return problem::keep_headers(&response, show_sorry(&app, &asked, sorry));
    }
    match problem::framework(&response) {
        Some(problem) if wants_page(&asked) => {
            problem::keep_headers(&response, show_sorry(&app, &asked, Sorry::of_framework(problem)))
        }
        Some(problem) => problem::keep_headers(&response, problem.into_response()),
        None => response,
    }
}

/// Once the end was asked for, clients send their next request on another connection, to a replica that stays: one that
/// is kept open would be closed under a request.
async fn last_answer(State(app): State<Arc<App>>, mut response: Response) -> Response {
    if *app.stopping.borrow() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What the cluster alone reaches. Kubernetes probes this port: however many connections the internet holds, its probes
/// are answered.
pub fn metrics(app: Arc<App>) -> Router {
    let encode = async |State(app): State<Arc<App>>| {
        app.metrics.clock_skew.set(app.clock.ahead());
        for (kind, age) in [("tenants", app.trust.age_of_tenants()), ("key", app.trust.key().age())] {
            let seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
            app.metrics.watch_age.get_or_create_owned(&kind.into()).set(seconds);
        }
        let (waiting, refused) = app.metering.journal_entries();
        app.metrics.ledger_journal_entries.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        app.metrics.ledger_journal_refused.set(i64::try_from(refused).unwrap_or(i64::MAX));
        ([("content-type", METRICS_TYPE)], app.metrics.encode())
    };
    let probes = Router::new().route("/healthz", get(async || StatusCode::OK)).route("/readyz", get(ready));
    probes.route("/metrics", get(encode)).with_state(app).merge(log_level::routes())
}

/// The pages of the frontend, and no others, may call from a browser.
fn cors(frontend_url: &str) -> CorsLayer {
    let origin = url::Url::parse(frontend_url).map(|url| url.origin().ascii_serialization());
    let origin = origin.ok().and_then(|origin| HeaderValue::from_str(&origin).ok());
    let exposed = [REQUEST_ID, header::RETRY_AFTER, idempotency::REPLAYED, idempotency::KEPT];
    CorsLayer::new()
        .allow_origin(origin.into_iter().collect::<Vec<_>>())
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, idempotency::KEY])
        .expose_headers(exposed.into_iter().chain(standing::EXPOSED).collect::<Vec<_>>())
        .max_age(Duration::from_hours(1))
}

async fn health() -> Json<serde_json::Value> {
    Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
}
