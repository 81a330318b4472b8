//! `/authz`: what a gateway in front of another service asks before it lets a request through, such as nginx
//! (`auth_request`), Traefik (`ForwardAuth`), Envoy (`ext_authz` over HTTP) or an implementation of the Gateway API. It
//! comes with the client's API key, and learns whose it is and what its plan leaves. `docs/gateways.md` has a recipe
//! for each.

mod answer;
mod quota;
mod settings;

use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use utoipa::OpenApi;

use crate::access_tokens;
use crate::serve::client::network;
use crate::web::App;
use crate::web::api::keys::unauthorized;
use crate::web::metering::Queries;
use crate::web::serving::directory::Served;
use crate::web::serving::guards;
use crate::web::serving::problem::{Code, Problem, ProblemBody};
use crate::web::serving::request_ids::GivenRequestId;

use settings::{Mode, Once, Settings, Statuses};

pub use settings::PATH;

/// The other header that a key may come in.
const API_KEY: &str = "x-api-key";

/// What gateways ask: its route takes any method, which a router that documents its routes cannot say.
#[derive(OpenApi)]
#[openapi(paths(authz))]
pub struct Doc;

/// Tells a gateway whether to let its client's request through, and whose it is. The key comes as `Authorization:
/// Bearer` or `X-API-Key`. Any method is answered in the same way, and so is each path below `/authz/`; no body is
/// used. No ingress of the chart leads here.
#[utoipa::path(
    get, path = "/authz", tag = "gateways", security(("api_key" = [])),
    params(
        ("consume" = Option<String>, Query, example = "queries:1",
            description = "Counts a query, or as many as follow the colon. Without it, nothing is counted."),
        ("once" = Option<String>, Query, example = "x-request-id",
            description = "The header that names a request, which is counted once however often it is sent: \
                `x-request-id` or `idempotency-key`. The gateway must set it."),
        ("quota_status" = Option<String>, Query, example = "429",
            description = "`429`: refusals have the statuses of the tenant API. `403`, the default: all but 400 \
                and 401 are 403."),
    ),
    responses(
        (status = 200, description = "Let it through. The headers name the tenant and say what is left",
            headers(
                ("X-Tenant-Id" = String, description = "The tenant's id"),
                ("X-Tenant-Namespace" = String, description = "The namespace of its vectors"),
                ("X-Tenant-Plan" = String, description = "Its plan"),
                ("X-Quota-Limit" = String, description = "Queries of its plan in a period; empty if there is no limit"),
                ("X-Quota-Remaining" = String, description = "What is left of them; empty if it is not known"),
                ("X-Quota-Reset" = String, description = "Seconds until the period ends"),
                ("X-Quota-Status" = String, description = "`ok`, or `unknown` while usage cannot be read"),
                ("RateLimit-Policy" = String, description = "The limits of the period"),
                ("RateLimit" = String, description = "What is left of each, as far as it is known"),
            )),
        (status = 400, body = ProblemBody, description = "The gateway's URL is wrong",
            example = json!(malformed("quota_status is 403 or 429.").body())),
        (status = 403, body = ProblemBody, description = "Do not let it through. `X-Refusal` says why, \
            `X-Quota-Status` what it has to do with the quota: `exceeded`, `too_many_requests` or `unavailable`"),
    )
)]
pub async fn authz(State(app): State<Arc<App>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let unread = !body.is_end_stream();
    // Nothing waits for it: some gateways announce their client's body and send none.
    if unread {
        app.lingers.short(&parts.headers, body);
    }
    let mut response = respond(&app, &mut parts).await;
    if unread {
        // Where the body never comes, the gateway's next request on this connection would be read as the body.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn respond(app: &App, parts: &mut Parts) -> Response {
    let settings = match Settings::of(parts.uri.path(), parts.uri.query()) {
        Ok(settings) => settings,
        Err(why) => return answer::refused(malformed(why), Statuses::Own),
    };
    let decided = decide(app, parts, settings).await;
    let decided = decided.and_then(|(tenant, queries)| answer::admitted(&tenant, queries, app.now()));
    decided.unwrap_or_else(|problem| answer::refused(problem, settings.statuses))
}

async fn decide(app: &App, parts: &mut Parts, settings: Settings) -> Result<(Arc<Served>, Queries), Problem> {
    let tenant = match by_key(app, &parts.headers).await {
        Err(problem) if problem.is(Code::Unauthorized) => {
            // Real keys do not share this limit: a client that guesses keys behind a gateway keeps none of the others
            // out.
            let guesser = guards::client(parts).await.map(|client| app.clients.take(&network(client)));
            return Err(guesser.and_then(Result::err).map_or(problem, Problem::too_many));
        }
        other => other?,
    };
    let queries = match settings.mode {
        Mode::Check => quota::look_at_quota(app, &tenant).await?,
        Mode::Consume(queries) => {
            let name = settings.once.and_then(|once| Some((once, name(once, parts)?)));
            quota::consume(app, &tenant, queries, name).await?
        }
    };
    Ok((tenant, queries))
}

/// The tenant of the request's key, with one of its requests of this second taken. Only a key that is good takes from
/// the tenant's requests: the holder of a revoked key must not use them up.
async fn by_key(app: &App, headers: &HeaderMap) -> Result<Arc<Served>, Problem> {
    let claims = app.verified(key(headers).ok_or_else(unauthorized)?).await?;
    let tenant = app.admitted(&claims).await?;
    app.requests.take(&tenant.uid).map_err(Problem::too_many)?;
    Ok(tenant)
}

/// The key: in a header of its own, or as the tenant API takes it. Where a header comes twice, the gateway and the
/// service behind it may read different ones.
pub fn key(headers: &HeaderMap) -> Option<&str> {
    if headers.contains_key(API_KEY) {
        let mut values = headers.get_all(API_KEY).iter();
        return values.next().filter(|_| values.next().is_none())?.to_str().ok();
    }
    access_tokens::shown(headers)
}

/// What names the request.
fn name(once: Once, parts: &Parts) -> Option<&HeaderValue> {
    match once {
        // Web gives each request an id of its own.
        Once::RequestId => parts.extensions.get().map(|GivenRequestId(given)| given),
        Once::IdempotencyKey => parts.headers.get("idempotency-key"),
    }
}

fn malformed(why: &str) -> Problem {
    let detail = format!("The gateway asks for {} in a way that this service does not know. {why}", settings::PATH);
    Problem::new(StatusCode::BAD_REQUEST, Code::Malformed, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_in_one_header_once() {
        let read = |headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            key(&map).map(str::to_owned)
        };
        assert_eq!(read(&[("authorization", "Bearer sk_live_a")]).as_deref(), Some("sk_live_a"));
        assert_eq!(read(&[("x-api-key", "sk_live_a")]).as_deref(), Some("sk_live_a"));
        assert_eq!(
            read(&[("x-api-key", "sk_live_a"), ("authorization", "Basic eA==")]).as_deref(),
            Some("sk_live_a"),
            "the service behind the gateway has its own log-in"
        );
        for headers in [
            &[][..],
            &[("authorization", "Basic eA==")],
            &[("authorization", "sk_live_a")],
            &[("authorization", "Bearer sk_live_a"), ("authorization", "Bearer sk_live_b")],
            &[("x-api-key", "sk_live_a"), ("x-api-key", "sk_live_a"), ("authorization", "Bearer sk_live_a")],
        ] {
            assert_eq!(read(headers), None, "{headers:?}");
        }
    }
}
